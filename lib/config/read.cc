#include "lib/config/read.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"

namespace zx::config {
namespace {

constexpr std::size_t kLongestName = 63;  // PostgreSQL's limit of application_name and slot names
constexpr std::size_t kMostDefects = 50;

// Zero-width characters and those that turn the direction of writing: two names that look alike.
bool has_invisible(std::string_view name) {
  for (std::size_t i = 0; i + 2 < name.size(); ++i) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(name[i + at]); };
    if (byte(0) == 0xE2 && byte(1) == 0x80 &&
        ((byte(2) >= 0x8B && byte(2) <= 0x8F) || (byte(2) >= 0xA8 && byte(2) <= 0xAE)))
      return true;
    if (byte(0) == 0xE2 && byte(1) == 0x81 && byte(2) >= 0xA0 && byte(2) <= 0xAF) return true;
    if (byte(0) == 0xEF && byte(1) == 0xBB && byte(2) == 0xBF) return true;
  }
  return false;
}

// Names become file names, application_name and words of a command line. Empty: the name is fine.
std::string why_not_a_name(std::string_view name) {
  if (name.empty()) return "a name must not be empty";
  if (name.size() > kLongestName)
    return fmt::format("a name has at most {} bytes, this one has {}", kLongestName, name.size());
  if (clean_utf8(name) != name || name.find_first_of("\n\t") != std::string_view::npos)
    return "a name must not hold control characters";
  if (has_invisible(name)) return "a name must not hold invisible characters";
  if (name.find('/') != std::string_view::npos) return "a name must not hold '/'";
  if (name.front() == '-') return "a name must not begin with '-'";
  if (name.front() == '.') return "a name must not begin with '.'";
  if (name.front() == ' ' || name.back() == ' ') return "a name must not begin or end with a space";
  return {};
}

class Reader {
 public:
  explicit Reader(Draft& draft) : draft_(draft) {}

  void table(const Value& value, const std::string& pattern, const std::vector<std::string>& parts,
             const Place& place) {
    const auto known = parts_after(pattern);
    for (const auto& member : value.members) {
      auto inner = parts;
      inner.push_back(member.name);
      if (known == std::vector<std::string>{"*"}) {
        named(member, pattern + ".*", inner, place);
        continue;
      }
      const auto full = pattern.empty() ? member.name : pattern + "." + member.name;
      if (std::find(known.begin(), known.end(), member.name) == known.end())
        unknown(member, parts, known);
      else if (const auto* key = find_key(full))
        leaf(*key, member, inner, place);
      else if (is_list_of_named(member.value, full))
        numbered(member.value, full + ".*", inner, place_in(full, place));
      else if (is_table(member.value, inner))
        table(member.value, full, inner, place_in(full, place));
    }
  }

 private:
  Place place_in(const std::string& pattern, Place place) {
    if (pattern == "platform") place.platform = &draft_.config.platform;
    if (pattern == "agent") place.agent = &draft_.config.agent;
    if (pattern == "backup") place.backup = &draft_.config.backup;
    return place;
  }

  // files = [{ path = "/a" }] instead of [backup.files.NAME]: their names are numbers then.
  static bool is_list_of_named(const Value& value, const std::string& full) {
    return value.kind == Kind::list && full.starts_with("backup.") &&
           parts_after(full) == std::vector<std::string>{"*"};
  }
  void numbered(const Value& list, const std::string& pattern,
                const std::vector<std::string>& parts, const Place& place) {
    for (std::size_t i = 0; i < list.items.size(); ++i) {
      const Member member{std::to_string(i + 1), list.items[i].mark, list.items[i]};
      auto inner = parts;
      inner.push_back(member.name);
      named(member, pattern, inner, place);
    }
  }

  template <class T>
  static T* added(std::vector<T>& things, const std::string& name) {
    auto& thing = things.emplace_back();
    thing.name = name;
    return &thing;
  }

  // The pointers in a Place stay good: a list grows only after its last element has been read.
  void named(const Member& member, const std::string& pattern,
             const std::vector<std::string>& parts, Place place) {
    if (const auto why = why_not_a_name(member.name); !why.empty())
      draft_.defects.push_back(
          {member.mark, fmt::format("{}, found {}", why, in_quotes(member.name))});
    if (!is_table(member.value, parts)) return;
    draft_.marks[spell_key(parts)] = member.mark;
    auto& config = draft_.config;
    if (pattern == "regions.*")
      place.region = added(config.regions, member.name);
    else if (pattern == "hosts.*")
      place.host = added(config.hosts, member.name);
    else if (pattern == "pg.*")
      place.cluster = added(config.pg, member.name);
    else if (pattern == "pg.*.nodes.*")
      place.node = added(place.cluster->nodes, member.name);
    else if (pattern == "redis.*")
      place.deployment = added(config.redis, member.name);
    else if (pattern == "backup.files.*")
      place.backup_files = added(config.backup.files, member.name);
    else if (pattern == "backup.checks.*")
      place.backup_check = added(config.backup.checks, member.name);
    else if (pattern == "services.*")
      place.service = added(config.services, member.name);
    else
      place.redis_node = added(place.deployment->nodes, member.name);
    table(member.value, pattern, parts, place);
  }

  void leaf(const Key& key, const Member& member, const std::vector<std::string>& parts,
            const Place& place) {
    const auto path = spell_key(parts);
    draft_.marks[path] = member.value.mark;
    if (auto defect = set_value(key, key.slot(place), member.value, path, draft_.directory))
      draft_.defects.push_back(*std::move(defect));
  }

  bool is_table(const Value& value, const std::vector<std::string>& parts) {
    if (value.kind == Kind::table) return true;
    draft_.defects.push_back({value.mark, fmt::format("{} must be a table, found {}",
                                                      spell_key(parts), name_of(value.kind))});
    return false;
  }

  void unknown(const Member& member, const std::vector<std::string>& parts,
               const std::vector<std::string>& known) {
    const auto where = parts.empty() ? "at the top" : "in [" + spell_key(parts) + "]";
    auto text = fmt::format("unknown key {} {}", in_quotes(member.name), where);
    const auto suggestion = meant(member.name, known);
    if (!suggestion.empty()) {
      text += suggestion;
    } else if (const auto home = home_of(member.name, parts); !home.empty()) {
      text += fmt::format("; it belongs in [{}]", home);
    } else {
      text += "; known here: " + join(known, ", ");
    }
    draft_.defects.push_back({member.mark, text});
  }

  // The table that a known key of that name stands in: "pg.NAME.nodes.NAME". One of the same kind
  // as where it was found is meant rather than another.
  static std::string home_of(const std::string& name, const std::vector<std::string>& parts) {
    std::string home;
    for (const auto& key : keys()) {
      if (name_of(key) != name) continue;
      const auto table = table_of(key);
      const bool is_near = !parts.empty() && table.substr(0, table.find('.')) == parts.front();
      if (home.empty() || is_near) home = table;
      if (is_near) break;
    }
    for (auto at = home.find('*'); at != std::string::npos; at = home.find('*', at))
      home.replace(at, 1, "NAME");
    return home;
  }

  Draft& draft_;
};

std::string absolute(const std::string& path) {
  std::error_code wrong;
  const auto full = std::filesystem::absolute(path, wrong);
  return wrong ? path : full.lexically_normal().string();
}

Error error_of(std::vector<Defect> defects, const std::string& path) {
  std::stable_sort(defects.begin(), defects.end(), [](const Defect& a, const Defect& b) {
    return std::tuple(!a.mark.variable.empty(), a.mark.line, a.mark.column) <
           std::tuple(!b.mark.variable.empty(), b.mark.line, b.mark.column);
  });
  Error error;
  error.code = Code::config;
  for (const auto& [mark, text] : defects) {
    const auto line = mark.variable.empty()
                          ? fmt::format("{}:{}:{}: {}", path, mark.line, mark.column, text)
                          : fmt::format("${}: {}", clean_utf8(mark.variable), text);
    if (error.message.empty())
      error.message = line;
    else
      error.trail.push_back(line);
    if (error.trail.size() + 1 < kMostDefects || defects.size() <= kMostDefects) continue;
    error.trail.push_back(fmt::format("and {} more", defects.size() - kMostDefects));
    break;
  }
  error.hint = "man zx.toml explains every key";
  return error;
}

}  // namespace

Mark Draft::mark_of(std::vector<std::string> parts) const {
  for (; !parts.empty(); parts.pop_back()) {
    const auto found = marks.find(spell_key(parts));
    if (found != marks.end()) return found->second;
  }
  return Mark{1, 1, {}};
}

std::string meant(const std::string& word, const std::vector<std::string>& candidates) {
  // Nobody mistypes that much, and the search takes time.
  if (word.size() > 2 * kLongestName) return {};
  const auto near = nearest(word, candidates);
  return near.empty() ? std::string() : fmt::format("; did you mean {}?", in_quotes(near));
}

void read_document(Draft& draft, const Value& document) {
  Reader(draft).table(document, "", {}, {});
}

Result<Draft> read_config(const std::string& text, const std::string& path) {
  Draft draft;
  draft.config.path = absolute(path);
  draft.directory = os::parent_of(draft.config.path);
  draft.config.platform.state_dir = default_state_dir();
  const auto document = parse_document(text);
  if (!document) return fail(error_of({document.error()}, path));
  read_document(draft, *document);
  apply_environment(draft);
  check_references(draft);
  if (!draft.defects.empty()) return fail(error_of(std::move(draft.defects), path));
  return draft;
}

}  // namespace zx::config
