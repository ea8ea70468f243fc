// hand over: Redis' own FAILOVER of a master that lives. It pauses writes, waits until the replica
// has every byte, and swaps the roles; clients that wrote meanwhile are answered by the replica
// that the old master has become then, with READONLY.
#include <algorithm>

#include <fmt/format.h>

#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

constexpr Millis kLookAgain{2};
constexpr Millis kSettle{1'000};  // left of the deadline for what comes after FAILOVER's own

struct Two {
  redis::NodeFacts old, to;
};
Result<Two> both(RedisWorld& world, const StepContext& context) {
  const auto old = old_master_of(context);
  const auto to = get_string(context.plan().context, "to");
  const auto snapshot = world.observe({old, to}, world.deployment().policy.probe_deadline);
  const auto* one = snapshot.node(old);
  const auto* other = snapshot.node(to);
  if (one == nullptr || other == nullptr)
    return fail(Code::not_found, fmt::format("no nodes named {} and {}", old, to));
  if (!other->answered()) return fail(other->error);
  return Two{*one, *other};
}

bool is_handed_over(const Two& two) {
  return two.to.role == Role::master && !(two.old.answered() && two.old.role == Role::master);
}

Json handed_over(const StepContext& context, const Two& two) {
  return {{"node", two.to.name},
          {"from", old_master_of(context)},
          {"replid", two.to.lineage.replid},
          {"offset", two.to.lineage.second_offset - 1}};
}

// As the master lists it: FAILOVER knows its replicas by what they told it.
Result<redis::AttachedReplica> listed(RedisWorld& world, const redis::NodeFacts& master,
                                      const std::string& to) {
  const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
  for (const auto& replica : master.attached) {
    const auto* node = redis::node_at(snapshot, replica.address, replica.port);
    if (node != nullptr && node->name == to) return replica;
  }
  return fail(Code::refused, fmt::format("{} does not list {} among its replicas", master.name, to),
              "zx redis sync " + to);
}

// FAILOVER says of nobody whose it is: only one that this run may have begun is its own.
bool may_be_own(const StepContext& context) {
  return !context.noted("sent").is_null() && context.noted("refused").is_null();
}

// The master takes a replica for online from its first acknowledgement on, up to a second after
// the replica calls itself linked, and hands over to no other.
Result<redis::AttachedReplica> online(RedisWorld& world, const Two& two,
                                      const StepContext& context) {
  auto master = two.old;
  while (true) {
    ZX_ASSIGN(const auto replica, listed(world, master, two.to.name));
    if (replica.state == "online" || context.deadline().left() < 2 * kSettle) return replica;
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
    ZX_ASSIGN(master, facts_of(world, master.name, context.deadline()));
  }
}

Status may_hand_over(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto two, both(world, context));
  if (is_handed_over(two)) return {};
  if (!two.old.answered()) return fail(two.old.error);
  if (two.old.role != Role::master)
    return fail(Code::refused, two.old.name + " is not the master any more", "zx redis status");
  if (two.to.role == Role::master)
    return fail(Code::refused, fmt::format("{} is a master as well", two.to.name),
                "zx redis sync " + two.to.name);
  if (two.old.paused_by_failover && !may_be_own(context))
    return fail(Code::refused, two.old.name + " is handing over already, for somebody else",
                "wait for it: zx redis status");
  if (!two.to.is_linked() || two.to.link->is_syncing)
    return fail(Code::refused, fmt::format("{} is not linked to {}", two.to.name, two.old.name),
                "zx redis sync " + two.to.name);
  return {};
}

Status gave_up(const std::string& to, bool in_time) {
  if (in_time)
    return fail(Code::failed, "somebody has called the hand over off: nothing was changed",
                "FAILOVER ABORT, or another run, does so; look with zx redis status");
  return fail(Code::timeout, to + " did not have every byte in time: nothing was changed",
              "fewer writes, or more time: promote_deadline of the deployment's policy");
}

Result<Json> hand_over(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(auto two, both(world, context));
  const auto deadline = context.deadline();
  const auto old = two.old.name;
  const auto begun = monotonic_now();
  std::optional<Deadline> until;  // its own TIMEOUT
  if (!is_handed_over(two) && !two.old.paused_by_failover) {
    ZX_ASSIGN(const auto replica, online(world, two, context));
    const auto patience = std::max(Millis(1), deadline.left() - kSettle);
    if (!context.noted("refused").is_null()) ZX_TRY(context.note("refused", Json()));
    ZX_TRY(context.note("sent", two.to.name));
    until = Deadline::after(patience);
    const auto reply =
        world.command(old,
                      {"FAILOVER", "TO", replica.address, std::to_string(replica.port), "TIMEOUT",
                       std::to_string(patience.count())},
                      deadline);
    if (!reply && !reply.error().reply.empty())
      ZX_TRY(context.note("refused", reply.error().reply));
    if (!reply) return fail(reply.error().error);
  } else if (two.old.paused_by_failover && !may_be_own(context)) {
    return fail(Code::refused, old + " is handing over already, for somebody else",
                "wait for it: zx redis status");
  }
  while (true) {
    ZX_ASSIGN(two, both(world, context));
    if (is_handed_over(two)) break;
    const bool has_ended =
        two.old.answered() && two.old.role == Role::master && !two.old.paused_by_failover;
    if (has_ended) ZX_TRY(gave_up(two.to.name, until && !until->passed()));
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("{} has not handed over in time", old),
                  "zx redis status");
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
  ZX_TRY(context.no_return());
  auto seen = handed_over(context, two);
  seen["paused_ms"] = since(begun).count();
  return seen;
}

Result<std::optional<Json>> was_handed_over(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto two, both(world, context));
  if (!is_handed_over(two)) return std::optional<Json>();
  ZX_TRY(context.no_return());
  return std::optional<Json>(handed_over(context, two));
}

// While it has not been handed over it can be called off; afterwards it is done.
Status call_off(RedisWorld& world, StepContext& context) {
  const auto deadline = Deadline::after(world.deployment().policy.promote_deadline);
  const auto old = old_master_of(context);
  ZX_ASSIGN(auto two, both(world, context));
  if (two.old.answered() && two.old.role == Role::master && two.old.paused_by_failover &&
      may_be_own(context)) {
    const auto reply = world.command(old, {"FAILOVER", "ABORT"}, deadline);
    // It may have come to its end just before.
    if (!reply && reply.error().reply.empty()) return fail(reply.error().error);
    ZX_ASSIGN(two, both(world, context));
  }
  if (is_handed_over(two))
    return fail(Code::refused, fmt::format("{} is the master already", two.to.name),
                fmt::format("finish the run: zx runs resume {}", context.run_id()));
  return {};
}

}  // namespace

void add_redis_handover_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.handover"] = {[&world](StepContext& c) { return may_hand_over(world, c); },
                               [&world](StepContext& c) { return hand_over(world, c); },
                               [&world](StepContext& c) { return was_handed_over(world, c); },
                               [&world](StepContext& c) { return call_off(world, c); }};
}

}  // namespace zx::ha
