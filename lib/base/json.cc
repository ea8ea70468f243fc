#include "lib/base/json.h"

#include <limits>

#include "lib/base/text.h"

namespace zx {
namespace {

// Copying and dumping recurse: deeper text could exhaust the stack. Nothing that zx reads is near.
constexpr int kDeepest = 200;

bool is_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepest) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

std::string dump_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string dump_pretty(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Result<Json> parse_json(std::string_view text, std::string_view what) {
  // The parser takes a NUL for the end and would not look at what is behind it.
  const bool is_text = text.find('\0') == std::string_view::npos && !is_too_deep(text);
  auto json = is_text ? Json::parse(text, nullptr, false) : Json(Json::value_t::discarded);
  if (json.is_discarded())
    return fail(Code::io,
                std::string(what) + " is not JSON: \"" + first_line(text.substr(0, 80)) + "\"");
  return json;
}

Json to_json(const Error& error) {
  Json json{{"code", info(error.code).name}, {"message", error.message}, {"hint", error.hint}};
  if (!error.trail.empty()) json["trail"] = error.trail;
  if (error.retryable) json["retryable"] = true;
  return json;
}

Error error_from_json(const Json& json) {
  Error error;
  error.code = code_from_name(get_string(json, "code"));
  error.message = get_string(json, "message", "no message");
  error.hint = get_string(json, "hint");
  error.retryable = get_bool(json, "retryable");
  error.trail = get_strings(json, "trail");
  return error;
}

std::string get_string(const Json& json, const char* key, std::string otherwise) {
  const auto& value = get_object(json, key);
  return value.is_string() ? value.get<std::string>() : std::move(otherwise);
}

std::int64_t get_int(const Json& json, const char* key, std::int64_t otherwise) {
  const auto& value = get_object(json, key);
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > kMost) return otherwise;
  return value.is_number_integer() ? value.get<std::int64_t>() : otherwise;
}

bool get_bool(const Json& json, const char* key, bool otherwise) {
  const auto& value = get_object(json, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

std::vector<std::string> get_strings(const Json& json, const char* key) {
  std::vector<std::string> out;
  if (const auto& list = get_object(json, key); list.is_array())
    for (const auto& entry : list)
      if (entry.is_string()) out.push_back(entry.get<std::string>());
  return out;
}

const Json& get_object(const Json& json, const char* key) {
  static const Json kNull;
  if (!json.is_object()) return kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

}  // namespace zx
