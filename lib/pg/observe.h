// Asks every node at once, each under its own deadline.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/pg/facts.h"

namespace zx::pg {

// Targets for the probe user, one per node, in the order of the file. Reads the password.
[[nodiscard]] Result<std::vector<Target>> targets_of(const config::Config& config,
                                                     const config::PgCluster& cluster);
[[nodiscard]] Result<Target> target_of(const config::Config& config,
                                       const config::PgCluster& cluster, const std::string& node);

// All facts of one server over an open connection that nothing else is asked of meanwhile. `facts`
// names the node and may have what was known of it before: a timeline that is still the same is not
// read again. Calls back once, on the loop.
void ask_facts(const Connection::Pointer& connection, NodeFacts facts, Deadline deadline,
               std::function<void(NodeFacts)> done);

// Never fails as a whole: each node has its facts or its failure. Takes no longer than `deadline`.
[[nodiscard]] Snapshot observe(const std::vector<Target>& targets, Millis deadline);

// The same, for one thread that looks again and again: with `holds` it keeps its connections from
// look to look, so that a look costs a query and no new session. One that has ended meanwhile is
// made anew within the same deadline.
class Observer {
 public:
  explicit Observer(bool holds);
  ~Observer();
  [[nodiscard]] Snapshot observe(const std::vector<Target>& targets, Millis deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Fills host names, which Target does not have, from the configuration.
void name_hosts(Snapshot& snapshot, const config::Config& config, const config::PgCluster& cluster);

}  // namespace zx::pg
