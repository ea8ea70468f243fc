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
#include "lib/run/plan.h"

namespace zx::ha {

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
};
[[nodiscard]] run::Plan plan_redis_restore(const config::RedisDeployment& deployment,
                                           const RestoreFacts& facts);

}  // namespace zx::ha
