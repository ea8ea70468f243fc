// What an unfinished run, or a journal that cannot be read, means for those that come after it.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::only;
using test::says;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

TEST_CASE("a dry run says that an unfinished run is in the way") {
  Cluster cluster;
  cluster.kill("pg-a");
  CHECK_FALSE(test::zx_killed_at(cluster, 3, kFailover).ok());
  const auto run = test::newest_run(cluster).id;
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"failover", "pg", "--dry-run"},
        {"switchover", "pg", "--to", "pg-b", "--dry-run"},
        {"rejoin", "pg", "pg-a", "--dry-run"}}) {
    const auto json = test::refused(cluster, words);
    CHECK_MESSAGE(says(json["error"], run), json.dump());
    CHECK(says(json["error"]["hint"], "zx runs resume"));
  }
  done(cluster, {"runs", "resume"});
}

TEST_CASE("a journal that cannot be read stops the next run until it is ended by hand") {
  Cluster cluster;
  cluster.kill("pg-a");
  CHECK_FALSE(test::zx_killed_at(cluster, 3, kFailover).ok());
  const auto run = test::newest_run(cluster).id;
  const auto path = test::journal_path(cluster, run);
  auto lines = test::lines_of(test::read(path));
  lines[1] = std::string(lines[1].size(), '\0');  // as after a crash of the file system
  test::write(path, join(lines, "\n") + "\n");

  const auto refused = test::refused(cluster, kFailover);
  CHECK_MESSAGE(says(refused["error"], run), refused.dump());
  CHECK(says(refused["error"]["hint"], "zx runs abort " + run + " --as-is"));
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["broken_run"] == run);
  CHECK(cluster.zx({"status"}).out.find("may be unfinished") != std::string::npos);
  const auto list = cluster.zx_json({"runs", "list"});
  CHECK(list["broken"][0]["run"] == run);
  CHECK(cluster.zx({"runs", "resume", run}).exit != 0);

  CHECK(cluster.zx({"runs", "abort", run, "--as-is", "--dry-run"}).exit == 0);
  test::refused(cluster, kFailover);
  CHECK(cluster.zx({"runs", "abort", run, "--as-is"}).exit == 0);
  CHECK(cluster.zx({"runs", "abort", run, "--as-is"}).exit == 3);
  CHECK(cluster.zx_json({"status"})["pg"]["broken_run"].is_null());
  done(cluster, kFailover);
}

TEST_CASE("a dry run of a resume refuses what the resume would") {
  Cluster cluster;
  CHECK_FALSE(test::zx_killed_at(cluster, 3, {"switchover", "pg", "--to", "pg-b", "--yes"}).ok());
  const auto run = test::newest_run(cluster);
  REQUIRE_FALSE(run.no_return);
  cluster.kill("pg-a");
  REQUIRE(cluster.sql("pg-b", "SELECT pg_promote()") == "t");  // by another host
  const auto before = test::roles_on_disk(cluster);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"runs", "resume", "--dry-run"}, {"runs", "resume"}}) {
    const auto told = cluster.zx(words);
    CHECK(told.exit == 3);
    CHECK_MESSAGE(told.err.find("pg-b is a primary now") != std::string::npos, told.err);
    CHECK_MESSAGE(told.err.find("rejoin pg pg-a") != std::string::npos, told.err);
  }
  CHECK(test::roles_on_disk(cluster) == before);
}

TEST_CASE("a run is not taken back when another node has become the primary meanwhile") {
  Cluster cluster;
  cluster.kill("pg-a");
  CHECK_FALSE(test::zx_killed_at(cluster, 8, kFailover).ok());
  const auto run = test::newest_run(cluster);
  REQUIRE(test::last_event(cluster) == "step-done fence");
  REQUIRE(cluster.sql("pg-b", "SELECT pg_promote()") == "t");  // by hand
  const auto before = test::roles_on_disk(cluster);
  const auto refused = cluster.zx_json({"runs", "abort", run.id}, 3);
  CHECK_MESSAGE(says(refused["error"], "pg-b is a primary now"), refused.dump());
  CHECK(says(refused["error"]["hint"], "--as-is"));
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(cluster.start("pg-a"));  // as a supervisor would
  CHECK(cluster.writable() == only("pg-b"));
  // The way out that it names.
  CHECK(cluster.zx({"runs", "abort", run.id, "--as-is"}).exit == 0);
  for (const std::string node : {"pg-a", "pg-c"}) done(cluster, {"rejoin", "pg", node, "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("what is left of a run that serves does not keep the next failover from being done") {
  Cluster cluster;
  test::set_policy(cluster, "catchup_deadline", "\"1ms\"");
  cluster.kill("pg-a");
  const auto first = cluster.zx_json({"failover", "pg", "--to", "pg-b", "--yes"}, 4);
  CHECK(first["outcome"] == "partial");
  CHECK(first["promoted"] == "pg-b");
  CHECK(test::step_of(first, "repoint")["state"] == "failed");
  cluster.kill("pg-b");
  const auto second = cluster.zx_json(kFailover);
  CHECK(second["promoted"] == "pg-c");
  CHECK(run::read_run(cluster.state_dir(), first["run"])->outcome == "superseded");
  CHECK(cluster.writable() == only("pg-c"));
}

TEST_CASE("a rejoin that was not finished does not keep a failover from being done") {
  Cluster cluster;
  cluster.kill("pg-c");
  CHECK_FALSE(test::zx_killed_at(cluster, 4, {"rejoin", "pg", "pg-c", "--yes"}).ok());
  const auto run = test::newest_run(cluster).id;
  // Another planned move waits for it.
  CHECK(cluster.zx({"switchover", "pg", "--to", "pg-b", "--yes"}).exit == 3);
  cluster.kill("pg-a");
  CHECK(cluster.zx({"failover", "pg", "--dry-run"}).exit == 0);
  CHECK_FALSE(run::read_run(cluster.state_dir(), run)->outcome.has_value());
  CHECK(done(cluster, kFailover)["promoted"] == "pg-b");
  CHECK(run::read_run(cluster.state_dir(), run)->outcome == "superseded");
  for (const std::string node : {"pg-a", "pg-c"}) done(cluster, {"rejoin", "pg", node, "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a watch ends when nobody reads it any more") {
  Cluster cluster;
  const std::string zx = std::string(ZX_BINARY) + " -c " + cluster.config();
  const auto read = test::run_program(
      {"bash", "-c", zx + " status --watch --interval 100ms | head -n 1; echo ${PIPESTATUS[0]}"});
  CHECK_MESSAGE(test::lines_of(read.out).back() == "0", read.out);
}

TEST_CASE("a run that is done exits with 0, also when nobody can be told") {
  Cluster cluster;
  const std::string zx = std::string(ZX_BINARY) + " -c " + cluster.config();
  const auto told =
      test::run_program({"sh", "-c", zx + " switchover pg --to pg-b --yes > /dev/full; echo $?"});
  CHECK(told.out == "0\n");
  CHECK_MESSAGE(told.err.find("cannot write the result") != std::string::npos, told.err);
  CHECK(told.err.find("zx runs list") != std::string::npos);
  CHECK(cluster.writable() == only("pg-b"));
  // What only looks has failed when nothing can be seen of it.
  CHECK(test::run_program({"sh", "-c", zx + " status > /dev/full; echo $?"}).out == "1\n");
}

TEST_CASE("quiet prints what became of a run, verbose how it went") {
  Cluster cluster;
  const auto quiet = cluster.zx({"-q", "switchover", "pg", "--to", "pg-b", "--yes"});
  CHECK(quiet.exit == 0);
  CHECK(quiet.err.empty());
  REQUIRE(test::lines_of(quiet.out).size() == 1);
  CHECK(quiet.out.starts_with("Moved the primary from pg-a to pg-b"));
  const auto verbose = cluster.zx({"-v", "switchover", "pg", "--to", "pg-a", "--yes"});
  CHECK(verbose.exit == 0);
  CHECK_MESSAGE(verbose.err.find("configuration: " + cluster.config()) != std::string::npos,
                verbose.err);
  CHECK(verbose.err.find("promote: pg-a") != std::string::npos);
  CHECK(verbose.err.find("pg-stop-clean on ") == std::string::npos);
  const auto all = cluster.zx({"-vv", "status"});
  CHECK_MESSAGE(all.err.find("pg-b (127.0.0.1:") != std::string::npos, all.err);
}

}  // namespace
}  // namespace zx
