#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/format.h>

#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_plan.h"
#include "lib/ha/redis_restore.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

constexpr Millis kQuick{10'000};
constexpr Millis kCheck{3'600'000};
constexpr Millis kHost{15'000};
constexpr std::int64_t kDownAfter = 30'000;  // of a Sentinel that was told nothing else

// Refused unless this node, and no other, may be given data: whoever follows gets them from it.
Status may_be_restored(const redis::Snapshot& snapshot, const redis::NodeFacts& target) {
  for (const auto& node : snapshot.nodes)
    if (node.name != target.name && node.answered() && node.role == redis::Role::master)
      return fail(
          Code::refused,
          target.answered() && target.role == redis::Role::master
              ? fmt::format("{} says that it is the master, and {} too", node.name, target.name)
              : fmt::format("{} is the master: {} has its data from there", node.name, target.name),
          target.answered() && target.role == redis::Role::master
              ? "zx redis status; one of them must follow first"
              : fmt::format("restore there: --target {}", node.name));
  if (!target.answered()) return {};
  if (target.role == redis::Role::replica)
    return fail(Code::refused, target.name + " is a replica, and its master does not answer",
                "zx failover redis, then restore on the new master");
  if (target.role != redis::Role::master)
    return fail(Code::refused, target.name + " does not say whether it is the master");
  return {};
}

Status is_stopped(RedisWorld& world, const redis::NodeFacts& target) {
  if (target.is_loading())
    return fail(Code::refused, target.name + " reads its data set into memory",
                "wait until it has: zx redis status --watch");
  if (target.failure == redis::Failure::auth || target.failure == redis::Failure::permission)
    return fail(target.error);
  ZX_ASSIGN(const auto local,
            world.on_host_of(target.name, "redis-inspect", Json::object(), kHost));
  const auto facts = redis::local_from_json(local);
  if (!facts.is_data_dir)
    return fail(Code::refused,
                fmt::format("{} does not answer, and its data directory is not found{}",
                            target.name, facts.problem.empty() ? "" : ": " + facts.problem),
                "set data_dir of the node in zx.toml");
  if (facts.is_running)
    return fail(Code::refused,
                fmt::format("{} runs (process {}) and does not answer: {}", target.name, facts.pid,
                            target.error.message),
                "a server is restored while it serves, or while it is stopped");
  return {};
}

Result<std::string> setting(RedisWorld& world, const std::string& node, const char* name) {
  ZX_ASSIGN(const auto reply, tell(world, node, {"CONFIG", "GET", name},
                                   Deadline::after(world.deployment().policy.probe_deadline)));
  if (reply.items.size() != 2)
    return fail(Code::server, fmt::format("{} does not tell its {}", node, name),
                "the ACL user needs +config");
  return reply.items[1].text;
}

// A replica that is sent more databases than it has ends itself.
Status has_room(RedisWorld& world, const redis::NodeFacts& target,
                const redis::RdbSummary& summary) {
  ZX_ASSIGN(const auto databases, setting(world, target.name, "databases"));
  const auto most = summary.databases.empty() ? 0 : summary.databases.rbegin()->first;
  if (most >= static_cast<std::uint64_t>(std::max(1, std::atoi(databases.c_str()))))
    return fail(Code::refused,
                fmt::format("the copy has keys in database {}, and {} has {} databases", most,
                            target.name, databases),
                "raise databases in its configuration and restart it");
  return {};
}

// Who has the most of what a stopped master had.
const redis::NodeFacts* keeper_of(const redis::Snapshot& snapshot,
                                  const std::vector<std::string>& replicas) {
  const redis::NodeFacts* best = nullptr;
  for (const auto& name : replicas) {
    const auto* facts = snapshot.node(name);
    if (facts->keys == 0 || facts->link->is_syncing) continue;
    if (best == nullptr || facts->lineage.offset > best->lineage.offset) best = facts;
  }
  return best;
}

// What it has of a stopped master is overwritten when it follows the copy, and nobody can keep it
// before. Refused while it hangs; a warning when it is down.
Status is_for_certain_down(RedisWorld& world, const redis::NodeFacts& node,
                           std::vector<std::string>& warnings) {
  if (node.is_loading())
    return fail(Code::refused, node.name + " reads its data set into memory",
                "wait until it has: zx redis status --watch");
  const auto local = world.on_host_of(node.name, "redis-inspect", Json::object(), kHost);
  if (local && redis::local_from_json(*local).is_running)
    return fail(
        Code::refused,
        fmt::format("{} runs and does not answer: no copy can be taken of what it has", node.name),
        "wait until it answers; or stop it, and lose what it has and the copy has not");
  warnings.push_back(fmt::format(
      "{} does not answer: once it is started it loses what the copy has not", node.name));
  return {};
}

// The value that most of the others have, as the likely one of before.
std::int64_t usual(const std::vector<std::int64_t>& values, std::int64_t without) {
  std::map<std::int64_t, int> counted;
  for (const auto value : values) ++counted[value];
  const auto most =
      std::max_element(counted.begin(), counted.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == counted.end() ? without : most->first;
}

constexpr const char* kMend =
    "if a restore is at work, wait for it; else end it where it was begun (zx runs list), or put "
    "back what it was: ";

}  // namespace

Status no_restore_left(const config::RedisDeployment& deployment, const redis::Snapshot& snapshot,
                       const std::string& target) {
  const auto* node = snapshot.node(target);
  if (node != nullptr && node->answered() && node->min_replicas_to_write == kHeldReplicas) {
    std::vector<std::int64_t> others;
    for (const auto& other : snapshot.nodes)
      if (other.answered() && other.min_replicas_to_write != kHeldReplicas)
        others.push_back(other.min_replicas_to_write);
    return fail(Code::refused,
                fmt::format("{} refuses every write, as a restore has set it: its "
                            "min-replicas-to-write is {}",
                            target, kHeldReplicas),
                fmt::format("{}redis-cli -h {} -p {} CONFIG SET min-replicas-to-write {}", kMend,
                            node->address, node->port, usual(others, 0)));
  }
  std::vector<std::int64_t> others;
  const redis::SentinelFacts* calmed = nullptr;
  for (const auto& one : snapshot.sentinels) {
    if (!one.answered() || !one.knows_master) continue;
    if (one.down_after != kCalm)
      others.push_back(one.down_after.count());
    else if (calmed == nullptr)
      calmed = &one;
  }
  if (calmed == nullptr) return {};
  return fail(Code::refused,
              fmt::format("Sentinel {}:{} waits {} before it takes the master for down, as a "
                          "restore has set it",
                          calmed->address, calmed->port, format_duration(kCalm)),
              fmt::format("{}redis-cli -h {} -p {} SENTINEL SET {} down-after-milliseconds {}",
                          kMend, calmed->address, calmed->port, deployment.sentinel.master_name,
                          usual(others, kDownAfter)));
}

Status can_be_calmed(const config::RedisDeployment& deployment, const redis::Snapshot& snapshot) {
  const auto& sentinel = deployment.sentinel;
  if (sentinel.master_name.empty()) return {};
  const auto missing =
      std::count_if(snapshot.sentinels.begin(), snapshot.sentinels.end(),
                    [](const auto& one) { return !one.answered() || !one.knows_master; });
  if (missing < sentinel.quorum) return {};
  return fail(Code::refused,
              fmt::format("{} do not answer: they could fail over while the master is given its "
                          "data",
                          count_of(missing, "Sentinel")),
              "start them, or stop them for certain and take them out of zx.toml");
}

run::Plan plan_redis_restore(const config::RedisDeployment& deployment, const RestoreFacts& facts) {
  const auto& checked = facts.checked;
  const auto long_enough = deployment.policy.sync_deadline;
  run::Plan plan;
  plan.command = "redis restore";
  plan.lock = lock_of(deployment);
  plan.summary = fmt::format("replace the data of {} by those of {}", facts.target, facts.file);
  plan.context = {
      {"deployment", deployment.name},
      {"target", facts.target},
      {"mode", facts.is_live ? "live" : "offline"},
      {"file", facts.file},
      {"sha256", checked.sha256},
      {"keys", checked.summary.keys},
      {"expires", checked.summary.expires},
      {"databases",
       checked.summary.databases.empty() ? 1 : checked.summary.databases.rbegin()->first + 1},
      {"replicas", facts.replicas},
      {"keeper", facts.keeper}};
  const auto add = [&](const char* name, const char* action, const std::string& subject,
                       const std::string& why, Millis deadline, bool optional = false) {
    run::Step step;
    step.name = name;
    step.action = std::string("redis.restore-") + action;
    step.subject = subject;
    step.why = why;
    step.deadline = deadline;
    step.optional = optional;
    plan.steps.push_back(std::move(step));
  };
  const bool has_sentinels = !deployment.sentinel.master_name.empty();
  const auto& target = facts.target;
  add("file", "check", facts.file, "it is the file that was looked at, and a server loads it",
      kCheck);
  if (has_sentinels)
    add("calm", "calm", "the Sentinels", "down-after is raised: they would fail over meanwhile",
        kQuick);
  if (facts.is_live) {
    add("hold", "hold", target, "it takes no writes until the end: min-replicas-to-write", kQuick);
    add("safety copy", "safety", target, "a copy of what it has now", kCheck);
    add("load", "load", target, "follows a throwaway server that has the file, for a moment",
        kCheck);
    add("save", "save", target, "on its disk, so that it survives a crash", long_enough);
  } else {
    if (!facts.keeper.empty())
      add("safety copy", "safety", facts.keeper,
          fmt::format("a copy of what it has now of {}", target), kCheck);
    add("place", "place", target, "the file where a start finds it; what is there is kept", kCheck);
    add("start", "start", target, "and loads it", long_enough);
  }
  if (!facts.replicas.empty())
    add("replicas", "follow", join(facts.replicas, ", "), "linked, and with the same keys",
        long_enough, true);
  add("compare", "compare", target, "the same keys and the same digest as the file", kCheck);
  if (facts.is_live) add("release", "release", target, "its settings are as before", kQuick);
  add("write", "write", target, "it takes a write", kQuick, true);
  if (has_sentinels)
    add("sentinels", "sentinels", "the Sentinels", "down-after as before, and they see the master",
        kQuick + kQuick);
  return plan;
}

Result<PreparedRestore> prepare_redis_restore(RedisWorld& world, const std::string& file,
                                              const std::string& name) {
  const auto& deployment = world.deployment();
  if (deployment.node(name) == nullptr) {
    std::vector<std::string> names;
    for (const auto& node : deployment.nodes) names.push_back(node.name);
    return fail(Code::not_found, fmt::format("--target: no node named \"{}\"", first_line(name)),
                "nodes: " + join(names, ", "));
  }
  if (file.empty())
    return fail(Code::usage, "FILE is empty", "name a file that zx redis backup wrote");
  RestoreFacts facts;
  facts.target = name;
  facts.file = std::filesystem::absolute(file).lexically_normal();
  ZX_ASSIGN(facts.checked, redis::check_file(facts.file));
  const auto snapshot = world.observe({}, deployment.policy.probe_deadline);
  const auto* target = snapshot.node(name);
  if (target == nullptr) return fail(Code::config, name + " could not be looked at");
  ZX_TRY(may_be_restored(snapshot, *target));
  ZX_TRY(no_restore_left(deployment, snapshot, name));
  ZX_TRY(can_be_calmed(deployment, snapshot));
  PreparedRestore prepared;
  if (target->answered()) {
    ZX_TRY(has_room(world, *target, facts.checked.summary));
  } else {
    ZX_TRY(is_stopped(world, *target));
  }
  facts.is_live = target->answered();
  for (const auto& node : snapshot.nodes)
    if (node.answered() && node.role == redis::Role::replica && master_of(snapshot, node) == name)
      facts.replicas.push_back(node.name);
  if (!facts.is_live) {
    for (const auto& node : snapshot.nodes)
      if (node.name != name && !node.answered())
        ZX_TRY(is_for_certain_down(world, node, prepared.warnings));
    const auto* keeper = keeper_of(snapshot, facts.replicas);
    if (keeper != nullptr) {
      facts.keeper = keeper->name;
      if (!is_here(world, keeper->name))
        return fail(Code::refused,
                    fmt::format("{} has {} of {}, and while that is down no copy can be taken of "
                                "them from here",
                                keeper->name, count_of(keeper->keys, "key"), name),
                    "zx failover redis keeps them; then restore on the new master");
      prepared.warnings.push_back(
          fmt::format("{} has {} of {}: they are replaced too; zx failover redis would keep them",
                      keeper->name, count_of(keeper->keys, "key"), name));
    }
  }
  prepared.is_live = facts.is_live;
  prepared.present_keys = target->keys;
  prepared.plan = plan_redis_restore(deployment, facts);
  const auto& record = facts.checked.record;
  if (!record)
    prepared.warnings.push_back("there is no " + redis::record_path(facts.file) +
                                ": nothing says that it is the copy that was taken");
  else if (record->deployment != deployment.name && !record->deployment.empty())
    prepared.warnings.push_back("it is a copy of another deployment, " + record->deployment);
  if (!facts.checked.summary.has_checksum)
    prepared.warnings.emplace_back("it has no checksum: the server that wrote it makes none");
  prepared.file = std::move(facts.checked);
  return prepared;
}

}  // namespace zx::ha
