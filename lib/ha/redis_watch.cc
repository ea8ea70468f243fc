#include "lib/ha/redis_watch.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/units.h"

namespace zx::ha {
namespace {

constexpr const char* kByHand = "failover redis --dry-run";
constexpr const char* kAcknowledge = "failover ack";

Decision nothing(std::string why) { return {Act::none, {}, std::move(why), false}; }
Decision blocked(std::string why, std::string remedy = kByHand) {
  return {Act::none, {}, std::move(why), true, std::move(remedy)};
}

class Decider {
 public:
  Decider(const RedisSight& sight, const WatchMemory& memory) : sight_(sight), memory_(memory) {}

  Decision run() const {
    auto wanted = wish();
    if (wanted.act == Act::none) return wanted;
    if (!sight_.deployment.policy.automatic)
      return blocked("automatic is off: this agent only watches");
    if (!memory_.pause.id.empty() && sight_.now < memory_.pause.until) {
      const auto& why = sight_.record.pause->why;
      auto held = blocked(fmt::format("paused for {} more{}{}", until(memory_.pause.until),
                                      why.empty() ? "" : ": ", why));
      held.remedy = "agent resume";
      return held;
    }
    if (!sight_.leads) return nothing(sight_.why_not_leading);
    if (const auto tries = memory_.tries.find(wanted.key());
        tries != memory_.tries.end() && sight_.now < tries->second.next) {
      wanted.act = Act::none;
      wanted.why = fmt::format("{} failed, again in {}", wanted.key(), until(tries->second.next));
      wanted.remedy = kByHand;
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
    if (verdict.state == RedisState::several_masters) return about_two();
    if (!calls_for_failover(verdict.state)) return nothing({});
    if (!sight_.deployment.sentinel.master_name.empty())
      return nothing("the Sentinels fail over by themselves");
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

  // The one that the last failover gave up came back beside the one that it promoted: what it took
  // since then is given up with it. Any other two masters are for a person.
  Decision about_two() const {
    const auto& verdict = sight_.verdict;
    const auto& last = sight_.record.last;
    const auto& names = verdict.masters;
    const bool is_given_up = last && last->to == verdict.master && names.size() == 2 &&
                             std::find(names.begin(), names.end(), last->from) != names.end();
    if (!sight_.deployment.sentinel.master_name.empty())
      return nothing("the Sentinels make one of them a replica");
    if (!is_given_up) return blocked(verdict.summary, "redis sync --all --dry-run");
    return {Act::rejoin, last->from,
            fmt::format("run {} gave it up for {}", last->run, verdict.master)};
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
