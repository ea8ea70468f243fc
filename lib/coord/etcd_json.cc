#include <array>
#include <charconv>

#include "lib/base/text.h"
#include "lib/coord/etcd_client.h"

namespace zx::coord {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Codes of gRPC.
constexpr std::int64_t kInvalidArgument = 3, kDeadlineExceeded = 4, kNotFound = 5,
                       kPermissionDenied = 7, kResourceExhausted = 8, kFailedPrecondition = 9,
                       kAborted = 10, kUnavailable = 14, kUnauthenticated = 16;

Json with_key(Json json, const std::string& key) {
  json["key"] = to_base64(key);
  return json;
}

Error error_of(std::int64_t code, const std::string& said) {
  const auto message = "etcd: " + (said.empty() ? "an error without a message" : said);
  const auto says = [&](std::string_view words) { return said.find(words) != std::string::npos; };
  if (code == kResourceExhausted && says("space exceeded"))
    return {Code::disk_full,
            "etcd refuses to write: its database is full (NOSPACE)",
            "compact and defragment it, then: etcdctl alarm disarm",
            {},
            false};
  if (code == kUnauthenticated || code == kPermissionDenied ||
      (code == kInvalidArgument &&
       (says("authentication failed") || says("user name is empty") || says("auth store is old"))))
    return {Code::auth, message, "check the user and the password of etcd", {}, false};
  if (code == kNotFound) return {Code::not_found, message, {}, {}, false};
  if (code == kDeadlineExceeded) return {Code::timeout, message, {}, {}, true};
  // Too many requests, no leader, request timed out, stopped: another member may do better.
  if (code == kUnavailable || code == kAborted || code == kResourceExhausted ||
      (says("no leader") || says("leader changed") || says("timed out") || says("stopped")))
    return {Code::unreachable, message, {}, {}, true};
  if (code == kFailedPrecondition) return {Code::refused, message, {}, {}, false};
  return {Code::server, message, {}, {}, false};
}

Result<EtcdKey> read_key(const Json& json) {
  EtcdKey key;
  ZX_ASSIGN(key.key, from_base64(get_string(json, "key")));
  ZX_ASSIGN(key.value, from_base64(get_string(json, "value")));
  key.create_revision = etcd_int(json, "create_revision");
  key.mod_revision = etcd_int(json, "mod_revision");
  key.lease = etcd_int(json, "lease");
  if (key.create_revision < 1 || key.mod_revision < key.create_revision)
    return fail(Code::server, "etcd: a key without its revisions");
  return key;
}

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](std::size_t j) {
      return j < bytes.size() ? static_cast<unsigned char>(bytes[j]) : 0u;
    };
    const unsigned group = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    text += kDigits[group >> 18];
    text += kDigits[group >> 12 & 63];
    text += i + 1 < bytes.size() ? kDigits[group >> 6 & 63] : '=';
    text += i + 2 < bytes.size() ? kDigits[group & 63] : '=';
  }
  return text;
}

Result<std::string> from_base64(std::string_view text) {
  const auto bad = [] { return fail(Code::server, "etcd: not base64"); };
  if (text.size() % 4 != 0) return bad();
  const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  text.remove_suffix(padding);
  std::string bytes;
  unsigned group = 0, bits = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) return bad();
    group = group << 6 | static_cast<unsigned>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(group >> bits & 255);
    group &= (1u << bits) - 1;
  }
  if (group != 0) return bad();  // what is cut off says something
  return bytes;
}

std::int64_t etcd_int(const Json& json, const char* key) {
  const auto& value = get_object(json, key);
  if (!value.is_string()) return get_int(json, key);
  const auto& text = value.get_ref<const std::string&>();
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : 0;
}

Result<Json> read_etcd_answer(int status, std::string_view body) {
  // Of a stream (keepalive) the first answer; the rest would be more of them, a line each.
  const auto text = trim(body);
  auto json = parse_json(text.substr(0, text.find('\n')), "the answer of etcd");
  if (!json || !json->is_object()) {
    auto said = first_line(text.substr(0, 200));
    return fail(Error{Code::server,
                      "no answer of etcd's gateway: HTTP " + std::to_string(status) +
                          (said.empty() ? "" : ", \"" + said + "\""),
                      "is this a client URL of etcd 3.4 or later?",
                      {},
                      true});
  }
  // {"error": "text", "message": …, "code": N}, or in a stream
  // {"error": {"grpc_code": N, "http_code": …, "message": …}}.
  const auto& error = get_object(*json, "error");
  if (error.is_object())
    return fail(error_of(etcd_int(error, "grpc_code"), first_line(get_string(error, "message"))));
  if (!error.is_null())
    return fail(error_of(etcd_int(*json, "code"),
                         first_line(get_string(*json, "message", get_string(*json, "error")))));
  if (status != 200) return fail(error_of(0, "HTTP " + std::to_string(status)));
  const auto& result = get_object(*json, "result");
  return result.is_object() ? Json(result) : *json;
}

Json etcd_put(const std::string& key, const std::string& value, std::int64_t lease) {
  Json put{{"key", to_base64(key)}, {"value", to_base64(value)}};
  if (lease != 0) put["lease"] = std::to_string(lease);
  return {{"request_put", std::move(put)}};
}

Json etcd_range(const std::string& key) { return {{"request_range", {{"key", to_base64(key)}}}}; }

Json etcd_range_under(const std::string& prefix) {
  auto end = prefix;  // prefixes here end in '/'
  ++end.back();
  return {{"request_range", {{"key", to_base64(prefix)}, {"range_end", to_base64(end)}}}};
}

Json etcd_delete(const std::string& key) {
  return {{"request_delete_range", {{"key", to_base64(key)}}}};
}

Json etcd_created_at(const std::string& key, std::int64_t revision) {
  return with_key(
      {{"target", "CREATE"}, {"result", "EQUAL"}, {"create_revision", std::to_string(revision)}},
      key);
}

Json etcd_exists(const std::string& key) {
  return with_key({{"target", "CREATE"}, {"result", "GREATER"}, {"create_revision", "0"}}, key);
}

Json etcd_modified_at(const std::string& key, std::int64_t revision) {
  return with_key(
      {{"target", "MOD"}, {"result", "EQUAL"}, {"mod_revision", std::to_string(revision)}}, key);
}

Json etcd_has_value(const std::string& key, const std::string& value) {
  return with_key({{"target", "VALUE"}, {"result", "EQUAL"}, {"value", to_base64(value)}}, key);
}

Result<EtcdTxnResult> read_txn(const Json& answer) {
  EtcdTxnResult result;
  result.succeeded = get_bool(answer, "succeeded");
  result.revision = etcd_int(get_object(answer, "header"), "revision");
  for (const auto& response : get_object(answer, "responses")) {
    const auto& range = get_object(response, "response_range");
    if (range.is_null()) continue;
    auto& keys = result.ranges.emplace_back();
    for (const auto& json : get_object(range, "kvs")) {
      ZX_ASSIGN(auto key, read_key(json));
      keys.push_back(std::move(key));
    }
  }
  return result;
}

}  // namespace zx::coord
