// How a look at a Redis deployment is worded.
#include "commands/redis_view.h"

#include <vector>

#include <doctest/doctest.h>

#include "tests/unit/redis_scene.h"

namespace zx::commands {
namespace {

using redis::Failure;
using redis::Role;

// redis-a is the master of two; everything is well until a test says else.
struct Scene : test::RedisScene {
  explicit Scene(int sentinels = 0) {
    master(5000);
    replica(0);
    replica(0);
    for (int i = 0; i < sentinels; ++i) sentinel(0);
  }
  void fail(const std::string& name, Failure why) {
    node(name).failure = why;
    node(name).role = Role::unknown;
  }
  [[nodiscard]] RedisView view() const {
    return redis_view(deployment, {snapshot, ha::judge(deployment, snapshot, last), last});
  }
};

std::string state_word(const RedisView& view, const std::string& name) {
  return state_of(view, *view.snapshot.node(name)).word;
}

TEST_CASE("a deployment that is well has nothing to say but who is the master") {
  const auto view = Scene(3).view();
  CHECK(view.is_healthy());
  CHECK(view.verdict.problems.empty());
  CHECK(view.summary == "master redis-a, 2 of 2 replicas linked, Sentinel agrees (3 of 3)");
  CHECK(state_word(view, "redis-a") == "ok");
  CHECK(state_word(view, "redis-b") == "linked");
  CHECK(followed_by(view, *view.snapshot.node("redis-b")) == "redis-a");
  CHECK(Scene(0).view().summary == "master redis-a, 2 of 2 replicas linked");
}

TEST_CASE("where nobody serves the verdict is what is said, and what to type") {
  Scene none(1);
  none.fail("redis-a", Failure::refused);
  for (const auto* name : {"redis-b", "redis-c"}) none.node(name).link->is_up = false;
  auto view = none.view();
  CHECK(view.master() == nullptr);
  CHECK(view.summary ==
        "redis-a is dead: connection refused, and no replica is linked to it, Sentinel says "
        "redis-a");
  REQUIRE_FALSE(view.verdict.hints.empty());
  CHECK(view.verdict.hints.front() == "zx failover redis --dry-run says what can be done");
  CHECK(state_word(view, "redis-a") == "down");
  CHECK(state_word(view, "redis-b") == "no link");

  Scene several;
  several.node("redis-b").role = Role::master;
  several.node("redis-b").link.reset();
  view = several.view();
  CHECK(view.summary == "redis-a and redis-b both say that they are the master");
  CHECK(view.master() == nullptr);
  CHECK(to_json(view)["state"] == "several_masters");
  several.node("redis-c").role = Role::master;
  several.node("redis-c").link.reset();
  CHECK(several.view().summary == "redis-a, redis-b and redis-c all say that they are the master");

  Scene loading;
  loading.node("redis-a").failure = Failure::loading;
  view = loading.view();
  CHECK(to_json(view)["state"] == "master_loading");
  CHECK(state_word(view, "redis-a") == "loading");
}

TEST_CASE("a replica is so many bytes behind, unless it has another history") {
  Scene scene;
  scene.node("redis-b").lineage.offset = 4960;
  scene.node("redis-c").lineage.offset = 5030;  // it was asked a moment later
  auto view = scene.view();
  CHECK(bytes_behind(view, *view.snapshot.node("redis-b")) == 40);
  CHECK(bytes_behind(view, *view.snapshot.node("redis-c")) == 0);
  CHECK_FALSE(bytes_behind(view, *view.snapshot.node("redis-a")).has_value());
  scene.node("redis-b").lineage.replid = test::kOtherLine;
  view = scene.view();
  CHECK_FALSE(bytes_behind(view, *view.snapshot.node("redis-b")).has_value());
}

TEST_CASE("what Sentinels say is summed up") {
  struct Case {
    const char* summary;
    void (*change)(Scene&);
  };
  const std::vector<Case> cases{
      {"Sentinels disagree: redis-a or redis-b",
       [](Scene& s) { s.snapshot.sentinels[1].master_host = "10.0.0.2"; }},
      {"Sentinels disagree: 10.9.9.9:6379 or redis-a",
       [](Scene& s) { s.snapshot.sentinels[1].master_host = "10.9.9.9"; }},
      {"Sentinel says redis-b",
       [](Scene& s) {
         for (auto& one : s.snapshot.sentinels) one.master_host = "10.0.0.2";
       }},
      {"Sentinel has no quorum", [](Scene& s) { s.snapshot.sentinels[0].has_quorum = false; }},
      {"Sentinel agrees (2 of 3)", [](Scene& s) { s.snapshot.sentinels[1].knows_master = false; }},
      {"Sentinel agrees (2 of 3)",
       [](Scene& s) { s.snapshot.sentinels[2].failure = Failure::refused; }},
      {"no Sentinel answers",
       [](Scene& s) {
         for (auto& one : s.snapshot.sentinels) one.failure = Failure::refused;
       }},
  };
  for (const auto& one : cases) {
    CAPTURE(one.summary);
    Scene scene(3);
    one.change(scene);
    const auto view = scene.view();
    CHECK(to_json(view)["state"] == "degraded");
    CHECK_MESSAGE(view.summary.ends_with(one.summary), view.summary);
  }
}

TEST_CASE("a run without an end is the first thing that is wrong") {
  Scene scene;
  auto view = scene.view();
  run::Record record;
  record.id = "r1";
  record.plan.command = "redis restore";
  record.begun = scene.snapshot.at - Millis(90'000);
  add_open_run(view, record, false);
  CHECK_FALSE(view.is_healthy());
  CHECK(view.verdict.problems.front() == "run r1 (redis restore) is unfinished, begun 1m30s ago");
  CHECK(view.verdict.hints.front() == "zx runs resume r1");
  CHECK(to_json(view)["unfinished_run"] == "r1");
  auto busy = scene.view();
  add_open_run(busy, record, true);
  CHECK(busy.verdict.hints.front() == "zx runs show r1");
}

}  // namespace
}  // namespace zx::commands
