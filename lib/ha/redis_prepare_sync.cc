// What `zx redis sync` would do about each node; the failover is in redis_chain.cc.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/ha/redis_chain.h"
#include "lib/ha/redis_diagnose.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

using redis::NodeFacts;
using redis::Role;

// The master whose stream the others are to follow; of several, the one that was it.
Result<const NodeFacts*> leader_of(const RedisView& view) {
  const auto& verdict = view.verdict;
  const auto* found = view.snapshot.node(verdict.master);
  const bool leads = found != nullptr && found->answered() && found->role == Role::master;
  if (leads) return found;
  if (verdict.state == RedisState::several_masters)
    return fail(Code::refused,
                verdict.summary + ": which one is right is not clear from what they have",
                "make one of them a replica of the other by hand (REPLICAOF), the one whose writes "
                "are to be given up");
  return fail(Code::refused, "there is no master to follow: " + verdict.summary,
              calls_for_failover(verdict.state) ? "zx failover redis --dry-run" : verdict.hint);
}

SyncTask task_of(RedisWorld& world, const RedisView& view, const NodeFacts& facts,
                 const NodeFacts& master, Millis deadline) {
  SyncTask task;
  task.node = facts.name;
  if (!facts.answered()) {
    task.blocked = redis::says(facts.failure);
    return task;
  }
  task.resync = resync_of(facts, master);
  const auto from = master_of(view.snapshot, facts);
  if (facts.role == Role::master) {
    task.demotes = true;
    task.said = "it says that it is a master, with " + count_of(facts.keys, "key");
  } else if (!facts.link) {
    task.points = true;
    task.said = "it follows nobody";
  } else if (!is_behind(view.snapshot, facts, master)) {
    task.points = true;
    task.said = fmt::format("it follows {}",
                            from.empty() ? fmt::format("{}:{}", first_line(facts.link->master_host),
                                                       facts.link->master_port)
                                         : from);
  } else if (!facts.link->is_up || facts.link->is_syncing) {
    task.waits = true;
    task.said = facts.link->is_syncing ? "it is in a full resync" : "its link is down";
  } else {
    task.said = fmt::format("linked to {}, {} behind", from,
                            format_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(
                                0, master.lineage.offset - facts.lineage.offset))));
    return task;
  }
  const bool is_syncing = facts.link && facts.link->is_syncing && task.waits;
  if (!is_syncing) task.blocked = why_no_link(world, facts, master, Deadline::after(deadline));
  return task;
}

// A host that cannot be asked has nothing that stands in the way.
bool is_fenced(RedisWorld& world, const NodeFacts& facts) {
  const auto found = world.on_host_of(facts.name, "redis-inspect", Json::object(),
                                      world.deployment().policy.probe_deadline);
  return found && redis::local_from_json(*found).fenced;
}

}  // namespace

Result<RedisPrepared> prepare_redis_sync(RedisWorld& world, const std::string& node,
                                         const std::string& confirmed) {
  const auto& policy = world.deployment().policy;
  if (!node.empty() && world.deployment().node(node) == nullptr) {
    std::vector<std::string> names;
    for (const auto& one : world.deployment().nodes) names.push_back(one.name);
    return fail(Code::not_found,
                fmt::format("NODE: no node named \"{}\" in redis.{}", first_line(node),
                            world.deployment().name),
                "nodes: " + join(names, ", "));
  }
  RedisPrepared prepared;
  prepared.view = look(world, policy.probe_deadline, true);
  const auto& view = prepared.view;
  ZX_ASSIGN(const auto* master, leader_of(view));
  if (node == master->name)
    return fail(Code::refused, node + " is the master",
                "to move the master first: zx failover redis --planned --to NODE");
  for (const auto& facts : view.snapshot.nodes) {
    if (facts.name == master->name || (!node.empty() && facts.name != node)) continue;
    auto task = task_of(world, view, facts, *master, policy.probe_deadline);
    if (task.blocked.empty()) task.is_fenced = is_fenced(world, facts);
    if (task.is_needed() && task.blocked.empty() && prepared.gives_up.empty()) {
      prepared.gives_up = lost_by_following(facts, *master);
      prepared.confirms = facts.name;
    }
    prepared.tasks.push_back(std::move(task));
  }
  if (view.verdict.state == RedisState::master_reborn_empty) {
    prepared.gives_up = view.verdict.summary + ": whoever follows it becomes empty too";
    prepared.confirms = master->name;
  }
  if (!prepared.gives_up.empty() && confirmed != prepared.confirms)
    return fail(Code::refused, prepared.gives_up,
                view.verdict.state == RedisState::master_reborn_empty
                    ? view.verdict.hint + fmt::format("; if it is meant to be empty: --confirm {}",
                                                      prepared.confirms)
                    : fmt::format("when they are not needed: --confirm {}", prepared.confirms));
  const bool any = std::any_of(prepared.tasks.begin(), prepared.tasks.end(), [](const auto& task) {
    return task.blocked.empty() && (task.is_needed() || task.is_fenced);
  });
  if (!any) {
    for (const auto& task : prepared.tasks)
      if (!task.blocked.empty())
        return fail(Code::refused,
                    fmt::format("{} cannot follow {}: {}", task.node, master->name, task.blocked),
                    fmt::format("{}, then: zx redis sync {}",
                                view.snapshot.node(task.node)->failure == redis::Failure::refused
                                    ? "start it on its host"
                                    : "mend that",
                                task.node));
    prepared.nothing_to_do = true;
    prepared.said = view.verdict.state == RedisState::master_reborn_empty
                        ? fmt::format("every replica follows {}, which is meant to be as it is: {}",
                                      master->name, count_of(master->keys, "key"))
                    : prepared.tasks.size() == 1
                        ? fmt::format("{} is in line: {}", prepared.tasks.front().node,
                                      prepared.tasks.front().said)
                        : fmt::format("every replica is in line with {}", master->name);
    return prepared;
  }
  prepared.plan = plan_redis_sync(world.deployment(), master->name, prepared.tasks);
  return prepared;
}

Status accept_reborn(const RedisWorld& world, const RedisView& view) {
  if (view.verdict.state != RedisState::master_reborn_empty) return {};
  const auto now = redis_last_seen_of(view.snapshot, view.last);
  return now ? write_redis_last_seen(state_dir_of(world), world.deployment().name, *now) : Status();
}

}  // namespace zx::ha
