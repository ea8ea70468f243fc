#include "lib/ha/redis_watch.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/units.h"

namespace zx::ha {
namespace {

constexpr const char* kByHand = "failover redis --dry-run";
constexpr const char* kAcknowledge = "failover ack";

// A replica follows another server for a moment while somebody is at work on it by hand.
constexpr Millis kAstrayFor{6'000};
// A first failure is often over at the next try.
constexpr int kTriesAlone = 2;

Decision nothing(std::string why) { return {Act::none, {}, std::move(why), false}; }
Decision blocked(std::string why, std::string remedy = kByHand) {
  return {Act::none, {}, std::move(why), true, std::move(remedy)};
}

// The one that the others are to follow, for certain.
const redis::NodeFacts* leader_of(const RedisSight& sight) {
  const auto& verdict = sight.verdict;
  const bool may_be_followed = verdict.state == RedisState::healthy ||
                               verdict.state == RedisState::degraded ||
                               verdict.state == RedisState::several_masters;
  const auto* found = may_be_followed ? sight.snapshot.node(verdict.master) : nullptr;
  const bool leads = found != nullptr && found->answered() && found->role == redis::Role::master;
  return leads ? found : nullptr;
}

// It answers and follows a wrong server, or nobody: a link that is down comes up by itself.
bool is_astray(const RedisSight& sight, const redis::NodeFacts& facts,
               const redis::NodeFacts& leader) {
  if (!facts.answered() || facts.name == leader.name) return false;
  if (facts.role == redis::Role::master) return true;
  return facts.role == redis::Role::replica && !is_behind(sight.snapshot, facts, leader);
}

class Decider {
 public:
  Decider(const RedisSight& sight, const WatchMemory& memory) : sight_(sight), memory_(memory) {}

  Decision run() const {
    auto wanted = wish();
    if (wanted.act == Act::none) return wanted;
    // A replica that is brought back later keeps nobody waiting.
    const auto held = [&](std::string why, const char* remedy) {
      return calls_for_failover(sight_.verdict.state) ? blocked(std::move(why), remedy)
                                                      : nothing(std::move(why));
    };
    if (!sight_.deployment.policy.automatic)
      return held("automatic is off: this agent only watches", kByHand);
    if (!memory_.pause.id.empty() && sight_.now < memory_.pause.until) {
      const auto& why = sight_.record.pause->why;
      return held(fmt::format("paused for {} more{}{}", until(memory_.pause.until),
                              why.empty() ? "" : ": ", why),
                  "agent resume");
    }
    if (!sight_.leads) return nothing(sight_.why_not_leading);
    if (const auto tries = memory_.tries.find(wanted.key());
        tries != memory_.tries.end() && sight_.now < tries->second.next) {
      wanted.why = fmt::format("{} failed, again in {}", wanted.key(), until(tries->second.next));
      if (wanted.act == Act::failover)
        wanted.remedy = kByHand;
      else if (tries->second.failed >= kTriesAlone)
        wanted.remedy =
            wanted.act == Act::resume ? "runs resume " + wanted.subject : by_hand(wanted.subject);
      wanted.act = Act::none;
    }
    return wanted;
  }

 private:
  std::string until(Monotonic at) const {
    return format_duration(std::chrono::ceil<Millis>(at - sight_.now));
  }

  // A failover that was cut short is finished, whoever serves meanwhile.
  bool has_open_failover() const {
    return sight_.open && sight_.open->plan.command == "failover redis" &&
           !has_only_leftovers(*sight_.open);
  }

  Decision wish() const {
    const auto& verdict = sight_.verdict;
    if (has_open_failover())
      return {
          Act::resume, sight_.open->id,
          fmt::format("run {} ({}) was interrupted", sight_.open->id, sight_.open->plan.command)};
    if (!calls_for_failover(verdict.state)) return about_the_others();
    if (verdict.state == RedisState::master_reborn_empty && !anybody_has_more())
      return blocked(verdict.problems.empty() ? verdict.summary : verdict.problems.front(),
                     "redis restore FILE --target " + verdict.master);
    if (has_sentinels()) return nothing("the Sentinels fail over by themselves");
    if (verdict.state == RedisState::master_silent) {
      const auto counts = memory_.gone_since + sight_.deployment.policy.silent_after;
      if (sight_.now < counts)
        return nothing(
            fmt::format("{} is silent, {} more before that counts", verdict.master, until(counts)));
    }
    if (const auto& last = sight_.record.last; last && !last->is_acknowledged && !last->by_hand &&
                                               !memory_.flap.id.empty() &&
                                               sight_.now < memory_.flap.until)
      return blocked(
          fmt::format("the last failover ({} to {}, run {}) is too recent: {} more, or zx failover "
                      "ack",
                      last->from, last->to, last->run, until(memory_.flap.until)),
          kAcknowledge);
    return {Act::failover, verdict.master, verdict.summary};
  }

  // Of the others: what the empty master has lost.
  bool anybody_has_more() const {
    const auto* master = sight_.snapshot.node(sight_.verdict.master);
    return std::any_of(sight_.snapshot.nodes.begin(), sight_.snapshot.nodes.end(),
                       [&](const auto& facts) {
                         return facts.answered() && master != nullptr && facts.keys > master->keys;
                       });
  }
  bool has_sentinels() const { return !sight_.deployment.sentinel.master_name.empty(); }
  static std::string by_hand(const std::string& node) {
    return fmt::format("redis sync {} --dry-run", node);
  }

  // The one that the last failover gave up came back beside the one that it promoted: what it took
  // since then is given up with it, at once, for clients may find it.
  bool is_given_up(const std::string& node, const redis::NodeFacts& leader) const {
    const auto& last = sight_.record.last;
    return last && last->to == leader.name && last->from == node;
  }

  // Whoever follows nobody, or a wrong server, is brought back, unless only it has what would be
  // given up by that: that is for a person.
  Decision about_the_others() const {
    const auto& verdict = sight_.verdict;
    const bool are_several = verdict.state == RedisState::several_masters;
    const auto* leader = leader_of(sight_);
    if (leader == nullptr)
      return are_several && !has_sentinels()
                 ? blocked(verdict.summary, "redis sync --all --dry-run")
                 : nothing({});
    std::optional<Decision> waits;
    for (const auto& facts : sight_.snapshot.nodes) {
      if (!is_astray(sight_, facts, *leader)) continue;
      const bool poses = facts.role == redis::Role::master;
      if (has_sentinels())
        return nothing(poses ? "the Sentinels make one of them a replica"
                             : "the Sentinels bring " + facts.name + " back");
      if (poses && is_given_up(facts.name, *leader))
        return {Act::rejoin, facts.name,
                fmt::format("run {} gave it up for {}", sight_.record.last->run, leader->name)};
      const auto since = memory_.adrift.find(facts.name);
      const bool is_due = since != memory_.adrift.end() && sight_.now >= since->second + kAstrayFor;
      if (const auto lost = lost_by_following(facts, *leader); !lost.empty())
        waits = Decision{Act::none, {}, lost, are_several, by_hand(facts.name)};
      else if (is_due)
        return {Act::rejoin, facts.name,
                fmt::format("{} does not follow {}", facts.name, leader->name)};
      else if (!waits)
        waits = nothing(
            fmt::format("{} does not follow {}, which may be by hand", facts.name, leader->name));
    }
    return waits.value_or(nothing({}));
  }

  const RedisSight& sight_;
  const WatchMemory& memory_;
};

}  // namespace

void remember(WatchMemory& memory, const RedisSight& sight) {
  const auto& verdict = sight.verdict;
  const bool is_gone = verdict.state == RedisState::master_dead ||
                       verdict.state == RedisState::master_silent ||
                       verdict.state == RedisState::master_unreachable;
  if (!is_gone) {
    memory.gone.clear();
  } else if (memory.gone != verdict.master) {
    memory.gone = verdict.master;
    memory.gone_since = sight.answered.value_or(sight.now);
  }
  // A master that serves again forgets the attempts at replacing it.
  if (verdict.state == RedisState::healthy || verdict.state == RedisState::degraded)
    memory.tries.erase("failover");
  const auto* leader = leader_of(sight);
  for (const auto& facts : sight.snapshot.nodes)
    if (leader != nullptr && is_astray(sight, facts, *leader))
      memory.adrift.try_emplace(facts.name, sight.now);
    else
      memory.adrift.erase(facts.name);
  const auto& last = sight.record.last;
  count_down(memory.flap, last ? last->run : "", last ? last->at : Wall{},
             sight.deployment.policy.flap_window, sight.now, sight.wall);
  const auto& pause = sight.record.pause;
  count_down(memory.pause, pause ? pause->id : "", pause ? pause->at : Wall{},
             pause ? pause->span : Millis(0), sight.now, sight.wall);
}

Decision decide(const RedisSight& sight, const WatchMemory& memory) {
  return Decider(sight, memory).run();
}

std::string record_of(const config::RedisDeployment& deployment) {
  return "redis." + deployment.name;
}

}  // namespace zx::ha
