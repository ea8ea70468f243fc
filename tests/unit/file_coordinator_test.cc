// Agents of one host: who leads, and the facts that they share.
#include <doctest/doctest.h>

#include <thread>

#include "lib/coord/coordinator.h"
#include "tests/support.h"

namespace zx::coord {
namespace {

using Role = Standing::Role;

std::unique_ptr<Coordinator> agent(const test::Directory& state, const std::string& name) {
  auto made = file_coordinator(state.path(), name);
  REQUIRE(made.has_value());
  return *std::move(made);
}

TEST_CASE("one agent of a host leads, and the next one when it has gone") {
  const test::Directory state;
  auto first = agent(state, "left");
  const auto second = agent(state, "right");
  const auto before = first->standing();
  CHECK(before.role == Role::leader);
  CHECK(before.token > 0);
  CHECK(second->standing().role == Role::follower);
  CHECK(second->standing().leader == "left");
  CHECK(second->lead().error().code == Code::locked);
  const auto lease = first->lead();
  REQUIRE(lease.has_value());
  CHECK((*lease)->check().has_value());

  first.reset();
  CHECK((*lease)->check().error().code == Code::refused);
  const auto after = second->standing();
  CHECK(after.role == Role::leader);
  CHECK(after.token > before.token);
  CHECK(second->lead().has_value());
}

TEST_CASE("a state directory that cannot be used means cut off, not alone") {
  const test::Directory state;
  const auto one = agent(state, "left");
  std::filesystem::remove_all(state / "locks");
  CHECK(one->standing().role == Role::cut_off);
  CHECK(!one->standing().why.empty());
  CHECK(one->lead().error().code == Code::unreachable);
}

TEST_CASE("a shared fact changes only from the version that was read") {
  const test::Directory state;
  const auto one = agent(state, "left");
  const auto other = agent(state, "right");
  for (const std::string key : {"plain", "with/slash", "..", ".lock", "%41", "A"}) {
    CAPTURE(key);
    CHECK(one->get(key)->version == 0);
    CHECK(one->put(key, "text of " + key + "\nand\n", 0).has_value());
    CHECK(other->put(key, "another", 0).error().code == Code::locked);
    const auto value = other->get(key);
    REQUIRE(value.has_value());
    CHECK(value->text == "text of " + key + "\nand\n");
    CHECK(other->put(key, std::string("\0\xff", 2), value->version).has_value());
    CHECK(one->get(key)->text == std::string("\0\xff", 2));
    CHECK(one->put(key, "late", value->version).error().code == Code::locked);
  }
  test::write(state / "shared/plain", "seven\ntext");
  CHECK(one->get("plain").error().code == Code::io);
}

TEST_CASE("of writers at once each change is counted once") {
  const test::Directory state;
  constexpr int kEach = 20;
  const auto count = [&](const std::string& name) {
    const auto mine = *file_coordinator(state.path(), name);
    for (int done = 0; done < kEach;) {
      const auto now = mine->get("count");
      if (!now) continue;
      const int number = now->version == 0 ? 0 : std::stoi(now->text);
      if (mine->put("count", std::to_string(number + 1), now->version)) ++done;
    }
  };
  std::thread left([&] { count("left"); }), right([&] { count("right"); });
  left.join();
  right.join();
  CHECK(agent(state, "reader")->get("count")->text == std::to_string(2 * kEach));
}

TEST_CASE("without etcd no node has a guard") {
  const test::Directory state;
  const auto one = agent(state, "left");
  CHECK(one->guard("pg-a")->kind == GuardState::Kind::unguarded);
  CHECK(one->bar("pg-a").error().code == Code::not_found);
  CHECK(one->votes().empty());
}

}  // namespace
}  // namespace zx::coord
