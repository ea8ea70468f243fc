// The guard of one server on this host: holds its lease, and stops the server in time when it may
// not be a primary any more.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "lib/config/config.h"
#include "lib/net/loop.h"
#include "lib/store/events.h"

namespace zx::agent {

class NodeGuard {
 public:
  struct Means {
    std::shared_ptr<const config::Config> config;
    std::string cluster, node;
    std::string owner;                               // the agent's name
    std::function<void(const store::Event&)> event;  // from any thread
  };
  [[nodiscard]] static Result<std::unique_ptr<NodeGuard>> start(net::Loop& loop, Means means);
  // The lease is left to run out, and the server goes on: whoever ends a guard ends its server too,
  // or starts the guard again before that.
  ~NodeGuard();

  struct State {
    std::string node;
    Millis lease_left{0};
    bool is_barred = false;
    bool has_stopped_it = false;
    std::string why;
  };
  [[nodiscard]] State state() const;
  [[nodiscard]] bool is_well() const;

 private:
  struct Impl;
  explicit NodeGuard(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace zx::agent
