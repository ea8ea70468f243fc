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
  // A supervisor starts it again: it is no master for a moment.
  servers.start("redis-a");
  CHECK(servers.role("redis-a") == "slave");
  CHECK(servers.in_line_with("redis-c"));
  CHECK(sentinels_agree_on(servers, "redis-c"));
}

TEST_CASE("a frozen master is ended before the Sentinels promote another") {
  RedisDeployment servers(
      {.sentinels = 3, .down_after_ms = 60'000, .policy = "probe_deadline = \"500ms\""});
  servers.kill("redis-a", SIGSTOP);
  const auto done = servers.zx_json({"failover", "redis", "--yes"});
  CHECK(done["outcome"] == "done");
  const auto& steps = done["steps"];
  REQUIRE(steps.size() > 1);
  CHECK(steps[0]["name"] == "fence");
  CHECK(os::processes_in(servers.data_dir("redis-a"))->empty());
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(sentinels_agree_on(servers, master));
  servers.start("redis-a");
  CHECK(servers.role("redis-a") == "slave");
  CHECK(servers.in_line_with(master));
}

TEST_CASE("without a way to its host a dead master is not given up through the Sentinels either") {
  RedisDeployment servers({.sentinels = 3, .down_after_ms = 60'000});
  servers.edit_config("remote = []\n", "");
  servers.kill("redis-a");
  const auto refused = servers.zx_json({"failover", "redis", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message").find("redis-a cannot be fenced") == 0);
  CHECK(servers.masters().empty());
  const auto done = servers.zx_json({"failover", "redis", "--assume-fenced", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(sentinels_agree_on(servers, servers.the_master()));
}

TEST_CASE("a master that came back empty is made a replica through the Sentinels, its data kept") {
  RedisDeployment servers(
      {.servers = 2, .sentinels = 3, .down_after_ms = 60'000, .settings = test::kForgetful});
  for (int i = 0; i < 200; ++i)
    REQUIRE(servers.ask("redis-a", {"SET", fmt::format("键{}", i), "值"}) == "OK");
  REQUIRE(servers.in_line_with("redis-a"));
  REQUIRE(servers.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"}) == "OK");
  servers.kill("redis-a");
  servers.start("redis-a");
  const auto done = servers.zx_json({"failover", "redis", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(servers.the_master() == "redis-b");
  CHECK(servers.ask("redis-b", {"GET", "键199"}) == "值");
  CHECK(test::eventually([&] { return servers.ask("redis-a", {"GET", "键199"}) == "值"; }));
  CHECK(sentinels_agree_on(servers, "redis-b"));
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

TEST_CASE("a move that the Sentinels were told of is not taken back, and finished without loss") {
  RedisDeployment servers({.sentinels = 3, .down_after_ms = 60'000});
  Counter counter(servers);
  // begin, prefer (3 lines), pause (2), hand over begun, the order noted.
  constexpr int kOrdered = 8;
  const auto killed = servers.zx_killed_at(
      kOrdered, {"failover", "redis", "--planned", "--to", "redis-b", "--yes"});
  REQUIRE_MESSAGE(killed.signal == SIGKILL, (killed.out + killed.err));
  REQUIRE(servers.newest_run().steps["hand over"].notes.contains("sent"));
  // What it may have done yet before it died.
  REQUIRE(servers.ask("redis-a", {"CLIENT", "PAUSE", "60000", "WRITE"}) == "OK");
  REQUIRE(servers.ask("sentinel-a", {"SENTINEL", "FAILOVER", "cache"}) == "OK");
  const auto refused = servers.zx({"runs", "abort"});
  CHECK(refused.exit == 4);
  CHECK_MESSAGE(refused.err.find("finish it: zx runs resume ") != std::string::npos, refused.err);
  const auto resumed = servers.zx({"runs", "resume"});
  CHECK_MESSAGE(resumed.exit == 0, (resumed.out + resumed.err));
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(counter.goes_on());
  counter.end();
  CHECK(counter.value_on(master) >= counter.acknowledged());
  CHECK(sentinels_agree_on(servers, master));
  for (const auto& name : servers.names())
    CHECK(servers.ask(name, {"CONFIG", "GET", "replica-priority"}) == "replica-priority 100");
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
