// Run ids: sortable by time, short enough to type.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "lib/base/clock.h"

namespace zx {

// "20261124T031243-a1f3": UTC second, then 16 random bits. The journal is created
// with O_EXCL, so that a collision is noticed, not shared.
[[nodiscard]] std::string make_run_id(Wall now);
[[nodiscard]] bool is_run_id(std::string_view text);
// `count` random bytes in hexadecimal, from the kernel, unless a ScopedRandom stands in for it.
[[nodiscard]] std::string random_hex(std::size_t count);

// For tests: `next` gives the bytes of random_hex() in the whole process.
class ScopedRandom {
 public:
  explicit ScopedRandom(std::function<unsigned char()> next);
  ~ScopedRandom();
  ScopedRandom(const ScopedRandom&) = delete;
  ScopedRandom& operator=(const ScopedRandom&) = delete;

 private:
  std::function<unsigned char()> before_;
};

}  // namespace zx
