// Bringing nodes back: what is kept, what cannot be done, and a rewind that was cut short.
#include <atomic>
#include <filesystem>
#include <thread>

#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::only;
using test::says;
using test::step_of;

// PostgreSQL's programs, with a pg_rewind that does `instead` when it is not only tried.
void replace_pg_rewind(const Cluster& cluster, const std::string& instead) {
  const auto program = test::without_program(cluster, "pg_rewind") / "pg_rewind";
  test::write(program, "#!/bin/sh\nreal=" + config::PgCluster{}.bin_dir + "/pg_rewind" +
                           "\ncase \" $* \" in *\" --dry-run \"*) exec $real \"$@\" ;; esac\n" +
                           instead + "\n");
  std::filesystem::permissions(program, std::filesystem::perms(0755));
}

// The directory is unusable, everyone says so, nothing starts it, and a rebuild mends it.
void check_unusable_until_rebuilt(const Cluster& cluster, const std::string& node) {
  const auto rebuild = "--rebuild --confirm " + node;
  CHECK_MESSAGE(says(cluster.node(node), "interrupted"), cluster.node(node).dump());
  const auto started = cluster.lab().start(node, Millis(5000));
  CHECK(!started.has_value());
  const auto refused = cluster.zx_json({"rejoin", "pg", node, "--yes"}, 3);
  CHECK_MESSAGE(says(refused["error"], rebuild), refused.dump());
  CHECK(cluster.writable() == only("pg-a"));
  done(cluster, {"rejoin", "pg", node, "--rebuild", "--confirm", node});
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(test::has_replayed_all_of(cluster, node, "pg-a"));
  CHECK(cluster.sql(node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'abandoned%'") == "0");
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a rewind that breaks off leaves a directory that is never started as it is") {
  Cluster cluster;
  test::diverge(cluster, "pg-b");
  replace_pg_rewind(
      cluster, "exec strace -qq -o /dev/null --inject=write:signal=SIGKILL:when=30 $real \"$@\"");
  const auto failed = cluster.zx_json({"rejoin", "pg", "pg-b", "--confirm", "pg-b"}, 1);
  CHECK(failed["outcome"] == "failed");
  CHECK(step_of(failed, "rewind")["state"] == "failed");
  CHECK_MESSAGE(says(failed["error"]["hint"], "--rebuild --confirm pg-b"), failed.dump());
  check_unusable_until_rebuilt(cluster, "pg-b");
}

TEST_CASE("zx killed during a rewind takes pg_rewind with it, and the directory is never started") {
  Cluster cluster;
  test::diverge(cluster, "pg-b");
  const auto begun = cluster.beside("begun");
  test::write(begun, "");
  std::filesystem::permissions(begun, std::filesystem::perms(0666));
  replace_pg_rewind(cluster, "echo $$ > " + begun + "\nkill -STOP $$\nexec $real \"$@\"");
  test::Background zx(test::argv_of(cluster, {"rejoin", "pg", "pg-b", "--confirm", "pg-b"}),
                      {"HOME=/nonexistent"});
  REQUIRE(test::eventually([&] { return test::read(begun).ends_with("\n"); }));
  const auto tool = static_cast<pid_t>(std::stol(test::read(begun)));
  CHECK(os::is_running(tool));
  zx.signal(SIGKILL);
  CHECK(zx.finish() == -SIGKILL);
  // Else it would go on writing into what comes after it.
  CHECK(test::eventually([&] { return !os::is_running(tool); }, Millis(10'000)));

  const auto resumed = cluster.zx_json({"runs", "resume"}, 1);
  CHECK(resumed["outcome"] == "failed");
  CHECK_MESSAGE(says(resumed["error"], "--rebuild --confirm pg-b"), resumed.dump());
  check_unusable_until_rebuilt(cluster, "pg-b");
}

TEST_CASE("a rejoin interrupted in its rewind may be replaced by a rebuild at once") {
  Cluster cluster;
  test::diverge(cluster, "pg-b");
  const auto begun = cluster.beside("begun");
  test::write(begun, "");
  std::filesystem::permissions(begun, std::filesystem::perms(0666));
  replace_pg_rewind(cluster, "echo $$ > " + begun + "\nkill -STOP $$\nexec $real \"$@\"");
  test::Background zx(test::argv_of(cluster, {"rejoin", "pg", "pg-b", "--confirm", "pg-b"}),
                      {"HOME=/nonexistent"});
  REQUIRE(test::eventually([&] { return test::read(begun).ends_with("\n"); }));
  zx.signal(SIGKILL);
  CHECK(zx.finish() == -SIGKILL);
  const auto run = test::newest_run(cluster).id;
  done(cluster, {"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-b"});
  CHECK(run::read_run(cluster.state_dir(), run)->outcome == "superseded");
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("the WAL that a rejoin gives up is kept, with a receipt") {
  Cluster cluster;
  test::diverge(cluster, "pg-b", 5);
  const auto rejoined = done(cluster, {"rejoin", "pg", "pg-b", "--confirm", "pg-b"});
  const auto kept = step_of(rejoined, "keep")["seen"];
  CHECK(kept["diverged"] == true);
  CHECK(kept["bytes"].get<long>() > 0);
  CHECK(kept["commits"] == 5);
  const auto directory = kept["directory"].get<std::string>();
  CHECK(says(rejoined, directory));
  const auto receipt = parse_json(test::read(directory + "/receipt.json"), "the receipt");
  REQUIRE(receipt.has_value());
  CHECK((*receipt)["node"] == "pg-b");
  CHECK((*receipt)["run"] == rejoined["run"]);
  CHECK((*receipt)["bytes"] == kept["bytes"]);
  CHECK((*receipt)["commits"] == 5);
  // What it says how to read it with works.
  const auto dump = test::run_program({config::PgCluster{}.bin_dir + "/pg_waldump", "--timeline",
                                       std::to_string((*receipt)["timeline"].get<int>()), "--start",
                                       (*receipt)["from"].get<std::string>(), "--end",
                                       (*receipt)["end"].get<std::string>(), "--path", directory});
  CHECK_MESSAGE(dump.ok(), dump.err);
  CHECK(dump.out.find("COMMIT") != std::string::npos);
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(cluster.zx_json({"rejoin", "pg", "pg-b", "--yes"})["said"].get<std::string>().find(
            "already") != std::string::npos);
}

TEST_CASE("a primary that crashed before its first checkpoint is recovered and rewound") {
  Cluster cluster;
  // Its first checkpoint has much to write, and takes its time.
  cluster.sql(
      "pg-a",
      "CREATE TABLE ballast AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
  CHECK(test::has_replayed_all_of(cluster, "pg-b", "pg-a"));
  REQUIRE(cluster.sql("pg-b", "SELECT pg_promote()") == "t");
  cluster.sql("pg-b", "CREATE TABLE abandoned ()");
  cluster.sql("pg-a", "CREATE TABLE kept ()");
  cluster.kill("pg-b");
  const auto data = cluster.lab().dir() + "/pg-b/data";
  const auto control = test::run_program({config::PgCluster{}.bin_dir + "/pg_controldata", data});
  REQUIRE_MESSAGE(says(control.out, "Latest checkpoint's TimeLineID:       1"), control.out);
  // Settings that would lead the recovery back into the directory, and to standby.signal.
  test::write(data + "/postgresql.auto.conf",
              test::read(data + "/postgresql.auto.conf") + "data_directory = '" + data + "'\n");
  const auto rejoined = done(cluster, {"rejoin", "pg", "pg-b", "--confirm", "pg-b"});
  CHECK_MESSAGE(step_of(rejoined, "rewind")["state"] == "done", rejoined.dump());
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(cluster.verdict() == "healthy");
  CHECK(cluster.sql("pg-b", "SELECT to_regclass('abandoned') IS NULL") == "t");
  CHECK(test::eventually(
      [&] { return cluster.sql("pg-b", "SELECT to_regclass('kept') IS NOT NULL") == "t"; }));
  CHECK_FALSE(os::exists(data + ".zx-recovery"));
}

TEST_CASE("a supervisor that starts the node at any moment does not spoil its rewind") {
  Cluster cluster;
  for (int round = 0; round < 4; ++round) {
    test::diverge(cluster, "pg-b", 5);
    std::atomic<bool> is_over = false;
    std::thread supervisor([&] {
      // Refused while the directory is closed, or another start is on its way.
      while (!is_over) static_cast<void>(cluster.lab().start("pg-b"));
    });
    std::string said;
    const bool rejoined = test::eventually([&] {
      // It accepts writes when it is started before it is fenced.
      const auto result = cluster.zx({"rejoin", "pg", "pg-b", "--confirm", "pg-b"});
      CHECK_MESSAGE(result.err.find("--rebuild") == std::string::npos, result.err);
      said = result.out + result.err;
      return result.exit == 0;
    });
    is_over = true;
    supervisor.join();
    REQUIRE_MESSAGE(rejoined, said);
    CHECK(test::all_stream_from(cluster, "pg-a"));
    CHECK(cluster.writable() == only("pg-a"));
  }
}

TEST_CASE("a second primary is stopped and follows, when it is named") {
  Cluster cluster;
  cluster.sql(
      "pg-a",
      "CREATE TABLE ballast AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
  CHECK(test::has_replayed_all_of(cluster, "pg-b", "pg-a"));
  REQUIRE(cluster.sql("pg-b", "SELECT pg_promote()") == "t");
  cluster.sql("pg-b", "CREATE TABLE abandoned ()");
  CHECK(cluster.verdict() == "two_primaries");
  // Of two primaries the one that was promoted later is rarely the wrong one.
  const auto declined = cluster.zx_json({"rejoin", "pg", "pg-b", "--yes"}, 9);
  CHECK_MESSAGE(says(declined["error"], "later timeline than pg-a"), declined.dump());
  CHECK(says(declined["error"]["hint"], "zx rejoin pg pg-a"));
  CHECK(cluster.writable().size() == 2);
  done(cluster, {"rejoin", "pg", "pg-b", "--confirm", "pg-b"});
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a standby whose WAL is gone from the primary is told to be made anew") {
  Cluster cluster;
  cluster.kill("pg-c");
  REQUIRE(test::eventually([&] {
    return test::psql(cluster.lab(), "pg-a", "SELECT pg_drop_replication_slot('pg_c')").ok();
  }));
  cluster.sql("pg-a", "ALTER SYSTEM SET wal_keep_size = 0");
  cluster.sql("pg-a", "ALTER SYSTEM SET max_wal_size = '32MB'");
  cluster.sql("pg-a", "ALTER SYSTEM SET min_wal_size = '32MB'");
  cluster.sql("pg-a", "SELECT pg_reload_conf()");
  // It asks for the segment of the next byte, which need not be the oldest one; of a position
  // between two segments pg_walfile_name() names the first.
  const auto wanted = cluster.sql("pg-a", "SELECT pg_walfile_name(pg_current_wal_flush_lsn() + 1)");
  CHECK(test::eventually([&] {
    test::write_wal(cluster, "pg-a", 1);
    cluster.sql("pg-a", "SELECT pg_switch_wal()");
    cluster.sql("pg-a", "CHECKPOINT");
    return cluster.sql("pg-a", "SELECT min(name) FROM pg_ls_waldir() WHERE length(name) = 24") >
           wanted;
  }));
  // Found when it was started and waits for WAL that never comes.
  const auto failed = cluster.zx_json({"rejoin", "pg", "pg-c", "--yes"}, 1);
  REQUIRE(failed["outcome"] == "failed");
  CHECK_MESSAGE(says(failed["error"], "needs WAL from"), failed.dump());
  CHECK(test::is_down(cluster, "pg-c"));  // as it was before
  CHECK(says(failed["error"]["hint"], "--rebuild --confirm pg-c"));
  cluster.start("pg-c");
  CHECK(test::eventually([&] { return says(cluster.node("pg-c"), "has removed the WAL"); }));
  CHECK(says(cluster.zx_json({"status"})["pg"]["next"], "--rebuild --confirm pg-c"));
  // And of one that waits already, before anything is done.
  const auto refused = test::refused(cluster, {"rejoin", "pg", "pg-c", "--yes"});
  CHECK_MESSAGE(says(refused["error"]["hint"], "--rebuild --confirm pg-c"), refused.dump());
  // A standby that ran goes on running, as stale as it was.
  CHECK(cluster.sql("pg-c", "SELECT pg_is_in_recovery()") == "t");
  done(cluster, {"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"});
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(test::has_replayed_all_of(cluster, "pg-c", "pg-a"));
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a node whose disk was replaced is made anew in an empty directory") {
  Cluster cluster;
  cluster.kill("pg-b");
  const auto dir = test::data_dir(cluster, "pg-b");
  REQUIRE(test::is_down(cluster, "pg-b"));
  // Not one that does not exist: a disk that is not mounted looks like that.
  std::filesystem::rename(dir, dir + ".away");
  CHECK(cluster.zx({"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-b"}).exit == 6);
  std::filesystem::rename(dir + ".away", dir);
  test::make_empty(dir);
  const auto refused = cluster.zx_json({"rejoin", "pg", "pg-b", "--yes"}, 3);
  CHECK_MESSAGE(says(refused["error"], "is empty"), refused.dump());
  CHECK(std::filesystem::is_empty(dir));
  CHECK(says(cluster.zx_json({"status"})["pg"]["next"], "--rebuild --confirm pg-b"));
  done(cluster, {"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-b"});
  CHECK(test::all_stream_from(cluster, "pg-a"));
  CHECK(cluster.verdict() == "healthy");
}

// What a rebuild must put back: pg-c as it was, and nothing beside it.
void check_not_rebuilt(const Cluster& cluster) {
  const auto dir = test::data_dir(cluster, "pg-c");
  CHECK(test::read(dir + "/mine") == "kept");
  CHECK_FALSE(os::exists(dir + ".zx-new"));
  CHECK_FALSE(os::exists(dir + ".zx-old"));
  CHECK_FALSE(os::exists(dir + "/zx-fence.json"));
}

TEST_CASE("a rebuild that is interrupted leaves the standby as it was") {
  Cluster cluster;
  test::write(test::data_dir(cluster, "pg-c") + "/mine", "kept");
  const auto begun = cluster.beside("begun");
  test::write(begun, "");
  std::filesystem::permissions(begun, std::filesystem::perms(0666));
  const auto program = test::without_program(cluster, "pg_basebackup") / "pg_basebackup";
  test::write(program, "#!/bin/sh\necho $$ > " + begun + "\nkill -STOP $$\n");
  std::filesystem::permissions(program, std::filesystem::perms(0755));
  test::Background zx(
      test::argv_of(cluster, {"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"}),
      {"HOME=/nonexistent"});
  REQUIRE(test::eventually([&] { return test::read(begun).ends_with("\n"); }));
  const auto tool = static_cast<pid_t>(std::stol(test::read(begun)));
  zx.signal(SIGINT);
  CHECK_MESSAGE(zx.finish() == 130, zx.output());
  CHECK(test::eventually([&] { return !os::is_running(tool); }));
  CHECK(test::newest_run(cluster).outcome == "failed");
  check_not_rebuilt(cluster);
  CHECK(cluster.streams("pg-c"));
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a rebuild whose copy does not start puts the old directory back") {
  Cluster cluster;
  test::write(test::data_dir(cluster, "pg-c") + "/mine", "kept");
  cluster.kill("pg-c");
  test::set_in(cluster, "pg.main.nodes.pg-c", "start = [\"false\"]");
  const auto failed =
      cluster.zx_json({"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"}, 1);
  CHECK(step_of(failed, "rebuild")["state"] == "undone");
  CHECK(step_of(failed, "start")["state"] == "failed");
  check_not_rebuilt(cluster);
  CHECK(cluster.start("pg-c"));
  CHECK(cluster.streams("pg-c"));
}

TEST_CASE("a rebuild that would move the WAL to another disk is not begun") {
  Cluster cluster;
  const auto dir = test::data_dir(cluster, "pg-c");
  cluster.kill("pg-c");
  REQUIRE(test::is_down(cluster, "pg-c"));
  std::filesystem::rename(dir + "/pg_wal", dir + ".wal");
  std::filesystem::create_directory_symlink(dir + ".wal", dir + "/pg_wal");
  for (const std::string last : {"--dry-run", "--confirm=pg-c"}) {
    const auto json = test::refused(cluster, {"rejoin", "pg", "pg-c", "--rebuild", last});
    CHECK_MESSAGE(says(json["error"], "pg_wal is a link"), json.dump());
  }
  done(cluster, {"rejoin", "pg", "pg-c", "--yes"});
  CHECK(std::filesystem::is_symlink(dir + "/pg_wal"));
}

TEST_CASE("a rebuild wants the node's name, and the primary is never rejoined") {
  Cluster cluster;
  const auto before = test::roles_on_disk(cluster);
  CHECK(cluster.zx({"rejoin", "pg", "pg-b", "--rebuild", "--yes"}).exit == 9);
  CHECK(cluster.zx({"rejoin", "pg", "pg-b", "--rebuild"}).exit == 9);
  CHECK(cluster.zx({"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-c"}).exit == 9);
  test::refused(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  const auto rebuild =
      test::refused(cluster, {"rejoin", "pg", "pg-a", "--rebuild", "--confirm", "pg-a"});
  CHECK(says(rebuild["error"], "pg-a is the primary"));
  CHECK(says(rebuild["error"]["hint"], "switchover"));
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(cluster.zx_json({"runs", "list"})["runs"].empty());
  CHECK(cluster.verdict() == "healthy");
}

}  // namespace
}  // namespace zx
