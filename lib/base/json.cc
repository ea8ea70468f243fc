#include "lib/base/json.h"

#include <limits>

#include "lib/base/text.h"

template class nlohmann::basic_json<nlohmann::ordered_map>;

namespace zx {
namespace {

// Copying and dumping recurse: deeper text could exhaust the stack. Nothing that zx reads is near.
constexpr int kDeepest = 200;

// The most entries of an object that is much read, an answer of a server: growing copies all.
constexpr std::size_t kEntries = 32;

// Makes a Json of what the parser meets. The parser itself does not recurse.
class Builder {
 public:
  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  bool binary(Json::binary_t& value) { return put(std::move(value)); }
  bool start_object(std::size_t) {
    const bool is_outermost = open_.empty();
    if (!start(Json::value_t::object)) return false;
    if (is_outermost) open_.back()->get_ref<Json::object_t&>().reserve(kEntries);
    return true;
  }
  bool start_array(std::size_t) { return start(Json::value_t::array); }
  bool key(const std::string& name) {
    entry_ = &open_.back()->get_ref<Json::object_t&>()[name];
    return true;
  }
  bool end_object() { return end(); }
  bool end_array() { return end(); }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) { return false; }

  Json result;

 private:
  bool put(Json value) {
    place() = std::move(value);
    return true;
  }
  Json& place() {
    if (open_.empty()) return result;
    if (open_.back()->is_object()) return *entry_;
    return open_.back()->get_ref<Json::array_t&>().emplace_back();
  }
  bool start(Json::value_t type) {
    if (open_.size() == kDeepest) return false;
    auto& made = place();
    made = Json(type);
    open_.push_back(&made);
    return true;
  }
  bool end() {
    open_.pop_back();
    return true;
  }

  std::vector<Json*> open_;  // containers, from the outermost; only the last one grows
  Json* entry_ = nullptr;    // of the key that was met last
};

}  // namespace

std::string dump_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string dump_pretty(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Result<Json> parse_json(std::string_view text, std::string_view what) {
  Builder builder;
  // The parser takes a NUL for the end and would not look at what is behind it.
  if (text.find('\0') != std::string_view::npos || !Json::sax_parse(text, &builder))
    return fail(Code::io,
                std::string(what) + " is not JSON: \"" + first_line(text.substr(0, 80)) + "\"");
  return std::move(builder.result);
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

std::map<std::string, std::uint64_t> get_numbers(const Json& json, const char* key) {
  std::map<std::string, std::uint64_t> numbers;
  const auto& object = get_object(json, key);
  if (!object.is_object()) return numbers;
  for (const auto& [name, number] : object.items())
    if (number.is_number_unsigned()) numbers[name] = number.get<std::uint64_t>();
  return numbers;
}

const Json& get_object(const Json& json, const char* key) {
  static const Json kNull;
  if (!json.is_object()) return kNull;
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

}  // namespace zx
