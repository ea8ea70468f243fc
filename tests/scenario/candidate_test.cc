// Who is promoted when the primary is dead, who is not and why, and what it takes to override it.
#include <unistd.h>

#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::candidate_of;
using test::Cluster;
using test::done;
using test::eventually;
using test::only;
using test::refused;
using test::says;
using test::step_of;
using test::stop_receiving;
using test::Writer;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};
const std::vector<std::string> kPlan{"failover", "pg", "--dry-run"};

void set_sync_names(const Cluster& cluster, const std::string& names, int wanted) {
  cluster.sql("pg-a", "ALTER SYSTEM SET synchronous_standby_names = '" + names + "'");
  cluster.sql("pg-a", "SELECT pg_reload_conf()");
  REQUIRE(eventually([&] {
    return cluster.sql("pg-a",
                       "SELECT count(*) FROM pg_stat_replication"
                       " WHERE sync_state IN ('sync', 'quorum')") == std::to_string(wanted);
  }));
  CHECK(cluster.verdict() == "healthy");  // what zx knows of it when the primary is dead
}

// Over 4 MiB that `node` does not get, of the primary.
void leave_behind(const Cluster& cluster, const std::string& node) {
  stop_receiving(cluster, node);
  test::write_wal(cluster, "pg-a", 4);
  test::add_row(cluster, "pg-a", 1);
}

TEST_CASE("a standby that was cut off long ago is not promoted, and follows afterwards") {
  const Cluster cluster;
  test::set_policy(cluster, "max_lag", "\"1MiB\"");
  // Preferred, were it not so far behind.
  test::set_in(cluster, "pg.main.nodes.pg-c", "priority = 200");
  leave_behind(cluster, "pg-c");
  REQUIRE(test::has_all_of(cluster, "pg-b", "pg-a"));
  CHECK(cluster.zx_json({"status"})["pg"]["forecast"]["promote"] == "pg-b");
  cluster.kill("pg-a");

  const auto plan = cluster.zx_json(kPlan);
  CHECK(plan["would_promote"] == "pg-b");
  CHECK(says(candidate_of(plan, "pg-c")["why"], "more than max_lag 1 MiB"));
  CHECK(candidate_of(plan, "pg-c")["lost_bytes"] > 4 << 20);

  SUBCASE("the other one is") {
    const auto report = done(cluster, kFailover);
    CHECK(report["promoted"] == "pg-b");
    CHECK(report["lost_bytes"] == 0);
    CHECK(cluster.writable() == only("pg-b"));
    CHECK(cluster.streams("pg-c"));
    test::add_row(cluster, "pg-b", 2);
    CHECK(eventually([&] { return test::rows(cluster, "pg-c") == "1,2"; }));
  }
  SUBCASE("not even when it is named") {
    const auto report = refused(cluster, {"failover", "pg", "--yes", "--to", "pg-c"});
    CHECK(says(candidate_of(report, "pg-c")["why"], "more than max_lag"));
    CHECK(says(candidate_of(report, "pg-b")["why"], "--to names pg-c"));
    CHECK(says(report["error"]["hint"], "--allow-data-loss"));
  }
  SUBCASE("it is when it is named and the loss is accepted; the one ahead is rewound") {
    const auto report =
        done(cluster, {"failover", "pg", "--yes", "--to", "pg-c", "--allow-data-loss", "64MiB"});
    CHECK(report["promoted"] == "pg-c");
    CHECK(report["lost_bytes"] > 4 << 20);
    CHECK(cluster.writable() == only("pg-c"));
    done(cluster, {"rejoin", "pg", "pg-b", "--yes"});
    done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
    CHECK(cluster.verdict() == "healthy");
    test::add_row(cluster, "pg-c", 2);
    for (const char* node : {"pg-a", "pg-b"})
      CHECK(eventually([&] { return test::rows(cluster, node) == "2"; }));
  }
}

TEST_CASE("all standbys over the limit: refused with the way out, which works") {
  const Cluster cluster;
  test::set_policy(cluster, "max_lag", "\"1MiB\"");
  stop_receiving(cluster, "pg-b");
  leave_behind(cluster, "pg-c");
  CHECK(cluster.zx_json({"status"})["pg"]["forecast"]["promote"].is_null());
  cluster.kill("pg-a");
  const auto report = refused(cluster, kFailover);
  for (const char* node : {"pg-b", "pg-c"})
    CHECK(says(candidate_of(report, node)["why"], "more than max_lag"));
  CHECK(says(report["error"]["hint"], "--allow-data-loss"));
  CHECK(cluster.writable().empty());

  // Less than it would lose does not do.
  refused(cluster, {"failover", "pg", "--yes", "--allow-data-loss", "2MiB"});
  const auto anyway = done(cluster, {"failover", "pg", "--yes", "--allow-data-loss", "64MiB"});
  CHECK(anyway["lost_bytes"] > 4 << 20);
  CHECK(anyway["lost_bytes"] < 64 << 20);
  CHECK(cluster.writable() == only(anyway["promoted"].get<std::string>()));
}

TEST_CASE("a standby whose receiver was switched off altogether follows again") {
  const Cluster cluster;
  cluster.sql("pg-c", "ALTER SYSTEM SET primary_conninfo = ''");
  cluster.sql("pg-c", "SELECT pg_reload_conf()");
  test::add_row(cluster, "pg-a", 1);
  REQUIRE(test::has_all_of(cluster, "pg-b", "pg-a"));
  cluster.kill("pg-a");
  CHECK(done(cluster, kFailover)["promoted"] == "pg-b");
  CHECK(cluster.streams("pg-c"));
  CHECK(eventually([&] { return test::rows(cluster, "pg-c") == "1"; }));
}

TEST_CASE("a standby of another timeline 2 than the cluster's is not promoted") {
  const Cluster cluster;
  // By hand and alone: pg-c is on a timeline 2 of its own now, then nobody hears of it.
  cluster.sql("pg-c", "SELECT pg_promote()");
  test::add_row(cluster, "pg-c", 666);
  cluster.kill("pg-c", SIGINT);
  REQUIRE(test::is_down(cluster, "pg-c"));
  test::add_row(cluster, "pg-a", 1);
  REQUIRE(test::has_all_of(cluster, "pg-b", "pg-a"));
  CHECK(cluster.verdict() == "degraded");
  cluster.kill("pg-a");
  CHECK(done(cluster, kFailover)["promoted"] == "pg-b");
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  // As far as the true timeline 2 or farther, and preferred, were it of this cluster's line.
  os::WriteOptions as_server;
  as_server.owner = *os::owner_of(test::data_dir(cluster, "pg-c"));
  const auto signal = test::data_dir(cluster, "pg-c") + "/standby.signal";
  REQUIRE(os::write_file(signal, "", as_server).has_value());
  test::set_in(cluster, "pg.main.nodes.pg-c", "priority = 200");
  CHECK(cluster.start("pg-c"));
  test::add_row(cluster, "pg-b", 2);
  REQUIRE(test::has_all_of(cluster, "pg-a", "pg-b"));
  CHECK(cluster.zx_json({"status"})["pg"]["forecast"]["promote"] == "pg-a");

  cluster.kill("pg-b");
  CHECK(says(candidate_of(cluster.zx_json(kPlan), "pg-c")["why"], "diverged"));
  refused(cluster, {"failover", "pg", "--yes", "--to", "pg-c", "--allow-data-loss", "1GiB"});
  CHECK(done(cluster, kFailover)["promoted"] == "pg-a");
  CHECK(test::rows(cluster, "pg-a") == "1,2");
  done(cluster, {"rejoin", "pg", "pg-c", "--yes"});
  CHECK(eventually([&] { return test::rows(cluster, "pg-c") == "1,2"; }));
}

// A fresh server where pg-c was.
void make_foreign(const Cluster& cluster, bool in_recovery) {
  cluster.kill("pg-c", SIGINT);
  REQUIRE(test::is_down(cluster, "pg-c"));
  const auto dir = test::data_dir(cluster, "pg-c");
  const auto owner = os::owner_of(dir);
  REQUIRE(owner.has_value());
  os::ProcessOptions as_server;
  as_server.directory = dir + "/..";
  if (geteuid() == 0) as_server.user = *os::user_of_uid(owner->uid);
  os::WriteOptions owned;
  owned.owner = *owner;
  const auto password = test::read(cluster.lab().dir() + "/secrets/zx.pass");
  REQUIRE(os::write_file(dir + "/../pass", password, owned).has_value());
  const auto initdb = config::PgCluster{}.bin_dir + "/initdb";
  const auto made = test::run_program({initdb, "-D", dir + ".new", "--username", "zx", "--pwfile",
                                       dir + "/../pass", "--auth=scram-sha-256", "--no-sync"},
                                      as_server);
  REQUIRE_MESSAGE(made.ok(), made.err);
  for (const char* file : {"/postgresql.conf", "/pg_hba.conf"})
    REQUIRE(os::write_file(dir + ".new" + file, test::read(dir + file), owned).has_value());
  std::filesystem::remove_all(dir);
  std::filesystem::rename(dir + ".new", dir);
  REQUIRE(cluster.start("pg-c"));
  if (!in_recovery) return;
  cluster.kill("pg-c", SIGINT);  // initdb's own settings are in its WAL until now
  REQUIRE(test::is_down(cluster, "pg-c"));
  REQUIRE(os::write_file(dir + "/standby.signal", "", owned).has_value());
  REQUIRE(cluster.start("pg-c"));
}

TEST_CASE("a server of another system identifier is not promoted") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  bool in_recovery = false;
  SUBCASE("in recovery") { in_recovery = true; }
  SUBCASE("accepting writes") {}
  make_foreign(cluster, in_recovery);
  test::set_in(cluster, "pg.main.nodes.pg-c", "priority = 200");
  test::add_row(cluster, "pg-a", 1);
  REQUIRE(test::has_all_of(cluster, "pg-b", "pg-a"));

  // It takes nothing away from the primary of this cluster.
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["primary"] == "pg-a");
  CHECK(status["pg"]["verdict"] == "degraded");
  CHECK(says(status["pg"]["problems"], "another cluster"));
  CHECK(says(refused(cluster, kFailover)["error"], "pg-a is alive"));

  cluster.kill("pg-a");
  const auto plan = cluster.zx_json(kPlan);
  CHECK(says(candidate_of(plan, "pg-c")["why"], "another cluster: system identifier"));
  refused(cluster, {"failover", "pg", "--yes", "--to", "pg-c", "--allow-data-loss", "1GiB"});
  CHECK(done(cluster, kFailover)["promoted"] == "pg-b");
  CHECK(test::rows(cluster, "pg-b") == "1");
  // Nor is it made one of this cluster while its data is there.
  const std::vector<std::string> rebuild{"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"};
  CHECK(cluster.zx({"rejoin", "pg", "pg-c", "--yes"}).exit == 3);
  CHECK(says(refused(cluster, rebuild)["error"]["hint"], "an empty directory"));
  cluster.kill("pg-c", SIGINT);
  REQUIRE(test::is_down(cluster, "pg-c"));
  test::make_empty(test::data_dir(cluster, "pg-c"));
  done(cluster, rebuild);
  CHECK(eventually([&] { return test::rows(cluster, "pg-c") == "1"; }));
}

TEST_CASE("a standby with its replay paused is promoted with all that it has received") {
  const Cluster cluster;
  cluster.sql("pg-b", "SELECT pg_wal_replay_pause()");
  REQUIRE(eventually(
      [&] { return cluster.sql("pg-b", "SELECT pg_get_wal_replay_pause_state()") == "paused"; }));
  for (int id = 1; id <= 20; ++id) test::add_row(cluster, "pg-a", id);
  REQUIRE(test::has_all_of(cluster, "pg-b", "pg-a"));
  CHECK(says(cluster.node("pg-b")["note"], "replay is paused"));
  cluster.kill("pg-a");
  CHECK(says(candidate_of(cluster.zx_json(kPlan), "pg-b")["why"], "paused"));
  const auto report = done(cluster, {"failover", "pg", "--yes", "--to", "pg-b"});
  CHECK(report["promoted"] == "pg-b");
  CHECK(report["lost_bytes"] == 0);
  CHECK(step_of(report, "promote")["seen"]["replay_was_paused"] == true);
  CHECK(cluster.writable() == only("pg-b"));
  CHECK(cluster.sql("pg-b", "SELECT count(*) FROM kept") == "20");
}

TEST_CASE("commits that only a lost synchronous standby may have stop a failover") {
  const Cluster cluster;
  set_sync_names(cluster, "\"pg-b\"", 1);
  stop_receiving(cluster, "pg-c");
  test::add_row(cluster, "pg-a", 1);  // acknowledged by pg-b alone
  cluster.kill("pg-b");
  cluster.kill("pg-a");
  const auto report = refused(cluster, kFailover);
  CHECK(says(candidate_of(report, "pg-c")["why"], "may be only on pg-b"));
  CHECK(says(report["error"]["hint"], "--allow-data-loss"));
  CHECK(cluster.writable().empty());

  SUBCASE("it comes back and is the one") {
    CHECK(cluster.start("pg-b"));
    const auto again = done(cluster, kFailover);
    CHECK(again["promoted"] == "pg-b");
    CHECK(test::rows(cluster, "pg-b") == "1");
    CHECK(cluster.streams("pg-c"));
  }
  SUBCASE("the loss is accepted") {
    const auto again = done(cluster, {"failover", "pg", "--yes", "--allow-data-loss", "1MiB"});
    CHECK(again["promoted"] == "pg-c");
    CHECK(again["lost_bytes"] > 0);
  }
  // Nobody waits for a standby that is gone.
  const auto promoted = cluster.writable();
  REQUIRE(promoted.size() == 1);
  test::add_row(cluster, promoted.front(), 2);
}

TEST_CASE("a standby that has all of the dead primary's WAL needs no synchronous one") {
  const Cluster cluster;
  set_sync_names(cluster, "\"pg-b\"", 1);
  test::add_row(cluster, "pg-a", 1);
  cluster.kill("pg-b");
  REQUIRE(test::has_all_of(cluster, "pg-c", "pg-a"));
  cluster.kill("pg-a");
  const auto report = done(cluster, kFailover);
  CHECK(report["promoted"] == "pg-c");
  CHECK(report["lost_bytes"] == 0);
  test::add_row(cluster, "pg-c", 2);
  CHECK(test::rows(cluster, "pg-c") == "1,2");
}

TEST_CASE("under a quorum the standby that acknowledged is promoted, whoever is preferred") {
  const Cluster cluster;
  set_sync_names(cluster, "ANY 1 (\"pg-b\", \"pg-c\")", 2);
  test::set_in(cluster, "pg.main.nodes.pg-b", "priority = 200");
  Writer writer(cluster);
  stop_receiving(cluster, "pg-b");
  // Whatever is acknowledged from here on is acknowledged by pg-c.
  test::write_wal(cluster, "pg-a", 1);
  cluster.kill("pg-a");
  const auto report = done(cluster, kFailover);
  CHECK(report["promoted"] == "pg-c");
  const auto written = writer.finish();
  CHECK(written.acknowledged > 10);
  CHECK(written.lost == 0);
  CHECK(cluster.streams("pg-b"));
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("nofailover and priority 0 are respected, also when the node is named") {
  const Cluster cluster;
  test::set_in(cluster, "pg.main.nodes.pg-b", "nofailover = true");
  test::set_in(cluster, "pg.main.nodes.pg-c", "priority = 0");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto report = refused(cluster, {"failover", "pg", "--yes", "--to", "pg-b"});
  CHECK(says(candidate_of(report, "pg-b")["why"], "nofailover"));
  CHECK(says(candidate_of(report, "pg-c")["why"], "priority 0"));
  refused(cluster, {"failover", "pg", "--yes", "--allow-data-loss", "1GiB"});
  cluster.edit_config("priority = 0", "priority = 1");
  CHECK(done(cluster, kFailover)["promoted"] == "pg-c");
  CHECK(cluster.streams("pg-b"));
}

TEST_CASE("a node that does not exist is answered with the nearest that does") {
  const Cluster cluster(2);
  const auto before = test::roles_on_disk(cluster);
  const auto result = cluster.zx({"failover", "pg", "--yes", "--to", "pg-bb"});
  CHECK(result.exit == 2);
  CHECK_MESSAGE(result.err.find("did you mean \"pg-b\"?") != std::string::npos, result.err);
  CHECK(test::roles_on_disk(cluster) == before);
}

}  // namespace
}  // namespace zx
