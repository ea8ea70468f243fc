// systemd's notification protocol: one datagram to $NOTIFY_SOCKET (sd_notify(3)). Without the
// variable nothing is sent.
#pragma once

#include <optional>
#include <string>

#include "lib/base/error.h"
#include "lib/base/units.h"

namespace zx::os {

// `state`: "READY=1", "STOPPING=1\nSTATUS=…", one assignment a line. Code::config when the variable
// names no socket, io when the datagram could not be sent.
[[nodiscard]] Status notify(const std::string& state);
// How often systemd wants to hear WATCHDOG=1 of this process, by $WATCHDOG_USEC and $WATCHDOG_PID.
[[nodiscard]] std::optional<Millis> watchdog_span();
// RELOADING=1 wants the time at which it began, of the monotonic clock.
[[nodiscard]] std::string reloading_state();

}  // namespace zx::os
