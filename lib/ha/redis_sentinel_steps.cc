// prefer, pause, hand over, unprefer: a failover that the Sentinels do. They choose by
// replica-priority, which they read from each replica, and ask for no offset: where the master
// lives, its writes are paused until the replica has every byte.
#include <algorithm>
#include <cstdlib>
#include <map>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

constexpr Millis kLookAgain{20};
constexpr Millis kPause{60'000};  // ended by the demotion, or by the undo
constexpr const char* kFirst = "1";
constexpr const char* kOther = "100";

// The first Sentinel that answers, knows the master and has a quorum.
struct Speaker {
  std::size_t index = 0;
  redis::SentinelFacts facts;
};
Result<Speaker> speaker(RedisWorld& world) {
  redis::Snapshot snapshot;
  snapshot.sentinels = world.observe_sentinels(world.deployment().policy.probe_deadline);
  for (std::size_t i = 0; i < snapshot.sentinels.size(); ++i) {
    const auto& one = snapshot.sentinels[i];
    if (one.answered() && one.knows_master && one.has_quorum.value_or(false))
      return Speaker{i, one};
  }
  return fail(Code::refused, why_no_quorum(world.deployment(), snapshot),
              "start the Sentinels that are missing: fewer than the majority agree on nothing");
}

// The master that has come since, seen on the server itself.
std::optional<Json> new_master(RedisWorld& world, const StepContext& context) {
  const auto snapshot = observe_all(world, context, world.deployment().policy.probe_deadline);
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == Role::master && facts.name != old_master_of(context))
      return Json{{"node", facts.name},
                  {"replid", facts.lineage.replid},
                  {"offset", facts.lineage.second_offset - 1},
                  {"keys", facts.keys}};
  return std::nullopt;
}

// --- prefer ---------------------------------------------------------------------------------

Result<std::string> priority_of(RedisWorld& world, const std::string& node, Deadline deadline) {
  ZX_ASSIGN(const auto reply, tell(world, node, {"CONFIG", "GET", "replica-priority"}, deadline));
  if (reply.items.size() < 2)
    return fail(Code::server, node + " does not say its replica-priority");
  return reply.items[1].text;
}

Status set_priority(RedisWorld& world, const std::string& node, const std::string& priority,
                    Deadline deadline) {
  ZX_TRY(tell(world, node, {"CONFIG", "SET", "replica-priority", priority}, deadline));
  return {};
}

// What a Sentinel has read of the replicas: "slave-priority" by address.
Result<bool> knows_priorities(RedisWorld& world, const Speaker& through,
                              const std::map<std::string, std::string>& wanted,
                              const redis::Snapshot& places, Deadline deadline) {
  const auto reply = world.ask_sentinel(
      through.index, {"SENTINEL", "REPLICAS", world.deployment().sentinel.master_name}, deadline);
  if (!reply) return fail(reply.error().error);
  std::map<std::string, std::string> known;
  for (const auto& row : reply->items) {
    std::map<std::string, std::string> fields;
    for (std::size_t i = 0; i + 1 < row.items.size(); i += 2)
      fields[row.items[i].text] = row.items[i + 1].text;
    const auto* node = redis::node_at(places, fields["ip"], std::atoi(fields["port"].c_str()));
    if (node != nullptr) known[node->name] = fields["slave-priority"];
  }
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& one) {
    const auto found = known.find(one.first);
    return found != known.end() && found->second == one.second;
  });
}

Result<Json> prefer(RedisWorld& world, StepContext& context) {
  const auto to = get_string(context.plan().context, "to");
  const auto nodes = get_strings(context.step().args, "nodes");
  if (context.noted("before").is_null()) {
    Json before = Json::object();
    for (const auto& node : nodes) {
      ZX_ASSIGN(before[node], priority_of(world, node, context.deadline()));
    }
    ZX_TRY(context.note("before", before));
  }
  std::map<std::string, std::string> wanted;
  for (const auto& node : nodes) {
    const auto before = get_string(context.noted("before"), node.c_str());
    // One that must never be promoted stays so.
    wanted[node] = node == to ? kFirst : before == "0" ? "0" : kOther;
    ZX_TRY(set_priority(world, node, wanted[node], context.deadline()));
  }
  ZX_ASSIGN(const auto through, speaker(world));
  const auto places = world.observe({}, world.deployment().policy.probe_deadline);
  // They look every ten seconds, and every second while the master is down.
  while (true) {
    // They may be quicker than their next look, and have failed over by themselves.
    if (new_master(world, context)) break;
    const auto knows = knows_priorities(world, through, wanted, places,
                                        Deadline::after(world.deployment().policy.probe_deadline));
    if (knows && *knows) break;
    if (context.deadline().passed())
      return fail(Code::timeout, "the Sentinels have not read the replica-priority of " + to,
                  "SENTINEL REPLICAS there says what they know");
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
  return Json{{"before", context.noted("before")}, {"sentinel", through.index}};
}

Status put_back(RedisWorld& world, const Json& before, Deadline deadline) {
  std::optional<Error> first;
  for (const auto& [node, priority] : before.items()) {
    if (!priority.is_string()) continue;
    const auto status = set_priority(world, node, priority.get<std::string>(), deadline);
    if (!status && !first) first = status.error();
  }
  if (first) return fail(*first);
  return {};
}

Result<Json> unprefer(RedisWorld& world, StepContext& context) {
  const auto& before = get_object(context.seen("prefer"), "before");
  if (!before.is_object()) return Json{{"skipped", "no priority was changed"}};
  ZX_TRY(put_back(world, before, context.deadline()));
  // The rewrite before has kept those of the failover.
  for (const auto& [node, priority] : before.items())
    static_cast<void>(world.command(node, {"CONFIG", "REWRITE"}, context.deadline()));
  return Json{{"before", before}};
}

// --- pause ----------------------------------------------------------------------------------

Result<Json> pause_and_catch_up(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  const auto to = get_string(context.plan().context, "to");
  ZX_TRY(pause_writes(world, old, kPause, context.deadline()));
  ZX_ASSIGN(const auto master, facts_of(world, old, context.deadline()));
  ZX_ASSIGN(const bool has_all, wait_until(world, to, context.deadline(), [&](const auto& facts) {
              return facts.is_linked() && facts.lineage.replid == master.lineage.replid &&
                     facts.lineage.offset >= master.lineage.offset;
            }));
  if (!has_all)
    return fail(Code::timeout, fmt::format("{} did not have every byte of {} in time", to, old),
                "zx redis status");
  return Json{{"node", to}, {"offset", master.lineage.offset}};
}

Status end_the_pause(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  ZX_TRY(none_took_over_from(world, old, context.run_id()));
  return end_pause(world, old, Deadline::after(world.deployment().policy.probe_deadline));
}

// --- hand over ------------------------------------------------------------------------------

Status has_quorum(RedisWorld& world, StepContext& context) {
  if (new_master(world, context)) return {};
  ZX_TRY(speaker(world));
  return {};
}

Result<Json> sentinel_failover(RedisWorld& world, StepContext& context) {
  const auto& name = world.deployment().sentinel.master_name;
  // They may have been quicker: once more would move the master again.
  if (auto seen = new_master(world, context)) {
    ZX_TRY(context.no_return());
    return *seen;
  }
  ZX_ASSIGN(const auto through, speaker(world));
  const auto reply =
      world.ask_sentinel(through.index, {"SENTINEL", "FAILOVER", name}, context.deadline());
  // One that is at it already is waited for.
  if (!reply && !reply.error().reply.starts_with("INPROG")) {
    auto error = reply.error().error;
    if (reply.error().reply.starts_with("NOGOODSLAVE"))
      error.hint = "the Sentinels take none of the replicas for fit: zx redis status";
    return fail_while(std::move(error), "asking a Sentinel to fail over");
  }
  while (true) {
    if (auto seen = new_master(world, context)) {
      ZX_TRY(context.no_return());
      (*seen)["sentinel"] = fmt::format("{}:{}", through.facts.address, through.facts.port);
      return *seen;
    }
    if (context.deadline().passed())
      return fail(Code::timeout, "the Sentinels have promoted nobody",
                  "SENTINEL MASTERS there says what they are at");
    pause_for(kLookAgain);
  }
}

Result<std::optional<Json>> was_done(RedisWorld& world, StepContext& context) {
  auto seen = new_master(world, context);
  if (seen) ZX_TRY(context.no_return());
  return seen;
}

}  // namespace

void add_redis_sentinel_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.sentinel.prefer"] = {
      {},
      [&world](StepContext& c) { return prefer(world, c); },
      {},
      [&world](StepContext& c) {
        if (!c.noted("before").is_object()) return Status{};
        return put_back(world, c.noted("before"),
                        Deadline::after(world.deployment().policy.promote_deadline));
      }};
  actions["redis.sentinel.pause"] = {
      {},
      [&world](StepContext& c) { return pause_and_catch_up(world, c); },
      {},
      [&world](StepContext& c) { return end_the_pause(world, c); }};
  actions["redis.sentinel.failover"] = {
      [&world](StepContext& c) { return has_quorum(world, c); },
      [&world](StepContext& c) { return sentinel_failover(world, c); },
      [&world](StepContext& c) { return was_done(world, c); },
      [&world](StepContext& c) {
        return none_took_over_from(world, old_master_of(c), c.run_id());
      }};
  actions["redis.sentinel.unprefer"] = {
      {}, [&world](StepContext& c) { return unprefer(world, c); }, {}, {}};
}

}  // namespace zx::ha
