// Private to lib/ha: the pieces that pg_actions() is put together from.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/ha/pg_world.h"
#include "lib/pg/sync_names.h"
#include "lib/run/executor.h"

namespace zx::ha {

[[nodiscard]] std::string cluster_state_dir(const PgWorld& world);
// The node that becomes the primary in this run.
[[nodiscard]] std::string candidate_of(const run::StepContext& context);
[[nodiscard]] std::string old_primary_of(const run::StepContext& context);
// Nobody reaches the old primary, and that it accepts no commits is proved without its answer.
[[nodiscard]] bool is_given_up_unheard(const run::StepContext& context);
// Every node; an old primary that was given up unheard costs no time, and is among them without an
// answer.
[[nodiscard]] pg::Snapshot observe_all(PgWorld& world, const run::StepContext& context,
                                       Millis deadline);
// Refused when a node other than `except` accepts writes.
[[nodiscard]] Status no_primary_but(PgWorld& world, const std::string& except);
// The same of what was just seen.
[[nodiscard]] Status no_primary_in(const PgWorld& world, const pg::Snapshot& snapshot,
                                   const std::string& except);
// For an undo that would let `old` serve again, or point standbys at it: refused when another node
// has become the primary meanwhile, whoever promoted it.
[[nodiscard]] Status none_took_over_from(PgWorld& world, const std::string& old,
                                         const std::string& run);
// For a run that was taken up again: whom it promoted is the one primary that is seen. Refused when
// it is not: others may have acted since, and nobody may be pointed at it.
[[nodiscard]] Status candidate_still_serves(PgWorld& world, const run::StepContext& context);
// Who the primary is and what its commits wait for must be known when it dies before anybody looks.
// A help for then, as what look() notes: no run fails by it. `sync_names`: what it is about to
// have.
void note_primary(PgWorld& world, const std::string& node,
                  const std::optional<std::string>& sync_names = std::nullopt);
// Waits until as many standbys as `names` asks for have flushed what `primary` had when it was
// looked at. What was acknowledged before a rule is in force is only there.
[[nodiscard]] Status wait_caught_up(PgWorld& world, const pg::NodeFacts& primary,
                                    const pg::SyncNames& names, Deadline deadline);
// A first rule is noted before the first commit waits for it; one that asks for more standbys only
// when they have what was acknowledged by fewer.
[[nodiscard]] Status change_sync_names(PgWorld& world, const std::string& primary,
                                       const std::string& names, Deadline deadline);
// For the promotion of a switchover: the old primary is still as it was stopped, and no node has
// come to a newer timeline. Nothing to look at in another run.
[[nodiscard]] Status still_handed_over(PgWorld& world, run::StepContext& context,
                                       const pg::Snapshot& now);
// What the rule step has taken from synchronous_standby_names is owed from now on: past the point
// of no return, before the promotion, which it does not hold up when it cannot be noted; the sync
// step notes it again.
void note_rule(PgWorld& world, const run::StepContext& context);
// The slot with which `node` follows; empty when this cluster follows without slots.
[[nodiscard]] std::string slot_for(PgWorld& world, const std::string& node,
                                   const std::string& own_slot, const pg::Snapshot& snapshot);
// Writes the settings with which the stopped `node` follows `primary`, starts it, waits until it
// streams.
[[nodiscard]] Result<Json> start_as_standby(PgWorld& world, const std::string& node,
                                            const std::string& primary, Deadline deadline);
[[nodiscard]] Status drop_foreign_slots(PgWorld& world, const std::string& node, Deadline deadline);

void add_failover_actions(PgWorld& world, run::Actions& actions);
void add_sync_actions(PgWorld& world, run::Actions& actions);
void add_switchover_actions(PgWorld& world, run::Actions& actions);
void add_rejoin_actions(PgWorld& world, run::Actions& actions);

}  // namespace zx::ha
