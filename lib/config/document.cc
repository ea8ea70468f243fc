#include "lib/config/document.h"

#include <algorithm>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "lib/base/text.h"

namespace zx::config {
namespace {

// toml++ limits nested brackets but not the parts of a dotted key, and frees tables recursively: a
// long enough key would overflow the stack. No key of zx has more than five parts.
constexpr unsigned kMostDots = 8;

// The end of the string literal that begins at `at`.
std::size_t end_of_string(std::string_view text, std::size_t at) {
  const char quote = text[at];
  const bool is_long = text.substr(at, 3) == std::string(3, quote);
  std::size_t i = at + (is_long ? 3 : 1);
  for (; i < text.size(); ++i) {
    if (text[i] == '\\' && quote == '"') {
      ++i;
    } else if (is_long) {
      if (text.substr(i, 3) == std::string(3, quote)) return i + 3;
    } else if (text[i] == quote || text[i] == '\n') {
      return i + (text[i] == quote ? 1 : 0);
    }
  }
  return text.size();
}

Mark mark_at(std::string_view text, std::size_t at) {
  Mark mark{1, 1, {}};
  for (std::size_t i = 0; i < at; ++i) {
    if (text[i] == '\n') {
      ++mark.line;
      mark.column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0u) != 0x80u) {
      ++mark.column;
    }
  }
  return mark;
}

std::optional<Defect> find_deep_key(std::string_view text) {
  unsigned dots = 0;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '"' || c == '\'') {
      i = std::max(end_of_string(text, i), i + 1);
    } else {
      const bool is_of_key = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '-' || c == '_' || c == ' ' ||
                             c == '\t';
      if (c == '.')
        ++dots;
      else if (!is_of_key)
        dots = 0;
      if (dots > kMostDots)
        return Defect{mark_at(text, i), fmt::format("a key has more than {} parts", kMostDots + 1)};
      ++i;
    }
  }
  return std::nullopt;
}

Mark mark_of(const toml::source_region& region) {
  return {region.begin.line, region.begin.column, {}};
}

Value value_of(const toml::node& node) {
  Value value;
  value.mark = mark_of(node.source());
  if (const auto* text = node.as_string()) {
    value.kind = Kind::string;
    value.text = text->get();
  } else if (const auto* number = node.as_integer()) {
    value.kind = Kind::integer;
    value.number = number->get();
  } else if (const auto* flag = node.as_boolean()) {
    value.kind = Kind::boolean;
    value.flag = flag->get();
  } else if (const auto* list = node.as_array()) {
    value.kind = Kind::list;
    for (const auto& item : *list) value.items.push_back(value_of(item));
  } else if (const auto* table = node.as_table()) {
    for (const auto& [key, member] : *table)
      value.members.push_back({std::string(key.str()), mark_of(key.source()), value_of(member)});
    // toml++ sorts by name; people sort by meaning.
    std::stable_sort(
        value.members.begin(), value.members.end(), [](const Member& a, const Member& b) {
          return std::pair(a.mark.line, a.mark.column) < std::pair(b.mark.line, b.mark.column);
        });
  } else {
    value.kind = node.is_floating_point() ? Kind::decimal : Kind::date;
  }
  return value;
}

std::string_view line_at(std::string_view text, unsigned number) {
  for (unsigned line = 1; line < number; ++line) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  return text.substr(0, text.find('\n'));
}

Defect defect_of(const toml::parse_error& error, std::string_view text) {
  Defect defect{mark_of(error.source()), {}};
  // An unfinished value is noticed only on the line after it.
  for (const auto line : {defect.mark.line, defect.mark.line - 1}) {
    if (line == 0 || lower(line_at(text, line)).find("password") == std::string::npos) continue;
    defect.text = "not valid TOML (not shown, a password stands near)";
    return defect;
  }
  std::string words = clean_utf8(error.description());
  std::replace(words.begin(), words.end(), '\n', ' ');
  if (words.starts_with("Error while ")) words.erase(0, std::string_view("Error while ").size());
  if (!words.empty() && words[0] >= 'A' && words[0] <= 'Z')
    words[0] = static_cast<char>(words[0] - 'A' + 'a');
  defect.text = "not valid TOML: " + words;
  return defect;
}

bool is_bare(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

}  // namespace

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::string: return "a string";
    case Kind::integer: return "an integer";
    case Kind::boolean: return "a boolean";
    case Kind::list: return "a list";
    case Kind::table: return "a table";
    case Kind::decimal: return "a number with a fraction";
    case Kind::date: return "a date or time";
  }
  return "something else";
}

tl::expected<Value, Defect> parse_document(std::string_view text) {
  if (const auto deep = find_deep_key(text)) return tl::unexpected(*deep);
  try {
    return value_of(toml::parse(text, std::string_view("zx.toml")));
  } catch (const toml::parse_error& error) {
    return tl::unexpected(defect_of(error, text));
  }
}

std::string spell_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\b': out += "\\b"; break;
      case '\t': out += "\\t"; break;
      case '\n': out += "\\n"; break;
      case '\f': out += "\\f"; break;
      case '\r': out += "\\r"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
          out += fmt::format("\\u{:04X}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  return out + "\"";
}

std::string spell_list(const std::vector<std::string>& items) {
  std::vector<std::string> spelled;
  for (const auto& item : items) spelled.push_back(spell_string(item));
  return "[" + join(spelled, ", ") + "]";
}

std::string spell_key(const std::vector<std::string>& parts) {
  std::vector<std::string> spelled;
  for (const auto& part : parts) spelled.push_back(is_bare(part) ? part : spell_string(part));
  return join(spelled, ".");
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMost = 80;
  auto cut = text.substr(0, kMost);
  if (cut.size() < text.size())
    while (!cut.empty() && (static_cast<unsigned char>(text[cut.size()]) & 0xC0u) == 0x80u)
      cut.remove_suffix(1);
  return spell_string(clean_utf8(cut) + (cut.size() < text.size() ? "…" : ""));
}

}  // namespace zx::config
