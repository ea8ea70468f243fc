#include "lib/ha/redis_run.h"

#include "lib/ha/redis_actions.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {

Ground ground_of(const RedisWorld& world, coord::Shared* shared) {
  return {state_dir_of(world), lock_of(world.deployment()), shared};
}

bool is_about_a_replica(const run::Record& record) { return record.plan.command == "redis sync"; }

Result<run::RunReport> carry_out(RedisWorld& world, const run::Plan& plan, coord::Lease& lease,
                                 run::Hooks hooks) {
  return run::execute(plan, redis_actions(world), state_dir_of(world),
                      with_signals(std::move(hooks), lease, nullptr));
}

Result<run::RunReport> take_up(RedisWorld& world, const std::string& id, coord::Lease& lease,
                               run::Hooks hooks) {
  return run::resume(id, redis_actions(world), state_dir_of(world),
                     with_signals(std::move(hooks), lease, nullptr));
}

Result<run::RunReport> take_back(RedisWorld& world, const std::string& id, coord::Lease& lease,
                                 run::Hooks hooks) {
  return run::abort(id, redis_actions(world), state_dir_of(world),
                    with_signals(std::move(hooks), lease, nullptr));
}

}  // namespace zx::ha
