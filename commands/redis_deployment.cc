#include "commands/redis_deployment.h"

#include <fmt/format.h>

#include "commands/redis_hand.h"
#include "lib/base/text.h"
#include "lib/coord/lock.h"
#include "lib/ha/redis_chain.h"
#include "lib/ha/redis_run.h"
#include "lib/redis/observe.h"

namespace zx::commands {

void add_deployment_flag(Tree& tree, CLI::App* leaf, std::string& deployment) {
  auto* option = leaf->add_option("--deployment", deployment,
                                  "which Redis deployment, when zx.toml has several");
  tree.complete(option, Complete::redis_deployment);
  option->check([](const std::string& name) {
    return name.empty() ? std::string("takes the name of a deployment") : std::string();
  });
}

Result<const config::RedisDeployment*> pick_deployment(const config::Config& config,
                                                       const std::string& name) {
  std::vector<std::string> names;
  for (const auto& deployment : config.redis) names.push_back(deployment.name);
  if (names.empty())
    return fail(Code::config, config.path + " has no Redis deployment",
                "describe one under [redis.NAME]; man zx.toml has an example");
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

Result<RedisView> look_at(const config::Config& config, const config::RedisDeployment& deployment,
                          Millis deadline) {
  // Passwords that cannot be read would make every node look unreachable.
  ZX_TRY(redis::audience_of(config, deployment));
  const auto world = ha::real_redis_world(config, deployment);
  // Notes who the master was: a failover will ask.
  auto seen = ha::look(*world, deadline, false);
  log_evidence(seen.verdict);
  auto view = redis_view(deployment, std::move(seen));
  const auto ground = ha::ground_of(*world, nullptr);
  const auto open = run::unfinished_run(ground.state_dir, ground.lock);
  if (!open) {
    add_unclear_runs(view, open.error());
  } else if (*open) {
    const auto free = coord::is_free(ground.state_dir, ground.lock);
    add_open_run(view, **open, !free && free.error().code == Code::locked);
  }
  return view;
}

Result<std::vector<RedisView>> look_at_all(const config::Config& config,
                                           std::optional<Millis> timeout) {
  std::vector<RedisView> views;
  for (const auto& deployment : config.redis) {
    ZX_ASSIGN(views.emplace_back(),
              look_at(config, deployment, timeout.value_or(deployment.policy.probe_deadline)));
  }
  return views;
}

void show_head(Screen& screen, const RedisView& view) {
  screen.line(fmt::format("Redis {}   {}", view.deployment->name, view.summary));
}

void show_problems(Screen& screen, const RedisView& view) {
  for (const auto& problem : view.verdict.problems) screen.line("  " + problem, Tone::warn);
  for (const auto& hint : view.verdict.hints) screen.line("  hint: " + hint, Tone::warn);
}

}  // namespace zx::commands
