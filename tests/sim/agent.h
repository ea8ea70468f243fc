// One agent: ha::PgKeeper in a process that may be stopped, killed and started again. Or a person,
// who runs a few commands by hand from a host of his own.
#pragma once

#include <string>

#include "lib/ha/pg_keeper.h"
#include "tests/sim/coordinator.h"
#include "tests/sim/invariants.h"
#include "tests/sim/model_world.h"

namespace zx::sim {

class Agent {
 public:
  Agent(Environment& environment, CoordinatorService& service, Invariants& invariants,
        Random random, int number, Place place, Place coordinator, config::Config config,
        int commands = 0);  // of a person; 0: an agent

  void start();
  // Its process is gone; after `restart` it is there again, if that is not negative.
  void crash(Micros restart);
  // For good.
  void retire();
  // SIGSTOP for a while.
  void pause(Micros span);
  // It crashes after that many more lines of its journal, and is restarted `lasts` later; or is
  // stopped there for so long. A negative number takes it back.
  void crash_after_lines(int lines, Micros lasts, bool only_stopped = false);
  // Ends what its journal says is unfinished, as an operator would in the end. On a fiber.
  [[nodiscard]] Status end_unfinished();

  [[nodiscard]] Place place() const { return world_.place(); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool runs() const { return fiber_ && !fiber_->ended(); }
  [[nodiscard]] int runs_begun() const { return runs_begun_; }
  // What it said last.
  [[nodiscard]] const std::string& last_words() const { return last_words_; }
  // Nodes for which it asked a person for a rebuild, and which it has not brought back since.
  [[nodiscard]] const std::set<std::string>& given_over() const { return given_over_; }

 private:
  void loop();
  void by_hand();
  [[nodiscard]] Result<run::RunReport> command(coord::Shared& shared);
  void watch(const ha::PgKeeper::Tick& tick, int effects);
  ha::PgKeeper::Hooks hooks();
  void say(const std::string& what);

  Environment& env_;
  CoordinatorService& service_;
  Invariants& invariants_;
  Random random_;
  int number_;
  std::string name_;
  Place coordinator_place_;
  ModelWorld world_;
  std::shared_ptr<Fiber> fiber_;
  ModelCoordinator* coordinator_ = nullptr;  // while it runs
  ModelShared* shared_ = nullptr;            // while a person's command runs
  const bool is_person_;
  int commands_left_;
  bool retired_ = false;
  int lives_ = 0;
  [[nodiscard]] int process() const { return number_ + 100 * lives_; }
  int lines_left_ = -1;
  Micros lasts_ = 0;
  bool only_stopped_ = false;
  int runs_begun_ = 0;
  int effects_ = 0;  // of the world, when a person's command began, or his last run ended
  std::string last_words_;
  std::set<std::string> given_over_;
};

}  // namespace zx::sim
