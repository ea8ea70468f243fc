// What was true of a Redis deployment when its master last answered. When the master is dead this
// tells who it was and how far its stream was; when one answers, whether it is the same that was
// left.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "lib/redis/facts.h"

namespace zx::ha {

struct RedisLastSeen {
  Wall at{};
  std::string master;
  std::string run_id;
  redis::Lineage lineage;
  std::int64_t keys = 0;
  std::int64_t min_replicas_to_write = 0, min_replicas_max_lag_s = 0;
  std::int64_t strangers = 0;  // what reads its stream and is no node of the deployment
  // By node: what a server that runs says of itself, for when it does not run.
  struct Place {
    std::string dir, config_file;
    bool operator==(const Place&) const = default;
  };
  std::map<std::string, Place> places;
};

// Empty when there is no such file, or one that says nothing.
[[nodiscard]] std::optional<RedisLastSeen> read_redis_last_seen(const std::string& state_dir,
                                                                const std::string& deployment);
// Of a snapshot in which exactly one node answers as master; what `before` knows of the places of
// nodes that do not answer goes on. Pure.
[[nodiscard]] std::optional<RedisLastSeen> redis_last_seen_of(
    const redis::Snapshot& snapshot, const std::optional<RedisLastSeen>& before);
// Another master, line or place than `before`: more than a later moment of the same.
[[nodiscard]] bool says_more(const RedisLastSeen& now, const RedisLastSeen& before);
// Losing it costs knowledge, not safety: it is not synced to disk.
[[nodiscard]] Status write_redis_last_seen(const std::string& state_dir,
                                           const std::string& deployment,
                                           const RedisLastSeen& seen);

}  // namespace zx::ha
