// zx killed in a switchover and in a rejoin, after every line of the journal.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::Writer;

std::string standby_of(const Cluster& cluster, const std::string& primary) {
  return test::others_than(cluster, primary).front();
}

// Ends the newest run, whatever it has come to.
void resume(const Cluster& cluster) {
  const auto run = test::newest_run(cluster);
  if (run.outcome) {  // killed after its last line
    CHECK(*run.outcome == "done");
    return;
  }
  const auto done = cluster.zx_json({"runs", "resume", run.id});
  CHECK_MESSAGE(done["outcome"] == "done", done.dump());
}

TEST_CASE("a switchover killed after any line of its journal is resumed, and nothing is lost") {
  Cluster cluster;
  Writer writer(cluster, 10);
  int lines = 0;
  bool tear = false;
  while (true) {
    const int line = tear ? lines : lines + 1;
    const auto from = test::the_primary(cluster);
    const auto to = standby_of(cluster, from);
    const auto timeline = test::timeline_of(cluster, from);
    const auto killed =
        test::zx_killed_at(cluster, line, {"switchover", "pg", "--to", to, "--yes"});
    const auto event = test::last_event(cluster);
    const auto where = fmt::format("line {}: {}", line, event);
    CAPTURE(where);
    CAPTURE(tear);
    if (tear) test::tear_last_line(cluster);
    if (killed.signal != 0) resume(cluster);
    CHECK(test::the_primary(cluster) == to);
    CHECK(test::timeline_of(cluster, to) == timeline + 1);
    REQUIRE(test::all_stream_from(cluster, to));
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      break;
    }
    lines = line;
    tear = !tear && test::tells_of_an_effect(event);
  }
  CHECK(lines >= 18);
  const auto report = writer.finish();
  CHECK(report.lost == 0);
  CHECK(report.acknowledged > 10);
}

TEST_CASE("a switchover killed before the promotion is taken back, after it never") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  Writer writer(cluster, 10);
  const auto from = test::the_primary(cluster);
  const auto to = standby_of(cluster, from);
  for (int line = 1;; ++line) {
    const auto killed =
        test::zx_killed_at(cluster, line, {"switchover", "pg", "--to", to, "--yes"});
    REQUIRE(killed.signal == SIGKILL);
    const auto run = test::newest_run(cluster);
    const auto where = fmt::format("line {}: {}", line, test::last_event(cluster));
    CAPTURE(where);
    if (run.no_return) {
      CHECK(cluster.zx({"runs", "abort", run.id}).exit == 3);
      resume(cluster);
      CHECK(test::the_primary(cluster) == to);
      CHECK(test::timeline_of(cluster, to) == 2);
      CHECK(test::all_stream_from(cluster, to));
      CHECK(line >= 8);
      break;
    }
    CHECK(cluster.zx_json({"runs", "abort", run.id})["outcome"] == "aborted");
    CHECK(test::the_primary(cluster) == from);
    CHECK(test::timeline_of(cluster, from) == 1);
    REQUIRE(test::all_stream_from(cluster, from));
  }
  CHECK(writer.finish().lost == 0);
}

TEST_CASE("a rejoin killed after any line of its journal is resumed") {
  Cluster cluster;
  const std::string primary = "pg-a", node = "pg-b";
  Writer writer(cluster, 10);
  int lines = 0;
  bool tear = false;
  while (true) {
    const int line = tear ? lines : lines + 1;
    test::diverge(cluster, node);
    const auto killed =
        test::zx_killed_at(cluster, line, {"rejoin", "pg", node, "--confirm", node});
    const auto event = test::last_event(cluster);
    const auto where = fmt::format("line {}: {}", line, event);
    CAPTURE(where);
    CAPTURE(tear);
    if (tear) test::tear_last_line(cluster);
    if (killed.signal != 0) resume(cluster);
    test::check_rejoined(cluster, primary, node);
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      break;
    }
    lines = line;
    tear = !tear && test::tells_of_an_effect(event);
  }
  CHECK(lines >= 13);
  CHECK(writer.finish().lost == 0);
}

}  // namespace
}  // namespace zx
