// What PgKeeper tells the other agents, and what it takes back when that is settled.
#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lib/ha/pg_keeper.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/sync_debt.h"

namespace zx::ha {

Status PgKeeper::read_record() {
  const auto value = coordinator_.get(watch_key(world_.cluster().name));
  if (!value) {
    say_once("record", "cut_off", {}, value.error().message);
    return fail(value.error());
  }
  auto record = watch_record_from(value->text);
  if (!record) {
    say_once("record", "failed", {}, record.error().message);
    return fail(record.error());
  }
  said_.erase("record");
  earlier_ = std::exchange(record_, *std::move(record));
  knows_record_ = true;
  return {};
}

// Another run, of a person or an agent, may have ended between the look and the turn; or the record
// could not be read at the look.
Status PgKeeper::nothing_new() {
  const auto before = record_;
  ZX_TRY(read_record());
  if (record_ == before) return {};
  return fail(Code::locked, "somebody else was at work until now: looking again");
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
  auto settled = settled_by(tick.view);
  if (settled.is_empty()) return;
  const auto view = tick.was_calm ? fresh_view(told) : tick.view;
  if (tick.was_calm) {
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
  const auto settle = [&](WatchRecord& record) {
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
    if (!follows) record.owe({begun->from, "of " + begun->agent, begun->proof, begun->at, primary});
  };
  if (const auto changed = change_record(coordinator_, world_.cluster().name, settle); !changed)
    return say_once("settle", "failed", {}, changed.error().message);
  settle(record_);  // what this agent has changed is nobody else's work
}

// A person's failover while the coordinator could not be asked has noted it on its host only.
void PgKeeper::share_owed_sync() {
  if (!knows_record_ || !record_.last) return;
  const auto shared = share_sync_debt(world_.config().platform.state_dir, coordinator_,
                                      world_.cluster().name, record_.last->run);
  if (!shared) say_once("sync", "failed", {}, shared.error().message);
}

// Before it is begun, so that whoever leads after this agent knows whom it gave up for whom.
Status PgKeeper::note_begun(const Prepared& prepared) {
  const auto proof = get_string(prepared.plan.context, "fence");
  const WatchRecord::Begun begun{self_, prepared.view.verdict.primary, prepared.choice.promote,
                                 proof == "host" ? "" : proof, wall_now()};
  return change_record(coordinator_, world_.cluster().name,
                       [&](WatchRecord& record) { record.begin(begun); });
}

// A standby that is stopped and not started again answers nobody: that it is to be brought back
// must be known also when this agent does not live to do it.
Status PgKeeper::note_rejoin(const std::string& node) {
  return change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    if (record.owes(node) == nullptr) record.owe({node, "of " + self_, {}, wall_now()});
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
  const WatchRecord::Failover done{wall_now(), run, from, to, false, timeline, false};
  const auto changed = change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    record.promote(self_, done, fence == "host" ? "" : fence, after_of(plan));
  });
  // Not known to other agents then; this one knows it, and tries again at the end.
  if (changed)
    noted_ = run;
  else
    say("failed", to, "noting the failover: " + changed.error().message, run);
  if (memory_.flap.id != run)
    memory_.flap = {run, monotonic_now() + world_.cluster().policy.flap_window};
  if (!record_.last || record_.last->run != run) record_.last = done;
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

void PgKeeper::note_trouble(const Told& told, const View& view) {
  const bool is_bad = !has_live_primary(view.verdict.state);
  const auto& primary = view.verdict.primary;
  // Who took over was lost before it was seen to serve: that is another outage.
  const bool is_next = in_trouble_ && !trouble_of_.empty() && trouble_of_ != primary &&
                       record_.last && record_.last->to == primary;
  if (is_bad && (!in_trouble_ || is_next)) {
    trouble_of_ = primary;
    trouble_since_ = view.snapshot.at;
    if (told.noticed && !(is_next && *told.noticed < record_.last->at))
      trouble_since_ = *told.noticed;
    if (hooks_.event)
      hooks_.event({trouble_since_,
                    world_.cluster().name,
                    "detected",
                    primary,
                    {},
                    view.verdict.summary,
                    {}});
  }
  if (!is_bad && in_trouble_) say("recovered", primary, view.verdict.summary);
  if (!is_bad) said_.erase("confirmed");
  in_trouble_ = is_bad;
}

void PgKeeper::note_failed(const Decision& what, const std::string& why) {
  note_failure(memory_, what.key(), monotonic_now());
  why_failed_[what.key()] = why;
}

std::vector<PgKeeper::Retry> PgKeeper::retries() const {
  std::vector<Retry> found;
  for (const auto act : {Act::rejoin, Act::repoint, Act::fence})
    for (const auto& node : world_.cluster().nodes) {
      const auto tries = memory_.tries.find(Decision{act, node.name, {}}.key());
      if (tries == memory_.tries.end()) continue;
      const auto why = why_failed_.find(tries->first);
      found.push_back({node.name, name_of(act), why == why_failed_.end() ? "" : why->second,
                       tries->second.failed, tries->second.next});
    }
  return found;
}

}  // namespace zx::ha
