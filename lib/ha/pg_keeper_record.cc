// What PgKeeper tells the other agents, and what it takes back when that is settled.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lib/ha/pg_keeper.h"

namespace zx::ha {
namespace {

constexpr int kTriesOfRecord = 5;

}  // namespace

void PgKeeper::read_record() {
  const auto value = coordinator_.get(watch_key(world_.cluster().name));
  if (!value) {
    say_once("record", "cut_off", {}, value.error().message);
    return;
  }
  auto record = watch_record_from(value->text);
  if (!record) {
    say_once("record", "failed", {}, record.error().message);
    return;
  }
  said_.erase("record");
  earlier_ = std::exchange(record_, *std::move(record));
  knows_record_ = true;
}

Status PgKeeper::change_record(coord::Coordinator& coordinator, const std::string& cluster,
                               const std::function<void(WatchRecord&)>& change) {
  for (int i = 0;; ++i) {
    ZX_ASSIGN(const auto value, coordinator.get(watch_key(cluster)));
    ZX_ASSIGN(auto record, watch_record_from(value.text));
    const auto before = record;
    change(record);
    if (record == before) return {};
    const auto put = coordinator.put(watch_key(cluster), dump_line(to_json(record)), value.version);
    if (put || put.error().code != Code::locked || i + 1 == kTriesOfRecord) return put;
  }
}

// Nodes that stream again are owed nothing, nor is one that is the primary for certain. A failover
// whose agent did not live to tell how it ended is told by who serves.
PgKeeper::Settled PgKeeper::settled_by(const View& view) const {
  Settled settled;
  if (view.verdict.primaries.size() != 1) return settled;
  const auto& primary = view.verdict.primaries.front();
  const bool is_sure = doubt_of(record_, view.snapshot, primary).empty();
  for (const auto& one : record_.owed) {
    if (const auto* before = earlier_.owes(one.node); before == nullptr || *before != one) continue;
    const auto* facts = view.snapshot.node(one.node);
    const bool streams = facts == nullptr || (facts->answered() && facts->receives() &&
                                              facts->role == pg::Role::standby);
    if (streams || (primary == one.node && is_sure)) settled.owed.push_back(one);
  }
  settled.has_ended = record_.begun && record_.begun == earlier_.begun && is_sure;
  return settled;
}

// A view that is older than the record says nothing about it, as that of an agent which was stopped
// while another one failed over. For the same reason only what was looked at is taken out of it.
void PgKeeper::settle_owed(const Tick& tick, const Told& told) {
  if (role_ != coord::Standing::Role::leader) return;
  auto view = tick.view;
  auto settled = settled_by(view);
  if (settled.is_empty()) return;
  if (tick.was_calm) {
    view = fresh_view(told);
    settled = settled_by(view);
    if (settled.is_empty()) return;
  }
  const auto lead = coordinator_.lead();
  if (const auto leads = lead ? (*lead)->check() : fail(lead.error()); !leads)
    return say_once("settle", "failed", {}, "noting who is back: " + leads.error().message);
  for (const auto& one : settled.owed)
    if (one.proof == "guard")
      if (const auto unbarred = coordinator_.unbar(one.node); !unbarred)
        return say_once("settle", "failed", one.node, unbarred.error().message);
  const auto begun = record_.begun;
  const auto changed = change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    std::erase_if(record.owed, [&](const auto& one) {
      return std::find(settled.owed.begin(), settled.owed.end(), one) != settled.owed.end();
    });
    if (!settled.has_ended || record.begun != begun) return;
    record.begun.reset();
    const auto& primary = view.verdict.primaries.front();
    if (begun->from == primary) return;
    record.forgive(primary);
    const auto* from = view.snapshot.node(begun->from);
    const bool follows = from != nullptr && from->answered() && from->receives();
    if (!follows) record.owe({begun->from, "of " + begun->agent, begun->proof, begun->at});
  });
  if (!changed) say_once("settle", "failed", {}, changed.error().message);
}

// Before it is begun, so that whoever leads after this agent knows whom it gave up for whom.
Status PgKeeper::note_begun(const Prepared& prepared) {
  const auto now = wall_now();
  const auto& from = prepared.view.verdict.primary;
  const auto& to = prepared.choice.promote;
  const auto proof = get_string(prepared.plan.context, "fence");
  return change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    // An earlier one whose end nobody told: whom it was promoting may come back as a primary, and
    // whom it gave up stays in doubt when this one promotes nobody.
    if (const auto& other = record.begun) {
      if (other->to != to) record.owe({other->to, "of " + other->agent, "not known", now});
      record.owe({other->from, "of " + other->agent, other->proof, other->at});
    }
    record.forgive(to);
    record.begun = WatchRecord::Begun{self_, from, to, proof == "host" ? "" : proof, now};
  });
}

// A standby that is stopped and not started again answers nobody: that it is to be brought back
// must be known also when this agent does not live to do it.
Status PgKeeper::note_rejoin(const std::string& node) {
  return change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    if (record.owes(node) == nullptr) record.owe({node, "of " + self_, {}, wall_now()});
  });
}

// Others must know of it again: what was noted before it was begun may have been settled since.
Status PgKeeper::note_resumed(const run::Record& record) {
  const auto to = primary_after(record);
  const auto promoted = record.steps.find("promote");
  if (!is_failover(record.plan) || to.empty() ||
      (promoted != record.steps.end() && promoted->second.state == run::StepState::done))
    return {};
  const auto proof = get_string(record.plan.context, "fence");
  return change_record(coordinator_, world_.cluster().name, [&](WatchRecord& shared) {
    if (!shared.begun)
      shared.begun = WatchRecord::Begun{self_, get_string(record.plan.context, "old_primary"), to,
                                        proof == "host" ? "" : proof, wall_now()};
  });
}

// What other agents must know does not wait for the end of the run, which this agent may not see.
void PgKeeper::note_step(const run::Plan& plan, const run::StepReport& step) {
  if (is_failover(plan) && step.name == "promote" && step.state == run::StepState::done)
    note_promoted(plan, step.run, step.seen);
}

void PgKeeper::note_promoted(const run::Plan& plan, const std::string& run, const Json& seen) {
  if (noted_ == run) return;
  const auto to = get_string(seen, "node");
  const auto timeline = static_cast<std::uint32_t>(get_int(seen, "timeline"));
  const auto from = get_string(plan.context, "old_primary");
  const auto fence = get_string(plan.context, "fence");
  const auto now = wall_now();
  const auto changed = change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    if (record.begun && record.begun->agent == self_) record.begun.reset();
    if (record.last && record.last->run == run) return;
    record.last = WatchRecord::Failover{now, run, from, to, false, timeline};
    record.forgive(to);
    if (!from.empty()) record.owe({from, run, fence == "host" ? "" : fence, now});
  });
  // Not known to other agents then; this one knows it, and tries again at the end.
  if (changed)
    noted_ = run;
  else
    say("failed", to, "noting the failover: " + changed.error().message, run);
  if (memory_.flap.id != run)
    memory_.flap = {run, monotonic_now() + world_.cluster().policy.flap_window};
  if (!record_.last || record_.last->run != run)
    record_.last = WatchRecord::Failover{now, run, from, to, false, timeline};
}

// Also of a run that was resumed: its promotion may have been noted by nobody.
void PgKeeper::conclude(const run::RunReport& report) {
  if (!is_failover(report.plan)) return;
  const auto* promoted = report.step("promote");
  if (promoted == nullptr || promoted->state != run::StepState::done) {
    if (report.ending == run::Ending::partial) return;
    const auto changed =
        change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
          if (record.begun && record.begun->agent == self_) record.begun.reset();
        });
    if (!changed) say_once("settle", "failed", {}, changed.error().message);
    return;
  }
  note_promoted(report.plan, report.id, promoted->seen);
}

}  // namespace zx::ha
