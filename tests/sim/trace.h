// What happened, one line an event, virtual time in front. Costs nothing while nobody reads it.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/scheduler.h"

namespace zx::sim {

class Trace {
 public:
  Trace(const Scheduler& scheduler, bool on) : scheduler_(scheduler), on_(on) {}
  // `say` returns the text.
  template <class Say>
  void operator()(const Say& say) {
    if (on_) lines_.push_back(show_time(scheduler_.now()) + "  " + say());
  }
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }

 private:
  const Scheduler& scheduler_;
  bool on_;
  std::vector<std::string> lines_;
};

}  // namespace zx::sim
