// What hosts say of a master that does not answer here: other hosts whether they reach it, its own
// what runs there.
#pragma once

#include <string>
#include <vector>

#include "lib/ha/redis_world.h"

namespace zx::ha {

// What the node's own host says, within the deadline and a second, into `facts`.
void look_on_host(RedisWorld& world, redis::NodeFacts& facts, Millis deadline);

struct RedisInquiry {
  std::string node;
  Monotonic began{};
  std::vector<redis::Testimony> testimonies;
  std::optional<redis::LocalFacts> local;
  std::string local_error;
};
// Asks all of them at once. Has no effect.
[[nodiscard]] RedisInquiry inquire(RedisWorld& world, const std::string& node, Millis deadline);
// Into what was seen since; it is to be judged anew.
void add(redis::Snapshot& snapshot, const RedisInquiry& inquiry);

}  // namespace zx::ha
