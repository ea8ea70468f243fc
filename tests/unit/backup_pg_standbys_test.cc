// Which server a dump comes from.
#include "lib/backup/pg_standbys.h"

#include <map>

#include <doctest/doctest.h>

#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr Lsn kWritten{1000 * kMiB};

// Nodes a, b, c of pg.main, and what their servers say.
struct Scene {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  std::map<std::string, Lsn> comes_to;  // what a standby has replayed once it was waited for
  std::vector<std::string> waited_for;

  explicit Scene(int nodes = 3) {
    cluster.name = "main";
    for (int i = 0; i < nodes; ++i) {
      config::PgNode node;
      node.name = std::string(1, static_cast<char>('a' + i));
      cluster.nodes.push_back(node);
      pg::NodeFacts facts;
      facts.name = facts.address = node.name;
      facts.port = 5432;
      facts.at = Wall(Millis(1000 + i));
      facts.failure = pg::Failure::none;
      facts.role = i == 0 ? pg::Role::primary : pg::Role::standby;
      if (i == 0) facts.written = kWritten;
      if (i > 0) {
        facts.replayed = kWritten;
        facts.receiver = pg::Receiver{};
        facts.receiver->status = "streaming";
        facts.receiver->sender_host = "a";
        facts.receiver->sender_port = 5432;
        facts.receiver->latest_end = kWritten;
      }
      snapshot.nodes.push_back(facts);
    }
  }
  pg::NodeFacts& at(char name) { return snapshot.nodes[static_cast<std::size_t>(name - 'a')]; }
  void lags(char name, std::uint64_t bytes, bool catches_up) {
    at(name).replayed = Lsn{kWritten.value - bytes};
    comes_to[std::string(1, name)] = catches_up ? kWritten : *at(name).replayed;
  }
  void is_away(char name) { at(name).failure = pg::Failure::no_answer; }
  Result<PgChosen> choose() {
    return choose_pg_source(cluster, snapshot, [&](const std::string& node, Lsn) -> Result<Lsn> {
      waited_for.push_back(node);
      if (comes_to.count(node) == 0) return fail(Code::unreachable, node + " is away");
      return comes_to.at(node);
    });
  }
  PgChosen chosen() {
    auto done = choose();
    REQUIRE_MESSAGE(done.has_value(), done.error().message);
    return *std::move(done);
  }
};

bool has(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

TEST_CASE("a standby that has all is taken, the one that is least wanted as a primary") {
  Scene scene;
  auto chosen = scene.chosen();
  CHECK(chosen.source.node == "b");
  CHECK(chosen.source.is_standby);
  CHECK(chosen.source.at == Wall(Millis(1000)));  // when the primary said how far it is
  CHECK(chosen.warnings.empty());
  CHECK(scene.waited_for.empty());
  scene.cluster.nodes[1].priority = 200;
  CHECK(scene.chosen().source.node == "c");
  scene.cluster.nodes[1].nofailover = true;
  CHECK(scene.chosen().source.node == "b");
}

TEST_CASE("a standby that catches up is taken without a word") {
  Scene scene;
  scene.lags('b', kMiB, true);
  const auto chosen = scene.chosen();
  CHECK(chosen.source.node == "b");
  CHECK(chosen.source.behind.empty());
  CHECK(chosen.warnings.empty());
  CHECK(scene.waited_for == std::vector<std::string>{"b"});
}

TEST_CASE("one that does not catch up is passed over, for another standby or the primary") {
  Scene scene;
  scene.lags('b', 3 * kMiB, false);
  auto chosen = scene.chosen();
  CHECK(chosen.source.node == "c");
  REQUIRE(chosen.warnings.size() == 1);
  CHECK(has(chosen.warnings[0], "main was taken from c: b is 3 MiB behind a"));
  CHECK(has(chosen.warnings[0], "does not catch up"));
  scene.lags('c', 1, false);
  chosen = scene.chosen();
  CHECK(chosen.source.node == "a");
  CHECK_FALSE(chosen.source.is_standby);
  CHECK_FALSE(chosen.source.at);
  REQUIRE(chosen.warnings.size() == 1);
  CHECK(has(chosen.warnings[0], "main was taken from the primary, a: b is 3 MiB behind a"));
  CHECK(has(chosen.warnings[0], "; c is 1 B behind a"));
}

TEST_CASE("one that is more than max_lag behind is not waited for") {
  Scene scene(2);
  scene.lags('b', 17 * kMiB, true);
  const auto chosen = scene.chosen();
  CHECK(chosen.source.node == "a");
  CHECK(scene.waited_for.empty());
  REQUIRE(chosen.warnings.size() == 1);
  CHECK(has(chosen.warnings[0], "b is 17 MiB behind a, more than max_lag 16 MiB"));
  scene.cluster.policy.max_lag = 20 * kMiB;
  CHECK(scene.chosen().source.node == "b");
}

TEST_CASE("one that cannot be asked is passed over") {
  Scene scene(2);
  scene.lags('b', 1, true);
  scene.comes_to.clear();
  const auto chosen = scene.chosen();
  CHECK(chosen.source.node == "a");
  REQUIRE(chosen.warnings.size() == 1);
  CHECK(has(chosen.warnings[0], "b is away"));
  scene.is_away('a');
  const auto none = scene.choose();
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().message == "b is away");
}

TEST_CASE("without a primary what the sender last said counts, and of those that lag the best") {
  Scene scene;
  scene.is_away('a');
  auto chosen = scene.chosen();
  CHECK(chosen.source.node == "b");
  CHECK(chosen.source.at == Wall(Millis(1001)));
  CHECK(chosen.warnings.empty());
  scene.lags('b', 300 * kMiB, false);
  scene.lags('c', 200 * kMiB, false);
  chosen = scene.chosen();
  CHECK(chosen.source.node == "c");
  CHECK(chosen.source.is_standby);
  CHECK(chosen.source.behind == "200 MiB behind what it was last sent by a");
  CHECK_FALSE(chosen.source.at);
}

TEST_CASE("standbys that do not stream, or whose replay is paused, are none") {
  Scene scene;
  scene.at('b').receiver.reset();
  scene.at('c').replay_paused = true;
  const auto chosen = scene.chosen();
  CHECK(chosen.source.node == "a");
  CHECK(chosen.source.why == "no standby streams");
  CHECK(chosen.warnings.empty());
  scene.is_away('a');
  const auto none = scene.choose();
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::unreachable);
  scene.at('a').failure = pg::Failure::auth;
  CHECK(scene.choose().error().code == Code::auth);
}

TEST_CASE("where two say that they are the primary, that is told") {
  Scene scene;
  scene.at('b').role = pg::Role::primary;
  scene.at('b').receiver.reset();
  scene.at('b').written = Lsn{5000 * kMiB};
  const auto chosen = scene.chosen();
  CHECK(chosen.source.node == "c");
  REQUIRE(chosen.warnings.size() == 1);
  CHECK(has(chosen.warnings[0], "a and b each say that they are the primary"));
  CHECK(has(chosen.warnings[0], "of c, which follows a"));
}

}  // namespace
}  // namespace zx::backup
