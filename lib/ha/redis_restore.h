// zx redis restore: the data set of a deployment becomes that of a file.
//
// Live, of a server that serves: a throwaway server loads the file, and the target becomes its
// replica for a moment. With repl-diskless-load swapdb the old data stay until the new ones are
// whole. Offline, of a stopped server: the file is put where a start finds it.
#pragma once

#include <string>
#include <vector>

#include "lib/ha/redis_world.h"
#include "lib/redis/backup.h"
#include "lib/run/journal.h"
#include "lib/run/plan.h"

namespace zx::ha {

using redis::kHeldReplicas;
// down-after-milliseconds of the Sentinels during a restore, and never that of before.
inline constexpr Millis kCalm{24 * 3'600'000};

struct PreparedRestore {
  redis::CheckedFile file;
  run::Plan plan;
  bool is_live = false;
  std::int64_t present_keys = 0;  // of the target, which are replaced; live only
  std::vector<std::string> warnings;
};
// Looks at file and deployment, and changes nothing. Code::refused with the reason and the way out
// when it is not safe; what check_file() says of a file that is no whole copy.
[[nodiscard]] Result<PreparedRestore> prepare_redis_restore(RedisWorld& world,
                                                            const std::string& file,
                                                            const std::string& target);

// What the plan is made from. Pure.
struct RestoreFacts {
  std::string target;
  std::string file;  // absolute
  redis::CheckedFile checked;
  bool is_live = false;
  std::vector<std::string> replicas;  // that follow the target now
  // Of a target that is stopped: the replica that has the most of what it had. Empty: none that
  // answers has keys.
  std::string keeper;
};
[[nodiscard]] run::Plan plan_redis_restore(const config::RedisDeployment& deployment,
                                           const RestoreFacts& facts);

// Refused when another restore has left, or has just set, its own values at the target or at a
// Sentinel: what was there before it is not known. Pure.
[[nodiscard]] Status no_restore_left(const config::RedisDeployment& deployment,
                                     const redis::Snapshot& snapshot, const std::string& target);

// Refused when so many Sentinels do not answer that these could fail over during a restore. Pure.
[[nodiscard]] Status can_be_calmed(const config::RedisDeployment& deployment,
                                   const redis::Snapshot& snapshot);

[[nodiscard]] bool is_a_restore(const run::Record& record);
// Of a restore that a person ends as it is. What it set on target and Sentinels is put back as far
// as they answer and nobody has set it anew; the data stay as they are.
struct Leavings {
  std::vector<std::string> put_back;  // "min-replicas-to-write of redis-a"
  struct Left {
    std::string what, mend;  // and the command for it
  };
  std::vector<Left> left;
};
[[nodiscard]] Leavings leave_as_it_is(RedisWorld& world, const run::Record& record);

}  // namespace zx::ha
