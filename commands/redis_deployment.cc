#include "commands/redis_deployment.h"

#include <fmt/format.h>

#include "commands/run_report.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/coord/etcd_shared.h"

namespace zx::commands {

void add_deployment_flag(Tree& tree, CLI::App* leaf, std::string& deployment) {
  tree.complete(leaf->add_option("--deployment", deployment,
                                 "which Redis deployment, when zx.toml has several"),
                Complete::redis_deployment);
}

Result<const config::RedisDeployment*> pick_deployment(const config::Config& config,
                                                       const std::string& name) {
  std::vector<std::string> names;
  for (const auto& deployment : config.redis) names.push_back(deployment.name);
  if (names.empty())
    return fail(Code::config, config.path + " has no Redis deployment",
                "describe one under [redis.NAME], see zx.toml(5)");
  if (name.empty() && names.size() > 1)
    return fail(Code::usage, "zx.toml has several Redis deployments: " + join(names, ", "),
                "say which one: --deployment NAME");
  if (name.empty()) return &config.redis.front();
  if (const auto* found = config.deployment(name)) return found;
  const auto near = nearest(name, names);
  return fail(
      Code::not_found, fmt::format("--deployment: no deployment named \"{}\"", first_line(name)),
      near.empty() ? "deployments: " + join(names, ", ") : "did you mean \"" + near + "\"?");
}

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
  if (!only_look) return ha::take_turn(hand.ground(), wish);
  ZX_TRY(ha::may_take_turn(hand.ground(), wish));
  return std::unique_ptr<coord::Lease>();
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
    log::info(fmt::format("{} sees {}: {}", one.observer, one.node, one.text));
}

Result<int> carry_out(Env& env, RedisHand& hand, const run::Plan& plan, coord::Lease& lease,
                      std::optional<Millis> looked) {
  if (const auto alone = lease.alone_because(); !alone.empty())
    env.screen.note("going on with the lock of this host only, on your word: " + alone);
  ZX_ASSIGN(const auto report, ha::carry_out(*hand.world, plan, lease, live_lines(env, plan)));
  return conclude(env, report, looked);
}

}  // namespace zx::commands
