// Which replica becomes the master, which do not and why, and what would be lost. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/config/config.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_last_seen.h"
#include "lib/redis/facts.h"

namespace zx::ha {

// Where the old master's stream ended, as well as it is known.
struct RedisReference {
  std::int64_t end = 0;
  bool exact = false;  // it said so itself, and took no writes any more
  bool known = false;  // false: only the replicas' own offsets
  std::string source;  // "as it was 3 s ago", …
};
struct RedisChooseOptions {
  std::string to;                           // only this node
  std::optional<std::uint64_t> allow_loss;  // bytes; above max_lag, and past an unknown loss
  bool assume_fenced = false;               // the operator says that the old master is off
  std::optional<RedisReference> prior;      // what was known before the fence
};

struct RedisCandidate {
  std::string node;
  // resync: it can only follow after a full resync.
  enum class Fate { promote, follow, resync, down, excluded } fate = Fate::excluded;
  std::vector<std::string> accepted;  // risks that the operator accepts
  std::vector<std::string> reasons;  // for promote: what speaks for it; else what speaks against it
  redis::Lineage lineage;
  std::int64_t position = 0;  // of the master's stream that it has
  std::int64_t keys = 0;
  std::uint64_t lost = 0;  // bytes of the reference that it does not have
};
[[nodiscard]] const char* name_of(RedisCandidate::Fate fate);

struct RedisChoice {
  std::string promote;                     // empty: none
  std::vector<RedisCandidate> candidates;  // best first
  RedisReference reference;
  std::uint64_t lost = 0;
  // The one to promote does not go on with the master's stream: all of that is lost with it.
  bool is_of_another_line = false;
  std::optional<Error> refusal;  // why there is none
};
[[nodiscard]] RedisReference reference_of(const redis::Snapshot& snapshot,
                                          const std::string& old_master,
                                          const std::optional<RedisLastSeen>& last);
// `old_master` may be empty: every node is a replica. One that answers as a master is never chosen.
[[nodiscard]] RedisChoice choose(const config::RedisDeployment& deployment,
                                 const redis::Snapshot& snapshot, const std::string& old_master,
                                 const std::optional<RedisLastSeen>& last,
                                 const RedisChooseOptions& options);

// Would a replica go on with a part of the stream only, or be sent the whole data set.
struct Resync {
  bool is_partial = false;
  std::string why;          // of a full one
  std::uint64_t bytes = 0;  // of the stream when partial, else the master's memory at most
};
[[nodiscard]] Resync resync_of(const redis::NodeFacts& replica, const redis::NodeFacts& master);

}  // namespace zx::ha
