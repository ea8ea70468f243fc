// The clock of leases: monotonic, and it goes on while the host sleeps. It stands still only in a
// virtual machine that is paused together with its clock.
#pragma once

#include <time.h>

#include <cstdint>

#include "lib/base/units.h"

namespace zx::coord {

[[nodiscard]] inline Millis lease_now() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return Millis(std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000);
}

// How long a lease of `ttl` is relied on, counted from before it was asked for: a hundredth less,
// for clocks that do not run alike, and for the millisecond that is cut off.
[[nodiscard]] inline Millis relied_on(Millis ttl) { return ttl - ttl / 100 - Millis(1); }

}  // namespace zx::coord
