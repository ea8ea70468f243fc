#include "lib/ha/redis_actions.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_last_seen.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

constexpr Millis kGlance{300};
constexpr Millis kGlanceAtSilent{100};
constexpr Millis kLookAgain{5};
constexpr const char* kCanaryLife = "60";  // seconds

Millis glance(const RedisWorld& world) {
  return std::min(world.deployment().policy.probe_deadline, kGlance);
}

}  // namespace

const std::string& state_dir_of(const RedisWorld& world) {
  return world.config().platform.state_dir;
}

std::string new_master_of(const run::StepContext& context) {
  // The Sentinels have the last word where they choose.
  auto chosen = get_string(context.seen("hand over"), "node");
  if (chosen.empty()) chosen = get_string(context.seen("choose"), "candidate");
  return chosen.empty() ? get_string(context.plan().context, "to") : chosen;
}

std::string old_master_of(const run::StepContext& context) {
  return get_string(context.plan().context, "old_master");
}

Result<redis::NodeFacts> facts_of(RedisWorld& world, const std::string& node, Deadline deadline) {
  const auto most = world.deployment().policy.probe_deadline;
  const auto snapshot = world.observe({node}, std::max(Millis(1), std::min(most, deadline.left())));
  const auto* facts = snapshot.node(node);
  if (facts == nullptr) return fail(Code::not_found, "no node named " + node);
  if (!facts->answered()) return fail(facts->error);
  return *facts;
}

Result<bool> wait_until(RedisWorld& world, const std::string& node, Deadline deadline,
                        const std::function<bool(const redis::NodeFacts&)>& is_so, Ends ends) {
  while (true) {
    const auto facts = facts_of(world, node, deadline);
    if (facts && is_so(*facts)) return true;
    if (deadline.passed()) return false;
    if (const auto signal = ends()) return fail(*signal);
    pause_for(std::min(kLookAgain, deadline.left()));
  }
}

redis::Snapshot observe_all(RedisWorld& world, const run::StepContext& context, Millis deadline) {
  const auto old = old_master_of(context);
  const bool is_silent =
      get_string(context.plan().context, "verdict") == name_of(RedisState::master_silent);
  if (old.empty() || !is_silent) return world.observe({}, deadline);
  std::vector<std::string> others;
  for (const auto& node : world.deployment().nodes)
    if (node.name != old) others.push_back(node.name);
  const std::string theirs = "others";
  const auto looks = all_at_once<redis::Snapshot>({theirs, old}, [&](const std::string& whom) {
    if (whom == old) return world.observe({old}, std::min(deadline, kGlanceAtSilent));
    return others.empty() ? redis::Snapshot() : world.observe(others, deadline);
  });
  auto snapshot = looks.front();
  const auto& glanced = looks.back().nodes;
  snapshot.nodes.insert(snapshot.nodes.end(), glanced.begin(), glanced.end());
  return snapshot;
}

Status no_master_but(RedisWorld& world, const run::StepContext& context,
                     const std::vector<std::string>& except) {
  const auto snapshot = observe_all(world, context, glance(world));
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == redis::Role::master &&
        std::find(except.begin(), except.end(), facts.name) == except.end())
      return fail(Code::refused, facts.name + " is alive and says that it is the master",
                  "to move the master on purpose: zx failover redis --planned --to NODE");
  return {};
}

Status none_took_over_from(RedisWorld& world, const std::string& old, const std::string& run) {
  const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == redis::Role::master && facts.name != old)
      return fail(
          Code::refused,
          fmt::format("{} is the master now: {} stays as it is, or there could be two", facts.name,
                      old.empty() ? "every node" : old),
          fmt::format("end the run as it is: zx runs abort {} --as-is; then zx redis sync --all",
                      run));
  return {};
}

Status follow(RedisWorld& world, const std::string& node, const std::string& master,
              Deadline deadline) {
  const auto place = place_of(world, master);
  ZX_TRY(tell(world, node, {"REPLICAOF", place.host, std::to_string(place.port)}, deadline));
  return {};
}

Result<std::int64_t> cut_clients(RedisWorld& world, const std::string& node, Deadline deadline) {
  std::int64_t ended = 0;
  for (const char* type : {"normal", "pubsub"}) {
    ZX_ASSIGN(const auto reply,
              tell(world, node, {"CLIENT", "KILL", "TYPE", type, "SKIPME", "yes"}, deadline));
    ended += reply.number;
  }
  return ended;
}

Status pause_writes(RedisWorld& world, const std::string& node, Millis span, Deadline deadline) {
  ZX_TRY(tell(world, node, {"CLIENT", "PAUSE", std::to_string(span.count()), "WRITE"}, deadline));
  return {};
}

Status end_pause(RedisWorld& world, const std::string& node, Deadline deadline) {
  ZX_TRY(tell(world, node, {"CLIENT", "UNPAUSE"}, deadline));
  return {};
}

void note_master(RedisWorld& world, const std::string& except) {
  std::vector<std::string> names;
  for (const auto& node : world.deployment().nodes)
    if (node.name != except) names.push_back(node.name);
  if (names.empty()) return;
  const auto snapshot = world.observe(names, glance(world));
  const auto& name = world.deployment().name;
  const auto last = read_redis_last_seen(state_dir_of(world), name);
  if (const auto seen = redis_last_seen_of(snapshot, last))
    static_cast<void>(write_redis_last_seen(state_dir_of(world), name, *seen));
}

std::string canary_key(const std::string& run) { return "zx:canary:" + run; }

Status write_canary(RedisWorld& world, const std::string& master, const std::string& run,
                    Deadline deadline) {
  while (true) {
    const auto reply = world.command(master, {"SET", canary_key(run), run, "EX", kCanaryLife},
                                     deadline.at_most(world.deployment().policy.probe_deadline));
    if (reply && reply->is_ok()) return {};
    if (reply) return fail(Code::server, master + " did not take a write");
    if (const auto urgent = os::giving_way()) return fail(*urgent);
    // One answer that does not come is asked for again: the same write twice is one.
    const auto why = reply.error().why;
    const bool lacks_replicas = why == redis::Failure::no_replicas;
    const bool may_settle = lacks_replicas || why == redis::Failure::silent;
    if (!may_settle || deadline.passed()) {
      auto error = reply.error().error;
      if (lacks_replicas)
        error.hint = "min-replicas-to-write is not met: zx redis sync --all, or lower it there";
      return fail_while(std::move(error), "writing to " + master);
    }
    pause_for(std::min(kLookAgain, deadline.left()));
  }
}

Status drop_canary(RedisWorld& world, const std::string& master, const std::string& run,
                   Deadline deadline) {
  // It goes by itself when the master has gone.
  ZX_TRY(tell(world, master, {"DEL", canary_key(run)},
              deadline.at_most(world.deployment().policy.probe_deadline)));
  return {};
}

Result<std::string> wait_behind(RedisWorld& world, const std::string& node,
                                const std::string& master, const std::string& run,
                                Deadline deadline, Ends ends) {
  const auto place = place_of(world, master);
  bool is_syncing = false;
  std::string link = "it does not answer";
  ZX_ASSIGN(const bool is_linked,
            wait_until(
                world, node, deadline,
                [&](const redis::NodeFacts& facts) {
                  is_syncing = facts.link && facts.link->is_syncing;
                  link = facts.link ? "its link is down" : "it follows nobody";
                  return facts.is_linked() && !is_syncing && facts.link->master_port == place.port;
                },
                ends));
  if (!is_linked && is_syncing) return std::string("resyncing");
  if (!is_linked)
    return fail(Code::timeout, fmt::format("{} is not linked to {}: {}", node, master, link),
                "zx redis sync " + node + " --dry-run says why");
  while (true) {
    const auto reply = world.command(node, {"GET", canary_key(run)},
                                     deadline.at_most(world.deployment().policy.probe_deadline));
    if (reply && reply->text == run) return std::string("linked");
    if (!reply && reply.error().why == redis::Failure::permission) return std::string("linked");
    if (const auto urgent = os::giving_way()) return fail(*urgent);
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("a write on {} has not arrived at {}", master, node),
                  "zx redis status");
    if (const auto signal = ends()) return fail(*signal);
    pause_for(std::min(kLookAgain, deadline.left()));
  }
}

run::Actions redis_actions(RedisWorld& world) {
  run::Actions actions;
  add_redis_failover_actions(world, actions);
  add_redis_detach_actions(world, actions);
  add_redis_aftermath_actions(world, actions);
  add_redis_handover_actions(world, actions);
  add_redis_sentinel_actions(world, actions);
  add_redis_sync_actions(world, actions);
  add_redis_restore_actions(world, actions);
  return actions;
}

}  // namespace zx::ha
