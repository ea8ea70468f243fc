// How a person's run on a Redis deployment begins.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "commands/command.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_run.h"
#include "lib/ha/redis_told.h"

namespace zx::commands {

// A person's hand on a deployment.
struct RedisHand {
  std::unique_ptr<coord::Shared> shared;  // with the agents and other persons
  std::unique_ptr<ha::RedisWorld> world;
  [[nodiscard]] ha::Ground ground() const { return ha::ground_of(*world, shared.get()); }
};
// Both must outlive it. Code::config: the password cannot be read.
[[nodiscard]] Result<RedisHand> hand_on(const config::Config& config,
                                        const config::RedisDeployment& deployment);

// The turn of the deployment. For a dry run, or when a question is asked first, nothing but the
// refusal that take_turn() would give.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> begin_turn(const RedisHand& hand,
                                                               const ha::TurnWish& wish,
                                                               bool only_look);
// Prints the steps as they end, the last words, and gives the exit status. `looked`: how long it
// took to be sure that the run was called for.
[[nodiscard]] Result<int> carry_out(Env& env, RedisHand& hand, run::Plan plan, coord::Lease& lease,
                                    std::optional<Millis> looked = {});
// The end of it: the agents of all hosts are told, then the last words.
[[nodiscard]] Result<int> conclude_told(Env& env, const ha::RedisToldByHand& told,
                                        const run::RunReport& report,
                                        std::optional<Millis> looked = {});

[[nodiscard]] Json verdict_json(const ha::RedisVerdict& verdict);
// With -v: what was seen, and what follows from it.
void log_evidence(const ha::RedisVerdict& verdict);

}  // namespace zx::commands
