// Every effect that a plan for Redis can have, behind one seam: real servers and hosts in
// production, model nodes in a test.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/coord/lock.h"
#include "lib/ha/all_at_once.h"
#include "lib/redis/connection.h"
#include "lib/redis/facts.h"

namespace zx::ha {

class RedisWorld {
 public:
  virtual ~RedisWorld() = default;
  [[nodiscard]] virtual const config::Config& config() const = 0;
  [[nodiscard]] virtual const config::RedisDeployment& deployment() const = 0;

  // Only the named nodes; all of them, and the Sentinels, when empty.
  [[nodiscard]] virtual redis::Snapshot observe(const std::vector<std::string>& nodes,
                                                Millis deadline) = 0;
  [[nodiscard]] virtual std::vector<redis::SentinelFacts> observe_sentinels(Millis deadline) = 0;
  // A node operation (lib/redis/node_ops.h) on the node's host; "dir" is filled in, with what was
  // last seen of the server where zx.toml does not say it.
  [[nodiscard]] virtual Result<Json> on_host_of(const std::string& node, const std::string& op,
                                                Json request, Millis deadline) = 0;
  // Looks at `node` from every host that has a `remote` of its own, all at once.
  [[nodiscard]] virtual std::vector<redis::Testimony> ask_around(const std::string& node,
                                                                 Millis deadline) = 0;
  // Every one of `tries` attempts to connect, `apart` from each other, is refused.
  [[nodiscard]] virtual bool refuses(const std::string& node, int tries, Millis apart,
                                     Millis deadline) = 0;

  // One command to a node, or to a Sentinel by its place in the configuration.
  [[nodiscard]] virtual redis::Outcome<redis::Reply> command(const std::string& node,
                                                             const redis::Command& argv,
                                                             Deadline d) = 0;
  [[nodiscard]] virtual redis::Outcome<redis::Reply> ask_sentinel(std::size_t index,
                                                                  const redis::Command& argv,
                                                                  Deadline d) = 0;

  // Keeps other runs off the servers for as long as it lives, see redis_mark.h; `except` are not
  // waited for. Null when this world has no servers to mark.
  [[nodiscard]] virtual Result<std::unique_ptr<coord::Lease>> mark(
      const std::string& /*run*/, const std::string& /*command*/,
      const std::vector<std::string>& /*except*/) {
    return std::unique_ptr<coord::Lease>();
  }

  // What is shared with all hosts; null when this world shares nothing.
  [[nodiscard]] virtual coord::Shared* shared() { return nullptr; }
};

// All must outlive it; `shared` may be null.
[[nodiscard]] std::unique_ptr<RedisWorld> real_redis_world(
    const config::Config& config, const config::RedisDeployment& deployment,
    coord::Shared* shared = nullptr);

// Where a node is, as its replicas are told; empty for an unknown name.
struct Place {
  std::string host;
  int port = 0;
};
[[nodiscard]] Place place_of(const RedisWorld& world, const std::string& node);
// command() as a Result, the node's name in front of what went wrong.
[[nodiscard]] Result<redis::Reply> tell(RedisWorld& world, const std::string& node,
                                        const redis::Command& argv, Deadline deadline);

}  // namespace zx::ha
