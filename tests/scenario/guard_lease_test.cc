// The lease of a database host's guard on real etcd, seen from both sides.
#include "lib/coord/guard_lease.h"

#include <doctest/doctest.h>

#include <utility>

#include "lib/coord/etcd_coordinator.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/eventually.h"

namespace zx::coord {
namespace {

using Kind = GuardState::Kind;
using test::EtcdServers;
using test::eventually;

constexpr Millis kTtl{2'000};

std::unique_ptr<GuardLease> guard(const EtcdOptions& etcd, const std::string& owner = "host-a") {
  GuardOptions options;
  options.etcd = etcd;
  options.prefix = "/zx/test/";
  options.node = "pg-a";
  options.owner = owner;
  options.ttl = kTtl;
  options.stop_margin = Millis(700);
  auto made = GuardLease::start(options);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  return *std::move(made);
}

std::unique_ptr<GuardLease> guard(const EtcdServers& etcd, const std::string& owner = "host-a") {
  return guard(etcd.options(), owner);
}

std::unique_ptr<Coordinator> leader(const EtcdOptions& etcd) {
  EtcdCoordinatorOptions options;
  options.etcd = etcd;
  options.prefix = "/zx/test";
  options.name = "agent";
  options.ttl = kTtl;
  auto made = etcd_coordinator(options);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  REQUIRE(eventually([&] { return (*made)->standing().role == Standing::Role::leader; }));
  return *std::move(made);
}

GuardState seen(const std::unique_ptr<Coordinator>& agent) {
  const auto state = agent->guard("pg-a");
  REQUIRE_MESSAGE(state.has_value(), test::why(state));
  return *state;
}

bool becomes(const std::unique_ptr<Coordinator>& agent, Kind kind) {
  return eventually([&] { return seen(agent).kind == kind; });
}

TEST_CASE("a guard that falls silent is proof after its ttl, once it is barred") {
  const EtcdServers etcd;
  const auto agent = leader(etcd.options());
  CHECK(seen(agent).kind == Kind::unguarded);
  CHECK(agent->bar("pg-a").error().code == Code::not_found);

  auto held = guard(etcd);
  REQUIRE(eventually([&] { return held->is_held(); }));
  CHECK(held->left() <= kTtl);
  auto state = seen(agent);
  CHECK(state.kind == Kind::held);
  CHECK(state.ttl == kTtl);
  CHECK(state.stop_margin == Millis(700));
  CHECK(agent->bar("pg-a").error().code == Code::refused);

  held.reset();
  REQUIRE(becomes(agent, Kind::run_out));
  CHECK_FALSE(seen(agent).is_proof());
  CHECK(eventually([&] { return seen(agent).since > kTtl + kTtl / 100; }));
  CHECK_FALSE(seen(agent).is_proof());  // it could come back any moment
  REQUIRE(agent->bar("pg-a").has_value());
  CHECK(agent->bar("pg-a").has_value());
  CHECK(seen(agent).is_proof());
  // Barred, the key could not have been renewed unseen: that it goes is nothing new.
  etcd.call("kv/deleterange", {{"key", to_base64("/zx/test/guard/pg-a")}});
  CHECK(seen(agent).is_proof());

  held = guard(etcd);
  CHECK(eventually([&] { return held->is_barred(); }));
  CHECK(held->left() == Millis(0));
  CHECK(held->why().find("barred") != std::string::npos);
  CHECK(seen(agent).is_proof());
  REQUIRE(agent->unbar("pg-a").has_value());
  CHECK(eventually([&] { return held->is_held(); }));
  CHECK_FALSE(held->is_barred());
  state = seen(agent);
  CHECK(state.kind == Kind::held);
  CHECK_FALSE(state.is_proof());
}

TEST_CASE("every renewal is seen, and one that comes after the bar is refused") {
  EtcdServers etcd({.members = 3});
  auto its_side = etcd.options(), other_side = etcd.options();
  its_side.endpoints.resize(1);
  other_side.endpoints.erase(other_side.endpoints.begin());
  const auto agent = leader(other_side);
  const auto held = guard(its_side);
  REQUIRE(eventually([&] { return held->is_held(); }));
  Millis last{0};
  CHECK(eventually([&] {
    const auto now = seen(agent).since;
    return now < std::exchange(last, now);
  }));
  etcd.pause(0);
  CHECK(eventually([&] {
    const auto state = agent->guard("pg-a");
    return state && state->kind == Kind::run_out && agent->bar("pg-a");
  }));
  CHECK(seen(agent).is_proof());
  CHECK(held->left() == Millis(0));
  etcd.go_on(0);
  CHECK(eventually([&] { return held->is_barred(); }));
  CHECK(held->left() == Millis(0));
  CHECK(seen(agent).is_proof());
}

TEST_CASE("without etcd the time that is left only shrinks, to nothing") {
  EtcdServers etcd;
  const auto held = guard(etcd);
  REQUIRE(eventually([&] { return held->is_held(); }));
  etcd.pause(0);
  Millis last = held->left();
  bool grew = false;
  // What was on its way when etcd stopped may still be counted once; after that nothing can be.
  int renewals = 0;
  CHECK(eventually([&] {
    const auto now = held->left();
    if (now > last) ++renewals;
    grew = renewals > 1;
    last = now;
    return now == Millis(0);
  }));
  CHECK_FALSE(grew);
  CHECK(eventually([&] { return !held->why().empty(); }));
  etcd.go_on(0);
  CHECK(eventually([&] { return held->is_held(); }));
}

TEST_CASE("a guard that is cut off knows it before it is seen to have run out") {
  EtcdServers etcd({.members = 3});
  auto its_side = etcd.options(), other_side = etcd.options();
  its_side.endpoints.resize(1);
  other_side.endpoints.erase(other_side.endpoints.begin());
  const auto held = guard(its_side);
  REQUIRE(eventually([&] { return held->is_held(); }));
  const auto agent = leader(other_side);
  CHECK(seen(agent).kind == Kind::held);
  etcd.pause(0);
  // A question that comes while etcd elects has no answer.
  CHECK(eventually([&] {
    const auto state = agent->guard("pg-a");
    return state && state->kind == Kind::run_out;
  }));
  CHECK(held->left() == Millis(0));
}

TEST_CASE("a guard whose key was taken away notices, and registers anew") {
  const EtcdServers etcd;
  const auto agent = leader(etcd.options());
  const auto held = guard(etcd);
  REQUIRE(eventually([&] { return held->is_held(); }));
  const auto revision = [&] {
    EtcdClient client(etcd.options(), std::make_shared<EtcdSeen>());
    const auto keys =
        client.range(etcd_range("/zx/test/guard/pg-a"), Deadline::after(Millis(5'000)));
    return keys && !keys->empty() ? keys->front().create_revision : 0;
  };
  const auto before = revision();
  etcd.call("kv/deleterange", {{"key", to_base64("/zx/test/guard/pg-a")}});
  CHECK(seen(agent).kind == Kind::run_out);
  CHECK(eventually([&] { return revision() > before; }));
  CHECK(eventually([&] { return held->is_held(); }));
  CHECK(seen(agent).kind == Kind::held);
}

TEST_CASE("a guard started again takes its host's lease over, but not another host's") {
  const EtcdServers etcd;
  const auto first = guard(etcd);
  REQUIRE(eventually([&] { return first->is_held(); }));
  const auto stranger = guard(etcd, "host-b");
  CHECK(eventually([&] { return stranger->why().find("host-a") != std::string::npos; }));
  CHECK_FALSE(stranger->is_held());

  const auto second = guard(etcd);
  CHECK(eventually([&] { return second->is_held(); }));
  CHECK(eventually([&] { return !first->is_held(); }));
  CHECK(first->why().find("taken") != std::string::npos);
  CHECK(second->is_held());
}

TEST_CASE("a lease that is given back need not run out") {
  const EtcdServers etcd;
  const auto agent = leader(etcd.options());
  const auto held = guard(etcd);
  REQUIRE(eventually([&] { return held->is_held(); }));
  REQUIRE(held->release().has_value());
  CHECK(held->left() == Millis(0));
  CHECK(seen(agent).kind == Kind::run_out);
}

TEST_CASE("an agent that does not lead cannot bar") {
  EtcdServers etcd;
  const auto agent = leader(etcd.options());
  const auto held = guard(etcd);
  REQUIRE(eventually([&] { return held->is_held(); }));
  REQUIRE(held->release().has_value());
  EtcdCoordinatorOptions options;
  options.etcd = etcd.options();
  options.prefix = "/zx/test";
  options.name = "second";
  options.ttl = kTtl;
  const auto follower = etcd_coordinator(options);
  REQUIRE(follower.has_value());
  REQUIRE(eventually([&] { return (*follower)->standing().role == Standing::Role::follower; }));
  CHECK((*follower)->bar("pg-a").error().code == Code::refused);
  CHECK(agent->bar("pg-a").has_value());
}

}  // namespace
}  // namespace zx::coord
