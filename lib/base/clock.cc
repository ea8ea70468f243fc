#include "lib/base/clock.h"

#include <cstdio>
#include <ctime>
#include <thread>

#include <fmt/format.h>

namespace zx {
namespace {

class SystemClock final : public Clock {
 public:
  Monotonic now() const override { return std::chrono::steady_clock::now(); }
  Wall wall() const override { return std::chrono::system_clock::now(); }
  void pause(Millis span) override { std::this_thread::sleep_for(span); }
};

Clock* stand_in = nullptr;

std::tm broken_down(Wall time, bool utc) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  if (utc)
    gmtime_r(&seconds, &parts);
  else
    localtime_r(&seconds, &parts);
  return parts;
}

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Clock& current_clock() { return stand_in != nullptr ? *stand_in : system_clock(); }

ScopedClock::ScopedClock(Clock& clock) : before_(stand_in) { stand_in = &clock; }
ScopedClock::~ScopedClock() { stand_in = before_; }

void pause_for(Millis span) { current_clock().pause(span); }

std::string format_utc(Wall time) {
  const auto floor = std::chrono::floor<std::chrono::seconds>(time);
  const auto ms = std::chrono::duration_cast<Millis>(time - floor).count();
  const auto t = broken_down(floor, true);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", t.tm_year + 1900, t.tm_mon + 1,
                     t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, ms);
}

std::string format_local(Wall time, Wall now) {
  const auto t = broken_down(time, false);
  const auto n = broken_down(now, false);
  if (t.tm_year == n.tm_year && t.tm_yday == n.tm_yday)
    return fmt::format("{:02}:{:02}:{:02}", t.tm_hour, t.tm_min, t.tm_sec);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                     t.tm_hour, t.tm_min);
}

Wall parse_utc(const std::string& text) {
  std::tm t{};
  int ms = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &t.tm_year, &t.tm_mon, &t.tm_mday,
                  &t.tm_hour, &t.tm_min, &t.tm_sec, &ms) != 7)
    return {};
  // In nanoseconds 64 bits end in the year 2262.
  if (t.tm_year < 1700 || t.tm_year > 2200) return {};
  t.tm_year -= 1900;
  t.tm_mon -= 1;
  const auto time = std::chrono::system_clock::from_time_t(timegm(&t)) + Millis(ms);
  // timegm makes a day of any numbers, and sscanf takes signs and blanks.
  return format_utc(time) == text ? time : Wall{};
}

}  // namespace zx
