// Sizes and durations as people write them in zx.toml and read them in tables.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace zx {

using Millis = std::chrono::milliseconds;

// "16 MiB", "16MiB", "512 B", "1024": binary units B, KiB, MiB, GiB, TiB, and
// kB, MB, GB, TB as powers of 1000. Not negative, no fraction of a byte.
[[nodiscard]] std::optional<std::uint64_t> parse_bytes(std::string_view text);
// "0 B", "1.2 GiB": at most one decimal.
[[nodiscard]] std::string format_bytes(std::uint64_t bytes);

// "500ms", "1s", "30s", "1h", "1h30m", "400d": whole numbers with a unit, largest first.
[[nodiscard]] std::optional<Millis> parse_duration(std::string_view text);
// "38 ms", "1.2 s", "2m05s", "3h04m", "5d02h".
[[nodiscard]] std::string format_duration(Millis duration);
// The shortest form that parse_duration reads back to the same value: "1500ms", "30s".
[[nodiscard]] std::string spell_duration(Millis duration);
[[nodiscard]] std::string spell_bytes(std::uint64_t bytes);

}  // namespace zx
