// zx redis restore on servers of the test's own, and what it must leave.
#pragma once

#include <signal.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/scenario/bare_redis.h"

namespace zx::test {

// By writes, which replicas get.
inline std::string filled(int keys, const std::string& name) {
  return fmt::format(
      "EVAL \"for i = 1, {} do redis.call('SET', '{}:' .. i, string.rep('值', 20) .. i) end\" 0\n",
      keys, name);
}

inline std::string digest(RedisServer& server) { return server.says({"DEBUG", "DIGEST"}); }

inline bool all_have(BareRedis& deployment, const std::string& wanted) {
  return eventually([&] {
    for (std::size_t i = 0; i < deployment.size(); ++i)
      if (digest(deployment.node(i)) != wanted) return false;
    return true;
  });
}

inline bool all_linked(BareRedis& deployment) {
  return eventually([&] {
    for (std::size_t i = 1; i < deployment.size(); ++i)
      if (deployment.node(i).info("master_link_status") != "up") return false;
    return true;
  });
}

// Nothing of a restore is left in the settings of the master, and it takes writes.
inline void check_settings(BareRedis& deployment) {
  auto& master = deployment.node(0);
  CHECK(master.says({"CONFIG", "GET", "min-replicas-to-write"}) == "min-replicas-to-write\n0");
  CHECK(master.says({"CONFIG", "GET", "repl-diskless-load"}) == "repl-diskless-load\ndisabled");
  CHECK(master.says({"CONFIG", "GET", "masterauth"}) == "masterauth");
  CHECK(master.info("role") == "master");
  CHECK(master.says({"SET", "written-after", "1"}) == "OK");
  CHECK(master.says({"DEL", "written-after"}) == "1");
}

inline std::vector<std::string> restore(const std::string& file) {
  return {"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-a"};
}

// kill -9 of zx in its call number `count` of `call`. Nothing but the journal calls fdatasync: that
// is right after it has written line `count` of it.
inline os::ProcessResult killed_in(const BareRedis& deployment, const std::string& call, int count,
                                   const std::vector<std::string>& words) {
  os::Argv argv{"strace",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "signal=none",
                fmt::format("--inject={}:signal=SIGKILL:when={}", call, count),
                ZX_BINARY,
                "-c",
                deployment / "zx.toml"};
  argv.insert(argv.end(), words.begin(), words.end());
  os::ProcessOptions options;
  const char* given = getenv("ASAN_OPTIONS");
  options.environment = {
      {"ASAN_OPTIONS", (given != nullptr ? std::string(given) + ":" : "") + "detect_leaks=0"}};
  options.deadline = Millis(120'000);
  return run_program(argv, options);
}

inline os::ProcessResult killed_at(const BareRedis& deployment, int line,
                                   const std::vector<std::string>& words) {
  return killed_in(deployment, "fdatasync", line, words);
}

}  // namespace zx::test
