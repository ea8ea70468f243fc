// One server of a lab, of whatever kind: starting it so that it outlives zx, and signals to it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/lab/place.h"

namespace zx::lab {

// A server's process, or one of PostgreSQL's tools on its way: not a shell that happens to stand
// in the directory.
[[nodiscard]] bool is_server_or_tool(const os::FoundProcess& process);
[[nodiscard]] bool is_redis(const os::FoundProcess& process);

struct Running {
  pid_t postmaster = 0;  // or redis-server; 0: none, the others are then orphans, about to end
  bool is_paused = false;
  std::vector<os::FoundProcess> processes;
};
[[nodiscard]] Result<Running> running_in(const Place& place, const std::string& node);

// Starts it and waits until it accepts connections. True when it was started, false when it ran
// already. An error has the end of the server's log; a server that is merely slow is left to go on.
[[nodiscard]] Result<bool> start_server(const Place& place, const std::string& node,
                                        Deadline deadline, const std::function<bool()>& cancelled);

// As Lab::kill.
[[nodiscard]] Result<int> signal_server(const Place& place, const std::string& node, int signal);

}  // namespace zx::lab
