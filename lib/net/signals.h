// Signals as callbacks on the loop.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "lib/net/loop.h"

namespace zx::net {

// From here on these signals do nothing else, until it is destroyed; then they have their default
// effect.
class Signals {
 public:
  Signals(Loop& loop, const std::vector<int>& numbers, std::function<void(int)> came);
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace zx::net
