// One seed: a cluster, observers, clients, faults, and what came of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/invariants.h"
#include "tests/sim/model_world.h"

namespace zx::sim {

struct Outcome {
  std::optional<Violation> violation;
  std::vector<std::string> trace;  // empty unless it was asked for
  int promotions = 0, runs = 0, beside = 0;
  int rescues = 0;  // servers that a person had to start in the end
  std::size_t acknowledged = 0;
  Micros took = 0;  // virtual
};

// `directory` holds the observers' state; what is in it before is removed.
[[nodiscard]] Outcome simulate(std::uint64_t seed, const Plants& plants,
                               const std::string& directory, bool with_trace);

}  // namespace zx::sim
