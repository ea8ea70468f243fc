// What whoever makes another node of a Redis deployment the master tells the agents of all hosts,
// in the record that they share.
#pragma once

#include <string>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/ha/watch_record.h"
#include "lib/run/executor.h"

namespace zx::ha {

// Signs a plan with the failover that was the last one when it began, so that nothing of it is told
// once another has come after it.
void sign(run::Plan& plan, const WatchRecord& record);
// Tells who is the master now, when `step` is the one that made it so and is done. By a person,
// unless an agent has signed the plan ("agent").
[[nodiscard]] Status tell_failover(coord::Shared& shared, const config::RedisDeployment& deployment,
                                   const run::Plan& plan, const run::StepReport& step);

// A person's run. `shared` may be null: then nobody is told.
class RedisToldByHand {
 public:
  // `alone`: on the person's word; the agents are told at the end, if they can be by then.
  RedisToldByHand(coord::Shared* shared, const config::RedisDeployment& deployment, bool alone)
      : shared_(shared), deployment_(deployment), alone_(alone) {}
  // Signs the plan. An Error: nothing may be begun.
  [[nodiscard]] Status begin(run::Plan& plan) const;
  // Code::refused when another failover came after that run.
  [[nodiscard]] Status may_resume(const run::Record& record) const;
  // It and `plan` must outlive the run.
  [[nodiscard]] run::Hooks with(run::Hooks hooks, const run::Plan& plan) const;
  // What could not be told in the course of the run. An Error: the agents do not know it.
  [[nodiscard]] Status end(const run::RunReport& report) const;

 private:
  coord::Shared* shared_;
  const config::RedisDeployment& deployment_;
  bool alone_;
};

}  // namespace zx::ha
