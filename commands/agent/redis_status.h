// A Redis deployment in zx agent status.
#pragma once

#include <string>

#include "commands/command.h"
#include "lib/base/clock.h"

namespace zx::commands {

// Shows what the agent says of it, adds "unfinished_run" and "next" to it, and gives what a person
// is to type; empty: nothing.
[[nodiscard]] std::string show_agent_deployment(Env& env, const config::Config& config,
                                                Json& deployment, bool has_others, Wall now);

}  // namespace zx::commands
