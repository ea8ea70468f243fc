#include "lib/os/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace zx::os {
namespace {

std::atomic<int> noted{0};
static_assert(std::atomic<int>::is_always_lock_free);

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
  signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return noted.load() != 0; }

std::optional<Error> interruption() {
  switch (noted.load()) {
    case 0: return std::nullopt;
    case SIGTERM: return Error{Code::terminated, "terminated", {}, {}, false};
    default: return Error{Code::interrupted, "interrupted", {}, {}, false};
  }
}

}  // namespace zx::os
