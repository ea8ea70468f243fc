// Two zx at once, and a zx that is asked to stop.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Background;
using test::Cluster;
using test::Halted;
using test::Ledger;
using test::says;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

TEST_CASE("of two failovers started together one works, and the other says so") {
  Cluster cluster;
  Ledger ledger(cluster);
  for (int round = 0; round < 5; ++round) {
    CAPTURE(round);
    const auto primary = test::the_primary(cluster);
    const auto timeline = test::timeline_of(cluster, primary);
    const auto runs = run::list_runs(cluster.state_dir(), 1000)->runs.size();
    ledger.commit(primary);
    test::Sampler sampler(cluster);
    cluster.kill(primary);
    const auto argv = test::argv_of(cluster, kFailover);
    Background one(argv, {"HOME=/nonexistent"}), two(argv, {"HOME=/nonexistent"});
    const int first = one.finish(), second = two.finish();
    const auto said = one.output() + two.output();
    CAPTURE(said);
    CHECK(std::min(first, second) == 0);
    // 3: it came when the other had finished.
    CHECK((std::max(first, second) == 5 || std::max(first, second) == 3));
    CHECK(run::list_runs(cluster.state_dir(), 1000)->runs.size() == runs + 1);
    CHECK(test::newest_run(cluster).outcome == "done");
    const auto now = test::the_primary(cluster);
    CHECK(now != primary);
    CHECK(test::timeline_of(cluster, now) == timeline + 1);
    CHECK(ledger.complete(now));
    test::done(cluster, {"rejoin", "pg", primary, "--yes"});
    CHECK(sampler.finish().empty());
    REQUIRE(test::all_stream_from(cluster, now));
  }
}

TEST_CASE("while a run is going on, nothing else changes the cluster") {
  Cluster cluster;
  cluster.kill("pg-a");
  Halted zx(cluster, 5, kFailover);
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"runs", "resume", zx.run().id},
        {"runs", "abort", zx.run().id},
        {"runs", "abort", zx.run().id, "--as-is"},
        kFailover,
        {"failover", "pg", "--dry-run"},
        {"switchover", "pg", "--to", "pg-b", "--yes"},
        {"rejoin", "pg", "pg-a", "--yes"}}) {
    const auto result = cluster.zx(words);
    CHECK_MESSAGE(result.exit == 5, (join(words, " ") + "\n" + result.out + result.err));
    CHECK_MESSAGE(result.err.find("failover pg") != std::string::npos, result.err);
  }
  // Who only looks is not kept out.
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["is_at_work"] == true);
  CHECK(says(status["pg"]["next"], "runs show " + zx.run().id));
  CHECK(cluster.zx_json({"runs", "show", zx.run().id})["at_work"] == true);
  CHECK(cluster.zx({"runs", "list"}).exit == 0);
  zx.go_on();
  CHECK_MESSAGE(zx.finish() == 0, zx.output());
  CHECK(cluster.zx({"runs", "resume", zx.run().id}).exit == 3);
  CHECK(cluster.writable().size() == 1);
}

TEST_CASE("a signal before the promotion takes everything back, one after it changes nothing") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  Ledger ledger(cluster);
  struct Given {
    const char* name;
    int exit;
  };
  for (const auto& given : {Given{"SIGINT", 130}, Given{"SIGTERM", 143}}) {
    CAPTURE(given.name);
    for (int line = 1; line <= 10; line += 1 + (given.exit == 143)) {
      CAPTURE(line);
      const auto primary = test::the_primary(cluster);
      REQUIRE(test::all_stream_from(cluster, primary));
      const auto timeline = test::timeline_of(cluster, primary);
      ledger.commit(primary);
      cluster.kill(primary);
      const auto zx = test::zx_under(
          cluster, fmt::format("fdatasync:signal={}:when={}", given.name, line), kFailover);
      CHECK_MESSAGE(zx.exit == given.exit, (zx.out + zx.err));
      CHECK(test::newest_run(cluster).outcome == "failed");
      CHECK(cluster.writable().empty());
      CHECK(cluster.start(primary));
      CHECK(test::the_primary(cluster) == primary);
      CHECK(test::timeline_of(cluster, primary) == timeline);
      CHECK(test::all_stream_from(cluster, primary));
    }
    for (const int line : {12, 16}) {
      CAPTURE(line);
      const auto primary = test::the_primary(cluster);
      const auto timeline = test::timeline_of(cluster, primary);
      ledger.commit(primary);
      cluster.kill(primary);
      const auto zx = test::zx_under(
          cluster, fmt::format("fdatasync:signal={}:when={}", given.name, line), kFailover);
      CHECK_MESSAGE(zx.exit == 0, (zx.out + zx.err));
      const auto now = test::the_primary(cluster);
      CHECK(test::timeline_of(cluster, now) == timeline + 1);
      CHECK(ledger.complete(now));
      test::done(cluster, {"rejoin", "pg", primary, "--yes"});
      REQUIRE(test::all_stream_from(cluster, now));
    }
  }
}

TEST_CASE("a signal in a switchover brings the old primary back under its clients") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  test::Writer writer(cluster, 10);
  for (const int line : {1, 3, 4, 5, 6}) {
    CAPTURE(line);
    REQUIRE(test::all_stream_from(cluster, "pg-a"));
    const auto zx = test::zx_under(cluster, fmt::format("fdatasync:signal=SIGTERM:when={}", line),
                                   {"switchover", "pg", "--to", "pg-b", "--yes"});
    CHECK_MESSAGE(zx.exit == 143, (zx.out + zx.err));
    CHECK(test::newest_run(cluster).outcome == "failed");
    CHECK(cluster.writable() == test::only("pg-a"));
    CHECK(test::timeline_of(cluster, "pg-a") == 1);
  }
  CHECK(writer.finish().lost == 0);
}

}  // namespace
}  // namespace zx
