// `zx node OP` on a model host: what lib/pg/data_dir.h and rejoin_dir.h promise, to model nodes.
#pragma once

#include <functional>
#include <string>

#include "lib/base/error.h"
#include "lib/base/json.h"
#include "tests/sim/model_node.h"

namespace zx::sim {

class ModelHosts {
 public:
  using Done = std::function<void(Result<Json>)>;
  ModelHosts(Scheduler& scheduler, Network& network, Cluster& cluster, Random random)
      : scheduler_(scheduler), network_(network), cluster_(cluster), random_(random) {}

  // Begins it now, on the node's host. `done` is not called when the host crashes meanwhile.
  void run(const std::string& op, ModelNode& node, const Json& request, Done done);
  // A planted bug: a fence that says that it did its work.
  bool drops_fence = false;

 private:
  void later(const ModelNode& node, Micros span, std::function<void()> then);
  void fence(ModelNode& node, const std::string& run, Done done);
  void stop(ModelNode& node, Done done);
  void start(ModelNode& node, Done done);
  void copy(const std::string& op, ModelNode& node, const Json& request, Done done);
  void settle(ModelNode& node, Done done);
  void put_fence(ModelNode& node, const std::string& run);

  Scheduler& scheduler_;
  Network& network_;
  Cluster& cluster_;
  Random random_;
};

}  // namespace zx::sim
