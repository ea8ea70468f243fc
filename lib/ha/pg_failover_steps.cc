#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_choose.h"
#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_proof.h"
#include "lib/ha/pg_steps.h"

namespace zx::ha {
namespace {

using run::StepContext;

bool is_fenced_on_host(const StepContext& context) {
  return get_string(context.plan().context, "fence") == "host";
}

constexpr Millis kGlance{300};
constexpr Millis kGlanceAtSilent{100};

// Refused when a node other than `except` accepts writes.
Status nobody_leads_but(PgWorld& world, const StepContext& context, const std::string& except) {
  const auto deadline = std::min(world.cluster().policy.probe_deadline, kGlance);
  return no_primary_in(world, observe_all(world, context, deadline), except);
}

Lsn lsn_in(const Json& json, const char* key) {
  return parse_lsn(get_string(json, key)).value_or(Lsn{});
}

std::int64_t clock_ms() {
  return std::chrono::duration_cast<Millis>(monotonic_now().time_since_epoch()).count();
}

// --- freeze ---------------------------------------------------------------------------------

struct OneFrozen {
  std::string node;
  Result<pg::Frozen> result;
};

Result<Json> freeze(PgWorld& world, StepContext& context) {
  const auto nodes = get_strings(context.step().args, "nodes");
  // What they follow now is journalled before it is taken from them.
  if (context.noted("upstreams").is_null()) {
    Json upstreams = Json::object();
    using Upstream = Result<pg::CurrentUpstream>;
    const auto current = all_at_once<Upstream>(nodes, [&](const std::string& node) -> Upstream {
      return world.current_upstream(node, context.deadline());
    });
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (!current[i]) return fail(current[i].error());
      upstreams[nodes[i]] = {{"conninfo", current[i]->conninfo},
                             {"slot", current[i]->slot},
                             {"had_password", current[i]->had_password}};
      if (current[i]->had_password) {
        ZX_ASSIGN(const auto password,
                  config::replication_password_of(world.config(), world.cluster()));
        if (password.empty())
          return fail(
              Code::refused,
              fmt::format("primary_conninfo of {} has a password that zx could not put back",
                          nodes[i]),
              "set replication_password_file of the cluster, or use a passfile on the standbys");
      }
    }
    ZX_TRY(context.note("upstreams", upstreams));
  }
  const auto frozen = all_at_once<OneFrozen>(nodes, [&](const std::string& node) {
    return OneFrozen{node, world.freeze(node, context.deadline())};
  });
  Json seen{{"upstreams", context.noted("upstreams")}, {"positions", Json::object()}};
  for (const auto& one : frozen) {
    if (!one.result) return fail(one.result.error());
    seen["positions"][one.node] = to_string(one.result->position);
    if (!one.result->is_end) seen["replaying"].push_back(one.node);
  }
  seen["clock_ms"] = clock_ms();
  return seen;
}

Status unfreeze(PgWorld& world, StepContext& context) {
  ZX_TRY(none_took_over_from(world, old_primary_of(context), context.run_id()));
  const auto& upstreams = context.noted("upstreams");
  std::optional<Error> first;
  for (const auto& [node, upstream] : upstreams.items()) {
    auto status =
        world.set_upstream(node, get_string(upstream, "conninfo"), get_string(upstream, "slot"),
                           get_bool(upstream, "had_password"), context.deadline());
    if (!status && !first) first = status.error();
  }
  if (first) return fail(*first);
  return {};
}

// --- choose ---------------------------------------------------------------------------------

// `old_local`: what the host of the old primary says.
Result<Json> choose_by(PgWorld& world, StepContext& context, const Json& old_local) {
  const auto& plan = context.plan().context;
  const auto old = old_primary_of(context);
  const auto nodes = get_strings(context.plan().steps.front().args, "nodes");
  auto snapshot = world.observe(nodes, world.cluster().policy.probe_deadline);
  // Found at the end of their WAL, and nothing has come since.
  const auto& frozen = context.seen("freeze");
  const auto replaying = get_strings(frozen, "replaying");
  for (auto& facts : snapshot.nodes)
    if (get_object(frozen, "positions").contains(facts.name) &&
        std::find(replaying.begin(), replaying.end(), facts.name) == replaying.end())
      facts.waits_for_wal = true;
  if (snapshot.node(old) == nullptr && !old.empty()) {
    pg::NodeFacts facts;
    facts.name = old;
    if (old_local.is_object()) facts.local = pg::local_from_json(old_local);
    snapshot.nodes.push_back(std::move(facts));
  }
  ChooseOptions options;
  options.to = get_string(plan, "to");
  if (get_object(plan, "allow_loss").is_number())
    options.allow_loss = static_cast<std::uint64_t>(get_int(plan, "allow_loss"));
  options.assume_fenced = get_string(plan, "fence") == name_of(FenceMeans::Kind::operator_says);
  const auto& reference = get_object(plan, "reference");
  options.prior = Reference{lsn_in(reference, "end"), get_bool(reference, "exact"),
                            get_bool(reference, "known"), get_string(reference, "source")};
  const auto choice =
      choose(world.cluster(), snapshot, old,
             read_last_seen(cluster_state_dir(world), world.cluster().name), options);
  if (choice.refusal) return fail(*choice.refusal);
  Json seen{
      {"candidate", choice.promote}, {"lost", choice.lost}, {"exact", choice.reference.exact}};
  Json why = Json::object();
  for (const auto& candidate : choice.candidates) {
    why[candidate.node] = {{"fate", name_of(candidate.fate)},
                           {"position", to_string(candidate.position)},
                           {"why", join(candidate.reasons, "; ")}};
    if (candidate.node == choice.promote) {
      seen["position"] = to_string(candidate.position);
      seen["timeline"] = candidate.timeline;
    }
  }
  seen["nodes"] = std::move(why);
  return seen;
}

Result<Json> choose_again(PgWorld& world, StepContext& context) {
  return choose_by(world, context, get_object(context.plan().context, "old_local"));
}

// --- fence ----------------------------------------------------------------------------------

Status still_not_alive(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  // Nothing is done to one that nobody reaches; the promotion looks again.
  if (old.empty() || is_given_up_unheard(context)) return {};
  const auto snapshot =
      world.observe({old}, std::min(world.cluster().policy.probe_deadline, kGlance));
  const auto* facts = snapshot.node(old);
  if (facts != nullptr && facts->answered() && facts->role == pg::Role::primary)
    return fail(Code::refused, old + " is alive again: it accepts writes", "look with zx status");
  return {};
}

// What a guard's look and stopping its server take, once no standby's reply counts any more: it may
// have let the server go on without a lease while they all still received from it.
constexpr Millis kGuardReacts{700};
constexpr Millis kAskGuard{50};

// Until nobody can renew the lease, and whoever held it knows that it has run out.
Result<Json> wait_for_guard(PgWorld& world, StepContext& context, const std::string& old) {
  const auto frozen_at = monotonic_now();
  while (true) {
    ZX_ASSIGN(const auto guard, world.guard(old));
    if (guard.kind == coord::GuardState::Kind::unguarded)
      return fail(Code::refused, old + " has no guard any more");
    if (guard.kind == coord::GuardState::Kind::run_out && !guard.barred) {
      const auto barred = world.bar(old);
      if (barred) continue;
      if (barred.error().code != Code::refused) return fail(barred.error());
    } else if (guard.is_proof() && since(frozen_at) >= guard.reply_within + kGuardReacts) {
      return Json{{"proof", "guard"}};
    }
    if (context.deadline().passed())
      return fail(Code::refused,
                  guard.kind == coord::GuardState::Kind::held
                      ? fmt::format("the guard of {} holds its lease: its host lives", old)
                      : fmt::format("the lease of the guard of {} ran out too lately", old),
                  "look with zx status");
    pause_for(kAskGuard);
  }
}

// The end of its WAL counted as exact, and a server has run there since: it may have committed
// more, and a standby that was not there to be frozen may have acknowledged it.
Status wrote_nothing_since(PgWorld& world, StepContext& context, Json& fenced) {
  const auto& plan = context.plan().context;
  const auto& then = get_object(plan, "old_local");
  const auto before = get_string(then, "control_mark");
  if (!before.empty() && before == get_string(fenced, "control_mark")) return {};
  if (!get_bool(get_object(plan, "reference"), "exact")) {
    if (before.empty() || get_bool(then, "processes")) return {};
    return fail(Code::refused, old_primary_of(context) + " has run since this was decided",
                "decide again: zx failover pg --dry-run");
  }
  const auto from = get_string(context.seen("choose"), "position");
  ZX_ASSIGN(const auto now, world.on_host_of(old_primary_of(context), "pg-inspect",
                                             {{"wal_from", from}}, context.deadline().left()));
  const auto end = parse_lsn(get_string(now, "wal_end"));
  if (!end)
    return fail(Code::refused,
                fmt::format("{} may have run since its WAL was looked at, which cannot be read: {}",
                            old_primary_of(context), get_string(now, "problem")));
  ZX_ASSIGN(const auto choice, choose_by(world, context, now));
  if (const auto better = get_string(choice, "candidate"); better != candidate_of(context))
    return fail(Code::refused, fmt::format("{} has run since, and {} is the one to promote now",
                                           old_primary_of(context), better));
  fenced["wal_end"] = to_string(*end);
  return {};
}

Result<Json> fence(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  if (is_fenced_on_host(context)) {
    ZX_ASSIGN(auto fenced, world.on_host_of(old, "pg-fence", {{"run", context.run_id()}},
                                            context.deadline().left()));
    ZX_TRY(wrote_nothing_since(world, context, fenced));
    return fenced;
  }
  const auto proof = get_string(context.plan().context, "fence");
  if (proof == "guard") ZX_TRY(wait_for_guard(world, context, old));
  ZX_TRY(write_fence_debt(cluster_state_dir(world), world.cluster().name,
                          FenceDebt{old, context.run_id(), proof, wall_now()}));
  return Json{{"proof", proof}};
}

Status undo_fence(PgWorld& world, StepContext& context) {
  const auto old = old_primary_of(context);
  ZX_TRY(none_took_over_from(world, old, context.run_id()));
  if (!is_fenced_on_host(context))
    return clear_fence_debt(cluster_state_dir(world), world.cluster().name, old);
  // That look may have taken the step's time.
  const auto deadline = world.cluster().policy.fence_deadline;
  ZX_TRY(world.on_host_of(old, "pg-unfence", {{"run", context.run_id()}}, deadline));
  // It ran, if without answering, before it was fenced: it is the only primary there is again.
  if (get_bool(get_object(context.plan().context, "old_local"), "processes"))
    ZX_TRY(world.on_host_of(old, "pg-start", Json::object(), deadline));
  return {};
}

// --- promote, check -------------------------------------------------------------------------

// How long a standby that was frozen may be taken to be so without its answer.
constexpr Millis kStaysFrozen{5000};

// Others may have acted since the standbys were frozen, while this run stood still or waited to be
// resumed: one that has followed again may have acknowledged commits that no other has.
Status still_as_chosen(PgWorld& world, StepContext& context, const pg::Snapshot& now) {
  const auto& frozen = context.seen("freeze");
  const auto& positions = get_object(frozen, "positions");
  if (!positions.is_object()) return {};
  const auto replaying = get_strings(frozen, "replaying");
  const auto candidate = candidate_of(context);
  const auto moved = [&](const std::string& what) {
    return fail(Code::refused, what + " since this run has frozen it: others have acted meanwhile",
                fmt::format("look with zx status; if the run stays open: zx runs abort {} --as-is",
                            context.run_id()));
  };
  bool all_answer = true;
  for (const auto& [node, position] : positions.items()) {
    const auto* facts = now.node(node);
    if (facts == nullptr || !facts->answered()) {
      all_answer = false;
      continue;
    }
    if (facts->role == pg::Role::primary) continue;  // the candidate, after this run was resumed
    if (facts->has_upstream || facts->receiver) return moved(node + " follows another node again");
    const bool replays = std::find(replaying.begin(), replaying.end(), node) != replaying.end();
    if (!replays && facts->position() > lsn_in(positions, node.c_str()))
      return moved(node + " has received more");
  }
  const auto age = Millis(clock_ms() - get_int(frozen, "clock_ms"));
  if (!context.resumed() && (all_answer || age < kStaysFrozen)) return {};
  const auto* facts = now.node(candidate);
  if (facts != nullptr && facts->role == pg::Role::primary) return {};
  ZX_ASSIGN(const auto choice, choose_again(world, context));
  if (const auto better = get_string(choice, "candidate"); better != candidate)
    return moved(better + " is the one to promote, which has changed");
  return {};
}

// The last look. An old primary that is heard again may go on, though it need not be able to.
Status may_promote(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto now =
      observe_all(world, context, std::min(world.cluster().policy.probe_deadline, kGlance));
  ZX_TRY(no_primary_in(world, now, candidate));
  ZX_TRY(still_as_chosen(world, context, now));
  ZX_TRY(still_handed_over(world, context, now));
  if (!is_given_up_unheard(context)) return {};
  return no_primary_in(world, world.observe({old_primary_of(context)}, kGlanceAtSilent), candidate);
}

Result<Json> promote(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  ZX_ASSIGN(const auto promoted, world.promote(
                                     candidate,
                                     [&]() -> Status {
                                       ZX_TRY(context.no_return());
                                       note_rule(world, context);
                                       return {};
                                     },
                                     context.deadline()));
  Json seen{{"node", candidate}, {"timeline", promoted.timeline}};
  if (promoted.replay_was_paused) seen["replay_was_paused"] = true;
  return seen;
}

Result<std::optional<Json>> was_promoted(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto snapshot = world.observe({candidate}, world.cluster().policy.probe_deadline);
  const auto* facts = snapshot.node(candidate);
  if (facts == nullptr || !facts->answered())
    return fail(Code::unreachable,
                candidate + " cannot be asked whether it was promoted: " +
                    (facts != nullptr ? facts->error.message : "not in the configuration"),
                "make it reachable");
  if (facts->role != pg::Role::primary) return std::optional<Json>();
  ZX_TRY(context.no_return());
  return std::optional<Json>(Json{{"node", candidate}, {"timeline", facts->lineage.timeline}});
}

Result<Json> check(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  ZX_TRY(world.write_canary(candidate, context.run_id(), context.deadline()));
  note_primary(world, candidate);
  return Json{{"node", candidate}};
}

// --- slots, repoint -------------------------------------------------------------------

Result<Json> slots(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto& upstreams = get_object(context.seen("freeze"), "upstreams");
  const auto snapshot =
      observe_all(world, context, std::min(world.cluster().policy.probe_deadline, kGlance));
  std::vector<std::string> wanted;
  for (const auto& node : world.cluster().nodes) {
    if (node.name == candidate) continue;
    const auto own = upstreams.is_object() && upstreams.contains(node.name)
                         ? get_string(upstreams[node.name], "slot")
                         : std::string();
    const auto slot = slot_for(world, node.name, own, snapshot);
    if (!slot.empty()) wanted.push_back(slot);
  }
  if (wanted.empty()) return Json{{"skipped", "this cluster replicates without slots"}};
  ZX_ASSIGN(const auto made, world.make_slots(candidate, wanted, context.deadline()));
  return Json{{"node", candidate}, {"wanted", wanted}, {"made", made}};
}

struct OneRepointed {
  std::string node;
  Status status;
};

Result<Json> repoint(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  auto upstreams = get_object(context.seen("freeze"), "upstreams");
  if (!upstreams.is_object()) {  // a switchover freezes nobody
    upstreams = Json::object();
    for (const auto& node : split(context.step().subject, ',')) {
      const auto name = std::string(trim(node));
      ZX_ASSIGN(const auto current, world.current_upstream(name, context.deadline()));
      upstreams[name] = {{"conninfo", current.conninfo},
                         {"slot", current.slot},
                         {"had_password", current.had_password}};
    }
  }
  const auto& fates = get_object(context.seen("choose"), "nodes");
  Json seen = Json::object();
  std::vector<std::string> nodes;
  for (const auto& [node, upstream] : upstreams.items()) {
    if (node == candidate) continue;
    const bool must_rewind =
        fates.is_object() && fates.contains(node) && get_string(fates[node], "fate") == "rejoin";
    if (must_rewind)
      seen[node] = "left alone: zx rejoin pg " + node;
    else
      nodes.push_back(node);
  }
  const auto results =
      all_at_once<OneRepointed>(nodes, [&](const std::string& node) -> OneRepointed {
        const auto& upstream = upstreams[node];
        const auto conninfo = follow_conninfo(world.config(), world.cluster(),
                                              get_string(upstream, "conninfo"), node, candidate);
        // One that followed nobody names no passfile either.
        const bool followed = !get_string(upstream, "conninfo").empty();
        const auto password = config::replication_password_of(world.config(), world.cluster());
        const bool needs_password =
            get_bool(upstream, "had_password") || (!followed && password && !password->empty());
        auto status = world.set_upstream(node, conninfo, get_string(upstream, "slot"),
                                         needs_password, context.deadline());
        if (!status) return {node, status};
        const auto receiver = world.wait_streaming(node, candidate, context.deadline());
        return {node, receiver ? Status{} : fail(receiver.error())};
      });
  std::optional<Error> first;
  for (const auto& one : results) {
    seen[one.node] = one.status ? "streaming" : one.status.error().message;
    if (!one.status && !first) first = one.status.error();
  }
  if (first) return fail(*first);
  if (nodes.empty())
    return Json{{"skipped", seen.empty() ? "no other standby answers" : dump_line(seen)}};
  return Json{{"nodes", std::move(seen)}, {"to", candidate}};
}

// --- seal -----------------------------------------------------------------------------------

// Not a failure of the run when it takes long: the server goes on with it, and has done its work
// without it.
Result<Json> seal(PgWorld& world, StepContext& context) {
  const auto candidate = candidate_of(context);
  const auto status = world.checkpoint(candidate, context.deadline());
  // Standbys are synchronous by now.
  note_primary(world, candidate);
  if (status) return Json{{"node", candidate}};
  const auto code = status.error().code;
  if (code != Code::timeout && code != Code::auth) return fail(status.error());
  return Json{{"node", candidate}, {"pending", status.error().message}};
}

// --- receipt --------------------------------------------------------------------------------

Result<Json> receipt(PgWorld& world, StepContext& context) {
  const auto& choice = context.seen("choose");
  const auto from = lsn_in(choice, "position");
  const auto& reference = get_object(context.plan().context, "reference");
  Json seen{{"from", to_string(from)}, {"exact", false}};
  auto end = lsn_in(reference, "end");
  if (const auto later = parse_lsn(get_string(context.seen("fence"), "wal_end"))) {
    end = *later;
    seen["exact"] = true;
  } else if (get_bool(reference, "exact")) {
    seen["exact"] = true;
  } else if (is_fenced_on_host(context)) {
    const auto local = world.on_host_of(old_primary_of(context), "pg-inspect",
                                        {{"wal_from", to_string(from)}}, context.deadline().left());
    if (local) {
      if (const auto exact = parse_lsn(get_string(*local, "wal_end"))) {
        end = *exact;
        seen["exact"] = true;
      }
    }
  }
  seen["end"] = to_string(std::max(end, from));
  seen["bytes"] = bytes_ahead(end, from);
  return seen;
}

}  // namespace

void add_failover_actions(PgWorld& world, run::Actions& actions) {
  PgWorld* w = &world;
  actions["pg.freeze"] = {[w](StepContext& c) {
                            // A resumed run may find the node that it was promoting already
                            // promoted; the promote step sees to that.
                            return nobody_leads_but(*w, c,
                                                    c.resumed() ? candidate_of(c) : std::string());
                          },
                          [w](StepContext& c) { return freeze(*w, c); },
                          {},
                          [w](StepContext& c) { return unfreeze(*w, c); }};
  actions["pg.choose"] = {{}, [w](StepContext& c) { return choose_again(*w, c); }, {}, {}};
  actions["pg.fence"] = {[w](StepContext& c) { return still_not_alive(*w, c); },
                         [w](StepContext& c) { return fence(*w, c); },
                         {},
                         [w](StepContext& c) { return undo_fence(*w, c); }};
  actions["pg.promote"] = {[w](StepContext& c) { return may_promote(*w, c); },
                           [w](StepContext& c) { return promote(*w, c); },
                           [w](StepContext& c) { return was_promoted(*w, c); },
                           {}};
  actions["pg.check"] = {{}, [w](StepContext& c) { return check(*w, c); }, {}, {}};
  actions["pg.slots"] = {{}, [w](StepContext& c) { return slots(*w, c); }, {}, {}};
  actions["pg.repoint"] = {[w](StepContext& c) { return candidate_still_serves(*w, c); },
                           [w](StepContext& c) { return repoint(*w, c); },
                           {},
                           {}};
  actions["pg.seal"] = {{}, [w](StepContext& c) { return seal(*w, c); }, {}, {}};
  actions["pg.receipt"] = {{}, [w](StepContext& c) { return receipt(*w, c); }, {}, {}};
}

}  // namespace zx::ha
