// observe → judge → plan → execute for PostgreSQL, for commands and the agent alike.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/coord/lock.h"
#include "lib/ha/pg_choose.h"
#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_plan.h"
#include "lib/ha/pg_proof.h"
#include "lib/ha/pg_world.h"
#include "lib/ha/turn.h"
#include "lib/run/executor.h"

namespace zx::ha {

// One look at a cluster.
struct View {
  pg::Snapshot snapshot;
  PgVerdict verdict;
  std::optional<LastSeen> last;
};
// Asks every node. With `hosts`, one that does not answer is also looked at on its host (bounded by
// the deadline). Writes what was last seen when there is a primary.
[[nodiscard]] View look(PgWorld& world, Millis deadline, bool hosts);
// The same from facts that somebody has already; no host is looked at.
[[nodiscard]] View see(PgWorld& world, pg::Snapshot snapshot);

// What would happen if the primary died now. `promote` is empty when nothing could be promoted.
struct Forecast {
  std::string promote;
  std::uint64_t lost = 0;
  Millis expected{0};
  std::string why_not;
};
[[nodiscard]] std::optional<Forecast> forecast(const config::Config& config,
                                               const config::PgCluster& cluster, const View& view);

// Bytes a standby is behind the primary, or behind where the one that is gone ended; absent when
// that is not known for certain.
[[nodiscard]] std::optional<std::uint64_t> lag_of(const View& view, const pg::NodeFacts& facts);

struct Prepared {
  View view;
  Choice choice;     // of a failover
  FenceMeans fence;  // of a failover
  run::Plan plan;
  bool nothing_to_do = false;
  std::string said;  // why there is nothing to do
  // A rejoin of the one of two primaries that was promoted later, or of a node that has followed
  // such a one: rarely what is meant.
  bool gives_up_newer = false;
  std::string newer;  // of one that does not accept writes: what it has
  Millis looked{0};   // how long it took to be sure
};

struct FailoverOptions {
  std::string to;
  std::optional<std::uint64_t> allow_loss;
  bool assume_fenced = false;
  std::function<void(const std::string&)> progress;
  std::optional<Deadline> give_up;  // looking no longer than this
  // What was seen a moment ago, instead of a first look.
  std::optional<View> view;
};
// Looks until the verdict is certain, with no effect on any server. Code::refused with the reason
// and the way out when a failover is not called for or not safe; then `why`, when given, is filled.
[[nodiscard]] Result<Prepared> prepare_failover(PgWorld& world, const FailoverOptions& options,
                                                Prepared* why);
[[nodiscard]] Result<Prepared> prepare_switchover(PgWorld& world, const std::string& to);
[[nodiscard]] Result<Prepared> prepare_rejoin(PgWorld& world, const std::string& node,
                                              bool rebuild);

// A standby that answers and follows nobody gets the primary as its upstream. Nothing is stopped.
[[nodiscard]] Result<Prepared> prepare_repoint(PgWorld& world, const std::string& node);
// synchronous_standby_names of the primary as it was before a failover reduced it.
[[nodiscard]] Result<Prepared> prepare_sync(PgWorld& world);
// One of two primaries is stopped and can only start as a standby; nothing more is done to it.
[[nodiscard]] Result<Prepared> prepare_fence(PgWorld& world, const std::string& node);

// On the cluster, see turn.h.
[[nodiscard]] Ground ground_of(const PgWorld& world, coord::Shared* shared);
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> take_turn(PgWorld& world, coord::Shared* shared,
                                                              const TurnWish& wish);
// A run about one standby, such as a rejoin, must not stand in the way of a failover or of another
// such run: the node is left as it is, and status says what it needs.
[[nodiscard]] bool is_about_a_standby(const run::Record& record);
[[nodiscard]] Status supersede(PgWorld& world, const std::string& command);
[[nodiscard]] Status may_take_turn(PgWorld& world, coord::Shared* shared, const TurnWish& wish);
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> take_lock(PgWorld& world, coord::Shared* shared,
                                                              const TurnWish& wish);
[[nodiscard]] Status may_take_lock(PgWorld& world, coord::Shared* shared, const TurnWish& wish);

// Signals undo a run before its point of no return, as an error of `hooks.interruption` does.
[[nodiscard]] Result<run::RunReport> carry_out(PgWorld& world, const run::Plan& plan,
                                               coord::Lease& lease, run::Hooks hooks);
[[nodiscard]] Result<run::RunReport> take_up(PgWorld& world, const std::string& run,
                                             coord::Lease& lease, run::Hooks hooks);
[[nodiscard]] Result<run::RunReport> take_back(PgWorld& world, const std::string& run,
                                               coord::Lease& lease, run::Hooks hooks);

}  // namespace zx::ha
