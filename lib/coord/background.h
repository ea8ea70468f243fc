// Private to this room: a thread that does one thing again and again.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "lib/base/clock.h"
#include "lib/base/error.h"

namespace zx::coord {

class Background {
 public:
  Background() = default;
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // `round` returns how long to wait for the next one. Signals are left to other threads.
  [[nodiscard]] Status start(std::function<Millis()> round);
  void nudge();  // the next round is now
  void stop();   // waits for the round that is under way

 private:
  void work(const std::function<Millis()>& round);

  std::mutex mutex_;
  std::condition_variable wake_;
  bool is_stopping_ = false;
  bool is_nudged_ = false;
  std::thread thread_;
};

}  // namespace zx::coord
