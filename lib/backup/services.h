// The applications of zx.toml: stopped before what they use is replaced, started and waited for
// after it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/config/config.h"
#include "lib/config/on_host.h"

namespace zx::backup {

// What is done on an instance's host, see lib/config/on_host.h.
[[nodiscard]] const config::NodeOps& service_ops();

struct Instance {
  std::string service;
  std::string host;     // a name of zx.toml
  std::string address;  // of it
  int port = 0;
  [[nodiscard]] std::string name() const { return service + " on " + host; }
};
[[nodiscard]] std::vector<Instance> instances_of(const config::Config& config,
                                                 const config::Service& service);
// Every host can be acted on. Code::config.
[[nodiscard]] Status can_reach_services(const config::Config& config);

// From the last service to the first, all instances of one at once; each no longer accepts
// connections when it returns.
[[nodiscard]] Status stop_services(const config::Config& config, Deadline deadline);
// From the first to the last; a service is started once the one before it is healthy, as far as
// its own health.within allows. Every service is tried; the error names those that are not healthy.
[[nodiscard]] Status start_services(const config::Config& config, Deadline deadline);
// Why an instance is not healthy now; empty: it is.
[[nodiscard]] std::string why_unhealthy(const config::Service& service, const Instance& instance);

// {host} and {port} replaced. Pure.
[[nodiscard]] std::vector<std::string> argv_for(const std::vector<std::string>& argv,
                                                const Instance& instance);

}  // namespace zx::backup
