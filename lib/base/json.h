// JSON that cannot throw on foreign text. nlohmann's dump() throws on invalid
// UTF-8, which servers do send; these replace it by U+FFFD.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/error.h"

// Instantiated in json.cc alone: whoever uses it compiles faster.
extern template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace zx {

using Json = nlohmann::ordered_json;

[[nodiscard]] std::string dump_line(const Json& json);    // one line, no newline at its end
[[nodiscard]] std::string dump_pretty(const Json& json);  // two spaces of indent
// `what` names the text in the error: "journal line 3".
[[nodiscard]] Result<Json> parse_json(std::string_view text, std::string_view what);

[[nodiscard]] Json to_json(const Error& error);
[[nodiscard]] Error error_from_json(const Json& json);

// Readers that never throw: the default when the key is missing or of another type.
[[nodiscard]] std::string get_string(const Json& json, const char* key, std::string otherwise = {});
[[nodiscard]] std::int64_t get_int(const Json& json, const char* key, std::int64_t otherwise = 0);
[[nodiscard]] bool get_bool(const Json& json, const char* key, bool otherwise = false);
// The strings of a list; empty when it is none.
[[nodiscard]] std::vector<std::string> get_strings(const Json& json, const char* key);
// The whole numbers, none below 0, of an object by their names; empty when it is none.
[[nodiscard]] std::map<std::string, std::uint64_t> get_numbers(const Json& json, const char* key);
[[nodiscard]] const Json& get_object(const Json& json, const char* key);  // null when missing

}  // namespace zx
