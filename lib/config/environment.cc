// ZX__PG__MAIN__USER=… for pg.main.user.
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/read.h"

namespace zx::config {
namespace {

constexpr std::string_view kPrefix = "zx__";

// Shells allow letters, digits and '_' in a name of a variable: everything else counts as '_'.
std::string folded(std::string_view text) {
  auto out = lower(text);
  for (auto& c : out) {
    const bool is_kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                         (static_cast<unsigned char>(c) & 0x80u) != 0;
    if (!is_kept) c = '_';
  }
  return out;
}

std::string upper(std::string text) {
  for (auto& c : text)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

struct Settable {
  const Key* key;
  Slot slot;
  std::vector<std::string> parts;
  std::string name;  // folded: "zx__pg__main__user"
};

std::vector<Settable> settables(Config& config) {
  std::vector<Settable> all;
  for (const auto& table : tables_of(config)) {
    for (const auto* key : keys_in(table)) {
      Settable one{key, key->slot(table.place), parts_of(table, *key), "zx"};
      for (const auto& part : one.parts) one.name += "__" + folded(part);
      all.push_back(std::move(one));
    }
  }
  return all;
}

Value text_value(std::string text) {
  Value value;
  value.kind = Kind::string;
  value.text = std::move(text);
  return value;
}

Value list_from(const std::string& text) {
  if (text.starts_with('[')) {
    const auto document = parse_document("list = " + text);
    const bool is_one = document && document->members.size() == 1;
    return is_one ? document->members[0].value : text_value(text);
  }
  Value list;
  list.kind = Kind::list;
  if (trim(text).empty()) return list;
  for (const auto& part : split(text, ','))
    list.items.push_back(text_value(std::string(trim(part))));
  return list;
}

// The text as the kind of value that the key wants; as a string when it cannot be that.
Value value_from(const std::string& text, const Slot& slot) {
  auto value = text_value(text);
  if (std::holds_alternative<int*>(slot)) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value.number);
    if (error == std::errc{} && end == text.data() + text.size()) value.kind = Kind::integer;
  } else if (std::holds_alternative<bool*>(slot)) {
    const auto word = lower(text);
    if (word == "true" || word == "false") value.kind = Kind::boolean;
    value.flag = word == "true";
  } else if (std::holds_alternative<List*>(slot) ||
             std::holds_alternative<std::optional<List>*>(slot)) {
    value = list_from(text);
  }
  return value;
}

void unmark(Value& value, const std::string& variable) {
  value.mark = Mark{0, 0, variable};
  for (auto& item : value.items) item.mark = value.mark;
}

void apply(Draft& draft, const Settable& target, const std::string& variable, std::string text) {
  // The value of the variable is the secret itself: kept by name, like one that the file refers to.
  const bool is_reference = text.starts_with("${") && text.ends_with('}');
  if (target.key->limits.use == Use::secret && !text.empty() && !is_reference)
    text = "${" + variable + "}";
  auto value = value_from(text, target.slot);
  unmark(value, variable);
  const auto path = spell_key(target.parts);
  // What the file said is replaced, so its defect no longer counts.
  std::erase_if(draft.defects,
                [&](const Defect& defect) { return defect.text.starts_with(path + " "); });
  draft.marks[path] = value.mark;
  if (auto defect = set_value(*target.key, target.slot, value, path, draft.directory))
    draft.defects.push_back(*std::move(defect));
}

void unknown(Draft& draft, const std::string& variable, const std::vector<Settable>& all) {
  std::vector<std::string> names;
  for (const auto& one : all) names.push_back(upper(one.name));
  const auto suggestion = meant(upper(variable), names);
  draft.defects.push_back(
      {Mark{0, 0, variable},
       "stands for no key" +
           (suggestion.empty()
                ? "; zx config show lists the keys, ZX__PLATFORM__NAME is platform.name"
                : suggestion)});
}

}  // namespace

void apply_environment(Draft& draft) {
  std::vector<std::pair<std::string, std::string>> given;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view whole(*entry);
    const auto equals = whole.find('=');
    if (equals == std::string_view::npos || !lower(whole.substr(0, equals)).starts_with(kPrefix))
      continue;
    given.emplace_back(whole.substr(0, equals), whole.substr(equals + 1));
  }
  if (given.empty()) return;
  std::sort(given.begin(), given.end());  // the order in environ is chance
  const auto all = settables(draft.config);
  std::map<const Settable*, std::string> taken;
  for (const auto& [variable, text] : given) {
    const auto name = folded(variable);
    std::vector<const Settable*> found;
    for (const auto& one : all)
      if (one.name == name) found.push_back(&one);
    const Mark mark{0, 0, variable};
    if (found.empty()) {
      unknown(draft, variable, all);
    } else if (found.size() > 1) {
      draft.defects.push_back(
          {mark, fmt::format("stands for {} as well as {}", spell_key(found[0]->parts),
                             spell_key(found[1]->parts))});
    } else if (const auto [at, is_new] = taken.emplace(found[0], variable); !is_new) {
      draft.defects.push_back({mark, fmt::format("stands for {}, and so does ${}",
                                                 spell_key(found[0]->parts), at->second)});
    } else {
      apply(draft, *found[0], variable, text);
    }
  }
}

}  // namespace zx::config
