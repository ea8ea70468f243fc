// The turn of a Redis deployment, and carrying out a plan on it, for commands and the agent alike.
#pragma once

#include <string>

#include "lib/ha/redis_plan.h"
#include "lib/ha/redis_world.h"
#include "lib/ha/turn.h"
#include "lib/run/executor.h"

namespace zx::ha {

// For take_turn(), supersede() and the like, see turn.h.
[[nodiscard]] Ground ground_of(const RedisWorld& world, coord::Shared* shared);
// A run about one replica must not stand in the way of a failover or of another such run.
[[nodiscard]] bool is_about_a_replica(const run::Record& record);

// Signals undo a run before its point of no return, as an error of `hooks.interruption` does.
[[nodiscard]] Result<run::RunReport> carry_out(RedisWorld& world, const run::Plan& plan,
                                               coord::Lease& lease, run::Hooks hooks);
[[nodiscard]] Result<run::RunReport> take_up(RedisWorld& world, const std::string& run,
                                             coord::Lease& lease, run::Hooks hooks);
[[nodiscard]] Result<run::RunReport> take_back(RedisWorld& world, const std::string& run,
                                               coord::Lease& lease, run::Hooks hooks);

}  // namespace zx::ha
