// What was true of a cluster when its primary last answered. When the primary is dead this tells
// who it was, how far it was, and who had to acknowledge its commits.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/pg/facts.h"

namespace zx::ha {

struct LastSeen {
  Wall at{};
  std::string primary;
  pg::Lineage lineage;
  Lsn flushed;
  std::string sync_names;
  std::vector<std::string> sync_standbys;  // sync_state was sync or quorum
  // Commits waited for standbys on an earlier timeline, whatever they do now. Kept by writing.
  bool was_sync = false;
  // Written by an agent, which would have seen another rule or other standbys soon. Kept when
  // somebody else sees the same shortly after.
  bool is_watched = false;
};

[[nodiscard]] std::optional<LastSeen> read_last_seen(const std::string& state_dir,
                                                     const std::string& cluster);
// Another primary, timeline or rule for commits than `before`: more than a later moment.
[[nodiscard]] bool says_more(const LastSeen& now, const LastSeen& before);
// Of a snapshot with exactly one primary.
[[nodiscard]] std::optional<LastSeen> last_seen_of(const pg::Snapshot& snapshot);
// `was_sync` of what was written before goes on. Losing it costs knowledge, not safety: it is not
// synced to disk.
[[nodiscard]] Status write_last_seen(const std::string& state_dir, const std::string& cluster,
                                     const LastSeen& seen);

// A node that was declared fenced without zx having stopped it on its host (quorum, the operator's
// word): whoever sees it again must fence it before it serves.
struct FenceDebt {
  std::string node, run, proof;
  Wall at{};
};
[[nodiscard]] std::vector<FenceDebt> fence_debts(const std::string& state_dir,
                                                 const std::string& cluster);
[[nodiscard]] Status write_fence_debt(const std::string& state_dir, const std::string& cluster,
                                      const FenceDebt& debt);
[[nodiscard]] Status clear_fence_debt(const std::string& state_dir, const std::string& cluster,
                                      const std::string& node);

}  // namespace zx::ha
