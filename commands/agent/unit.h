// The systemd unit of the agent.
#pragma once

#include <string>

namespace zx::commands {

// As a package installs it: /usr/bin/zx, /etc/zx/zx.toml, /var/lib/zx, and no server on its host.
[[nodiscard]] std::string usual_agent_unit();

}  // namespace zx::commands
