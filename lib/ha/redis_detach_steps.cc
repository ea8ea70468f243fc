// detach, and the wait that makes it a fence: a master with min-replicas-to-write refuses writes
// once the last acknowledgement is older than min-replicas-max-lag. Its replicas are told to follow
// themselves, which links them to nobody and leaves their data and line as they are.
#include <algorithm>

#include <fmt/format.h>

#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_proof.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using redis::NodeFacts;
using redis::Role;
using run::StepContext;

constexpr Millis kLookAgain{50};
constexpr Millis kGlance{300};

struct One {
  Status status;
};

// Neither linked to the old master nor told to follow it.
bool let_go(const redis::Snapshot& snapshot, const NodeFacts& facts) {
  return facts.answered() && facts.role == Role::replica && facts.link && !facts.link->is_up &&
         master_of(snapshot, facts) == facts.name;
}

Status detach_one(RedisWorld& world, const std::string& node, Deadline deadline) {
  ZX_TRY(follow(world, node, node, deadline));
  ZX_ASSIGN(const bool has_let_go, wait_until(world, node, deadline, [&](const NodeFacts& facts) {
              redis::Snapshot alone;
              alone.nodes.push_back(facts);
              return let_go(alone, facts);
            }));
  if (!has_let_go)
    return fail(Code::timeout, node + " has not let go of its master in time", "zx redis status");
  return {};
}

Result<Json> detach(RedisWorld& world, StepContext& context) {
  const auto nodes = get_strings(context.step().args, "nodes");
  if (context.noted("followed").is_null()) {
    Json followed = Json::object();
    for (const auto& node : nodes) {
      ZX_ASSIGN(const auto facts, facts_of(world, node, context.deadline()));
      if (facts.role != Role::replica || !facts.link)
        return fail(Code::refused, node + " is not a replica any more", "zx redis status");
      followed[node] = {{"host", facts.link->master_host}, {"port", facts.link->master_port}};
    }
    ZX_TRY(context.note("followed", followed));
  }
  const auto done = all_at_once<One>(nodes, [&](const std::string& node) {
    return One{detach_one(world, node, context.deadline())};
  });
  for (const auto& one : done)
    if (!one.status) return fail(one.status.error());
  return Json{{"nodes", nodes}};
}

Status attach_again(RedisWorld& world, StepContext& context) {
  ZX_TRY(none_took_over_from(world, old_master_of(context), context.run_id()));
  const auto deadline = Deadline::after(world.deployment().policy.fence_deadline);
  std::optional<Error> first;
  for (const auto& [node, master] : context.noted("followed").items()) {
    const auto told =
        tell(world, node,
             {"REPLICAOF", get_string(master, "host"), std::to_string(get_int(master, "port"))},
             deadline);
    if (!told && !first) first = told.error();
  }
  if (first) return fail(*first);
  return {};
}

}  // namespace

Result<Json> wait_until_it_refuses(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  const auto& plan = context.plan();
  const auto detached =
      std::find_if(plan.steps.begin(), plan.steps.end(),
                   [](const run::Step& step) { return step.action == "redis.detach"; });
  const auto nodes = detached == plan.steps.end() ? std::vector<std::string>()
                                                  : get_strings(detached->args, "nodes");
  const auto lag = get_int(plan.context, "max_lag_s");
  const auto begun = monotonic_now();
  const auto until = Deadline(begun + refuses_after(lag));
  while (true) {
    const auto snapshot = observe_all(world, context, kGlance);
    for (const auto& facts : snapshot.nodes) {
      if (facts.answered() && facts.role == Role::master)
        return fail(Code::refused, facts.name + " is alive and says that it is the master",
                    "look with zx redis status");
      const bool was_told = std::find(nodes.begin(), nodes.end(), facts.name) != nodes.end();
      if (was_told && facts.answered() && !let_go(snapshot, facts))
        return fail(Code::refused,
                    fmt::format("somebody has told {} to follow a master again", facts.name),
                    "look with zx redis status, and begin again");
    }
    // What comes after this step looks once more.
    if (until.left() <= kGlance) break;
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
  pause_for(until.left());
  return Json{{"proof", name_of(RedisFence::Kind::max_lag)},
              {"max_lag_s", lag},
              {"waited_ms", since(begun).count()},
              {"since", format_utc(wall_now())}};
}

void add_redis_detach_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.detach"] = {{},
                             [&world](StepContext& c) { return detach(world, c); },
                             {},
                             [&world](StepContext& c) { return attach_again(world, c); }};
}

}  // namespace zx::ha
