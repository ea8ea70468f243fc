#include "commands/backup/backup.h"

#include <fmt/format.h>

#include "lib/backup/metrics.h"

namespace zx::commands {
namespace {

constexpr Millis kWaitForOthers{10 * 60'000};

}  // namespace

CLI::App* backup_group(Tree& tree) {
  return tree.group("backup", "make, list, verify and prune recovery sets");
}

Result<backup::Repository> open_repository(const config::Config& config) {
  if (config.backup.repository.empty())
    return fail(Code::config, "backup.repository is not set",
                fmt::format("name a directory in [backup] of {}; man zx.toml", config.path));
  return backup::Repository::open(config.backup.repository);
}

backup::LockWait patience(Env& env) {
  return {Deadline::after(env.shared.timeout.value_or(kWaitForOthers)),
          [&env](const std::string& holder) { env.screen.note("waiting: " + holder); }};
}

Status write_metrics(const config::Config& config) {
  if (config.backup.metrics_file.empty()) return {};
  ZX_ASSIGN(const auto repository, open_repository(config));
  return backup::write_metrics(repository, config.backup, wall_now());
}

}  // namespace zx::commands
