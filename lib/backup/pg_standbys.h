// Which server a dump comes from: a standby that has what the primary had when it was asked, so
// that the dump is of now and not of an hour ago.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/lsn.h"
#include "lib/config/config.h"
#include "lib/pg/facts.h"

namespace zx::backup {

struct PgSource {
  std::string node;
  bool is_standby = false;
  std::string why;
  std::optional<Wall> at;  // what a standby has is of then or later
  // Of a standby that does not have it and is taken all the same: how far it is behind whom.
  std::string behind;
};

struct PgChosen {
  PgSource source;
  std::vector<std::string> warnings;
};

// Waits a moment until a standby has replayed as much; what it has replayed then, enough or not.
using WaitForReplay = std::function<Result<Lsn>(const std::string& node, Lsn goal)>;

// Of the standbys that stream, the one with the least to do otherwise that comes to what the
// primary had written; one that is more than policy.max_lag behind is not waited for where there is
// a primary. Else the primary; else, when that does not answer, the standby that has most. Warnings
// say why it is not the first choice. Pure but for `wait`.
[[nodiscard]] Result<PgChosen> choose_pg_source(const config::PgCluster& cluster,
                                                const pg::Snapshot& snapshot,
                                                const WaitForReplay& wait);

// The one that says so; nullptr: none, or several.
[[nodiscard]] const pg::NodeFacts* primary_of(const pg::Snapshot& snapshot);
// Which primary is right is not clear, in words; empty where it is.
[[nodiscard]] std::string pg_doubt_of(const pg::Snapshot& snapshot, const std::string& node);

// Asks the server until it has replayed `goal`, or a few seconds are over.
[[nodiscard]] Result<Lsn> wait_for_replay(const pg::Target& standby, Lsn goal, Deadline until);

}  // namespace zx::backup
