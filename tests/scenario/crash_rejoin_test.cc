// zx killed in a rejoin before every change that it makes to a file and every program that it runs.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;

TEST_CASE("a rejoin killed before any change to a file is resumed, or its directory is made anew") {
  Cluster cluster;
  const std::string primary = "pg-a", node = "pg-b";
  const std::vector<std::string> rejoin{"rejoin", "pg", node, "--confirm", node};
  int kills = 0, rebuilt = 0;
  // fork: before every tool and server; each system call has a count of its own.
  for (const std::string call : {"rename", "unlink", "clone"}) {
    for (int number = 1;; ++number) {
      CAPTURE(call);
      CAPTURE(number);
      test::diverge(cluster, node);
      const auto killed =
          test::zx_under(cluster, fmt::format("{}:signal=SIGKILL:when={}", call, number), rejoin);
      if (killed.signal != 0) {
        ++kills;
        CHECK(cluster.writable() == std::vector<std::string>{primary});
        const auto runs = run::list_runs(cluster.state_dir(), 1)->runs;
        const bool is_open = !runs.empty() && !runs.front().outcome;
        const auto ended = is_open ? cluster.zx({"runs", "resume"}) : cluster.zx(rejoin);
        if (ended.exit != 0) {
          // Only a rewind that was cut short cannot be resumed, and that is said.
          CHECK_MESSAGE(ended.exit == 1, (ended.out + ended.err));
          CHECK_MESSAGE(ended.err.find("--rebuild --confirm " + node) != std::string::npos,
                        ended.err);
          const auto done = cluster.zx_json({"rejoin", "pg", node, "--rebuild", "--confirm", node});
          CHECK_MESSAGE(done["outcome"] == "done", done.dump());
          ++rebuilt;
        }
      }
      test::check_rejoined(cluster, primary, node);
      if (killed.signal != 0) continue;
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      break;
    }
  }
  CHECK(kills >= 12);
  CHECK(rebuilt >= 2);
  CHECK(rebuilt < kills);
}

TEST_CASE(
    "a rebuild killed before any change to a file is finished or taken back, never in between") {
  Cluster cluster;
  const auto dir = test::data_dir(cluster, "pg-c");
  const std::vector<std::string> rebuild{"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"};
  int kills = 0, resumed = 0, taken_back = 0;
  for (const std::string call : {"rename", "unlink"}) {
    for (int number = 1;; ++number) {
      CAPTURE(call);
      CAPTURE(number);
      test::write(dir + "/mine", "kept");
      const auto killed =
          test::zx_under(cluster, fmt::format("{}:signal=SIGKILL:when={}", call, number), rebuild);
      const auto runs = run::list_runs(cluster.state_dir(), 1)->runs;
      if (killed.signal != 0 && !runs.empty() && !runs.front().outcome) {
        ++kills;
        if (number % 2 == 0) {
          const auto aborted = cluster.zx_json({"runs", "abort"});
          CHECK_MESSAGE(aborted["outcome"] == "aborted", aborted.dump());
          // Its own directory, unless the run was at its end and the copy is all there is.
          if (os::exists(dir + "/mine")) ++taken_back;
        } else {
          CHECK(cluster.zx_json({"runs", "resume"})["outcome"] == "done");
          CHECK_FALSE(os::exists(dir + "/mine"));
          ++resumed;
        }
      }
      CHECK(test::all_stream_from(cluster, "pg-a"));
      CHECK_FALSE(os::exists(dir + ".zx-new"));
      CHECK_FALSE(os::exists(dir + ".zx-old"));
      CHECK_FALSE(os::exists(dir + "/zx-rebuilt"));
      if (killed.signal != 0) continue;
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      break;
    }
  }
  CHECK(kills >= 8);
  CHECK(resumed >= 3);
  CHECK(taken_back >= 2);
}

}  // namespace
}  // namespace zx
