// A position in PostgreSQL's write-ahead log, in bytes from its beginning.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace zx {

struct Lsn {
  std::uint64_t value = 0;
  auto operator<=>(const Lsn&) const = default;
  // PostgreSQL's InvalidXLogRecPtr is 0/0.
  [[nodiscard]] bool is_valid() const { return value != 0; }
};

// Bytes from `from` to `to`; 0 when `to` is not ahead.
[[nodiscard]] constexpr std::uint64_t bytes_ahead(Lsn to, Lsn from) {
  return to.value > from.value ? to.value - from.value : 0;
}

// "16/B374D848", as PostgreSQL writes it.
[[nodiscard]] std::string to_string(Lsn lsn);
// Exactly two groups of 1–8 hexadecimal digits around a slash, else nothing.
[[nodiscard]] std::optional<Lsn> parse_lsn(std::string_view text);

}  // namespace zx
