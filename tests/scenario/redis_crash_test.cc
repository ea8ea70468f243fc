// zx killed after every line of the journal of a Redis failover: resume finishes the run, abort
// takes it back.
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::RedisDeployment;

const std::vector<std::string> kFailover{"failover", "redis", "--yes"};

// Three in line again, and a key that every replica has.
std::string begin_round(RedisDeployment& servers, int round) {
  for (const auto& name : servers.names())
    if (servers.role(name).empty()) servers.start(name);
  const auto master = servers.the_master();
  servers.zx({"redis", "sync", "--all", "--yes"});
  REQUIRE(servers.in_line_with(master));
  REQUIRE(servers.ask(master, {"SET", "round", std::to_string(round)}) == "OK");
  REQUIRE(servers.in_line_with(master));
  return master;
}

void check_moved(const RedisDeployment& servers, const std::string& before, int round) {
  const auto now = servers.the_master();
  CHECK(now != before);
  CHECK(servers.ask(now, {"GET", "round"}) == std::to_string(round));
  CHECK(servers.in_line_with(now));
}

TEST_CASE("a failover killed after any line of its journal is resumed and promotes once") {
  RedisDeployment servers;
  int line = 1;
  for (;; ++line) {
    const auto before = begin_round(servers, line);
    servers.kill(before);
    const auto killed = servers.zx_killed_at(line, kFailover);
    const auto run = servers.newest_run();
    CAPTURE(line);
    CAPTURE(run.id);
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      check_moved(servers, before, line);
      break;
    }
    REQUIRE(killed.signal == SIGKILL);
    if (!run.outcome) {
      const auto done = servers.zx_json({"runs", "resume", run.id});
      CHECK(done["outcome"] == "done");
    }
    CHECK(servers.newest_run().outcome == "done");
    check_moved(servers, before, line);
  }
  CHECK(line >= 15);
}

TEST_CASE("a failover killed before the promotion is taken back whole, after it never") {
  // The old master runs again with its data.
  RedisDeployment servers({.settings = "appendfsync always"});
  for (int line = 1;; ++line) {
    const auto before = begin_round(servers, line);
    servers.kill(before);
    const auto killed = servers.zx_killed_at(line, kFailover);
    REQUIRE_MESSAGE(killed.signal == SIGKILL, (killed.out + killed.err));
    const auto run = servers.newest_run();
    CAPTURE(line);
    if (run.no_return) {
      const auto refused = servers.zx({"runs", "abort", run.id});
      CHECK(refused.exit == 3);
      CHECK(servers.zx_json({"runs", "resume", run.id})["outcome"] == "done");
      check_moved(servers, before, line);
      CHECK(line >= 6);
      break;
    }
    CHECK(servers.zx_json({"runs", "abort", run.id})["outcome"] == "aborted");
    CHECK(servers.masters().empty());
    servers.start(before);
    CHECK(servers.the_master() == before);
    CHECK_FALSE(os::exists(servers.data_dir(before) + "/zx-fence.json"));
  }
}

TEST_CASE("a planned move killed after any line of its journal is resumed, and the master serves") {
  RedisDeployment servers;
  int line = 1;
  for (;; ++line) {
    const auto before = begin_round(servers, line);
    const std::string to = before == "redis-b" ? "redis-a" : "redis-b";
    const auto killed =
        servers.zx_killed_at(line, {"failover", "redis", "--planned", "--to", to, "--yes"});
    CAPTURE(line);
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      check_moved(servers, before, line);
      break;
    }
    const auto run = servers.newest_run();
    if (!run.outcome) CHECK(servers.zx_json({"runs", "resume", run.id})["outcome"] == "done");
    CHECK(servers.the_master() == to);
    check_moved(servers, before, line);
  }
  CHECK(line >= 10);
}

}  // namespace
}  // namespace zx
