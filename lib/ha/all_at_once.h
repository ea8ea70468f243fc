// The same work for several nodes beside each other.
#pragma once

#include <functional>
#include <future>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/os/signals.h"

namespace zx::ha {

// Runs `work` for every name at the same time and returns the results in the same order. In
// virtual time one after the other.
template <class T>
std::vector<T> all_at_once(const std::vector<std::string>& names,
                           const std::function<T(const std::string&)>& work) {
  std::vector<T> results;
  if (current_clock().is_virtual()) {
    for (const auto& name : names) results.push_back(work(name));
    return results;
  }
  std::vector<std::future<T>> futures;
  const auto* asked = os::interrupted_by();
  for (const auto& name : names)
    futures.push_back(std::async(std::launch::async, [&work, asked, name] {
      os::exchange_interruption(asked);
      auto result = work(name);
      os::exchange_interruption(nullptr);
      return result;
    }));
  for (auto& future : futures) results.push_back(future.get());
  return results;
}

}  // namespace zx::ha
