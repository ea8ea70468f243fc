// kill -9 of zx at moments that a seed gives, and that may be had once more.
#pragma once

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/scenario/backup_scene.h"

namespace zx::test {

inline unsigned long number_in(const char* variable, unsigned long otherwise) {
  const char* text = getenv(variable);
  return text == nullptr || *text == '\0' ? otherwise : std::stoul(text);
}

// ZX_TEST_SEED: the seed that an earlier run printed; the moments are the same again, what the
// machine makes of them is not.
inline unsigned long seed() {
  static const auto chosen = number_in("ZX_TEST_SEED", std::random_device()());
  return chosen;
}

// Moments of what takes `whole`, a little more than it takes: one in each part of that time, in any
// order.
class Moments {
 public:
  Moments(Millis whole, unsigned long count) {
    const auto said = fmt::format("ZX_TEST_SEED={}, {} ms", seed(), whole.count());
    MESSAGE(said);
    std::mt19937_64 random(seed());
    const auto most = static_cast<double>(std::chrono::microseconds(whole).count()) * 1.1;
    std::uniform_real_distribution<double> within(0, most / static_cast<double>(count));
    for (unsigned long i = 0; i < count; ++i)
      left_.emplace_back(
          static_cast<std::int64_t>(static_cast<double>(i) * within.max() + within(random)));
    std::shuffle(left_.begin(), left_.end(), random);
  }
  // At most as often as it was told.
  std::chrono::microseconds next() {
    REQUIRE_FALSE(left_.empty());
    const auto moment = left_.back();
    left_.pop_back();
    return moment;
  }

 private:
  std::vector<std::chrono::microseconds> left_;
};

inline Millis took(const Platform& platform, const std::vector<std::string>& words) {
  const auto start = monotonic_now();
  const auto result = platform.zx(words);
  REQUIRE_MESSAGE(result.exit == 0, (result.out + result.err));
  return since(start);
}

// What zx WORDS… exits with, or minus the signal: it is killed at that moment, if it is still
// there.
inline int kill_after(const Platform& platform, std::chrono::microseconds moment,
                      const std::vector<std::string>& words) {
  auto run = in_background(platform, words);
  std::this_thread::sleep_for(moment);
  run.signal(SIGKILL);
  return run.finish();
}

}  // namespace zx::test
