// Redis servers that are in the middle of something, or cannot do what is theirs to do.
#include <filesystem>

#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::eventually;
using test::RedisDeployment;

std::string message_of(const Json& answer) { return get_string(answer["error"], "message"); }

bool has_problem(const Json& status, const std::string& part) {
  for (const auto& one : status["problems"])
    if (one.get<std::string>().find(part) != std::string::npos) return true;
  return false;
}

std::string why_of(const Json& answer, const std::string& node) {
  for (const auto& one : answer["candidates"])
    if (one["node"] == node) return dump_line(one["why"]);
  return {};
}

// A replica that cannot write to its disk ends itself by default.
const std::string kSaves = "appendonly no\nsave 3600 1\nreplica-ignore-disk-write-errors yes";

// Its directory takes no file any more, and its last BGSAVE has failed: it refuses writes.
void fill_disk_of(const RedisDeployment& cache, const std::string& node) {
  namespace fs = std::filesystem;
  const auto dir = cache.data_dir(node);
  REQUIRE(eventually([&] { return cache.info(node, "rdb_bgsave_in_progress") == "0"; }));
  fs::permissions(dir, fs::perms::owner_write, fs::perm_options::remove);
  REQUIRE(eventually([&] {
    cache.ask(node, {"BGSAVE"});
    return cache.info(node, "rdb_last_bgsave_status") == "err";
  }));
}
void make_room_for(const RedisDeployment& cache, const std::string& node) {
  namespace fs = std::filesystem;
  fs::permissions(cache.data_dir(node), fs::perms::owner_write, fs::perm_options::add);
}

TEST_CASE("a master whose disk is full is alive, is named, and can be moved away from") {
  const RedisDeployment cache({.settings = kSaves});
  fill_disk_of(cache, "redis-a");
  REQUIRE(cache.ask("redis-a", {"SET", "商品", "1"}).starts_with("MISCONF"));
  const auto status = cache.status();
  CHECK(status["state"] == "degraded");
  CHECK(has_problem(status, "redis-a cannot save its data set (MISCONF)"));
  CHECK(dump_line(status["hints"]).find("make room on its disk") != std::string::npos);
  CHECK(message_of(cache.zx_json({"failover", "redis", "--yes"}, 3)) == "redis-a is alive");
  CHECK(cache.zx_json({"failover", "redis", "--planned", "--yes"})["outcome"] == "done");
  CHECK(cache.ask(cache.the_master(), {"SET", "商品", "1"}) == "OK");
  make_room_for(cache, "redis-a");
}

TEST_CASE("a replica whose disk is full is not whom clients should write to") {
  const RedisDeployment cache({.settings = kSaves});
  REQUIRE(cache.in_line_with("redis-a"));
  fill_disk_of(cache, "redis-b");
  cache.kill("redis-a");
  const auto done = cache.zx_json({"failover", "redis", "--yes"});
  CHECK(done["promoted"] == "redis-c");
  CHECK(cache.ask("redis-c", {"SET", "商品", "1"}) == "OK");
  make_room_for(cache, "redis-b");
}

std::size_t times_in(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_CASE("a journal that runs out of room says what was changed, and what to do, once") {
  const RedisDeployment cache(3, 3);
  const auto move = [&](int line) {
    const auto inject = fmt::format("fdatasync:error=ENOSPC:when={}+", line);
    return test::run_program(
        test::argv_under(cache.config(), inject,
                         {"failover", "redis", "--planned", "--yes", "-o", "json"}),
        test::traced());
  };
  REQUIRE(cache.sentinels_content());
  const auto priority = cache.ask("redis-b", {"CONFIG", "GET", "replica-priority"});
  // The beginning, a step, what it notes.
  for (const int line : {1, 2, 3}) {
    CAPTURE(line);
    const auto refused = move(line);
    CHECK_MESSAGE(refused.exit == 3, refused.err);
    CHECK(get_string(test::json_of(refused)["error"], "code") == "disk_full");
    CHECK_MESSAGE(times_in(refused.err, "free space there") == 1, refused.err);
    CHECK(cache.zx_json({"runs", "list"})["runs"].empty());
  }
  // One step is done, and cannot be taken back.
  const auto stuck = move(5);
  CHECK_MESSAGE(stuck.exit == 4, stuck.err);
  CHECK_MESSAGE(times_in(stuck.err, "free space there") == 1, stuck.err);
  const auto run = cache.newest_run();
  CHECK_FALSE(run.outcome.has_value());
  CHECK_MESSAGE(times_in(stuck.err, "; then zx runs abort " + run.id) == 1, stuck.err);
  CHECK(cache.the_master() == "redis-a");
  CHECK(cache.zx({"runs", "abort", run.id, "--yes"}).exit == 0);
  CHECK(cache.ask("redis-b", {"CONFIG", "GET", "replica-priority"}) == priority);
}

TEST_CASE("a master without memory is alive, and what to do is said") {
  const RedisDeployment cache(2);
  REQUIRE(cache.ask("redis-a", {"CONFIG", "SET", "maxmemory", "1mb"}) == "OK");
  REQUIRE(cache.ask("redis-a", {"SET", "商品", "1"}).starts_with("OOM"));
  const auto status = cache.status();
  CHECK(status["state"] == "degraded");
  CHECK(has_problem(status, "redis-a is at its maxmemory of 1 MiB and takes no writes (OOM)"));
  CHECK(dump_line(status["hints"]).find("raise maxmemory") != std::string::npos);
  CHECK(message_of(cache.zx_json({"failover", "redis", "--yes"}, 3)) == "redis-a is alive");
}

TEST_CASE("a replica in the middle of a full resync is shown as that, and not promoted") {
  const RedisDeployment cache(3);
  cache.take("redis-a", "EVAL \"for i = 1, 2000 do redis.call('SET', 'k' .. i, i) end\" 0\n");
  REQUIRE(cache.in_line_with("redis-a"));
  cache.zx_json({"redis", "status"});  // somebody has looked
  // So slowly that all that follows comes in the middle of it.
  REQUIRE(cache.ask("redis-a", {"CONFIG", "SET", "rdb-key-save-delay", "20000"}) == "OK");
  REQUIRE(cache.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
  REQUIRE(cache.ask("redis-a", {"SET", "k1", "1"}) == "OK");
  REQUIRE(cache.ask("redis-b", {"FLUSHALL"}) == "OK");
  REQUIRE(cache.ask("redis-b",
                    {"REPLICAOF", "127.0.0.1", std::to_string(cache.port_of("redis-a"))}) == "OK");
  REQUIRE(eventually([&] { return cache.info("redis-b", "master_sync_in_progress") == "1"; }));
  const auto status = cache.status();
  CHECK(has_problem(status, "redis-b is in a full resync"));
  CHECK(RedisDeployment::node_in(status, "redis-b")["state"] == "full resync");
  const auto refused =
      cache.zx_json({"failover", "redis", "--planned", "--to", "redis-b", "--yes"}, 3);
  CHECK_MESSAGE(why_of(refused, "redis-b").find("in a full resync") != std::string::npos,
                refused.dump());
  CHECK(cache.the_master() == "redis-a");
  cache.kill("redis-a");
  const auto done = cache.zx_json({"failover", "redis", "--yes"});
  CHECK(done["promoted"] == "redis-c");
  CHECK(cache.ask("redis-c", {"DBSIZE"}) == "2000");
  CHECK(eventually([&] { return cache.ask("redis-b", {"DBSIZE"}) == "2000"; }));
}

TEST_CASE("a replica of another line is not promoted, however high its offset is") {
  const RedisDeployment cache(3);
  REQUIRE(cache.ask("redis-a", {"SET", "订单", "1"}) == "OK");
  REQUIRE(cache.in_line_with("redis-a"));
  cache.zx_json({"redis", "status"});  // somebody has looked
  REQUIRE(cache.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
  // Both go on, each on its own.
  REQUIRE(cache.ask("redis-a", {"SET", "订单", "2"}) == "OK");
  REQUIRE(cache.ask("redis-a", {"WAIT", "1", "5000"}) == "1");
  for (int i = 0; i < 20; ++i)
    REQUIRE(cache.ask("redis-b", {"SET", "own", std::string(1000, 'x')}) == "OK");
  cache.kill("redis-a");
  REQUIRE(cache.ask("redis-b",
                    {"REPLICAOF", "127.0.0.1", std::to_string(cache.port_of("redis-a"))}) == "OK");
  const auto offset = [&](const char* node) {
    return std::atoll(cache.info(node, "master_repl_offset").c_str());
  };
  REQUIRE(offset("redis-b") > offset("redis-c") + 10'000);
  const auto refused = cache.zx_json({"failover", "redis", "--to", "redis-b", "--yes"}, 3);
  CHECK(why_of(refused, "redis-b").find("of another line") != std::string::npos);
  const auto done = cache.zx_json({"failover", "redis", "--yes"});
  CHECK(done["promoted"] == "redis-c");
  CHECK(cache.in_line_with("redis-c"));
  CHECK(cache.ask("redis-b", {"GET", "订单"}) == "2");
}

}  // namespace
}  // namespace zx
