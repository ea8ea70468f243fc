// One agent's care for one Redis deployment: look, decide, at most one run; again and again.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/coord/coordinator.h"
#include "lib/ha/redis_chain.h"
#include "lib/ha/redis_inquiry.h"
#include "lib/ha/redis_run.h"
#include "lib/ha/redis_watch.h"
#include "lib/store/events.h"

namespace zx::ha {

class RedisKeeper {
 public:
  struct Tick {
    RedisView view;
    Decision decision;
    std::optional<run::RunReport> report;  // of the run, if there was one
    std::optional<Error> error;            // why it was not begun, or did not end well
    Millis again{0};                       // when to look again
    bool was_calm = false;                 // nothing to do, by held connections alone
  };
  struct Hooks {
    std::function<void(const store::Event&)> event;
    // What it sees and will do, before it acts on it.
    std::function<void(const Tick&)> judged;
    // Asked while a replica is brought back: is the master in doubt, so that it must give way?
    std::function<bool(const std::string& master)> hurry;
    // What the hosts have said of a silent master, if they were asked since it last answered; an
    // inquiry that is going on is waited for.
    std::function<std::optional<RedisInquiry>(const std::string& node)> inquiry;
    run::Hooks run;  // passed on to every run
  };
  // What held connections know already; all may be empty, then every node is asked.
  struct Told {
    std::optional<redis::Snapshot> snapshot;
    std::map<std::string, Monotonic> answered;  // when each node answered last
    std::vector<std::string> silent;            // nodes of it that are not worth asking again now
  };

  // All must outlive the keeper. `self`: the agent's name.
  RedisKeeper(RedisWorld& world, coord::Coordinator& coordinator, std::string self, Hooks hooks);
  [[nodiscard]] Tick tick(const Told& told);
  [[nodiscard]] const WatchRecord& record() const { return record_; }

 private:
  void say(std::string kind, std::string node, std::string text, std::string run = {},
           std::optional<Millis> took = {});
  void say_once(const std::string& topic, std::string kind, std::string node, std::string text);
  void say_blocked(const Tick& tick);
  [[nodiscard]] Status read_own_record();
  [[nodiscard]] RedisView fresh_view(const Told& told);
  void vote(const RedisView& view);
  void add_votes(RedisView& view);
  void act(Tick& tick);
  [[nodiscard]] Result<run::RunReport> failover(const RedisView& view);
  [[nodiscard]] Result<run::RunReport> rejoin(const std::string& node);
  [[nodiscard]] Result<run::RunReport> resume(const std::string& run);
  [[nodiscard]] std::function<bool()> hurry_for(const run::Plan& plan) const;
  // They must outlive the run.
  [[nodiscard]] run::Hooks hooks_for(const run::Plan& plan);
  [[nodiscard]] Millis until_next(const Tick& tick);

  RedisWorld& world_;
  coord::Coordinator& coordinator_;
  std::string self_;
  Hooks hooks_;
  WatchMemory memory_;
  WatchRecord record_;
  bool knows_record_ = false;
  std::optional<Monotonic> uneasy_since_;
  std::map<std::string, std::string> said_;  // by topic, so that nothing is said twice in a row
};

}  // namespace zx::ha
