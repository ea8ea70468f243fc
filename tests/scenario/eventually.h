// Waiting for a condition, and the words of an error.
#pragma once

#include <functional>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/error.h"

namespace zx::test {

constexpr Millis kPatience{60'000};

inline bool eventually(const std::function<bool()>& condition, Millis patience = kPatience) {
  const auto deadline = Deadline::after(patience);
  while (!condition()) {
    if (deadline.passed()) return false;
    pause_for(Millis(20));
  }
  return true;
}

template <class T>
std::string why(const Result<T>& result) {
  return result ? std::string() : result.error().message + " / " + result.error().hint;
}

}  // namespace zx::test
