#include "commands/redis_hand.h"

#include <fmt/format.h>

#include "commands/run_report.h"
#include "lib/base/log.h"
#include "lib/coord/etcd_shared.h"
#include "lib/ha/redis_mark.h"

namespace zx::commands {

Result<RedisHand> hand_on(const config::Config& config, const config::RedisDeployment& deployment) {
  // One that cannot be read would make every node look unreachable.
  ZX_TRY(config::password_of(config, deployment));
  if (!deployment.sentinel.master_name.empty())
    ZX_TRY(config::sentinel_password_of(config, deployment));
  RedisHand hand;
  ZX_ASSIGN(hand.shared, coord::shared_of(config));
  hand.world = ha::real_redis_world(config, deployment, hand.shared.get());
  return hand;
}

Result<std::unique_ptr<coord::Lease>> begin_turn(const RedisHand& hand, const ha::TurnWish& wish,
                                                 bool only_look) {
  std::unique_ptr<coord::Lease> lease;
  if (only_look) {
    ZX_TRY(ha::may_take_turn(hand.ground(), wish));
  } else {
    ZX_ASSIGN(lease, ha::take_turn(hand.ground(), wish));
  }
  ZX_TRY(ha::nobody_at_work(*hand.world, wish.command));
  return lease;
}

Json verdict_json(const ha::RedisVerdict& verdict) {
  auto evidence = Json::array();
  for (const auto& one : verdict.evidence)
    evidence.push_back({{"observer", one.observer}, {"node", one.node}, {"text", one.text}});
  return Json{{"state", name_of(verdict.state)},
              {"master", verdict.master.empty() ? Json() : Json(verdict.master)},
              {"summary", verdict.summary},
              {"problems", verdict.problems},
              {"evidence", std::move(evidence)}};
}

void log_evidence(const ha::RedisVerdict& verdict) {
  if (verdict.summary.empty()) return;
  log::info("verdict: " + verdict.summary);
  for (const auto& one : verdict.evidence)
    log::info(one.node.empty() ? fmt::format("{} {}", one.observer, one.text)
                               : fmt::format("{} sees {}: {}", one.observer, one.node, one.text));
}

Result<int> carry_out(Env& env, RedisHand& hand, run::Plan plan, coord::Lease& lease,
                      std::optional<Millis> looked) {
  const auto alone = lease.alone_because();
  if (!alone.empty())
    env.screen.note("going on with the lock of this host only, on your word: " + alone);
  const ha::RedisToldByHand told(hand.shared.get(), hand.world->deployment(), !alone.empty());
  ZX_TRY(told.begin(plan));
  ZX_ASSIGN(const auto report,
            ha::carry_out(*hand.world, plan, lease, told.with(live_lines(env, plan), plan)));
  return conclude_told(env, told, report, looked);
}

Result<int> conclude_told(Env& env, const ha::RedisToldByHand& told, const run::RunReport& report,
                          std::optional<Millis> looked) {
  if (const auto known = told.end(report); !known)
    env.screen.note("the agents could not be told of this run: " + known.error().message);
  return conclude(env, report, looked);
}

}  // namespace zx::commands
