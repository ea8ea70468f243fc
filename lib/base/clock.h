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
  virtual void pause(Millis span) = 0;
  // Time goes on only when somebody waits; what would be done at once is done one after the other.
  [[nodiscard]] virtual bool is_virtual() const { return false; }
};

[[nodiscard]] Clock& system_clock();
// The one that all of zx reads: the system's, unless a ScopedClock stands in for it.
[[nodiscard]] Clock& current_clock();
[[nodiscard]] inline Monotonic monotonic_now() { return current_clock().now(); }
[[nodiscard]] inline Wall wall_now() { return current_clock().wall(); }

// Puts `clock`, which must outlive it, in the place of the system's for the whole process. For
// tests: not while other threads read the time.
class ScopedClock {
 public:
  explicit ScopedClock(Clock& clock);
  ~ScopedClock();
  ScopedClock(const ScopedClock&) = delete;
  ScopedClock& operator=(const ScopedClock&) = delete;

 private:
  Clock* before_;
};

// A point on the monotonic clock by which something must be done.
class Deadline {
 public:
  // Of at most a hundred years: a longer span, as a damaged journal may hold, would wrap round.
  static Deadline after(Millis span) {
    constexpr Millis kLongest = std::chrono::hours(24 * 365 * 100);
    return Deadline(monotonic_now() + std::clamp(span, Millis(0), kLongest));
  }
  explicit Deadline(Monotonic at) : at_(at) {}
  [[nodiscard]] Monotonic at() const { return at_; }
  [[nodiscard]] bool passed() const { return monotonic_now() >= at_; }
  // Rounded up, so that a wait for left() never ends before the deadline; never negative.
  [[nodiscard]] Millis left() const {
    const auto rest = std::chrono::ceil<Millis>(at_ - monotonic_now());
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
  return std::chrono::duration_cast<Millis>(monotonic_now() - start);
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
