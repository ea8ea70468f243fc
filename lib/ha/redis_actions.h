// What each step of a plan for Redis does: guard, act, verify, undo.
#pragma once

#include "lib/ha/redis_world.h"
#include "lib/run/executor.h"

namespace zx::ha {

// `world` must outlive the actions.
[[nodiscard]] run::Actions redis_actions(RedisWorld& world);

}  // namespace zx::ha
