#include "lib/ha/redis_plan.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::ha {
namespace {

constexpr Millis kQuick{5'000};
constexpr Millis kAgree{10'000};
constexpr Millis kFollow{15'000};  // a full resync may take longer, and is not waited for

run::Step step(std::string name, std::string action, std::string subject, std::string why,
               Millis deadline, bool optional = false, Json args = Json::object()) {
  run::Step out;
  out.name = std::move(name);
  out.action = std::move(action);
  out.subject = std::move(subject);
  out.why = std::move(why);
  out.deadline = deadline;
  out.optional = optional;
  out.args = std::move(args);
  return out;
}

// Replicas that answer, but not `except`.
std::vector<std::string> replicas_but(const redis::Snapshot& snapshot,
                                      const std::vector<std::string>& except) {
  std::vector<std::string> names;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == redis::Role::replica &&
        std::find(except.begin(), except.end(), facts.name) == except.end())
      names.push_back(facts.name);
  return names;
}

std::vector<std::string> with(std::vector<std::string> names, const std::string& one) {
  names.push_back(one);
  return names;
}

run::Plan new_plan(const config::RedisDeployment& deployment, const std::string& command,
                   const std::string& summary, const std::string& old, const std::string& to) {
  run::Plan plan;
  plan.command = command;
  plan.lock = lock_of(deployment);
  plan.summary = summary;
  plan.context = {{"deployment", deployment.name}, {"old_master", old}, {"to", to}};
  return plan;
}

void add_choice(run::Plan& plan, const RedisVerdict& verdict, const RedisChoice& choice) {
  plan.context["verdict"] = name_of(verdict.state);
  plan.context["reference"] = {{"end", choice.reference.end},
                               {"exact", choice.reference.exact},
                               {"known", choice.reference.known},
                               {"source", choice.reference.source}};
}

// What comes after the new master is one: a write on it, the others behind it, all of it kept.
void add_aftermath(run::Plan& plan, const std::string& to, const std::vector<std::string>& others,
                   const std::vector<std::string>& rewritten, Millis deadline) {
  plan.steps.push_back(
      step("check", "redis.check", to, "a write, which clients can do from here on", deadline));
  if (!others.empty())
    plan.steps.push_back(step("follow", "redis.follow", join(others, ", "),
                              "linked, and the write has arrived there", kFollow, true,
                              {{"nodes", others}}));
  plan.steps.push_back(step("rewrite", "redis.rewrite", join(rewritten, ", "),
                            "CONFIG REWRITE, so that a restart keeps the roles", kQuick, true,
                            {{"nodes", rewritten}}));
}

run::Step repoint(const std::vector<std::string>& others, const std::string& to) {
  return step("repoint", "redis.repoint", join(others, ", "), "REPLICAOF " + to, kQuick, true,
              {{"nodes", others}});
}

// Sentinel's own order: replica-priority, offset, run id (sentinel.c, compareSlavesForPromotion).
std::string choice_of_sentinels(const redis::Snapshot& snapshot) {
  const redis::NodeFacts* best = nullptr;
  const auto rank = [](const redis::NodeFacts& facts) {
    return std::tuple(facts.priority, -facts.lineage.offset, facts.run_id);
  };
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == redis::Role::replica && facts.priority != 0 &&
        (best == nullptr || rank(facts) < rank(*best)))
      best = &facts;
  return best == nullptr ? std::string() : best->name;
}

// The replica-priority leaves them one only: the offsets they know are some seconds old.
bool have_no_choice(const redis::Snapshot& snapshot, const std::string& to) {
  const auto* wanted = snapshot.node(to);
  return wanted != nullptr && wanted->priority != 0 &&
         std::all_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
           return facts.name == to || facts.role != redis::Role::replica || facts.priority == 0 ||
                  facts.priority > wanted->priority;
         });
}

// Would they promote the one that a person has named, or else one that has as much.
bool must_be_told(const redis::Snapshot& snapshot, const RedisChoice& choice, bool named) {
  if (named) return !have_no_choice(snapshot, choice.promote);
  const auto theirs = choice_of_sentinels(snapshot);
  if (theirs == choice.promote) return false;
  for (const auto& one : choice.candidates)
    if (one.node == theirs)
      return one.fate != RedisCandidate::Fate::follow || one.lost > choice.lost;
  return true;
}

std::string why_fence(RedisFence::Kind kind, const std::string& to) {
  switch (kind) {
    case RedisFence::Kind::host: return "end it; its configuration makes it a replica of " + to;
    case RedisFence::Kind::live: return "pause its writes";
    case RedisFence::Kind::operator_says: return "by the operator's word";
    case RedisFence::Kind::max_lag: return "until it refuses writes by min-replicas-max-lag";
    default: return "not proved gone: require_fence is off";
  }
}

}  // namespace

std::string lock_of(const config::RedisDeployment& deployment) {
  return "redis." + deployment.name;
}

run::Plan plan_redis_failover(const config::RedisDeployment& deployment,
                              const redis::Snapshot& snapshot, const RedisVerdict& verdict,
                              const RedisChoice& choice, const RedisFence& fence,
                              const RedisChooseOptions& options) {
  using Kind = RedisFence::Kind;
  const auto& policy = deployment.policy;
  const auto& old = verdict.master;
  const auto& to = choice.promote;
  auto plan = new_plan(deployment, "failover redis", "promote " + to, old, to);
  add_choice(plan, verdict, choice);
  plan.context["named"] = options.to;
  plan.context["allow_loss"] = options.allow_loss ? Json(*options.allow_loss) : Json();
  plan.context["fence"] = name_of(fence.kind);
  if (const auto* facts = snapshot.node(old); facts != nullptr && facts->local)
    plan.context["old_local"] = redis::to_json(*facts->local);
  const auto others = replicas_but(snapshot, {to, old});
  const bool is_by_lag = fence.kind == Kind::max_lag;
  if (is_by_lag) {
    plan.context["max_lag_s"] = fence.refusal.max_lag_s;
    plan.steps.push_back(step("detach", "redis.detach", join(fence.refusal.detach, ", "),
                              fmt::format("no acknowledgement reaches {} any more", old), kQuick,
                              false, {{"nodes", fence.refusal.detach}}));
  }
  if (fence.kind != Kind::is_replica)
    plan.steps.push_back(step(
        "fence", "redis.fence", old, why_fence(fence.kind, to),
        policy.fence_deadline + (is_by_lag ? refuses_after(fence.refusal.max_lag_s) : Millis(0))));
  plan.steps.push_back(step("choose", "redis.choose", to, "compare the final offsets once more",
                            policy.probe_deadline));
  plan.steps.push_back(
      step("promote", "redis.promote", to, "REPLICAOF NO ONE", policy.promote_deadline));
  const bool is_live = fence.kind == Kind::live;
  const bool is_replica = fence.kind == Kind::is_replica && !old.empty();
  if (is_live)
    plan.steps.push_back(step("demote", "redis.demote", old,
                              fmt::format("REPLICAOF {}, and end its clients", to), kQuick));
  // One that is a replica already follows the new master like the others.
  const auto followers = is_replica ? with(others, old) : others;
  if (!followers.empty()) plan.steps.push_back(repoint(followers, to));
  auto living = followers;
  if (is_live) living.push_back(old);
  add_aftermath(plan, to, living, with(living, to), policy.promote_deadline);
  plan.steps.push_back(
      step("receipt", "redis.receipt", old.empty() ? to : old, "what was lost", kQuick, true));
  return plan;
}

run::Plan plan_redis_handover(const config::RedisDeployment& deployment,
                              const redis::Snapshot& snapshot, const std::string& master,
                              const std::string& to) {
  const auto& policy = deployment.policy;
  auto plan = new_plan(deployment, "failover redis",
                       fmt::format("move the master from {} to {}", master, to), master, to);
  plan.context["planned"] = true;
  const auto others = replicas_but(snapshot, {to, master});
  plan.steps.push_back(step("hand over", "redis.handover", fmt::format("{} → {}", master, to),
                            "FAILOVER: writes wait until it has every byte",
                            policy.promote_deadline));
  plan.steps.push_back(
      step("cut", "redis.cut", master, "end its clients, so that they look again", kQuick, true));
  if (!others.empty()) plan.steps.push_back(repoint(others, to));
  const auto living = with(others, master);
  add_aftermath(plan, to, living, with(living, to), policy.promote_deadline);
  return plan;
}

run::Plan plan_sentinel_failover(const config::RedisDeployment& deployment,
                                 const redis::Snapshot& snapshot, const RedisVerdict& verdict,
                                 const RedisChoice& choice, const RedisFence* fence, bool named) {
  using Kind = RedisFence::Kind;
  const bool planned = fence == nullptr;
  const auto& policy = deployment.policy;
  const auto& old = verdict.master;
  // What they know of offsets is old: only one that is told about is waited for in the pause.
  const bool tells = planned || must_be_told(snapshot, choice, named);
  const auto to = tells ? choice.promote : choice_of_sentinels(snapshot);
  const bool they_choose = !tells && !have_no_choice(snapshot, to);
  auto plan = new_plan(
      deployment, "failover redis",
      planned ? fmt::format("move the master from {} to {}, through the Sentinels", old, to)
      : they_choose
          ? fmt::format(
                "let the Sentinels promote one: {} by their rule (replica-priority, offset, run "
                "id) as it looks now",
                to)
          : fmt::format("promote {}, through the Sentinels", to),
      old, to);
  plan.context["they_choose"] = they_choose;
  plan.context["named"] = named;
  add_choice(plan, verdict, choice);
  plan.context["planned"] = planned;
  plan.context["by"] = "sentinel";
  const auto others = replicas_but(snapshot, {to, old});
  // Before anybody is promoted, and whomever the Sentinels promote: a replica that follows the
  // wrong node is told by them, a master that returns as one would take writes until then.
  const bool is_live = !planned && fence->kind == Kind::live;
  if (!planned) {
    plan.context["fence"] = name_of(fence->kind);
    if (const auto* facts = snapshot.node(old); facts != nullptr && facts->local)
      plan.context["old_local"] = redis::to_json(*facts->local);
    if (fence->kind != Kind::is_replica)
      plan.steps.push_back(
          step("fence", "redis.fence", old, why_fence(fence->kind, to), policy.fence_deadline));
  }
  if (tells)
    plan.steps.push_back(step("prefer", "redis.sentinel.prefer", to,
                              "replica-priority, which the Sentinels choose by", Millis(30'000),
                              false, {{"nodes", with(others, to)}}));
  if (planned)
    plan.steps.push_back(step("pause", "redis.sentinel.pause", old,
                              fmt::format("its writes wait until {} has every byte", to),
                              policy.promote_deadline));
  plan.steps.push_back(step("hand over", "redis.sentinel.failover", deployment.sentinel.master_name,
                            "SENTINEL FAILOVER", Millis(30'000)));
  if (planned || is_live)
    plan.steps.push_back(step("demote", "redis.demote", old,
                              fmt::format("REPLICAOF {}, and end its clients", to), kQuick));
  const auto living = planned || is_live ? with(others, old) : others;
  add_aftermath(plan, to, living, with(living, to), policy.promote_deadline);
  if (tells)
    plan.steps.push_back(step("unprefer", "redis.sentinel.unprefer", join(with(others, to), ", "),
                              "replica-priority as before", kQuick, true));
  if (!planned)
    plan.steps.push_back(
        step("receipt", "redis.receipt", old.empty() ? to : old, "what was lost", kQuick, true));
  plan.steps.push_back(step("agree", "redis.sentinel.agree", deployment.sentinel.master_name,
                            "every Sentinel that answers names the new master", kAgree, true));
  return plan;
}

run::Plan plan_redis_sync(const config::RedisDeployment& deployment, const std::string& master,
                          const std::vector<SyncTask>& tasks) {
  const auto& policy = deployment.policy;
  run::Plan plan;
  plan.command = "redis sync";
  plan.lock = lock_of(deployment);
  std::vector<std::string> names, changed;
  // One after the other: the master sends its data set to one replica at a time.
  for (const auto& task : tasks) {
    if (!task.is_needed() || !task.blocked.empty()) continue;
    names.push_back(task.node);
    if (task.points || task.demotes) {
      changed.push_back(task.node);
      plan.steps.push_back(step("point " + task.node, "redis.sync.point", task.node,
                                fmt::format("REPLICAOF {}: {}", master, task.said), kQuick, false,
                                {{"node", task.node}, {"demotes", task.demotes}}));
    }
    plan.steps.push_back(
        step("sync " + task.node, "redis.sync.wait", task.node,
             task.resync.is_partial
                 ? fmt::format("linked, then {} of the stream", format_bytes(task.resync.bytes))
                 : fmt::format("a full resync of up to {}: {}", format_bytes(task.resync.bytes),
                               task.resync.why),
             policy.sync_deadline, true, {{"node", task.node}}));
  }
  plan.summary = names.empty() ? "forget the fences of replicas of " + master
                               : fmt::format("make {} follow {}", join(names, ", "), master);
  plan.context = {{"deployment", deployment.name}, {"master", master}, {"nodes", names}};
  if (!names.empty())
    plan.steps.push_back(step("check", "redis.sync.check", join(names, ", "),
                              "a key written on " + master + " arrives there", kFollow, true,
                              {{"nodes", names}}));
  if (!changed.empty())
    plan.steps.push_back(step("rewrite", "redis.rewrite", join(changed, ", "),
                              "CONFIG REWRITE, so that a restart keeps the roles", kQuick, true,
                              {{"nodes", changed}}));
  std::vector<std::string> fenced;
  for (const auto& task : tasks)
    if (task.is_fenced) fenced.push_back(task.node);
  if (!fenced.empty())
    plan.steps.push_back(step("unfence", "redis.sync.forget_fence", join(fenced, ", "),
                              "it is a replica for good", kQuick, true, {{"nodes", fenced}}));
  return plan;
}

}  // namespace zx::ha
