// Private to lib/ha: the pieces that redis_actions() is put together from, one function a file.
#pragma once

#include <string>

#include "lib/ha/redis_world.h"
#include "lib/run/executor.h"

namespace zx::ha {

[[nodiscard]] const std::string& state_dir_of(const RedisWorld& world);

void add_redis_failover_actions(RedisWorld& world, run::Actions& actions);
void add_redis_sync_actions(RedisWorld& world, run::Actions& actions);

}  // namespace zx::ha
