// Looks over held connections, on real servers.
#include "lib/redis/monitor.h"
#include "lib/redis/observe.h"
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using redis::Failure;
using test::eventually;
using test::kPatience;
using test::RedisDeployment;

// How many connections of zx the server counts, but the one that asks.
int connections_of_zx(const RedisDeployment& cache, const std::string& node) {
  int count = -1;
  for (const auto& line : test::lines_of(cache.ask(node, {"CLIENT", "LIST"})))
    if (line.find(" name=zx ") != std::string::npos) ++count;
  return count;
}

redis::Audience audience_of(const RedisDeployment& cache) {
  const auto config = config::load(cache.config());
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  auto audience = redis::audience_of(*config, *config->deployment("cache"));
  REQUIRE_MESSAGE(audience.has_value(), test::why(audience));
  return *std::move(audience);
}

TEST_CASE(
    "an observer that holds its connections needs no new ones, and makes those anew that end") {
  const RedisDeployment cache(2, 1);
  const auto audience = audience_of(cache);
  redis::Observer observer(true);
  for (int i = 0; i < 5; ++i) {
    const auto snapshot = observer.observe(audience, Millis(5'000));
    REQUIRE(snapshot.nodes.size() == 2);
    for (const auto& facts : snapshot.nodes) CHECK_MESSAGE(facts.answered(), facts.error.message);
    CHECK(snapshot.node("redis-a")->addresses == std::vector<std::string>{"127.0.0.1"});
    REQUIRE(snapshot.sentinels.size() == 1);
    CHECK(snapshot.sentinels[0].knows_master);
  }
  CHECK(connections_of_zx(cache, "redis-a") == 1);
  const auto run_id = observer.observe(audience, Millis(5'000)).node("redis-b")->run_id;

  cache.kill("redis-b");
  CHECK(observer.observe(audience, Millis(5'000)).node("redis-b")->failure == Failure::refused);
  REQUIRE(cache.start("redis-b"));
  const auto after = observer.observe(audience, Millis(5'000));
  REQUIRE(after.node("redis-b")->answered());
  CHECK(after.node("redis-b")->run_id != run_id);
  // Ended by the server between two looks: not noticed as a failure.
  CHECK(cache.ask("redis-a", {"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}) != "0");
  CHECK(observer.observe(audience, Millis(5'000)).node("redis-a")->answered());
}

TEST_CASE("a monitor tells the end of its connection at once and comes back to the server") {
  const RedisDeployment cache(2);
  net::Loop loop;
  redis::Monitor::Settings settings;
  settings.target = cache.target("redis-a");
  // So long that only the end of the connection can be what is told.
  settings.interval = Millis(3'600'000);
  settings.deadline = Millis(5'000);
  std::vector<Failure> told;
  std::unique_ptr<redis::Monitor> monitor;
  monitor = std::make_unique<redis::Monitor>(
      loop, settings, [&](bool) { told.push_back(monitor->facts().failure); });
  const auto until = [&](const std::function<bool()>& holds) {
    loop.run_until(holds, Deadline::after(kPatience));
    return holds();
  };
  REQUIRE(until([&] { return monitor->facts().answered(); }));
  CHECK(monitor->facts().role == redis::Role::master);
  const auto before = monitor->facts();

  cache.kill("redis-a");
  REQUIRE(until([&] { return monitor->end().has_value(); }));
  CHECK(told.back() == Failure::broken);
  // Its line is known, its role no more.
  CHECK(monitor->facts().lineage == before.lineage);
  CHECK(monitor->facts().role == redis::Role::unknown);
  REQUIRE(until([&] { return monitor->facts().failure == Failure::refused; }));
  CHECK(monitor->answered_at().has_value());

  REQUIRE(cache.start("redis-a"));
  monitor->look_now();
  REQUIRE(until([&] { return monitor->facts().answered(); }));
  CHECK_FALSE(monitor->end().has_value());
  CHECK(monitor->facts().run_id != before.run_id);
}

TEST_CASE("a monitor of a paused server says silent, and goes on when that goes on") {
  const RedisDeployment cache(1);
  net::Loop loop;
  redis::Monitor::Settings settings;
  settings.target = cache.target("redis-a");
  settings.interval = Millis(20);
  settings.deadline = Millis(300);
  int overdue = 0;
  settings.overdue = [&] { ++overdue; };
  redis::Monitor monitor(loop, settings, [](bool) {});
  const auto until = [&](const std::function<bool()>& holds) {
    loop.run_until(holds, Deadline::after(kPatience));
    return holds();
  };
  REQUIRE(until([&] { return monitor.facts().answered(); }));
  cache.kill("redis-a", SIGSTOP);
  REQUIRE(until([&] { return monitor.facts().failure == Failure::silent; }));
  CHECK(overdue > 0);
  cache.kill("redis-a", SIGCONT);
  REQUIRE(until([&] { return monitor.facts().answered(); }));
}

}  // namespace
}  // namespace zx
