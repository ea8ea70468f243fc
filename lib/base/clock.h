// Time behind a seam: durations by the monotonic clock, timestamps by the wall clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <string>

#include "lib/base/units.h"

namespace zx {

using Monotonic = std::chrono::steady_clock::time_point;
using Wall = std::chrono::system_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Monotonic now() const = 0;
  [[nodiscard]] virtual Wall wall() const = 0;
};

[[nodiscard]] Clock& system_clock();

// A point on the monotonic clock by which something must be done.
class Deadline {
 public:
  // Of at most a hundred years: a longer span, as a damaged journal may hold, would wrap round.
  static Deadline after(Millis span) {
    constexpr Millis kLongest = std::chrono::hours(24 * 365 * 100);
    return Deadline(std::chrono::steady_clock::now() + std::clamp(span, Millis(0), kLongest));
  }
  explicit Deadline(Monotonic at) : at_(at) {}
  [[nodiscard]] Monotonic at() const { return at_; }
  [[nodiscard]] bool passed() const { return std::chrono::steady_clock::now() >= at_; }
  // Rounded up, so that a wait for left() never ends before the deadline; never negative.
  [[nodiscard]] Millis left() const {
    const auto rest = std::chrono::ceil<Millis>(at_ - std::chrono::steady_clock::now());
    return rest.count() > 0 ? rest : Millis(0);
  }
  [[nodiscard]] Deadline at_most(Millis span) const {
    const auto other = after(span);
    return other.at_ < at_ ? other : *this;
  }

 private:
  Monotonic at_;
};

[[nodiscard]] inline Millis since(Monotonic start) {
  return std::chrono::duration_cast<Millis>(std::chrono::steady_clock::now() - start);
}

// Waits one short poll interval inside a loop that checks a condition against a deadline.
void pause_for(Millis span);

// "2026-11-24T03:12:43.120Z", UTC.
[[nodiscard]] std::string format_utc(Wall time);
// "03:12:44" when `time` is of the same local day as `now`, else "2026-11-24 03:12".
[[nodiscard]] std::string format_local(Wall time, Wall now);
// format_utc's form back; the epoch when the text is not of that form.
[[nodiscard]] Wall parse_utc(const std::string& text);

}  // namespace zx
