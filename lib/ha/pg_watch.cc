#include "lib/ha/pg_watch.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/sync_debt.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {
namespace {

using pg::NodeFacts;
using pg::Role;

// A walreceiver that lost its connection comes back within wal_retrieve_retry_interval (5 s).
constexpr Millis kAdriftFor{6000};

// A first failure is often over at the next try.
constexpr int kTriesAlone = 2;
constexpr const char* kByHand = "failover pg --dry-run";
constexpr const char* kAcknowledge = "failover ack";
constexpr const char* kLook = "status";

struct Backoff {
  Millis first, most;
};
Backoff backoff_of(const std::string& what) {
  if (what == "failover" || what.starts_with("resume")) return {Millis(500), Millis(30'000)};
  return {Millis(2000), Millis(300'000)};
}

// What is left of a span that began at `at` by the wall clock: never more than all of it.
Millis left_of(Wall at, Millis span, Wall wall) {
  const auto gone = std::chrono::duration_cast<Millis>(wall - at);
  return std::clamp(span - gone, Millis(0), span);
}

const NodeFacts* the_primary(const Sight& sight) {
  return sight.verdict.primaries.size() == 1 ? sight.snapshot.node(sight.verdict.primaries.front())
                                             : nullptr;
}

// The primary's commits wait for it, or are to do so again, and it receives from another standby:
// it never acknowledges.
bool is_waited_for(const NodeFacts& facts, const NodeFacts& primary, const Sight& sight) {
  const auto& debt = sight.record.sync_owed;
  const bool is_owed = debt && is_still_reduced(*debt, primary.sync_names);
  const auto names = pg::parse_sync_names(is_owed ? debt->wanted : primary.sync_names);
  if (!names || names->method == pg::SyncNames::Method::none || !names->lists(facts.name))
    return false;
  const auto upstream = upstream_node(sight.snapshot, facts);
  return !upstream.empty() && upstream != primary.name;
}

// A standby that answers and receives from nobody. Also one whose upstream answers: that may not
// have its slot, or its timeline.
bool is_adrift(const NodeFacts& facts, const NodeFacts& primary, const Sight& sight) {
  return facts.answered() && facts.role == Role::standby &&
         facts.lineage.system_id == primary.lineage.system_id &&
         (!facts.receives() || is_waited_for(facts, primary, sight));
}

bool is_away(const NodeFacts& facts) {
  return facts.failure == pg::Failure::no_answer || facts.failure == pg::Failure::no_route;
}

class Decider {
 public:
  Decider(const Sight& sight, const WatchMemory& memory) : sight_(sight), memory_(memory) {}

  Decision run() const {
    const bool is_gone = calls_for_failover(sight_.verdict.state);
    auto wanted = is_gone ? about_the_primary() : about_the_others();
    if (wanted.act == Act::none) return wanted;
    if (const auto why = held_back(); !why.empty()) {
      wanted.why = why;
      wanted.is_blocked = is_gone && sight_.leads;
      const bool is_held = sight_.cluster.policy.automatic && is_paused();
      if (wanted.is_blocked) wanted.remedy = is_held ? "agent resume" : kByHand;
      wanted.act = Act::none;
      return wanted;
    }
    if (const auto tries = memory_.tries.find(wanted.key());
        tries != memory_.tries.end() && sight_.now < tries->second.next) {
      wanted.why =
          fmt::format("{} failed {}, again in {}", wanted.key(),
                      tries->second.failed == 1 ? std::string("once")
                                                : fmt::format("{} times", tries->second.failed),
                      until(tries->second.next));
      if (tries->second.failed >= kTriesAlone) wanted.remedy = by_hand(wanted);
      wanted.act = Act::none;
    }
    return wanted;
  }

 private:
  std::string until(Monotonic at) const {
    return format_duration(std::chrono::ceil<Millis>(at - sight_.now));
  }
  static Decision nothing(std::string why) { return {Act::none, {}, std::move(why), false}; }
  static Decision blocked(std::string why, std::string remedy) {
    return {Act::none, {}, std::move(why), true, std::move(remedy)};
  }
  // What a person would begin in its place.
  static std::string by_hand(const Decision& wanted) {
    if (wanted.act == Act::failover) return kByHand;
    if (wanted.act == Act::resume) return "runs resume " + wanted.subject;
    if (wanted.act == Act::sync) return kLook;
    return "rejoin pg " + wanted.subject;
  }
  bool is_paused() const { return !memory_.pause.id.empty() && sight_.now < memory_.pause.until; }

  std::string held_back() const {
    if (!sight_.cluster.policy.automatic) return "automatic is off: this agent only watches";
    if (is_paused())
      return fmt::format("paused for {} more{}{}", until(memory_.pause.until),
                         sight_.record.pause->why.empty() ? "" : ": ", sight_.record.pause->why);
    if (!sight_.leads) return sight_.why_not_leading;
    return {};
  }

  bool has_open_failover() const {
    if (!sight_.open || has_only_leftovers(*sight_.open)) return false;
    const auto& command = sight_.open->plan.command;
    return command == "failover pg" || command == "switchover pg";
  }
  bool is_by_an_agent() const {
    return sight_.open && !get_string(sight_.open->plan.context, "agent").empty();
  }
  // A failover by an agent that the record does not know of: the agent ended before it could note
  // whom it has left behind, and when. What is left to do may be optional, the note is not.
  bool is_untold() const {
    return is_by_an_agent() && sight_.open->plan.command == "failover pg" &&
           !(sight_.record.last && sight_.record.last->run == sight_.open->id);
  }
  // Such as the checkpoint without which a new primary that crashes cannot be rewound. What is old
  // may say what is not true any more, of synchronous_standby_names for example.
  bool has_fresh_leftovers(const std::string& primary) const {
    constexpr std::chrono::minutes kFresh{10};
    if (!sight_.open || !has_only_leftovers(*sight_.open) || !was_cut_short(*sight_.open))
      return false;
    Wall last = sight_.open->begun;
    for (const auto& [name, step] : sight_.open->steps) last = std::max(last, step.ended);
    return primary_after(*sight_.open) == primary && sight_.wall - last < kFresh;
  }
  bool is_due(const Decision& wanted) const {
    const auto tries = memory_.tries.find(wanted.key());
    return tries == memory_.tries.end() || sight_.now >= tries->second.next;
  }
  Decision resume() const {
    return {Act::resume, sight_.open->id,
            fmt::format("run {} ({}) was interrupted", sight_.open->id, sight_.open->plan.command)};
  }

  Decision about_the_primary() const {
    const auto& verdict = sight_.verdict;
    const auto& policy = sight_.cluster.policy;
    if (has_open_failover() || is_untold()) return resume();
    if (sight_.planned && sight_.planned->node == verdict.primary &&
        verdict.state == PgState::primary_dead) {
      const auto end = sight_.planned->at + policy.planned_restart_grace;
      if (sight_.now < end)
        return nothing(fmt::format("{} was told to stop ({}); it has {} more to come back",
                                   verdict.primary, sight_.planned->mode, until(end)));
    }
    if (verdict.state == PgState::primary_silent &&
        sight_.now < memory_.gone_since + policy.silent_after)
      return nothing(fmt::format("{} is silent, {} more before that counts", verdict.primary,
                                 until(memory_.gone_since + policy.silent_after)));
    if (sight_.regions_agree < policy.observers)
      return blocked(fmt::format("{} of {} regions see no life in {}", sight_.regions_agree,
                                 policy.observers, verdict.primary),
                     kByHand);
    if (const auto& last = sight_.record.last; last && !last->is_acknowledged && !last->by_hand &&
                                               !memory_.flap.id.empty() &&
                                               sight_.now < memory_.flap.until)
      return blocked(
          fmt::format("the last failover ({} to {}, run {}) is too recent: {} more, or zx failover "
                      "ack",
                      last->from, last->to, last->run, until(memory_.flap.until)),
          kAcknowledge);
    if (auto missed = missed_successor(sight_.record, sight_.snapshot, verdict.primary);
        !missed.empty())
      return blocked(std::move(missed), kByHand);
    return {Act::failover, verdict.primary, verdict.summary};
  }

  Decision about_the_others() const {
    const auto& verdict = sight_.verdict;
    if (sight_.open && (!has_only_leftovers(*sight_.open) || is_untold())) {
      if (is_by_an_agent() || (has_open_failover() && sight_.open->no_return)) return resume();
      return blocked(fmt::format("run {} ({}) is unfinished, and a person began it",
                                 sight_.open->id, sight_.open->plan.command),
                     "runs resume " + sight_.open->id);
    }
    if (verdict.state == PgState::two_primaries) return about_two_primaries();
    const auto* primary = the_primary(sight_);
    if (primary == nullptr)
      return verdict.state == PgState::unknown ? blocked(verdict.summary, kLook)
                                               : nothing(verdict.summary);
    if (auto doubt = doubt_of(sight_.record, sight_.snapshot, primary->name); !doubt.empty()) {
      // The others' line is the right one, and what is written here is lost.
      if (ahead_of(sight_.snapshot, *primary) != nullptr)
        return {Act::fence, primary->name, std::move(doubt)};
      return blocked(std::move(doubt), kAcknowledge);
    }
    if (has_fresh_leftovers(primary->name) && is_due(resume())) return resume();
    std::optional<Decision> told;
    const auto tell = [&](const Decision& one) {
      if (!told)
        told = one;
      else if (told->why.find(one.why) == std::string::npos)
        told->why += "; " + one.why;
    };
    for (const auto& facts : sight_.snapshot.nodes) {
      if (facts.name == primary->name) continue;
      auto wanted = about_one(facts, *primary);
      if (wanted.act == Act::rejoin || wanted.act == Act::repoint || wanted.is_blocked)
        wanted = after_its_followers(std::move(wanted), *primary, tell);
      if (wanted.is_blocked) tell(wanted);
      if (wanted.act == Act::none) continue;
      // One that keeps failing must not keep the others waiting.
      if (is_due(wanted)) return wanted;
    }
    if (const auto sync = about_sync(*primary); sync && is_due(*sync)) return *sync;
    if (told) return *told;
    return nothing(verdict.state == PgState::healthy ? "" : verdict.summary);
  }

  // What a failover has reduced comes back when there are enough standbys for it. What somebody has
  // set since stays, and nothing is owed any more.
  std::optional<Decision> about_sync(const NodeFacts& primary) const {
    const auto& debt = sight_.record.sync_owed;
    // A failover of this host that could not reduce it yet is no word of somebody else.
    if (!debt || (sight_.open && sight_.open->id == debt->run)) return std::nullopt;
    if (!is_still_reduced(*debt, primary.sync_names))
      return Decision{Act::sync, primary.name,
                      "synchronous_standby_names was set since run " + debt->run};
    const auto wanted = pg::parse_sync_names(debt->wanted);
    if (!wanted) return std::nullopt;
    const auto able =
        able_standbys(sight_.snapshot, primary, *wanted, sight_.cluster.policy.max_lag);
    if (std::ssize(able) < wanted->count) return std::nullopt;
    return Decision{Act::sync, primary.name,
                    fmt::format("there are enough standbys for {} again", debt->wanted)};
  }

  Decision about_two_primaries() const {
    std::string doubtful;
    for (const auto& name : sight_.verdict.primaries)
      if (sight_.record.owes(name) != nullptr) doubtful = doubtful.empty() ? name : "two";
    // Whom it promoted in the end may be another than the plan said.
    if (const auto& begun = sight_.record.begun; begun && doubtful.empty())
      if (const auto* from = sight_.snapshot.node(begun->from))
        for (const auto& name : sight_.verdict.primaries)
          if (sight_.verdict.primaries.size() == 2 && name != from->name &&
              from->role == Role::primary &&
              sight_.snapshot.node(name)->lineage.timeline > from->lineage.timeline)
            return give_up(from->name, fmt::format("{} accepts writes and {} took over from it",
                                                   from->name, name));
    // Of more than two all but one were given up: they are stopped one after the other.
    const auto owed_count =
        std::count_if(sight_.verdict.primaries.begin(), sight_.verdict.primaries.end(),
                      [&](const auto& name) { return sight_.record.owes(name) != nullptr; });
    if (owed_count > 1 && owed_count + 1 == std::ssize(sight_.verdict.primaries))
      for (const auto& name : sight_.verdict.primaries)
        if (const auto* owed = sight_.record.owes(name))
          return {Act::fence, name,
                  fmt::format("{} accepts writes and was given up in run {}", name, owed->run)};
    if (doubtful.empty() || doubtful == "two")
      return blocked(sight_.verdict.summary + "; which one is right is not known", kLook);
    return give_up(doubtful, fmt::format("{} accepts writes and was given up in run {}", doubtful,
                                         sight_.record.owes(doubtful)->run));
  }

  Decision give_up(const std::string& node, std::string why) const {
    const bool rejoins = sight_.cluster.policy.rejoin != "manual";
    return {rejoins ? Act::rejoin : Act::fence, node, std::move(why)};
  }

  // A standby of the node, on a line that ended, would go on with the new line where it stands: the
  // server does not compare what is behind that when both timelines have one number. Nobody waits
  // for one that only a person can help; every such one is told.
  Decision after_its_followers(Decision wanted, const NodeFacts& primary,
                               const std::function<void(const Decision&)>& tell) const {
    for (const auto& facts : sight_.snapshot.nodes) {
      if (!facts.answered() || facts.role != Role::standby || facts.name == wanted.subject ||
          upstream_node(sight_.snapshot, facts) != wanted.subject ||
          pg::can_follow(facts.lineage, facts.position(), primary.lineage).kin != pg::Kin::diverged)
        continue;
      auto first = rejoin(
          facts, primary,
          fmt::format("{} is on a line that ended, and follows {}", facts.name, wanted.subject));
      if (!first.is_blocked) return first;
      tell(first);
    }
    return wanted;
  }

  // What failed because only a rebuild helps fails again while nothing is done about it.
  Decision rejoin(const NodeFacts& facts, const NodeFacts& primary, std::string why) const {
    const auto found = memory_.beyond_rewind.find(facts.name);
    if (found == memory_.beyond_rewind.end() || found->second.primary != primary.name ||
        found->second.answered != facts.answered() || sight_.cluster.policy.rejoin == "rebuild")
      return {Act::rejoin, facts.name, std::move(why)};
    return {Act::none, facts.name,
            fmt::format("{}; policy.rejoin = \"rebuild\" would, or {}", found->second.why,
                        rebuild_hint(facts.name)),
            sight_.leads, fmt::format("rejoin pg {0} --rebuild --confirm {0}", facts.name)};
  }

  Decision about_one(const NodeFacts& facts, const NodeFacts& primary) const {
    const bool rejoins = sight_.cluster.policy.rejoin != "manual";
    const bool streams = facts.answered() && facts.receives();
    // It has what was committed after this primary, which nobody but a person may give up.
    if (auto newer = facts.answered() ? newer_than(facts.name, facts.lineage, primary) : "";
        !newer.empty() && !gave_way_to(sight_.record, facts.name, primary.name))
      return {Act::none, facts.name, std::move(newer), sight_.leads, kLook};
    if (const auto* owed = sight_.record.owes(facts.name); owed != nullptr && !streams && rejoins)
      return rejoin(facts, primary, "left behind by run " + owed->run);
    const auto adrift = memory_.adrift.find(facts.name);
    if (adrift == memory_.adrift.end() || sight_.now < adrift->second + kAdriftFor) return {};
    switch (pg::can_follow(facts.lineage, facts.position(), primary.lineage).kin) {
      case pg::Kin::same_line:
        return {Act::repoint, facts.name,
                facts.name + (facts.receives() ? " receives from another standby, and commits wait "
                                                 "for it"
                                               : " receives from nobody")};
      case pg::Kin::diverged:
        if (!rejoins) return {};
        return rejoin(facts, primary, facts.name + " is on a line that ended");
      default: return {};
    }
  }

  const Sight& sight_;
  const WatchMemory& memory_;
};

}  // namespace

void count_down(WatchMemory::Span& span, const std::string& id, Wall at, Millis whole,
                Monotonic now, Wall wall) {
  if (id.empty()) {
    span = {};
  } else if (span.id != id) {
    span = {id, now + left_of(at, whole, wall)};
  }
}

void remember(WatchMemory& memory, const Sight& sight) {
  const auto& verdict = sight.verdict;
  const bool is_there = has_live_primary(verdict.state) || verdict.primary.empty();
  if (is_there) {
    memory.gone.clear();
    note_success(memory, "failover");
  } else if (memory.gone != verdict.primary) {
    memory.gone = verdict.primary;
    memory.gone_since = sight.answered.value_or(sight.now);
  }
  const auto& last = sight.record.last;
  count_down(memory.flap, last ? last->run : std::string(), last ? last->at : Wall{},
             sight.cluster.policy.flap_window, sight.now, sight.wall);
  const auto& pause = sight.record.pause;
  count_down(memory.pause, pause ? pause->id : std::string(), pause ? pause->at : Wall{},
             pause ? pause->span : Millis(0), sight.now, sight.wall);
  const auto* primary = the_primary(sight);
  for (const auto& facts : sight.snapshot.nodes) {
    if (primary != nullptr && facts.answered() && facts.receives() &&
        pg::can_follow(facts.lineage, facts.position(), primary->lineage).kin == pg::Kin::same_line)
      memory.beyond_rewind.erase(facts.name);
    // What failed while a host was away says nothing about now.
    if (is_away(facts)) {
      memory.away.insert(facts.name);
    } else if (memory.away.erase(facts.name) > 0) {
      for (const auto act : {Act::repoint, Act::rejoin, Act::fence})
        note_success(memory, fmt::format("{} {}", name_of(act), facts.name));
    }
    if (primary != nullptr && is_adrift(facts, *primary, sight))
      memory.adrift.try_emplace(facts.name, sight.now);
    else
      memory.adrift.erase(facts.name);
  }
}

void note_failure(WatchMemory& memory, const std::string& what, Monotonic now) {
  auto& tries = memory.tries[what];
  const auto [first, most] = backoff_of(what);
  const Millis doubled = first * (1LL << std::min(tries.failed, 10));
  ++tries.failed;
  tries.next = now + std::min(doubled, most);
}

void note_success(WatchMemory& memory, const std::string& what) { memory.tries.erase(what); }

const char* name_of(Act act) {
  switch (act) {
    case Act::none: return "none";
    case Act::failover: return "failover";
    case Act::resume: return "resume";
    case Act::repoint: return "repoint";
    case Act::rejoin: return "rejoin";
    case Act::fence: return "fence";
    case Act::sync: return "sync";
  }
  return "none";
}

std::string Decision::key() const {
  return act == Act::failover ? std::string("failover")
                              : fmt::format("{} {}", name_of(act), subject);
}

Decision decide(const Sight& sight, const WatchMemory& memory) {
  return Decider(sight, memory).run();
}

namespace {

run::StepState state_of(const run::Record& record, const run::Step& step) {
  const auto found = record.steps.find(step.name);
  return found == record.steps.end() ? run::StepState::pending : found->second.state;
}

}  // namespace

bool has_only_leftovers(const run::Record& open) {
  return !open.undoing &&
         std::all_of(open.plan.steps.begin(), open.plan.steps.end(), [&](const run::Step& step) {
           const auto state = state_of(open, step);
           return step.optional || state == run::StepState::done ||
                  state == run::StepState::skipped;
         });
}

bool was_cut_short(const run::Record& open) {
  return std::any_of(open.plan.steps.begin(), open.plan.steps.end(), [&](const run::Step& step) {
    const auto state = state_of(open, step);
    return state == run::StepState::pending || state == run::StepState::unknown;
  });
}

std::string primary_after(const run::Record& record) {
  if (auto chosen = candidate_of(record); !chosen.empty()) return chosen;
  const auto& context = record.plan.context;
  return get_string(context, "to", get_string(context, "primary"));
}

}  // namespace zx::ha
