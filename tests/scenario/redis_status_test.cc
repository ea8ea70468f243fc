// zx redis status on real servers, well and unwell.
#include <filesystem>
#include <thread>

#include "tests/fake_redis.h"
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::eventually;
using test::RedisDeployment;

bool has_problem(const Json& status, const std::string& part) {
  for (const auto& one : status["problems"])
    if (one.get<std::string>().find(part) != std::string::npos) return true;
  return false;
}

std::string all_problems(const Json& status) { return dump_line(status["problems"]); }

TEST_CASE("a deployment that is well is shown with its master, its replicas and its Sentinels") {
  const RedisDeployment cache(3, 3);
  for (int i = 0; i < 50; ++i)
    CHECK(cache.ask("redis-a", {"SET", fmt::format("商品:{}", i), "x"}) == "OK");
  for (const auto* name : {"redis-b", "redis-c"})
    REQUIRE(eventually([&] { return cache.info(name, "db0").starts_with("keys=50"); }));
  const auto status = cache.zx_json({"redis", "status", "--detailed-exitcode"});
  CHECK_MESSAGE(status["state"] == "healthy", all_problems(status));
  CHECK(status["master"] == "redis-a");
  CHECK(status["summary"] == "master redis-a, 2 of 2 replicas linked, Sentinel agrees (3 of 3)");
  const auto master = RedisDeployment::node_in(status, "redis-a");
  CHECK(master["role"] == "master");
  CHECK(master["keys"] == 50);
  CHECK(master["replid"].get<std::string>() == cache.info("redis-a", "master_replid"));
  CHECK(master["replicas"].size() == 2);
  CHECK(master["persistence"]["aof"] == true);
  CHECK(master["config"]["dir"] == cache.node("redis-a").data_dir);
  for (const auto* name : {"redis-b", "redis-c"}) {
    const auto replica = RedisDeployment::node_in(status, name);
    CHECK(replica["role"] == "replica");
    CHECK(replica["follows"] == "redis-a");
    CHECK(replica["state"] == "linked");
    CHECK(replica["behind_bytes"].get<std::int64_t>() >= 0);
    CHECK(replica["keys"] == 50);
  }
  REQUIRE(status["sentinels"].size() == 3);
  for (const auto& sentinel : status["sentinels"]) {
    CHECK(sentinel["master"] == "redis-a");
    CHECK(sentinel["has_quorum"] == true);
  }
  const auto table = cache.zx({"redis", "status"});
  REQUIRE_MESSAGE(table.ok(), table.err);
  CHECK(table.out.starts_with("Redis cache   master redis-a, 2 of 2 replicas linked"));
  for (const auto* part : {"FOLLOWS", "BEHIND", "LINE", "AOF", "SENTINEL", "QUORUM"})
    CHECK(table.out.find(part) != std::string::npos);
  const auto password = cache.target("redis-a").password;
  CHECK(table.out.find(password) == std::string::npos);
  CHECK(dump_line(status).find(password) == std::string::npos);
}

TEST_CASE("a node that is killed, paused or refuses zx is named with its reason") {
  const RedisDeployment cache(3);
  SUBCASE("the master is killed") {
    cache.kill("redis-a");
    // Its replicas see the end of the connection.
    REQUIRE(eventually([&] { return cache.info("redis-b", "master_link_status") == "down"; }));
    const auto status = cache.zx_json({"redis", "status", "--detailed-exitcode"}, 10);
    CHECK(status["state"] == "master_dead");
    CHECK(status["master"].is_null());
    CHECK(dump_line(status["hints"]).find("zx failover redis --dry-run") != std::string::npos);
    CHECK(RedisDeployment::node_in(status, "redis-a")["failure"] == "refused");
    CHECK(RedisDeployment::node_in(status, "redis-b")["state"] == "no link");
    CHECK(RedisDeployment::node_in(status, "redis-b")["follows"] == "redis-a");
  }
  SUBCASE("a replica is stopped by SIGSTOP") {
    cache.kill("redis-c", SIGSTOP);
    const auto status = cache.zx_json({"--timeout", "500ms", "redis", "status"});
    CHECK(status["state"] == "degraded");
    CHECK(RedisDeployment::node_in(status, "redis-c")["failure"] == "silent");
    CHECK(RedisDeployment::node_in(status, "redis-b")["state"] == "linked");
  }
  SUBCASE("all are killed") {
    for (const auto* name : {"redis-a", "redis-b", "redis-c"}) cache.kill(name);
    const auto status = cache.status();
    CHECK(status["state"] == "unreachable");
    CHECK(status["summary"] == "no node answers");
    CHECK(status["problems"].size() == 3);
  }
  SUBCASE("the password is wrong") {
    CHECK(cache.ask("redis-c", {"CONFIG", "SET", "requirepass", "another"}) == "OK");
    const auto status = cache.status();
    const auto node = RedisDeployment::node_in(status, "redis-c");
    CHECK(node["failure"] == "auth");
    CHECK(node["state"] == "no access");
    CHECK(has_problem(status, "redis-c"));
    CHECK(dump_line(status).find(cache.target("redis-a").password) == std::string::npos);
  }
  SUBCASE("a password that cannot be read is an error, not a state of the servers") {
    std::filesystem::permissions(cache.lab().redis_password_file(), std::filesystem::perms(0644));
    const auto result = cache.zx({"redis", "status"});
    CHECK(result.exit == 6);
    CHECK(result.out.empty());
  }
  SUBCASE("an ACL user that may do little still sees the roles") {
    CHECK(cache.ask("redis-b", {"ACL", "SETUSER", "default", "reset", "on", "~*", "+info", "+ping",
                                ">" + cache.target("redis-b").password}) == "OK");
    const auto status = cache.status();
    const auto node = RedisDeployment::node_in(status, "redis-b");
    CHECK(node["role"] == "replica");
    CHECK(node["min_replicas"]["to_write"].is_null());
    CHECK(has_problem(status, "redis-b: its settings are not known"));
  }
}

TEST_CASE("a replica that follows another, copies everything or has lost its way is named") {
  const RedisDeployment cache(3);
  const auto master = cache.node("redis-a");
  SUBCASE("it follows a foreign master") {
    const test::FakeRedis foreign([](test::FakePeer& peer) { peer.wait_for_end(); });
    CHECK(cache.ask("redis-b", {"REPLICAOF", "127.0.0.1", std::to_string(foreign.port())}) == "OK");
    const auto status = cache.status();
    CHECK(has_problem(status,
                      fmt::format("redis-b follows 127.0.0.1:{} and not redis-a", foreign.port())));
    CHECK(RedisDeployment::node_in(status, "redis-b")["state"] == "no link");
    CHECK(cache.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
  }
  SUBCASE("a replica poses as a master") {
    CHECK(cache.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
    const auto status = cache.status();
    CHECK(status["state"] == "several_masters");
    CHECK(status["summary"].get<std::string>().starts_with("redis-a and redis-b both say"));
    CHECK(status["master"].is_null());
    const auto copied = cache.zx({"redis", "backup", "--to", cache.beside("copy.rdb")});
    CHECK(copied.exit == 0);
    for (const auto* words : {"redis-a and redis-b both say", "of redis-c, which follows redis-a"})
      CHECK_MESSAGE(copied.err.find(words) != std::string::npos, copied.err);
  }
  SUBCASE("a replica of a replica is in order while the chain holds") {
    CHECK(cache.ask("redis-c", {"REPLICAOF", "127.0.0.1",
                                std::to_string(cache.node("redis-b").port)}) == "OK");
    REQUIRE(eventually([&] { return cache.info("redis-c", "master_link_status") == "up"; }));
    const auto status = cache.status();
    CHECK_MESSAGE(status["state"] == "healthy", all_problems(status));
    CHECK(RedisDeployment::node_in(status, "redis-c")["follows"] == "redis-b");
  }
  SUBCASE("the master takes no writes for want of replicas") {
    CHECK(cache.ask("redis-a", {"CONFIG", "SET", "min-replicas-to-write", "3"}) == "OK");
    // Redis counts them once a second.
    CHECK(eventually([&] {
      return has_problem(cache.status(),
                         "redis-a takes no writes (NOREPLICAS): 2 of the 3 replicas it wants");
    }));
  }
  SUBCASE("a replica whose master has another password says that it has no link") {
    CHECK(cache.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"}) == "OK");
    CHECK(cache.ask("redis-a", {"CLIENT", "KILL", "TYPE", "replica"}) == "2");
    REQUIRE(eventually([&] { return cache.info("redis-b", "master_link_status") == "down"; }));
    const auto status = cache.status();
    CHECK(has_problem(status, "redis-b is not linked to redis-a"));
    CHECK(RedisDeployment::node_in(status, "redis-b")["behind_bytes"].is_number());
  }
}

TEST_CASE("a server that loads its data is alive, and says how long it will take") {
  const RedisDeployment cache(1);
  auto client = redis::Client::open(cache.target("redis-a"), Deadline::after(test::kPatience));
  REQUIRE(client.has_value());
  for (int i = 0; i < 4000; ++i)
    REQUIRE(client
                ->command({"SET", fmt::format("key:{}", i), std::string(100, 'x')},
                          Deadline::after(test::kPatience))
                .has_value());
  // Into the base file of the AOF, which is loaded one key at a time, slowly.
  REQUIRE(client->command({"BGREWRITEAOF"}, Deadline::after(test::kPatience)).has_value());
  REQUIRE(eventually([&] { return cache.info("redis-a", "aof_rewrite_in_progress") == "0"; }));
  for (const auto& [name, value] : {std::pair("key-load-delay", "5000"),
                                    std::pair("loading-process-events-interval-bytes", "1024")})
    CHECK(cache.ask("redis-a", {"CONFIG", "SET", name, value}) == "OK");
  CHECK(cache.ask("redis-a", {"CONFIG", "REWRITE"}) == "OK");
  cache.kill("redis-a");
  // `start` waits until the data is there; the look comes meanwhile.
  std::thread starting([&] { (void)cache.lab().start("redis-a", Millis(120'000)); });
  Json status;
  const bool has_seen = eventually([&] {
    status = cache.zx_json({"redis", "status"});
    return RedisDeployment::node_in(status, "redis-a").value("failure", "") == "loading";
  });
  // It is coming back: no reason for a failover.
  const auto refused = cache.zx_json({"failover", "redis", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message") == "redis-a is loading its data set");
  const auto ended = cache.lab().kill("redis-a");
  starting.join();
  REQUIRE(ended.has_value());
  REQUIRE(has_seen);
  const auto node = RedisDeployment::node_in(status, "redis-a");
  CHECK(node["state"] == "loading");
  CHECK(node["role"] == "master");
  CHECK(node["persistence"]["loading"] == true);
  CHECK(status["state"] == "master_loading");
  CHECK(has_problem(status, "redis-a is loading its data set"));
}

TEST_CASE("Sentinels that disagree, are gone, or keep what does not exist are shown") {
  const RedisDeployment cache(3, 3);
  SUBCASE("one watches another master") {
    CHECK(cache.ask("sentinel-b", {"SENTINEL", "REMOVE", "cache"}) == "OK");
    CHECK(cache.ask("sentinel-b", {"SENTINEL", "MONITOR", "cache", "127.0.0.1",
                                   std::to_string(cache.node("redis-b").port), "2"}) == "OK");
    const auto status = cache.status();
    CHECK(status["summary"].get<std::string>().ends_with("Sentinels disagree: redis-a or redis-b"));
    CHECK(has_problem(status, fmt::format("Sentinel 127.0.0.1:{} takes redis-b for the master",
                                          cache.node("sentinel-b").port)));
  }
  SUBCASE("one watches nothing") {
    CHECK(cache.ask("sentinel-c", {"SENTINEL", "REMOVE", "cache"}) == "OK");
    CHECK(has_problem(cache.status(), "does not watch cache"));
  }
  SUBCASE("the majority is gone") {
    cache.kill("sentinel-b");
    cache.kill("sentinel-c");
    const auto status = cache.status();
    CHECK(status["state"] == "degraded");
    CHECK(status["sentinels"][1]["failure"] == "refused");
    CHECK(status["summary"] == "master redis-a, 2 of 2 replicas linked, Sentinel agrees (1 of 3)");
    // It notices by itself after its down-after-milliseconds.
    CHECK(eventually([&] { return has_problem(cache.status(), "NOQUORUM"); }));
    CHECK(cache.status()["summary"].get<std::string>().ends_with("Sentinel has no quorum"));
  }
  SUBCASE("a replica that does not exist") {
    // What `redis-cli --rdb` on a master leaves behind in Sentinel, and a host that was taken away.
    auto reader = redis::Client::open(cache.target("redis-a"), Deadline::after(test::kPatience));
    REQUIRE(reader.has_value());
    REQUIRE(reader->command({"REPLCONF", "listening-port", "1"}, Deadline::after(test::kPatience))
                .has_value());
    (void)reader->command({"PSYNC", "?", "-1"}, Deadline::after(test::kPatience));
    REQUIRE(eventually([&] { return has_problem(cache.status(), "keep"); }));
    CHECK(has_problem(cache.status(), "keeps replicas that do not exist: 127.0.0.1:1"));
    CHECK(dump_line(cache.status()["hints"]).find("SENTINEL RESET cache") != std::string::npos);
  }
  SUBCASE("a server with data in the place of a Sentinel") {
    auto text = test::read(cache.config());
    const auto port = std::to_string(cache.node("sentinel-a").port);
    // Two nodes of one deployment at one place are refused, so the other one goes.
    const auto at = text.find("lab-a:" + port);
    REQUIRE(at != std::string::npos);
    const test::FakeRedis data([](test::FakePeer& peer) {
      peer.welcome();
      while (!peer.next().empty()) peer.say("-ERR unknown command 'SENTINEL'\r\n");
    });
    text.replace(at, 6 + port.size(), fmt::format("lab-a:{}", data.port()));
    test::write(cache.beside("zx.toml"), text);
    const auto result =
        test::run_zx({"-c", cache.beside("zx.toml"), "redis", "status", "-o", "json"});
    REQUIRE_MESSAGE(result.ok(), result.err);
    CHECK(has_problem(test::json_of(result), "a server with data answers there, not a Sentinel"));
  }
}

TEST_CASE("zx status of a platform that has only Redis is Redis") {
  const RedisDeployment cache(2);
  const auto status = cache.zx_json({"status", "--detailed-exitcode"});
  CHECK(status["state"] == "healthy");
  CHECK(status["redis"][0]["master"] == "redis-a");
  CHECK_FALSE(status.contains("pg"));
  cache.kill("redis-b");
  const auto worse = cache.zx({"status", "--detailed-exitcode"});
  CHECK(worse.exit == 10);
  CHECK(worse.out.find("lab  degraded") != std::string::npos);
  CHECK(worse.out.find("redis-b (127.0.0.1:") != std::string::npos);
}

}  // namespace
}  // namespace zx
