// A switchover that stalls is rolled back; one that could lose anything is not begun.
#include "lib/pg/conninfo.h"
#include "lib/pg/rejoin_dir.h"
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::only;
using test::refused;
using test::says;
using test::step_of;
using test::Writer;

const std::vector<std::string> kToB{"switchover", "pg", "--to", "pg-b", "--yes"};

pid_t process_of(const Cluster& cluster, const std::string& node, const std::string& type) {
  return std::stoi(
      cluster.sql(node, "SELECT pid FROM pg_stat_activity WHERE backend_type = '" + type + "'"));
}

// pg-a is the primary that it was, under the same clients.
void check_rolled_back(const Cluster& cluster, const Json& failed, Writer& writer) {
  CHECK(failed["outcome"] == "failed");
  CHECK(failed["promoted"].is_null());
  CHECK(step_of(failed, "catch up")["state"] == "undone");
  CHECK(says(step_of(failed, "catch up")["error"]["message"], "not the shutdown checkpoint"));
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(test::timeline_of(cluster, "pg-a") == 1);
  CHECK(cluster.sql("pg-a",
                    "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename IS NOT NULL") == "t");
  CHECK(cluster.sql("pg-a", "CREATE TABLE writable ()").empty());
  CHECK(writer.finish().lost == 0);
  CHECK(!std::filesystem::exists(test::data_dir(cluster, "pg-a") + "/standby.signal"));
  CHECK(!std::filesystem::exists(test::data_dir(cluster, "pg-a") + "/zx-fence.json"));
}

TEST_CASE("a switchover to a standby that stops replaying is rolled back") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  test::set_policy(cluster, "catchup_deadline", "\"700ms\"");
  Writer writer(cluster);
  test::Sampler sampler(cluster);

  SUBCASE("because its replay was paused right after the checks") {
    test::Halted zx(cluster, 4, {"switchover", "pg", "--to", "pg-b", "--yes", "-o", "json"});
    cluster.sql("pg-b", "SELECT pg_wal_replay_pause()");
    CHECK(test::eventually(
        [&] { return cluster.sql("pg-b", "SELECT pg_get_wal_replay_pause_state()") == "paused"; }));
    zx.go_on();
    CHECK_MESSAGE(zx.finish() == 1, zx.output());
    const auto shown = cluster.zx_json({"runs", "show", zx.run().id});
    Json failed{{"outcome", shown["outcome"]}, {"promoted", Json()}, {"steps", shown["steps"]}};
    check_rolled_back(cluster, failed, writer);
    cluster.sql("pg-b", "SELECT pg_wal_replay_resume()");
  }
  SUBCASE("because its startup process hangs") {
    const auto startup = process_of(cluster, "pg-b", "startup");
    REQUIRE(kill(startup, SIGSTOP) == 0);
    const auto failed = cluster.zx_json(kToB, 1);
    check_rolled_back(cluster, failed, writer);
    REQUIRE(kill(startup, SIGCONT) == 0);
  }
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.verdict() == "healthy");
  test::set_policy(cluster, "stop_deadline", "\"30s\"");
  cluster.edit_config("catchup_deadline = \"700ms\"", "catchup_deadline = \"30s\"");
  done(cluster, kToB);
  CHECK(sampler.finish().empty());
}

TEST_CASE("a switchover that could not be finished is not begun") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  test::set_policy(cluster, "max_lag", "\"1 MiB\"");

  SUBCASE("the node is behind") {
    const auto receiver = process_of(cluster, "pg-b", "walreceiver");
    REQUIRE(kill(receiver, SIGSTOP) == 0);
    test::write_wal(cluster, "pg-a", 3);
    const auto said = refused(cluster, kToB);
    CHECK(says(said["error"]["message"], "behind"));
    CHECK(!get_string(said["error"], "hint").empty());
    REQUIRE(kill(receiver, SIGCONT) == 0);
    CHECK(test::has_replayed_all_of(cluster, "pg-b", "pg-a"));
  }
  SUBCASE("the node does not stream") {
    const auto conninfo = cluster.sql("pg-b", "SHOW primary_conninfo");
    test::stop_receiving(cluster, "pg-b");
    const auto said = refused(cluster, kToB);
    CHECK(says(said["error"]["message"], "does not receive from pg-a"));
    CHECK(says(said["error"]["hint"], "zx rejoin pg pg-b"));
    // The hint is good.
    done(cluster, {"rejoin", "pg", "pg-b", "--yes"});
  }
  SUBCASE("the node's replay is paused") {
    cluster.sql("pg-b", "SELECT pg_wal_replay_pause()");
    const auto said = refused(cluster, kToB);
    CHECK(says(said["error"]["hint"], "pg_wal_replay_resume"));
    cluster.sql("pg-b", "SELECT pg_wal_replay_resume()");
  }
  SUBCASE("the node is down") {
    cluster.kill("pg-b");
    const auto said = refused(cluster, kToB);
    CHECK(says(said["error"]["message"], "pg-b cannot become the primary"));
    CHECK(cluster.start("pg-b"));
  }
  SUBCASE("the primary is down") {
    cluster.kill("pg-a");
    const auto said = refused(cluster, kToB);
    CHECK(says(said["error"]["hint"], "zx failover pg"));
    CHECK(cluster.start("pg-a"));
  }
  SUBCASE("there is no such node") {
    const auto result = cluster.zx({"switchover", "pg", "--to", "pg-bb", "--yes"});
    CHECK(result.exit == 2);
    CHECK_MESSAGE(result.err.find("did you mean") != std::string::npos, result.err);
  }
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(test::timeline_of(cluster, "pg-a") == 1);
  REQUIRE(test::all_stream_from(cluster, "pg-a"));
  done(cluster, kToB);
}

TEST_CASE(
    "the run that made a node the primary is not named once another host has moved it since") {
  Cluster cluster;
  const auto run = done(cluster, kToB)["run"];
  CHECK(cluster.zx_json({"status"})["pg"]["promoted_by_run"] == run);
  CHECK(cluster.zx({"status"}).out.find("primary pg-b since ") != std::string::npos);
  os::ProcessOptions elsewhere;
  elsewhere.environment.emplace_back("ZX__PLATFORM__STATE_DIR", cluster.beside("elsewhere"));
  for (const char* node : {"pg-a", "pg-b"}) {
    const auto moved = cluster.zx({"switchover", "pg", "--to", node, "--yes"}, elsewhere);
    REQUIRE_MESSAGE(moved.exit == 0, moved.err);
    REQUIRE(test::all_stream_from(cluster, node));
  }
  CHECK(cluster.zx_json({"status"})["pg"]["promoted_by_run"].is_null());
  const auto told = cluster.zx({"status"}).out;
  CHECK_MESSAGE(told.find(" since ") == std::string::npos, told);
}

TEST_CASE("a switchover does not need every standby") {
  Cluster cluster;
  Writer writer(cluster);
  cluster.kill("pg-c");
  CHECK(done(cluster, kToB)["promoted"] == "pg-b");
  CHECK(cluster.writable() == only("pg-b"));
  CHECK(cluster.streams("pg-a"));
  CHECK(cluster.start("pg-c"));
  done(cluster, {"rejoin", "pg", "pg-c", "--yes"});
  CHECK(test::all_stream_from(cluster, "pg-b"));
  CHECK(writer.finish().lost == 0);
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a password in primary_conninfo ends in a file, and in no log") {
  Cluster cluster;
  const auto config = config::load(cluster.config());
  REQUIRE(config.has_value());
  const auto password = config::replication_password_of(*config, config->pg[0]);
  REQUIRE(password.has_value());
  for (const auto* node : {"pg-b", "pg-c"}) {
    auto conninfo = pg::parse_conninfo(cluster.sql(node, "SHOW primary_conninfo"));
    REQUIRE(conninfo.has_value());
    pg::remove_value(*conninfo, "passfile");
    pg::set_value(*conninfo, "password", *password);
    auto text = pg::to_string(*conninfo);
    const auto file = test::data_dir(cluster, node) + "/postgresql.auto.conf";
    cluster.kill(node);
    test::write(file, pg::with_settings(test::read(file), {{"primary_conninfo", std::move(text)}}));
    cluster.start(node);
  }
  CHECK(test::all_stream_from(cluster, "pg-a"));
  done(cluster, kToB);
  CHECK(test::all_stream_from(cluster, "pg-b"));
  for (const auto* node : {"pg-a", "pg-b", "pg-c"}) {
    CAPTURE(node);
    const auto log = test::read(cluster.lab().dir() + "/" + node + "/server.log");
    CHECK(log.find(*password) == std::string::npos);
    if (std::string(node) == "pg-c") CHECK(log.find("primary_conninfo") != std::string::npos);
  }
  CHECK(cluster.sql("pg-c", "SHOW primary_conninfo").find("passfile=") != std::string::npos);
  CHECK(cluster.sql("pg-c", "SHOW primary_conninfo").find(*password) == std::string::npos);
}

TEST_CASE("a switchover to the primary has nothing to do") {
  Cluster cluster;
  const auto report = done(cluster, {"switchover", "pg", "--to", "pg-a", "--yes"});
  CHECK(report["run"].is_null());
  CHECK(cluster.zx_json({"runs", "list"})["runs"].empty());
}

}  // namespace
}  // namespace zx
