// Why a replica's link to its master does not come up.
#pragma once

#include <string>

#include "lib/ha/redis_world.h"

namespace zx::ha {

// By the settings of both. `replica` may follow another server now: the answer is for when it is
// told to follow `master`. Empty: nothing is known that would keep it from coming up. Passwords are
// read and tried, and are part of no answer.
[[nodiscard]] std::string why_no_link(RedisWorld& world, const redis::NodeFacts& replica,
                                      const redis::NodeFacts& master, Deadline deadline);

}  // namespace zx::ha
