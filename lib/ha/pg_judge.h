// From what was seen to what is the case. Pure: no I/O, no clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/ha/evidence.h"
#include "lib/ha/last_seen.h"
#include "lib/pg/facts.h"

namespace zx::ha {

enum class PgState {
  healthy,              // one primary, every other node streams from it
  degraded,             // one primary, but something is missing
  primary_overloaded,   // it has no free connection: alive
  primary_unreachable,  // not from here; others reach it: alive
  primary_starting,     // starting or recovering
  primary_shutting_down,
  primary_silent,  // nobody gets an answer, nobody receives from it: dead or frozen
  primary_dead,    // nothing listens there and nobody receives from it
  two_primaries,
  no_primary,  // every node that could be it is in recovery
  unknown,     // not enough is known; never a reason to act
};
[[nodiscard]] const char* name_of(PgState state);
// May a failover follow from it, when everything else agrees?
[[nodiscard]] bool calls_for_failover(PgState state);
// Does a primary accept writes, as far as is known?
[[nodiscard]] bool has_live_primary(PgState state);

struct PgVerdict {
  PgState state = PgState::unknown;
  std::string primary;  // the one that serves, or the one that was; empty: not known
  std::vector<std::string> primaries;
  std::string summary;  // one sentence without a full stop
  std::string hint;
  std::vector<Evidence> evidence;
  std::vector<std::string> problems;  // of a degraded cluster
};

[[nodiscard]] PgVerdict judge(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                              const std::optional<LastSeen>& last);

// Another server answers where a node of this cluster was: its system identifier is not the one
// last seen, which some other node still has.
[[nodiscard]] bool is_foreign(const pg::Snapshot& snapshot, const pg::NodeFacts& facts,
                              const std::optional<LastSeen>& last);

// The node whose address and port these are; empty when it is none of the cluster's.
[[nodiscard]] std::string node_at(const pg::Snapshot& snapshot, const std::string& host, int port);
// Whom a standby receives from, or is configured to.
[[nodiscard]] std::string upstream_node(const pg::Snapshot& snapshot, const pg::NodeFacts& standby);

}  // namespace zx::ha
