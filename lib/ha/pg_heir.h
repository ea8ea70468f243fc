// Whom an earlier failover may have promoted, unseen: it must not go on beside the next one.
#pragma once

#include <functional>
#include <string>

#include "lib/ha/pg_chain.h"
#include "lib/ha/watch_record.h"

namespace zx::ha {

// `heir` does not answer. True: it must be stopped on its host first, by plan_fence(). False: it
// serves nobody, or it was promoted and its commits are the ones to keep; then `view` is about a
// failover from it. Code::refused when its host cannot tell; with require_fence off that is said to
// `unproved` instead.
[[nodiscard]] Result<bool> must_fence_heir(PgWorld& world, const std::string& heir, View& view,
                                           const std::function<void()>& unproved);

struct ByHand {
  Prepared prepared;
  std::string fence_first;  // an heir: to be stopped on its host, then it is prepared once more
  std::string unproved;     // an heir that may serve unseen: require_fence is off
};
// prepare_failover() by a person, who knows what all agents know. `alone`: as far as they can be
// asked.
[[nodiscard]] Result<ByHand> prepare_failover_by_hand(PgWorld& world, coord::Shared* shared,
                                                      FailoverOptions options, bool alone,
                                                      Prepared* why);

}  // namespace zx::ha
