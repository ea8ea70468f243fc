#include <fmt/format.h>

#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_steps.h"
#include "lib/pg/lineage.h"

namespace zx::ha {
namespace {

using run::StepContext;

std::string new_of(const StepContext& context) { return get_string(context.plan().context, "to"); }

// What is taken from a standby must be possible to put back.
Status upstream_can_return(PgWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto current, world.current_upstream(new_of(context), context.deadline()));
  if (!current.had_password) return {};
  ZX_ASSIGN(const auto password, config::replication_password_of(world.config(), world.cluster()));
  if (!password.empty()) return {};
  return fail(Code::refused,
              fmt::format("primary_conninfo of {} has a password that zx could not put back",
                          new_of(context)),
              "set replication_password_file of the cluster, or use a passfile on the standbys");
}

Status pair_is_ready(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  const auto to = new_of(context);
  const auto snapshot = world.observe({}, world.cluster().policy.probe_deadline);
  const auto* primary = snapshot.node(old);
  const auto* standby = snapshot.node(to);
  if (primary == nullptr || !primary->answered() || primary->role != pg::Role::primary)
    return fail(Code::refused, old + " is not a primary that answers",
                "zx status shows what is the case");
  if (standby == nullptr || !standby->answered() || !standby->receives() ||
      upstream_node(snapshot, *standby) != old)
    return fail(Code::refused, fmt::format("{} does not receive from {}", to, old),
                "zx status shows what is the case");
  const auto behind = bytes_ahead(primary->flushed, standby->position());
  if (behind > world.cluster().policy.max_lag)
    return fail(Code::refused,
                fmt::format("{} is {} behind, more than max_lag", to, format_bytes(behind)),
                "wait until it has caught up");
  return {};
}

Result<Json> stop(PgWorld& world, StepContext& context) {
  return world.on_host_of(old_primary_of(context), "pg-stop-clean", {{"run", context.run_id()}},
                          context.deadline().left());
}

Result<std::optional<Json>> was_stopped(PgWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto json, world.on_host_of(old_primary_of(context), "pg-inspect", Json::object(),
                                              context.deadline().left()));
  const auto local = pg::local_from_json(json);
  if (local.processes || !local.standby_signal || local.control_state != "shut down")
    return std::optional<Json>();
  return std::optional<Json>(
      Json{{"control_state", local.control_state}, {"checkpoint", to_string(local.checkpoint)}});
}

Status bring_back(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  ZX_TRY(none_took_over_from(world, old, context.run_id()));
  const auto deadline = Deadline::after(world.cluster().policy.stop_deadline);
  // A shutdown that hangs cannot be called off: it is ended, which loses nothing that was
  // acknowledged, and the server starts again as the primary that it was.
  ZX_TRY(world.on_host_of(old, "pg-stop", Json::object(), deadline.left()));
  ZX_TRY(world.on_host_of(old, "pg-unfence", {{"run", context.run_id()}}, deadline.left()));
  ZX_TRY(world.on_host_of(old, "pg-start", Json::object(), deadline.left()));
  const auto snapshot = world.observe({old}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(old);
  if (facts == nullptr || !facts->answered() || facts->role != pg::Role::primary)
    return fail(Code::failed, old + " was started again but does not answer as primary",
                "zx status shows what is the case");
  return {};
}

Status stopped_cleanly(StepContext& context) {
  const auto state = get_string(context.seen("stop"), "control_state");
  if (state == "shut down") return {};
  return fail(Code::refused,
              fmt::format("{} was not shut down cleanly: {}", old_primary_of(context), state));
}

// A primary that still names an upstream would follow it when it is fenced and started again, on
// whichever line that is by then. It has received all that there is.
Status forget_upstream(PgWorld& world, StepContext& context) {
  const auto to = new_of(context);
  if (context.noted("upstream").is_null()) {
    ZX_ASSIGN(const auto current, world.current_upstream(to, context.deadline()));
    ZX_TRY(context.note("upstream", {{"conninfo", current.conninfo},
                                     {"slot", current.slot},
                                     {"had_password", current.had_password}}));
  }
  return world.set_upstream(to, "", get_string(context.noted("upstream"), "slot"), false,
                            context.deadline());
}

Status remember_upstream(PgWorld& world, StepContext& context) {
  const auto& upstream = context.noted("upstream");
  if (upstream.is_null()) return {};
  ZX_TRY(none_took_over_from(world, old_primary_of(context), context.run_id()));
  const auto snapshot = world.observe({old_primary_of(context), new_of(context)},
                                      world.cluster().policy.probe_deadline);
  const auto* old = snapshot.node(old_primary_of(context));
  const auto* standby = snapshot.node(new_of(context));
  // It was promoted meanwhile, and so was the old primary.
  if (old != nullptr && standby != nullptr && old->answered() && standby->answered() &&
      pg::can_follow(standby->lineage, standby->position(), old->lineage).kin == pg::Kin::diverged)
    return fail(Code::refused,
                fmt::format("{} is on a line that ended: it cannot follow {} again as it is",
                            standby->name, old->name),
                fmt::format("end the run as it is: zx runs abort {} --as-is; then zx rejoin pg {}",
                            context.run_id(), standby->name));
  return world.set_upstream(new_of(context), get_string(upstream, "conninfo"),
                            get_string(upstream, "slot"), get_bool(upstream, "had_password"),
                            Deadline::after(world.cluster().policy.probe_deadline));
}

Result<Json> catch_up(PgWorld& world, StepContext& context) {
  const auto to = new_of(context);
  const auto checkpoint = parse_lsn(get_string(context.seen("stop"), "checkpoint")).value_or(Lsn{});
  Lsn replayed;
  while (true) {
    const auto snapshot = world.observe({to}, world.cluster().policy.probe_deadline);
    const auto* facts = snapshot.node(to);
    if (facts != nullptr && facts->answered()) {
      if (facts->role != pg::Role::standby)
        return fail(Code::refused, to + " is not a standby any more");
      // Past the start of the shutdown checkpoint means: it has replayed that record, the last one.
      replayed = facts->replayed.value_or(Lsn{});
      if (replayed > checkpoint) {
        ZX_TRY(forget_upstream(world, context));
        return Json{{"replayed", to_string(replayed)}};
      }
    }
    if (context.deadline().passed())
      return fail(Code::timeout,
                  fmt::format("{} has replayed {} and not the shutdown checkpoint of {} at {}", to,
                              to_string(replayed), old_primary_of(context), to_string(checkpoint)),
                  "is its replay paused, or blocked by a query?");
    pause_for(Millis(4));
  }
}

Result<Json> come_back(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  ZX_ASSIGN(auto seen, start_as_standby(world, old, new_of(context), context.deadline()));
  ZX_TRY(drop_foreign_slots(world, old, context.deadline()));
  ZX_TRY(world.on_host_of(old, "pg-forget-fence", Json::object(), context.deadline().left()));
  return seen;
}

}  // namespace

Status still_handed_over(PgWorld& world, StepContext& context, const pg::Snapshot& now) {
  const auto& stopped = context.seen("stop");
  if (!stopped.is_object()) return {};
  const auto overtaken = [&](const std::string& what) {
    return fail(Code::refused, what + ": others have acted since this run began",
                fmt::format("end it as it is: zx runs abort {} --as-is", context.run_id()));
  };
  const auto* candidate = now.node(new_of(context));
  if (candidate == nullptr || !candidate->answered() || candidate->role != pg::Role::standby)
    return {};
  for (const auto& facts : now.nodes)
    if (facts.answered() && facts.lineage.system_id == candidate->lineage.system_id &&
        facts.lineage.timeline > candidate->lineage.timeline)
      return overtaken(fmt::format("{} is on timeline {}", facts.name, facts.lineage.timeline));
  if (!context.resumed()) return {};
  ZX_ASSIGN(const auto still, was_stopped(world, context));
  if (!still || get_string(*still, "checkpoint") != get_string(stopped, "checkpoint"))
    return overtaken(old_primary_of(context) + " is not as it was stopped");
  return {};
}

void add_switchover_actions(PgWorld& world, run::Actions& actions) {
  PgWorld* w = &world;
  actions["pg.checkpoint"] = {[w](StepContext& c) -> Status {
                                ZX_TRY(pair_is_ready(*w, c));
                                return upstream_can_return(*w, c);
                              },
                              [w](StepContext& c) -> Result<Json> {
                                ZX_TRY(w->checkpoint(old_primary_of(c), c.deadline()));
                                return Json::object();
                              },
                              {},
                              {}};
  actions["pg.stop"] = {[w](StepContext& c) {
                          // Begun before: the server may be stopped already.
                          return c.resumed() ? Status{} : pair_is_ready(*w, c);
                        },
                        [w](StepContext& c) { return stop(*w, c); },
                        [w](StepContext& c) { return was_stopped(*w, c); },
                        [w](StepContext& c) { return bring_back(*w, c); }};
  actions["pg.catch_up"] = {[](StepContext& c) { return stopped_cleanly(c); },
                            [w](StepContext& c) { return catch_up(*w, c); },
                            {},
                            [w](StepContext& c) { return remember_upstream(*w, c); }};
  actions["pg.return"] = {[w](StepContext& c) { return candidate_still_serves(*w, c); },
                          [w](StepContext& c) { return come_back(*w, c); },
                          {},
                          {}};
}

}  // namespace zx::ha
