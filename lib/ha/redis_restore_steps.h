// Private to lib/ha: what the steps of a restore have in common.
#pragma once

#include <string>

#include "lib/ha/redis_restore.h"
#include "lib/ha/redis_world.h"
#include "lib/redis/backup.h"
#include "lib/run/executor.h"

namespace zx::ha {

inline constexpr const char* kMinReplicas = "min-replicas-to-write";
inline constexpr const char* kDisklessLoad = "repl-diskless-load";
inline constexpr const char* kMasterAuth = "masterauth";

[[nodiscard]] std::string target_of(const run::StepContext& context);
[[nodiscard]] std::string file_of(const run::StepContext& context);
[[nodiscard]] redis::ThrowawayOptions throwaway_for(const RedisWorld& world,
                                                    const run::StepContext& context);
// "keys", "expires", "digest" of the file, as a server that loaded it has them.
[[nodiscard]] Json content_json(const redis::RdbContent& content);
// What an earlier step of the run found of the file.
[[nodiscard]] const Json& content_seen(const run::StepContext& context);

// As many keys as in the file, less those whose time has passed since. Pure.
[[nodiscard]] bool are_all(std::int64_t keys, const Json& content);
// Are the files of the node on this host?
[[nodiscard]] bool is_here(const RedisWorld& world, const std::string& node);
// Where the copy is that is made of what the target had.
[[nodiscard]] std::string safety_path(const RedisWorld& world, const run::StepContext& context);
// Makes it at `path`, of all that the target had at this point of its line. "file", "keys";
// "skipped" when it has no keys.
[[nodiscard]] Result<Json> keep_a_copy(RedisWorld& world, run::StepContext& context,
                                       const redis::Lineage& all, const std::string& path);

// The node beside the target that says that it is the master, or that the target follows; empty:
// none of the deployment.
[[nodiscard]] std::string other_master(const redis::Snapshot& snapshot, const std::string& target);
// Refused when somebody else, or the Sentinels, have made another node the master meanwhile.
[[nodiscard]] Status still_leads(RedisWorld& world, const run::StepContext& context);
// The master with the data of the file: the target, or one that took over from it with all that was
// compared. Refused when another is the master.
[[nodiscard]] Result<std::string> serving(RedisWorld& world, const run::StepContext& context);

[[nodiscard]] Result<std::string> get_setting(RedisWorld& world, const std::string& node,
                                              const std::string& name, Deadline deadline);
[[nodiscard]] Status set_setting(RedisWorld& world, const std::string& node,
                                 const std::string& name, const std::string& value,
                                 Deadline deadline);
// After its settings were put back: a CONFIG REWRITE meanwhile, by a Sentinel or a person, has kept
// those of the restore in its file, which is then written once more. A host that cannot be asked is
// a warning in the log.
[[nodiscard]] Status mend_config_file(RedisWorld& world, const std::string& node,
                                      Deadline deadline);
// Until its setting is put back, or it restarts.
[[nodiscard]] Status refuse_writes(RedisWorld& world, const std::string& node, Deadline deadline);
// Keys of all databases, now.
[[nodiscard]] Result<redis::RdbContent> keys_of(RedisWorld& world, const std::string& node,
                                                Deadline deadline);

void add_redis_restore_hold_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_safety_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_load_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_proof_actions(RedisWorld& world, run::Actions& actions);
void add_redis_restore_offline_actions(RedisWorld& world, run::Actions& actions);

}  // namespace zx::ha
