// Private to lib/ha: the pieces that redis_actions() is put together from, one function a file.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/ha/redis_world.h"
#include "lib/os/signals.h"
#include "lib/run/executor.h"

namespace zx::ha {

[[nodiscard]] const std::string& state_dir_of(const RedisWorld& world);
// The node that becomes the master in this run.
[[nodiscard]] std::string new_master_of(const run::StepContext& context);
[[nodiscard]] std::string old_master_of(const run::StepContext& context);

// One node, as it is now. An Error when it does not answer.
[[nodiscard]] Result<redis::NodeFacts> facts_of(RedisWorld& world, const std::string& node,
                                                Deadline deadline);
// What ends a wait early: os::interruption where a signal takes the run back, os::giving_way past
// its point of no return.
using Ends = std::optional<Error> (*)();
// Asks again until `is_so` says so: true. False at the deadline; an Error when `ends` has one.
[[nodiscard]] Result<bool> wait_until(RedisWorld& world, const std::string& node, Deadline deadline,
                                      const std::function<bool(const redis::NodeFacts&)>& is_so,
                                      Ends ends = os::interruption);
// Every node; an old master that is given up because it is silent is not waited for as long.
[[nodiscard]] redis::Snapshot observe_all(RedisWorld& world, const run::StepContext& context,
                                          Millis deadline);
// Refused when a node other than `except` answers as a master.
[[nodiscard]] Status no_master_but(RedisWorld& world, const run::StepContext& context,
                                   const std::vector<std::string>& except);
// For an undo that would let `old` serve again: refused when another has become the master.
[[nodiscard]] Status none_took_over_from(RedisWorld& world, const std::string& old,
                                         const std::string& run);
// REPLICAOF. Nothing is waited for.
[[nodiscard]] Status follow(RedisWorld& world, const std::string& node, const std::string& master,
                            Deadline deadline);
// Ends the connections of clients, but neither replicas' nor this one. Returns how many.
[[nodiscard]] Result<std::int64_t> cut_clients(RedisWorld& world, const std::string& node,
                                               Deadline deadline);
[[nodiscard]] Status pause_writes(RedisWorld& world, const std::string& node, Millis span,
                                  Deadline deadline);
[[nodiscard]] Status end_pause(RedisWorld& world, const std::string& node, Deadline deadline);
// Who the master is must be known when it dies before anybody looks. A help for then: no run fails
// by it. Nodes are asked for 300 ms at most, and one that is not worth it is left out.
void note_master(RedisWorld& world, const std::string& except = {});
// Of an old master that refuses writes once no replica acknowledges: until it does. Refused when it
// answers again as a master, or a replica has gone back to it.
[[nodiscard]] Result<Json> wait_until_it_refuses(RedisWorld& world, run::StepContext& context);

// The key that a run writes to see that a write goes through; it is gone after a minute by itself.
[[nodiscard]] std::string canary_key(const std::string& run);
// Until it is taken: for as long as too few replicas are there, a new master refuses.
[[nodiscard]] Status write_canary(RedisWorld& world, const std::string& master,
                                  const std::string& run, Deadline deadline);
[[nodiscard]] Status drop_canary(RedisWorld& world, const std::string& master,
                                 const std::string& run, Deadline deadline);
// Waits until `node` is linked to `master` and has the canary. "linked", "resyncing" when it is in
// a full resync at the deadline.
[[nodiscard]] Result<std::string> wait_behind(RedisWorld& world, const std::string& node,
                                              const std::string& master, const std::string& run,
                                              Deadline deadline, Ends ends = os::interruption);

void add_redis_failover_actions(RedisWorld& world, run::Actions& actions);
void add_redis_detach_actions(RedisWorld& world, run::Actions& actions);
void add_redis_aftermath_actions(RedisWorld& world, run::Actions& actions);
void add_redis_handover_actions(RedisWorld& world, run::Actions& actions);
void add_redis_sentinel_actions(RedisWorld& world, run::Actions& actions);
void add_redis_sync_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_actions(RedisWorld& world, run::Actions& actions);

}  // namespace zx::ha
