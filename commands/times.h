// Moments as a tired person reads them: with the date, and how long ago.
#pragma once

#include <chrono>
#include <string>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/units.h"

namespace zx::commands {

// "2026-11-25", in local time.
[[nodiscard]] inline std::string day_of(Wall at) { return format_local(at, Wall{}).substr(0, 10); }
// "03:12:44", in local time.
[[nodiscard]] inline std::string time_of(Wall at) { return format_local(at, at); }
// "2026-11-25 03:12:44".
[[nodiscard]] inline std::string moment_of(Wall at) { return day_of(at) + " " + time_of(at); }
// "2026-11-25 03:12:44 (6m ago)".
[[nodiscard]] inline std::string moment_ago(Wall at, Wall now) {
  return fmt::format("{} ({} ago)", moment_of(at),
                     format_duration(std::chrono::duration_cast<Millis>(now - at)));
}

}  // namespace zx::commands
