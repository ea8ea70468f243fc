// Agents of several hosts and real etcd while the network between two of the hosts is cut, one way
// and both ways. Clients reach every server all the time.
#include "tests/scenario/network_hosts.h"

namespace zx {
namespace {

using test::eventually;
using test::Hosts;
using test::Network;
using test::says;

// Longer than silence counts, and three of them longer than a lease.
constexpr Millis kCut{1'200};

struct Cut {
  std::string left, right;
  // What somebody says of it while nothing passes.
  std::function<bool()> is_noticed;
};

// Nothing changes, neither while packets are lost one way, nor both ways, nor the other way.
void check(const Network& network, const Hosts& hosts, const Cut& cut) {
  CAPTURE(cut.left);
  CAPTURE(cut.right);
  const auto& cluster = hosts.cluster();
  const auto witness = hosts.witness();
  const auto writer = hosts.writer();
  const auto is_served = [&] {
    const auto until = Deadline::after(kCut);
    while (!until.passed())
      if (cluster.writable() != test::only("pg-a")) return false;
    return true;
  };
  network.cut(cut.left, cut.right);
  CHECK(is_served());
  network.cut(cut.right, cut.left);
  CHECK(is_served());
  CHECK(eventually(cut.is_noticed));
  network.mend(cut.left, cut.right);
  CHECK(is_served());
  network.mend(cut.right, cut.left);
  CHECK(hosts.becomes_whole());
  const auto written = writer->finish();
  CHECK(written.errors == 0);
  CHECK(written.lost == 0);
  Hosts::check(*witness);
  CHECK(hosts.primary() == "pg-a");
  CHECK(test::timeline_of(cluster, "pg-a") == 1);
  CHECK(test::failovers(cluster).empty());
}

TEST_CASE("a cut between two hosts changes nothing, and is over when it is mended") {
  const Network network;
  if (!network.is_there()) {
    MESSAGE("skipped: network namespaces need root");
    return;
  }
  const Hosts hosts(network);
  REQUIRE(hosts.becomes_whole());
  const auto agent_says = [&](const std::string& host, const std::string& words) {
    return [&hosts, host, words] { return says(hosts.status(host), words); };
  };
  check(network, hosts, {"agent", "pg-a", agent_says("agent", "primary_unreachable")});
  check(network, hosts, {"agent", "pg-b", agent_says("agent", "no_answer")});
  check(network, hosts, {"agent", "etcd", agent_says("agent", "\"cut_off\"")});
  check(network, hosts, {"pg-a", "pg-b", [&] {
                           return hosts.cluster().sql(
                                      "pg-a",
                                      "SELECT clock_timestamp() - reply_time > '500ms' FROM "
                                      "pg_stat_replication WHERE application_name = 'pg-b'") == "t";
                         }});
  check(network, hosts, {"pg-a", "etcd", agent_says("pg-a", "no lease, and")});
  check(network, hosts, {"pg-b", "etcd", agent_says("pg-b", "\"cut_off\"")});
}

}  // namespace
}  // namespace zx
