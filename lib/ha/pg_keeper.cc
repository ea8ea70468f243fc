#include "lib/ha/pg_keeper.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/pg_directory.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using pg::Failure;

// While something is wrong the next look comes soon: a standby's walreceiver ends some
// milliseconds after the primary, a server that was told to stop takes a moment.
constexpr Millis kSoon{15};
constexpr Millis kWaiting{200};
constexpr int kTriesOfRecord = 5;
constexpr Millis kVoteStep{250};  // a vote that says something new is published at once
constexpr int kTriesOfDeath = 2;
constexpr Millis kApart{20};
constexpr Millis kLastIsNew{100};
constexpr Millis kLastIsEnough{5'000};  // while all answer: how far the primary came is known here
constexpr Millis kBlockedFor{2000};

// What held connections know is of slightly different moments: it is enough to see that all is
// well, not to see what is wrong.
bool calls_for_a_look(const View& view, const Decision& decision) {
  return decision.act != Act::none ||
         (view.verdict.state != PgState::healthy && view.verdict.state != PgState::degraded);
}

pg::Testimony testimony_of(const coord::Vote& vote, const std::string& cluster,
                           const std::string& node) {
  const auto& saw = get_object(get_object(vote.saw, cluster.c_str()), node.c_str());
  pg::Testimony testimony;
  testimony.observer = vote.agent;
  testimony.node = node;
  testimony.failure = pg::failure_named(get_string(saw, "failure"));
  testimony.role = pg::role_named(get_string(saw, "role"));
  testimony.error = get_string(saw, "error");
  return testimony;
}

// The event that a step is, when it is done.
const char* kind_of(const std::string& step) {
  if (step == "freeze") return "frozen";
  if (step == "fence") return "fenced";
  if (step == "promote") return "promoted";
  if (step == "check") return "first_write";
  if (step == "repoint") return "repointed";
  if (step == "start") return "rejoined";
  return nullptr;
}

bool is_failover(const run::Plan& plan) { return plan.command == "failover pg"; }

Error error_of(const run::RunReport& report) {
  return report.error.value_or(
      Error{Code::failed,
            fmt::format("run {} ended as {}", report.id, name_of(report.ending)),
            {},
            {},
            false});
}

}  // namespace

PgKeeper::PgKeeper(PgWorld& world, coord::Coordinator& coordinator, std::string self,
                   std::string region, Hooks hooks)
    : world_(world),
      coordinator_(coordinator),
      self_(std::move(self)),
      region_(std::move(region)),
      hooks_(std::move(hooks)) {}

void PgKeeper::say(std::string kind, std::string node, std::string text, std::string run,
                   std::optional<Millis> took) {
  if (!hooks_.event) return;
  hooks_.event({wall_now(), world_.cluster().name, std::move(kind), std::move(node), std::move(run),
                std::move(text), took});
}

void PgKeeper::say_once(const std::string& topic, std::string kind, std::string node,
                        std::string text) {
  auto& last = said_[topic];
  const auto now = kind + " " + node + " " + text;
  if (last == now) return;
  last = now;
  say(std::move(kind), std::move(node), std::move(text));
}

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

void PgKeeper::note_standing(const coord::Standing& standing) {
  if (role_ == standing.role) return;
  role_ = standing.role;
  switch (standing.role) {
    case coord::Standing::Role::leader: return say("leads", {}, self_ + " acts");
    case coord::Standing::Role::follower:
      return say("follows", {}, standing.leader + " acts, this agent watches");
    case coord::Standing::Role::cut_off: return say("cut_off", {}, standing.why);
  }
}

View PgKeeper::fresh_view(const Told& told) {
  std::vector<std::string> names;
  for (const auto& node : world_.cluster().nodes)
    if (std::find(told.silent.begin(), told.silent.end(), node.name) == told.silent.end())
      names.push_back(node.name);
  if (told.silent.empty() || !told.snapshot || names.empty())
    return look(world_, world_.cluster().policy.probe_deadline, false);
  auto snapshot = world_.observe(names, world_.cluster().policy.probe_deadline);
  for (const auto& name : told.silent)
    if (const auto* facts = told.snapshot->node(name)) snapshot.nodes.push_back(*facts);
  return see(world_, std::move(snapshot));
}

void PgKeeper::vote(const View& view, const Told& told) {
  Json saw = Json::object();
  for (const auto& facts : view.snapshot.nodes) {
    saw[facts.name] = {{"failure", pg::name_of(facts.failure)},
                       {"role", pg::name_of(facts.role)},
                       {"error", facts.error.message}};
    // That it answers is as old as the answer.
    if (const auto at = told.answered.find(facts.name); at != told.answered.end())
      saw[facts.name]["answered_ms"] =
          (std::chrono::duration_cast<Millis>(monotonic_now() - at->second) / kVoteStep) *
          kVoteStep.count();
  }
  coordinator_.vote(Json{{world_.cluster().name, std::move(saw)}});
}

// Other agents' word on a primary that does not answer here. That one of them had an answer is told
// with a delay: it counts only while silence would not count either, and against a refusal, which
// the host itself gave, only where more than one region is to agree.
void PgKeeper::add_votes(View& view, int& regions_agree) {
  const auto& policy = world_.cluster().policy;
  const auto& primary = view.verdict.primary;
  if (primary.empty() || has_live_primary(view.verdict.state)) return;
  const bool is_refused = view.verdict.state == PgState::primary_dead && policy.observers == 1;
  std::set<std::string> regions{region_};
  for (const auto& one : coordinator_.votes()) {
    const auto& saw = get_object(one.saw, world_.cluster().name.c_str());
    if (!saw.is_object() || !saw.contains(primary)) continue;
    auto testimony = testimony_of(one, world_.cluster().name, primary);
    const auto& of_primary = get_object(saw, primary.c_str());
    const auto age = one.age + Millis(get_int(of_primary, "answered_ms"));
    const bool is_alive = testimony.failure == Failure::none;
    if (is_alive && (is_refused || age >= policy.silent_after)) continue;
    if (!is_alive) regions.insert(one.region);
    view.snapshot.testimonies.push_back(std::move(testimony));
  }
  regions_agree = static_cast<int>(regions.size());
  if (view.snapshot.testimonies.empty()) return;
  view.verdict = judge(world_.cluster(), view.snapshot, view.last);
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

// While a run is at work nobody looks; held connections do.
void PgKeeper::note_last(const Told& told) {
  if (!told.last) return;
  const auto& state_dir = world_.config().platform.state_dir;
  const auto written = read_last_seen(state_dir, world_.cluster().name);
  const bool is_well =
      told.snapshot && std::all_of(told.snapshot->nodes.begin(), told.snapshot->nodes.end(),
                                   [](const auto& facts) { return facts.answered(); });
  const bool waits = is_well && written && !says_more(*told.last, *written);
  if (written && written->at + (waits ? kLastIsEnough : kLastIsNew) > told.last->at) return;
  if (const auto done = write_last_seen(state_dir, world_.cluster().name, *told.last); !done)
    say_once("last", "failed", {}, done.error().message);
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

void PgKeeper::note_trouble(const Told& told, const View& view) {
  const bool is_bad = !has_live_primary(view.verdict.state);
  if (is_bad && !in_trouble_ && hooks_.event)
    hooks_.event({told.noticed.value_or(view.snapshot.at),
                  world_.cluster().name,
                  "detected",
                  view.verdict.primary,
                  {},
                  view.verdict.summary,
                  {}});
  if (!is_bad && in_trouble_) say("recovered", view.verdict.primary, view.verdict.summary);
  if (!is_bad) said_.erase("confirmed");
  in_trouble_ = is_bad;
}

PgKeeper::Tick PgKeeper::tick(const Told& told) {
  const auto& policy = world_.cluster().policy;
  const auto& state_dir = world_.config().platform.state_dir;
  Tick tick;
  const auto standing = coordinator_.standing();
  note_standing(standing);
  read_record();
  note_last(told);
  tick.again = policy.probe_interval;

  const auto judge_and_decide = [&](View& view, WatchMemory& memory) {
    int regions_agree = 1;
    add_votes(view, regions_agree);
    Sight sight{world_.cluster(), view.snapshot, view.verdict, record_};
    sight.leads = standing.role == coord::Standing::Role::leader && knows_record_;
    sight.why_not_leading = standing.role == coord::Standing::Role::follower
                                ? standing.leader + " acts, this agent watches"
                                : "cut off from the coordinator: " + standing.why;
    sight.regions_agree = regions_agree;
    sight.planned = told.planned;
    if (const auto at = told.answered.find(view.verdict.primary); at != told.answered.end())
      sight.answered = at->second;
    sight.now = monotonic_now();
    sight.wall = wall_now();
    auto open = run::unfinished_run(state_dir, lock_of(world_.cluster()));
    if (!open) {
      tick.error = open.error();
    } else if (*open && coord::is_free(state_dir, lock_of(world_.cluster()))) {
      sight.open = **std::move(open);
    }
    remember(memory, sight);
    tick.decision = decide(sight, memory);
  };

  if (told.snapshot) {
    // What is known of the standbys may be older than the primary's end: a primary that they still
    // seem to receive from would count as alive, and failed attempts at a failover be forgotten.
    auto memory = memory_;
    tick.view = see(world_, *told.snapshot);
    judge_and_decide(tick.view, memory);
    tick.was_calm = !calls_for_a_look(tick.view, tick.decision);
    if (tick.was_calm) memory_ = std::move(memory);
  }
  if (!tick.was_calm) {
    tick.view = fresh_view(told);
    judge_and_decide(tick.view, memory_);
  }
  if (!tick.was_calm)
    log::debug(fmt::format("{}: {}; {}", name_of(tick.view.verdict.state),
                           tick.view.verdict.summary, name_of(tick.decision.act)));
  vote(tick.view, told);
  note_trouble(told, tick.view);
  say_blocked(tick);
  settle_owed(tick, told);
  // Who does not act need not be there first.
  if (!tick.was_calm && policy.automatic && role_ == coord::Standing::Role::leader)
    tick.again = calls_for_failover(tick.view.verdict.state) ? kWaiting : kSoon;
  if (tick.decision.act != Act::none) act(tick);
  return tick;
}

// What is over in a moment is not worth a person's attention.
void PgKeeper::say_blocked(const Tick& tick) {
  if (!tick.decision.is_blocked) {
    said_.erase("blocked");
    blocked_since_.reset();
    return;
  }
  const auto now = monotonic_now();
  if (!blocked_since_) blocked_since_ = now;
  if (now - *blocked_since_ >= kBlockedFor)
    say_once("blocked", "blocked",
             tick.decision.subject.empty() ? tick.view.verdict.primary : tick.decision.subject,
             tick.decision.why);
}

void PgKeeper::act(Tick& tick) {
  const auto key = tick.decision.key();
  if (tick.decision.act == Act::failover)
    say_once("confirmed", "confirmed", tick.decision.subject, tick.decision.why);
  const auto& primaries = tick.view.verdict.primaries;
  const bool accepts_writes =
      std::find(primaries.begin(), primaries.end(), tick.decision.subject) != primaries.end();
  auto result = tick.decision.act == Act::failover ? failover(tick.view)
                : tick.decision.act == Act::resume ? resume(tick.decision.subject)
                                                   : on_a_standby(tick.decision, accepts_writes);
  tick.again = kSoon;
  if (!result) {
    tick.error = result.error();
    note_beyond_rewind(tick, result.error());
    // Somebody else is at work, or has just been.
    if (result.error().code != Code::locked)
      note_failure(memory_, key, monotonic_now());
    else
      tick.again = kWaiting;
    say_once(key, "failed", tick.decision.subject,
             fmt::format("{}: {}", key, result.error().message));
    return;
  }
  tick.report = *result;
  conclude(*result);
  if (result->ending == run::Ending::done ||
      (result->ending == run::Ending::partial && is_failover(result->plan) &&
       result->step("check") != nullptr && result->step("check")->state == run::StepState::done)) {
    note_success(memory_, key);
    said_.erase(key);
    return;
  }
  note_failure(memory_, key, monotonic_now());
  tick.error = error_of(*result);
  for (const char* name : {"keep", "rewind"})
    if (const auto* step = result->step(name);
        step != nullptr && step->state == run::StepState::failed)
      note_beyond_rewind(tick, *tick.error);
  say("failed", tick.decision.subject, fmt::format("{}: {}", key, tick.error->message), result->id);
}

run::Hooks PgKeeper::hooks_for(coord::Lease& lead, const run::Plan& plan) {
  auto hooks = hooks_.run;
  hooks.still_ours = [&lead] { return lead.check(); };
  hooks.on_end = [this, &plan, also = hooks.on_end](const run::StepReport& step) {
    if (const auto* kind = kind_of(step.name);
        kind != nullptr && step.state == run::StepState::done)
      say(kind, step.subject, "", step.run, Millis(step.ms));
    note_step(plan, step);
    if (also) also(step);
  };
  return hooks;
}

std::function<bool()> PgKeeper::hurry_for(const run::Plan& plan) const {
  if (!hooks_.hurry) return {};
  auto primary = get_string(plan.context, "primary", get_string(plan.context, "to"));
  return [this, primary = std::move(primary)] { return hooks_.hurry(primary); };
}

Result<run::RunReport> PgKeeper::on_a_standby(const Decision& decision, bool accepts_writes) {
  ZX_ASSIGN(const auto lead, coordinator_.lead());
  ZX_ASSIGN(const auto turn, take_turn(world_, std::string(name_of(decision.act)) + " pg (agent)",
                                       is_about_a_standby));
  const auto prepare = [&]() -> Result<Prepared> {
    if (decision.act == Act::repoint) return prepare_repoint(world_, decision.subject);
    if (decision.act == Act::fence) return prepare_fence(world_, decision.subject);
    const bool may_rebuild = world_.cluster().policy.rejoin == "rebuild";
    if (may_rebuild && memory_.beyond_rewind.contains(decision.subject))
      return prepare_rejoin(world_, decision.subject, true);
    auto rejoin = prepare_rejoin(world_, decision.subject, false);
    if (!rejoin && rejoin.error().code == Code::refused && may_rebuild)
      return prepare_rejoin(world_, decision.subject, true);
    // One that accepts writes beside the primary is stopped, whatever can be done with it then.
    if (!rejoin && accepts_writes && rejoin.error().hint == rebuild_hint(decision.subject))
      return prepare_fence(world_, decision.subject);
    return rejoin;
  };
  ZX_ASSIGN(auto prepared, prepare());
  if (prepared.gives_up_newer && record_.owes(decision.subject) == nullptr)
    return fail(Code::refused, decision.subject + " was promoted later than the other primary");
  if (prepared.nothing_to_do) {
    run::RunReport report;
    report.ending = run::Ending::done;
    return report;
  }
  if (const auto& snapshot = prepared.view.snapshot; decision.act == Act::rejoin) {
    const auto* node = snapshot.node(decision.subject);
    const auto* primary = snapshot.node(get_string(prepared.plan.context, "primary"));
    if (const auto why = why_not_yet(snapshot, *node, *primary); !why.empty()) {
      if (!accepts_writes)
        return fail(Code::refused, why,
                    fmt::format("make it answer; or, when it is gone for good: {}",
                                rebuild_hint(decision.subject)));
      ZX_ASSIGN(prepared, prepare_fence(world_, decision.subject));
    }
  }
  sign(prepared.plan);
  if (decision.act == Act::rejoin &&
      (prepared.plan.context.contains("rebuild") || prepared.plan.command == "fence pg"))
    ZX_TRY(note_rejoin(decision.subject));
  ZX_TRY(supersede(world_, prepared.plan.command));
  const os::InterruptibleBy hurry(hurry_for(prepared.plan));
  return ha::carry_out(world_, prepared.plan, *turn, hooks_for(*lead, prepared.plan));
}

// A standby that is stopped and not started again answers nobody: that it is to be brought back
// must be known also when this agent does not live to do it.
Status PgKeeper::note_rejoin(const std::string& node) {
  return change_record(coordinator_, world_.cluster().name, [&](WatchRecord& record) {
    if (record.owes(node) == nullptr) record.owe({node, "of " + self_, {}, wall_now()});
  });
}

void PgKeeper::note_beyond_rewind(const Tick& tick, const Error& error) {
  const auto& [act, node, why, is_blocked] = tick.decision;
  const auto* facts = tick.view.snapshot.node(node);
  if (act != Act::rejoin || facts == nullptr || error.hint != rebuild_hint(node)) return;
  for (const auto& primary : tick.view.verdict.primaries)
    if (primary != node) memory_.beyond_rewind[node] = {primary, error.message, facts->answered()};
}

// The run is about a failover: whom it promotes.
std::string PgKeeper::candidate_of(const run::Record& record) {
  const auto chosen = record.steps.find("choose");
  return chosen == record.steps.end() ? std::string()
                                      : get_string(chosen->second.seen, "candidate");
}

// Dead by the same proof as a primary: it refuses, and on its host nothing of it runs; or it was
// fenced there.
bool PgKeeper::is_gone(const View& view, const std::string& node) {
  const auto* facts = view.snapshot.node(node);
  if (facts == nullptr || facts->answered()) return false;
  const auto& policy = world_.cluster().policy;
  const auto answer = world_.on_host_of(node, "pg-inspect", Json::object(), policy.fence_deadline);
  if (!answer) return false;
  const auto local = pg::local_from_json(*answer);
  if (!local.is_data_directory) return false;
  return local.fenced || (facts->failure == Failure::refused && !local.processes &&
                          world_.refuses(node, kTriesOfDeath, kApart, policy.probe_deadline));
}

// Whose run it is, and which failover was the last before it.
void PgKeeper::sign(run::Plan& plan) const {
  plan.context["agent"] = self_;
  plan.context["after"] = record_.last ? record_.last->run : std::string();
}

// Why nothing of a failover can be finished or taken back any more; empty: it can. Another one came
// after it, by another agent while this one stood still; the only primary is neither the one that
// it gives up nor the one that it promotes; or whom it promotes is dead.
std::string PgKeeper::why_overtaken(const run::Record& record) {
  const auto& context = record.plan.context;
  if (const auto& last = record_.last; last && context.contains("after") &&
                                       last->run != record.id &&
                                       last->run != get_string(context, "after"))
    return fmt::format("run {} of {} to {} came after it", last->run, last->from, last->to);
  if (!is_failover(record.plan)) return {};
  const auto view = look(world_, world_.cluster().policy.probe_deadline, false);
  const auto to = candidate_of(record);
  const auto old = get_string(record.plan.context, "old_primary");
  const auto& primaries = view.verdict.primaries;
  for (const auto& primary : primaries)
    if (primary != old && (primary != to || record.undoing)) return primary + " is the primary";
  if (!record.no_return) {
    // It may have promoted one that nobody sees now: taking the fence back would make two.
    const auto& begun = record_.begun;
    if (begun && begun->from == old && begun->agent != self_)
      return begun->agent + " has begun another failover from " + old;
    const auto& last = record_.last;
    const auto* owed = record_.owes(old);
    if (last && owed != nullptr && owed->run == last->run && last->run != record.id)
      return fmt::format("{} took over from {} in run {}", last->to, old, last->run);
    return {};
  }
  if (primaries.empty()) return is_gone(view, to) ? to + " is dead" : std::string();
  if (primaries.size() > 1 || primaries.front() == to) return {};
  return primaries.front() + " is the primary";
}

// Others must know of it again: what was noted before it was begun may have been settled since.
Status PgKeeper::note_resumed(const run::Record& record) {
  const auto to = candidate_of(record);
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

Result<run::RunReport> PgKeeper::close(const run::Record& record, const std::string& why) {
  ZX_TRY(run::close_run(world_.config().platform.state_dir, record.id, "superseded", why));
  say("superseded", {}, fmt::format("run {} ({}): {}", record.id, record.plan.command, why),
      record.id);
  run::RunReport report;
  report.ending = run::Ending::done;
  return report;
}

Result<run::RunReport> PgKeeper::resume(const std::string& run) {
  ZX_ASSIGN(const auto lead, coordinator_.lead());
  ZX_ASSIGN(const auto turn, take_lock(world_, "runs resume (agent)"));
  const auto& state_dir = world_.config().platform.state_dir;
  ZX_ASSIGN(const auto record, run::read_run(state_dir, run));
  // What it left is mended node by node.
  if (const auto why = why_overtaken(record); !why.empty()) {
    ZX_TRY(lead->check());
    return close(record, why);
  }
  ZX_TRY(note_resumed(record));
  const os::InterruptibleBy hurry(is_about_a_standby(record) ? hurry_for(record.plan) : nullptr);
  auto report = take_up(world_, run, *turn, hooks_for(*lead, record.plan));
  // A node that stays away must not keep a failover that was given up open for ever, and the next
  // one waiting behind it.
  const auto tried = memory_.tries.find("resume " + run);
  if (report && report->ending == run::Ending::partial && is_failover(record.plan) &&
      record.undoing && tried != memory_.tries.end() && lead->check())
    return close(record, "it cannot be taken back: " + error_of(*report).message);
  return report;
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
