// zx redis monitor on real servers.
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::RedisDeployment;

TEST_CASE("what happens to servers and Sentinels is told in a line each") {
  const RedisDeployment cache(3, 1);
  test::Background watching({ZX_BINARY, "-c", cache.config(), "redis", "monitor", "-o", "json"});
  const auto wait_for = [&](const std::string& node, const std::string& kind) {
    watching.wait_for(fmt::format(R"("node":"{}","event":"{}")", node, kind));
  };
  for (const auto* name : {"redis-a", "redis-b", "redis-c"}) wait_for(name, "up");
  watching.wait_for("is heard");

  watching.wait_for("redis-b answers as a replica of redis-a");
  cache.kill("redis-b");
  wait_for("redis-b", "down");
  wait_for("redis-a", "replica_lost");
  REQUIRE(cache.start("redis-b"));
  wait_for("redis-b", "restarted");
  wait_for("redis-a", "replica_attached");

  cache.kill("redis-a");
  wait_for("redis-a", "down");
  wait_for("redis-c", "link_down");
  // The only Sentinel fails over after its own time.
  watching.wait_for("+switch-master cache");
  watching.wait_for("is a master now");

  watching.signal(SIGINT);
  CHECK(watching.finish() == 0);
  const auto lines = test::lines_of(watching.output());
  CHECK(lines.size() > 10);
  for (const auto& line : lines) {
    const auto event = parse_json(line, "an event");
    REQUIRE_MESSAGE(event.has_value(), line);
    CHECK((*event)["schema"] == 1);
    CHECK((*event)["deployment"] == "cache");
    CHECK(line.find(cache.target("redis-b").password) == std::string::npos);
  }
}

TEST_CASE("a watch ends when nobody reads it any more, though it has nothing to say") {
  const RedisDeployment cache(1);
  for (const char* words : {"redis monitor", "redis monitor -o json", "redis status --watch"}) {
    CAPTURE(words);
    os::ProcessOptions options;
    options.deadline = test::kPatience;
    const auto ended = test::run_program(
        {"/bin/bash", "-c",
         fmt::format("\"$0\" -c \"$1\" {} | head -n 1; exit ${{PIPESTATUS[0]}}", words), ZX_BINARY,
         cache.config()},
        options);
    CHECK(ended.exit == 0);
    CHECK(test::lines_of(ended.out).size() == 1);
  }
}

}  // namespace
}  // namespace zx
