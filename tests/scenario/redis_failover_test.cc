// A failover of Redis without Sentinels, seen by clients.
#include "tests/scenario/redis_deployment.h"
#include "tests/scenario/redis_restore.h"

namespace zx {
namespace {

using test::Counter;
using test::eventually;
using test::RedisDeployment;

const std::vector<std::string> kFailover{"failover", "redis", "--yes"};

std::string hint_of(const Json& answer) { return get_string(answer["error"], "hint"); }
std::string message_of(const Json& answer) { return get_string(answer["error"], "message"); }

TEST_CASE("a killed master is replaced, clients go on, and it comes back as a replica") {
  RedisDeployment servers;
  Counter counter(servers);
  servers.kill("redis-a");
  const auto dry = servers.zx_json({"failover", "redis", "--dry-run"});
  CHECK(dry["outcome"] == "planned");
  CHECK(dry["verdict"]["state"] == "master_dead");
  CHECK(dry["fence"]["by"] == "host");
  CHECK(servers.masters().empty());

  const auto done = servers.zx_json(kFailover);
  CHECK(done["outcome"] == "done");
  const auto master = get_string(done, "promoted");
  CHECK(servers.the_master() == master);
  CHECK(counter.goes_on());
  CHECK(servers.in_line_with(master));
  counter.end();

  servers.start("redis-a");
  CHECK(servers.the_master() == master);
  CHECK(servers.in_line_with(master));
  CHECK(counter.value_on("redis-a") == counter.value_on(master));
  CHECK(servers.zx_json({"redis", "sync", "redis-a", "--yes"})["outcome"] == "done");
  CHECK_FALSE(os::exists(servers.data_dir("redis-a") + "/zx-fence.json"));
  CHECK(servers.zx_json({"redis", "sync", "--all", "--yes"})["run"].is_null());
}

TEST_CASE("a server that was fenced and is made the master again is no longer marked as fenced") {
  const RedisDeployment servers;
  const auto mark = servers.data_dir("redis-a") + "/zx-fence.json";
  servers.kill("redis-a");
  CHECK(servers.zx_json(kFailover)["outcome"] == "done");
  servers.start("redis-a");
  REQUIRE(servers.in_line_with(servers.the_master()));
  CHECK(os::exists(mark));
  CHECK(servers.zx_json(
            {"failover", "redis", "--planned", "--to", "redis-a", "--yes"})["outcome"] == "done");
  CHECK(servers.the_master() == "redis-a");
  CHECK_FALSE(os::exists(mark));
}

TEST_CASE("a frozen master is ended before another is promoted") {
  RedisDeployment servers({.policy = "probe_deadline = \"500ms\""});
  Counter counter(servers);
  servers.kill("redis-a", SIGSTOP);
  // Its replicas have heard of it just before: the look goes on until that is too long ago.
  CHECK(servers.zx_json(kFailover)["outcome"] == "done");
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(counter.goes_on());
  CHECK(servers.role("redis-a").empty());
}

TEST_CASE("a master that is alive is not failed over") {
  RedisDeployment servers;
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(message_of(refused) == "redis-a is alive");
  CHECK(hint_of(refused).find("--planned") != std::string::npos);
  CHECK(servers.the_master() == "redis-a");
}

TEST_CASE("with both replicas down nobody is promoted, and the way out is said") {
  RedisDeployment servers;
  servers.kill("redis-b");
  servers.kill("redis-c");
  servers.zx_json(kFailover, 3);  // somebody has looked
  servers.kill("redis-a");
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(message_of(refused) == "no replica may be promoted");
  CHECK(hint_of(refused).find("start the server of a node that is down") == 0);
  CHECK(refused["candidates"].size() == 2);
  CHECK(servers.masters().empty());
}

TEST_CASE("replicas that stood still are not promoted past what the master was seen to have") {
  RedisDeployment servers;
  static_cast<void>(servers.status());
  for (const auto* name : {"redis-b", "redis-c"}) servers.kill(name, SIGSTOP);
  const std::string value(1 << 20, 'v');
  for (int i = 0; i < 40; ++i) CHECK(servers.ask("redis-a", {"SET", "one", value}) == "OK");
  static_cast<void>(servers.status());  // the same number of keys, a moment after the last look
  servers.kill("redis-a");
  for (const auto* name : {"redis-b", "redis-c"}) servers.kill(name, SIGCONT);
  REQUIRE(eventually([&] { return servers.info("redis-b", "master_link_status") == "down"; }));
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(message_of(refused) == "no replica may be promoted");
  CHECK(dump_line(refused["candidates"]).find("of the master's stream") != std::string::npos);
  CHECK(servers.masters().empty());
}

TEST_CASE("one that was made a master by mistake is not taken for it when the master is killed") {
  RedisDeployment servers;
  servers.take("redis-a", test::filled(500, "old"));
  REQUIRE(servers.in_line_with("redis-a"));
  static_cast<void>(servers.status());
  servers.take("redis-b", "REPLICAOF NO ONE\nFLUSHALL\nSET own 1\n");
  const std::string right = "redis-a is the right one";
  CHECK(dump_line(servers.status()["hints"]).find(right) != std::string::npos);
  servers.kill("redis-a");
  REQUIRE(eventually([&] { return servers.info("redis-c", "master_link_status") == "down"; }));
  const auto status = servers.status();
  CHECK(status["state"] == "unknown");
  CHECK(dump_line(status).find("redis-c, which still waits for redis-a, has 500 keys") !=
        std::string::npos);
  servers.zx_json(kFailover, 3);

  servers.start("redis-a");
  CHECK(dump_line(servers.status()["hints"]).find(right) != std::string::npos);
  CHECK(servers.zx_json({"redis", "sync", "redis-b", "--confirm", "redis-b"})["outcome"] == "done");
  CHECK(servers.in_line_with("redis-a"));
  CHECK(servers.info("redis-b", "db0").starts_with("keys=500,"));
}

TEST_CASE("one that was made a master by mistake, with all its keys, has not taken over either") {
  RedisDeployment servers;
  servers.take("redis-a", test::filled(50, "old"));
  REQUIRE(servers.in_line_with("redis-a"));
  servers.take("redis-b", "REPLICAOF NO ONE\n");
  servers.take("redis-a", "SET old:1 newer\nWAIT 1 5000\n");
  static_cast<void>(servers.status());
  servers.kill("redis-a");
  REQUIRE(eventually([&] { return servers.info("redis-c", "master_link_status") == "down"; }));
  const auto status = servers.status();
  CHECK(status["state"] == "unknown");
  CHECK(status["master"].is_null());
  CHECK_MESSAGE(dump_line(status).find("more of its stream") != std::string::npos,
                dump_line(status));
  // With its data it is the right one, and nothing is lost.
  servers.start("redis-a");
  REQUIRE(eventually([&] { return servers.info("redis-c", "master_link_status") == "up"; }));
  CHECK(dump_line(servers.status()["hints"]).find("redis-a is the right one") != std::string::npos);
  CHECK(servers.ask("redis-c", {"GET", "old:1"}) == "newer");
}

TEST_CASE("without a way to its host the old master is not given up, except on one's word") {
  RedisDeployment servers;
  servers.edit_config("remote = []\n", "");
  servers.kill("redis-a");
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(message_of(refused).find("redis-a cannot be fenced") == 0);
  CHECK(hint_of(refused).find("--assume-fenced") != std::string::npos);
  CHECK(servers.masters().empty());
  const auto done = servers.zx_json({"failover", "redis", "--assume-fenced", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(servers.masters().size() == 1);
}

TEST_CASE("a planned move loses no increment, and the old master follows") {
  RedisDeployment servers;
  Counter counter(servers);
  std::string before = "redis-a";
  for (const std::string to : {"redis-b", "redis-c", "redis-a"}) {
    const auto done = servers.zx_json({"failover", "redis", "--planned", "--to", to, "--yes"});
    CHECK(done["outcome"] == "done");
    CHECK(done["lost_bytes"] == 0);
    CHECK(servers.the_master() == to);
    CHECK(counter.goes_on());
    before = to;
  }
  counter.end();
  REQUIRE(servers.in_line_with(before));
  for (const auto& name : servers.names()) {
    CAPTURE(name);
    CHECK(counter.value_on(name) >= counter.acknowledged());
    CHECK(counter.value_on(name) <= counter.acknowledged() + counter.unanswered());
  }
  const auto again = servers.zx_json({"failover", "redis", "--planned", "--to", before, "--yes"});
  CHECK(again["outcome"] == "done");
  CHECK(again["run"].is_null());
}

TEST_CASE("a replica that hangs does not take the writes along: the move is called off") {
  RedisDeployment servers({.policy = "promote_deadline = \"2s\"\nprobe_deadline = \"300ms\""});
  Counter counter(servers);
  // It answers, and takes nothing of the stream any more.
  servers.ask("redis-b", {"REPLICAOF", "127.0.0.1", std::to_string(servers.port_of("redis-a"))});
  REQUIRE(servers.in_line_with("redis-a"));
  servers.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"});
  servers.ask("redis-a", {"CLIENT", "KILL", "TYPE", "replica"});
  REQUIRE(
      test::eventually([&] { return servers.info("redis-b", "master_link_status") == "down"; }));
  const auto refused =
      servers.zx_json({"failover", "redis", "--planned", "--to", "redis-b", "--yes"}, 3);
  CHECK(message_of(refused).find("redis-b is not linked") == 0);
  CHECK(servers.the_master() == "redis-a");
  CHECK(counter.goes_on());
}

TEST_CASE("what is reported as lost covers every increment that a client lost") {
  RedisDeployment servers({.settings = "min-replicas-to-write 1\nmin-replicas-max-lag 1"});
  Counter counter(servers);
  const std::vector<std::string> replicas{"redis-b", "redis-c"};
  std::vector<pid_t> pids;
  long safe = 0;
  REQUIRE(test::eventually([&] {
    safe = std::min(counter.value_on("redis-b"), counter.value_on("redis-c"));
    return safe > 0;
  }));
  for (const auto& name : replicas) {
    pids.push_back(static_cast<pid_t>(std::atoi(servers.info(name, "process_id").c_str())));
    servers.kill(name, SIGSTOP);
  }
  // Without a replica that acknowledges, the master refuses after its lag. What has come until then
  // is more than the connections of the replicas hold.
  constexpr int kMost = 40;
  const std::string big(1 << 20, 'x');
  int written = 0;
  REQUIRE(test::eventually([&] {
    const bool is_enough = written >= kMost;
    const auto said = servers.ask("redis-a", {"SET", "big", is_enough ? "" : big});
    if (said == "OK" && !is_enough) ++written;
    return said.starts_with("NOREPLICAS");
  }));
  REQUIRE(written == kMost);
  counter.end();
  const auto value = counter.value_on("redis-a");
  CHECK(value == counter.acknowledged());
  servers.zx_json(kFailover, 3);  // looks, and notes how far the stream is
  servers.kill("redis-a");
  for (const auto pid : pids) REQUIRE(::kill(pid, SIGCONT) == 0);
  REQUIRE(test::eventually([&] { return !servers.role("redis-b").empty(); }));
  const auto done = servers.zx_json({"failover", "redis", "--allow-data-loss", "256MiB", "--yes"});
  CHECK(done["outcome"] == "done");
  const auto lost = value - counter.value_on(get_string(done, "promoted"));
  // As the client counts: nothing of what a replica had before it was gone, and some of what came
  // in the time that min-replicas-max-lag leaves.
  CHECK(lost > 0);
  CHECK(lost <= value - safe);
  constexpr long kSmallest = 30;  // bytes of one INCR in the stream, at least
  CHECK_MESSAGE(get_int(done, "lost_bytes") >= lost * kSmallest, (std::to_string(lost) + " lost"));
}

TEST_CASE("a master that came back empty takes nobody's data along") {
  RedisDeployment servers({.servers = 2, .settings = test::kForgetful});
  for (int i = 0; i < 200; ++i)
    REQUIRE(servers.ask("redis-a", {"SET", fmt::format("键{}", i), "值"}) == "OK");
  REQUIRE(servers.in_line_with("redis-a"));
  servers.zx_json(kFailover, 3);  // somebody has looked
  // So that it cannot follow before anybody acts.
  REQUIRE(servers.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"}) == "OK");
  servers.kill("redis-a");
  servers.start("redis-a");
  REQUIRE(servers.ask("redis-a", {"DBSIZE"}) == "0");
  const auto refused = servers.zx_json({"redis", "sync", "redis-b", "--yes"}, 3);
  CHECK(message_of(refused).find("redis-a restarted with 0 keys and had 200") == 0);
  CHECK(hint_of(refused).find("--confirm redis-a") != std::string::npos);
  CHECK(servers.ask("redis-b", {"DBSIZE"}) == "200");
}

TEST_CASE("the replica that has the data becomes the master, and the empty one follows") {
  RedisDeployment servers({.servers = 2, .settings = test::kForgetful});
  for (int i = 0; i < 200; ++i)
    REQUIRE(servers.ask("redis-a", {"SET", fmt::format("键{}", i), "值"}) == "OK");
  REQUIRE(servers.in_line_with("redis-a"));
  REQUIRE(servers.ask("redis-b", {"CONFIG", "SET", "masterauth", "wrong"}) == "OK");
  servers.kill("redis-a");
  servers.start("redis-a");
  const auto done = servers.zx_json(kFailover);
  CHECK(done["outcome"] == "done");
  CHECK(servers.the_master() == "redis-b");
  CHECK(servers.ask("redis-b", {"GET", "键199"}) == "值");
  CHECK(test::eventually([&] { return servers.ask("redis-a", {"GET", "键199"}) == "值"; }));
}

}  // namespace
}  // namespace zx
