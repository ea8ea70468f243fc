// A failover of Redis where three Sentinels watch.
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::Counter;
using test::RedisDeployment;

bool sentinels_agree_on(const RedisDeployment& servers, const std::string& master) {
  return test::eventually([&] {
    for (const auto* name : {"sentinel-a", "sentinel-b", "sentinel-c"})
      if (servers.sentinel_master(name) != master) return false;
    return true;
  });
}

TEST_CASE("a dead master is replaced through the Sentinels, which then agree") {
  RedisDeployment servers({.sentinels = 3, .down_after_ms = 60'000});
  servers.kill("redis-a");
  const auto done = servers.zx_json({"failover", "redis", "--to", "redis-c", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(done["promoted"] == "redis-c");
  CHECK(servers.the_master() == "redis-c");
  CHECK(sentinels_agree_on(servers, "redis-c"));
  CHECK(servers.in_line_with("redis-c"));
  CHECK(servers.ask("redis-c", {"CONFIG", "GET", "replica-priority"}) == "replica-priority 100");
  CHECK(servers.ask("redis-b", {"CONFIG", "GET", "replica-priority"}) == "replica-priority 100");
}

TEST_CASE("a planned move through the Sentinels loses no increment") {
  RedisDeployment servers({.sentinels = 3, .down_after_ms = 60'000});
  Counter counter(servers);
  const auto done = servers.zx_json({"failover", "redis", "--planned", "--to", "redis-c", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(done["lost_bytes"] == 0);
  CHECK(servers.the_master() == "redis-c");
  CHECK(counter.goes_on());
  counter.end();
  REQUIRE(servers.in_line_with("redis-c"));
  for (const auto& name : servers.names()) {
    CAPTURE(name);
    CHECK(counter.value_on(name) >= counter.acknowledged());
    CHECK(counter.value_on(name) <= counter.acknowledged() + counter.unanswered());
  }
  CHECK(sentinels_agree_on(servers, "redis-c"));
  CHECK(servers.the_master() == "redis-c");
}

TEST_CASE("with the majority of the Sentinels gone it is refused, and said what to do") {
  RedisDeployment servers({.sentinels = 3, .down_after_ms = 2'000});
  servers.kill("sentinel-a");
  servers.kill("sentinel-b");
  servers.kill("redis-a");
  // The third notices after a moment that it is alone.
  REQUIRE(test::eventually([&] {
    return servers.ask("sentinel-c", {"SENTINEL", "CKQUORUM", "cache"}).starts_with("NOQUORUM");
  }));
  const auto refused = servers.zx_json({"failover", "redis", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message").find("no Sentinel has a quorum") == 0);
  CHECK(get_string(refused["error"], "hint").find("start the Sentinels") == 0);
  CHECK(servers.masters().empty());
  servers.start("sentinel-a");
  servers.start("sentinel-b");
  // They may be quicker than a person.
  servers.zx({"failover", "redis", "--yes"});
  REQUIRE(test::eventually([&] { return servers.masters().size() == 1; }));
  CHECK(servers.the_master() != "redis-a");
}

}  // namespace
}  // namespace zx
