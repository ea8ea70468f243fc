#include "lib/pg/conninfo.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>

#include "lib/base/text.h"

namespace zx::pg {

Result<Conninfo> parse_conninfo(const std::string& text) {
  char* message = nullptr;
  const std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options(
      PQconninfoParse(text.c_str(), &message), &PQconninfoFree);
  if (!options) {
    // libpq's message may quote the string, password and all: only its kind is told.
    PQfreemem(message);
    return fail(Code::config, "a connection string is not of libpq's form",
                "write it as postgresql://user@host:port/database or \"host=… port=… user=…\"");
  }
  Conninfo out;
  for (const auto* option = options.get(); option->keyword != nullptr; ++option)
    if (option->val != nullptr) out.emplace_back(option->keyword, option->val);
  return out;
}

std::string to_string(const Conninfo& conninfo) {
  std::vector<std::string> parts;
  for (const auto& [key, value] : conninfo) {
    const bool plain = !value.empty() && value.find_first_of(" '\\\t\n\v\f\r") == std::string::npos;
    std::string quoted;
    for (const char c : value) {
      if (c == '\'' || c == '\\') quoted += '\\';
      quoted += c;
    }
    parts.push_back(key + "=" + (plain ? value : "'" + quoted + "'"));
  }
  return join(parts, " ");
}

std::string value_of(const Conninfo& conninfo, const std::string& key) {
  for (const auto& [k, value] : conninfo)
    if (k == key) return value;
  return {};
}

void set_value(Conninfo& conninfo, const std::string& key, const std::string& value) {
  for (auto& [k, old] : conninfo)
    if (k == key) {
      old = value;
      return;
    }
  conninfo.emplace_back(key, value);
}

void remove_value(Conninfo& conninfo, const std::string& key) {
  std::erase_if(conninfo, [&](const auto& entry) { return entry.first == key; });
}

std::optional<Upstream> upstream_of(const std::string& text) {
  const auto conninfo = parse_conninfo(text);
  if (!conninfo) return std::nullopt;
  auto host = value_of(*conninfo, "hostaddr");
  if (host.empty()) host = value_of(*conninfo, "host");
  if (host.empty()) return std::nullopt;
  Upstream upstream;
  upstream.host = host.substr(0, host.find(','));
  const auto port = value_of(*conninfo, "port");
  const auto first = port.substr(0, port.find(','));
  if (!first.empty()) upstream.port = std::atoi(first.c_str());
  return upstream;
}

}  // namespace zx::pg
