#include <fmt/format.h>

#include "commands/command.h"

namespace zx::commands {
namespace {

std::string counted(std::size_t count, std::string_view thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

// Passwords are otherwise read only when a server is asked: too late to learn of a wrong mode.
Status check_passwords(const config::Config& config) {
  Error all;
  const auto look = [&](const Result<std::string>& password) {
    if (password) return;
    auto error = password.error();
    auto line = error.message;
    for (const auto& step : error.trail) line += " (" + step + ")";
    if (all.message.empty()) {
      all = std::move(error);
      all.message = std::move(line);
      all.trail.clear();
    } else {
      all.trail.push_back(std::move(line));
    }
  };
  for (const auto& cluster : config.pg) {
    look(config::password_of(config, cluster));
    look(config::replication_password_of(config, cluster));
  }
  for (const auto& deployment : config.redis) {
    look(config::password_of(config, deployment));
    look(config::sentinel_password_of(config, deployment));
  }
  if (all.message.empty()) return {};
  return fail(std::move(all));
}

Result<int> run(Env& env) {
  ZX_ASSIGN(const auto path, config::find_file(env.shared.config));
  ZX_ASSIGN(const auto config, config::load(path));
  ZX_TRY(check_passwords(config));
  std::size_t nodes = 0;
  for (const auto& cluster : config.pg) nodes += cluster.nodes.size();
  for (const auto& deployment : config.redis) nodes += deployment.nodes.size();
  env.screen.line(fmt::format(
      "{} is right: {}, {}, {}, {}, {}", path, counted(config.pg.size(), "PostgreSQL cluster"),
      counted(config.redis.size(), "Redis deployment"), counted(nodes, "node"),
      counted(config.hosts.size(), "host"), counted(config.regions.size(), "region")));
  env.screen.json(Json{{"config", path},
                       {"ok", true},
                       {"clusters", config.pg.size()},
                       {"deployments", config.redis.size()},
                       {"nodes", nodes},
                       {"hosts", config.hosts.size()},
                       {"regions", config.regions.size()}});
  return 0;
}

}  // namespace

void add_config_check(Tree& tree) {
  tree.leaf(
      tree.group("config", "read, check and write zx.toml"), "check",
      "say whether zx.toml is right",
      {.description =
           "Reads zx.toml and the ZX__ variables of the environment and names every defect: "
           "unknown keys, wrong types, values out of range, names that refer to nothing. Also "
           "tries to read the passwords. Asks no server and changes nothing.",
       .examples = {{"zx config check", "check the file that zx would use"},
                    {"zx config check -c new.toml", "check a file before it is installed"},
                    {"zx config check -o json", "the same for a script"}},
       .exits = {Code::config, Code::auth}},
      run);
}

}  // namespace zx::commands
