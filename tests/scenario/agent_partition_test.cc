// A primary that every other host has lost for 43 s, as in the outage of GitHub in October 2018,
// while clients still reach it.
#include "tests/scenario/network_hosts.h"

namespace zx {
namespace {

using test::eventually;
using test::Hosts;
using test::Network;

constexpr Millis kPartition{43'000};

TEST_CASE("a primary cut off for 43 s has one successor, and follows it afterwards") {
  const Network network;
  if (!network.is_there()) {
    MESSAGE("skipped: network namespaces need root");
    return;
  }
  const Hosts hosts(network);
  REQUIRE(hosts.becomes_whole());
  const auto& cluster = hosts.cluster();
  const auto witness = hosts.witness();
  const auto writer = hosts.writer();
  const auto everybody = [&](void (Network::*change)(const std::string&, const std::string&)
                                 const) {
    for (const auto* other : {"pg-b", "pg-c", "agent", "etcd"}) {
      (network.*change)("pg-a", other);
      (network.*change)(other, "pg-a");
    }
  };
  everybody(&Network::cut);
  const auto until = Deadline::after(kPartition);
  std::string successor;
  REQUIRE(eventually([&] {
    successor = hosts.primary();
    return !successor.empty() && successor != "pg-a";
  }));
  CHECK_FALSE(until.passed());
  REQUIRE(eventually([&] { return cluster.writable() == test::only(successor); }));
  while (!until.passed()) {
    REQUIRE(cluster.writable() == test::only(successor));
    pause_for(Millis(100));
  }
  CHECK(test::failovers(cluster).size() == 1);
  everybody(&Network::mend);
  REQUIRE_MESSAGE(hosts.becomes_whole(), hosts.status().dump());
  CHECK(hosts.primary() == successor);
  test::check_rejoined(cluster, successor, "pg-a");
  CHECK(test::timeline_of(cluster, successor) == 2);
  CHECK(test::failovers(cluster).size() == 1);
  const auto written = writer->finish();
  CHECK(written.acknowledged > 100);
  CHECK(written.lost == 0);
  Hosts::check(*witness);
}

}  // namespace
}  // namespace zx
