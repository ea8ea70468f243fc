#include "lib/base/ids.h"

#include <sys/random.h>

#include <cctype>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace zx {
namespace {

std::function<unsigned char()>& stand_in() {
  static std::function<unsigned char()> next;
  return next;
}

}  // namespace

ScopedRandom::ScopedRandom(std::function<unsigned char()> next)
    : before_(std::exchange(stand_in(), std::move(next))) {}
ScopedRandom::~ScopedRandom() { stand_in() = std::move(before_); }

std::string random_hex(std::size_t count) {
  std::vector<unsigned char> bytes(count);
  if (const auto& next = stand_in())
    for (auto& byte : bytes) byte = next();
  // Up to 256 bytes getrandom neither fails nor returns short once the pool is ready.
  else if (getrandom(bytes.data(), count, 0) != static_cast<ssize_t>(count))
    throw std::runtime_error("getrandom failed");
  std::string out;
  for (const auto byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

std::string make_run_id(Wall now) {
  const auto utc = format_utc(now);  // 2026-11-24T03:12:43.120Z
  return utc.substr(0, 4) + utc.substr(5, 2) + utc.substr(8, 2) + "T" + utc.substr(11, 2) +
         utc.substr(14, 2) + utc.substr(17, 2) + "-" + random_hex(2);
}

bool is_run_id(std::string_view text) {
  if (text.size() != 20 || text[8] != 'T' || text[15] != '-') return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == 8 || i == 15) continue;
    const auto c = static_cast<unsigned char>(text[i]);
    if (i < 15 ? std::isdigit(c) == 0 : std::isxdigit(c) == 0) return false;
  }
  return true;
}

}  // namespace zx
