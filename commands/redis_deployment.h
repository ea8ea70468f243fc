// Which Redis deployment a command is about, and one look at it.
#pragma once

#include <string>
#include <vector>

#include "commands/redis_view.h"

namespace zx::commands {

// `--deployment`, needed only when zx.toml has several.
void add_deployment_flag(Tree& tree, CLI::App* leaf, std::string& deployment);
[[nodiscard]] Result<const config::RedisDeployment*> pick_deployment(const config::Config& config,
                                                                     const std::string& name);

// Asks every server and Sentinel at once, each under `deadline`.
[[nodiscard]] Result<RedisView> look_at(const config::Config& config,
                                        const config::RedisDeployment& deployment, Millis deadline);

// At every deployment, one after the other; without `timeout` each under its own probe deadline.
[[nodiscard]] Result<std::vector<RedisView>> look_at_all(const config::Config& config,
                                                         std::optional<Millis> timeout);

// "Redis cache   master redis-a, …", then what is wrong.
void show_head(Screen& screen, const RedisView& view);
void show_problems(Screen& screen, const RedisView& view);

}  // namespace zx::commands
