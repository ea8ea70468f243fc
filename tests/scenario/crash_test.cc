// zx killed after every line of a failover's journal: resume finishes the run, abort takes it back.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::Ledger;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

// From three healthy nodes to a dead primary.
struct Before {
  std::string primary;
  int timeline = 0;
};
Before begin_round(const Cluster& cluster, Ledger& ledger) {
  Before before;
  before.primary = test::the_primary(cluster);
  REQUIRE(test::all_stream_from(cluster, before.primary));
  before.timeline = test::timeline_of(cluster, before.primary);
  ledger.commit(before.primary);
  cluster.kill(before.primary);
  return before;
}

// One new primary, promoted once, with every acknowledged commit; then three healthy nodes again.
void check_failed_over(const Cluster& cluster, const Ledger& ledger, const Before& before) {
  const auto now = test::the_primary(cluster);
  CHECK(now != before.primary);
  CHECK(test::timeline_of(cluster, now) == before.timeline + 1);
  CHECK(ledger.complete(now));
  CHECK(cluster.zx_json({"rejoin", "pg", before.primary, "--yes"})["outcome"] == "done");
  REQUIRE(test::all_stream_from(cluster, now));
}

void resume(const Cluster& cluster) {
  const auto run = test::newest_run(cluster);
  if (run.outcome) {  // killed after its last line
    CHECK(*run.outcome == "done");
    cluster.zx_json({"runs", "resume", run.id}, 3);
    return;
  }
  const auto done = cluster.zx_json({"runs", "resume", run.id});
  CHECK(done["outcome"] == "done");
  CHECK(done["run"] == run.id);
  CHECK(test::newest_run(cluster).outcome == "done");
}

TEST_CASE("a failover killed after any line of its journal is resumed and promotes once") {
  Cluster cluster;
  Ledger ledger(cluster);
  int lines = 0, torn = 0;
  bool tear = false;
  while (true) {
    const int line = tear ? lines : lines + 1;
    const auto before = begin_round(cluster, ledger);
    const auto killed = test::zx_killed_at(cluster, line, kFailover);
    const auto event = test::last_event(cluster);
    const auto where = fmt::format("line {}: {}", line, event);
    CAPTURE(where);
    CAPTURE(tear);
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      check_failed_over(cluster, ledger, before);
      break;
    }
    REQUIRE(killed.signal == SIGKILL);
    CHECK(std::ssize(test::journal(cluster, test::newest_run(cluster).id)) == line);
    if (tear) test::tear_last_line(cluster);
    if (auto open = test::newest_run(cluster); !open.outcome) {
      // Nothing else may begin before it is finished, except the next failover once the cluster
      // serves again; this one is not called for.
      const bool serves = open.steps["check"].state == run::StepState::done;
      const auto other = cluster.zx_json(kFailover, 3);
      const std::string way_out = serves ? "zx switchover pg" : "zx runs resume";
      CHECK_MESSAGE(get_string(other["error"], "hint").find(way_out) != std::string::npos,
                    other.dump());
      CHECK_FALSE(test::newest_run(cluster).outcome.has_value());
    }
    resume(cluster);
    check_failed_over(cluster, ledger, before);
    // A line that tells of an effect is also lost once: it was done, and nobody knows.
    lines = line;
    tear = !tear && test::tells_of_an_effect(event);
    torn += tear ? 1 : 0;
  }
  CHECK(lines >= 15);
  CHECK(torn >= 8);
}

TEST_CASE("a resume that is killed again and again comes to its end") {
  Cluster cluster;
  Ledger ledger(cluster);
  for (const int line : {2, 3}) {
    CAPTURE(line);
    const auto before = begin_round(cluster, ledger);
    REQUIRE(test::zx_killed_at(cluster, 1, kFailover).signal == SIGKILL);
    int kills = 0;
    while (true) {
      const auto resumed = test::zx_killed_at(cluster, line, {"runs", "resume"});
      if (resumed.signal == 0) {
        CHECK_MESSAGE((resumed.exit == 0 || test::newest_run(cluster).outcome == "done"),
                      (resumed.out + resumed.err));
        break;
      }
      REQUIRE(++kills < 30);
    }
    CHECK(kills >= 3);
    CHECK(test::newest_run(cluster).outcome == "done");
    check_failed_over(cluster, ledger, before);
  }
}

TEST_CASE("a failover killed before the promotion is taken back whole, after it never") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  Ledger ledger(cluster);
  for (int line = 1;; ++line) {
    const auto before = begin_round(cluster, ledger);
    REQUIRE(test::zx_killed_at(cluster, line, kFailover).signal == SIGKILL);
    const auto run = test::newest_run(cluster);
    const auto where = fmt::format("line {}: {}", line, test::last_event(cluster));
    CAPTURE(where);
    if (run.no_return) {
      const auto refused = cluster.zx({"runs", "abort", run.id});
      CHECK(refused.exit == 3);
      CHECK_MESSAGE(refused.err.find("zx runs resume " + run.id) != std::string::npos, refused.err);
      resume(cluster);
      check_failed_over(cluster, ledger, before);
      CHECK(line >= 9);
      break;
    }
    // Taking back is itself cut short, wherever it has anything to do.
    if (test::zx_killed_at(cluster, 1 + line % 2, {"runs", "abort"}).signal != 0)
      CHECK(!test::newest_run(cluster).outcome);
    if (!test::newest_run(cluster).outcome)
      CHECK(cluster.zx_json({"runs", "abort", run.id})["outcome"] == "aborted");
    CHECK(test::newest_run(cluster).outcome == "aborted");
    CHECK(cluster.writable().empty());
    CHECK(cluster.start(before.primary));
    CHECK(cluster.writable() == std::vector<std::string>{before.primary});
    CHECK(test::all_stream_from(cluster, before.primary));
    CHECK(test::timeline_of(cluster, before.primary) == before.timeline);
    CHECK(ledger.complete(before.primary));
  }
}

TEST_CASE("a frozen primary that was fenced runs again when the failover is taken back") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  const auto primary = test::the_primary(cluster);
  for (int line = 7; line <= 9; ++line) {
    cluster.kill(primary, SIGSTOP);
    REQUIRE(test::zx_killed_at(cluster, line, kFailover).signal == SIGKILL);
    const auto where = fmt::format("line {}: {}", line, test::last_event(cluster));
    CAPTURE(where);
    REQUIRE(!test::newest_run(cluster).no_return);
    CHECK(cluster.zx_json({"runs", "abort"})["outcome"] == "aborted");
    cluster.kill(primary, SIGCONT);
    CHECK(
        test::eventually([&] { return cluster.writable() == std::vector<std::string>{primary}; }));
    CHECK(test::all_stream_from(cluster, primary));
    CHECK(test::timeline_of(cluster, primary) == 1);
  }
}

}  // namespace
}  // namespace zx
