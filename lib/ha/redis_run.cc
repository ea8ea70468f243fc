#include "lib/ha/redis_run.h"

#include <memory>
#include <vector>

#include "lib/ha/redis_actions.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {

Ground ground_of(const RedisWorld& world, coord::Shared* shared) {
  return {state_dir_of(world), lock_of(world.deployment()), shared};
}

bool is_about_a_replica(const run::Record& record) { return record.plan.command == "redis sync"; }

namespace {

// A run that marks the servers before its first step, and goes on for as long as it has the mark.
class Marked {
 public:
  explicit Marked(RedisWorld& world) : world_(world) {}
  run::Hooks with(run::Hooks hooks, coord::Lease& lease) {
    hooks.enter = [this, also = std::move(hooks.enter)](const run::Record& record) -> Status {
      if (also) ZX_TRY(also(record));
      const auto& context = record.plan.context;
      // One that accepts connections and answers nothing is not waited for again.
      std::vector<std::string> except;
      if (get_string(context, "verdict") == name_of(RedisState::master_silent))
        except.push_back(get_string(context, "old_master"));
      ZX_ASSIGN(mark_, world_.mark(record.id, record.plan.command, except));
      return {};
    };
    hooks.still_ours = [this, also = std::move(hooks.still_ours)]() -> Status {
      if (also) ZX_TRY(also());
      return mark_ ? mark_->check() : Status{};
    };
    return with_signals(std::move(hooks), lease, nullptr);
  }

 private:
  RedisWorld& world_;
  std::unique_ptr<coord::Lease> mark_;
};

}  // namespace

Result<run::RunReport> carry_out(RedisWorld& world, const run::Plan& plan, coord::Lease& lease,
                                 run::Hooks hooks) {
  Marked marked(world);
  return run::execute(plan, redis_actions(world), state_dir_of(world),
                      marked.with(std::move(hooks), lease));
}

Result<run::RunReport> take_up(RedisWorld& world, const std::string& id, coord::Lease& lease,
                               run::Hooks hooks) {
  Marked marked(world);
  return run::resume(id, redis_actions(world), state_dir_of(world),
                     marked.with(std::move(hooks), lease));
}

Result<run::RunReport> take_back(RedisWorld& world, const std::string& id, coord::Lease& lease,
                                 run::Hooks hooks) {
  Marked marked(world);
  return run::abort(id, redis_actions(world), state_dir_of(world),
                    marked.with(std::move(hooks), lease));
}

}  // namespace zx::ha
