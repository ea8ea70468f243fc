// Private to lib/ha: what is not as it should be in a Redis deployment, in words. Pure.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/redis/facts.h"

namespace zx::ha {

[[nodiscard]] std::string short_replid(const redis::Lineage& lineage);  // eight digits, for people
// A sentence, and what to do about it; the hint is empty when that is clear, or is known to nobody.
struct RedisProblem {
  std::string text, hint;
};
// Of the servers; `master` may be null: none, or more than one.
[[nodiscard]] std::vector<RedisProblem> problems_of(const redis::Snapshot& snapshot,
                                                    const redis::NodeFacts* master);
// What one Sentinel says.
[[nodiscard]] std::string sentinel_words(const redis::Snapshot& snapshot,
                                         const config::RedisSentinel& sentinel,
                                         const redis::SentinelFacts& facts);
// That they are missing, disagree with the servers or each other, or list phantoms; `master` may be
// empty.
[[nodiscard]] std::vector<RedisProblem> sentinel_problems(const redis::Snapshot& snapshot,
                                                          const config::RedisSentinel& sentinel,
                                                          const std::string& master);

}  // namespace zx::ha
