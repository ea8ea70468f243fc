// Without etcd two runs with a state_dir each know nothing of each other: the servers keep them
// apart.
#include <future>

#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;

// The same cluster as another user has it, or another host without etcd.
std::string config_of_another(const Cluster& cluster) {
  const auto file = cluster.beside("another.toml");
  auto text = test::read(cluster.config());
  const auto at = text.find("\nstate_dir = ");
  REQUIRE(at != std::string::npos);
  const auto end = text.find('\n', at + 1);
  test::write(file, text.replace(at, end - at,
                                 "\nstate_dir = \"" + cluster.beside("another-state") + "\""));
  return file;
}

// Both have seen who the primary is.
std::string both_know(const Cluster& cluster) {
  auto another = config_of_another(cluster);
  CHECK(test::run_zx({"-c", another, "status"}).exit == 0);
  CHECK(cluster.zx({"status"}).exit == 0);
  return another;
}

struct Said {
  int exit = 0;
  std::string text;
};
Said fails_over(const std::string& config, const std::string& to) {
  const auto result = test::run_zx({"-c", config, "failover", "pg", "--yes", "--to", to});
  return {result.exit, result.out + result.err};
}

TEST_CASE("of two persons who fail over at once, to two nodes, one gets on") {
  Cluster cluster;
  const auto another = both_know(cluster);
  cluster.kill("pg-a");
  auto theirs = std::async(std::launch::async, [&] { return fails_over(another, "pg-c"); });
  const auto ours = fails_over(cluster.config(), "pg-b");
  const auto other = theirs.get();
  CAPTURE(ours.text);
  CAPTURE(other.text);
  // Who comes when the first is through finds a primary that is alive.
  CHECK((ours.exit == 0) != (other.exit == 0));
  const auto& second = ours.exit == 0 ? other : ours;
  CHECK((second.exit == 5 || second.exit == 3));
  if (second.exit == 5) CHECK(second.text.find("zx failover pg on ") != std::string::npos);
  CHECK(cluster.writable().size() == 1);
  CHECK(test::timeline_of(cluster, cluster.writable().front()) == 2);
}

TEST_CASE("a run that stands still is in nobody's way for long, and does nothing more") {
  Cluster cluster;
  const auto another = both_know(cluster);
  cluster.kill("pg-a");
  test::Halted zx(cluster, 4, {"failover", "pg", "--yes", "--to", "pg-b"});
  const auto locked = fails_over(another, "pg-c");
  CHECK(locked.exit == 5);
  CHECK_MESSAGE(locked.text.find("is at work") != std::string::npos, locked.text);
  CHECK(cluster.writable().empty());
  // The servers end its sessions.
  Said other;
  CHECK_MESSAGE(test::eventually([&] {
                  other = fails_over(another, "pg-c");
                  return other.exit == 0;
                }),
                other.text);
  zx.go_on();
  CHECK_MESSAGE(zx.finish() != 0, zx.output());
  CHECK_MESSAGE(zx.output().find("stood still") != std::string::npos, zx.output());
  CHECK(cluster.writable() == test::only("pg-c"));
}

}  // namespace
}  // namespace zx
