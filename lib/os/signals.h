// SIGINT, SIGTERM and SIGHUP as a question that a loop asks.
#pragma once

#include <functional>
#include <optional>

#include "lib/base/error.h"

namespace zx::os {

// Call once in main. The first signal is noted; a second SIGINT ends the process at once.
// SIGPIPE is ignored; SIGHUP stays so where it is (nohup).
void catch_signals();
[[nodiscard]] bool interrupted();
// The error of the signal that came, if one came.
[[nodiscard]] std::optional<Error> interruption();
// The same without signals: of work that a signal does not end, past a point of no return.
[[nodiscard]] std::optional<Error> giving_way();

// On this thread, until it is destroyed, work also counts as interrupted when `asked` says so.
class InterruptibleBy {
 public:
  explicit InterruptibleBy(std::function<bool()> asked);
  ~InterruptibleBy();
  InterruptibleBy(const InterruptibleBy&) = delete;
  InterruptibleBy& operator=(const InterruptibleBy&) = delete;

 private:
  std::function<bool()> asked_;
  const std::function<bool()>* before_;
};
// For fibers that share a thread, at each switch, and for a thread that works for another: puts in
// place what the other is interrupted by, and returns what this one was.
const std::function<bool()>* exchange_interruption(const std::function<bool()>* other);
[[nodiscard]] const std::function<bool()>* interrupted_by();

}  // namespace zx::os
