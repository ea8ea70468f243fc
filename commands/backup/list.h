// The state of the backups as a plugin of Nagios tells it.
#pragma once

#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::commands {

struct NagiosAnswer {
  int exit = 3;      // 0 OK, 1 WARNING, 2 CRITICAL
  std::string line;  // without its newline
};

// The staleness of every part that zx.toml has: how old the newest good set with it is, against
// backup.target.rpo. A warning beyond it and when the newest set is corrupt; critical beyond twice
// that, and when there is no good set. Pure.
[[nodiscard]] NagiosAnswer nagios_line(const std::vector<backup::Entry>& entries,
                                       const config::Config& config, Wall now);

}  // namespace zx::commands
