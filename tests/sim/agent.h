// One observer's loop: looks, and when it holds the lease fails over, takes up what a crash left
// unfinished, and brings nodes back.
#pragma once

#include <map>
#include <string>

#include "lib/ha/pg_chain.h"
#include "tests/sim/coordinator.h"
#include "tests/sim/invariants.h"
#include "tests/sim/model_world.h"

namespace zx::sim {

class Agent {
 public:
  Agent(Environment& environment, Leases& leases, Invariants& invariants, Random random, int number,
        Place place, config::Config config);

  void start();
  // Its process is gone; after `restart` it is there again, if that is not negative.
  void crash(Micros restart);
  // For good.
  void retire();
  // SIGSTOP for a while.
  void pause(Micros span);
  // It crashes after that many more lines of its journal, and is restarted a while later.
  void crash_after_lines(int lines, Micros restart);
  // Ends what its journal says is unfinished, as an operator would in the end. On a fiber.
  [[nodiscard]] Status end_unfinished();

  [[nodiscard]] Place place() const { return world_.place(); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool runs() const { return fiber_ && !fiber_->ended(); }
  [[nodiscard]] int runs_begun() const { return runs_begun_; }
  // The last thing that it could not do.
  [[nodiscard]] const std::string& last_refusal() const { return last_refusal_; }

 private:
  struct Setting {
    std::string conninfo, slot;
    bool standby_signal = false, fenced = false;
    bool operator==(const Setting&) const = default;
  };
  using Settings = std::map<std::string, Setting>;

  void loop();
  void tick(coord::Lease& lease);
  bool take_up_unfinished(coord::Lease& lease);
  void fail_over(coord::Lease& lease);
  void mend(coord::Lease& lease, const ha::View& view);
  void rejoin(coord::Lease& lease, const std::string& node);
  std::optional<run::RunReport> carry_out(coord::Lease& lease, const run::Plan& plan);
  run::Hooks hooks();
  run::Actions actions();
  void say(const std::string& what);
  [[nodiscard]] Settings settings() const;

  Environment& env_;
  Leases& leases_;
  Invariants& invariants_;
  Random random_;
  int number_;
  std::string name_;
  ModelWorld world_;
  std::shared_ptr<Fiber> fiber_;
  bool retired_ = false;
  int lines_left_ = -1;
  Micros restart_ = 0;
  int runs_begun_ = 0;
  std::map<std::string, Micros> not_before_;  // of a node's next rejoin
  std::string last_refusal_;
};

}  // namespace zx::sim
