#include <fmt/format.h>

#include "lib/ha/last_seen.h"
#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/sync_debt.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {
namespace {

using run::StepContext;

std::string node_of(const StepContext& context) {
  return get_string(context.plan().context, "node");
}
std::string primary_of(const StepContext& context) {
  const auto& plan = context.plan().context;
  return get_string(plan, "primary", get_string(plan, "to"));
}

Result<pg::NodeFacts> primary_facts(PgWorld& world, StepContext& context) {
  const auto primary = primary_of(context);
  const auto snapshot = world.observe({primary}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(primary);
  if (facts == nullptr || !facts->answered() || facts->role != pg::Role::primary)
    return fail(Code::refused, primary + " is not a primary that answers",
                "zx status shows what is the case");
  return *facts;
}

Status primary_serves(PgWorld& world, StepContext& context) {
  const auto facts = primary_facts(world, context);
  if (!facts) return fail(facts.error());
  return {};
}

Result<Json> fence(PgWorld& world, StepContext& context) {
  const auto node = node_of(context);
  ZX_ASSIGN(const auto before,
            world.on_host_of(node, "pg-inspect", Json::object(), context.deadline().left()));
  if (get_bool(context.plan().context, "rebuild")) {
    if (get_bool(before, "interrupted_rewind"))
      return Json{{"skipped", "its directory cannot be started"}};
    if (get_bool(before, "is_empty")) return Json{{"skipped", "its directory is empty"}};
  }
  if (context.noted("before").is_null()) ZX_TRY(context.note("before", before));
  // A primary since a moment ago: its first checkpoint on its timeline must come before its end.
  const auto local = pg::local_from_json(before);
  if (local.unsealed && local.processes && !local.stopped) {
    const auto seen = world.observe({node}, world.cluster().policy.probe_deadline);
    const auto* facts = seen.node(node);
    if (facts != nullptr && facts->answered() && facts->role == pg::Role::primary)
      ZX_TRY(
          world.checkpoint(node, context.deadline().at_most(world.cluster().policy.stop_deadline)));
  }
  ZX_ASSIGN(auto seen, world.on_host_of(node, "pg-fence", {{"run", context.run_id()}},
                                        context.deadline().left()));
  // And through its supervisor, if it has one, so that it is not started again under our hands.
  ZX_TRY(world.on_host_of(node, "pg-stop", Json::object(), context.deadline().left()));
  return seen;
}

// A standby that ran before runs again, one that was down is stopped again. A primary never runs:
// it stays fenced.
Status as_before(PgWorld& world, StepContext& context) {
  const auto& before = context.noted("before");
  // It was promoted since: it is the primary.
  const auto seen = world.observe({node_of(context)}, world.cluster().policy.probe_deadline);
  if (const auto* facts = seen.node(node_of(context));
      facts != nullptr && facts->answered() && facts->role == pg::Role::primary &&
      before.is_object() && facts->lineage.timeline > pg::local_from_json(before).lineage.timeline)
    return {};
  if (before.is_object() && !get_bool(before, "processes")) {
    ZX_TRY(
        world.on_host_of(node_of(context), "pg-stop", Json::object(), context.deadline().left()));
    // The fence of one that could start as a primary stays.
    if (get_bool(before, "standby_signal") && !get_bool(before, "fenced"))
      ZX_TRY(world.on_host_of(node_of(context), "pg-unfence", {{"run", context.run_id()}},
                              context.deadline().left()));
    return {};
  }
  if (!get_bool(before, "processes") || !get_bool(before, "standby_signal")) return {};
  ZX_ASSIGN(const auto now, world.on_host_of(node_of(context), "pg-inspect", Json::object(),
                                             context.deadline().left()));
  if (get_bool(now, "interrupted_rewind")) return {};
  if (!get_bool(before, "fenced"))
    ZX_TRY(world.on_host_of(node_of(context), "pg-unfence", {{"run", context.run_id()}},
                            context.deadline().left()));
  ZX_TRY(world.on_host_of(node_of(context), "pg-start", Json::object(), context.deadline().left()));
  return {};
}

Result<Json> keep(PgWorld& world, StepContext& context) {
  const auto node = node_of(context);
  ZX_ASSIGN(const auto primary, primary_facts(world, context));
  ZX_ASSIGN(
      const auto json,
      world.on_host_of(node, "pg-inspect", Json::object(),
                       context.deadline().at_most(world.cluster().policy.fence_deadline).left()));
  const auto local = pg::local_from_json(json);
  if (!local.is_data_directory)
    return fail(Code::not_a_data_directory, node + ": " + local.problem);
  const auto relation = pg::can_follow(local.lineage, Lsn{~std::uint64_t{0}}, primary.lineage);
  if (relation.kin == pg::Kin::foreign)
    return fail(Code::refused, fmt::format("{} is of {}", node, relation.why), rebuild_hint(node));
  if (relation.kin == pg::Kin::unknown)
    return fail(Code::refused,
                fmt::format("{} and {} cannot be compared: {}", node, primary.name, relation.why),
                rebuild_hint(node));
  if (relation.kin == pg::Kin::same_line) return Json{{"diverged", false}, {"bytes", 0}};
  ZX_ASSIGN(auto kept, world.on_host_of(node, "pg-keep-wal",
                                        {{"timeline", local.lineage.timeline},
                                         {"from", to_string(relation.fork)},
                                         {"segment_size", primary.segment_size},
                                         {"run", context.run_id()}},
                                        context.deadline().left()));
  kept["timeline"] = local.lineage.timeline;
  kept["diverged"] = get_int(kept, "bytes") > 0;
  return kept;
}

Result<Json> keep_if_possible(PgWorld& world, StepContext& context) {
  auto kept = keep(world, context);
  // A rebuild is asked for when the directory may be beyond reading; the operator confirmed it.
  if (!kept && kept.error().code != Code::interrupted &&
      get_bool(context.plan().context, "rebuild"))
    return Json{{"skipped", "not kept: " + kept.error().message}};
  return kept;
}

Result<Json> slot(PgWorld& world, StepContext& context) {
  const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
  const auto name = slot_for(world, node_of(context), {}, snapshot);
  if (name.empty()) return Json{{"skipped", "this cluster replicates without slots"}};
  ZX_ASSIGN(const auto made, world.make_slots(primary_of(context), {name}, context.deadline()));
  return Json{{"slot", name}, {"made", !made.empty()}};
}

// The primary as a source for pg_rewind (the probe user) or pg_basebackup (the replication user).
Result<Json> source(PgWorld& world, const std::string& primary, bool replication) {
  const auto& cluster = world.cluster();
  pg::Conninfo conninfo;
  pg::set_value(conninfo, "user", replication ? cluster.replication_user : cluster.user);
  if (!replication) pg::set_value(conninfo, "dbname", cluster.database);
  if (!cluster.sslmode.empty()) pg::set_value(conninfo, "sslmode", cluster.sslmode);
  if (!cluster.sslrootcert.empty()) pg::set_value(conninfo, "sslrootcert", cluster.sslrootcert);
  ZX_ASSIGN(const auto password, replication
                                     ? config::replication_password_of(world.config(), cluster)
                                     : config::password_of(world.config(), cluster));
  return Json{
      {"conninfo", follow_conninfo(world.config(), cluster, pg::to_string(conninfo), "", primary)},
      {"password", password}};
}

// See must_rebuild(): of a node that was not known to be like that before it was settled.
Status is_sealed(PgWorld& world, StepContext& context) {
  const auto node = node_of(context);
  ZX_ASSIGN(auto primary, primary_facts(world, context));
  ZX_ASSIGN(const auto json,
            world.on_host_of(node, "pg-inspect", Json::object(), context.deadline().left()));
  pg::NodeFacts facts;
  facts.local = pg::local_from_json(json);
  const auto why = must_rebuild(facts, primary);
  if (why.empty()) return {};
  return fail(Code::refused, fmt::format("{} cannot be rewound: {}", node, why),
              rebuild_hint(node));
}

Result<Json> rewind(PgWorld& world, StepContext& context) {
  if (!get_bool(context.seen("keep"), "diverged"))
    return Json{{"skipped", "it has no WAL that the primary has not"}};
  const auto node = node_of(context);
  if (context.resumed()) {  // killed after the rewind and before it was journalled
    ZX_ASSIGN(const auto primary, primary_facts(world, context));
    ZX_ASSIGN(const auto json,
              world.on_host_of(node, "pg-inspect", Json::object(), context.deadline().left()));
    const auto now =
        pg::can_follow(pg::local_from_json(json).lineage, Lsn{~std::uint64_t{0}}, primary.lineage);
    if (now.kin == pg::Kin::same_line) return Json{{"said", "rewound before"}};
  }
  // pg_rewind reads the new timeline from the source's control file, which a checkpoint writes.
  ZX_TRY(world.checkpoint(primary_of(context), context.deadline()));
  ZX_TRY(world.on_host_of(node, "pg-settle", Json::object(), context.deadline().left()));
  ZX_TRY(is_sealed(world, context));
  ZX_ASSIGN(const auto from, source(world, primary_of(context), false));
  return world.on_host_of(node, "pg-rewind", {{"source", from}}, context.deadline().left());
}

Result<std::optional<Json>> was_interrupted(PgWorld& world, StepContext& context) {
  const auto node = node_of(context);
  ZX_ASSIGN(const auto json,
            world.on_host_of(node, "pg-inspect", Json::object(), context.deadline().left()));
  if (get_bool(json, "interrupted_rewind"))
    return fail(
        Code::failed,
        fmt::format(
            "the rewind of {} was interrupted: its directory is unusable and will not be started",
            node),
        rebuild_hint(node));
  return std::optional<Json>();
}

Result<Json> rebuild(PgWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto from, source(world, primary_of(context), true));
  return world.on_host_of(node_of(context), "pg-rebuild",
                          {{"source", from}, {"run", context.run_id()}}, context.deadline().left());
}

Status undo_rebuild(PgWorld& world, StepContext& context) {
  ZX_TRY(world.on_host_of(node_of(context), "pg-undo-rebuild", {{"run", context.run_id()}},
                          context.deadline().left()));
  return {};
}

Result<Json> start(PgWorld& world, StepContext& context) {
  auto started = start_as_standby(world, node_of(context), primary_of(context), context.deadline());
  if (!started) {
    auto error = started.error();
    const auto rebuild = rebuild_hint(node_of(context));
    if (!error.hint.ends_with(rebuild)) error.hint += (error.hint.empty() ? "" : "; ") + rebuild;
    return fail(error);
  }
  return started;
}

Result<Json> tidy(PgWorld& world, StepContext& context) {
  const auto node = node_of(context);
  ZX_TRY(drop_foreign_slots(world, node, context.deadline()));
  ZX_TRY(world.on_host_of(node, "pg-forget-fence", Json::object(), context.deadline().left()));
  // Also what an earlier rebuild, ended as it was, has left: this directory streams.
  ZX_TRY(world.on_host_of(node, "pg-drop-old", Json::object(), context.deadline().left()));
  ZX_TRY(clear_fence_debt(cluster_state_dir(world), world.cluster().name, node));
  return Json::object();
}

Result<Json> restore_sync(PgWorld& world, StepContext& context) {
  const auto& cluster = world.cluster();
  const auto snapshot = world.observe({}, cluster.policy.probe_deadline);
  const auto* primary = snapshot.node(primary_of(context));
  if (primary == nullptr || !primary->answered())
    return fail(Code::unreachable, primary_of(context) + " does not answer");
  const auto known = sync_debt(world, primary->sync_names);
  Json seen = Json::object();
  const auto settle = [&]() -> Status {
    const auto cleared = clear_sync_debt(world, known);
    // The setting tells an agent that it is settled.
    if (!cleared.everywhere) seen["untold"] = cleared.everywhere.error().message;
    return cleared.here;
  };
  if (!known.debt) {
    ZX_TRY(settle());
    seen["skipped"] = "it was set since";
    return seen;
  }
  const auto& debt = *known.debt;
  ZX_ASSIGN(const auto wanted, pg::parse_sync_names(debt.wanted));
  // One that is behind has not what was acknowledged until now: when all others die right after the
  // change it would seem to have it.
  const auto caught_up = wait_caught_up(world, *primary, wanted,
                                        context.deadline().at_most(context.deadline().left() / 2));
  if (!caught_up) {
    if (caught_up.error().code != Code::refused) return fail(caught_up.error());
    return Json{{"skipped", caught_up.error().message}};
  }
  ZX_TRY(change_sync_names(world, primary->name, debt.wanted, context.deadline()));
  ZX_TRY(settle());
  seen["before"] = primary->sync_names;
  seen["after"] = debt.wanted;
  return seen;
}

}  // namespace

void add_rejoin_actions(PgWorld& world, run::Actions& actions) {
  PgWorld* w = &world;
  const auto guard = [w](StepContext& c) { return primary_serves(*w, c); };
  // Of one that may be a primary that nobody sees there is no primary yet.
  const auto may_fence = [w](StepContext& c) {
    const bool serves = get_bool(c.plan().context, "serves");
    return primary_of(c).empty() ? no_primary_but(*w, serves ? node_of(c) : std::string())
                                 : primary_serves(*w, c);
  };
  actions["pg.rejoin.fence"] = {may_fence,
                                [w](StepContext& c) { return fence(*w, c); },
                                {},
                                [w](StepContext& c) { return as_before(*w, c); }};
  actions["pg.rejoin.keep"] = {{}, [w](StepContext& c) { return keep_if_possible(*w, c); }, {}, {}};
  actions["pg.rejoin.slot"] = {{}, [w](StepContext& c) { return slot(*w, c); }, {}, {}};
  actions["pg.rejoin.rewind"] = {guard,
                                 [w](StepContext& c) { return rewind(*w, c); },
                                 [w](StepContext& c) { return was_interrupted(*w, c); },
                                 {}};
  actions["pg.rejoin.rebuild"] = {guard,
                                  [w](StepContext& c) { return rebuild(*w, c); },
                                  {},
                                  [w](StepContext& c) { return undo_rebuild(*w, c); }};
  actions["pg.rejoin.start"] = {guard, [w](StepContext& c) { return start(*w, c); }, {}, {}};
  actions["pg.rejoin.sync"] = {{}, [w](StepContext& c) { return restore_sync(*w, c); }, {}, {}};
  actions["pg.rejoin.tidy"] = {{}, [w](StepContext& c) { return tidy(*w, c); }, {}, {}};
}

}  // namespace zx::ha
