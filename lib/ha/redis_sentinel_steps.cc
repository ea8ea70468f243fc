// prefer, pause, hand over, unprefer: a failover that the Sentinels do. They choose by
// replica-priority, which they read from each replica, and ask for no offset: where the master
// lives, its writes are paused until the replica has every byte.
#include <algorithm>
#include <cstdlib>
#include <map>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_quorum.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

constexpr Millis kLookAgain{20};
constexpr Millis kAskAgain{100};
// Renewed while it is waited: writers wait no longer than this when zx is killed.
constexpr Millis kPause{5'000};
constexpr Millis kRenew{1'000};
// From the order on the move is the Sentinels': they may take so long to demote the old master.
constexpr Millis kMove{60'000};
// One that has been told to fail over shows it by then.
constexpr Millis kShows{1'000};
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
  if (why_no_quorum(world.deployment(), snapshot).empty())
    for (std::size_t i = 0; i < snapshot.sentinels.size(); ++i) {
      const auto& one = snapshot.sentinels[i];
      if (one.answered() && one.knows_master && one.has_quorum.value_or(false))
        return Speaker{i, one};
    }
  return fail(Code::refused, why_no_quorum(world.deployment(), snapshot),
              way_to_a_quorum(world.deployment(), snapshot));
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

// In the files of the servers that have one.
void keep_priorities(RedisWorld& world, const Json& before, Deadline deadline) {
  for (const auto& [node, priority] : before.items())
    static_cast<void>(world.command(node, {"CONFIG", "REWRITE"}, deadline));
}

Result<Json> unprefer(RedisWorld& world, StepContext& context) {
  const auto& before = get_object(context.seen("prefer"), "before");
  if (!before.is_object()) return Json{{"skipped", "no priority was changed"}};
  ZX_TRY(put_back(world, before, context.deadline()));
  // The rewrite before has kept those of the failover.
  keep_priorities(world, before, context.deadline());
  return Json{{"before", before}};
}

// --- pause ----------------------------------------------------------------------------------

// Pauses the writes of the old master until the new one has every byte; they are paused when it
// returns, for most of `span`. Nothing when the Sentinels have made another the master meanwhile.
Result<std::optional<std::int64_t>> hold_writes(RedisWorld& world, StepContext& context,
                                                Millis span) {
  const auto old = old_master_of(context);
  const auto to = get_string(context.plan().context, "to");
  std::optional<redis::NodeFacts> master;
  Monotonic paused{};
  while (true) {
    // Those of a killed run may have gone on.
    if (context.resumed() && new_master(world, context)) return std::optional<std::int64_t>();
    if (!master || since(paused) >= kRenew) {
      paused = monotonic_now();
      ZX_TRY(pause_writes(world, old, span, context.deadline()));
      ZX_ASSIGN(master, facts_of(world, old, context.deadline()));
    }
    const auto facts = facts_of(world, to, context.deadline());
    const bool has_all = facts && facts->is_linked() &&
                         facts->lineage.replid == master->lineage.replid &&
                         facts->lineage.offset >= master->lineage.offset;
    // This process may have stood still for longer than the pause.
    if (has_all && since(paused) < kPause) return std::optional(master->lineage.offset);
    if (context.deadline().passed())
      return fail(Code::timeout, fmt::format("{} did not have every byte of {} in time", to, old),
                  "zx redis status");
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
}

Result<Json> pause_and_catch_up(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto offset, hold_writes(world, context, kPause));
  Json seen{{"node", get_string(context.plan().context, "to")}};
  if (offset) seen["offset"] = *offset;
  return seen;
}

// --- taking it back -------------------------------------------------------------------------

bool has_flag(const redis::SentinelFacts& facts, std::string_view flag) {
  return std::find(facts.flags.begin(), facts.flags.end(), flag) != facts.flags.end();
}

// Why the old master may not stay it. Empty: it stays, as far as everybody says that answers, and
// `told`, a Sentinel's place or -1, answers.
std::string doubt(const redis::Snapshot& snapshot, const std::string& old, std::int64_t told) {
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == Role::master && facts.name != old)
      return facts.name + " is the master now";
  for (std::size_t i = 0; i < snapshot.sentinels.size(); ++i) {
    const auto& one = snapshot.sentinels[i];
    const auto who = fmt::format("the Sentinel at {}:{}", one.address, one.port);
    if (!one.answered()) {
      if (static_cast<std::int64_t>(i) == told)
        return who + " was told to fail over, and does not answer now";
      continue;
    }
    if (!one.knows_master) continue;
    if (has_flag(one, "failover_in_progress")) return who + " is at a failover";
    const auto* named = redis::node_at(snapshot, one.master_host, one.master_port);
    if (named != nullptr && named->name != old)
      return fmt::format("{} has {} as the master", who, named->name);
  }
  return {};
}

// SENTINEL FAILOVER cannot be called off. Once it may have been sent, writes on the old master are
// let go only when it is certain that it stays the master; else the run goes forward from here.
Status stays_the_master(RedisWorld& world, StepContext& context) {
  const auto& sent = context.noted_by("hand over", "sent");
  const bool may_be_told = sent.is_object() && context.noted_by("hand over", "refused").is_null();
  const auto told = may_be_told ? get_int(sent, "sentinel", -1) : -1;
  const auto until = Deadline::after(may_be_told ? kShows : Millis(0));
  while (true) {
    const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
    if (const auto why = doubt(snapshot, old_master_of(context), told); !why.empty()) {
      ZX_TRY(context.no_return());
      return fail(Code::refused, why + ": the move cannot be taken back any more",
                  "finish it: zx runs resume " + context.run_id());
    }
    if (until.passed()) return {};
    pause_for(kLookAgain);
  }
}

Status end_the_pause(RedisWorld& world, StepContext& context) {
  ZX_TRY(stays_the_master(world, context));
  return end_pause(world, old_master_of(context),
                   Deadline::after(world.deployment().policy.probe_deadline));
}

Status undo_prefer(RedisWorld& world, StepContext& context) {
  const auto& before = context.noted("before");
  if (!before.is_object()) return {};
  const auto deadline = Deadline::after(world.deployment().policy.promote_deadline);
  ZX_TRY(put_back(world, before, deadline));
  // A Sentinel that was told may have rewritten the files.
  if (context.noted_by("hand over", "sent").is_object()) keep_priorities(world, before, deadline);
  return {};
}

// --- hand over ------------------------------------------------------------------------------

Status has_quorum(RedisWorld& world, StepContext& context) {
  if (new_master(world, context)) return {};
  ZX_TRY(speaker(world));
  return {};
}

// Nothing is sent when they have been quicker: once more would move the master again.
Status order(RedisWorld& world, StepContext& context, const Speaker& through) {
  const bool planned = get_bool(context.plan().context, "planned");
  if (planned) {
    ZX_ASSIGN(const auto held, hold_writes(world, context, kPause));
    if (!held) return {};
  }
  if (!context.noted("refused").is_null()) ZX_TRY(context.note("refused", Json()));
  ZX_TRY(context.note("sent", {{"sentinel", through.index}}));
  // For as long as the Sentinels may take, and not before everything else is done: writers would
  // wait for all of it when zx is killed before it has sent the order.
  if (planned) {
    ZX_ASSIGN(const auto held, hold_writes(world, context, kMove));
    if (!held) return {};
  }
  const auto reply = world.ask_sentinel(
      through.index, {"SENTINEL", "FAILOVER", world.deployment().sentinel.master_name},
      context.deadline());
  // One that is at it already is waited for.
  if (reply || reply.error().reply.starts_with("INPROG")) return {};
  // It said so: it has not begun.
  if (!reply.error().reply.empty()) ZX_TRY(context.note("refused", reply.error().reply));
  auto error = reply.error().error;
  if (reply.error().reply.starts_with("NOGOODSLAVE"))
    error.hint = "the Sentinels take none of the replicas for fit: zx redis status";
  return fail_while(std::move(error), "asking a Sentinel to fail over");
}

Result<Json> sentinel_failover(RedisWorld& world, StepContext& context) {
  if (auto seen = new_master(world, context)) {
    ZX_TRY(context.no_return());
    return *seen;
  }
  ZX_ASSIGN(const auto through, speaker(world));
  ZX_TRY(order(world, context, through));
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

// --- agree ----------------------------------------------------------------------------------

bool agrees(const redis::Snapshot& snapshot, const redis::SentinelFacts& facts,
            const std::string& master) {
  if (!facts.knows_master || has_flag(facts, "failover_in_progress") || has_flag(facts, "s_down"))
    return false;
  const auto* named = redis::node_at(snapshot, facts.master_host, facts.master_port);
  return named != nullptr && named->name == master;
}

// Each hears of it from the others, within seconds. The move is made: nothing fails by one that
// takes longer, which zx redis status names.
Result<Json> wait_for_agreement(RedisWorld& world, StepContext& context) {
  const auto master = new_master_of(context);
  while (true) {
    const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
    std::size_t answered = 0, agree = 0;
    for (const auto& one : snapshot.sentinels) {
      answered += one.answered() ? 1 : 0;
      agree += one.answered() && agrees(snapshot, one, master) ? 1 : 0;
    }
    if ((answered > 0 && agree == answered) || context.deadline().passed() || os::interruption())
      return Json{{"node", master},
                  {"agree", agree},
                  {"answered", answered},
                  {"of", snapshot.sentinels.size()}};
    pause_for(kAskAgain);
  }
}

}  // namespace

void add_redis_sentinel_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.sentinel.prefer"] = {{},
                                      [&world](StepContext& c) { return prefer(world, c); },
                                      {},
                                      [&world](StepContext& c) { return undo_prefer(world, c); }};
  actions["redis.sentinel.pause"] = {
      {},
      [&world](StepContext& c) { return pause_and_catch_up(world, c); },
      {},
      [&world](StepContext& c) { return end_the_pause(world, c); }};
  actions["redis.sentinel.failover"] = {
      [&world](StepContext& c) { return has_quorum(world, c); },
      [&world](StepContext& c) { return sentinel_failover(world, c); },
      [&world](StepContext& c) { return was_done(world, c); },
      [&world](StepContext& c) { return stays_the_master(world, c); }};
  actions["redis.sentinel.agree"] = {
      {}, [&world](StepContext& c) { return wait_for_agreement(world, c); }, {}, {}};
  actions["redis.sentinel.unprefer"] = {
      {}, [&world](StepContext& c) { return unprefer(world, c); }, {}, {}};
}

}  // namespace zx::ha
