// From verdict and choice to ordered steps. Pure; what the steps do is in pg_actions.cc.
#pragma once

#include <string>

#include "lib/ha/pg_choose.h"
#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_proof.h"
#include "lib/run/plan.h"

namespace zx::ha {

// The lock under which everything that changes a cluster's roles runs.
[[nodiscard]] std::string lock_of(const config::PgCluster& cluster);

[[nodiscard]] run::Plan plan_failover(const config::PgCluster& cluster,
                                      const pg::Snapshot& snapshot, const PgVerdict& verdict,
                                      const Choice& choice, const FenceMeans& fence,
                                      const ChooseOptions& options);

[[nodiscard]] run::Plan plan_switchover(const config::PgCluster& cluster,
                                        const pg::Snapshot& snapshot, const std::string& primary,
                                        const std::string& to);

struct RejoinFacts {
  std::string node, primary;
  bool rebuild = false;
  bool is_primary = false;  // it accepts writes now: a second primary
  bool owes_sync = false;   // a failover has reduced synchronous_standby_names
};
[[nodiscard]] run::Plan plan_rejoin(const config::PgCluster& cluster, const RejoinFacts& facts);

// Only what a failover owes; `node`, which streams already, was asked to be brought back, or empty.
[[nodiscard]] run::Plan plan_sync(const config::PgCluster& cluster, const std::string& node,
                                  const std::string& primary);

// For a standby that answers and follows nobody.
[[nodiscard]] run::Plan plan_repoint(const config::PgCluster& cluster, const std::string& node,
                                     const std::string& primary, bool owes_sync);
// For the one of two primaries that was given up; or, with an empty `primary`, for one that may be
// a primary that does not answer.
[[nodiscard]] run::Plan plan_fence(const config::PgCluster& cluster, const std::string& node,
                                   const std::string& primary);

// How long a failover of this plan takes, from the deadlines' usual parts; for people.
[[nodiscard]] Millis expected_duration(const pg::Snapshot& snapshot);

}  // namespace zx::ha
