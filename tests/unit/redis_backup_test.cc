// Where a copy is taken from, what is written down of it, and the plan of a restore.
#include "lib/redis/backup.h"

#include <sys/stat.h>

#include <algorithm>

#include "lib/ha/redis_restore.h"
#include "lib/redis/place_rdb.h"
#include "tests/support.h"

namespace zx::redis {
namespace {

config::RedisDeployment three(const std::string& sentinel = {}) {
  config::RedisDeployment deployment;
  deployment.name = "cache";
  deployment.sentinel.master_name = sentinel;
  for (const char* name : {"redis-a", "redis-b", "redis-c"}) {
    config::RedisNode node;
    node.name = name;
    node.host = "here";
    deployment.nodes.push_back(node);
  }
  return deployment;
}

NodeFacts master(const std::string& name) {
  NodeFacts facts;
  facts.name = name;
  facts.failure = Failure::none;
  facts.role = Role::master;
  facts.lineage.offset = 5000;
  return facts;
}
NodeFacts replica(const std::string& name, std::int64_t offset = 5000) {
  auto facts = master(name);
  facts.role = Role::replica;
  facts.lineage.offset = offset;
  facts.link.emplace();
  facts.link->is_up = true;
  return facts;
}
NodeFacts down(const std::string& name) {
  NodeFacts facts;
  facts.name = name;
  facts.failure = Failure::refused;
  return facts;
}
Snapshot of(std::vector<NodeFacts> nodes) {
  Snapshot snapshot;
  snapshot.nodes = std::move(nodes);
  return snapshot;
}

TEST_CASE("a copy is taken from the replica that is least wanted as a master") {
  auto deployment = three();
  const auto snapshot = of({master("redis-a"), replica("redis-b"), replica("redis-c")});
  CHECK(choose_source(deployment, snapshot, "", false)->node == "redis-b");
  deployment.nodes[2].priority = 0;
  CHECK(choose_source(deployment, snapshot, "", false)->node == "redis-c");
  // But not from one that is far behind.
  const auto behind =
      of({master("redis-a"), replica("redis-b", 9'000'000), replica("redis-c", 5000)});
  CHECK(choose_source(deployment, behind, "", false)->node == "redis-b");
}

TEST_CASE("without a replica that is in line there is no copy, and the error says why of each") {
  auto cut_off = replica("redis-b");
  cut_off.link->is_up = false;
  const auto snapshot = of({master("redis-a"), cut_off, down("redis-c")});
  const auto source = choose_source(three("cache"), snapshot, "", false);
  REQUIRE_FALSE(source.has_value());
  CHECK(source.error().code == Code::refused);
  for (const char* part : {"redis-a: it is the master", "redis-b: its link", "redis-c: "})
    CHECK_MESSAGE(source.error().message.find(part) != std::string::npos, source.error().message);
  CHECK(source.error().hint.find("--bgsave") != std::string::npos);
}

TEST_CASE("where no node answers or lets zx in, that is what the error says") {
  const auto silent = of({down("redis-a"), down("redis-b")});
  CHECK(choose_source(three("cache"), silent, "", false).error().code == Code::unreachable);
  auto locked = silent;
  locked.nodes[1].failure = Failure::auth;
  CHECK(choose_source(three("cache"), locked, "", false).error().code == Code::auth);
  CHECK(choose_source(three("cache"), locked, "redis-b", false).error().code == Code::auth);
  CHECK(choose_source(three("cache"), locked, "redis-a", false).error().code == Code::unreachable);
}

TEST_CASE("a copy that is no regular file is not waited for, nor is its record") {
  const test::Directory directory;
  const auto fifo = directory.path() + "/copy.rdb";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  const auto checked = check_file(fifo);
  REQUIRE_FALSE(checked.has_value());
  CHECK(checked.error().code == Code::io);
  CHECK(checked.error().message == fifo + " is not a regular file");
}

TEST_CASE("a master is copied when it is named, but not over the wire under Sentinels' eyes") {
  const auto snapshot = of({master("redis-a"), replica("redis-b"), down("redis-c")});
  CHECK(choose_source(three(), snapshot, "redis-a", false)->node == "redis-a");
  const auto refused = choose_source(three("cache"), snapshot, "redis-a", false);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::refused);
  CHECK(choose_source(three("cache"), snapshot, "redis-a", true)->node == "redis-a");
  CHECK(choose_source(three("cache"), snapshot, "redis-c", true).error().code == Code::unreachable);
  CHECK(choose_source(three("cache"), snapshot, "redis-x", true).error().code == Code::not_found);
}

TEST_CASE("the record of a copy is read back as it was written") {
  CopyRecord record;
  record.sha256 = std::string(64, 'a');
  record.bytes = 1234;
  record.keys = 12;
  record.expires = 3;
  record.digest = std::string(40, 'd');
  record.replid = std::string(40, 'e');
  record.offset = 987654321;
  record.server_version = "7.0.15";
  record.deployment = "缓存";
  record.node = "redis-b";
  record.taken = parse_utc("2026-11-26T06:00:00.000Z");
  const auto again = record_from_json(to_json(record));
  REQUIRE(again.has_value());
  CHECK(to_json(*again) == to_json(record));
  CHECK(again->deployment == "缓存");
  for (const char* key : {"schema", "sha256", "keys", "bytes"}) {
    auto json = to_json(record);
    json.erase(key);
    CAPTURE(key);
    CHECK_FALSE(record_from_json(json).has_value());
  }
  auto newer = to_json(record);
  newer["schema"] = 2;
  CHECK_FALSE(record_from_json(newer).has_value());
}

TEST_CASE("INFO tells the keys of each database, whatever else it says") {
  const auto content = content_from(
      "# Keyspace\r\ndb0:keys=10,expires=4,avg_ttl=0\r\ndb11:keys=1,expires=0,avg_ttl=0\r\n"
      "db:keys=5\r\ndbx:keys=5\r\ndb2:keys=-3,expires=1\r\n");
  CHECK(content.keys == 11);
  CHECK(content.expires == 4);
  CHECK(content.databases == std::map<int, std::int64_t>{{0, 10}, {11, 1}});
}

TEST_CASE("where a server's data lie is read of its configuration, the last line of each counts") {
  const auto plain = data_files_in("port 6379\n# appendonly yes\n");
  CHECK_FALSE(plain.aof);
  CHECK(plain.dbfilename == "dump.rdb");
  const auto given = data_files_in(
      "appendonly no\nAppendOnly YES\r\ndbfilename \"cache.rdb\"\nappenddirname 'aof dir'\n"
      "appendfilename  main.aof \n");
  CHECK(given.aof);
  CHECK(given.dbfilename == "cache.rdb");
  CHECK(given.appenddirname == "aof dir");
  CHECK(given.appendfilename == "main.aof");
}

std::vector<std::string> steps_of(bool is_live, bool has_sentinels, bool has_replicas) {
  ha::RestoreFacts facts;
  facts.target = "redis-a";
  facts.file = "/copy.rdb";
  facts.is_live = is_live;
  if (has_replicas) facts.replicas = {"redis-b"};
  std::vector<std::string> names;
  for (const auto& step : ha::plan_redis_restore(three(has_sentinels ? "cache" : ""), facts).steps)
    names.push_back(step.name);
  return names;
}

TEST_CASE("a restore takes writes away before the safety copy, and gives them back last") {
  CHECK(steps_of(true, true, true) ==
        std::vector<std::string>{"file", "calm", "hold", "safety copy", "load", "save", "replicas",
                                 "compare", "release", "write", "sentinels"});
  CHECK(steps_of(true, false, false) == std::vector<std::string>{"file", "hold", "safety copy",
                                                                 "load", "save", "compare",
                                                                 "release", "write"});
  CHECK(steps_of(false, false, true) ==
        std::vector<std::string>{"file", "place", "start", "replicas", "compare", "write"});
}

TEST_CASE("what a restore sets is never taken for the setting of before") {
  const auto deployment = three("cache");
  auto snapshot = of({master("redis-a"), replica("redis-b"), replica("redis-c")});
  snapshot.nodes[0].address = "10.0.0.1";
  for (auto& node : snapshot.nodes) node.min_replicas_to_write = 1;
  for (int i = 0; i < 3; ++i) {
    SentinelFacts sentinel;
    sentinel.address = "10.0.0." + std::to_string(i + 1);
    sentinel.failure = Failure::none;
    sentinel.knows_master = true;
    sentinel.down_after = Millis(5000);
    snapshot.sentinels.push_back(sentinel);
  }
  CHECK(ha::no_restore_left(deployment, snapshot, "redis-a").has_value());

  auto held = snapshot;
  held.nodes[0].min_replicas_to_write = ha::kHeldReplicas;
  const auto refused = ha::no_restore_left(deployment, held, "redis-a");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::refused);
  CHECK(refused.error().hint.ends_with(
      "redis-cli -h 10.0.0.1 -p 6379 CONFIG SET min-replicas-to-write 1"));
  CHECK(ha::no_restore_left(deployment, held, "redis-b").has_value());

  auto calmed = snapshot;
  calmed.sentinels[1].down_after = ha::kCalm;
  const auto waits = ha::no_restore_left(deployment, calmed, "redis-a");
  REQUIRE_FALSE(waits.has_value());
  CHECK(waits.error().message.starts_with("Sentinel 10.0.0.2:26379 waits"));
  CHECK(waits.error().hint.ends_with(
      "redis-cli -h 10.0.0.2 -p 26379 SENTINEL SET cache down-after-milliseconds 5000"));
  calmed.sentinels[1].knows_master = false;
  CHECK(ha::no_restore_left(deployment, calmed, "redis-a").has_value());
}

}  // namespace
}  // namespace zx::redis
