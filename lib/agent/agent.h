// The long-lived process: monitors, keepers, endpoints, control socket, reload, and systemd's
// notifications.
#pragma once

#include <functional>
#include <string>

#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/config/config.h"

namespace zx::agent {

struct Options {
  std::string config_path;
  std::string version;
  // What is logged, a line each; from any thread.
  std::function<void(log::Level, const std::string&)> say;
};

// Runs until SIGTERM or SIGINT, which end it in order: no run is begun any more, a failover that is
// going on is finished, one about a standby is taken back, requests that were begun are answered.
// SIGHUP reads the configuration again; a bad one is refused whole and the old one stays. An Error:
// it could not begin (Code::locked: another agent of that name runs here).
[[nodiscard]] Status run(const Options& options);

// The agent's name, by its configuration or the host.
[[nodiscard]] std::string name_of(const config::Config& config);
// Where it listens for zx on this host; mode 0600.
[[nodiscard]] std::string control_socket(const config::Config& config);
[[nodiscard]] std::string events_path(const config::Config& config);

}  // namespace zx::agent
