#include "lib/os/in_turns.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "lib/os/signals.h"

namespace zx::os {

Status in_turns(std::size_t count, int jobs, const std::function<Status(std::size_t)>& work,
                const std::function<void()>& failed) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> has_failed{false};
  std::mutex mutex;
  Status first;
  const auto* interruption = interrupted_by();
  const auto take_turns = [&] {
    exchange_interruption(interruption);
    for (auto at = next++; at < count && !has_failed; at = next++) {
      auto done = work(at);
      if (done) continue;
      const std::lock_guard lock(mutex);
      if (has_failed.exchange(true)) continue;
      first = std::move(done);
      if (failed) failed();
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min(count, static_cast<std::size_t>(std::max(1, jobs))); ++i)
    threads.emplace_back(take_turns);
  for (auto& thread : threads) thread.join();
  return first;
}

}  // namespace zx::os
