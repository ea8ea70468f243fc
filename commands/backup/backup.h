// What the commands of zx backup and zx restore share.
#pragma once

#include <optional>
#include <string>

#include "commands/command.h"
#include "lib/backup/repository.h"

namespace zx::commands {

[[nodiscard]] CLI::App* backup_group(Tree& tree);

// The repository of zx.toml. Code::config when none is named.
[[nodiscard]] Result<backup::Repository> open_repository(const config::Config& config);

// For what another holds a command waits 10 minutes or --timeout, from now on, and says for whom.
[[nodiscard]] backup::LockWait patience(Env& env);

// backup.metrics_file anew, where there is one and a repository.
[[nodiscard]] Status write_metrics(const config::Config& config);

// How the backups stand, for zx status: a line, what to do about it, and JSON; nothing where
// zx.toml names no repository.
struct BackupStanding {
  Cell line;
  std::string next;            // empty: nothing
  bool is_unfinished = false;  // a restore
  Json json;
};
[[nodiscard]] std::optional<BackupStanding> standing_of_backups(const Env& env,
                                                                const config::Config& config,
                                                                Wall now);

}  // namespace zx::commands
