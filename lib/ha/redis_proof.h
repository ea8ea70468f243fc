// What proves that the old master takes no writes any more. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/ha/redis_last_seen.h"
#include "lib/redis/facts.h"

namespace zx::ha {

// Does the old master refuse writes by itself once no replica acknowledges any more? With
// min-replicas-to-write and min-replicas-max-lag it does, when fewer replicas than it wants can
// reach it: all others answer here, and are taken from it first.
struct SelfRefusal {
  bool holds = false;
  std::string why;                  // or why not
  std::int64_t max_lag_s = 0;       // min-replicas-max-lag
  std::vector<std::string> detach;  // the replicas that are to let go of it
};
[[nodiscard]] SelfRefusal self_refusal(const config::RedisDeployment& deployment,
                                       const redis::Snapshot& snapshot,
                                       const std::string& old_master,
                                       const std::optional<RedisLastSeen>& last);
// How long after the last acknowledgement that reached it.
[[nodiscard]] Millis refuses_after(std::int64_t max_lag_s);

struct RedisFence {
  enum class Kind {
    host,        // ended on its host, and its configuration made a replica's
    live,        // it answers: its writes are paused, then it follows the new master
    is_replica,  // it is a replica already
    operator_says,
    max_lag,  // it refuses writes by itself, see self_refusal()
    policy,   // require_fence is off
    none
  } kind = Kind::none;
  std::string why;
  std::vector<std::string> ways_out;  // with none: what would make it possible
  SelfRefusal refusal = {};           // of max_lag
};
[[nodiscard]] const char* name_of(RedisFence::Kind kind);
[[nodiscard]] RedisFence redis_fence(const config::RedisDeployment& deployment,
                                     const redis::Snapshot& snapshot, const std::string& old_master,
                                     bool assume_fenced, const std::optional<RedisLastSeen>& last);

}  // namespace zx::ha
