#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/restore/restore.h"
#include "lib/base/text.h"

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

}  // namespace

Result<std::unique_ptr<RestoreHand>> RestoreHand::make(Env& env, const config::Config& config) {
  std::unique_ptr<RestoreHand> hand(new RestoreHand(config));
  ZX_ASSIGN(hand->repository_, open_repository(config));
  ZX_ASSIGN(hand->reading_, hand->repository_->lock_to_read());
  ZX_ASSIGN(hand->shared_, coord::shared_of(config));
  hand->world_.reset(new backup::RestoreWorld{
      config, *hand->repository_, redis_means(env, config), config.backup.jobs, {}});
  return hand;
}

std::string restore_summary(const run::RunReport& report) {
  const auto& plan = report.plan;
  const Wall point{Millis(get_int(plan.context, "point_ms"))};
  const auto lost = std::chrono::duration_cast<Millis>(wall_now() - report.took - point);
  return fmt::format(
      "Restored set {} in {}{}; what was written since {}, {} before, is lost{}. "
      "Run {}.",
      get_string(plan.context, "set"), format_duration(report.took),
      against(report.took, target_of(plan, "rto_target_ms")), format_local(point, wall_now()),
      format_duration(lost), against(lost, target_of(plan, "rpo_target_ms")), report.id);
}

bool is_about_a_restore(const run::Record& record) {
  return record.plan.lock == backup::kRestoreLock;
}

Result<int> end_restore_run(Env& env, const config::Config& config, const run::Record& record,
                            const EndOptions& given) {
  ZX_ASSIGN(const auto hand, RestoreHand::make(env, config));
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
    return end_as_it_is(env, config, record.id, record.plan.command);
  }
  const auto actions = backup::restore_actions(hand->world());
  auto hooks = hand->hooks(env, record.plan, *lease);
  const auto report = given.is_resumed()
                          ? run::resume(record.id, actions, config.platform.state_dir, hooks)
                          : run::abort(record.id, actions, config.platform.state_dir, hooks);
  if (!report) return fail(report.error());
  return conclude(env, *report);
}

}  // namespace zx::commands
