// From verdict and choice to ordered steps. Pure; what the steps do is in redis_*_steps.cc.
#pragma once

#include <string>
#include <vector>

#include "lib/ha/redis_choose.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_proof.h"
#include "lib/run/plan.h"

namespace zx::ha {

// The lock under which everything that changes a deployment runs: "redis.cache".
[[nodiscard]] std::string lock_of(const config::RedisDeployment& deployment);

// Without Sentinels: fence, promote, point the others at the new master. Where the old master
// refuses writes by itself, its replicas let go of it first, and that moment is waited for.
[[nodiscard]] run::Plan plan_redis_failover(const config::RedisDeployment& deployment,
                                            const redis::Snapshot& snapshot,
                                            const RedisVerdict& verdict, const RedisChoice& choice,
                                            const RedisFence& fence,
                                            const RedisChooseOptions& options);
// Without Sentinels, of a master that lives: FAILOVER, which loses nothing.
[[nodiscard]] run::Plan plan_redis_handover(const config::RedisDeployment& deployment,
                                            const redis::Snapshot& snapshot,
                                            const std::string& master, const std::string& to);
// Through the Sentinels. Without a fence it is planned: the master lives, its writes are paused
// until `to` has all.
// `named`: a person wants this node, not one that is as good. Where the Sentinels would choose a
// good one by themselves they are not told: they read priorities every ten seconds only.
[[nodiscard]] run::Plan plan_sentinel_failover(const config::RedisDeployment& deployment,
                                               const redis::Snapshot& snapshot,
                                               const RedisVerdict& verdict,
                                               const RedisChoice& choice, const RedisFence* fence,
                                               bool named);

// What is done about one node, or is not.
struct SyncTask {
  std::string node;
  bool points = false;     // REPLICAOF
  bool demotes = false;    // it says that it is a master
  bool is_fenced = false;  // its fence record goes
  Resync resync;           // what the link costs when it comes up
  std::string said;        // why something is done, or why nothing is
  std::string blocked;     // why its link cannot come up; nothing is done then
  [[nodiscard]] bool is_needed() const { return points || demotes || waits; }
  bool waits = false;  // its link is to come up
};
[[nodiscard]] run::Plan plan_redis_sync(const config::RedisDeployment& deployment,
                                        const std::string& master,
                                        const std::vector<SyncTask>& tasks);

}  // namespace zx::ha
