// A primary that lives and is reached by everybody but this machine: zx runs in a network namespace
// of its own, from which the way to the primary is taken away.
#include <unistd.h>

#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::Cluster;
using test::eventually;
using test::only;
using test::receivers;
using test::roles_on_disk;
using test::says;

os::ProcessResult ip(const std::string& words) {
  auto argv = split("/usr/sbin/ip " + words, ' ');
  return test::run_program(argv);
}

// A namespace on a wire: the servers' side has three addresses, the other is where zx is.
class Elsewhere {
 public:
  Elsewhere()
      : name_(fmt::format("zx-{}", getpid())), net_(fmt::format("10.213.{}", getpid() % 250)) {
    made_ = geteuid() == 0 && os::exists("/usr/sbin/ip") && ip("netns add " + name_).ok();
    if (!made_) return;
    made_ = ip(fmt::format("link add {0} type veth peer name wire netns {0}", name_)).ok();
    for (int i = 1; made_ && i <= 3; ++i)
      made_ = ip(fmt::format("addr add {}.{}/24 dev {}", net_, i, name_)).ok();
    made_ = made_ && ip(fmt::format("link set {} up", name_)).ok() &&
            inside(fmt::format("addr add {}.9/24 dev wire", net_)) && inside("link set wire up") &&
            inside("link set lo up");
  }
  ~Elsewhere() {
    if (geteuid() != 0 || !os::exists("/usr/sbin/ip")) return;
    (void)ip("link del " + name_);
    (void)ip("netns del " + name_);
  }
  Elsewhere(const Elsewhere&) = delete;
  Elsewhere& operator=(const Elsewhere&) = delete;

  [[nodiscard]] bool is_there() const { return made_; }
  [[nodiscard]] std::string address(int i) const { return fmt::format("{}.{}", net_, i); }
  [[nodiscard]] std::vector<std::string> addresses() const {
    return {address(1), address(2), address(3)};
  }
  [[nodiscard]] bool inside(const std::string& words) const {
    return ip("-n " + name_ + " " + words).ok();
  }
  // zx -c … WORDS… -o json, from there.
  Json zx(const Cluster& cluster, const std::vector<std::string>& words, int exit) const {
    os::Argv argv{"/usr/sbin/ip", "netns", "exec", name_, ZX_BINARY, "-c", cluster.config()};
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"-o", "json"});
    const auto result = test::run_program(argv);
    REQUIRE_MESSAGE(result.exit == exit, (result.out + result.err));
    return test::json_of(result);
  }

 private:
  std::string name_, net_;
  bool made_ = false;
};

// On the servers' side of the wire, as `ssh` would be.
void reach_hosts_from_there(const Cluster& cluster) {
  auto text = test::read(cluster.config());
  const auto remote = fmt::format(
      "remote = [\"/usr/bin/nsenter\", \"--net=/proc/{}/ns/net\", \"--\"]\nprogram = \"{}\"",
      getpid(), ZX_BINARY);
  for (auto at = text.find("remote = []"); at != std::string::npos; at = text.find("remote = []"))
    text.replace(at, 11, remote);
  test::write(cluster.config(), text);
}

TEST_CASE("a primary that only this machine does not reach is left alone") {
  const Elsewhere elsewhere;
  if (!elsewhere.is_there()) {
    MESSAGE("skipped: network namespaces need root");
    return;
  }
  const Cluster cluster(elsewhere.addresses());
  CHECK(elsewhere.zx(cluster, {"status"}, 0)["pg"]["verdict"] == "healthy");
  std::string words;
  bool is_idle = false;
  SUBCASE("no route, and the standbys hear from it") { words = "no route to the host"; }
  SUBCASE("no answer, and the standbys hear from it") { words = "no answer from the host"; }
  SUBCASE("no answer, and it is so idle that only another host can tell") {
    words = "no answer from the host";
    is_idle = true;
  }
  const auto primary = elsewhere.address(1);
  if (words == "no route to the host")
    REQUIRE(elsewhere.inside("route add unreachable " + primary));
  else  // packets go to a machine that is not there
    REQUIRE(elsewhere.inside("neigh replace " + primary +
                             " lladdr 02:00:00:00:00:01 nud permanent dev wire"));

  std::optional<test::Writer> writer;
  if (is_idle) {
    reach_hosts_from_there(cluster);
    const auto age =
        "SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time) > 3"
        " FROM pg_stat_wal_receiver";
    for (const char* node : {"pg-b", "pg-c"})
      REQUIRE(eventually([&] { return cluster.sql(node, age) == "t"; }));
  } else {
    writer.emplace(cluster);
  }
  const auto before = roles_on_disk(cluster);
  const auto held = receivers(cluster);
  if (!is_idle) {
    const auto status = elsewhere.zx(cluster, {"status"}, 0);
    CHECK(status["pg"]["verdict"] == "primary_unreachable");
    CHECK(status["pg"]["primary"] == "pg-a");
  }
  for (const auto& how : {std::vector<std::string>{"failover", "pg", "--yes"},
                          std::vector<std::string>{"failover", "pg", "--yes", "--assume-fenced",
                                                   "--allow-data-loss", "1GiB"}}) {
    const auto report = elsewhere.zx(cluster, how, 3);
    CHECK(report["outcome"] == "refused");
    CHECK(report["verdict"]["state"] == "primary_unreachable");
    CHECK(says(report["error"]["message"], "pg-a is alive"));
    CHECK(says(report["error"]["message"], words));
    CHECK(says(report["error"]["hint"], "mend the network"));
  }
  CHECK(roles_on_disk(cluster) == before);
  CHECK(receivers(cluster) == held);
  CHECK(cluster.writable() == only("pg-a"));
  if (writer) {
    const auto written = writer->finish();
    CHECK(written.errors == 0);
    CHECK(written.lost == 0);
  }
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a machine that reaches no server at all knows nothing") {
  const Elsewhere elsewhere;
  if (!elsewhere.is_there()) {
    MESSAGE("skipped: network namespaces need root");
    return;
  }
  const Cluster cluster(elsewhere.addresses());
  CHECK(elsewhere.zx(cluster, {"status"}, 0)["pg"]["verdict"] == "healthy");
  const auto before = roles_on_disk(cluster);
  const auto held = receivers(cluster);
  REQUIRE(elsewhere.inside("link set wire down"));
  const auto report = elsewhere.zx(cluster, {"failover", "pg", "--yes", "--assume-fenced"}, 3);
  CHECK(report["verdict"]["state"] == "unknown");
  CHECK(says(report["error"], "this host may be the one that is cut off"));
  CHECK(roles_on_disk(cluster) == before);
  CHECK(receivers(cluster) == held);
  CHECK(cluster.writable() == only("pg-a"));
}

}  // namespace
}  // namespace zx
