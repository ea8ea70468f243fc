#include "cli/manual.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "cli/help.h"
#include "cli/version.h"
#include "lib/base/text.h"

namespace zx::cli {
namespace {

constexpr std::string_view kFindConfig =
    "The first of these that exists is read: the file that --config names, the one that $ZX_CONFIG "
    "names, ./zx.toml, ~/.config/zx/zx.toml, /etc/zx/zx.toml. The first two must exist when they "
    "are given.";

std::string upper(std::string text) {
  for (auto& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

// As an argument of a macro, where a quote would end it.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : troff(text)) out += c == '"' ? std::string("\\(dq") : std::string(1, c);
  return out + "\"";
}

std::string bold(std::string_view text) { return "\\fB" + troff(text) + "\\fR"; }
std::string italic(std::string_view text) { return "\\fI" + troff(text) + "\\fR"; }

std::string header(std::string_view title, int section) {
  // Paths and flags are not hyphenated, lines not stretched.
  return fmt::format(".nr HY 0\n.TH {} {} \"\" {} {}\n.ad l\n",
                     in_quotes(upper(std::string(title))), section,
                     in_quotes("zx " + std::string(version())), in_quotes("zx manual"));
}

std::string section(std::string_view name) { return fmt::format(".SH {}\n", in_quotes(name)); }

std::string item(const std::string& term, std::string_view says) {
  return ".TP\n" + term + "\n" + troff(trim(says)) + "\n";
}

// Paragraphs; lines that begin with a space stand as they are.
std::string prose(std::string_view text) {
  std::string out;
  bool is_literal = false;
  bool after_gap = true;
  const auto switch_to = [&](bool literal) {
    if (literal == is_literal) return;
    out += literal ? ".PP\n.EX\n" : ".EE\n";
    after_gap = after_gap || !literal;
    is_literal = literal;
  };
  for (const auto& line : split(trim(text), '\n')) {
    if (trim(line).empty()) {
      switch_to(false);
      after_gap = true;
      continue;
    }
    switch_to(line.front() == ' ');
    if (!is_literal && after_gap) out += ".PP\n";
    after_gap = false;
    out += troff(line) + "\n";
  }
  switch_to(false);
  return out;
}

std::string literal(std::string_view text) {
  std::string out = ".PP\n.EX\n";
  for (const auto& line : split(trim(text), '\n')) out += troff(line) + "\n";
  return out + ".EE\n";
}

std::string page_name(const Place& place) {
  return place.words.empty() ? "zx" : "zx-" + join(place.words, "-");
}

std::string term_of(const Argument& argument) {
  if (argument.positional) return italic(argument.spelled());
  std::string out;
  if (!argument.short_flag.empty()) out += bold(argument.short_flag);
  if (!argument.long_flag.empty()) out += (out.empty() ? "" : ", ") + bold(argument.long_flag);
  return argument.value.empty() ? out : out + " " + italic(argument.value);
}

std::string options(const commands::Tree& tree, const CLI::App& app) {
  std::string out = section("OPTIONS");
  std::string at = "Flags";
  const auto add = [&](const Argument& argument) {
    if (argument.section != at && !argument.positional) {
      out += fmt::format(".SS {}\n", in_quotes(argument.section));
      at = argument.section;
    }
    std::string says = argument.says;
    if (argument.required) says += says.empty() ? "Required." : " (required)";
    if (!argument.fallback.empty()) says += " (default " + argument.fallback + ")";
    out += item(term_of(argument), says);
  };
  const auto all = arguments_of(tree, app);
  for (const auto& argument : all)
    if (argument.positional) add(argument);
  for (const auto& argument : all)
    if (!argument.positional) add(argument);
  return out;
}

std::string synopsis(const commands::Tree& tree, const Place& place) {
  std::string out = section("SYNOPSIS") + bold(place.name());
  if (tree.handler(place.app) == nullptr)
    return out + " " + italic("COMMAND") + " [" + italic("FLAGS") + "]\n";
  std::string positionals;
  bool has_flags = false;
  for (const auto& argument : arguments_of(tree, *place.app)) {
    const auto term =
        argument.positional
            ? italic(argument.spelled())
            : bold(argument.name()) + (argument.value.empty() ? "" : " " + italic(argument.value));
    if (argument.positional)
      positionals += argument.required ? " " + term : " [" + term + "]";
    else if (argument.required)
      out += " " + term;
    else
      has_flags = true;
  }
  return out + (has_flags ? " [" + italic("FLAGS") + "]" : "") + positionals + "\n";
}

// A status that several codes share is one entry.
std::string exit_statuses(const std::vector<Code>& codes) {
  std::map<int, std::vector<std::string>> meanings;
  meanings[0] = {"done, or nothing to do"};
  for (const auto code : codes) {
    auto& texts = meanings[info(code).exit];
    const std::string meaning(info(code).meaning);
    if (std::find(texts.begin(), texts.end(), meaning) == texts.end()) texts.push_back(meaning);
  }
  std::string out = section("EXIT STATUS");
  for (const auto& [status, texts] : meanings)
    out += item(bold(std::to_string(status)), join(texts, "; or "));
  return out;
}

std::string examples(const commands::LeafDoc& doc) {
  if (doc.examples.empty()) return {};
  std::string out = section("EXAMPLES");
  for (const auto& example : doc.examples)
    out +=
        prose(example.says) + ".RS 4\n" + literal(wrap_command(example.command, 66, "")) + ".RE\n";
  return out;
}

std::string see_also(const std::vector<std::pair<std::string, int>>& pages) {
  std::vector<std::string> names;
  for (const auto& [name, number] : pages)
    names.push_back(fmt::format("{}({})", bold(name), number));
  return section("SEE ALSO") + join(names, ",\n") + "\n";
}

Page leaf_page(const commands::Tree& tree, const Place& place, const std::vector<Place>& leaves) {
  static const commands::LeafDoc kNone;
  const auto* found = tree.doc(place.app);
  const auto& doc = found == nullptr ? kNone : *found;
  const auto name = page_name(place);
  std::string out = header(name, 1);
  out += section("NAME") + troff(name) + " \\- " + troff(place.app->get_description()) + "\n";
  out += synopsis(tree, place);
  out += section("DESCRIPTION") +
         prose(doc.description.empty() ? place.app->get_description() : doc.description);
  out += options(tree, *place.app);
  std::vector<Code> codes{Code::failed, Code::usage, Code::not_found};
  codes.insert(codes.end(), doc.exits.begin(), doc.exits.end());
  out += exit_statuses(codes);
  out += examples(doc);
  out += section("FILES") + item(italic("zx.toml"), std::string(kFindConfig) + " See zx.toml(5).");
  std::vector<std::pair<std::string, int>> others{{"zx", 1}};
  for (const auto& other : leaves)
    if (other.app != place.app && other.words.front() == place.words.front())
      others.emplace_back(page_name(other), 1);
  others.emplace_back("zx.toml", 5);
  return {name + ".1", out + see_also(others)};
}

Page root_page(const commands::Tree& tree, const CLI::App& root, const std::vector<Place>& leaves) {
  const Place place{{}, &root};
  std::string out = header("zx", 1);
  out += section("NAME") + "zx \\- " + troff(root.get_description()) + "\n";
  out += synopsis(tree, place);
  out +=
      section("DESCRIPTION") +
      prose(
          "zx looks at the servers that its configuration names, says what is wrong and why, and "
          "changes what it is told to change.\n\n"
          "Every command that changes something observes first, judges, and makes a plan. With "
          "--dry-run it prints the plan and stops. Otherwise it takes a lock, writes a journal "
          "before each step, looks again right before it acts, reads the effect back, and undoes "
          "what it can when a step fails. A run that was killed can be resumed.\n\n"
          "Results go to standard output, notes and logs to standard error. The global flags may "
          "stand before or after the words of the command.");
  out += section("COMMANDS");
  for (const auto& leaf : leaves)
    out +=
        item(bold(leaf.name()), leaf.app->get_description() + ". See " + page_name(leaf) + "(1).");
  out += item(bold("zx help") + " [" + italic("COMMAND") + "]", "the same as --help.");
  out += options(tree, root);
  out += section("EXIT STATUS") +
         troff(
             "The status says what happened, and the code of an error, in brackets, says it more "
             "closely; with --output json it is error.code.") +
         "\n" + item(bold("0"), "done, or nothing to do");
  std::map<int, std::vector<const CodeInfo*>> by_status;
  for (const auto& code : all_codes()) by_status[code.exit].push_back(&code);
  for (const auto& [status, codes] : by_status) {
    std::vector<std::string> texts;
    for (const auto* code : codes)
      texts.push_back(fmt::format("{} [{}]", code->meaning, code->name));
    out += item(bold(std::to_string(status)), join(texts, "; or "));
  }
  out += section("ENVIRONMENT");
  out += item(bold("ZX_CONFIG"), "the configuration when --config is not given");
  out += item(bold("ZX__PLATFORM__STATE_DIR"),
              "stands for platform.state_dir in the configuration; any key can be set in this way, "
              "in capitals, with two underscores between its parts");
  out += item(bold("CREDENTIALS_DIRECTORY"),
              "where password files with a relative name are looked for, as systemd sets it");
  out += item(bold("NO_COLOR"), "when it is not empty, no colours");
  out += section("FILES");
  out += item(italic("zx.toml"), std::string(kFindConfig) + " See zx.toml(5).");
  out +=
      item(italic("completions/zx.bash") + ", " + italic("_zx") + ", " + italic("zx.fish"),
           "completion for the shells; they ask the binary, so that they know the nodes that the "
           "configuration names");
  std::vector<std::pair<std::string, int>> others;
  for (const auto& leaf : leaves) others.emplace_back(page_name(leaf), 1);
  others.emplace_back("zx.toml", 5);
  return {"zx.1", out + see_also(others)};
}

// "pg.*.nodes.*.port" stands in the table [pg.NAME.nodes.NAME].
struct KeyPlace {
  std::string table;
  std::string key;
};
KeyPlace place_of(const std::string& pattern) {
  std::string named;
  for (const char c : pattern) named += c == '*' ? std::string("NAME") : std::string(1, c);
  const auto dot = named.rfind('.');
  if (dot == std::string::npos) return {"", named};
  return {named.substr(0, dot), named.substr(dot + 1)};
}

Page config_page() {
  std::string out = header("zx.toml", 5);
  out += section("NAME") + "zx.toml \\- " +
         troff("the servers that zx looks after, and its rules") + "\n";
  out +=
      section("DESCRIPTION") + prose(kFindConfig) +
      prose(
          "The file is TOML. An unknown key, a value of the wrong type and a name that nothing "
          "has are errors, with file, line, column and the nearest known name. NAME below is "
          "chosen by you: the name of a region, host, cluster or node.\n\n"
          "A variable of the environment wins over the file, a flag over both: "
          "ZX__PLATFORM__STATE_DIR stands for platform.state_dir. A list is written as a, b or as "
          "in TOML. Variables set keys of regions, hosts, clusters and nodes that the file names; "
          "they make no new ones. zx config show --origin says where each value comes from.\n\n"
          "Sizes are written as 512 B, 16 MiB or 2 GB, durations as 500ms, 30s or 1h30m.\n\n"
          "Passwords do not stand in the file: a key that ends in password_file names a file "
          "that only its owner can read, and password takes only the form ${NAME}, a variable "
          "of the environment.");
  out += section("KEYS");
  std::string table;
  bool is_first = true;
  for (const auto& doc : config::key_docs()) {
    const auto place = place_of(doc.pattern);
    if (is_first || place.table != table)
      out += fmt::format(".SS {}\n",
                         in_quotes(place.table.empty() ? "at the top" : "[" + place.table + "]"));
    table = place.table;
    is_first = false;
    auto says = std::string(trim(doc.doc));
    if (doc.secret) says += " (never shown)";
    std::string kind = doc.type;
    if (doc.fallback == "required")
      kind += ", required";
    else if (!doc.fallback.empty())
      kind += ", default " + doc.fallback;
    out += item(bold(place.key) + " \\(em " + troff(kind), says);
  }
  out += section("EXAMPLE") + literal(R"([platform]
name = "shop"
state_dir = "/var/lib/zx"

[hosts.db-1]
address = "10.1.0.11"
remote = ["ssh", "-oBatchMode=yes", "{address}"]

[hosts.db-2]
address = "10.1.0.12"
remote = ["ssh", "-oBatchMode=yes", "{address}"]

[pg.main]
databases = ["shop"]
password_file = "/etc/zx/pg.pass"

[pg.main.nodes.pg-1]
host = "db-1"
data_dir = "/var/lib/postgresql/15/main"
service = "postgresql@15-main"

[pg.main.nodes.pg-2]
host = "db-2"
data_dir = "/var/lib/postgresql/15/main"
service = "postgresql@15-main"

[redis.cache]
password_file = "/etc/zx/redis.pass"

[redis.cache.nodes.redis-1]
host = "db-1"
data_dir = "/var/lib/redis"
service = "redis-server"

[redis.cache.nodes.redis-2]
host = "db-2"
data_dir = "/var/lib/redis"
service = "redis-server"
)");
  return {"zx.toml.5", out + see_also({{"zx", 1}})};
}

}  // namespace

std::string troff(std::string_view text) {
  std::string out;
  bool line_start = true;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    line_start = c == '\n';
    switch (c) {
      case '\\': out += "\\(rs"; break;
      case '-': out += "\\-"; break;
      case '\'': out += "\\(aq"; break;
      case '`': out += "\\(ga"; break;
      case '^': out += "\\(ha"; break;
      case '~': out += "\\(ti"; break;
      default: {
        const auto lead = static_cast<unsigned char>(c);
        if (lead < 0x80) {
          out += c;
          break;
        }
        // Named by number, so that the page is ASCII and no locale can break it.
        std::size_t more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        auto point = static_cast<char32_t>(lead & (0x3Fu >> more));
        for (; more > 0 && i + 1 < text.size(); --more)
          point = (point << 6) | (static_cast<unsigned char>(text[++i]) & 0x3Fu);
        out += fmt::format("\\[u{:04X}]", static_cast<unsigned>(point));
      }
    }
  }
  return out;
}

std::vector<Page> manual_pages(const commands::Tree& tree, const CLI::App& root) {
  const auto leaves = visible_leaves(tree, root);
  std::vector<Page> pages{root_page(tree, root, leaves)};
  for (const auto& leaf : leaves) pages.push_back(leaf_page(tree, leaf, leaves));
  pages.push_back(config_page());
  return pages;
}

}  // namespace zx::cli
