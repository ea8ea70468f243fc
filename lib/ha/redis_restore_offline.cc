// place, start: the file where a stopped server finds it.
#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

using run::StepContext;

constexpr Millis kHost{30'000};

Json request_of(const StepContext& context) {
  return Json{{"file", file_of(context)},
              {"sha256", get_string(context.plan().context, "sha256")},
              {"run", context.run_id()}};
}

Result<Json> start(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  auto facts = facts_of(world, target, Deadline::after(world.deployment().policy.probe_deadline));
  // Replicas that live copy it at once: what they had is in the safety copy alone then.
  if (!get_string(context.plan().context, "keeper").empty()) ZX_TRY(context.no_return());
  if (!facts)
    ZX_TRY(world.on_host_of(target, "redis-start", Json::object(), context.deadline().left()));
  ZX_ASSIGN(const bool is_there,
            wait_until(world, target, context.deadline(), [](const redis::NodeFacts& now) {
              return now.role != redis::Role::unknown && !now.is_loading();
            }));
  if (!is_there) return fail(Code::timeout, target + " has not loaded its data in time");
  ZX_ASSIGN(const auto now, facts_of(world, target, context.deadline()));
  if (now.role == redis::Role::replica)
    return fail(Code::refused,
                fmt::format("{} starts as a replica: its data would come from its master", target),
                "its configuration says replicaof; restore on the master");
  note_master(world);  // another line and other keys than before are as they should be
  return Json{{"node", target}, {"keys", now.keys}};
}

}  // namespace

void add_redis_restore_offline_actions(RedisWorld& world, run::Actions& actions) {
  auto& placing = actions["redis.restore-place"];
  placing.act = [&world](StepContext& context) {
    return world.on_host_of(target_of(context), "redis-place", request_of(context),
                            context.deadline().left());
  };
  placing.undo = [&world](StepContext& context) -> Status {
    ZX_TRY(world.on_host_of(target_of(context), "redis-unplace", request_of(context), kHost));
    return {};
  };
  auto& starting = actions["redis.restore-start"];
  starting.act = [&world](StepContext& context) { return start(world, context); };
  starting.undo = [&world](StepContext& context) -> Status {
    ZX_TRY(world.on_host_of(target_of(context), "redis-stop", Json::object(), kHost));
    return {};
  };
}

void add_redis_restore_actions(RedisWorld& world, run::Actions& actions) {
  add_redis_restore_hold_actions(world, actions);
  add_redis_restore_safety_actions(world, actions);
  add_redis_restore_load_actions(world, actions);
  add_redis_restore_proof_actions(world, actions);
  add_redis_restore_offline_actions(world, actions);
}

}  // namespace zx::ha
