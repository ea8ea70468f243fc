#include "lib/ha/redis_quorum.h"

#include <algorithm>

#include <fmt/format.h>

namespace zx::ha {

std::string way_to_a_quorum(const config::RedisDeployment& deployment,
                            const redis::Snapshot& snapshot) {
  const auto& sentinels = snapshot.sentinels;
  const auto table = fmt::format("[redis.{}.sentinel]", deployment.name);
  const auto failing = [&](redis::Failure why) {
    return std::any_of(sentinels.begin(), sentinels.end(),
                       [&](const auto& one) { return one.failure == why; });
  };
  if (failing(redis::Failure::auth))
    return fmt::format("they run, and refuse zx: mend the user and the password of {} in zx.toml",
                       table);
  if (failing(redis::Failure::permission) || failing(redis::Failure::protected_mode))
    return fmt::format(
        "they run, and let zx do nothing: mend their ACL or protected-mode, or the user of {}",
        table);
  const bool is_unknown =
      !sentinels.empty() && std::all_of(sentinels.begin(), sentinels.end(), [](const auto& one) {
        return one.answered() && !one.knows_master;
      });
  if (is_unknown) return fmt::format("mend master_name of {} in zx.toml", table);
  return fmt::format(
      "start the Sentinels that are missing, they fail over by themselves then; or stop all of "
      "them, take {} out of zx.toml, and run it again without them",
      table);
}

}  // namespace zx::ha
