// Private to lib/ha: what the steps of a restore have in common.
#pragma once

#include <string>

#include "lib/ha/redis_world.h"
#include "lib/redis/backup.h"
#include "lib/run/executor.h"

namespace zx::ha {

[[nodiscard]] std::string target_of(const run::StepContext& context);
[[nodiscard]] std::string file_of(const run::StepContext& context);
[[nodiscard]] redis::ThrowawayOptions throwaway_for(const RedisWorld& world,
                                                    const run::StepContext& context);
// "keys", "expires", "digest" of the file, as a server that loaded it has them.
[[nodiscard]] Json content_json(const redis::RdbContent& content);
// What an earlier step of the run found of the file.
[[nodiscard]] const Json& content_seen(const run::StepContext& context);

[[nodiscard]] Result<std::string> get_setting(RedisWorld& world, const std::string& node,
                                              const std::string& name, Deadline deadline);
[[nodiscard]] Status set_setting(RedisWorld& world, const std::string& node,
                                 const std::string& name, const std::string& value,
                                 Deadline deadline);
// Keys of all databases, now.
[[nodiscard]] Result<redis::RdbContent> keys_of(RedisWorld& world, const std::string& node,
                                                Deadline deadline);

void add_redis_restore_hold_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_load_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_proof_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_offline_actions(RedisWorld& world, run::Actions& actions);

}  // namespace zx::ha
