// A TOML text as plain values with their places, members in the order of the text. Nothing but
// document.cc sees toml++.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tl/expected.hpp>

namespace zx::config {

// Where something was written: a place in the file, or an environment variable.
struct Mark {
  unsigned line = 0;
  unsigned column = 0;
  std::string variable;  // without "$"
};

struct Defect {
  Mark mark;
  std::string text;
};

enum class Kind { string, integer, boolean, list, table, decimal, date };

struct Member;

struct Value {
  Kind kind = Kind::table;
  std::string text;
  std::int64_t number = 0;
  bool flag = false;
  std::vector<Value> items;
  std::vector<Member> members;
  Mark mark;
};

struct Member {
  std::string name;
  Mark mark;
  Value value;
};

// "an integer", for messages.
[[nodiscard]] std::string_view name_of(Kind kind);

[[nodiscard]] tl::expected<Value, Defect> parse_document(std::string_view text);

// A value as TOML would have it: quoted and escaped.
[[nodiscard]] std::string spell_string(std::string_view text);
[[nodiscard]] std::string spell_list(const std::vector<std::string>& items);
// "pg.main.user"; a part that is not a bare key is quoted.
[[nodiscard]] std::string spell_key(const std::vector<std::string>& parts);
// Foreign text inside a message: quoted, cleaned, cut when it is long.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace zx::config
