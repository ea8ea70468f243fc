// Who becomes the primary, who does not and why, what would be lost, and what proves that the old
// primary cannot acknowledge a write any more. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/config/config.h"
#include "lib/ha/last_seen.h"
#include "lib/pg/facts.h"

namespace zx::ha {

// The end of the old primary's WAL, as well as it is known.
struct Reference {
  Lsn end;
  bool exact = false;  // read from its own WAL after it died
  bool known = false;  // false: only the standbys' own positions
  std::string source;  // "read from its WAL", "last seen 3 s ago", …
};
struct ChooseOptions {
  std::string to;  // only this node
  std::optional<std::uint64_t>
      allow_loss;  // bytes; above the policy's max_lag, and past an unknown loss
  // What was known before the standbys were frozen; afterwards their receivers are gone.
  std::optional<Reference> prior;
  bool assume_fenced = false;  // the operator says that the old primary is off
};

struct Candidate {
  std::string node;
  enum class Fate { promote, follow, rejoin, down, excluded } fate = Fate::excluded;
  std::vector<std::string> accepted;  // risks that the operator accepts
  std::vector<std::string> reasons;  // for promote: what speaks for it; else what speaks against it
  Lsn position;
  std::uint32_t timeline = 0;
  std::uint64_t lost = 0;  // bytes of the reference that it does not have
};
[[nodiscard]] const char* name_of(Candidate::Fate fate);

[[nodiscard]] Reference reference_of(const pg::Snapshot& snapshot, const std::string& old_primary,
                                     const std::optional<LastSeen>& last);

struct Choice {
  std::string promote;                // empty: none
  std::vector<Candidate> candidates;  // best first
  Reference reference;
  std::uint64_t lost = 0;
  std::string sync_names;  // last known of the old primary
  bool sync_known = false;
  std::optional<Error> refusal;  // why there is none
};
[[nodiscard]] Choice choose(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                            const std::string& old_primary, const std::optional<LastSeen>& last,
                            const ChooseOptions& options);

}  // namespace zx::ha
