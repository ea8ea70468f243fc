#include "lib/ha/redis_chain.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_inquiry.h"
#include "lib/ha/redis_quorum.h"
#include "lib/ha/redis_restore.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

redis::NodeFacts* find(redis::Snapshot& snapshot, const std::string& name) {
  for (auto& facts : snapshot.nodes)
    if (facts.name == name) return &facts;
  return nullptr;
}

// A help for later, not part of the answer: a full disk must not hide the state of the deployment.
void note_last_seen(const RedisWorld& world, const RedisView& view) {
  constexpr Millis kFreshEnough{1'000};
  constexpr std::int64_t kFarEnough = 64 * 1024;
  // One that came back empty, or beside another, is not whom the next look must measure against.
  if (view.verdict.state != RedisState::healthy && view.verdict.state != RedisState::degraded)
    return;
  const auto now = redis_last_seen_of(view.snapshot, view.last);
  if (!now) return;
  const auto& last = view.last;
  const bool says_new = !last || says_more(*now, *last) || last->at > now->at ||
                        now->at - last->at >= kFreshEnough ||
                        now->lineage.offset - last->lineage.offset >= kFarEnough;
  if (says_new)
    static_cast<void>(write_redis_last_seen(state_dir_of(world), world.deployment().name, *now));
}

// Could another look change the verdict soon?
bool may_settle(const RedisView& view) {
  switch (view.verdict.state) {
    case RedisState::master_unreachable: return true;
    case RedisState::unknown: {
      const auto* facts = view.snapshot.node(view.verdict.master);
      return facts != nullptr && facts->failure == redis::Failure::broken;
    }
    default: return false;
  }
}

Error refusal_of(const RedisVerdict& verdict) {
  Error error{Code::refused, verdict.summary, verdict.hint, {}, false};
  if (verdict.state == RedisState::healthy || verdict.state == RedisState::degraded) {
    error.message = verdict.master + " is alive";
    error.hint = "to move the master on purpose: zx failover redis --planned --to NODE";
  }
  for (const auto& evidence : verdict.evidence)
    error.trail.push_back(fmt::format(
        "{}: {}", evidence.node.empty() ? evidence.observer : evidence.node, evidence.text));
  return error;
}

// A refusal by TCP can be one unlucky moment of a restart: two more must agree.
constexpr int kConfirmTries = 2;
constexpr Millis kConfirmApart{20};
constexpr Millis kLookAgain{15};
// An ssh to a busy host.
constexpr Millis kHostPatience{2'000};

Status confirm_death(RedisWorld& world, const RedisView& view) {
  if (view.verdict.state != RedisState::master_dead) return {};
  if (world.refuses(view.verdict.master, kConfirmTries, kConfirmApart,
                    world.deployment().policy.probe_deadline))
    return {};
  return fail(Code::refused, view.verdict.master + " refused a connection and accepts one now",
              "look again: zx redis status");
}

Status known_node(const RedisWorld& world, const std::string& name, const char* flag) {
  if (world.deployment().node(name) != nullptr) return {};
  std::vector<std::string> names;
  for (const auto& node : world.deployment().nodes) names.push_back(node.name);
  const auto near = nearest(name, names);
  return fail(
      Code::not_found,
      fmt::format("{}: no node named \"{}\" in redis.{}", flag, first_line(name),
                  world.deployment().name),
      near.empty() ? "nodes: " + join(names, ", ") : fmt::format("did you mean \"{}\"?", near));
}

bool has_sentinels(const RedisWorld& world) {
  return !world.deployment().sentinel.master_name.empty();
}

// With Sentinels there it goes through them, or they would undo it.
Status through_sentinels(RedisWorld& world, const RedisView& view) {
  const auto why = why_no_quorum(world.deployment(), view.snapshot);
  if (why.empty()) return {};
  return fail(Code::refused, why, way_to_a_quorum(world.deployment(), view.snapshot));
}

Error no_fence(const RedisFence& fence) {
  Error error{Code::refused, fence.why, join(fence.ways_out, "; "), {}, false};
  if (!fence.refusal.why.empty())
    error.trail.push_back("nor is it known to refuse writes by itself: " + fence.refusal.why);
  error.trail.emplace_back(
      "without a fence it could come back and take writes beside the new master");
  return error;
}

// Where the Sentinels choose, theirs stands in the place of zx's own choice.
void leave_to_them(RedisChoice& choice, const run::Plan& plan) {
  const auto theirs = get_string(plan.context, "to");
  if (!get_bool(plan.context, "they_choose") || theirs == choice.promote) return;
  for (auto& one : choice.candidates) {
    if (one.node == theirs) {
      one.fate = RedisCandidate::Fate::promote;
      one.reasons = {"first by the rule of the Sentinels"};
    } else if (one.node == choice.promote) {
      one.fate = RedisCandidate::Fate::follow;
      one.reasons.emplace_back("the Sentinels may choose it as well");
    }
  }
  choice.promote = theirs;
}

// --- planned --------------------------------------------------------------------------------

Result<RedisPrepared> prepare_planned(RedisWorld& world, const RedisFailoverOptions& options,
                                      RedisPrepared* why) {
  const auto& policy = world.deployment().policy;
  RedisPrepared prepared;
  prepared.planned = true;
  prepared.through_sentinels = has_sentinels(world);
  prepared.view = options.view ? *options.view : look(world, policy.probe_deadline, false);
  const auto& view = prepared.view;
  if (why != nullptr) *why = prepared;
  const auto& verdict = view.verdict;
  if (verdict.state != RedisState::healthy && verdict.state != RedisState::degraded) {
    auto error = Error{
        Code::refused, "there is no master to move: " + verdict.summary, verdict.hint, {}, false};
    if (calls_for_failover(verdict.state)) error.hint = "zx failover redis --dry-run";
    return fail(error);
  }
  const auto& master = *view.snapshot.node(verdict.master);
  if (options.to == master.name) {
    prepared.nothing_to_do = true;
    prepared.said = master.name + " is the master already";
    return prepared;
  }
  ZX_TRY(no_restore_left(world.deployment(), view.snapshot, master.name));
  RedisChooseOptions wish{options.to, std::nullopt, false, std::nullopt};
  prepared.choice = choose(world.deployment(), view.snapshot, master.name, view.last, wish);
  if (why != nullptr) *why = prepared;
  if (prepared.choice.refusal) {
    auto error = *prepared.choice.refusal;
    error.hint = "zx redis status says how the replicas are; zx redis sync NODE brings one in line";
    return fail(error);
  }
  const auto& to = prepared.choice.promote;
  const auto& facts = *view.snapshot.node(to);
  if (!facts.is_linked() || master_of(view.snapshot, facts) != master.name)
    return fail(Code::refused, fmt::format("{} is not linked to {}", to, master.name),
                "bring it back first: zx redis sync " + to);
  if (master.paused_by_failover)
    return fail(Code::refused, master.name + " is handing over already (FAILOVER)",
                "wait for it, or end it there: FAILOVER ABORT");
  if (prepared.through_sentinels) {
    ZX_TRY(through_sentinels(world, view));
    prepared.plan = plan_sentinel_failover(world.deployment(), view.snapshot, verdict,
                                           prepared.choice, nullptr, !options.to.empty());
  } else {
    prepared.plan = plan_redis_handover(world.deployment(), view.snapshot, master.name, to);
  }
  if (why != nullptr) *why = prepared;
  return prepared;
}

}  // namespace

RedisView see(RedisWorld& world, redis::Snapshot snapshot) {
  RedisView view;
  view.snapshot = std::move(snapshot);
  view.last = read_redis_last_seen(state_dir_of(world), world.deployment().name);
  view.verdict = judge(world.deployment(), view.snapshot, view.last);
  note_last_seen(world, view);
  return view;
}

RedisView look(RedisWorld& world, Millis deadline, bool hosts) {
  auto view = see(world, world.observe({}, deadline));
  if (!hosts) return view;
  std::vector<std::string> silent;
  for (const auto& facts : view.snapshot.nodes)
    if (!facts.answered()) silent.push_back(facts.name);
  const auto looked = all_at_once<redis::NodeFacts>(silent, [&](const std::string& name) {
    auto facts = *view.snapshot.node(name);
    look_on_host(world, facts, deadline);
    return facts;
  });
  for (const auto& one : looked) *find(view.snapshot, one.name) = one;
  view.verdict = judge(world.deployment(), view.snapshot, view.last);
  if (view.verdict.state == RedisState::master_silent) {
    view.snapshot.testimonies = world.ask_around(view.verdict.master, deadline);
    view.verdict = judge(world.deployment(), view.snapshot, view.last);
  }
  return view;
}

Result<RedisPrepared> prepare_redis_failover(RedisWorld& world, const RedisFailoverOptions& options,
                                             RedisPrepared* why) {
  if (!options.to.empty()) ZX_TRY(known_node(world, options.to, "--to"));
  if (options.planned) return prepare_planned(world, options, why);
  const auto& policy = world.deployment().policy;
  const auto began = monotonic_now();
  RedisPrepared prepared;
  prepared.through_sentinels = has_sentinels(world);
  // When a replica heard last is known in whole seconds.
  constexpr Millis kWhole{1000};
  const auto patience = Deadline::after(policy.silent_after + kWhole + 2 * policy.probe_deadline);
  bool first = true;
  while (true) {
    prepared.view =
        first && options.view ? *options.view : look(world, policy.probe_deadline, false);
    first = false;
    auto& view = prepared.view;
    // After every look: what others said of an earlier one is not known to this verdict.
    if (view.verdict.state == RedisState::master_silent && view.snapshot.testimonies.empty()) {
      add(view.snapshot, inquire(world, view.verdict.master, policy.probe_deadline));
      view.verdict = judge(world.deployment(), view.snapshot, view.last);
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
  if (!calls_for_failover(view.verdict.state)) return fail(refusal_of(view.verdict));
  ZX_TRY(confirm_death(world, view));

  const RedisChooseOptions wish{options.to, options.allow_loss, options.assume_fenced, {}};
  prepared.choice = choose(world.deployment(), view.snapshot, view.verdict.master, view.last, wish);
  auto* old = find(view.snapshot, view.verdict.master);
  if (old != nullptr && !old->answered() && !old->local && old->local_error.empty())
    look_on_host(world, *old, kHostPatience);
  const auto weigh = [&] {
    prepared.fence = redis_fence(world.deployment(), view.snapshot, view.verdict.master,
                                 options.assume_fenced, view.last);
  };
  weigh();
  // It was asked in passing, for as long as a decision may wait: before a refusal, once more.
  if (prepared.fence.kind == RedisFence::Kind::none && old != nullptr && !old->local) {
    look_on_host(world, *old, kHostPatience);
    weigh();
  }
  prepared.looked = since(began);
  if (why != nullptr) *why = prepared;
  if (prepared.choice.refusal) return fail(*prepared.choice.refusal);
  if (prepared.through_sentinels) {
    ZX_TRY(through_sentinels(world, view));
    if (prepared.fence.kind == RedisFence::Kind::none) return fail(no_fence(prepared.fence));
    prepared.plan = plan_sentinel_failover(world.deployment(), view.snapshot, view.verdict,
                                           prepared.choice, &prepared.fence, !options.to.empty());
    leave_to_them(prepared.choice, prepared.plan);
  } else {
    if (prepared.fence.kind == RedisFence::Kind::none) return fail(no_fence(prepared.fence));
    prepared.plan = plan_redis_failover(world.deployment(), view.snapshot, view.verdict,
                                        prepared.choice, prepared.fence, wish);
  }
  if (why != nullptr) *why = prepared;
  return prepared;
}

}  // namespace zx::ha
