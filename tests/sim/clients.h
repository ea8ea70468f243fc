// Clients that write all the time, through whichever node they reach that lets them.
#pragma once

#include "tests/sim/model_node.h"

namespace zx::sim {

class Clients {
 public:
  Clients(Scheduler& scheduler, Network& network, Cluster& cluster, Random random)
      : scheduler_(scheduler), network_(network), cluster_(cluster), random_(random) {}
  void begin(Place place);

 private:
  struct Client {
    Place place;
    int node = 0;
    std::uint64_t attempt = 0;  // an answer to an earlier one comes too late
  };
  void write(std::size_t client);
  void answered(std::size_t client, std::uint64_t attempt, bool done);

  Scheduler& scheduler_;
  Network& network_;
  Cluster& cluster_;
  Random random_;
  std::vector<Client> clients_;
  int commits_ = 0;
};

}  // namespace zx::sim
