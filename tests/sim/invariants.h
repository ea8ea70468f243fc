// What must hold whatever happens. The first violation ends a seed.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/sim/model_node.h"

namespace zx::sim {

struct Violation {
  std::string invariant;  // its short name
  std::string what;
};

class Invariants final : public Witness {
 public:
  Invariants(const Scheduler& scheduler, const Cluster& cluster, Trace& trace)
      : scheduler_(scheduler), cluster_(cluster), trace_(trace) {}

  void acknowledged(const ModelNode& node, int commit, bool by_standbys) override;
  void promoted(const ModelNode& node) override;
  void mixed(const ModelNode& standby, const ModelNode& upstream) override;
  void primary_started(const ModelNode& node) override;
  void violate(std::string invariant, std::string what);

  // Of a run that goes without a fence, as its policy allows: the old primary may acknowledge
  // asynchronous commits beside the new one. They are counted, and lost.
  void allow_unfenced(const std::string& node) { unfenced_.insert(node); }

  // Empty when the cluster is whole: one primary, everyone behind it, writes acknowledged. Nobody
  // waits for `given_over`: nodes that only a rebuild helps, where a person was asked for it. With
  // `strict` commits may wait for them.
  [[nodiscard]] std::string what_is_missing(const std::set<std::string>& given_over,
                                            bool strict) const;
  // `node` has every commit that standbys acknowledged.
  void check_kept(const ModelNode& node, const char* when);

  [[nodiscard]] const std::optional<Violation>& violation() const { return violation_; }
  [[nodiscard]] int promotions() const { return promotions_; }
  [[nodiscard]] std::size_t acknowledgements() const { return count_; }
  [[nodiscard]] int beside() const { return beside_; }

 private:
  struct Kept {
    int record;
    std::size_t position;
  };
  const Scheduler& scheduler_;
  const Cluster& cluster_;
  Trace& trace_;
  std::optional<Violation> violation_;
  int holder_ = 0;  // the node that was promoted last: the only one that may acknowledge
  std::set<std::string> unfenced_;
  std::vector<Kept> kept_;
  std::size_t count_ = 0;
  int promotions_ = 0, beside_ = 0;
  Micros last_acknowledged_ = 0;
};

}  // namespace zx::sim
