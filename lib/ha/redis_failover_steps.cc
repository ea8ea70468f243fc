// fence, choose, promote, demote: a failover without Sentinels.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_choose.h"
#include "lib/ha/redis_proof.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

// How long writes stay paused when nobody ends the pause: long enough to resume a killed run by
// hand, as long as Redis' own FAILOVER might take.
constexpr Millis kPause{60'000};

std::string fence_of(const StepContext& context) {
  return get_string(context.plan().context, "fence");
}
bool is_live(const StepContext& context) {
  return fence_of(context) == name_of(RedisFence::Kind::live);
}
bool is_on_host(const StepContext& context) {
  return fence_of(context) == name_of(RedisFence::Kind::host);
}

// Whoever may answer as a master all the same: the one that this run promotes, and an old one whose
// writes it has paused.
std::vector<std::string> known_masters(const StepContext& context) {
  std::vector<std::string> names{new_master_of(context)};
  if (is_live(context)) names.push_back(old_master_of(context));
  return names;
}

// --- fence ----------------------------------------------------------------------------------

// Whoever the Sentinels have promoted meanwhile, the one that was given up is to be fenced, unless
// it is back.
Status may_fence(RedisWorld& world, StepContext& context) {
  auto known = known_masters(context);
  if (get_string(context.plan().context, "by") == "sentinel")
    for (const auto& node : world.deployment().nodes)
      if (node.name != old_master_of(context)) known.push_back(node.name);
  return no_master_but(world, context, known);
}

Result<Json> fence(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  if (is_live(context)) {
    ZX_TRY(pause_writes(world, old, kPause, context.deadline()));
    return Json{{"proof", "live"}};
  }
  if (fence_of(context) == name_of(RedisFence::Kind::max_lag))
    return wait_until_it_refuses(world, context);
  if (!is_on_host(context)) return Json{{"proof", fence_of(context)}};
  const auto to = place_of(world, new_master_of(context));
  return world.on_host_of(
      old, "redis-fence",
      {{"run", context.run_id()}, {"to", {{"host", to.host}, {"port", to.port}}}},
      context.deadline().left());
}

Status undo_fence(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  ZX_TRY(none_took_over_from(world, old, context.run_id()));
  const auto deadline = Deadline::after(world.deployment().policy.fence_deadline);
  if (is_live(context)) return end_pause(world, old, deadline);
  if (!is_on_host(context)) return {};
  ZX_TRY(world.on_host_of(old, "redis-unfence", {{"run", context.run_id()}}, deadline.left()));
  // It ran, if without answering, before it was fenced: it is the only master there is again.
  if (get_bool(get_object(context.plan().context, "old_local"), "running"))
    ZX_TRY(world.on_host_of(old, "redis-start", Json::object(), deadline.left()));
  return {};
}

// --- choose ---------------------------------------------------------------------------------

Result<Json> choose_again(RedisWorld& world, StepContext& context) {
  const auto& plan = context.plan().context;
  const auto old = old_master_of(context);
  RedisChooseOptions options;
  options.to = get_string(plan, "named");
  if (const auto& loss = get_object(plan, "allow_loss"); loss.is_number())
    options.allow_loss = static_cast<std::uint64_t>(get_int(plan, "allow_loss"));
  const auto& reference = get_object(plan, "reference");
  options.prior = RedisReference{get_int(reference, "end"), get_bool(reference, "exact"),
                                 get_bool(reference, "known"), get_string(reference, "source")};
  const auto snapshot = observe_all(world, context, world.deployment().policy.probe_deadline);
  const auto choice =
      choose(world.deployment(), snapshot, old,
             read_redis_last_seen(state_dir_of(world), world.deployment().name), options);
  if (choice.refusal) return fail(*choice.refusal);
  Json seen{{"candidate", choice.promote},
            {"lost", choice.lost},
            {"end", choice.reference.end},
            {"exact", choice.reference.exact},
            {"known", choice.reference.known}};
  Json nodes = Json::object();
  for (const auto& one : choice.candidates) {
    nodes[one.node] = {{"fate", name_of(one.fate)},
                       {"offset", one.lineage.offset},
                       {"keys", one.keys},
                       {"why", join(one.reasons, "; ")}};
    if (one.node == choice.promote) {
      seen["offset"] = one.lineage.offset;
      seen["replid"] = one.lineage.replid;
    }
  }
  seen["nodes"] = std::move(nodes);
  return seen;
}

// --- promote --------------------------------------------------------------------------------

// The last look: nobody serves, and what was chosen is still so. One that follows again, or has
// been sent another data set meanwhile, is not what was chosen.
Status may_promote(RedisWorld& world, StepContext& context) {
  ZX_TRY(no_master_but(world, context, known_masters(context)));
  const auto node = new_master_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, node, context.deadline()));
  if (facts.role == Role::master) return {};  // after this run was resumed
  const auto& chosen = context.seen("choose");
  const auto moved = [&](const std::string& what) {
    return fail(Code::refused, what + " since it was chosen: others have acted meanwhile",
                "look with zx redis status, and begin again");
  };
  if (facts.link && facts.link->is_syncing) return moved(node + " has begun a full resync");
  if (facts.lineage.replid != get_string(chosen, "replid"))
    return moved(node + " has come to another line");
  if (!context.resumed()) return {};
  ZX_ASSIGN(const auto again, choose_again(world, context));
  if (const auto better = get_string(again, "candidate"); better != node)
    return moved(better + " is the one to promote, which has changed");
  return {};
}

Json promoted(const std::string& node, const redis::NodeFacts& facts) {
  // second_repl_offset is the first byte that is its own.
  return {{"node", node},
          {"replid", facts.lineage.replid},
          {"offset", facts.lineage.second_offset - 1},
          {"keys", facts.keys}};
}

Result<Json> promote(RedisWorld& world, StepContext& context) {
  const auto node = new_master_of(context);
  ZX_TRY(context.no_return());
  ZX_TRY(tell(world, node, {"REPLICAOF", "NO", "ONE"}, context.deadline()));
  ZX_ASSIGN(const auto facts, facts_of(world, node, context.deadline()));
  if (facts.role != Role::master)
    return fail(Code::failed, node + " is a replica again right after REPLICAOF NO ONE",
                "something else makes it one, a Sentinel perhaps: look with zx redis status");
  return promoted(node, facts);
}

Result<std::optional<Json>> was_promoted(RedisWorld& world, StepContext& context) {
  const auto node = new_master_of(context);
  const auto facts = facts_of(world, node, context.deadline());
  if (!facts || facts->role != Role::master) return std::optional<Json>();
  ZX_TRY(context.no_return());
  return std::optional<Json>(promoted(node, *facts));
}

// --- demote ---------------------------------------------------------------------------------

Result<Json> demote(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  const auto to = new_master_of(context);
  ZX_TRY(follow(world, old, to, context.deadline()));
  ZX_ASSIGN(const auto ended, cut_clients(world, old, context.deadline()));
  ZX_TRY(end_pause(world, old, context.deadline()));
  ZX_ASSIGN(const auto facts, facts_of(world, old, context.deadline()));
  if (facts.role != Role::replica)
    return fail(Code::failed, old + " still says that it is a master", "zx redis status");
  return Json{{"node", old}, {"to", to}, {"clients", ended}};
}

}  // namespace

void add_redis_failover_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.fence"] = {[&world](StepContext& c) { return may_fence(world, c); },
                            [&world](StepContext& c) { return fence(world, c); },
                            {},
                            [&world](StepContext& c) { return undo_fence(world, c); }};
  actions["redis.choose"] = {
      {}, [&world](StepContext& c) { return choose_again(world, c); }, {}, {}};
  actions["redis.promote"] = {[&world](StepContext& c) { return may_promote(world, c); },
                              [&world](StepContext& c) { return promote(world, c); },
                              [&world](StepContext& c) { return was_promoted(world, c); },
                              {}};
  actions["redis.demote"] = {{}, [&world](StepContext& c) { return demote(world, c); }, {}, {}};
}

}  // namespace zx::ha
