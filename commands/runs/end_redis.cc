#include <fmt/format.h>

#include "commands/redis_hand.h"
#include "commands/runs/runs.h"
#include "lib/base/text.h"
#include "lib/ha/redis_restore.h"

namespace zx::commands {
namespace {

constexpr std::string_view kLock = "redis.";

Result<const config::RedisDeployment*> deployment_of(const config::Config& config,
                                                     const run::Record& record) {
  const auto name = record.plan.lock.substr(kLock.size());
  if (const auto* found = config.deployment(name)) return found;
  return fail(Code::config,
              fmt::format("run {} is about the Redis deployment \"{}\", which {} has not",
                          record.id, first_line(name), config.path),
              "use the zx.toml that it was begun with: -c FILE");
}

// The data stay; what it set for its own time must not.
Result<int> leave_restore(Env& env, const config::Config& config, ha::RedisWorld& world,
                          const run::Record& record) {
  // What another run has set meanwhile is not this one's to put back.
  ZX_ASSIGN(const auto mark, world.mark(record.id, record.plan.command, {}));
  const auto leavings = ha::leave_as_it_is(world, record);
  ZX_TRY(run::close_run(config.platform.state_dir, record.id, "abandoned",
                        "by the operator, as it is"));
  env.screen.line(fmt::format("Run {} is ended; the data of {} stay as they are.", record.id,
                              get_string(record.plan.context, "target")));
  for (const auto& one : leavings.put_back) env.screen.line("put back: " + one);
  auto left = Json::array();
  for (const auto& [what, mend] : leavings.left) {
    env.screen.line(fmt::format("left: {}", what), Tone::bad);
    env.screen.line("  mend it: " + mend, Tone::warn);
    left.push_back({{"what", what}, {"mend", mend}});
  }
  const auto safety = record.steps.find("safety copy");
  const auto kept =
      safety == record.steps.end() ? std::string() : get_string(safety->second.seen, "file");
  if (!kept.empty())
    env.screen.line(fmt::format("What {} had before is in {}.",
                                get_string(record.plan.context, "target"), kept));
  env.screen.line("next: " + env.typed("redis status"), Tone::dim);
  env.screen.json(Json{{"run", record.id},
                       {"command", record.plan.command},
                       {"outcome", "abandoned"},
                       {"put_back", leavings.put_back},
                       {"left", std::move(left)},
                       {"safety_copy", kept.empty() ? Json() : Json(kept)}});
  return 0;
}

}  // namespace

bool is_about_redis(const run::Record& record) { return record.plan.lock.starts_with(kLock); }

Result<int> end_redis_run(Env& env, const config::Config& config, const run::Record& record,
                          const EndOptions& given) {
  ZX_ASSIGN(const auto* deployment, deployment_of(config, record));
  ZX_ASSIGN(auto hand, hand_on(config, *deployment));
  const ha::TurnWish wish{
      fmt::format("runs {} {}", given.what, record.id), {}, given.assume_alone, false};
  if (given.dry_run) {
    show_rest(env, record, given.what);
    env.screen.json(run_json(config, record));
    ZX_TRY(ha::may_take_lock(hand.ground(), wish));
    if (given.as_is) return 0;
    const bool alone =
        given.assume_alone && hand.shared && !hand.shared->is_turn_free(hand.ground().lock);
    ZX_TRY(ha::RedisToldByHand(hand.shared.get(), *deployment, alone).may_resume(record));
    return 0;
  }
  ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), wish));
  if (given.as_is) {
    if (record.outcome)
      return fail(Code::refused, fmt::format("run {} has ended: {}", record.id, *record.outcome));
    if (ha::is_a_restore(record)) return leave_restore(env, config, *hand.world, record);
    return end_as_it_is(env, config, record.id, record.plan.command);
  }
  const auto alone = lease->alone_because();
  if (!alone.empty())
    env.screen.note("going on with the lock of this host only, on your word: " + alone);
  const ha::RedisToldByHand told(hand.shared.get(), *deployment, !alone.empty());
  ZX_TRY(told.may_resume(record));
  auto hooks = told.with(live_lines(env, record.plan), record.plan);
  ZX_ASSIGN(const auto report,
            given.is_resumed() ? ha::take_up(*hand.world, record.id, *lease, std::move(hooks))
                               : ha::take_back(*hand.world, record.id, *lease, std::move(hooks)));
  return conclude_told(env, told, report);
}

}  // namespace zx::commands
