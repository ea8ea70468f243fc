// Private to lib/ha: what is missing where one node of a Redis deployment is the master, in words.
// Pure.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/redis/facts.h"

namespace zx::ha {

[[nodiscard]] std::string short_replid(const redis::Lineage& lineage);  // eight digits, for people
// Of the master itself and of every other node.
[[nodiscard]] std::vector<std::string> problems_of(const redis::Snapshot& snapshot,
                                                   const redis::NodeFacts& master);
// What one Sentinel says.
[[nodiscard]] std::string sentinel_words(const redis::Snapshot& snapshot,
                                         const config::RedisSentinel& sentinel,
                                         const redis::SentinelFacts& facts);
// That they are missing, disagree with the servers or each other, or list phantoms; `master` may be
// empty.
[[nodiscard]] std::vector<std::string> sentinel_problems(const redis::Snapshot& snapshot,
                                                         const config::RedisSentinel& sentinel,
                                                         const std::string& master);

}  // namespace zx::ha
