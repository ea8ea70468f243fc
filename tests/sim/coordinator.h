// Leases with a time to live, as the coordinator keeps them.
#pragma once

#include "lib/coord/lock.h"
#include "tests/sim/network.h"

namespace zx::sim {

class Leases {
 public:
  Leases(Scheduler& scheduler, Network& network, Place place)
      : scheduler_(scheduler), network_(network), place_(place) {}
  static constexpr Micros kTtl = 4 * kSecond;

  struct Held {
    std::int64_t token = 0;  // greater than every one before
    Micros until = 0;        // by when it must be renewed; counted from before it was asked for
  };
  // From the fiber of `holder` at `from`: takes it when it is free, or renews it (`token` above 0).
  // Absent: somebody else has it, or the coordinator does not answer in time.
  [[nodiscard]] std::optional<Held> take(Place from, int holder, std::int64_t token);

 private:
  Scheduler& scheduler_;
  Network& network_;
  Place place_;
  int holder_ = -1;
  std::int64_t token_ = 0;
  Micros until_ = 0;
};

class ModelLease final : public coord::Lease {
 public:
  ModelLease(Scheduler& scheduler, Leases& leases, Place place, int holder, Leases::Held held,
             bool never_lost)
      : scheduler_(scheduler),
        leases_(leases),
        place_(place),
        holder_(holder),
        held_(held),
        never_lost_(never_lost) {}
  Status check() override;

 private:
  Scheduler& scheduler_;
  Leases& leases_;
  Place place_;
  int holder_;
  Leases::Held held_;
  bool never_lost_;
};

}  // namespace zx::sim
