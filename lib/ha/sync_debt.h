// synchronous_standby_names that a failover has reduced, and what is to come back. Kept in the
// record that all hosts share, and in state_dir for when that cannot be asked.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/coord/coordinator.h"
#include "lib/ha/pg_world.h"
#include "lib/ha/watch_record.h"
#include "lib/pg/facts.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {

// What this host has noted.
struct LocalSyncDebt {
  SyncDebt debt;
  bool is_shared = false;  // the record has it, or had it until it was settled
};
[[nodiscard]] std::optional<LocalSyncDebt> local_sync_debt(const std::string& state_dir,
                                                           const std::string& cluster);
[[nodiscard]] Status write_local_sync_debt(const std::string& state_dir, const std::string& cluster,
                                           const LocalSyncDebt& local);
[[nodiscard]] Status clear_local_sync_debt(const std::string& state_dir,
                                           const std::string& cluster);

// `sync_names` is still what the debt has reduced it to: nobody has set it since.
[[nodiscard]] bool is_still_reduced(const SyncDebt& debt, const std::string& sync_names);
// The newest of what is known, while the primary has `sync_names`. `record` is null when it could
// not be asked: what was shared may then be owed still.
[[nodiscard]] std::optional<SyncDebt> newest_sync_debt(const std::optional<LocalSyncDebt>& local,
                                                       const WatchRecord* record,
                                                       const std::string& sync_names);
// Standbys that `names` lists and that receive from `primary`, no more than `max_behind` behind.
[[nodiscard]] std::vector<std::string> able_standbys(
    const pg::Snapshot& snapshot, const pg::NodeFacts& primary, const pg::SyncNames& names,
    std::optional<std::uint64_t> max_behind = std::nullopt);

// Of the world's cluster, asked now.
struct KnownSyncDebt {
  std::optional<SyncDebt> debt;
  std::optional<Error> not_asked;  // why only this host's word is known
};
[[nodiscard]] KnownSyncDebt sync_debt(PgWorld& world, const std::string& sync_names);
// Both must be called by whoever has the turn. `known`: as it was asked in the same step; where all
// hosts could not be asked they are not told either. An Error: this host has noted it, the others
// do not know.
struct Noted {
  Status here, everywhere;
};
[[nodiscard]] Noted write_sync_debt(PgWorld& world, const KnownSyncDebt& known,
                                    const SyncDebt& debt);
[[nodiscard]] Noted clear_sync_debt(PgWorld& world, const KnownSyncDebt& known);
// What only this host has noted, of `run`, is told to all.
[[nodiscard]] Status share_sync_debt(const std::string& state_dir, coord::Shared& shared,
                                     const std::string& cluster, const std::string& run);

}  // namespace zx::ha
