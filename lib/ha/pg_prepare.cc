// What is made ready while a primary serves; the failover is in pg_chain.cc.
#include "lib/ha/pg_prepare.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/pg_watch.h"
#include "lib/ha/sync_debt.h"

namespace zx::ha {
namespace {

constexpr const char* kMendDataDir =
    "set data_dir of the node to what SHOW data_directory says there";

// The primary that serves, and a standby of it that answers.
struct Pair {
  const pg::NodeFacts* primary = nullptr;
  const pg::NodeFacts* node = nullptr;
};
Result<Pair> pair_of(const View& view, const std::string& node) {
  Pair pair{only_primary(view), view.snapshot.node(node)};
  if (pair.primary == nullptr || pair.primary->name == node)
    return fail(Code::refused, "there is no primary to follow: " + view.verdict.summary);
  if (!pair.node->answered() || pair.node->role != pg::Role::standby)
    return fail(Code::refused, fmt::format("{} is no standby that answers", node));
  return pair;
}

std::string given_up_in_run(PgWorld& world, const std::string& node) {
  const auto debts = fence_debts(cluster_state_dir(world), world.cluster().name);
  if (world.shared() == nullptr) return given_up_in(debts, nullptr, node);
  const auto record = read_record(*world.shared(), world.cluster().name);
  return given_up_in(debts, record ? &*record : nullptr, node);
}

}  // namespace

Status known_node(const PgWorld& world, const std::string& name, const char* flag) {
  if (world.cluster().node(name) != nullptr) return {};
  std::vector<std::string> names;
  for (const auto& node : world.cluster().nodes) names.push_back(node.name);
  const auto near = nearest(name, names);
  return fail(
      Code::not_found,
      fmt::format("{}: no node named \"{}\" in pg.{}", flag, first_line(name),
                  world.cluster().name),
      near.empty() ? "nodes: " + join(names, ", ") : fmt::format("did you mean \"{}\"?", near));
}

const pg::NodeFacts* only_primary(const View& view) {
  return view.verdict.primaries.size() == 1 ? view.snapshot.node(view.verdict.primaries.front())
                                            : nullptr;
}

Result<Prepared> prepare_switchover(PgWorld& world, const std::string& to) {
  ZX_TRY(known_node(world, to, "--to"));
  const auto& policy = world.cluster().policy;
  Prepared prepared;
  prepared.view = look(world, policy.probe_deadline, false);
  const auto& view = prepared.view;
  const auto* primary = only_primary(view);
  if (primary == nullptr) {
    auto error = Error{Code::refused,
                       "there is no primary to move: " + view.verdict.summary,
                       view.verdict.hint,
                       {},
                       false};
    if (calls_for_failover(view.verdict.state)) error.hint = "zx failover pg --dry-run";
    return fail(error);
  }
  if (primary->name == to) {
    prepared.nothing_to_do = true;
    prepared.said = to + " is the primary already";
    return prepared;
  }
  const auto* node = world.cluster().node(to);
  const auto* facts = view.snapshot.node(to);
  const auto refuse = [&](const std::string& message, const std::string& hint) {
    return fail(Code::refused, message, hint);
  };
  if (!facts->answered())
    return refuse(fmt::format("{} cannot become the primary: {}", to, pg::says(facts->failure)),
                  "zx status");
  if (node->nofailover || node->priority == 0)
    return refuse(fmt::format("{} must not become the primary: {}", to,
                              node->nofailover ? "nofailover is set" : "priority 0"),
                  "change it in zx.toml, or name another node");
  if (!facts->receives() || upstream_node(view.snapshot, *facts) != primary->name)
    return refuse(fmt::format("{} does not receive from {}", to, primary->name),
                  "bring it back first: zx rejoin pg " + to);
  if (facts->replay_paused)
    return refuse("the replay of " + to + " is paused", "SELECT pg_wal_replay_resume() there");
  const auto relation = pg::can_follow(facts->lineage, facts->position(), primary->lineage);
  if (relation.kin != pg::Kin::same_line)
    return refuse(fmt::format("{}: {}", to, relation.why), "zx rejoin pg " + to);
  const auto behind = bytes_ahead(primary->flushed, facts->position());
  if (behind > policy.max_lag)
    return refuse(fmt::format("{} is {} behind, more than max_lag {}", to, format_bytes(behind),
                              format_bytes(policy.max_lag)),
                  "wait until it has caught up: zx status --watch");
  const auto* host = world.config().host(world.cluster().node(primary->name)->host);
  if (host == nullptr || !host->remote)
    return refuse(
        fmt::format("{} cannot be stopped from here: its host has no \"remote\"", primary->name),
        "set remote of its host in zx.toml");
  ZX_ASSIGN(const auto local,
            world.on_host_of(primary->name, "pg-inspect", Json::object(), policy.fence_deadline));
  const auto found = pg::local_from_json(local);
  if (const auto why = another_server(*primary, found); !why.empty())
    return refuse(why, kMendDataDir);
  ZX_TRY(can_work_on(world.cluster(), primary->name, found));
  if (!found.processes)
    return refuse(fmt::format("{} answers, but no PostgreSQL runs in its data_dir on its host",
                              primary->name),
                  "data_dir or host of the node in zx.toml names another server");
  prepared.plan = plan_switchover(world.cluster(), view.snapshot, primary->name, to);
  return prepared;
}

Result<Prepared> prepare_rejoin(PgWorld& world, const std::string& node, bool rebuild) {
  ZX_TRY(known_node(world, node, "NODE"));
  const auto& policy = world.cluster().policy;
  Prepared prepared;
  prepared.view = look(world, policy.probe_deadline, true);
  const auto& view = prepared.view;
  const auto* facts = view.snapshot.node(node);
  std::vector<std::string> primaries;
  for (const auto& name : view.verdict.primaries)
    if (name != node) primaries.push_back(name);
  const bool node_serves = primaries.size() != view.verdict.primaries.size();
  if (primaries.empty())
    return fail(Code::refused,
                node_serves ? node + " is the primary"
                            : "there is no primary to follow: " + view.verdict.summary,
                node_serves ? "to move the primary first: zx switchover pg --to NODE"
                            : "zx failover pg --dry-run");
  if (primaries.size() > 1)
    return fail(Code::refused,
                join(primaries, " and ") + " both accept writes: which one to follow is not clear",
                "rejoin one of them first");
  const auto* primary = view.snapshot.node(primaries.front());
  const bool owes_sync = sync_debt(world, primary->sync_names).debt.has_value();
  if (!rebuild && facts->answered() && facts->receives() &&
      facts->receiver->status == "streaming" &&
      upstream_node(view.snapshot, *facts) == primary->name &&
      pg::can_follow(facts->lineage, facts->position(), primary->lineage).kin ==
          pg::Kin::same_line &&
      (!facts->local || !facts->local->fenced)) {
    prepared.nothing_to_do = !owes_sync;
    prepared.said = fmt::format("{} streams from {} already", node, primary->name);
    if (owes_sync) prepared.plan = plan_sync(world.cluster(), node, primary->name);
    return prepared;
  }
  if (!facts->local) {
    const auto json = world.on_host_of(node, "pg-inspect", Json::object(), policy.fence_deadline);
    if (!json) return fail_while(json.error(), "looking at " + node + " on its host");
    for (auto& one : prepared.view.snapshot.nodes)
      if (one.name == node) one.local = pg::local_from_json(*json);
  }
  const auto& local = *facts->local;
  // Fencing it would stop another node's server, the primary's even.
  if (const auto why = another_server(*facts, local); !why.empty())
    return fail(Code::refused, why, kMendDataDir);
  // An interrupted rewind has left nothing that could be kept.
  const auto newer =
      local.interrupted_rewind
          ? std::string()
          : newer_than(node, facts->answered() ? facts->lineage : local.lineage, *primary);
  prepared.gives_up_newer = !newer.empty();
  bool is_settled = false;  // a failover has decided between the two, for the primary
  if (!node_serves && !newer.empty()) {
    prepared.newer = newer;
    const auto run = given_up_in_run(world, primary->name);
    if (!run.empty()) prepared.newer += fmt::format(", which was given up in run {}", run);
    is_settled = run.empty() && !given_up_in_run(world, node).empty();
  }
  const auto why_rebuild = must_rebuild(*facts, *primary);
  if (!rebuild && !why_rebuild.empty() && !prepared.newer.empty())
    return fail(
        Code::refused,
        fmt::format("{}; and it cannot be brought back as it is: {}", prepared.newer, why_rebuild),
        is_settled ? rebuild_hint(node) : way_back(*primary, node));
  if (!rebuild && !why_rebuild.empty())
    return fail(Code::refused,
                fmt::format("{} cannot be brought back as it is: {}", node, why_rebuild),
                rebuild_hint(node));
  if (!local.interrupted_rewind && !local.is_empty)
    ZX_TRY(can_work_on(world.cluster(), node, local));
  if (rebuild && !local.no_rebuild.empty())
    return fail(Code::refused,
                fmt::format("{} cannot be rebuilt by zx: {}", node, local.no_rebuild),
                "stop it and use pg_basebackup with --waldir or --tablespace-mapping");
  // Not even a rebuild: it would take the only copy of something else.
  if (const auto& theirs = local.lineage.system_id;
      !theirs.empty() && theirs != primary->lineage.system_id)
    return fail(
        Code::refused,
        fmt::format("data_dir of {} is of another cluster, system identifier {}", node, theirs),
        std::string(kMendDataDir) +
            "; or put an empty directory of the server's user in its place, and then " +
            rebuild_hint(node));
  if (!rebuild && !primary->rewindable && !local.processes && local.control_state != "shut down")
    return fail(Code::refused,
                primary->name + " has neither wal_log_hints nor checksums: pg_rewind cannot work",
                rebuild_hint(node));
  prepared.plan =
      plan_rejoin(world.cluster(), {node, primary->name, rebuild, node_serves, owes_sync});
  return prepared;
}

Result<Prepared> prepare_repoint(PgWorld& world, const std::string& node) {
  ZX_TRY(known_node(world, node, "NODE"));
  Prepared prepared;
  prepared.view = look(world, world.cluster().policy.probe_deadline, false);
  ZX_ASSIGN(const auto pair, pair_of(prepared.view, node));
  const auto relation =
      pg::can_follow(pair.node->lineage, pair.node->position(), pair.primary->lineage);
  if (relation.kin != pg::Kin::same_line)
    return fail(Code::refused, fmt::format("{}: {}", node, relation.why), "zx rejoin pg " + node);
  if (pair.node->receives() &&
      upstream_node(prepared.view.snapshot, *pair.node) == pair.primary->name) {
    prepared.nothing_to_do = true;
    prepared.said = fmt::format("{} streams from {} already", node, pair.primary->name);
    return prepared;
  }
  const bool owes_sync = sync_debt(world, pair.primary->sync_names).debt.has_value();
  prepared.plan = plan_repoint(world.cluster(), node, pair.primary->name, owes_sync);
  return prepared;
}

Result<Prepared> prepare_sync(PgWorld& world) {
  Prepared prepared;
  prepared.view = look(world, world.cluster().policy.probe_deadline, false);
  const auto* primary = only_primary(prepared.view);
  if (primary == nullptr)
    return fail(Code::refused, "there is no primary to set: " + prepared.view.verdict.summary);
  prepared.plan = plan_sync(world.cluster(), {}, primary->name);
  prepared.plan.command = "sync pg";
  return prepared;
}

Result<Prepared> prepare_fence(PgWorld& world, const std::string& node) {
  ZX_TRY(known_node(world, node, "NODE"));
  Prepared prepared;
  prepared.view = look(world, world.cluster().policy.probe_deadline, false);
  std::string other;
  for (const auto& name : prepared.view.verdict.primaries)
    if (name != node) other = name;
  const auto* facts = prepared.view.snapshot.node(node);
  if (other.empty() &&
      (facts->role != pg::Role::primary || ahead_of(prepared.view.snapshot, *facts) == nullptr))
    return fail(Code::refused, fmt::format("no node but {} accepts writes", node));
  prepared.plan = plan_fence(world.cluster(), node, other);
  prepared.plan.context["serves"] = facts->role == pg::Role::primary;
  return prepared;
}

}  // namespace zx::ha
