// synchronous_standby_names of the node that becomes the primary: the old primary's rule, not what
// the node still has from another time. In force before its first commit, and once more when it is
// seen who follows.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/sync_debt.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {
namespace {

using run::StepContext;

struct SyncRule {
  KnownSyncDebt known;
  std::string after, wanted;  // with those that follow, and with everybody
};

Result<SyncRule> rule_for(PgWorld& world, const StepContext& context, const std::string& before,
                          const std::vector<std::string>& followers) {
  const auto& plan = context.plan().context;
  const auto candidate = candidate_of(context);
  const auto old = get_string(plan, "old_primary");
  // Reduced by an earlier failover already, or in this run: what it was before that.
  SyncRule rule{sync_debt(world, before), {}, {}};
  const auto noted = local_sync_debt(cluster_state_dir(world), world.cluster().name);
  if (noted && noted->debt.run == context.run_id()) rule.known.debt = noted->debt;
  const auto& debt = rule.known.debt;
  ZX_ASSIGN(const auto whole, pg::parse_sync_names(debt ? debt->wanted : before));
  std::vector<std::string> all;
  for (const auto& node : world.cluster().nodes)
    if (node.name != candidate) all.push_back(node.name);
  const bool strict = world.cluster().policy.require_sync;
  rule.after = to_string(pg::after_promotion(whole, old, candidate, followers, strict));
  rule.wanted = to_string(pg::after_promotion(whole, old, candidate, all, strict));
  return rule;
}

// Who will follow the candidate, unless something goes wrong.
std::vector<std::string> followers_of(const StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto& frozen = get_object(context.seen("freeze"), "upstreams");
  std::vector<std::string> names;
  if (frozen.is_object()) {
    const auto& fates = get_object(context.seen("choose"), "nodes");
    for (const auto& [node, upstream] : frozen.items())
      if (!fates.is_object() || !fates.contains(node) ||
          get_string(fates[node], "fate") != "rejoin")
        names.push_back(node);
  } else {
    for (const auto& step : context.plan().steps)
      if (step.name == "repoint" || step.name == "return")
        for (const auto& node : split(step.subject, ',')) names.emplace_back(trim(node));
  }
  std::erase(names, candidate);
  return names;
}

// The names that the standby has itself, in a form that can be compared.
Result<std::string> own_names(PgWorld& world, const std::string& node) {
  const auto snapshot = world.observe({node}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(node);
  if (facts == nullptr || !facts->answered())
    return fail(Code::unreachable, node + " cannot be asked for its synchronous_standby_names");
  if (facts->role != pg::Role::standby)
    return fail(Code::refused, node + " has been promoted already");
  ZX_ASSIGN(const auto names, pg::parse_sync_names(facts->sync_names));
  return to_string(names);
}

// A promotion does not wait for what keeps this from being done now ("left": why): the sync step
// looks at the same again, and fails by it.
Result<Json> set_rule(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto before = get_string(context.plan().context, "sync_names");
  const auto rule = rule_for(world, context, before, followers_of(context));
  if (!rule) return Json{{"node", candidate}, {"left", rule.error().message}};
  Json seen{{"node", candidate}, {"after", rule->after}, {"wanted", rule->wanted}};
  const auto own = own_names(world, candidate);
  if (own && *own == rule->after) {
    seen["skipped"] = rule->after.empty() ? "commits are asynchronous" : "already " + rule->after;
    return seen;
  }
  const auto set =
      own ? world.set_sync_names(candidate, rule->after, context.deadline()) : fail(own.error());
  if (!set) return Json{{"node", candidate}, {"left", set.error().message}};
  return seen;
}

Status undo_rule(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto& own = get_object(context.plan().context, "own_sync_names");
  if (!own.is_object() || !own.contains(candidate)) return {};
  const auto before = get_string(own, candidate.c_str());
  const auto snapshot = world.observe({candidate}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(candidate);
  if (facts != nullptr && facts->answered() && facts->sync_names == before) return {};
  return world.set_sync_names(candidate, before, context.deadline());
}

Result<Json> sync_names(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto snapshot = observe_all(world, context, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(candidate);
  if (facts == nullptr || !facts->answered())
    return fail(Code::unreachable,
                candidate + " cannot be asked for its synchronous_standby_names");
  const auto& plan = context.plan().context;
  const auto before =
      get_bool(plan, "sync_known") ? get_string(plan, "sync_names") : facts->sync_names;
  std::vector<std::string> followers;
  for (const auto& other : snapshot.nodes)
    if (other.receives()) followers.push_back(other.name);
  ZX_ASSIGN(const auto rule, rule_for(world, context, before, followers));
  Noted noted;
  if (rule.after != rule.wanted)
    noted = write_sync_debt(world, rule.known, {rule.wanted, rule.after, context.run_id()});
  ZX_TRY(noted.here);
  ZX_ASSIGN(const auto now, pg::parse_sync_names(facts->sync_names));
  if (to_string(now) != rule.after)
    ZX_TRY(change_sync_names(world, candidate, rule.after, context.deadline()));
  if (rule.after == rule.wanted && rule.known.debt) noted = clear_sync_debt(world, rule.known);
  ZX_TRY(noted.here);
  if (to_string(now) == rule.after && rule.after == rule.wanted)
    return Json{
        {"skipped", rule.after.empty() ? "commits are asynchronous" : "already " + rule.after}};
  Json seen{{"before", before}, {"after", rule.after}};
  if (rule.after != rule.wanted) seen["wanted"] = rule.wanted;
  if (!noted.everywhere) seen["untold"] = noted.everywhere.error().message;
  return seen;
}

}  // namespace

void note_rule(PgWorld& world, const StepContext& context) {
  const auto& rule = context.seen("rule");
  const auto after = get_string(rule, "after");
  const auto wanted = get_string(rule, "wanted");
  if (after == wanted) return;
  const auto known = sync_debt(world, get_string(context.plan().context, "sync_names"));
  const auto noted = write_sync_debt(world, known, {wanted, after, context.run_id()});
  if (!noted.here) log::warning("noting what commits wait for: " + noted.here.error().message);
}

void add_sync_actions(PgWorld& world, run::Actions& actions) {
  PgWorld* w = &world;
  actions["pg.rule"] = {{},
                        [w](StepContext& c) { return set_rule(*w, c); },
                        {},
                        [w](StepContext& c) { return undo_rule(*w, c); }};
  actions["pg.sync"] = {{}, [w](StepContext& c) { return sync_names(*w, c); }, {}, {}};
}

}  // namespace zx::ha
