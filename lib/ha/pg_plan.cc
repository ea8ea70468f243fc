#include "lib/ha/pg_plan.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/pg/lineage.h"

namespace zx::ha {
namespace {

std::vector<std::string> answering_standbys(const pg::Snapshot& snapshot,
                                            const std::string& except) {
  std::vector<std::string> names;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == pg::Role::standby && facts.name != except)
      names.push_back(facts.name);
  return names;
}

std::vector<std::string> others(const config::PgCluster& cluster, const std::string& node) {
  std::vector<std::string> names;
  for (const auto& other : cluster.nodes)
    if (other.name != node) names.push_back(other.name);
  return names;
}

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

run::Step restore_sync(const std::string& primary) {
  return step("sync", "pg.rejoin.sync", primary, "synchronous_standby_names as before the failover",
              Millis(5000), true);
}

// The old primary's rule for commits is in force before the first one; nothing to do where neither
// it nor a standby has one.
void add_rule(run::Plan& plan, const pg::Snapshot& snapshot, const std::string& candidate) {
  Json own = Json::object();
  bool has_rule = !get_string(plan.context, "sync_names").empty();
  for (const auto& facts : snapshot.nodes) {
    if (!facts.answered() || facts.role != pg::Role::standby) continue;
    own[facts.name] = facts.sync_names;
    has_rule |= !facts.sync_names.empty();
  }
  if (!has_rule) return;
  plan.context["own_sync_names"] = std::move(own);
  plan.steps.push_back(step("rule", "pg.rule", candidate,
                            "synchronous_standby_names before the first commit", Millis(3000)));
}

run::Step seal(const std::string& node, const config::PgPolicy& policy) {
  return step("seal", "pg.seal", node, "checkpoint, so that it could be rewound after a crash",
              policy.stop_deadline, true);
}

}  // namespace

std::string lock_of(const config::PgCluster& cluster) { return "pg." + cluster.name; }

Millis expected_duration(const pg::Snapshot& snapshot) {
  // A connection to the slowest standby for each of about ten round trips, and the promotion
  // itself.
  Millis slowest{5};
  for (const auto& facts : snapshot.nodes)
    if (facts.answered()) slowest = std::max(slowest, facts.took);
  return Millis(200) + 10 * slowest;
}

run::Plan plan_failover(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                        const PgVerdict& verdict, const Choice& choice, const FenceMeans& fence,
                        const ChooseOptions& options) {
  const auto& policy = cluster.policy;
  const auto& old = verdict.primary;
  // A server of another cluster at a node's address is none of this run's business.
  auto standbys = answering_standbys(snapshot, old);
  if (const auto* chosen = snapshot.node(choice.promote))
    std::erase_if(standbys, [&](const auto& name) {
      return snapshot.node(name)->lineage.system_id != chosen->lineage.system_id;
    });
  const auto* old_facts = snapshot.node(old);
  run::Plan plan;
  plan.command = "failover pg";
  plan.lock = lock_of(cluster);
  plan.summary = fmt::format("promote {}", choice.promote);
  plan.context = {{"cluster", cluster.name},
                  {"old_primary", old},
                  {"verdict", name_of(verdict.state)},
                  {"fence", name_of(fence.kind)},
                  {"to", options.to},
                  {"allow_loss", options.allow_loss ? Json(*options.allow_loss) : Json()},
                  {"sync_names", choice.sync_names},
                  {"sync_known", choice.sync_known}};
  plan.context["reference"] = {{"end", to_string(choice.reference.end)},
                               {"exact", choice.reference.exact},
                               {"known", choice.reference.known},
                               {"source", choice.reference.source}};
  if (old_facts != nullptr && old_facts->local) {
    plan.context["old_local"] = pg::to_json(*old_facts->local);
  }
  const auto freeze_time = Millis(5000);
  auto frozen = standbys;
  if (old_facts != nullptr && old_facts->answered()) frozen.push_back(old);
  plan.steps.push_back(step("freeze", "pg.freeze", join(frozen, ", "),
                            "stop receiving, so that positions are final", freeze_time, false,
                            {{"nodes", frozen}}));
  plan.steps.push_back(step("choose", "pg.choose", choice.promote,
                            "compare the final positions once more", policy.probe_deadline));
  if (fence.kind != FenceMeans::Kind::in_recovery)
    plan.steps.push_back(step("fence", "pg.fence", old,
                              fence.kind == FenceMeans::Kind::host
                                  ? "stop now; standby.signal keeps it a standby"
                                  : fence.why,
                              policy.fence_deadline));
  if (choice.sync_known) add_rule(plan, snapshot, choice.promote);
  plan.steps.push_back(step("promote", "pg.promote", choice.promote,
                            "ends recovery on a new timeline", policy.promote_deadline));
  plan.steps.push_back(
      step("check", "pg.check", choice.promote, "a write is acknowledged", Millis(5000)));
  std::vector<std::string> following;
  for (const auto& node : frozen)
    if (node != choice.promote) following.push_back(node);
  plan.steps.push_back(step("slots", "pg.slots", choice.promote,
                            "keep WAL for " + join(others(cluster, choice.promote), ", "),
                            Millis(5000), true));
  if (!following.empty())
    plan.steps.push_back(step("repoint", "pg.repoint", join(following, ", "),
                              "receive from " + choice.promote, policy.catchup_deadline, true));
  plan.steps.push_back(step("sync", "pg.sync", choice.promote,
                            "synchronous_standby_names as before, without the lost node",
                            Millis(5000), true));
  plan.steps.push_back(seal(choice.promote, policy));
  plan.steps.push_back(step("receipt", "pg.receipt", old, "what was lost", Millis(10'000), true));
  return plan;
}

run::Plan plan_switchover(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                          const std::string& primary, const std::string& to) {
  const auto& policy = cluster.policy;
  run::Plan plan;
  plan.command = "switchover pg";
  plan.lock = lock_of(cluster);
  plan.summary = fmt::format("move the primary from {} to {}", primary, to);
  const auto* facts = snapshot.node(primary);
  plan.context = {{"cluster", cluster.name},
                  {"old_primary", primary},
                  {"to", to},
                  {"sync_names", facts != nullptr ? facts->sync_names : ""},
                  {"sync_known", true}};
  plan.steps.push_back(step("checkpoint", "pg.checkpoint", primary, "so that the stop is short",
                            policy.stop_deadline));
  plan.steps.push_back(
      step("stop", "pg.stop", primary, "cleanly; it returns as a standby", policy.stop_deadline));
  plan.steps.push_back(step("catch up", "pg.catch_up", to,
                            "has all, to the last record of " + primary, policy.catchup_deadline));
  add_rule(plan, snapshot, to);
  plan.steps.push_back(step("promote", "pg.promote", to, "ends recovery on a new timeline",
                            policy.promote_deadline));
  plan.steps.push_back(step("check", "pg.check", to, "a write is acknowledged", Millis(5000)));
  plan.steps.push_back(step("slots", "pg.slots", to,
                            "keep WAL for " + join(others(cluster, to), ", "), Millis(5000), true));
  std::vector<std::string> following;
  for (const auto& node : answering_standbys(snapshot, to)) {
    const auto* standby = snapshot.node(node);
    // One on a line that ended would go on where it stands: that is for a rejoin.
    if (facts == nullptr ||
        pg::can_follow(standby->lineage, standby->position(), facts->lineage).kin !=
            pg::Kin::diverged)
      following.push_back(node);
  }
  if (!following.empty())
    plan.steps.push_back(step("repoint", "pg.repoint", join(following, ", "), "receive from " + to,
                              policy.catchup_deadline, true));
  plan.steps.push_back(
      step("return", "pg.return", primary, "standby of " + to, policy.catchup_deadline, true));
  plan.steps.push_back(
      step("sync", "pg.sync", to, "synchronous_standby_names as before", Millis(5000), true));
  plan.steps.push_back(seal(to, policy));
  return plan;
}

run::Plan plan_rejoin(const config::PgCluster& cluster, const RejoinFacts& facts) {
  const auto& policy = cluster.policy;
  run::Plan plan;
  plan.command = "rejoin pg";
  plan.lock = lock_of(cluster);
  plan.summary = fmt::format("make {} a standby of {}", facts.node, facts.primary);
  plan.context = {{"cluster", cluster.name},
                  {"node", facts.node},
                  {"primary", facts.primary},
                  {"rebuild", facts.rebuild}};
  const auto& node = facts.node;
  plan.steps.push_back(step("fence", "pg.rejoin.fence", node,
                            facts.is_primary ? "it accepts writes: stop it at once"
                                             : "stop it; it starts as a standby only",
                            policy.fence_deadline + policy.stop_deadline));
  plan.steps.push_back(step("keep", "pg.rejoin.keep", node,
                            "the WAL that only it has, as a receipt", Millis(120'000)));
  plan.steps.push_back(
      step("slot", "pg.rejoin.slot", facts.primary, "keep WAL for " + node, Millis(5000)));
  if (facts.rebuild) {
    plan.steps.push_back(step("rebuild", "pg.rejoin.rebuild", node,
                              "a fresh copy of " + facts.primary, policy.rebuild_deadline));
  } else {
    plan.steps.push_back(step("rewind", "pg.rejoin.rewind", node,
                              "back to where the timelines parted", policy.rebuild_deadline));
  }
  plan.steps.push_back(step("start", "pg.rejoin.start", node, "standby of " + facts.primary,
                            policy.catchup_deadline));
  plan.steps.push_back(step("tidy", "pg.rejoin.tidy", node, "its old slots and the fence record",
                            Millis(10'000), true));
  if (facts.owes_sync) plan.steps.push_back(restore_sync(facts.primary));
  return plan;
}

run::Plan plan_repoint(const config::PgCluster& cluster, const std::string& node,
                       const std::string& primary, bool owes_sync) {
  run::Plan plan;
  plan.command = "repoint pg";
  plan.lock = lock_of(cluster);
  plan.summary = fmt::format("point {} at {}", node, primary);
  plan.context = {{"cluster", cluster.name}, {"node", node}, {"to", primary}};
  plan.steps.push_back(step("slots", "pg.slots", primary, "keep WAL for " + node, Millis(5000)));
  plan.steps.push_back(step("repoint", "pg.repoint", node, "receive from " + primary,
                            cluster.policy.catchup_deadline));
  if (owes_sync) plan.steps.push_back(restore_sync(primary));
  return plan;
}

run::Plan plan_fence(const config::PgCluster& cluster, const std::string& node,
                     const std::string& primary) {
  run::Plan plan;
  plan.command = "fence pg";
  plan.lock = lock_of(cluster);
  plan.summary = primary.empty()
                     ? fmt::format("stop {}, it may be a primary that does not answer", node)
                     : fmt::format("stop {}, {} is the primary", node, primary);
  plan.context = {{"cluster", cluster.name}, {"node", node}, {"primary", primary}};
  plan.steps.push_back(step("fence", "pg.rejoin.fence", node,
                            primary.empty()
                                ? "stop it before another is promoted; it starts as a standby only"
                                : "it accepts writes: stop it at once; it starts as a standby only",
                            cluster.policy.fence_deadline + cluster.policy.stop_deadline));
  return plan;
}

run::Plan plan_sync(const config::PgCluster& cluster, const std::string& node,
                    const std::string& primary) {
  run::Plan plan;
  plan.command = "rejoin pg";
  plan.lock = lock_of(cluster);
  plan.summary = "restore synchronous_standby_names of " + primary;
  plan.context = {{"cluster", cluster.name}, {"node", node}, {"primary", primary}};
  plan.steps.push_back(restore_sync(primary));
  return plan;
}

}  // namespace zx::ha
