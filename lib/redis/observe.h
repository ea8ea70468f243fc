// Asks every server and every Sentinel at once, each under its own deadline.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/redis/facts.h"

namespace zx::redis {

// One target a node, in the order of the file. Reads the password.
[[nodiscard]] Result<std::vector<Target>> targets_of(const config::Config& config,
                                                     const config::RedisDeployment& deployment);
[[nodiscard]] Result<Target> target_of(const config::Config& config,
                                       const config::RedisDeployment& deployment,
                                       const std::string& node);
// One a Sentinel, in the order of sentinel.nodes; none when the deployment has none.
[[nodiscard]] Result<std::vector<Target>> sentinel_targets_of(
    const config::Config& config, const config::RedisDeployment& deployment);

// Whom a look asks.
struct Audience {
  std::vector<Target> nodes;
  std::vector<Target> sentinels;
  std::string master_name;  // what the Sentinels call the master
  std::vector<Target>
      known;  // every node of the deployment: what a Sentinel names besides is foreign
};
[[nodiscard]] Result<Audience> audience_of(const config::Config& config,
                                           const config::RedisDeployment& deployment);

// All facts of one server over an open connection. `facts` names the node. Calls back once, on the
// loop. What the ACL denies is absent, with a warning.
void ask_facts(const Connection::Pointer& connection, NodeFacts facts, Deadline deadline,
               std::function<void(NodeFacts)> done);
// The same of a Sentinel.
void ask_sentinel(const Connection::Pointer& connection, const std::string& master_name,
                  SentinelFacts facts, Deadline deadline, std::function<void(SentinelFacts)> done);

// Never fails as a whole: each has its facts or its failure. Takes no longer than `deadline`.
[[nodiscard]] Snapshot observe(const Audience& audience, Millis deadline);

// The same, for one thread that looks again and again: with `holds` it keeps its connections from
// look to look. One that has ended meanwhile is made anew within the same deadline.
class Observer {
 public:
  explicit Observer(bool holds);
  ~Observer();
  [[nodiscard]] Snapshot observe(const Audience& audience, Millis deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Fills host names, which Target does not have, from the configuration.
void name_hosts(Snapshot& snapshot, const config::Config& config,
                const config::RedisDeployment& deployment);

}  // namespace zx::redis
