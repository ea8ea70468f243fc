// Redis's part of a set: an RDB over the wire from a replica.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

struct RedisJob {
  const config::Config& config;
  const config::RedisDeployment& deployment;
  std::string set_id;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  std::function<void(std::uint64_t)> progress;  // bytes that came since the last call
};

// Into incoming/ID/redis. Its structure and checksum are checked, and a throwaway server loads it
// where this host has the memory for that; a warning says where not.
struct RedisBackedUp {
  RedisPart part;
  std::vector<std::string> warnings;
};
[[nodiscard]] Result<RedisBackedUp> back_up_redis(const Repository& repository,
                                                  const RedisJob& job);

}  // namespace zx::backup
