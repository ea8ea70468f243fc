#include "lib/ha/redis_watch.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/units.h"

namespace zx::ha {
namespace {

constexpr const char* kByHand = "failover redis --dry-run";

Decision nothing(std::string why) { return {Act::none, {}, std::move(why), false}; }
Decision blocked(std::string why) { return {Act::none, {}, std::move(why), true, kByHand}; }

class Decider {
 public:
  Decider(const RedisSight& sight, const WatchMemory& memory) : sight_(sight), memory_(memory) {}

  Decision run() const {
    auto wanted = wish();
    if (wanted.act == Act::none) return wanted;
    if (!sight_.deployment.policy.automatic)
      return blocked("automatic is off: this agent only watches");
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
      return blocked(fmt::format("the last failover ({} to {}, run {}) is too recent: {} more",
                                 last->from, last->to, last->run, until(memory_.flap.until)));
    return {Act::failover, verdict.master, verdict.summary};
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
  if (!last) {
    memory.flap = {};
  } else if (memory.flap.id != last->run) {
    const auto gone = std::chrono::duration_cast<Millis>(sight.wall - last->at);
    const auto whole = sight.deployment.policy.flap_window;
    memory.flap = {last->run, sight.now + std::clamp(whole - gone, Millis(0), whole)};
  }
}

Decision decide(const RedisSight& sight, const WatchMemory& memory) {
  return Decider(sight, memory).run();
}

std::string record_of(const config::RedisDeployment& deployment) {
  return "redis." + deployment.name;
}

}  // namespace zx::ha
