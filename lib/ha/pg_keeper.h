// One agent's care for one cluster: look, decide, at most one run; again and again. The agent runs
// tick() on a thread of its own, the simulator on model nodes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/coord/coordinator.h"
#include "lib/ha/pg_chain.h"
#include "lib/ha/pg_inquiry.h"
#include "lib/ha/pg_watch.h"
#include "lib/store/events.h"

namespace zx::ha {

class PgKeeper {
 public:
  struct Tick;
  struct Hooks {
    std::function<void(const store::Event&)> event;
    // Does `primary` need attention? Asked while a standby of it is being brought back: that run is
    // then taken back, or left to be resumed.
    std::function<bool(const std::string& primary)> hurry;
    // What hosts said of a silent node since it answered last, if they were asked already; an
    // inquiry that is going on is waited for.
    std::function<std::optional<Inquiry>(const std::string& node)> inquiry;
    // What it sees and will do, before it acts on it: a run can take long.
    std::function<void(const Tick&)> judged;
    run::Hooks run;  // passed on to every run
  };
  // What held connections know already; all may be empty, then every node is asked.
  struct Told {
    std::optional<pg::Snapshot> snapshot;
    std::map<std::string, Monotonic> answered;  // when each node answered last
    std::vector<std::string> silent;            // nodes of it that are not worth asking again now
    std::optional<LastSeen> last;  // of the newest moment with one primary, also during a run
    std::optional<PlannedStop> planned;
    std::optional<Wall> noticed;  // when the first sign of trouble came
  };
  struct Tick {
    View view;
    Decision decision;
    std::optional<run::RunReport> report;  // of the run, if there was one
    std::optional<Error> error;            // why it was not begun, or did not end well
    Millis again{0};                       // when to look again
    bool was_calm = false;                 // nothing to do, by held connections alone
  };

  // All must outlive the keeper. `self`: the agent's name.
  PgKeeper(PgWorld& world, coord::Coordinator& coordinator, std::string self, std::string region,
           Hooks hooks);
  [[nodiscard]] Tick tick(const Told& told);
  [[nodiscard]] const WatchRecord& record() const { return record_; }
  // What was tried with a standby and failed, and when it is tried again.
  struct Retry {
    std::string node, what, why;
    int times = 0;
    Monotonic next{};
  };
  [[nodiscard]] std::vector<Retry> retries() const;

 private:
  void say(std::string kind, std::string node, std::string text, std::string run = {},
           std::optional<Millis> took = {});
  void say_once(const std::string& topic, std::string kind, std::string node, std::string text);
  [[nodiscard]] Status read_record();
  // With the turn taken: is what was decided still by what all know? Code::locked: no, look again.
  [[nodiscard]] Status nothing_new();
  void note_last(const Told& told);
  void note_standing(const coord::Standing& standing);
  [[nodiscard]] View fresh_view(const Told& told);
  void add_votes(View& view, int& regions_agree);
  void vote(const View& view, const Told& told);
  [[nodiscard]] Status note_begun(const Prepared& prepared);
  struct Settled {
    std::vector<WatchRecord::Owed> owed;
    bool has_ended = false;  // the failover that the record has as begun
    [[nodiscard]] bool is_empty() const { return owed.empty() && !has_ended; }
  };
  [[nodiscard]] Settled settled_by(const View& view) const;
  void settle_owed(const Tick& tick, const Told& told);
  void share_owed_sync();
  void note_trouble(const Told& told, const View& view);
  [[nodiscard]] bool was_stopped_by_guard(const View& view);
  void act(Tick& tick);
  [[nodiscard]] Result<run::RunReport> failover(const View& view);
  [[nodiscard]] Result<run::RunReport> on_a_standby(const Decision& decision, bool accepts_writes);
  [[nodiscard]] bool is_left_behind(const View& view) const;
  [[nodiscard]] Status believe_successor(View& view);
  [[nodiscard]] Result<std::optional<run::RunReport>> settle_heir(const std::string& heir,
                                                                  View& view, coord::Lease& turn);
  [[nodiscard]] static bool is_failover(const run::Plan& plan) {
    return plan.command == "failover pg";
  }
  [[nodiscard]] bool is_gone(const View& view, const std::string& node);
  void sign(run::Plan& plan) const;
  [[nodiscard]] std::string why_overtaken(const run::Record& record);
  [[nodiscard]] Result<run::RunReport> close(const run::Record& record, const std::string& why);
  [[nodiscard]] Result<run::RunReport> resume(const std::string& run);
  // It must outlive the run.
  [[nodiscard]] run::Hooks hooks_for(const run::Plan& plan);
  [[nodiscard]] std::function<bool()> hurry_for(const run::Plan& plan) const;
  void say_blocked(const Tick& tick);
  [[nodiscard]] Status note_rejoin(const std::string& node);
  void note_beyond_rewind(const Tick& tick, const Error& error);
  void note_failed(const Decision& what, const std::string& why);
  void note_step(const run::Plan& plan, const run::StepReport& step);
  void note_promoted(const run::Plan& plan, const std::string& run, const Json& seen);
  void conclude(const run::RunReport& report);

  PgWorld& world_;
  coord::Coordinator& coordinator_;
  std::string self_, region_;
  Hooks hooks_;
  WatchMemory memory_;
  WatchRecord record_, earlier_;  // earlier_: as it was read before
  std::string noted_;             // the failover that is in the record, of those of this agent
  bool knows_record_ = false;
  std::map<std::string, std::string> said_;  // by topic, so that nothing is said twice in a row
  std::optional<coord::Standing::Role> role_;
  bool in_trouble_ = false;
  std::string trouble_of_;  // the primary of it
  Wall trouble_since_{};
  std::map<std::string, std::string> why_failed_;  // as memory_.tries
  std::optional<Monotonic> blocked_since_;
};

}  // namespace zx::ha
