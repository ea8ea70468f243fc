#include "lib/coord/background.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>

namespace zx::coord {

Background::~Background() { stop(); }

Status Background::start(std::function<Millis()> round) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Status started;
  try {
    thread_ = std::thread([this, round = std::move(round)] { work(round); });
  } catch (const std::system_error& error) {
    started = fail(Code::internal, std::string("cannot start a thread: ") + error.what());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

void Background::work(const std::function<Millis()>& round) {
  while (true) {
    const auto pause = round();
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, pause, [this] { return is_stopping_ || is_nudged_; });
    if (is_stopping_) return;
    is_nudged_ = false;
  }
}

void Background::nudge() {
  const std::scoped_lock guard(mutex_);
  is_nudged_ = true;
  wake_.notify_one();
}

void Background::stop() {
  {
    const std::scoped_lock guard(mutex_);
    is_stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

}  // namespace zx::coord
