// What goes wrong in a seed, and when.
#pragma once

#include <memory>

#include "tests/sim/agent.h"

namespace zx::sim {

class Faults {
 public:
  Faults(Environment& environment, std::vector<std::unique_ptr<Agent>>& agents, Random random,
         Place coordinator, Micros end)
      : env_(environment), agents_(agents), random_(random), coordinator_(coordinator), end_(end) {}
  // Begins all that will go wrong, until `end`.
  void begin();
  // From here on nothing goes wrong any more. What is broken stays so, but machines run and reach
  // each other.
  void cease();
  void crash_host(int host, Micros lasts);

 private:
  void one(Micros at);
  void hurt_primary();
  void hurt(ModelNode& node, int how);
  void cut(Micros lasts);
  void hurt_agent();
  ModelNode& any_node();
  Agent& any_agent();
  [[nodiscard]] ModelNode* primary();
  void say(const std::string& what);

  Environment& env_;
  std::vector<std::unique_ptr<Agent>>& agents_;
  Random random_;
  Place coordinator_;
  Micros end_;
  bool over_ = false;
};

}  // namespace zx::sim
