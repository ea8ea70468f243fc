// synchronous_standby_names across a failover: the old primary's rule, and all of it in the end.
#include "tests/scenario/agent.h"
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::says;
using test::step_of;

constexpr const char* kAll = "ANY 1 (\"pg-a\", \"pg-b\", \"pg-c\")";

void set_sync(const Cluster& cluster, const std::string& node, const std::string& names) {
  cluster.sql(node, "ALTER SYSTEM SET synchronous_standby_names = " + pg::quote_literal(names));
  cluster.sql(node, "SELECT pg_reload_conf()");
  REQUIRE(test::eventually(
      [&] { return cluster.sql(node, "SHOW synchronous_standby_names") == names; }));
}

std::string sync_of(const Cluster& cluster, const std::string& node) {
  return cluster.sql(node, "SHOW synchronous_standby_names");
}

TEST_CASE("commits that could not be synchronous for a while are so again after a rejoin") {
  Cluster cluster;
  set_sync(cluster, "pg-a", kAll);
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-c");
  cluster.kill("pg-a");
  // Nobody is left to wait for.
  const auto report = done(cluster, {"failover", "pg", "--yes"});
  REQUIRE(report["promoted"] == "pg-b");
  CHECK(sync_of(cluster, "pg-b").empty());
  CHECK(step_of(report, "sync")["seen"]["wanted"] == kAll);
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["sync_owed"] == kAll);
  CHECK(cluster.zx({"status"}).out.find("synchronous_standby_names is empty since run ") !=
        std::string::npos);

  const auto rejoined = done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(step_of(rejoined, "sync")["state"] == "done");
  CHECK(test::eventually([&] { return sync_of(cluster, "pg-b") == kAll; }));
  CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"].is_null());
  done(cluster, {"rejoin", "pg", "pg-c", "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("standbys that came back by themselves are counted on again when asked for") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  set_sync(cluster, "pg-a", "FIRST 2 (*)");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto promoted = done(cluster, {"failover", "pg", "--yes"})["promoted"].get<std::string>();
  CHECK(sync_of(cluster, promoted) == "FIRST 1 (*)");
  // It is configured to follow by hand.
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(test::eventually([&] { return sync_of(cluster, promoted) == "FIRST 2 (*)"; }));
  // What somebody has set since is left alone.
  CHECK(cluster.zx_json({"rejoin", "pg", "pg-a", "--yes"})["said"].get<std::string>().find(
            "already") != std::string::npos);
}

TEST_CASE("what two failovers in a row have reduced comes back whole") {
  Cluster cluster;
  set_sync(cluster, "pg-a", "FIRST 2 (*)");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto first = done(cluster, {"failover", "pg", "--yes"})["promoted"].get<std::string>();
  REQUIRE(test::eventually([&] {
    return cluster.sql(first,
                       "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1";
  }));
  CHECK(cluster.node(first)["role"] == "primary");  // whoever looks notes it
  cluster.kill(first);
  const auto second = done(cluster, {"failover", "pg", "--yes"})["promoted"].get<std::string>();
  CHECK(sync_of(cluster, second).empty());
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"] == "FIRST 2 (*)");
  done(cluster, {"rejoin", "pg", first, "--yes"});
  CHECK(test::eventually([&] { return sync_of(cluster, second) == "FIRST 2 (*)"; }));
  CHECK(cluster.verdict() == "healthy");
}

// What the next failover goes by when the primary cannot be asked.
std::string last_known_sync(const Cluster& cluster) {
  const auto json = parse_json(test::read(cluster.state_dir() + "/last/pg.main.json"), "last seen");
  REQUIRE(json.has_value());
  return (*json)["primary"].get<std::string>() + ": " + (*json)["sync_names"].get<std::string>();
}

TEST_CASE("what commits wait for after a failover is known although nobody has looked since") {
  Cluster cluster;
  set_sync(cluster, "pg-a", "FIRST 2 (*)");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto first = done(cluster, {"failover", "pg", "--yes"})["promoted"].get<std::string>();
  REQUIRE(sync_of(cluster, first) == "FIRST 1 (*)");
  CHECK(last_known_sync(cluster) == first + ": FIRST 1 (*)");
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(last_known_sync(cluster) == first + ": FIRST 2 (*)");
}

// The walreceiver of a node stands still: what is committed meanwhile does not come to it.
class StoppedReceiver {
 public:
  StoppedReceiver(const Cluster& cluster, const std::string& node)
      : pid_(std::stoi(cluster.sql(node, "SELECT pid FROM pg_stat_wal_receiver"))) {
    REQUIRE(::kill(pid_, SIGSTOP) == 0);
  }
  ~StoppedReceiver() { ::kill(pid_, SIGCONT); }
  StoppedReceiver(const StoppedReceiver&) = delete;
  StoppedReceiver& operator=(const StoppedReceiver&) = delete;

 private:
  pid_t pid_;
};

TEST_CASE("a rule does not count on a standby that has not what was acknowledged before it") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  const std::string whole = "FIRST 2 (\"pg-c\", \"pg-b\", \"pg-a\")";
  set_sync(cluster, "pg-a", whole);
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  REQUIRE(done(cluster, {"failover", "pg", "--to", "pg-b", "--yes"})["promoted"] == "pg-b");
  const auto reduced = sync_of(cluster, "pg-b");
  REQUIRE(reduced.starts_with("FIRST 1 "));
  cluster.kill("pg-c");
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});  // alone it is not enough
  REQUIRE(sync_of(cluster, "pg-b") == reduced);
  REQUIRE(cluster.start("pg-c"));
  REQUIRE(test::all_stream_from(cluster, "pg-b"));
  {
    const StoppedReceiver slow(cluster, "pg-a");
    test::write_wal(cluster, "pg-b", 2);  // only pg-c acknowledges
    const auto behind = cluster.zx_json({"rejoin", "pg", "pg-a", "--yes"});
    CHECK(step_of(behind, "sync")["state"] == "skipped");
    CHECK_MESSAGE(says(behind, "MiB behind"), behind.dump());
    CHECK(sync_of(cluster, "pg-b") == reduced);
    CHECK(last_known_sync(cluster) == "pg-b: " + reduced);
    CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"] == whole);
  }
  REQUIRE(test::has_all_of(cluster, "pg-a", "pg-b"));
  CHECK(step_of(done(cluster, {"rejoin", "pg", "pg-a", "--yes"}), "sync")["state"] == "done");
  CHECK(test::eventually([&] { return sync_of(cluster, "pg-b") == whole; }));
  CHECK(last_known_sync(cluster) == "pg-b: " + whole);
}

// Only the primary has the rule, as after an ALTER SYSTEM there.
void set_rule_on(const Cluster& cluster, const std::string& primary) {
  for (const auto& member : cluster.lab().members())
    set_sync(cluster, member.name, member.name == primary ? "FIRST 2 (*)" : "");
  REQUIRE(test::all_stream_from(cluster, primary));
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("no commit is acknowledged before the rule is in force, wherever zx is killed") {
  Cluster cluster;
  bool was_promoted = false;
  for (int line = 9; line <= 13; ++line) {
    const auto old = test::the_primary(cluster);
    set_rule_on(cluster, old);
    cluster.kill(old);
    const auto killed = test::zx_killed_at(cluster, line, {"failover", "pg", "--yes"});
    REQUIRE(killed.signal == SIGKILL);
    const auto event = test::last_event(cluster);
    CAPTURE(event);
    for (const auto& primary : cluster.writable()) {
      was_promoted = true;
      CHECK(sync_of(cluster, primary) == "FIRST 1 (*)");
    }
    CHECK(done(cluster, {"runs", "resume", test::newest_run(cluster).id})["outcome"] == "done");
    const auto now = test::the_primary(cluster);
    CHECK(sync_of(cluster, now) == "FIRST 1 (*)");
    CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"] == "FIRST 2 (*)");
    done(cluster, {"rejoin", "pg", old, "--yes"});
    CHECK(test::eventually([&] { return sync_of(cluster, now) == "FIRST 2 (*)"; }));
  }
  CHECK(was_promoted);
}

TEST_CASE("a failover that is taken back leaves the candidate the names that it had") {
  Cluster cluster;
  set_rule_on(cluster, "pg-a");
  for (const auto* node : {"pg-b", "pg-c"}) set_sync(cluster, node, "pg_receivewal");
  cluster.kill("pg-a");
  int line = 5;
  do {
    const auto killed = test::zx_killed_at(cluster, ++line, {"failover", "pg", "--yes"});
    REQUIRE(killed.signal == SIGKILL);
    if (test::last_event(cluster) == "step-done rule") break;
    cluster.zx_json({"runs", "abort", test::newest_run(cluster).id});
  } while (line < 12);
  REQUIRE(test::last_event(cluster) == "step-done rule");
  const auto candidate =
      test::journal(cluster, test::newest_run(cluster).id).back()["seen"]["node"];
  CHECK(sync_of(cluster, candidate) == "FIRST 1 (*)");
  cluster.zx_json({"runs", "abort", test::newest_run(cluster).id});
  CHECK(sync_of(cluster, candidate) == "pg_receivewal");
  CHECK_FALSE(std::filesystem::exists(cluster.state_dir() + "/sync/pg.main.json"));
}

TEST_CASE("what a candidate has from another time does not become the rule") {
  Cluster cluster;
  set_sync(cluster, "pg-b", "FIRST 2 (*)");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  CHECK(done(cluster, {"failover", "pg", "--to", "pg-b", "--yes"})["promoted"] == "pg-b");
  CHECK(test::eventually([&] { return sync_of(cluster, "pg-b").empty(); }));
  CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"].is_null());
}

TEST_CASE("what a person's failover on another host has reduced is restored by the agents") {
  test::EtcdServers etcd;
  Cluster cluster;
  test::coordinate_by(cluster, etcd);
  bool rejoins = true;
  SUBCASE("as soon as a node that was left behind is back") {}
  SUBCASE("also when a standby came back by itself and no node is brought back") {
    rejoins = false;
    test::set_policy(cluster, "rejoin", "\"manual\"");
    test::reconnect_at_once(cluster);
  }
  const auto kept_port = cluster.sql("pg-a", "SHOW port");
  for (const auto* node : {"pg-a", "pg-b", "pg-c"}) set_sync(cluster, node, kAll);
  test::HostAgent agent(cluster, "first");
  REQUIRE(agent.leads());
  REQUIRE(agent->becomes_healthy());
  REQUIRE(agent.ask({"agent", "pause", "--for", "10m"}).exit == 0);
  cluster.kill("pg-c");
  cluster.kill("pg-a");
  const auto report = done(cluster, {"failover", "pg", "--yes"});  // with a state_dir of its own
  REQUIRE(report["promoted"] == "pg-b");
  REQUIRE(sync_of(cluster, "pg-b").empty());
  REQUIRE(test::eventually([&] { return agent->pg()["sync_owed"]["wanted"] == kAll; }));
  const auto shown = agent.ask({"agent", "status"});
  CHECK_MESSAGE(says(shown.out, "synchronous_standby_names is empty since run"), shown.out);
  const auto json = agent.ask({"agent", "status", "-o", "json"});
  CHECK_MESSAGE(says(json.out, report["run"].get<std::string>()), json.out);
  os::ProcessOptions elsewhere;
  elsewhere.environment = {{"ZX__PLATFORM__STATE_DIR", cluster.beside("state-third")}};
  const auto status = cluster.zx({"status"}, elsewhere);
  CHECK_MESSAGE(says(status.out, "synchronous_standby_names is empty since run"), status.out);
  if (!rejoins) {
    cluster.start("pg-c");
    auto conninfo = cluster.sql("pg-c", "SHOW primary_conninfo");
    const auto port = "port=" + kept_port;
    REQUIRE_MESSAGE(says(conninfo, port), conninfo);
    conninfo.replace(conninfo.find(port), port.size(), "port=" + cluster.sql("pg-b", "SHOW port"));
    cluster.sql("pg-c", "ALTER SYSTEM SET primary_conninfo = " + pg::quote_literal(conninfo));
    cluster.sql("pg-c", "SELECT pg_reload_conf()");
    REQUIRE(test::eventually(
        [&] { return cluster.sql("pg-b", "SELECT count(*) FROM pg_stat_replication") == "1"; }));
    CHECK(sync_of(cluster, "pg-b").empty());
  }
  REQUIRE(agent.ask({"agent", "resume"}).exit == 0);
  CHECK(test::eventually([&] { return sync_of(cluster, "pg-b") == kAll; }));
  CHECK(test::eventually([&] { return agent->pg()["sync_owed"].is_null(); }));
  CHECK(cluster.zx_json({"status"})["pg"]["sync_owed"].is_null());
  agent->stop();
}

}  // namespace
}  // namespace zx
