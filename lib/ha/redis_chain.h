// observe → judge → plan for Redis, for commands and the agent alike; carrying out is redis_run.h.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/ha/redis_choose.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_plan.h"
#include "lib/ha/redis_proof.h"
#include "lib/ha/redis_world.h"

namespace zx::ha {

// One look at a deployment.
struct RedisView {
  redis::Snapshot snapshot;
  RedisVerdict verdict;
  std::optional<RedisLastSeen> last;
};
// Asks every node and Sentinel. With `hosts`, a node that does not answer is also looked at on its
// host (bounded by the deadline). Writes what was last seen when there is one master.
[[nodiscard]] RedisView look(RedisWorld& world, Millis deadline, bool hosts);
// The same from facts that somebody has already; no host is looked at.
[[nodiscard]] RedisView see(RedisWorld& world, redis::Snapshot snapshot);

struct RedisPrepared {
  RedisView view;
  RedisChoice choice;
  RedisFence fence;
  std::vector<SyncTask> tasks;  // of a sync
  run::Plan plan;
  bool planned = false;  // the old master lives, and nothing is lost
  bool through_sentinels = false;
  bool nothing_to_do = false;
  std::string said;      // why there is nothing to do
  std::string gives_up;  // of a sync: what is lost by it, which wants --confirm
  std::string confirms;  // the name it wants
  Millis looked{0};      // how long it took to be sure
};

struct RedisFailoverOptions {
  std::string to;
  bool planned = false;  // of a master that lives
  std::optional<std::uint64_t> allow_loss;
  bool assume_fenced = false;
  std::function<void(const std::string&)> progress;
  std::optional<Deadline> give_up;  // looking no longer than this
  // What was seen a moment ago, instead of a first look.
  std::optional<RedisView> view;
};
// Looks until the verdict is certain, with no effect on any server. Code::refused with the reason
// and the way out when a failover is not called for or not safe; then `why`, when given, is filled.
[[nodiscard]] Result<RedisPrepared> prepare_redis_failover(RedisWorld& world,
                                                           const RedisFailoverOptions& options,
                                                           RedisPrepared* why);
// Brings `node`, or every node when it is empty, back in line behind the master. `confirmed`: what
// the person named with --confirm; needed where data is given up for it.
[[nodiscard]] Result<RedisPrepared> prepare_redis_sync(RedisWorld& world, const std::string& node,
                                                       const std::string& confirmed);
// A person's word that a master that came back empty is right as it is: from now on it is what this
// host measures by. Nothing for any other verdict.
[[nodiscard]] Status accept_reborn(const RedisWorld& world, const RedisView& view);

}  // namespace zx::ha
