// A master whose host is out of reach: what it refuses by itself stands for the fence.
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::RedisDeployment;

const std::vector<std::string> kFailover{"failover", "redis", "--yes"};

// redis-a is on a host of its own, to which there is no way. It wants one replica.
class OutOfReach : public RedisDeployment {
 public:
  explicit OutOfReach(
      const std::string& settings = "min-replicas-to-write 1\nmin-replicas-max-lag 1")
      : RedisDeployment({.settings = settings, .policy = "probe_deadline = \"500ms\""}) {
    edit_config("remote = []\n\n[hosts.lab-b]", "\n[hosts.lab-b]");
    pid_ = static_cast<pid_t>(std::atoi(info("redis-a", "process_id").c_str()));
    REQUIRE(pid_ > 0);
    REQUIRE(ask("redis-a", {"SET", "键", "值"}) == "OK");
    REQUIRE(in_line_with("redis-a"));
    zx_json(kFailover, 3);  // somebody has looked, and knows its settings
  }
  void freeze() const { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
  void thaw() const { REQUIRE(::kill(pid_, SIGCONT) == 0); }
  // Of the only run: what the step has seen; null before it is done.
  [[nodiscard]] Json seen(const std::string& step) const {
    const auto runs = run::list_runs(state_dir(), 1)->runs;
    if (runs.empty()) return {};
    for (const auto& line :
         split(test::read(state_dir() + "/runs/" + runs.front().id + ".jsonl"), '\n')) {
      const auto json = parse_json(line, "a line of the journal");
      if (json && get_string(*json, "event") == "step-done" && get_string(*json, "step") == step)
        return (*json)["seen"];
    }
    return {};
  }

 private:
  pid_t pid_ = 0;
};

TEST_CASE("a frozen master out of reach is given up once it refuses writes by itself") {
  OutOfReach servers;
  servers.freeze();
  const auto dry = servers.zx_json({"failover", "redis", "--dry-run"});
  CHECK(dry["fence"]["by"] == "max_lag");
  CHECK(get_string(dry["fence"], "why").find("refuses writes by min-replicas-max-lag") !=
        std::string::npos);
  CHECK(servers.info("redis-b", "master_link_status") == "up");

  const auto done = servers.zx_json(kFailover);
  CHECK(done["outcome"] == "done");
  const auto fenced = servers.seen("fence");
  CHECK(fenced["proof"] == "max_lag");
  CHECK(get_int(fenced, "waited_ms") >= 3'500);
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(servers.ask(master, {"SET", "key", "new"}) == "OK");

  servers.thaw();
  CHECK(test::eventually([&] { return servers.role("redis-a") == "master"; }));
  CHECK(servers.ask("redis-a", {"SET", "key", "old"}).starts_with("NOREPLICAS"));
  CHECK(servers.zx_json({"redis", "sync", "redis-a", "--yes"})["outcome"] == "done");
  CHECK(servers.the_master() == master);
  CHECK(servers.in_line_with(master));
  CHECK(servers.ask("redis-a", {"GET", "key"}) == "new");
  CHECK(servers.ask("redis-a", {"GET", "键"}) == "值");
}

TEST_CASE("one that answers again while that is waited for stays the master, and is followed") {
  OutOfReach servers;
  servers.freeze();
  os::ProcessResult result;
  std::thread failing_over([&] { result = servers.zx(kFailover); });
  const bool has_let_go = test::eventually([&] { return servers.seen("detach").is_object(); });
  servers.thaw();
  failing_over.join();
  REQUIRE(has_let_go);
  CHECK_MESSAGE(result.exit == 3, (result.out + result.err));
  CHECK(result.err.find("redis-a is alive and says that it is the master") != std::string::npos);
  CHECK(servers.the_master() == "redis-a");
  CHECK(servers.in_line_with("redis-a"));
  CHECK(test::eventually([&] { return servers.ask("redis-a", {"SET", "key", "new"}) == "OK"; }));
}

TEST_CASE("one that takes writes without a replica is not given up, and the reason is said") {
  const OutOfReach servers{std::string()};
  servers.freeze();
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(get_string(refused["error"], "message").find("redis-a cannot be fenced") == 0);
  CHECK(refused["error"].dump().find("takes writes without a replica") != std::string::npos);
  CHECK(servers.info("redis-b", "master_link_status") == "up");
}

TEST_CASE("a replica out of sight may acknowledge: the old master is not given up") {
  const OutOfReach servers;
  servers.kill("redis-c");
  servers.freeze();
  const auto refused = servers.zx_json(kFailover, 3);
  CHECK(refused["error"].dump().find("redis-c may acknowledge its writes") != std::string::npos);
  CHECK(servers.info("redis-b", "master_link_status") == "up");
}

// kill -9 of zx after every other line of the journal: each waits for some seconds.
TEST_CASE("a failover that waits for a refusal is taken back whole, after the promotion never") {
  for (int line = 1;; line += 2) {
    OutOfReach servers;
    servers.freeze();
    const auto killed = servers.zx_killed_at(line, kFailover);
    REQUIRE_MESSAGE(killed.signal == SIGKILL, (killed.out + killed.err));
    const auto run = run::list_runs(servers.state_dir(), 1)->runs.front();
    CAPTURE(line);
    if (run.no_return) {
      CHECK(servers.zx_json({"runs", "resume", run.id})["outcome"] == "done");
      CHECK(servers.masters().size() == 1);
      servers.thaw();
      CHECK(line >= 8);
      break;
    }
    CHECK(servers.zx_json({"runs", "abort", run.id})["outcome"] == "aborted");
    CHECK(servers.masters().empty());
    servers.thaw();
    CHECK(servers.in_line_with("redis-a"));
  }
}

TEST_CASE("a failover that waits for a refusal is resumed, waits anew and promotes") {
  for (const int line : {3, 5, 6}) {
    OutOfReach servers;
    servers.freeze();
    CAPTURE(line);
    REQUIRE(servers.zx_killed_at(line, kFailover).signal == SIGKILL);
    const auto run = run::list_runs(servers.state_dir(), 1)->runs.front();
    CHECK(servers.zx_json({"runs", "resume", run.id})["outcome"] == "done");
    CHECK(servers.masters().size() == 1);
    servers.thaw();
    CHECK(test::eventually([&] {
      return servers.ask("redis-a", {"SET", "key", "old"}).starts_with("NOREPLICAS");
    }));
  }
}

}  // namespace
}  // namespace zx
