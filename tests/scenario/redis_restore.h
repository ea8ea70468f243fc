// zx redis restore on a lab, and what it must leave.
#pragma once

#include <string>
#include <vector>

#include "tests/scenario/redis_deployment.h"

namespace zx::test {

// By writes, which replicas get.
inline std::string filled(int keys, const std::string& name) {
  return fmt::format(
      "EVAL \"for i = 1, {} do redis.call('SET', '{}:' .. i, string.rep('值', 20) .. i) end\" 0\n",
      keys, name);
}

inline const std::string kMaster = "redis-a";
// DEBUG DIGEST tells two data sets apart.
inline const std::string kDigest = "enable-debug-command local\n";

inline std::string digest(const RedisDeployment& deployment, const std::string& node = kMaster) {
  return deployment.ask(node, {"DEBUG", "DIGEST"});
}

inline bool all_have(const RedisDeployment& deployment, const std::string& wanted) {
  return eventually([&] {
    for (const auto& name : deployment.names())
      if (digest(deployment, name) != wanted) return false;
    return true;
  });
}

// Nothing of a restore is left in the settings of the master, and it takes writes.
inline void check_settings(const RedisDeployment& deployment) {
  const auto setting = [&](const std::string& name) {
    return deployment.ask(kMaster, {"CONFIG", "GET", name});
  };
  CHECK(setting("min-replicas-to-write") == "min-replicas-to-write 0");
  CHECK(setting("repl-diskless-load") == "repl-diskless-load disabled");
  CHECK(setting("masterauth") == "masterauth " + deployment.password());
  CHECK(deployment.role(kMaster) == "master");
  CHECK(deployment.ask(kMaster, {"SET", "written-after", "1"}) == "OK");
  CHECK(deployment.ask(kMaster, {"DEL", "written-after"}) == "1");
}

inline std::vector<std::string> restore(const std::string& file) {
  return {"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-a"};
}

}  // namespace zx::test
