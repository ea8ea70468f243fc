#include "tests/sim/agent.h"

#include <fmt/format.h>

#include "lib/ha/pg_actions.h"
#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_heir.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/sync_debt.h"

namespace zx::sim {
namespace {

// Where nothing holds connections a look costs a round trip: not at every poll.
constexpr Millis kLeastPause{80};

}  // namespace

Agent::Agent(Environment& environment, CoordinatorService& service, Invariants& invariants,
             Random random, int number, Place place, Place coordinator, config::Config config,
             int commands)
    : env_(environment),
      service_(service),
      invariants_(invariants),
      random_(random),
      number_(number),
      name_(fmt::format("{}-{}", commands > 0 ? "person" : "zx", number + 1)),
      coordinator_place_(coordinator),
      world_(environment, name_, place, std::move(config)),
      is_person_(commands > 0),
      commands_left_(commands) {}

void Agent::say(const std::string& what) {
  env_.trace([&] { return name_ + ": " + what; });
}

void Agent::start() {
  if (retired_ || runs() || env_.network.is_down(place())) return;
  say("starts");
  lines_left_ = -1;
  given_over_.clear();
  ++lives_;
  fiber_ = env_.scheduler.spawn([this] { is_person_ ? by_hand() : loop(); });
  if (place() < static_cast<Place>(env_.cluster.wall_offsets.size()))
    fiber_->wall_offset = &env_.cluster.wall_offsets[static_cast<std::size_t>(place())];
}

void Agent::crash(Micros restart) {
  if (runs()) {
    say("is killed");
    env_.scheduler.kill(*fiber_);
  }
  if (restart >= 0) env_.scheduler.after(restart, [this] { start(); });
}

void Agent::retire() {
  retired_ = true;
  crash(-1);
  lines_left_ = -1;
}

void Agent::pause(Micros span) {
  if (!runs()) return;
  say(fmt::format("is stopped for {} ms", span / kMs));
  fiber_->pause_until(env_.scheduler.now() + span);
  if (coordinator_ != nullptr) coordinator_->pause_until(env_.scheduler.now() + span);
  if (shared_ != nullptr) shared_->pause_until(env_.scheduler.now() + span);
}

void Agent::crash_after_lines(int lines, Micros lasts, bool only_stopped) {
  lines_left_ = lines;
  lasts_ = lasts;
  only_stopped_ = only_stopped;
}

ha::PgKeeper::Hooks Agent::hooks() {
  ha::PgKeeper::Hooks hooks;
  hooks.event = [this](const store::Event& event) {
    last_words_ = fmt::format("{} {}: {}", event.kind, event.node, event.text);
    say(last_words_);
    if (event.kind == "blocked")
      for (const auto& node : env_.cluster.nodes)
        if (event.text.find(ha::rebuild_hint(node.name)) != std::string::npos)
          given_over_.insert(node.name);
    if (event.kind == "rejoined") given_over_.erase(event.node);
    if (event.kind == "unproved") invariants_.allow_unfenced(event.node);
    if (event.kind != "decided" || event.text.find("require_fence is off") == std::string::npos)
      return;
    for (const auto& node : env_.cluster.nodes)
      if (node.name != event.node) invariants_.allow_unfenced(node.name);
  };
  hooks.run.on_line = [this] {
    if (lines_left_ < 0 || lines_left_-- > 0) return;
    if (only_stopped_) {
      pause(lasts_);
      return env_.scheduler.sleep(0);
    }
    say("is killed after a line of its journal");
    env_.scheduler.after(lasts_, [this] { start(); });
    throw Killed{};
  };
  hooks.run.on_start = [this](const run::Step& step) {
    say(fmt::format("step {} ({})", step.name, step.subject));
    // That bug is to be found by what comes of it.
    if (!env_.plants.skip_turn && (coordinator_ != nullptr || shared_ != nullptr) &&
        service_.turn_lost_for(env_.scheduler.now(), process()) > kSecond)
      invariants_.violate(
          "one run acts",
          fmt::format("{} begins step {} while another has the turn", name_, step.name));
    if (coordinator_ == nullptr) return;  // a person
    if (service_.lost_for(env_.scheduler.now(), process()) > kSecond)
      invariants_.violate("one agent acts",
                          fmt::format("{} begins step {} and does not lead", name_, step.name));
  };
  hooks.run.on_end = [this](const run::StepReport& step) {
    const auto& why = step.error ? step.error->message : step.why_skipped;
    say(fmt::format("step {}: {}{}{}", step.name, run::name_of(step.state), why.empty() ? "" : ": ",
                    why));
  };
  hooks.run.on_undo = [this](const run::Step& step, const Status& status) {
    say(fmt::format("undo {}: {}", step.name, status ? "done" : status.error().message));
  };
  return hooks;
}

void Agent::loop() {
  pause_for(Millis(random_.between(1, 400)));
  ModelCoordinator coordinator(env_.scheduler, env_.network, service_, place(), coordinator_place_,
                               process(), name_, name_, env_.plants.skip_lease_check);
  struct Known {
    Agent& agent;
    ~Known() {
      agent.coordinator_ = nullptr;
      agent.world_.share(nullptr);
    }
  } known{*this};
  coordinator_ = &coordinator;
  world_.share(&coordinator);
  world_.watch();
  ha::PgKeeper keeper(world_, coordinator, name_, name_, hooks());
  while (true) {
    const int effects = world_.effects();
    // What the held connections of the real agent bring.
    ha::PgKeeper::Told told;
    told.snapshot = world_.observe({}, world_.cluster().policy.probe_deadline);
    const auto tick = keeper.tick(told);
    watch(tick, effects);
    pause_for(std::max(tick.again, kLeastPause));
  }
}

void Agent::watch(const ha::PgKeeper::Tick& tick, int effects) {
  if (tick.error) {
    last_words_ = tick.error->message;
    for (const auto& why : tick.error->trail) last_words_ += "; " + why;
    say(last_words_);
  }
  if (tick.report) {
    ++runs_begun_;
    say(fmt::format("run of {}: {}{}", tick.report->plan.command, run::name_of(tick.report->ending),
                    tick.report->error ? ": " + tick.report->error->message : ""));
    return;
  }
  if (world_.effects() != effects)
    invariants_.violate("a refusal changes nothing",
                        fmt::format("{} had an effect: {}", ha::name_of(tick.decision.act),
                                    tick.error ? tick.error->message : tick.decision.why));
}

// Ends what an earlier command of his has left, then types the next ones.
void Agent::by_hand() {
  while (true) {
    pause_for(Millis(random_.between(200, 6000)));
    effects_ = world_.effects();
    ModelShared shared(env_.scheduler, env_.network, service_, place(), coordinator_place_,
                       process(), env_.plants.skip_turn);
    struct Known {
      Agent& agent;
      ~Known() {
        agent.shared_ = nullptr;
        agent.world_.share(nullptr);
      }
    } known{*this};
    shared_ = &shared;
    world_.share(&shared);
    const auto open =
        run::unfinished_run(world_.config().platform.state_dir, ha::lock_of(world_.cluster()));
    if (!open || (!*open && commands_left_ == 0)) return;
    const auto report = command(shared);
    if (report) {
      ++runs_begun_;
      last_words_ = fmt::format("{}: {}", report->plan.command, run::name_of(report->ending));
    } else {
      last_words_ = report.error().message;
      if (world_.effects() != effects_)
        invariants_.violate("a refusal changes nothing", "by hand: " + last_words_);
    }
    say(last_words_);
  }
}

Result<run::RunReport> Agent::command(coord::Shared& shared) {
  const auto& state = world_.config().platform.state_dir;
  const auto& cluster = world_.cluster();
  ha::ToldByHand told(&shared, cluster.name, false);
  const auto tell = [&](const run::RunReport& report) {
    if (told.end(report))
      static_cast<void>(ha::share_sync_debt(state, shared, cluster.name, report.id));
  };
  ZX_ASSIGN(const auto open, run::unfinished_run(state, ha::lock_of(cluster)));
  if (open) {
    say("zx runs resume");
    ZX_ASSIGN(const auto turn, ha::take_lock(world_, &shared, {"runs resume", {}, false}));
    if (const auto may = told.resume(*open, true); !may) {
      if (may.error().code == Code::refused)
        ZX_TRY(run::close_run(state, open->id, "abandoned", "as it is"));
      return fail(may.error());
    }
    auto report = ha::take_up(world_, open->id, *turn, told.with(hooks().run, open->plan));
    if (report) tell(*report);
    const auto view = ha::look(world_, cluster.policy.probe_deadline, false);
    // As the hint says where another has taken over: what it did stays.
    if (!report || report->ending == run::Ending::partial)
      if (view.verdict.primaries.size() == 1)
        ZX_TRY(run::close_run(state, open->id, "abandoned", "as it is"));
    return report;
  }
  --commands_left_;
  const bool moves = random_.percent(40);
  const auto& node = cluster.nodes[static_cast<std::size_t>(
      random_.between(0, static_cast<int>(cluster.nodes.size()) - 1))];
  const std::string name = moves ? "switchover pg" : "failover pg";
  say("zx " + name + (moves ? " --to " + node.name : ""));
  ZX_ASSIGN(const auto turn, ha::take_turn(world_, &shared, {name, ha::is_about_a_standby, false}));
  const auto prepare = [&]() -> Result<ha::Prepared> {
    if (moves) return ha::prepare_switchover(world_, node.name);
    ZX_ASSIGN(auto found, ha::prepare_failover_by_hand(world_, &shared, {}, false, nullptr));
    if (!found.fence_first.empty()) {
      const auto plan = ha::plan_fence(cluster, found.fence_first, "");
      ZX_TRY(ha::supersede(world_, plan.command));
      ZX_ASSIGN(const auto fenced, ha::carry_out(world_, plan, *turn, hooks().run));
      // A run of its own, which the command tells.
      effects_ = world_.effects();
      if (fenced.ending != run::Ending::done) return fail(*fenced.error);
      ZX_ASSIGN(found, ha::prepare_failover_by_hand(world_, &shared, {}, false, nullptr));
      if (!found.fence_first.empty()) return fail(Code::refused, "it may be a primary again");
    }
    if (!found.unproved.empty()) invariants_.allow_unfenced(found.unproved);
    return std::move(found.prepared);
  };
  ZX_ASSIGN(auto prepared, prepare());
  if (prepared.nothing_to_do) return fail(Code::refused, prepared.said);
  if (prepared.fence.why.find("require_fence is off") != std::string::npos)
    for (const auto& one : env_.cluster.nodes)
      if (one.name != prepared.choice.promote) invariants_.allow_unfenced(one.name);
  ZX_TRY(told.begin(prepared.plan, prepared.choice.promote));
  ZX_TRY(ha::supersede(world_, name));
  auto report = ha::carry_out(world_, prepared.plan, *turn, told.with(hooks().run, prepared.plan));
  if (report) tell(*report);
  return report;
}

Status Agent::end_unfinished() {
  const auto& state = world_.config().platform.state_dir;
  const auto lock = ha::lock_of(world_.cluster());
  ZX_ASSIGN(const auto open, run::unfinished_run(state, lock));
  if (!open) return {};
  say(fmt::format("run of {} is unfinished", open->plan.command));
  ZX_ASSIGN(const auto lease, ha::take_lock(world_, nullptr, {"runs resume", {}, false}));
  run::Hooks hooks = this->hooks().run;
  auto report = ha::take_up(world_, open->id, *lease, hooks);
  if (report && report->ending != run::Ending::partial) return {};
  const auto error = report ? *report->error : report.error();
  say("it cannot be taken up: " + error.message);
  // As the hint says where another has taken over: what it did stays.
  const auto view = ha::look(world_, world_.cluster().policy.probe_deadline, false);
  if (view.verdict.primaries.size() != 1) return fail(error);
  return run::close_run(state, open->id, "superseded", "as it is");
}

}  // namespace zx::sim
