#include "tests/sim/agent.h"

#include <fmt/format.h>

#include "lib/ha/pg_actions.h"

namespace zx::sim {
namespace {

constexpr Millis kTick{600};
constexpr Millis kCampaign{900};
constexpr Micros kRejoinAgain = 2 * kSecond;

}  // namespace

Agent::Agent(Environment& environment, Leases& leases, Invariants& invariants, Random random,
             int number, Place place, config::Config config)
    : env_(environment),
      leases_(leases),
      invariants_(invariants),
      random_(random),
      number_(number),
      name_(fmt::format("zx-{}", number + 1)),
      world_(environment, name_, place, std::move(config)) {}

void Agent::say(const std::string& what) {
  env_.trace([&] { return name_ + ": " + what; });
}

void Agent::start() {
  if (retired_ || runs() || env_.network.is_down(place())) return;
  say("starts");
  lines_left_ = -1;
  fiber_ = env_.scheduler.spawn([this] { loop(); });
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
}

void Agent::crash_after_lines(int lines, Micros restart) {
  lines_left_ = lines;
  restart_ = restart;
}

run::Hooks Agent::hooks() {
  run::Hooks hooks;
  hooks.on_line = [this] {
    if (lines_left_ < 0 || lines_left_-- > 0) return;
    say("is killed after a line of its journal");
    env_.scheduler.after(restart_, [this] { start(); });
    throw Killed{};
  };
  hooks.on_start = [this](const run::Step& step) {
    say(fmt::format("step {} ({})", step.name, step.subject));
  };
  hooks.on_end = [this](const run::StepReport& step) {
    say(fmt::format("step {}: {}{}", step.name, run::name_of(step.state),
                    step.error ? ": " + step.error->message : ""));
  };
  hooks.on_undo = [this](const run::Step& step, const Status& status) {
    say(fmt::format("undo {}: {}", step.name, status ? "done" : status.error().message));
  };
  return hooks;
}

void Agent::loop() {
  pause_for(Millis(random_.between(1, 400)));
  while (true) {
    const auto held = leases_.take(place(), number_, 0);
    if (!held) {
      pause_for(kCampaign);
      continue;
    }
    say(fmt::format("leads, token {}", held->token));
    ModelLease lease(env_.scheduler, leases_, place(), number_, *held,
                     env_.plants.skip_lease_check);
    while (lease.check()) {
      tick(lease);
      pause_for(kTick);
    }
    say("does not lead any more");
  }
}

void Agent::tick(coord::Lease& lease) {
  if (take_up_unfinished(lease)) return;
  const auto view = ha::look(world_, world_.cluster().policy.probe_deadline, false);
  if (ha::calls_for_failover(view.verdict.state) ||
      view.verdict.state == ha::PgState::primary_starting ||
      view.verdict.state == ha::PgState::primary_unreachable)
    fail_over(lease);
  else if (!view.verdict.primaries.empty())
    mend(lease, view);
  else
    last_refusal_ = view.verdict.summary;
}

// An unfinished run of its own, which a crash or a lost lease left.
bool Agent::take_up_unfinished(coord::Lease& lease) {
  const auto& state = world_.config().platform.state_dir;
  const auto open = run::unfinished_run(state, ha::lock_of(world_.cluster()));
  if (!open) {
    invariants_.violate("the journal can be read", open.error().message);
    return true;
  }
  if (!*open) return false;
  const auto& record = **open;
  say(fmt::format("takes up {}{}", record.plan.command,
                  record.no_return ? ", past no return" : ""));
  const bool forward = record.no_return || record.plan.command == "rejoin pg";
  const auto report = forward ? ha::take_up(world_, record.id, lease, hooks())
                              : ha::take_back(world_, record.id, lease, hooks());
  if (report && report->ending != run::Ending::partial) return true;
  const auto& error = report ? *report->error : report.error();
  say("cannot take it up: " + error.message);
  last_refusal_ = error.message;
  if (!lease.check()) return true;
  // Where another primary serves, what is left of it is nobody's business any more.
  const auto view = ha::look(world_, world_.cluster().policy.probe_deadline, false);
  if (view.verdict.primaries.size() == 1)
    if (const auto closed = run::close_run(state, record.id, "superseded", "another serves");
        closed)
      say("closes it as it is");
  return true;
}

Agent::Settings Agent::settings() const {
  Settings all;
  for (const auto& node : env_.cluster.nodes)
    all[node.name] = {node.conninfo, node.slot, node.standby_signal, node.fence.has_value()};
  return all;
}

void Agent::fail_over(coord::Lease& lease) {
  const int effects = world_.effects();
  ha::FailoverOptions options;
  options.give_up = Deadline::after(Millis(2500));
  const auto prepared = ha::prepare_failover(world_, options, nullptr);
  if (world_.effects() != effects)
    invariants_.violate("a refusal changes nothing", "prepare_failover had an effect");
  if (!prepared) {
    say("no failover: " + prepared.error().message);
    last_refusal_ = prepared.error().message;
    for (const auto& why : prepared.error().trail) last_refusal_ += "; " + why;
    return;
  }
  if (prepared->fence.kind == ha::FenceMeans::Kind::policy)
    invariants_.allow_unfenced(prepared->view.verdict.primary);
  say(fmt::format("failover: {}, {}; promote {}, fence {}", name_of(prepared->view.verdict.state),
                  prepared->view.verdict.summary, prepared->choice.promote,
                  name_of(prepared->fence.kind)));
  carry_out(lease, prepared->plan);
}

std::optional<run::RunReport> Agent::carry_out(coord::Lease& lease, const run::Plan& plan) {
  const auto is_rejoin = [](const run::Record& open) { return open.plan.command == "rejoin pg"; };
  const auto turn = ha::take_turn(world_, plan.command, is_rejoin);
  if (!turn) {
    say("no turn: " + turn.error().message);
    return std::nullopt;
  }
  if (const auto done = ha::supersede(world_, plan.command); !done) return std::nullopt;
  ++runs_begun_;
  const int effects = world_.effects();
  auto report = env_.plants.skip_guards
                    ? run::execute(plan, actions(), world_.config().platform.state_dir, hooks())
                    : ha::carry_out(world_, plan, lease, hooks());
  if (!report) {
    say("nothing begun: " + report.error().message);
    if (world_.effects() != effects)
      invariants_.violate("a refusal changes nothing", "a run that was not begun had an effect");
    return std::nullopt;
  }
  say(fmt::format("run of {}: {}{}", plan.command, run::name_of(report->ending),
                  report->error ? ": " + report->error->message : ""));
  if (report->error) last_refusal_ = report->error->message;
  return *std::move(report);
}

// A planted bug: no step asks whether it is still safe.
run::Actions Agent::actions() {
  auto actions = ha::pg_actions(world_);
  for (auto& [name, action] : actions) action.guard = {};
  return actions;
}

void Agent::mend(coord::Lease& lease, const ha::View& view) {
  const auto& snapshot = view.snapshot;
  const pg::NodeFacts* primary = nullptr;
  for (const auto& name : view.verdict.primaries) {
    const auto* facts = snapshot.node(name);
    if (primary == nullptr || facts->lineage.timeline > primary->lineage.timeline) primary = facts;
  }
  for (const auto& facts : snapshot.nodes) {
    if (&facts == primary) continue;
    const bool follows =
        facts.answered() && facts.receives() && ha::upstream_node(snapshot, facts) == primary->name;
    if (follows) continue;
    auto& not_before = not_before_[facts.name];
    // A moment to come back by itself.
    if (not_before == 0) not_before = env_.scheduler.now() + kRejoinAgain;
    if (env_.scheduler.now() < not_before) continue;
    not_before = env_.scheduler.now() + kRejoinAgain;
    return rejoin(lease, facts.name);
  }
}

void Agent::rejoin(coord::Lease& lease, const std::string& node) {
  const int effects = world_.effects();
  auto prepared = ha::prepare_rejoin(world_, node, false);
  if (!prepared && prepared.error().hint.find("--rebuild") != std::string::npos)
    prepared = ha::prepare_rejoin(world_, node, true);
  if (world_.effects() != effects)
    invariants_.violate("a refusal changes nothing", "prepare_rejoin had an effect");
  if (!prepared || prepared->nothing_to_do) {
    last_refusal_ = prepared ? prepared->said : prepared.error().message;
    return say(fmt::format("no rejoin of {}: {}", node, last_refusal_));
  }
  if (prepared->gives_up_newer) return;
  say("rejoin: " + prepared->plan.summary);
  const auto report = carry_out(lease, prepared->plan);
  if (!report || report->ending == run::Ending::done) return;
  // A rewind that cannot be made is told to be rebuilt.
  if (report->error && report->error->hint.find("--rebuild") == std::string::npos) return;
  const auto anew = ha::prepare_rejoin(world_, node, true);
  if (anew && !anew->nothing_to_do && !anew->gives_up_newer && lease.check())
    carry_out(lease, anew->plan);
}

Status Agent::end_unfinished() {
  const auto& state = world_.config().platform.state_dir;
  ZX_ASSIGN(const auto open, run::unfinished_run(state, ha::lock_of(world_.cluster())));
  if (!open) return {};
  const auto held = leases_.take(place(), number_, 0);
  if (!held) return fail(Code::locked, "somebody else has the lease");
  ModelLease lease(env_.scheduler, leases_, place(), number_, *held, false);
  take_up_unfinished(lease);
  ZX_ASSIGN(const auto still, run::unfinished_run(state, ha::lock_of(world_.cluster())));
  if (!still) return {};
  return fail(Code::partial,
              fmt::format("{} is still unfinished: {}", still->plan.command, last_refusal_));
}

}  // namespace zx::sim
