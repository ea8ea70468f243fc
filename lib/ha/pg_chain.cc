#include "lib/ha/pg_chain.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/pg_actions.h"
#include "lib/ha/pg_inquiry.h"
#include "lib/ha/pg_prepare.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/pg_watch.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

const std::string& state_dir(const PgWorld& world) { return world.config().platform.state_dir; }

pg::NodeFacts* find(pg::Snapshot& snapshot, const std::string& name) {
  for (auto& facts : snapshot.nodes)
    if (facts.name == name) return &facts;
  return nullptr;
}

// Could another look change the verdict soon?
bool may_settle(const View& view) {
  switch (view.verdict.state) {
    case PgState::primary_unreachable:
    case PgState::primary_starting:
    case PgState::primary_shutting_down: return true;
    case PgState::unknown: {
      const auto* facts = view.snapshot.node(view.verdict.primary);
      return facts != nullptr && facts->failure == pg::Failure::broken;
    }
    default: return false;
  }
}

bool is_transition(PgState state) {
  return state == PgState::primary_starting || state == PgState::primary_shutting_down;
}

Error refusal_of(const PgVerdict& verdict) {
  Error error{Code::refused, verdict.summary, verdict.hint, {}, false};
  if (verdict.state == PgState::healthy || verdict.state == PgState::degraded) {
    // One on an earlier timeline than a standby has a hint of its own.
    error.message = verdict.primary + " is alive" +
                    (verdict.hint.empty() ? std::string() : ", but " + verdict.problems.front());
    if (verdict.hint.empty())
      error.hint = "to move the primary on purpose: zx switchover pg --to NODE";
  }
  for (const auto& evidence : verdict.evidence)
    error.trail.push_back(fmt::format("{}: {}", evidence.node, evidence.text));
  return error;
}

// A refusal by TCP can be one unlucky moment of a restart: two more must agree.
constexpr int kConfirmTries = 2;
constexpr Millis kConfirmApart{20};
constexpr Millis kLookAgain{15};

Status confirm_death(PgWorld& world, View& view) {
  const auto* facts = view.snapshot.node(view.verdict.primary);
  if (view.verdict.state != PgState::primary_dead || facts == nullptr) return {};
  if (world.refuses(facts->name, kConfirmTries, kConfirmApart,
                    world.cluster().policy.probe_deadline))
    return {};
  return fail(Code::refused, facts->name + " refused a connection and accepts one now",
              "look again: zx status");
}

// Is it still true for whom the old primary's commits wait? Its files say so, or a look that is not
// long ago; someone may have changed the setting since.
constexpr Millis kFresh{10 * 60'000};
bool knows_sync_names(const View& view) {
  const auto* old = view.snapshot.node(view.verdict.primary);
  if (old != nullptr && old->local && old->local->sync_names_known) return true;
  return view.last && view.snapshot.at - view.last->at < kFresh;
}

// A coordinator that cannot be asked now cannot tell later either that the lease has run out.
bool is_guarded(PgWorld& world, const std::string& node) {
  const auto guard = world.guard(node);
  return guard && guard->kind != coord::GuardState::Kind::unguarded;
}

// Runs that promote, from another state_dir or another host, must not pass each other. With etcd
// they do not; without, the servers tell. Those that the plan knows as gone are not asked.
Result<std::unique_ptr<coord::Lease>> claim(PgWorld& world, const run::Plan& plan,
                                            const coord::Lease& lease) {
  constexpr Millis kClaim{500};
  const bool promotes = plan.command == "failover pg" || plan.command == "switchover pg";
  const bool is_told = world.config().agent.coordination == "etcd" && lease.alone_because().empty();
  if (!promotes || is_told) return std::unique_ptr<coord::Lease>();
  std::vector<std::string> asked;
  for (const auto& step : plan.steps)
    if (step.name == "freeze") asked = get_strings(step.args, "nodes");
  if (asked.empty())
    for (const auto& node : world.cluster().nodes) asked.push_back(node.name);
  std::sort(asked.begin(), asked.end());
  return world.claim(asked, plan.command,
                     Deadline::after(std::min(kClaim, world.cluster().policy.probe_deadline)));
}

// A help for later, not part of the answer: a full disk must not hide the state of the cluster. An
// agent looks twice a second and notes more when trouble begins, so what says nothing new waits.
void note_last_seen(const PgWorld& world, const View& view) {
  if (view.verdict.primaries.size() != 1) return;
  constexpr Millis kFreshEnough{5000};
  constexpr Millis kClockSetBack{10'000};
  const auto* primary = view.snapshot.node(view.verdict.primary);
  const auto& last = view.last;
  // Somebody looked later than the held connections did.
  if (last && last->at > primary->at && last->at - primary->at < kClockSetBack) return;
  // One that came back on an earlier timeline may have been given up: who took over is still who
  // served last, until every node says otherwise.
  const bool goes_back = last && last->lineage.system_id == primary->lineage.system_id &&
                         last->lineage.timeline > primary->lineage.timeline;
  if (goes_back &&
      std::any_of(view.snapshot.nodes.begin(), view.snapshot.nodes.end(), [&](const auto& facts) {
        return !facts.answered() || facts.lineage.timeline > primary->lineage.timeline;
      }))
    return;
  auto now = last_seen_of(view.snapshot);
  if (now) now->is_watched = world.watches();
  const bool says_new = !last || !now || says_more(*now, *last) || last->at > primary->at ||
                        primary->at - last->at >= kFreshEnough;
  if (now && says_new)
    static_cast<void>(write_last_seen(state_dir(world), world.cluster().name, *now));
}

}  // namespace

View see(PgWorld& world, pg::Snapshot snapshot) {
  View view;
  view.snapshot = std::move(snapshot);
  view.last = read_last_seen(state_dir(world), world.cluster().name);
  view.verdict = judge(world.cluster(), view.snapshot, view.last);
  note_last_seen(world, view);
  return view;
}

View look(PgWorld& world, Millis deadline, bool hosts) {
  if (!hosts) return see(world, world.observe({}, deadline));
  View view;
  view.snapshot = world.observe({}, deadline);
  view.last = read_last_seen(state_dir(world), world.cluster().name);
  {
    std::vector<std::string> silent;
    for (const auto& facts : view.snapshot.nodes)
      if (!facts.answered()) silent.push_back(facts.name);
    struct Looked {
      pg::NodeFacts facts;
    };
    const auto looked = all_at_once<Looked>(silent, [&](const std::string& name) {
      Looked one{*view.snapshot.node(name)};
      look_on_host(world, one.facts, std::nullopt, deadline);
      return one;
    });
    for (const auto& one : looked) *find(view.snapshot, one.facts.name) = one.facts;
  }
  view.verdict = judge(world.cluster(), view.snapshot, view.last);
  if (view.verdict.state == PgState::primary_silent) {
    view.snapshot.testimonies = world.ask_around(view.verdict.primary, deadline);
    view.verdict = judge(world.cluster(), view.snapshot, view.last);
  }
  note_last_seen(world, view);
  return view;
}

std::optional<std::uint64_t> lag_of(const View& view, const pg::NodeFacts& facts) {
  if (!facts.answered() || facts.role != pg::Role::standby) return std::nullopt;
  const auto* primary = only_primary(view);
  if (primary != nullptr) {
    // Positions of different lines say nothing.
    if (!newer_than(facts.name, facts.lineage, *primary).empty() ||
        pg::can_follow(facts.lineage, facts.position(), primary->lineage).kin == pg::Kin::diverged)
      return std::nullopt;
    return bytes_ahead(primary->flushed, facts.position());
  }
  // What was last seen of a primary that is gone says how far it came at least.
  const auto reference = reference_of(view.snapshot, view.verdict.primary, view.last);
  if (!reference.exact) return std::nullopt;
  return bytes_ahead(reference.end, facts.position());
}

std::optional<Forecast> forecast(const config::Config& config, const config::PgCluster& cluster,
                                 const View& view) {
  const auto* primary = only_primary(view);
  // What a standby on a later line lacks of an earlier one is no measure of a loss.
  if (primary == nullptr || ahead_of(view.snapshot, *primary) != nullptr) return std::nullopt;
  Forecast out;
  // When its host can be asked, its WAL says how far it came.
  const auto* host = config.host(primary->host);
  const bool has_host = host != nullptr && host->remote;
  ChooseOptions options;
  if (has_host) options.prior = Reference{primary->flushed, true, true, "its WAL"};
  const auto choice = choose(cluster, view.snapshot, primary->name, view.last, options);
  out.promote = choice.promote;
  out.lost = choice.lost;
  out.expected = expected_duration(view.snapshot);
  if (choice.refusal) {
    out.why_not = join(choice.refusal->trail, "; ");
    return out;
  }
  // Could it be fenced? Its host is taken to answer when there is a way to it.
  auto then = view.snapshot;
  auto* old = find(then, primary->name);
  old->failure = pg::Failure::refused;
  if (has_host) {
    old->local.emplace();
    old->local->is_data_directory = true;
  } else {
    old->local_error = fmt::format("host {} has no \"remote\"", old->host);
  }
  const auto fence =
      fence_means(cluster, then, primary->name, choice.sync_names, choice.sync_known, false);
  if (fence.kind != FenceMeans::Kind::none) return out;
  out.promote.clear();
  out.why_not = fence.why;
  return out;
}

Result<Prepared> prepare_failover(PgWorld& world, const FailoverOptions& options, Prepared* why) {
  const auto& policy = world.cluster().policy;
  const auto began = monotonic_now();
  if (!options.to.empty()) ZX_TRY(known_node(world, options.to, "--to"));
  // A password that cannot be read would make every node look unreachable.
  ZX_ASSIGN([[maybe_unused]] const auto password,
            config::password_of(world.config(), world.cluster()));

  Prepared prepared;
  auto patience = Deadline::after(policy.silent_after + policy.probe_deadline);
  bool first = true;
  while (true) {
    if (first && options.view)
      prepared.view = *options.view;
    else
      prepared.view = look(world, policy.probe_deadline, false);
    first = false;
    auto& view = prepared.view;
    // The longer grace is for a server that says itself that it is on its way.
    if (is_transition(view.verdict.state))
      patience = Deadline(began + policy.planned_restart_grace);
    // After every look: what others said of an earlier one is not known to this verdict.
    if (view.verdict.state == PgState::primary_silent && view.snapshot.testimonies.empty()) {
      view.snapshot.testimonies = world.ask_around(view.verdict.primary, policy.probe_deadline);
      view.verdict = judge(world.cluster(), view.snapshot, view.last);
    }
    if (!may_settle(view) || patience.passed()) break;
    if (const auto signal = os::interruption()) return fail(*signal);
    if (options.give_up && options.give_up->passed())
      return fail(Code::timeout, "not sure within the given time: " + view.verdict.summary,
                  "nothing was changed; give it more time with --timeout");
    if (options.progress) options.progress(view.verdict.summary);
    pause_for(kLookAgain);
  }
  auto& view = prepared.view;
  if (why != nullptr) *why = prepared;
  // Still starting after the grace: it accepts no writes, and the fence comes first.
  const bool overdue = is_transition(view.verdict.state) && patience.passed();
  if (!calls_for_failover(view.verdict.state) && !overdue) return fail(refusal_of(view.verdict));
  ZX_TRY(confirm_death(world, view));

  const ChooseOptions choose_options{options.to, options.allow_loss, {}, options.assume_fenced};
  const bool has_guard = is_guarded(world, view.verdict.primary);
  const auto weigh = [&] {
    prepared.choice =
        choose(world.cluster(), view.snapshot, view.verdict.primary, view.last, choose_options);
    prepared.fence = fence_means(
        world.cluster(), view.snapshot, view.verdict.primary, prepared.choice.sync_names,
        prepared.choice.sync_known && knows_sync_names(view), options.assume_fenced, has_guard);
  };
  weigh();
  // A host that is silent costs time to ask. What is proved without it is not asked there.
  const bool is_silent = view.verdict.state == PgState::primary_silent;
  const bool is_proved =
      is_silent && !prepared.choice.refusal && prepared.fence.kind == FenceMeans::Kind::quorum;
  auto* old = find(view.snapshot, view.verdict.primary);
  // An inquiry that got no answer is enough where the guard's lease tells.
  const bool was_asked = old != nullptr && (old->local || (has_guard && !old->local_error.empty()));
  if (old != nullptr && !old->answered() && !is_proved && !was_asked) {
    look_at_old_primary(world, view.snapshot, *old,
                        is_silent && has_guard ? policy.probe_deadline / 2
                                               : std::max(policy.probe_deadline, Millis(2000)));
    weigh();
  }
  prepared.looked = since(began);
  if (!prepared.choice.refusal && prepared.fence.kind != FenceMeans::Kind::none)
    prepared.plan = plan_failover(world.cluster(), view.snapshot, view.verdict, prepared.choice,
                                  prepared.fence, choose_options);
  if (why != nullptr) *why = prepared;
  if (prepared.choice.refusal) return fail(*prepared.choice.refusal);
  if (prepared.fence.kind == FenceMeans::Kind::none) {
    Error error{Code::refused, prepared.fence.why, join(prepared.fence.ways_out, "; "), {}, false};
    error.trail.push_back(
        "without a fence it could come back and accept writes beside the new primary");
    return fail(error);
  }
  return prepared;
}

Ground ground_of(const PgWorld& world, coord::Shared* shared) {
  return {state_dir(world), lock_of(world.cluster()), shared};
}

Result<std::unique_ptr<coord::Lease>> take_lock(PgWorld& world, coord::Shared* shared,
                                                const TurnWish& wish) {
  return take_lock(ground_of(world, shared), wish);
}

Result<std::unique_ptr<coord::Lease>> take_turn(PgWorld& world, coord::Shared* shared,
                                                const TurnWish& wish) {
  return take_turn(ground_of(world, shared), wish);
}

bool is_about_a_standby(const run::Record& record) {
  const auto& command = record.plan.command;
  return command == "rejoin pg" || command == "repoint pg" || command == "fence pg" ||
         command == "sync pg";
}

Status supersede(PgWorld& world, const std::string& command) {
  return supersede(ground_of(world, nullptr), command);
}

Status may_take_lock(PgWorld& world, coord::Shared* shared, const TurnWish& wish) {
  return may_take_lock(ground_of(world, shared), wish);
}

Status may_take_turn(PgWorld& world, coord::Shared* shared, const TurnWish& wish) {
  return may_take_turn(ground_of(world, shared), wish);
}

Result<run::RunReport> carry_out(PgWorld& world, const run::Plan& plan, coord::Lease& lease,
                                 run::Hooks hooks) {
  ZX_ASSIGN(const auto claimed, claim(world, plan, lease));
  return run::execute(plan, pg_actions(world), state_dir(world),
                      with_signals(std::move(hooks), lease, claimed.get()));
}

Result<run::RunReport> take_up(PgWorld& world, const std::string& id, coord::Lease& lease,
                               run::Hooks hooks) {
  ZX_ASSIGN(const auto record, run::read_run(state_dir(world), id));
  ZX_ASSIGN(const auto claimed, claim(world, record.plan, lease));
  return run::resume(id, pg_actions(world), state_dir(world),
                     with_signals(std::move(hooks), lease, claimed.get()));
}

Result<run::RunReport> take_back(PgWorld& world, const std::string& id, coord::Lease& lease,
                                 run::Hooks hooks) {
  ZX_ASSIGN(const auto record, run::read_run(state_dir(world), id));
  // Each undo looks again; here, so that none of them is begun.
  if (const auto old = get_string(record.plan.context, "old_primary");
      !record.outcome && !record.no_return && !old.empty())
    ZX_TRY(none_took_over_from(world, old, id));
  ZX_ASSIGN(const auto claimed, claim(world, record.plan, lease));
  return run::abort(id, pg_actions(world), state_dir(world),
                    with_signals(std::move(hooks), lease, claimed.get()));
}

}  // namespace zx::ha
