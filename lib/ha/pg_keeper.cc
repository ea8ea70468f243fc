#include "lib/ha/pg_keeper.h"

#include <algorithm>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/without_times.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using pg::Failure;

// While something is wrong the next look comes soon: a standby's walreceiver ends some
// milliseconds after the primary, a server that was told to stop takes a moment.
constexpr Millis kSoon{15};
constexpr Millis kWaiting{200};
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

void PgKeeper::note_standing(const coord::Standing& standing) {
  if (role_ == standing.role) return;
  const bool had_led = role_ == coord::Standing::Role::leader;
  role_ = standing.role;
  switch (standing.role) {
    case coord::Standing::Role::leader: return say("leads", {}, self_ + " acts");
    case coord::Standing::Role::follower:
      return say(had_led ? "lost_lead" : "follows", {},
                 standing.leader + " acts, this agent watches");
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
  auto seen = *told.last;
  seen.is_watched = true;
  if (const auto done = write_last_seen(state_dir, world_.cluster().name, seen); !done)
    say_once("last", "failed", {}, done.error().message);
}

// It tells its clients the same as in a planned restart; but whoever restarts a server leaves its
// agent running, and that has said nothing for so long that it would have stopped the server.
bool PgKeeper::was_stopped_by_guard(const View& view) {
  if (view.verdict.state != PgState::primary_dead) return false;
  const auto guard = coordinator_.guard(view.verdict.primary);
  return guard && guard->kind == coord::GuardState::Kind::run_out && guard->has_passed();
}

PgKeeper::Tick PgKeeper::tick(const Told& told) {
  const auto& policy = world_.cluster().policy;
  const auto& state_dir = world_.config().platform.state_dir;
  Tick tick;
  const auto standing = coordinator_.standing();
  note_standing(standing);
  static_cast<void>(read_record());  // said already
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
    if (told.planned && !was_stopped_by_guard(view)) sight.planned = told.planned;
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
  share_owed_sync();
  // Who does not act need not be there first.
  if (!tick.was_calm && policy.automatic && role_ == coord::Standing::Role::leader)
    tick.again = calls_for_failover(tick.view.verdict.state) ? kWaiting : kSoon;
  if (tick.decision.act != Act::none) {
    if (hooks_.judged) hooks_.judged(tick);
    act(tick);
  }
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
  if (now - *blocked_since_ < kBlockedFor) return;
  const auto& node =
      tick.decision.subject.empty() ? tick.view.verdict.primary : tick.decision.subject;
  // How long it still takes is nothing new.
  auto& last = said_["blocked"];
  auto reason = node + " " + without_times(tick.decision.why);
  if (last == reason) return;
  last = std::move(reason);
  say("blocked", node, tick.decision.why);
}

void PgKeeper::act(Tick& tick) {
  const auto key = tick.decision.key();
  const auto node = tick.decision.act == Act::resume ? std::string() : tick.decision.subject;
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
    const bool waits = result.error().code == Code::locked;
    if (waits)
      tick.again = kWaiting;
    else
      note_failed(tick.decision, result.error().message);
    say_once(key, waits ? "waits" : "failed", node,
             fmt::format("{}: {}", key, result.error().message));
    return;
  }
  tick.report = *result;
  conclude(*result);
  // What was to be restored may be missing again; a moment later it may be there.
  if (const auto* step = result->step("sync");
      tick.decision.act == Act::sync && step != nullptr && step->state == run::StepState::skipped)
    return note_failure(memory_, key, monotonic_now());
  if (result->ending == run::Ending::done ||
      (result->ending == run::Ending::partial && is_failover(result->plan) &&
       result->step("check") != nullptr && result->step("check")->state == run::StepState::done)) {
    note_success(memory_, key);
    said_.erase(key);
    return;
  }
  tick.error = error_of(*result);
  note_failed(tick.decision, tick.error->message);
  for (const char* name : {"keep", "rewind"})
    if (const auto* step = result->step(name);
        step != nullptr && step->state == run::StepState::failed)
      note_beyond_rewind(tick, *tick.error);
  const bool gave_way = tick.error->code == Code::interrupted;
  say(gave_way ? "gave_way" : "failed", node, fmt::format("{}: {}", key, tick.error->message),
      result->id);
}

run::Hooks PgKeeper::hooks_for(const run::Plan& plan) {
  auto hooks = hooks_.run;
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
  ZX_ASSIGN(const auto turn, take_turn(world_, &coordinator_,
                                       {std::string(name_of(decision.act)) + " pg (agent)",
                                        is_about_a_standby, false}));
  ZX_TRY(nothing_new());
  const auto prepare = [&]() -> Result<Prepared> {
    if (decision.act == Act::repoint) return prepare_repoint(world_, decision.subject);
    if (decision.act == Act::fence) return prepare_fence(world_, decision.subject);
    if (decision.act == Act::sync) return prepare_sync(world_);
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
  if (prepared.gives_up_newer &&
      (accepts_writes
           ? record_.owes(decision.subject) == nullptr
           : !gave_way_to(record_, decision.subject, get_string(prepared.plan.context, "primary"))))
    return fail(Code::refused, prepared.newer.empty()
                                   ? decision.subject + " was promoted later than the other primary"
                                   : prepared.newer);
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
  return ha::carry_out(world_, prepared.plan, *turn, hooks_for(prepared.plan));
}

void PgKeeper::note_beyond_rewind(const Tick& tick, const Error& error) {
  const auto act = tick.decision.act;
  const auto& node = tick.decision.subject;
  const auto* facts = tick.view.snapshot.node(node);
  if (act != Act::rejoin || facts == nullptr || error.hint != rebuild_hint(node)) return;
  for (const auto& primary : tick.view.verdict.primaries)
    if (primary != node) memory_.beyond_rewind[node] = {primary, error.message, facts->answered()};
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

// Whose run it is, which failover was the last before it, and since when there was no primary:
// events may be lost on a full disk.
void PgKeeper::sign(run::Plan& plan) const {
  if (is_failover(plan)) plan.context["trouble_since"] = format_utc(trouble_since_);
  plan.context["agent"] = self_;
  plan.context["after"] = record_.last ? record_.last->run : std::string();
}

// Why nothing of a failover can be finished or taken back any more; empty: it can. Another one came
// after it, by another agent while this one stood still; the only primary is neither the one that
// it gives up nor the one that it promotes; or whom it promotes is dead.
std::string PgKeeper::why_overtaken(const run::Record& record) {
  if (auto why = overtaken_by(record_, record); !why.empty()) return why;
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
    if (begun && begun->from == old && begun->agent != get_string(record.plan.context, "agent"))
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

Result<run::RunReport> PgKeeper::close(const run::Record& record, const std::string& why) {
  ZX_TRY(run::close_run(world_.config().platform.state_dir, record.id, "superseded", why));
  say("superseded", {}, fmt::format("run {} ({}): {}", record.id, record.plan.command, why),
      record.id);
  run::RunReport report;
  report.ending = run::Ending::done;
  return report;
}

Result<run::RunReport> PgKeeper::resume(const std::string& run) {
  ZX_ASSIGN(const auto turn, take_lock(world_, &coordinator_, {"runs resume (agent)", {}, false}));
  ZX_TRY(nothing_new());
  const auto& state_dir = world_.config().platform.state_dir;
  ZX_ASSIGN(const auto record, run::read_run(state_dir, run));
  // What it left is mended node by node.
  if (const auto why = why_overtaken(record); !why.empty()) {
    ZX_TRY(turn->check());
    return close(record, why);
  }
  ZX_TRY(note_resumed(coordinator_, world_.cluster().name, self_, record));
  const os::InterruptibleBy hurry(is_about_a_standby(record) ? hurry_for(record.plan) : nullptr);
  auto report = take_up(world_, run, *turn, hooks_for(record.plan));
  // A node that stays away must not keep a failover that was given up open for ever, and the next
  // one waiting behind it.
  const auto tried = memory_.tries.find("resume " + run);
  if (report && report->ending == run::Ending::partial && is_failover(record.plan) &&
      record.undoing && tried != memory_.tries.end() && turn->check())
    return close(record, "it cannot be taken back: " + error_of(*report).message);
  return report;
}

}  // namespace zx::ha
