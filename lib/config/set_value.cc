#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/config/read.h"

namespace zx::config {
namespace {

// Longer ones are mistakes, and far longer ones overflow the clock.
constexpr Millis kLongest{400LL * 86'400'000};

bool is_variable(std::string_view text) {
  if (!text.starts_with("${") || !text.ends_with('}') || text.size() < 4) return false;
  const auto name = text.substr(2, text.size() - 3);
  if (name[0] >= '0' && name[0] <= '9') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

// Values become argv words and parts of connection strings: NUL would end them early, and the rest
// would move the cursor of whoever prints them.
bool has_control(std::string_view text, bool allow_lines) {
  if (clean_utf8(text) != text) return true;
  return !allow_lines && text.find_first_of("\n\t") != std::string_view::npos;
}

class Setter {
 public:
  Setter(const Key& key, const Value& value, const std::string& what, const std::string& directory)
      : key_(key), value_(value), what_(what), directory_(directory) {}

  void operator()(std::string* slot) {
    if (value_.kind != Kind::string) return wrong_kind();
    const auto& text = value_.text;
    const auto& limits = key_.limits;
    if (limits.use == Use::secret && !text.empty() && !is_variable(text))
      return refuse(
          fmt::format("must be {}; a password does not stand in the file, {}_file is the "
                      "other way",
                      expected_by(key_), name_of(key_)));
    if (has_control(text, false)) return refuse("must not hold control characters");
    if (text.empty() && spell_default(key_) != "\"\"") return refuse("must not be empty");
    if (text.empty() && limits.is_required) return refuse("must not be empty");
    if (!limits.choices.empty() && !text.empty() &&
        std::find(limits.choices.begin(), limits.choices.end(), text) == limits.choices.end())
      return refuse(fmt::format("must be {}, found {}{}", expected_by(key_), in_quotes(text),
                                meant(text, limits.choices)));
    const bool is_path = limits.use == Use::path || limits.use == Use::secret_file;
    if (is_path && text.starts_with('~'))
      return refuse(
          fmt::format("must be written out, ~ is not replaced, found {}", in_quotes(text)));
    *slot = text;
    if (limits.use == Use::path && !text.empty() && !text.starts_with('/'))
      *slot = (std::filesystem::path(directory_) / text).lexically_normal().string();
  }

  void operator()(int* slot) {
    if (value_.kind != Kind::integer) return wrong_kind();
    if (value_.number < key_.limits.least || value_.number > key_.limits.most)
      return refuse(fmt::format("must be {}, found {}", expected_by(key_), value_.number));
    *slot = static_cast<int>(value_.number);
  }

  void operator()(bool* slot) {
    if (value_.kind != Kind::boolean) return wrong_kind();
    *slot = value_.flag;
  }

  void operator()(std::uint64_t* slot) {
    if (value_.kind == Kind::integer) {
      if (value_.number < 0)
        return refuse(fmt::format("must be {}, found {}", expected_by(key_), value_.number));
      *slot = static_cast<std::uint64_t>(value_.number);
      return;
    }
    if (value_.kind != Kind::string) return wrong_kind();
    const auto bytes = parse_bytes(value_.text);
    if (!bytes)
      return refuse(fmt::format("must be {}, found {}", expected_by(key_), in_quotes(value_.text)));
    *slot = *bytes;
  }

  void operator()(Millis* slot) {
    if (value_.kind != Kind::string) return wrong_kind();
    const auto span = parse_duration(value_.text);
    if (!span)
      return refuse(fmt::format("must be {}, found {}", expected_by(key_), in_quotes(value_.text)));
    if (*span <= Millis(0) || *span > kLongest)
      return refuse(fmt::format("must be longer than 0 and at most {}, found {}",
                                spell_duration(kLongest), in_quotes(value_.text)));
    *slot = *span;
  }

  void operator()(List* slot) {
    if (value_.kind != Kind::list) return wrong_kind();
    const bool is_argv = key_.limits.use == Use::argv;
    List list;
    std::set<std::string> seen;
    for (const auto& item : value_.items) {
      if (item.kind != Kind::string)
        return refuse(
            fmt::format("must be {}, found {} in it", expected_by(key_), name_of(item.kind)),
            item.mark);
      if (has_control(item.text, is_argv))
        return refuse("must not hold control characters", item.mark);
      if (item.text.empty() && (!is_argv || list.empty()))
        return refuse("must not hold an empty string", item.mark);
      if (!is_argv && !seen.insert(item.text).second)
        return refuse(fmt::format("has {} twice", in_quotes(item.text)), item.mark);
      list.push_back(item.text);
    }
    *slot = std::move(list);
  }

  void operator()(std::optional<List>* slot) {
    List list;
    (*this)(&list);
    if (!defect_) *slot = std::move(list);
  }

  [[nodiscard]] std::optional<Defect> defect() && { return std::move(defect_); }

 private:
  void refuse(const std::string& text) { refuse(text, value_.mark); }
  void refuse(const std::string& text, const Mark& mark) {
    defect_ = Defect{mark.line == 0 ? value_.mark : mark, what_ + " " + text};
  }
  void wrong_kind() {
    // A variable of the environment is always text; its content says more than its kind.
    if (!value_.mark.variable.empty() && value_.kind == Kind::string)
      return refuse(fmt::format("must be {}, found {}", expected_by(key_), in_quotes(value_.text)));
    refuse(fmt::format("must be {}, found {}", expected_by(key_), name_of(value_.kind)));
  }

  const Key& key_;
  const Value& value_;
  const std::string& what_;
  const std::string& directory_;
  std::optional<Defect> defect_;
};

}  // namespace

std::optional<Defect> set_value(const Key& key, const Slot& slot, const Value& value,
                                const std::string& what, const std::string& directory) {
  Setter setter(key, value, what, directory);
  std::visit([&](auto* target) { setter(target); }, slot);
  return std::move(setter).defect();
}

}  // namespace zx::config
