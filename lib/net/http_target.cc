#include "lib/net/http_target.h"

#include <algorithm>

namespace zx::net {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool parse_query(std::string_view text, QueryList& query) {
  while (!text.empty()) {
    const auto pair = text.substr(0, text.find('&'));
    text.remove_prefix(pair.size() == text.size() ? pair.size() : pair.size() + 1);
    if (pair.empty()) continue;
    const auto equals = pair.find('=');
    auto& [key, value] = query.emplace_back();
    if (!percent_decode(pair.substr(0, equals), true, key)) return false;
    if (equals != pair.npos && !percent_decode(pair.substr(equals + 1), true, value)) return false;
  }
  return true;
}

}  // namespace

bool percent_decode(std::string_view text, bool plus_is_space, std::string& decoded) {
  decoded.clear();
  for (std::size_t at = 0; at < text.size(); ++at) {
    char c = text[at];
    if (c == '+' && plus_is_space) {
      c = ' ';
    } else if (c == '%') {
      if (at + 2 >= text.size()) return false;
      const int high = hex_digit(text[at + 1]), low = hex_digit(text[at + 2]);
      if (high < 0 || low < 0 || high + low == 0) return false;
      c = static_cast<char>(high * 16 + low);
      at += 2;
    }
    decoded.push_back(c);
  }
  return true;
}

bool parse_target(std::string_view target, std::string& path, QueryList& query) {
  query.clear();
  if (target == "*") {
    path = target;
    return true;
  }
  bool has_authority = false;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) != scheme) continue;
    target.remove_prefix(scheme.size());
    const auto authority = std::min(target.find_first_of("/?#"), target.size());
    if (authority == 0) return false;
    target.remove_prefix(authority);
    has_authority = true;
    break;
  }
  if (target.find('#') != target.npos) return false;
  const auto mark = target.find('?');
  auto raw = target.substr(0, mark);
  if (raw.empty() && has_authority) raw = "/";
  if (raw.empty() || raw.front() != '/') return false;
  if (!percent_decode(raw, false, path)) return false;
  return mark == target.npos || parse_query(target.substr(mark + 1), query);
}

}  // namespace zx::net
