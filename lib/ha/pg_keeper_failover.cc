// What PgKeeper does about a primary that is gone.
#include <algorithm>

#include <fmt/format.h>

#include "lib/ha/pg_heir.h"
#include "lib/ha/pg_keeper.h"

namespace zx::ha {

Result<run::RunReport> PgKeeper::failover(const View& view) {
  ZX_ASSIGN(const auto turn, take_turn(world_, &coordinator_,
                                       {"failover pg (agent)", is_about_a_standby, false, true}));
  ZX_TRY(nothing_new());
  FailoverOptions options;
  options.view = view;
  if (const auto heir = heir_of(record_, view.snapshot, view.verdict.primary); !heir.empty()) {
    ZX_ASSIGN(auto fenced, settle_heir(heir, *options.view, *turn));
    if (fenced) return *std::move(fenced);
  }
  ZX_TRY(believe_successor(*options.view));
  if (auto& seen = *options.view; is_left_behind(seen)) {
    const auto* missed = seen.snapshot.node(seen.verdict.primary);
    if (missed == nullptr || !missed->answered()) {
      ZX_ASSIGN(auto fenced, settle_heir(seen.verdict.primary, seen, *turn));
      if (fenced) return *std::move(fenced);
    }
    seen.verdict.primary = seen.last->primary;
    seen.verdict.state = PgState::no_primary;
    if (const auto heir = heir_of(record_, seen.snapshot, seen.verdict.primary); !heir.empty()) {
      ZX_ASSIGN(auto fenced, settle_heir(heir, seen, *turn));
      if (fenced) return *std::move(fenced);
    }
  }
  if (auto& seen = *options.view; hooks_.inquiry && seen.verdict.state == PgState::primary_silent)
    if (const auto inquiry = hooks_.inquiry(seen.verdict.primary)) {
      add(seen.snapshot, *inquiry);
      seen.verdict = judge(world_.cluster(), seen.snapshot, seen.last);
    }
  ZX_ASSIGN(auto prepared, prepare_failover(world_, options, nullptr));
  const auto& gone = prepared.view.verdict.primary;
  say("decided", prepared.choice.promote,
      fmt::format("promote {}{}: {}", prepared.choice.promote,
                  gone.empty() ? "" : ", give " + gone + " up", prepared.fence.why));
  sign(prepared.plan);
  ZX_TRY(note_begun(prepared));
  ZX_TRY(supersede(world_, "failover pg"));
  return ha::carry_out(world_, prepared.plan, *turn, hooks_for(prepared.plan));
}

// An agent that has not seen who took over as a primary sees now that it is in recovery.
Status PgKeeper::believe_successor(View& view) {
  const auto* successor = successor_of(record_, view.snapshot, view.verdict.primary);
  if (successor == nullptr || (view.last && view.last->primary == successor->name)) return {};
  const LastSeen seen{wall_now(),
                      successor->name,
                      successor->lineage,
                      successor->position(),
                      successor->sync_names,
                      {},
                      false,
                      false};
  ZX_TRY(write_last_seen(world_.config().platform.state_dir, world_.cluster().name, seen));
  view.last = read_last_seen(world_.config().platform.state_dir, world_.cluster().name);
  return {};
}

// The one that is missed was given up before, and who took over from it is in recovery.
bool PgKeeper::is_left_behind(const View& view) const {
  if (!view.last || view.last->primary == view.verdict.primary ||
      record_.owes(view.verdict.primary) == nullptr)
    return false;
  const auto* heir = view.snapshot.node(view.last->primary);
  return heir != nullptr && heir->answered() && heir->role == pg::Role::standby &&
         heir->lineage.timeline == view.last->lineage.timeline &&
         record_.owes(heir->name) == nullptr;
}

// Whom an earlier failover may have promoted is stopped on its host first, in a run of its own,
// which is returned.
Result<std::optional<run::RunReport>> PgKeeper::settle_heir(const std::string& heir, View& view,
                                                            coord::Lease& turn) {
  ZX_ASSIGN(const bool must_fence, must_fence_heir(world_, heir, view, [&] {
              say_once("heir", "unproved", heir,
                       "require_fence is off: it may be a primary unseen");
            }));
  if (!must_fence) return std::nullopt;
  auto plan = plan_fence(world_.cluster(), heir, "");
  sign(plan);
  ZX_TRY(supersede(world_, plan.command));
  ZX_ASSIGN(auto report, ha::carry_out(world_, plan, turn, hooks_for(plan)));
  return std::optional(std::move(report));
}

}  // namespace zx::ha
