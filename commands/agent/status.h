// zx agent status.
#pragma once

#include "commands/command.h"

namespace zx::commands {

[[nodiscard]] Result<int> show_agent_status(Env& env);

}  // namespace zx::commands
