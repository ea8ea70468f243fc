// The turn of a cluster in real etcd: of all agents and persons one has it.
#include <doctest/doctest.h>

#include "lib/coord/etcd_coordinator.h"
#include "lib/coord/etcd_shared.h"
#include "lib/coord/guard_lease.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/eventually.h"

namespace zx::coord {
namespace {

using test::EtcdServers;
using test::eventually;

constexpr Millis kTtl{2'000};
constexpr const char* kKey = "/zx/test/turn/pg.main";

std::unique_ptr<Shared> person(const EtcdServers& etcd) {
  EtcdSharedOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.ttl = kTtl;
  auto made = etcd_shared(options);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  return *std::move(made);
}

std::unique_ptr<Coordinator> agent(const EtcdServers& etcd, const std::string& name) {
  EtcdCoordinatorOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.name = name;
  options.ttl = kTtl;
  auto made = etcd_coordinator(options);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  return *std::move(made);
}

bool leads(const std::unique_ptr<Coordinator>& one) {
  return eventually([&] { return one->standing().role == Standing::Role::leader; });
}

std::unique_ptr<Lease> take(Shared& shared, const std::string& command,
                            const std::string& name = "pg.main") {
  auto turn = shared.take_turn(name, command, false);
  REQUIRE_MESSAGE(turn.has_value(), test::why(turn));
  CHECK((*turn)->check().has_value());
  return *std::move(turn);
}

void check_locked(Shared& shared, const std::string& command) {
  const auto turn = shared.take_turn("pg.main", "zx runs resume", false);
  REQUIRE(!turn);
  CHECK(turn.error().code == Code::locked);
  CHECK_MESSAGE(turn.error().message.find(command + " on host ") == 0, turn.error().message);
  CHECK(shared.is_turn_free("pg.main").error().message == turn.error().message);
}

Json in_etcd(const EtcdServers& etcd, const std::string& key) {
  return etcd.call("kv/range", {{"key", to_base64(key)}});
}

TEST_CASE("one person has the turn of a cluster, and gives it back at its end") {
  const EtcdServers etcd;
  const auto one = person(etcd), two = person(etcd);
  CHECK(one->is_turn_free("pg.main").has_value());
  auto turn = take(*one, "zx failover pg");
  check_locked(*two, "zx failover pg");
  check_locked(*one, "zx failover pg");
  const auto other = take(*two, "zx failover pg", "pg.other");
  // For longer than it would last without being kept.
  const auto until = Deadline::after(kTtl + Millis(1'500));
  CHECK(eventually([&] {
    REQUIRE(turn->check().has_value());
    return until.passed();
  }));
  turn.reset();
  CHECK(two->is_turn_free("pg.main").has_value());
  turn = take(*two, "zx switchover pg");
  check_locked(*one, "zx switchover pg");
}

TEST_CASE("a leading agent has the turn or a person has it; one that does not lead never") {
  const EtcdServers etcd;
  const auto first = agent(etcd, "first");
  REQUIRE(leads(first));
  const auto second = agent(etcd, "second");
  REQUIRE(eventually([&] { return second->standing().role == Standing::Role::follower; }));
  const auto somebody = person(etcd);
  auto turn = take(*first, "zx failover pg (agent)");
  check_locked(*somebody, "zx failover pg (agent)");
  CHECK(second->take_turn("pg.main", "zx failover pg (agent)", true).error().code == Code::locked);
  // It is on the lease that the agent has already.
  const auto key = in_etcd(etcd, kKey)["kvs"][0];
  CHECK(key["lease"] == in_etcd(etcd, "/zx/test/leader")["kvs"][0]["lease"]);
  turn.reset();
  turn = take(*somebody, "zx failover pg");
  check_locked(*first, "zx failover pg");
  turn.reset();
  turn = take(*first, "zx rejoin pg (agent)");
}

TEST_CASE("whoever has the turn hears that it is wanted, if that was said since he took it") {
  const EtcdServers etcd;
  const auto one = person(etcd), two = person(etcd);
  const auto leading = agent(etcd, "first");
  REQUIRE(leads(leading));
  auto turn = take(*one, "zx rejoin pg");
  const auto stays_unwanted = [&] {
    const auto until = Deadline::after(Millis(1'200));
    REQUIRE(eventually([&] { return turn->is_wanted() || until.passed(); }));
    return !turn->is_wanted();
  };
  check_locked(*two, "zx rejoin pg");
  CHECK(stays_unwanted());
  SUBCASE("by a person") {
    CHECK(two->take_turn("pg.main", "zx failover pg", true).error().code == Code::locked);
  }
  SUBCASE("by an agent") {
    CHECK(leading->take_turn("pg.main", "zx failover pg (agent)", true).error().code ==
          Code::locked);
  }
  CHECK(eventually([&] { return turn->is_wanted(); }));
  turn.reset();
  turn = take(*one, "zx rejoin pg");
  CHECK(stays_unwanted());
}

TEST_CASE("a turn that was taken away is lost for good, and not given back twice") {
  const EtcdServers etcd;
  const auto one = person(etcd), two = person(etcd);
  const auto leading = agent(etcd, "first");
  REQUIRE(leads(leading));
  bool by_agent = false;
  SUBCASE("of a person") {}
  SUBCASE("of an agent") { by_agent = true; }
  auto turn = take(by_agent ? *static_cast<Shared*>(leading.get()) : *one, "zx failover pg");
  etcd.call("kv/deleterange", {{"key", to_base64(kKey)}});
  const auto now = take(*two, "zx switchover pg");
  CHECK(turn->check().error().code == Code::refused);
  CHECK(turn->check().error().code == Code::refused);
  turn.reset();
  CHECK(now->check().has_value());
  check_locked(*one, "zx switchover pg");
}

TEST_CASE("a turn whose time ran out while etcd was silent is not taken again unasked") {
  EtcdServers etcd;
  const auto one = person(etcd), two = person(etcd);
  auto turn = take(*one, "zx failover pg");
  etcd.pause(0);
  REQUIRE(eventually([&] {
    const auto checked = turn->check();
    return !checked && checked.error().code == Code::refused;
  }));
  etcd.go_on(0);
  REQUIRE(eventually([&] { return two->is_turn_free("pg.main").has_value(); }));
  CHECK(turn->check().error().code == Code::refused);
  const auto other = take(*two, "zx switchover pg");
  CHECK(turn->check().error().code == Code::refused);
  turn.reset();
  CHECK(other->check().has_value());
}

TEST_CASE("a turn that an agent could not give back is in nobody's way while the agent lives") {
  EtcdServers etcd;
  const auto leading = agent(etcd, "first");
  REQUIRE(leads(leading));
  const auto somebody = person(etcd);
  auto turn = take(*leading, "zx failover pg (agent)");
  etcd.kill(0);
  turn.reset();
  etcd.start(0);
  REQUIRE(etcd.becomes_healthy(0));
  REQUIRE(eventually([&] { return somebody->is_turn_free("pg.main").has_value(); }));
  REQUIRE(leads(leading));
  turn = take(*leading, "zx rejoin pg (agent)");
  const auto until = Deadline::after(Millis(1'000));
  CHECK(eventually([&] {
    REQUIRE(turn->check().has_value());
    return until.passed();
  }));
}

TEST_CASE("without etcd a person hears how to go on, and nothing is taken") {
  EtcdServers etcd;
  const auto one = person(etcd);
  etcd.kill(0);
  const auto turn = one->take_turn("pg.main", "zx failover pg", true);
  REQUIRE(!turn);
  CHECK(turn.error().code == Code::unreachable);
  CHECK(turn.error().hint.find("--assume-alone") != std::string::npos);
  CHECK(one->is_turn_free("pg.main").error().code == Code::unreachable);
}

TEST_CASE("a person may bar a guard that fell silent, while the turn is his") {
  const EtcdServers etcd;
  const auto somebody = person(etcd);
  GuardOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.node = "pg-a";
  options.owner = "host-a";
  options.ttl = kTtl;
  auto made = GuardLease::start(options);
  REQUIRE(made.has_value());
  auto guard = *std::move(made);
  REQUIRE(eventually([&] { return guard->is_held(); }));
  const auto kind = [&] {
    const auto state = somebody->guard("pg-a");
    REQUIRE_MESSAGE(state.has_value(), test::why(state));
    return state->kind;
  };
  auto turn = take(*somebody, "zx failover pg");
  CHECK(somebody->bar("pg-a").error().code == Code::refused);  // it is held
  guard.reset();
  REQUIRE(eventually([&] { return kind() == GuardState::Kind::run_out; }));
  SUBCASE("his turn has gone") {
    etcd.call("kv/deleterange", {{"key", to_base64(kKey)}});
    CHECK(somebody->bar("pg-a").error().code == Code::refused);
    turn.reset();
    CHECK(somebody->bar("pg-a").error().code == Code::refused);
    CHECK_FALSE(somebody->guard("pg-a")->barred);
  }
  SUBCASE("it is his") {
    REQUIRE(somebody->bar("pg-a").has_value());
    CHECK(eventually([&] { return somebody->guard("pg-a")->is_proof(); }));
  }
}

}  // namespace
}  // namespace zx::coord
