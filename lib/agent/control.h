// What zx on the same host may ask of an agent through its Unix socket. The socket's mode decides
// who may.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/agent/status.h"
#include "lib/coord/etcd_coordinator.h"
#include "lib/store/events.h"

namespace zx::agent {

// File or etcd, as [agent] says. Code::config: a password that cannot be read.
[[nodiscard]] Result<std::unique_ptr<coord::Coordinator>> make_coordinator(
    const config::Config& config, const std::string& name);

struct ControlMeans {
  coord::Coordinator* coordinator = nullptr;
  const config::Config* config = nullptr;
  std::function<AgentState()> state;
  std::function<Status()> reload;
  std::function<void(const store::Event&)> record;
  std::function<Result<std::vector<store::Event>>(std::size_t, const std::string&)> newest;
};
// GET /events; POST /reload, /pause, /resume, /ack with JSON; and what answer() has. An Error is
// {"error": …} with status 409, 400 for a request that makes no sense.
[[nodiscard]] net::HttpResponse answer_control(const net::HttpRequest& request,
                                               const ControlMeans& means);

// The other side, for commands. Code::unreachable when no agent runs here.
[[nodiscard]] Result<Json> ask_agent(const config::Config& config, const std::string& method,
                                     const std::string& path, const Json& body = Json());

}  // namespace zx::agent
