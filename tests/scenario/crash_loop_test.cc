// Two failovers together, one of them killed at a random moment, again and again.
#include <random>

#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Background;
using test::Cluster;

unsigned long number_in(const char* variable, unsigned long otherwise) {
  const char* text = getenv(variable);
  return text == nullptr || *text == '\0' ? otherwise : std::stoul(text);
}

// ZX_CRASH_LOOPS: how often. ZX_CRASH_SEED: the seed that an earlier run printed; the moments are
// the same again, what the machine makes of them is not.
TEST_CASE("two failovers together and one killed at a random moment always converge") {
  const auto loops = number_in("ZX_CRASH_LOOPS", 3);
  const auto seed = number_in("ZX_CRASH_SEED", std::random_device{}());
  const auto said_seed = fmt::format("ZX_CRASH_SEED={}", seed);
  MESSAGE(said_seed);
  CAPTURE(said_seed);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int> moment(0, 350), which(0, 1);

  Cluster cluster;
  test::Ledger ledger(cluster);
  test::Sampler sampler(cluster);
  unsigned long killed = 0, resumed = 0;
  for (unsigned long loop = 1; loop <= loops; ++loop) {
    CAPTURE(loop);
    const auto primary = test::the_primary(cluster);
    const auto timeline = test::timeline_of(cluster, primary);
    ledger.commit(primary);
    cluster.kill(primary);
    const auto argv = test::argv_of(cluster, {"failover", "pg", "--yes"});
    std::array<Background, 2> both{Background(argv, {"HOME=/nonexistent"}),
                                   Background(argv, {"HOME=/nonexistent"})};
    const auto victim = static_cast<std::size_t>(which(random));
    pause_for(Millis(moment(random)));
    both[victim].signal(SIGKILL);
    killed += both[victim].finish() == -SIGKILL ? 1 : 0;
    const int other = both[1 - victim].finish();
    const auto said = both[1 - victim].output();
    CAPTURE(said);
    CHECK((other == 0 || other == 3 || other == 5));

    const auto newest = run::list_runs(cluster.state_dir(), 1)->runs;
    if (!newest.empty() && !newest.front().outcome) {
      test::done(cluster, {"runs", "resume"});
      ++resumed;
    }
    // Killed before it had begun anything, when the other had given up already.
    if (cluster.writable().empty()) test::done(cluster, {"failover", "pg", "--yes"});
    const auto now = test::the_primary(cluster);
    CHECK(now != primary);
    CHECK(test::timeline_of(cluster, now) == timeline + 1);
    CHECK(ledger.complete(now));
    test::done(cluster, {"rejoin", "pg", primary, "--yes"});
    REQUIRE(test::all_stream_from(cluster, now));
  }
  CHECK(sampler.finish().empty());
  const auto summary =
      fmt::format("{} loops, {} killed before their end, {} resumed", loops, killed, resumed);
  MESSAGE(summary);
}

}  // namespace
}  // namespace zx
