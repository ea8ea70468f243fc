// How a plan and a run look: to a person, line by line while it goes on, and as JSON.
#pragma once

#include <optional>
#include <string>

#include "commands/command.h"
#include "lib/run/executor.h"

namespace zx::commands {

// What a step found or did, in a few words: "pg-b, timeline 4".
[[nodiscard]] std::string words_of(const run::StepReport& step);

// The numbered steps of a plan, each with its deadline.
void show_steps(Screen& screen, const run::Plan& plan);
// Fits a table of steps to the screen, whose third column says of what, and whose fourth says why.
void fit_steps(Table& table);
[[nodiscard]] Json steps_json(const run::Plan& plan);

// Prints a line for every step that ended, and takes the run back when --timeout passes before its
// point of no return. `env` must outlive the hooks.
[[nodiscard]] run::Hooks live_lines(Env& env, const run::Plan& plan);

// {"run", "command", "outcome", "ms", "steps": […], "error"}; for a failover or switchover
// "promoted" and "lost_bytes" too.
[[nodiscard]] Json to_json(const run::RunReport& report);

// The last words of a run and its exit status. An Error carries the exit status of the outcome.
// `looked`: how long it took to be sure that the run was called for.
[[nodiscard]] Result<int> conclude(Env& env, const run::RunReport& report,
                                   std::optional<Millis> looked = {});

// A person's consent: `yes`, or `confirm` naming what `name` says, or the answer on the terminal.
// In production `yes` is not enough.
struct Consent {
  bool yes = false;
  std::string confirm;
};
// Nothing was given: the person at the terminal is asked.
[[nodiscard]] inline bool is_asked(const Consent& consent) {
  return !consent.yes && consent.confirm.empty();
}
void add_consent(CLI::App* leaf, Consent& consent, const std::string& what);
[[nodiscard]] Status need_consent(Env& env, const config::Config& config, const Consent& consent,
                                  const std::string& name, const std::string& question);

}  // namespace zx::commands
