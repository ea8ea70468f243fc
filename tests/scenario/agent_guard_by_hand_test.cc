// A person fails over from a host that nobody reaches any more, by the lease of its guard.
#include "lib/ha/last_seen.h"
#include "tests/scenario/network_hosts.h"

namespace zx {
namespace {

using test::eventually;
using test::Hosts;
using test::Network;
using test::says;

TEST_CASE("a person's failover takes the lease of a silent host's guard as its proof") {
  const Network network;
  if (!network.is_there()) {
    MESSAGE("skipped: network namespaces need root");
    return;
  }
  const Hosts hosts(network);
  REQUIRE(hosts.becomes_whole());
  const auto& cluster = hosts.cluster();
  const auto zx = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {ZX_BINARY, "-c", cluster.config()});
    os::ProcessOptions options;
    options.environment = {{"HOME", "/nonexistent"}};
    return test::run_program(network.on("agent", words), options);
  };
  const auto paused = zx({"agent", "pause", "--for", "10m"});
  REQUIRE_MESSAGE(paused.ok(), paused.err);
  // Each keeper learns it at its next look at the shared record; until then it keeps the rule.
  REQUIRE(eventually([&] {
    const auto json = hosts.status();
    return !json.is_null() && !json["pg"][0]["pause"].is_null();
  }));
  // A quorum of synchronous standbys would be proof enough; an agent that does not pause keeps it.
  cluster.sql("pg-a", "ALTER SYSTEM RESET synchronous_standby_names");
  cluster.sql("pg-a", "SELECT pg_reload_conf()");
  REQUIRE(
      eventually([&] { return cluster.sql("pg-a", "SHOW synchronous_standby_names").empty(); }));
  // What was seen of its rule last counts once nobody sees it.
  REQUIRE(eventually([&] {
    const auto last = ha::read_last_seen(cluster.state_dir(), "main");
    return last && last->sync_names.empty();
  }));
  const auto witness = hosts.witness();
  const auto everybody = [&](void (Network::*change)(const std::string&, const std::string&)
                                 const) {
    for (const auto* other : {"pg-b", "pg-c", "agent", "etcd"}) {
      (network.*change)("pg-a", other);
      (network.*change)(other, "pg-a");
    }
  };
  everybody(&Network::cut);
  const auto result = zx({"failover", "pg", "--yes"});
  CHECK_MESSAGE(result.exit == 0, result.err);
  CHECK_MESSAGE(says(result.out, "its guard has stopped it"), result.out);
  std::string successor;
  REQUIRE(eventually([&] {
    successor = hosts.primary();
    return successor == "pg-b" || successor == "pg-c";
  }));
  CHECK(eventually([&] { return cluster.writable() == test::only(successor); }));
  everybody(&Network::mend);
  const auto resumed = zx({"agent", "resume"});
  REQUIRE_MESSAGE(resumed.ok(), resumed.err);
  // The agent takes the bar away, or its guard would stop it again.
  REQUIRE(eventually([&] {
    const auto json = hosts.status();
    return !json.is_null() && json["pg"][0]["verdict"] == "healthy" &&
           json["pg"][0]["owed"].empty();
  }));
  test::check_rejoined(cluster, successor, "pg-a");
  CHECK(test::timeline_of(cluster, successor) == 2);
  Hosts::check(*witness);
}

}  // namespace
}  // namespace zx
