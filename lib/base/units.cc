#include "lib/base/units.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace zx {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array kByteUnits{
    Unit{"B", 1},
    Unit{"KiB", 1ULL << 10},
    Unit{"MiB", 1ULL << 20},
    Unit{"GiB", 1ULL << 30},
    Unit{"TiB", 1ULL << 40},
    Unit{"kB", 1000ULL},
    Unit{"MB", 1000'000ULL},
    Unit{"GB", 1000'000'000ULL},
    Unit{"TB", 1000'000'000'000ULL},
};

constexpr std::array kTimeUnits{
    Unit{"d", 86'400'000}, Unit{"h", 3'600'000}, Unit{"m", 60'000}, Unit{"s", 1000}, Unit{"ms", 1},
};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  text = trimmed(text);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return std::nullopt;
  const auto unit = trimmed(text.substr(static_cast<std::size_t>(end - text.data())));
  if (unit.empty()) return number;
  for (const auto& known : kByteUnits) {
    if (known.name != unit) continue;
    if (number > std::numeric_limits<std::uint64_t>::max() / known.factor) return std::nullopt;
    return number * known.factor;
  }
  return std::nullopt;
}

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array kNames{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would print as 1024.0 of the smaller unit.
  while (value >= 1023.95 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  const double rounded = std::round(value * 10) / 10;
  if (rounded == std::floor(rounded)) return fmt::format("{:.0f} {}", rounded, kNames[unit]);
  return fmt::format("{:.1f} {}", rounded, kNames[unit]);
}

std::optional<Millis> parse_duration(std::string_view text) {
  text = trimmed(text);
  if (text.empty()) return std::nullopt;
  std::uint64_t total = 0;
  std::uint64_t last_factor = std::numeric_limits<std::uint64_t>::max();
  while (!text.empty()) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{}) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const auto letters = text.substr(0, std::min(text.find_first_of("0123456789"), text.size()));
    const Unit* unit = nullptr;
    for (const auto& known : kTimeUnits)
      if (known.name == letters) unit = &known;
    if (unit == nullptr || unit->factor >= last_factor) return std::nullopt;
    constexpr std::uint64_t kMost = 100ULL * 365 * 86'400'000;
    if (number > kMost / unit->factor) return std::nullopt;
    total += number * unit->factor;
    if (total > kMost) return std::nullopt;
    last_factor = unit->factor;
    text.remove_prefix(letters.size());
  }
  return Millis(static_cast<std::int64_t>(total));
}

std::string format_duration(Millis duration) {
  const auto ms = duration.count();
  // The shortest of all has no counterpart.
  if (ms < 0) return "-" + format_duration(-std::max(duration, Millis(-Millis::max())));
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 59'950) {
    const double seconds = std::round(static_cast<double>(ms) / 100) / 10;
    if (seconds == std::floor(seconds)) return fmt::format("{:.0f} s", seconds);
    return fmt::format("{:.1f} s", seconds);
  }
  const auto s = ms / 1000 + (ms % 1000 >= 500 ? 1 : 0);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86'400) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  return fmt::format("{}d{:02}h", s / 86'400, s % 86'400 / 3600);
}

std::string spell_duration(Millis duration) {
  const auto ms = static_cast<std::uint64_t>(duration.count());
  for (const auto& unit : kTimeUnits)
    if (ms != 0 && ms % unit.factor == 0) return fmt::format("{}{}", ms / unit.factor, unit.name);
  return fmt::format("{}ms", ms);
}

std::string spell_bytes(std::uint64_t bytes) {
  constexpr std::array kBinary{Unit{"TiB", 1ULL << 40}, Unit{"GiB", 1ULL << 30},
                               Unit{"MiB", 1ULL << 20}, Unit{"KiB", 1ULL << 10}};
  for (const auto& unit : kBinary)
    if (bytes != 0 && bytes % unit.factor == 0)
      return fmt::format("{} {}", bytes / unit.factor, unit.name);
  return fmt::format("{} B", bytes);
}

}  // namespace zx
