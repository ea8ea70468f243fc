#include "lib/os/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <utility>

namespace zx::os {
namespace {

std::atomic<int> noted{0};
static_assert(std::atomic<int>::is_always_lock_free);

thread_local const std::function<bool()>* asked_here = nullptr;

void note(int number) {
  if (noted.exchange(number) != 0 && number == SIGINT) _exit(130);
}

}  // namespace

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = note;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // A session that is cut off ends what it began as a person would; under nohup it goes on.
  struct sigaction hangup {};
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return noted.load() != 0 || giving_way(); }

std::optional<Error> giving_way() {
  if (asked_here == nullptr || !*asked_here || !(*asked_here)()) return std::nullopt;
  return Error{Code::interrupted, "given up for something more urgent", {}, {}, false};
}

std::optional<Error> interruption() {
  switch (noted.load()) {
    case 0: return giving_way();
    case SIGTERM: return Error{Code::terminated, "terminated", {}, {}, false};
    case SIGHUP: return Error{Code::terminated, "the terminal is gone", {}, {}, false};
    default: return Error{Code::interrupted, "interrupted", {}, {}, false};
  }
}

InterruptibleBy::InterruptibleBy(std::function<bool()> asked)
    : asked_(std::move(asked)), before_(asked_here) {
  asked_here = &asked_;
}

const std::function<bool()>* exchange_interruption(const std::function<bool()>* other) {
  return std::exchange(asked_here, other);
}

const std::function<bool()>* interrupted_by() { return asked_here; }

InterruptibleBy::~InterruptibleBy() { asked_here = before_; }

}  // namespace zx::os
