// How the backups stand, for the agent's metrics. A repository may lie on another host, so it is
// read by a thread of its own.
#pragma once

#include <memory>
#include <string>

#include "lib/config/config.h"

namespace zx::agent {

class BackupWatch {
 public:
  // Reads it now and once a minute. Nothing is read where no repository is named.
  explicit BackupWatch(config::Backup backup);
  // Waits for nobody: a file system that hangs holds up its reader alone.
  ~BackupWatch();
  BackupWatch(const BackupWatch&) = delete;
  BackupWatch& operator=(const BackupWatch&) = delete;

  // In Prometheus's text format, as of the last look; empty without a repository. One that cannot
  // be read has zx_backup_readable 0 and nothing else.
  [[nodiscard]] std::string metrics() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace zx::agent
