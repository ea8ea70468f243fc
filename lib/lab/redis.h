// The Redis servers and Sentinels of a lab.
#pragma once

#include <string>
#include <vector>

#include "lib/lab/build.h"
#include "lib/lab/server.h"

namespace zx::lab {

inline constexpr const char* kRedisPassword = "redis.pass";
inline constexpr const char* kSentinelPassword = "sentinel.pass";
inline constexpr const char* kMasterName = "cache";

[[nodiscard]] std::string redis_program();
// Of so many Sentinels, how many must agree.
[[nodiscard]] int quorum_of(std::size_t sentinels);

// A master, its replicas, and Sentinels that know all of them: everything runs and is in sync. The
// calling thread's alone: it tells no progress.
[[nodiscard]] Status build_redis(const Blueprint& blueprint);

// A server or Sentinel by its processes.
[[nodiscard]] Result<Running> running_redis_in(const Place& place, const std::string& node);
[[nodiscard]] Status launch_redis(const Place& place, const std::string& node);
// It answers and has read its data set; false while it does not yet.
[[nodiscard]] Result<bool> is_redis_ready(const Place& place, const std::string& node);
// master or replica, as its configuration file has it; sentinel; unknown without the file.
[[nodiscard]] std::string redis_role(const Place& place, const std::string& node);

}  // namespace zx::lab
