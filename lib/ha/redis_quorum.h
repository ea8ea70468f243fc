// What to do where the Sentinels cannot fail over, see why_no_quorum().
#pragma once

#include <string>

#include "lib/config/config.h"
#include "lib/redis/facts.h"

namespace zx::ha {

// One that refuses zx's password runs: nothing is gained by starting it. Pure.
[[nodiscard]] std::string way_to_a_quorum(const config::RedisDeployment& deployment,
                                          const redis::Snapshot& snapshot);

}  // namespace zx::ha
