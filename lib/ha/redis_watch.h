// What an agent does next about one Redis deployment. Pure: what is seen and what is remembered go
// in, one decision comes out.
#pragma once

#include <optional>
#include <string>

#include "lib/ha/pg_watch.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/watch_record.h"
#include "lib/run/journal.h"

namespace zx::ha {

struct RedisSight {
  const config::RedisDeployment& deployment;
  const redis::Snapshot& snapshot;
  const RedisVerdict& verdict;
  const WatchRecord& record;
  bool leads = false;
  std::string why_not_leading = {};
  std::optional<run::Record> open = {};    // an unfinished run, and nobody is at work on it
  std::optional<Monotonic> answered = {};  // when the master of the verdict answered last
  Monotonic now = {};
  Wall wall = {};
};
void remember(WatchMemory& memory, const RedisSight& sight);
// After remember() of the same sight. Act::failover, resume, rejoin (of an old master that came
// back beside the new one, or of a node that follows a wrong server or nobody) or none.
[[nodiscard]] Decision decide(const RedisSight& sight, const WatchMemory& memory);

// Under which the coordinator keeps the record of a deployment, beside those of clusters.
[[nodiscard]] std::string record_of(const config::RedisDeployment& deployment);

}  // namespace zx::ha
