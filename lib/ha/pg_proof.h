// What is proved before a promotion: that a standby has every acknowledged commit, and that the old
// primary acknowledges no more.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/ha/last_seen.h"
#include "lib/pg/facts.h"

namespace zx::ha {

// How long the rule for commits that somebody saw is taken to be the one of now. Who acknowledges
// by it changes at any moment, which only one who watches sees.
constexpr Millis kLooksLast{10 * 60'000};

[[nodiscard]] bool is_standby(const pg::NodeFacts* facts);  // that answers

// Does `node` have every commit that was acknowledged under `sync_names`, given which of the listed
// standbys can be asked?
struct SyncSafety {
  bool applies = false;  // commits waited for standbys
  bool safe = false;
  std::string why;
};
[[nodiscard]] SyncSafety sync_safety(const std::string& sync_names,
                                     const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                                     const std::string& old_primary, const std::string& node,
                                     const std::optional<LastSeen>& last, bool is_off = false);

struct FenceMeans {
  enum class Kind {
    host,
    in_recovery,
    quorum,
    guard,
    operator_says,
    policy,
    none
  } kind = Kind::none;
  std::string why;
  std::vector<std::string> ways_out;  // with none: what would make it possible
};
[[nodiscard]] const char* name_of(FenceMeans::Kind kind);
[[nodiscard]] FenceMeans fence_means(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                                     const std::string& old_primary, const std::string& sync_names,
                                     bool sync_known, bool assume_fenced, bool is_guarded = false);

}  // namespace zx::ha
