// Must the server on this host stop? Pure: the judgement of a guard, which holds a lease as long as
// it reaches the coordinator.
#pragma once

#include <string>

#include "lib/config/config.h"
#include "lib/pg/facts.h"

namespace zx::ha {

struct GuardSight {
  const config::PgCluster& cluster;
  const pg::NodeFacts& facts;  // of the server on this host, as it answers now
  Millis lease_left{0};        // by our own clock; 0: none
  Millis stop_margin{0};       // what stopping the server may take
  Millis reply_within{0};      // a standby receives whose last reply is less than this old
  bool is_barred = false;      // the failing-over side has taken its right to be a primary
};
struct GuardVerdict {
  bool must_stop = false;
  std::string why;  // a sentence, for both answers
};
// A standby never has to stop. A primary may go on while the lease lasts, and without it only as
// long as everything that a failover would need still receives from it: enough synchronous standbys
// that none without their commits can be chosen, or else every node that may be promoted. Any
// failover takes them away first, and then waits longer than this takes to be seen: reply_within
// and what a look and stopping the server take.
[[nodiscard]] GuardVerdict guard(const GuardSight& sight);

}  // namespace zx::ha
