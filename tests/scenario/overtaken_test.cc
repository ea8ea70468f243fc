// What others did while a run stood still, and what a standby has that it has not replayed yet:
// neither may cost an acknowledged commit.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::says;

constexpr const char* kEither = "ANY 1 (\"pg-b\", \"pg-c\")";

void set(const Cluster& cluster, const std::string& node, const std::string& name,
         const std::string& value) {
  cluster.sql(node, fmt::format("ALTER SYSTEM SET {} = {}", name, pg::quote_literal(value)));
  cluster.sql(node, "SELECT pg_reload_conf()");
  REQUIRE(test::eventually([&] { return cluster.sql(node, "SHOW " + name) == value; }));
}

void wait_for_either(const Cluster& cluster) {
  for (const auto* node : {"pg-a", "pg-b", "pg-c"})
    set(cluster, node, "synchronous_standby_names", kEither);
  REQUIRE(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.verdict() == "healthy");
}

// Nobody gets onto the host of pg-a.
void hide_host(const Cluster& cluster) {
  auto text = test::read(cluster.config());
  const auto at = text.find("remote = []");
  REQUIRE(at < text.find("[hosts.lab-b]"));
  text.replace(at, 11, "remote = [\"/bin/false\"]");
  test::write(cluster.config(), text);
}

int rows_on(const Cluster& cluster, const std::string& node) {
  return std::stoi(cluster.sql(node, "SELECT count(*) FROM kept"));
}

TEST_CASE("a run that waited is not finished when others have pointed a standby back since") {
  Cluster cluster;
  wait_for_either(cluster);
  cluster.sql("pg-a", "CREATE TABLE kept (id int)");
  const auto upstream = cluster.sql("pg-c", "SHOW primary_conninfo");
  hide_host(cluster);
  cluster.kill("pg-a");
  const auto killed = test::zx_killed_at(cluster, 7, {"failover", "pg", "--yes"});
  REQUIRE(killed.signal == SIGKILL);
  const auto run = test::newest_run(cluster);
  REQUIRE(run.steps.at("choose").state == run::StepState::done);
  REQUIRE_FALSE(run.no_return);
  // A supervisor and a person: pg-a serves again, and pg-c alone acknowledges.
  REQUIRE(cluster.start("pg-a"));
  set(cluster, "pg-c", "primary_conninfo", upstream);
  REQUIRE(test::eventually(
      [&] { return cluster.sql("pg-a", "SELECT count(*) FROM pg_stat_replication") == "1"; }));
  for (int i = 0; i < 5; ++i) cluster.sql("pg-a", "INSERT INTO kept VALUES (1)");
  cluster.kill("pg-a");

  const auto resumed = cluster.zx_json({"runs", "resume", run.id}, 3);
  CHECK_MESSAGE(says(resumed["error"], "pg-c follows another node again"), resumed.dump());
  CHECK(cluster.writable().empty());
  CHECK(test::newest_run(cluster).outcome.has_value());
  const auto report = done(cluster, {"failover", "pg", "--yes"});
  CHECK(report["promoted"] == "pg-c");
  CHECK(rows_on(cluster, "pg-c") == 5);
}

TEST_CASE("a standby that has not replayed its own WAL yet is not taken to be behind") {
  Cluster cluster;
  wait_for_either(cluster);
  cluster.sql("pg-a", "CREATE TABLE kept (id int)");
  REQUIRE(test::all_stream_from(cluster, "pg-a"));
  set(cluster, "pg-c", "recovery_min_apply_delay", "1h");
  cluster.kill("pg-b");
  for (int i = 0; i < 5; ++i) cluster.sql("pg-a", "INSERT INTO kept VALUES (1)");
  cluster.kill("pg-a");
  cluster.kill("pg-c");
  REQUIRE(cluster.start("pg-b"));
  REQUIRE(cluster.start("pg-c"));

  const auto refused = test::refused(cluster, {"failover", "pg", "--yes"});
  CHECK_MESSAGE(says(refused, "pg-c still replaying WAL from before a restart"), refused.dump());
  set(cluster, "pg-c", "recovery_min_apply_delay", "0");
  REQUIRE(test::eventually([&] { return rows_on(cluster, "pg-c") == 5; }));
  const auto report = done(cluster, {"failover", "pg", "--yes"});
  CHECK(report["promoted"] == "pg-c");
  CHECK(report["lost_bytes"] == 0);
  CHECK(rows_on(cluster, "pg-c") == 5);
}

TEST_CASE("WAL on a host that ends before what was seen of the primary proves nothing") {
  Cluster cluster;
  wait_for_either(cluster);
  cluster.sql("pg-a", "CREATE TABLE kept (id int)");
  REQUIRE(test::all_stream_from(cluster, "pg-a"));
  cluster.kill("pg-b");
  const auto wal = cluster.lab().dir() + "/pg-a/data/pg_wal/" +
                   cluster.sql("pg-a", "SELECT pg_walfile_name(pg_current_wal_lsn())");
  const auto before = test::read(wal);
  for (int i = 0; i < 5; ++i) cluster.sql("pg-a", "INSERT INTO kept VALUES (1)");
  CHECK(cluster.node("pg-a")["role"] == "primary");  // whoever looks notes it
  cluster.kill("pg-a");
  cluster.kill("pg-c");
  test::write(wal, before);  // as in a copy from another day
  REQUIRE(cluster.start("pg-b"));
  const auto refused = test::refused(cluster, {"failover", "pg", "--yes"});
  CHECK_MESSAGE(says(refused, "acknowledged commits may be only on pg-c"), refused.dump());
  REQUIRE(cluster.start("pg-c"));
  CHECK(done(cluster, {"failover", "pg", "--yes"})["promoted"] == "pg-c");
  CHECK(rows_on(cluster, "pg-c") == 5);
}

}  // namespace
}  // namespace zx
