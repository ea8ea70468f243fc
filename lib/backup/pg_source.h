// PostgreSQL's part of a set: globals and a pg_dump of each database, all of snapshots that were
// taken together.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

struct PgJob {
  const config::Config& config;
  const config::PgCluster& cluster;
  std::string set_id;
  int jobs = 2;
  int level = 3;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  std::function<void(std::uint64_t)> progress;  // bytes of dumps that came since the last call
};

// Into incoming/ID/pg. One database that fails fails the whole; what the server or pg_dump said is
// in the error. See pg_standbys.h for where from. From a standby that cannot give it (unlogged
// tables, a conflict with recovery) it goes on to the primary, and a warning says so.
struct PgBackedUp {
  PgPart part;
  std::vector<std::string> warnings;
};
[[nodiscard]] Result<PgBackedUp> back_up_pg(const Repository& repository, const PgJob& job);

}  // namespace zx::backup
