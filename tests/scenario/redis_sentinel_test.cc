// A failover of Redis where three Sentinels watch.
#include "tests/scenario/redis_servers.h"

namespace zx {
namespace {

using test::Counter;
using test::RedisServers;

bool sentinels_agree_on(const RedisServers& servers, const std::string& master) {
  return test::eventually([&] {
    for (int i = 0; i < 3; ++i)
      if (servers.sentinel_master(i) != master) return false;
    return true;
  });
}

TEST_CASE("a dead master is replaced through the Sentinels, which then agree") {
  RedisServers servers({.sentinels = 3});
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
  RedisServers servers({.sentinels = 3});
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
  RedisServers servers({.sentinels = 3, .down_after_ms = 2000});
  servers.kill_sentinel(0);
  servers.kill_sentinel(1);
  servers.kill("redis-a");
  // The third notices after a moment that it is alone.
  REQUIRE(test::eventually([&] {
    return servers.ask_sentinel(2, {"SENTINEL", "CKQUORUM", "shop"}).starts_with("NOQUORUM");
  }));
  const auto refused = servers.zx_json({"failover", "redis", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message").find("no Sentinel has a quorum") == 0);
  CHECK(get_string(refused["error"], "hint").find("start the Sentinels") == 0);
  CHECK(servers.masters().empty());
  servers.start_sentinel(0);
  servers.start_sentinel(1);
  // They may be quicker than a person.
  servers.zx({"failover", "redis", "--yes"});
  REQUIRE(test::eventually([&] { return servers.masters().size() == 1; }));
  CHECK(servers.the_master() != "redis-a");
}

}  // namespace
}  // namespace zx
