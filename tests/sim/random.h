// A generator that is the same on every machine; std's distributions are not.
#pragma once

#include <cstdint>

namespace zx::sim {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // splitmix64
    state_ += 0x9e3779b97f4a7c15ULL;
    auto z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // From `low` to `high`, both included.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool one_in(std::int64_t n) { return between(1, n) == 1; }
  bool percent(int chance) { return between(0, 99) < chance; }
  // Another one, whose numbers do not depend on how often this one is asked from now on.
  Random fork() { return Random(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace zx::sim
