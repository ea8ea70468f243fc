// zx redis sync: replicas that are out of line, and why they are.
#include <filesystem>

#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::RedisDeployment;

Json node_in(const Json& answer, const std::string& name) {
  for (const auto& one : answer["nodes"])
    if (one["node"] == name) return one;
  FAIL("no node " << name << " in " << answer.dump());
  return {};
}

TEST_CASE(
    "a replica of the wrong server is pointed at the master, and said to need a partial resync") {
  RedisDeployment servers;
  REQUIRE(servers.in_line_with("redis-a"));
  REQUIRE(servers.ask("redis-b", {"REPLICAOF", "127.0.0.1", "1"}) == "OK");
  const auto dry = servers.zx_json({"redis", "sync", "redis-b", "--dry-run"});
  CHECK(dry["outcome"] == "planned");
  CHECK(node_in(dry, "redis-b")["resync"] == "partial");
  CHECK(servers.info("redis-b", "master_port") == "1");

  const auto done = servers.zx_json({"redis", "sync", "redis-b", "--yes"});
  CHECK(done["outcome"] == "done");
  for (const auto& step : done["steps"])
    if (step["name"] == "sync redis-b") CHECK(step["seen"]["resync"] == "partial");
  CHECK(servers.in_line_with("redis-a"));
  // It stays so after a restart, and the key that was written to see it is gone.
  CHECK(test::read(servers.conf_of("redis-b")).find("replicaof 127.0.0.1 1\n") ==
        std::string::npos);
  CHECK(servers.ask("redis-a", {"KEYS", "zx:*"}).empty());
}

TEST_CASE("one that is behind the backlog is sent everything, and that is said") {
  RedisDeployment servers({.settings = "repl-backlog-size 16kb"});
  REQUIRE(servers.in_line_with("redis-a"));
  REQUIRE(servers.ask("redis-b", {"REPLICAOF", "127.0.0.1", "1"}) == "OK");
  // The backlog is cut in blocks, and not while another replica still reads one.
  const auto has = std::atoll(servers.info("redis-b", "slave_repl_offset").c_str());
  const std::string big(4096, 'x');
  REQUIRE(test::eventually([&] {
    servers.ask("redis-a", {"SET", "key", big});
    return std::atoll(servers.info("redis-a", "repl_backlog_first_byte_offset").c_str()) > has + 1;
  }));
  const auto dry = servers.zx_json({"redis", "sync", "redis-b", "--dry-run"});
  CHECK(node_in(dry, "redis-b")["resync"] == "full");
  CHECK(get_string(node_in(dry, "redis-b"), "why").find("repl-backlog-size") != std::string::npos);
  const auto done = servers.zx_json({"redis", "sync", "--all", "--yes"});
  CHECK(done["outcome"] == "done");
  for (const auto& step : done["steps"])
    if (step["name"] == "sync redis-b") CHECK(step["seen"]["resync"] == "full");
  CHECK(servers.in_line_with("redis-a"));
}

TEST_CASE("why a link does not come up is found") {
  RedisDeployment servers;
  REQUIRE(servers.in_line_with("redis-a"));
  const auto blocked = [&](const std::string& words) {
    const auto refused = servers.zx_json({"redis", "sync", "redis-b", "--yes"}, 3);
    CHECK_MESSAGE(get_string(refused["error"], "message").find(words) != std::string::npos,
                  refused.dump());
    CHECK(refused.dump().find(servers.password()) == std::string::npos);
  };
  const auto cut = [&] {
    servers.ask("redis-a", {"CLIENT", "KILL", "TYPE", "replica"});
    REQUIRE(
        test::eventually([&] { return servers.info("redis-b", "master_link_status") == "down"; }));
  };
  REQUIRE(servers.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"}) == "OK");
  cut();
  blocked("redis-a refuses the masterauth of redis-b: wrong password");
  REQUIRE(servers.ask("redis-b", {"CONFIG", "SET", "masterauth", ""}) == "OK");
  blocked("redis-a asks for a password, and masterauth of redis-b is not set");
  servers.kill("redis-b");
  blocked("connection refused");
}

TEST_CASE("one that poses as a master follows again, and its own keys are given up by name only") {
  RedisDeployment servers;
  REQUIRE(servers.in_line_with("redis-a"));
  servers.zx_json({"failover", "redis", "--yes"}, 3);  // somebody has looked
  REQUIRE(servers.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
  REQUIRE(servers.ask("redis-b", {"SET", "自己的", "1"}) == "OK");
  const auto refused = servers.zx_json({"redis", "sync", "redis-b", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message").find("redis-b has 1 key of another line") == 0);
  CHECK(get_string(refused["error"], "hint").find("--confirm redis-b") != std::string::npos);
  CHECK(servers.masters().size() == 2);
  const auto done = servers.zx_json({"redis", "sync", "redis-b", "--confirm", "redis-b"});
  CHECK(done["outcome"] == "done");
  CHECK(servers.the_master() == "redis-a");
  CHECK(servers.in_line_with("redis-a"));
  CHECK(servers.ask("redis-b", {"GET", "自己的"}).empty());
}

TEST_CASE("where the data are gone everywhere that is said until a person says it is meant so") {
  RedisDeployment servers;
  for (int i = 0; i < 20; ++i) servers.ask("redis-a", {"SET", fmt::format("键:{}", i), "1"});
  REQUIRE(servers.in_line_with("redis-a"));
  CHECK(servers.status()["state"] == "healthy");
  servers.kill("redis-a");
  const auto data = servers.lab().dir() + "/redis-a/data";
  for (const auto& one : std::filesystem::directory_iterator(data))
    std::filesystem::remove_all(one.path());
  CHECK(servers.start("redis-a"));
  REQUIRE(servers.in_line_with("redis-a"));
  for (int i = 0; i < 2; ++i) {
    const auto gone = servers.status();
    CHECK(gone["state"] == "master_reborn_empty");
    CHECK_MESSAGE(gone["problems"].dump().find(
                      "the data are gone: redis-a came back with 0 keys") != std::string::npos,
                  gone["problems"].dump());
  }
  CHECK(servers.zx({"status", "--detailed-exitcode"}).exit == 10);
  const auto refused = servers.zx_json({"failover", "redis", "--yes"}, 3);
  CHECK(get_string(refused["error"], "hint").find("zx redis restore FILE") != std::string::npos);
  servers.zx_json({"redis", "sync", "--all", "--yes"}, 3);
  CHECK(servers.status()["state"] == "master_reborn_empty");
  servers.zx_json({"redis", "sync", "--all", "--confirm", "redis-a"});
  CHECK(servers.status()["state"] == "healthy");
}

}  // namespace
}  // namespace zx
