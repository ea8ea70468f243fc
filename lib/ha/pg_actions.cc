#include "lib/ha/pg_actions.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/sync_debt.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

constexpr Millis kLookAgain{50};

}  // namespace

std::string cluster_state_dir(const PgWorld& world) { return world.config().platform.state_dir; }

std::string candidate_of(const run::StepContext& context) {
  const auto chosen = get_string(context.seen("choose"), "candidate");
  return chosen.empty() ? get_string(context.plan().context, "to") : chosen;
}

std::string old_primary_of(const run::StepContext& context) {
  return get_string(context.plan().context, "old_primary");
}

bool is_given_up_unheard(const run::StepContext& context) {
  const auto proof = get_string(context.plan().context, "fence");
  return proof == "guard" || proof == "quorum";
}

pg::Snapshot observe_all(PgWorld& world, const run::StepContext& context, Millis deadline) {
  const auto old = old_primary_of(context);
  if (old.empty() || !is_given_up_unheard(context)) return world.observe({}, deadline);
  std::vector<std::string> names;
  for (const auto& node : world.cluster().nodes)
    if (node.name != old) names.push_back(node.name);
  auto snapshot = world.observe(names, deadline);
  pg::NodeFacts facts;
  facts.name = old;
  facts.failure = pg::Failure::no_answer;
  snapshot.nodes.push_back(std::move(facts));
  return snapshot;
}

Status no_primary_but(PgWorld& world, const std::string& except) {
  return no_primary_in(
      world, world.observe({}, std::min(world.cluster().policy.probe_deadline, Millis(300))),
      except);
}

Status no_primary_in(const PgWorld& world, const pg::Snapshot& snapshot,
                     const std::string& except) {
  const auto last = read_last_seen(cluster_state_dir(world), world.cluster().name);
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == pg::Role::primary && facts.name != except &&
        !is_foreign(snapshot, facts, last))
      return fail(Code::refused, facts.name + " is alive and accepts writes",
                  "to move the primary on purpose: zx switchover pg --to NODE");
  return {};
}

Status candidate_still_serves(PgWorld& world, const run::StepContext& context) {
  if (!context.resumed()) return {};
  const auto candidate = candidate_of(context);
  const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(candidate);
  const bool serves = facts != nullptr && facts->answered() && facts->role == pg::Role::primary;
  const auto alone = no_primary_in(world, snapshot, candidate);
  if (serves && alone) return {};
  return fail(Code::refused,
              alone ? candidate + " is not the primary any more" : alone.error().message,
              fmt::format("when another has taken over, end the run as it is: zx runs abort {} "
                          "--as-is; then zx rejoin pg NODE",
                          context.run_id()));
}

Status none_took_over_from(PgWorld& world, const std::string& old, const std::string& run) {
  const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
  const auto last = read_last_seen(cluster_state_dir(world), world.cluster().name);
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == pg::Role::primary && facts.name != old &&
        !is_foreign(snapshot, facts, last)) {
      const auto* given_up = snapshot.node(old);
      const bool is_back = given_up != nullptr && given_up->answered() && given_up->receives();
      return fail(Code::refused,
                  fmt::format("{} is a primary now: {} stays as it is, or there could be two",
                              facts.name, old),
                  fmt::format("end the run as it is: zx runs abort {} --as-is{}", run,
                              is_back ? std::string() : "; then zx rejoin pg " + old));
    }
  return {};
}

void note_primary(PgWorld& world, const std::string& node,
                  const std::optional<std::string>& sync_names) {
  auto seen = last_seen_of(world.observe({node}, world.cluster().policy.probe_deadline));
  const auto last = read_last_seen(cluster_state_dir(world), world.cluster().name);
  const bool goes_back = seen && last && last->lineage.system_id == seen->lineage.system_id &&
                         last->lineage.timeline > seen->lineage.timeline;
  if (!seen || goes_back) return;
  if (sync_names) seen->sync_names = *sync_names;
  seen->is_watched = world.watches();
  static_cast<void>(write_last_seen(cluster_state_dir(world), world.cluster().name, *seen));
}

Status wait_caught_up(PgWorld& world, const pg::NodeFacts& primary, const pg::SyncNames& names,
                      Deadline deadline) {
  while (true) {
    const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
    const auto there = able_standbys(snapshot, primary, names);
    const auto caught_up = able_standbys(snapshot, primary, names, 0);
    if (std::ssize(caught_up) >= names.count) return {};
    if (const auto signal = os::interruption()) return fail(*signal);
    if (std::ssize(there) < names.count || deadline.passed()) {
      auto why = fmt::format("{} of the {} standbys that {} wants are there", there.size(),
                             names.count, to_string(names));
      for (const auto& name : there)
        if (const auto behind = bytes_ahead(primary.flushed, snapshot.node(name)->position());
            behind > 0)
          why += fmt::format(", {} is {} behind", name, format_bytes(behind));
      return fail(Code::refused, why);
    }
    pause_for(std::min(kLookAgain, deadline.left()));
  }
}

Status change_sync_names(PgWorld& world, const std::string& primary, const std::string& names,
                         Deadline deadline) {
  const auto facts_of = [&]() -> std::optional<pg::NodeFacts> {
    const auto snapshot = world.observe({primary}, world.cluster().policy.probe_deadline);
    const auto* facts = snapshot.node(primary);
    return facts != nullptr && facts->answered() ? std::optional(*facts) : std::nullopt;
  };
  const auto now = facts_of();
  const auto before = pg::parse_sync_names(now ? now->sync_names : "");
  const auto after = pg::parse_sync_names(names);
  const bool asks_for_more = before && after && before->count > 0 && after->count > before->count;
  if (!names.empty() && !asks_for_more) note_primary(world, primary, names);
  ZX_TRY(world.set_sync_names(primary, names, deadline));
  if (asks_for_more) {
    const auto set = facts_of();
    if (!set || !wait_caught_up(world, *set, *after, deadline)) return {};
  }
  note_primary(world, primary);
  return {};
}

std::string slot_for(PgWorld& world, const std::string& node, const std::string& own_slot,
                     const pg::Snapshot& snapshot) {
  if (!own_slot.empty()) return own_slot;
  const bool uses_slots =
      std::any_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
        const bool has_ours =
            std::any_of(facts.slots.begin(), facts.slots.end(), [&](const auto& slot) {
              return std::any_of(
                  world.cluster().nodes.begin(), world.cluster().nodes.end(),
                  [&](const auto& other) { return slot.name == pg::slot_name_of(other.name); });
            });
        return facts.answered() && (!facts.primary_slot_name.empty() || has_ours);
      });
  return uses_slots ? pg::slot_name_of(node) : std::string();
}

Result<Json> start_as_standby(PgWorld& world, const std::string& node, const std::string& primary,
                              Deadline deadline) {
  ZX_ASSIGN(const auto own,
            world.on_host_of(node, "pg-own-upstream", Json::object(), deadline.left()));
  const auto base = get_string(own, "conninfo");
  ZX_ASSIGN(const auto password, config::replication_password_of(world.config(), world.cluster()));
  const bool needs_password = get_bool(own, "had_password") || base.empty();
  const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
  const auto slot = slot_for(world, node, {}, snapshot);
  if (!slot.empty()) ZX_TRY(world.make_slots(primary, {slot}, deadline));
  ZX_TRY(world.on_host_of(
      node, "pg-configure-standby",
      {{"conninfo", follow_conninfo(world.config(), world.cluster(), base, node, primary)},
       {"slot", slot},
       {"password", needs_password ? password : std::string()}},
      deadline.left()));
  ZX_TRY(world.on_host_of(node, "pg-start", Json::object(), deadline.left()));
  ZX_ASSIGN(const auto receiver, world.wait_streaming(node, primary, deadline));
  return Json{{"streaming_from", primary}, {"timeline", receiver.timeline}, {"slot", slot}};
}

Status drop_foreign_slots(PgWorld& world, const std::string& node, Deadline deadline) {
  // A slot that nobody uses on a standby holds its WAL back for ever.
  std::vector<std::string> slots;
  for (const auto& other : world.cluster().nodes) slots.push_back(pg::slot_name_of(other.name));
  auto dropped = world.drop_slots(node, slots, deadline);
  if (!dropped) return fail(dropped.error());
  return {};
}

run::Actions pg_actions(PgWorld& world) {
  run::Actions actions;
  add_failover_actions(world, actions);
  add_sync_actions(world, actions);
  add_switchover_actions(world, actions);
  add_rejoin_actions(world, actions);
  return actions;
}

}  // namespace zx::ha
