#include "cli/parse.h"

#include <algorithm>

#include "lib/base/text.h"

namespace zx::cli {
namespace {

Error usage_error(std::string message, std::string hint) {
  return Error{Code::usage, std::move(message), std::move(hint), {}, false};
}

std::string did_you_mean(std::string_view word) {
  return "did you mean \"" + std::string(word) + "\"?";
}

std::vector<std::string> flags_of(const commands::Tree& tree, const CLI::App& app) {
  std::vector<std::string> flags;
  for (const auto& argument : arguments_of(tree, app))
    if (!argument.long_flag.empty()) flags.push_back(argument.long_flag);
  return flags;
}

// "--dry-rum=x" → "--dry-run"; "-dry-run", one hyphen short, too.
std::string nearest_flag(const std::string& word, const std::vector<std::string>& flags) {
  const auto name = word.substr(0, word.find('='));
  if (name.starts_with("--")) return nearest(name, flags);
  return name.size() > 2 ? nearest("-" + name, flags) : std::string();
}

Error unknown_flag(const commands::Tree& tree, const Place& place, const std::string& word) {
  const auto meant = nearest_flag(word, flags_of(tree, *place.app));
  return usage_error(
      "unknown flag \"" + word.substr(0, word.find('=')) + "\"",
      meant.empty() ? place.name() + " --help lists the flags" : did_you_mean(meant));
}

// "table, json or nagios".
std::string alternatives(const std::vector<std::string>& values) {
  if (values.size() < 2) return join(values, "");
  return join({values.begin(), values.end() - 1}, ", ") + " or " + values.back();
}

std::string lower_first(std::string text) {
  if (text.size() > 1 && text[1] >= 'a' && text[1] <= 'z') text[0] = lower(text.substr(0, 1))[0];
  return text;
}

struct Named {
  std::string name;
  std::string rest;
};
// CLI11 writes "--flag: what is wrong with it".
Named split_name(const std::string& what) {
  const auto colon = what.find(": ");
  if (colon == std::string::npos) return {"", what};
  return {what.substr(0, colon), what.substr(colon + 2)};
}

Error invalid_value(const Named& said) {
  const auto at = said.rest.rfind(" not in {");
  if (at == std::string::npos) {
    // A check of zx itself says "takes …, not …".
    const bool is_ours = said.rest.starts_with("takes ");
    return usage_error(said.name + (is_ours ? " " : ": ") + said.rest, {});
  }
  const auto given = said.rest.substr(0, at);
  auto set = said.rest.substr(at + std::string_view(" not in {").size());
  if (set.ends_with("}")) set.pop_back();
  const auto values = split(set, ',');
  const auto meant = nearest(given, values);
  return usage_error(said.name + " takes " + alternatives(values) + ", not \"" + given + "\"",
                     meant.empty() ? std::string() : did_you_mean(meant));
}

Error rephrase(const commands::Tree& tree, const Place& place, const CLI::App& leaf,
               const CLI::ParseError& error) {
  // A mistyped flag is the reason for most other complaints: say it first.
  const auto unexpected = leaf.remaining();
  for (const auto& word : unexpected)
    if (is_flag_word(word)) return unknown_flag(tree, place, word);

  const std::string what = error.what();
  const auto usage = "usage: " + usage_line(tree, place);
  const auto kind = error.get_name();
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError) && !unexpected.empty())
    return usage_error("unexpected argument \"" + unexpected.front() + "\"", usage);
  if (kind == "RequiredError") return usage_error(lower_first(what), usage);
  if (kind == "ValidationError") {
    auto out = invalid_value(split_name(what));
    if (out.hint.empty()) out.hint = usage;
    return out;
  }
  if (kind == "ArgumentMismatch") {
    const auto said = split_name(what);
    if (what.ends_with("missing")) return usage_error(said.name + " needs a value", usage);
    if (said.rest.starts_with("At Most 1 "))
      return usage_error(said.name + " is given more than once", usage);
  }
  if (kind == "ConversionError") {
    const std::string_view start = "Could not convert: ";
    const auto equals = what.find(" = ");
    if (what.starts_with(start) && equals != std::string::npos)
      return usage_error(what.substr(start.size(), equals - start.size()) + " does not take \"" +
                             what.substr(equals + 3) + "\"",
                         usage);
  }
  if (kind == "ExcludesError") {
    auto text = what;
    if (const auto at = text.find(" excludes "); at != std::string::npos)
      text = text.substr(0, at) + " and " + text.substr(at + 10) + " exclude each other";
    return usage_error(text, usage);
  }
  return usage_error(lower_first(what), usage);
}

void add_leaf_flags(const commands::Tree& tree, const Place& below, const std::string& flag,
                    std::vector<std::string>& places) {
  if (tree.handler(below.app) != nullptr && read_flag(*below.app, flag).option != nullptr)
    places.push_back(below.name());
  for (const auto* child : children_of(*below.app)) {
    auto next = below;
    next.words.push_back(child->get_name());
    next.app = child;
    add_leaf_flags(tree, next, flag, places);
  }
}

}  // namespace

Result<Parsed> parse_leaf(const commands::Tree& tree, const Place& place, CLI::App& leaf,
                          const std::vector<std::string>& words) {
  for (const auto& word : words) {
    if (word == "--") break;
    // CLI11 would take the next word for the value.
    if (word.starts_with("--") && word.size() > 3 && word.find('=') == word.size() - 1)
      return fail(usage_error(word.substr(0, word.size() - 1) + " needs a value",
                              "usage: " + usage_line(tree, place)));
  }
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  try {
    leaf.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    return Parsed::help;
  } catch (const CLI::ParseError& error) {
    return fail(rephrase(tree, place, leaf, error));
  }
  return Parsed::ready;
}

Error unknown_command(const Place& place, const std::string& word) {
  std::vector<std::string> names;
  for (const auto* child : children_of(*place.app)) names.push_back(child->get_name());
  const auto prefix = place.words.empty() ? std::string() : join(place.words, " ") + " ";
  const auto meant = nearest(word, names);
  return usage_error(
      "unknown command \"" + prefix + word + "\"",
      meant.empty() ? place.name() + " --help lists the commands" : did_you_mean(prefix + meant));
}

Error unknown_front_flag(const commands::Tree& tree, const CLI::App& root, const Place& place,
                         const std::string& word) {
  std::vector<std::string> owners;
  add_leaf_flags(tree, place, word, owners);
  if (!owners.empty())
    return usage_error("the flag \"" + word + "\" stands before the command",
                       "put it after the command: " + owners.front() + " " + word);
  auto names = flags_of(tree, root);
  const auto meant = nearest_flag(word, names);
  return usage_error(
      "unknown flag \"" + word.substr(0, word.find('=')) + "\"",
      meant.empty() ? place.name() + " --help lists the flags" : did_you_mean(meant));
}

Error needs_value(const CLI::Option& option) {
  return usage_error(option.get_name() + " needs a value", {});
}

}  // namespace zx::cli
