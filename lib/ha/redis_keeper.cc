#include "lib/ha/redis_keeper.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/redis_told.h"
#include "lib/ha/without_times.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

// While something is wrong the next look comes soon: a replica's link ends some milliseconds after
// its master.
constexpr Millis kSoon{15};
constexpr Millis kWaiting{200};
constexpr Millis kUneasy{5'000};  // so long; what is wrong after that is not settled by itself

// The event that a step is, when it is done.
const char* kind_of(const std::string& step) {
  if (step == "detach") return "detached";
  if (step == "fence") return "fenced";
  if (step == "promote") return "promoted";
  if (step == "check") return "first_write";
  if (step == "repoint") return "repointed";
  if (step.starts_with("sync ")) return "rejoined";
  return nullptr;
}

// Its master came into doubt while it was at work.
bool gave_way(const run::RunReport& report) {
  return std::any_of(report.steps.begin(), report.steps.end(), [](const run::StepReport& step) {
    return step.error && step.error->code == Code::interrupted;
  });
}

bool is_calm(const RedisView& view, const Decision& decision) {
  return decision.act == Act::none &&
         (view.verdict.state == RedisState::healthy || view.verdict.state == RedisState::degraded);
}

}  // namespace

RedisKeeper::RedisKeeper(RedisWorld& world, coord::Coordinator& coordinator, std::string self,
                         Hooks hooks)
    : world_(world), coordinator_(coordinator), self_(std::move(self)), hooks_(std::move(hooks)) {}

void RedisKeeper::say(std::string kind, std::string node, std::string text, std::string run,
                      std::optional<Millis> took) {
  if (!hooks_.event) return;
  hooks_.event({wall_now(), record_of(world_.deployment()), std::move(kind), std::move(node),
                std::move(run), std::move(text), took});
}

void RedisKeeper::say_once(const std::string& topic, std::string kind, std::string node,
                           std::string text) {
  auto& last = said_[topic];
  const auto now = kind + " " + node + " " + text;
  if (last == now) return;
  last = now;
  say(std::move(kind), std::move(node), std::move(text));
}

Status RedisKeeper::read_own_record() {
  auto record = read_record(coordinator_, record_of(world_.deployment()));
  if (!record) {
    say_once("record", "cut_off", {}, record.error().message);
    return fail(record.error());
  }
  said_.erase("record");
  record_ = *std::move(record);
  knows_record_ = true;
  return {};
}

RedisView RedisKeeper::fresh_view(const Told& told) {
  const auto deadline = world_.deployment().policy.probe_deadline;
  std::vector<std::string> names;
  for (const auto& node : world_.deployment().nodes)
    if (std::find(told.silent.begin(), told.silent.end(), node.name) == told.silent.end())
      names.push_back(node.name);
  if (told.silent.empty() || !told.snapshot || names.empty()) return look(world_, deadline, false);
  auto snapshot = world_.observe(names, deadline);
  for (const auto& name : told.silent)
    if (const auto* facts = told.snapshot->node(name)) snapshot.nodes.push_back(*facts);
  return see(world_, std::move(snapshot));
}

void RedisKeeper::vote(const RedisView& view) {
  Json saw = Json::object();
  for (const auto& facts : view.snapshot.nodes)
    saw[facts.name] = {{"failure", redis::name_of(facts.failure)},
                       {"role", redis::name_of(facts.role)}};
  coordinator_.vote(Json{{record_of(world_.deployment()), std::move(saw)}});
}

// Other agents' word on a silent master; against a refusal, which the host itself gave, it does not
// count: it is older than that.
void RedisKeeper::add_votes(RedisView& view) {
  if (view.verdict.state != RedisState::master_silent) return;
  const auto& master = view.verdict.master;
  bool is_new = false;
  for (const auto& one : coordinator_.votes()) {
    const auto& saw = get_object(one.saw, record_of(world_.deployment()).c_str());
    if (!saw.is_object() || !saw.contains(master)) continue;
    const bool is_alive = get_string(get_object(saw, master.c_str()), "failure") ==
                          redis::name_of(redis::Failure::none);
    if (is_alive && one.age >= world_.deployment().policy.silent_after) continue;
    view.snapshot.testimonies.push_back(
        {one.agent, is_alive, is_alive ? "answers" : "does not answer"});
    is_new = true;
  }
  if (is_new) view.verdict = judge(world_.deployment(), view.snapshot, view.last);
}

RedisKeeper::Tick RedisKeeper::tick(const Told& told) {
  const auto ground = ground_of(world_, &coordinator_);
  Tick tick;
  const auto standing = coordinator_.standing();
  static_cast<void>(read_own_record());  // said already

  const auto judge_and_decide = [&](RedisView& view) {
    add_votes(view);
    RedisSight sight{world_.deployment(), view.snapshot, view.verdict, record_};
    sight.leads = standing.role == coord::Standing::Role::leader && knows_record_;
    sight.why_not_leading = standing.role == coord::Standing::Role::follower
                                ? standing.leader + " acts, this agent watches"
                                : "cut off from the coordinator: " + standing.why;
    if (const auto at = told.answered.find(view.verdict.master); at != told.answered.end())
      sight.answered = at->second;
    sight.now = monotonic_now();
    sight.wall = wall_now();
    auto open = run::unfinished_run(ground.state_dir, ground.lock);
    if (!open)
      tick.error = open.error();
    else if (*open && coord::is_free(ground.state_dir, ground.lock))
      sight.open = **std::move(open);
    remember(memory_, sight);
    tick.decision = decide(sight, memory_);
  };

  // What held connections know is of slightly different moments: enough to see that all is well.
  if (told.snapshot) {
    tick.view = see(world_, *told.snapshot);
    judge_and_decide(tick.view);
    tick.was_calm = is_calm(tick.view, tick.decision);
  }
  if (!tick.was_calm) {
    tick.view = fresh_view(told);
    judge_and_decide(tick.view);
    log::debug(fmt::format("redis {}: {}; {}", name_of(tick.view.verdict.state),
                           tick.view.verdict.summary, name_of(tick.decision.act)));
  }
  vote(tick.view);
  say_blocked(tick);
  tick.again = until_next(tick);
  if (tick.decision.act != Act::none) {
    if (hooks_.judged) hooks_.judged(tick);
    act(tick);
  }
  return tick;
}

void RedisKeeper::say_blocked(const Tick& tick) {
  if (!tick.decision.is_blocked) {
    said_.erase("blocked");
    return;
  }
  const auto& node = tick.view.verdict.master;
  // How long it still takes is nothing new.
  auto reason = node + " " + without_times(tick.decision.why);
  if (auto& last = said_["blocked"]; last != reason) {
    last = std::move(reason);
    say("blocked", node, tick.decision.why);
  }
}

Millis RedisKeeper::until_next(const Tick& tick) {
  const auto& policy = world_.deployment().policy;
  if (is_calm(tick.view, tick.decision) || !policy.automatic ||
      coordinator_.standing().role != coord::Standing::Role::leader) {
    uneasy_since_.reset();
    return policy.probe_interval;
  }
  const auto now = monotonic_now();
  if (!uneasy_since_) uneasy_since_ = now;
  const bool may_settle = now - *uneasy_since_ < policy.silent_after + kUneasy;
  return may_settle && !calls_for_failover(tick.view.verdict.state) ? kSoon : kWaiting;
}

void RedisKeeper::act(Tick& tick) {
  const auto key = tick.decision.key();
  if (tick.decision.act == Act::failover)
    say_once("confirmed", "confirmed", tick.decision.subject, tick.decision.why);
  auto result = tick.decision.act == Act::failover ? failover(tick.view)
                : tick.decision.act == Act::resume ? resume(tick.decision.subject)
                                                   : rejoin(tick.decision.subject);
  tick.again = kSoon;
  if (result) {
    tick.report = *result;
    const auto* check = result->step("check");
    const bool serves = check != nullptr && check->state == run::StepState::done;
    if (result->ending == run::Ending::done || (result->ending == run::Ending::partial && serves)) {
      note_success(memory_, key);
      said_.clear();
      return;
    }
    tick.error = result->error.value_or(
        Error{Code::failed, "run " + result->id + " did not end well", {}, {}, false});
  } else {
    tick.error = result.error();
  }
  // Somebody else is at work, or has just been.
  const bool waits = tick.error->code == Code::locked;
  const bool yields = tick.report && gave_way(*tick.report);
  if (waits)
    tick.again = kWaiting;
  else if (!yields)
    note_failure(memory_, key, monotonic_now());
  say_once(key,
           waits    ? "waits"
           : yields ? "gave_way"
                    : "failed",
           tick.decision.subject, fmt::format("{}: {}", key, tick.error->message));
}

std::function<bool()> RedisKeeper::hurry_for(const run::Plan& plan) const {
  if (!hooks_.hurry) return {};
  return [this, master = get_string(plan.context, "master")] { return hooks_.hurry(master); };
}

run::Hooks RedisKeeper::hooks_for(const run::Plan& plan) {
  auto hooks = hooks_.run;
  hooks.on_end = [this, &plan, also = hooks.on_end](const run::StepReport& step) {
    if (step.state == run::StepState::done) {
      if (const auto* kind = kind_of(step.name))
        say(kind, step.subject, {}, step.run, Millis(step.ms));
      // Before the end of the run, which this agent may not see.
      if (const auto told = tell_failover(coordinator_, world_.deployment(), plan, step); !told)
        say_once("note", "failed", {}, told.error().message);
    }
    if (also) also(step);
  };
  return hooks;
}

Result<run::RunReport> RedisKeeper::failover(const RedisView& view) {
  ZX_ASSIGN(const auto turn,
            take_turn(ground_of(world_, &coordinator_),
                      {"failover redis (agent)", is_about_a_replica, false, true}));
  const auto before = record_;
  ZX_TRY(read_own_record());
  if (record_ != before)
    return fail(Code::locked, "somebody else was at work until now: looking again");
  RedisFailoverOptions options;
  options.view = view;
  if (auto& seen = *options.view; hooks_.inquiry && seen.verdict.state == RedisState::master_silent)
    if (const auto inquiry = hooks_.inquiry(seen.verdict.master)) {
      add(seen.snapshot, *inquiry);
      seen.verdict = judge(world_.deployment(), seen.snapshot, seen.last);
    }
  RedisPrepared looked;
  auto prepared = prepare_redis_failover(world_, options, &looked);
  // Its host has said so now: no failover has failed, and the next look comes soon.
  if (!prepared && looked.view.verdict.state == RedisState::master_overloaded)
    return fail(Code::locked, looked.view.verdict.summary);
  if (!prepared) return fail(prepared.error());
  say("decided", prepared->choice.promote,
      fmt::format("promote {}, give {} up: {}", prepared->choice.promote,
                  prepared->view.verdict.master, prepared->fence.why));
  prepared->plan.context["agent"] = self_;
  sign(prepared->plan, record_);
  ZX_TRY(supersede(ground_of(world_, nullptr), prepared->plan.command));
  return ha::carry_out(world_, prepared->plan, *turn, hooks_for(prepared->plan));
}

// It follows again. What it took beside the master is given up when the last failover gave it up
// itself; anything else that only it has is for a person.
Result<run::RunReport> RedisKeeper::rejoin(const std::string& node) {
  ZX_ASSIGN(const auto turn, take_turn(ground_of(world_, &coordinator_),
                                       {"redis sync (agent)", is_about_a_replica, false}));
  ZX_TRY(read_own_record());
  const auto& last = record_.last;
  const bool gave_up = last && last->from == node;
  ZX_ASSIGN(auto prepared, prepare_redis_sync(world_, node, gave_up ? node : std::string()));
  if (!prepared.gives_up.empty() && last->to != prepared.view.verdict.master)
    return fail(Code::locked, "somebody else was at work until now: looking again");
  if (prepared.nothing_to_do) {
    run::RunReport report;
    report.ending = run::Ending::done;
    return report;
  }
  say("decided", node,
      prepared.gives_up.empty() ? prepared.plan.summary : "given up: " + prepared.gives_up);
  prepared.plan.context["agent"] = self_;
  sign(prepared.plan, record_);
  ZX_TRY(supersede(ground_of(world_, nullptr), prepared.plan.command));
  const os::InterruptibleBy hurry(hurry_for(prepared.plan));
  return ha::carry_out(world_, prepared.plan, *turn, hooks_for(prepared.plan));
}

Result<run::RunReport> RedisKeeper::resume(const std::string& run) {
  ZX_ASSIGN(const auto turn,
            take_lock(ground_of(world_, &coordinator_), {"runs resume (agent)", {}, false, true}));
  ZX_TRY(read_own_record());
  const auto& state_dir = world_.config().platform.state_dir;
  ZX_ASSIGN(const auto record, run::read_run(state_dir, run));
  if (const auto why = overtaken_by(record_, record); !why.empty()) {
    ZX_TRY(turn->check());
    ZX_TRY(run::close_run(state_dir, run, "superseded", why));
    say("superseded", {}, fmt::format("run {} ({}): {}", run, record.plan.command, why), run);
    run::RunReport report;
    report.ending = run::Ending::done;
    return report;
  }
  return take_up(world_, run, *turn, hooks_for(record.plan));
}

}  // namespace zx::ha
