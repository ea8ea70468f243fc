#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/restore/restore.h"
#include "lib/base/text.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_chain.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/pg_watch.h"

namespace zx::commands {
namespace {

Millis target_of(const run::Plan& plan, const char* key) {
  return Millis(get_int(plan.context, key));
}

std::string against(Millis measured, Millis target) {
  if (target.count() <= 0) return {};
  return fmt::format(" ({} {})", measured <= target ? "target" : "over the target of",
                     format_duration(target));
}

// What a run that is ended as it is has replaced: commit and undo go by the receipt.
Status keep_what_it_left(Env& env, backup::RestoreWorld& world, const run::Record& record) {
  const auto& state_dir = world.config.platform.state_dir;
  ZX_ASSIGN(const auto known, backup::read_kept(state_dir));
  if (known || record.plan.command == "restore undo") return {};
  ZX_ASSIGN(const auto left, backup::left_by(world, record));
  if (!left) return {};
  ZX_TRY(backup::write_kept(state_dir, *left));
  env.screen.note("what it replaced is kept: " + env.typed("restore undo") + " brings it back, " +
                  env.typed("restore commit") + " removes it");
  return {};
}

}  // namespace

Result<std::unique_ptr<RestoreHand>> RestoreHand::make(Env& env, const config::Config& config,
                                                       Reads reads) {
  std::unique_ptr<RestoreHand> hand(new RestoreHand(config));
  if (reads == Reads::repository) {
    ZX_ASSIGN(hand->repository_, open_repository(config));
    ZX_ASSIGN(hand->reading_, backup::take_patiently(patience(env), [&] {
                return hand->repository_->lock_to_read();
              }));
  }
  ZX_ASSIGN(hand->shared_, coord::shared_of(config));
  hand->world_.reset(
      new backup::RestoreWorld{config,
                               hand->repository_ ? &*hand->repository_ : nullptr,
                               redis_means(env, config),
                               config.backup.jobs,
                               {},
                               [&config, shared = hand->shared_.get()](const std::string& cluster,
                                                                       const std::string& primary) {
                                 return is_right_primary(config, shared, cluster, primary);
                               }});
  return hand;
}

Status is_right_primary(const config::Config& config, coord::Shared* shared,
                        const std::string& cluster, const std::string& primary) {
  const auto* found = config.cluster(cluster);
  if (found == nullptr) return fail(Code::config, "no cluster " + cluster);
  const auto world = ha::real_world(config, *found, shared);
  const auto view = ha::look(*world, found->policy.probe_deadline, false);
  const auto refuse = [&](const std::string& why, const std::string& hint) {
    return fail(Code::refused, why, hint.empty() ? "zx status says which is right" : hint);
  };
  const auto* facts = view.snapshot.node(primary);
  if (view.verdict.primary != primary || view.verdict.primaries.size() != 1 || facts == nullptr)
    return refuse(view.verdict.summary, view.verdict.hint);
  if (const auto* ahead = ha::ahead_of(view.snapshot, *facts); ahead != nullptr)
    return refuse(ha::newer_than(ahead->name, ahead->lineage, *facts), view.verdict.hint);
  std::optional<ha::WatchRecord> record;
  if (shared != nullptr) {
    ZX_ASSIGN(record, ha::read_record(*shared, cluster));
    if (const auto doubt = ha::doubt_of(*record, view.snapshot, primary); !doubt.empty())
      return refuse(doubt, {});
    if (record->last && record->last->is_acknowledged) return {};
  }
  const auto debts = ha::fence_debts(config.platform.state_dir, cluster);
  const auto run = ha::given_up_in(debts, record ? &*record : nullptr, primary);
  if (run.empty()) return {};
  return refuse(fmt::format("{} was given up in run {}", primary, run), {});
}

std::string restore_summary(const run::RunReport& report) {
  const auto& plan = report.plan;
  const Wall point{Millis(get_int(plan.context, "point_ms"))};
  const auto lost = std::chrono::duration_cast<Millis>(wall_now() - report.took - point);
  const auto tables = get_strings(plan.context, "tables");
  if (!tables.empty())
    return fmt::format(
        "Restored {} of set {} in {}{}; what was written there since {} is lost. "
        "Run {}.",
        join(tables, ", "), get_string(plan.context, "set"), format_duration(report.took),
        against(report.took, target_of(plan, "rto_target_ms")), format_local(point, wall_now()),
        report.id);
  return fmt::format(
      "Restored set {} in {}{}; what was written since {}, {} before, is lost{}. "
      "Run {}.",
      get_string(plan.context, "set"), format_duration(report.took),
      against(report.took, target_of(plan, "rto_target_ms")), format_local(point, wall_now()),
      format_duration(lost), against(lost, target_of(plan, "rpo_target_ms")), report.id);
}

void say_warnings(Env& env, const run::RunReport& report) {
  for (const auto& step : report.steps)
    for (const auto& warning : get_strings(step.seen, "warnings")) env.screen.note(warning);
}

bool is_about_a_restore(const run::Record& record) {
  return record.plan.lock == backup::kRestoreLock;
}

Result<int> end_restore_run(Env& env, const config::Config& config, const run::Record& record,
                            const EndOptions& given) {
  const bool reads = given.is_resumed() && record.plan.command != "restore undo";
  ZX_ASSIGN(const auto hand,
            RestoreHand::make(
                env, config, reads ? RestoreHand::Reads::repository : RestoreHand::Reads::nothing));
  const ha::TurnWish wish{
      fmt::format("runs {} {}", given.what, record.id), {}, given.assume_alone, false};
  if (given.dry_run) {
    show_rest(env, record, given.what);
    env.screen.json(run_json(config, record));
    return ha::may_take_lock(hand->ground(), wish)
               ? Result<int>(0)
               : fail(ha::may_take_lock(hand->ground(), wish).error());
  }
  ZX_ASSIGN(const auto lease, ha::take_lock(hand->ground(), wish));
  if (given.as_is) {
    if (record.outcome)
      return fail(Code::refused, fmt::format("run {} has ended: {}", record.id, *record.outcome));
    ZX_TRY(keep_what_it_left(env, hand->world(), record));
    return end_as_it_is(env, config, record.id, record.plan.command);
  }
  const auto actions = backup::restore_actions(hand->world());
  auto hooks = hand->hooks(env, record.plan, *lease);
  const auto report = given.is_resumed()
                          ? run::resume(record.id, actions, config.platform.state_dir, hooks)
                          : run::abort(record.id, actions, config.platform.state_dir, hooks);
  if (!report) return fail(report.error());
  if (report->ending == run::Ending::done) say_warnings(env, *report);
  return conclude(env, *report);
}

}  // namespace zx::commands
