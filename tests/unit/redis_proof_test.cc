// What proves that an old master takes no writes any more.
#include "lib/ha/redis_proof.h"

#include <functional>

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "tests/unit/redis_scene.h"

namespace zx::ha {
namespace {

using redis::Failure;
using redis::Role;
using test::RedisScene;

// redis-a does not answer, nor does its host; its replicas think that they are linked to it.
struct Silent : RedisScene {
  Silent() {
    gone(Failure::no_answer).local_error = "host host-a gave no answer";
    replica(0, 5000);
    replica(0, 4900);
    auto& seen = last_master("redis-a", 5000);
    seen.min_replicas_to_write = 1;
    seen.min_replicas_max_lag_s = 2;
  }
  [[nodiscard]] SelfRefusal refusal() const {
    return self_refusal(deployment, snapshot, "redis-a", last);
  }
  [[nodiscard]] RedisFence fence() const {
    return redis_fence(deployment, snapshot, "redis-a", false, last);
  }
};

TEST_CASE("a master out of reach refuses writes by itself once its replicas let go of it") {
  const Silent scene;
  const auto fence = scene.fence();
  CHECK(fence.kind == RedisFence::Kind::max_lag);
  CHECK(join(fence.refusal.detach, " ") == "redis-b redis-c");
  CHECK(fence.refusal.max_lag_s == 2);
  CHECK(fence.why ==
        "redis-a refuses writes by min-replicas-max-lag, 4.5 s after the last of its replicas let "
        "go of it");
}

TEST_CASE("it is no proof when anybody may acknowledge unseen, or the settings are not known") {
  struct Row {
    const char* what;
    std::function<void(Silent&)> change;
    const char* why;
  };
  const Row rows[] = {
      {"a replica does not answer",
       [](Silent& s) { s.node("redis-c").failure = Failure::no_answer; },
       "redis-c may acknowledge its writes, out of reach from here"},
      {"a replica is down, and may be started beside it",
       [](Silent& s) { s.node("redis-c").failure = Failure::refused; },
       "redis-c may acknowledge its writes, out of reach from here"},
      {"one is loading", [](Silent& s) { s.node("redis-b").failure = Failure::loading; },
       "redis-b may acknowledge its writes, out of reach from here"},
      {"something else read its stream", [](Silent& s) { s.last->strangers = 1; },
       "1 more that are no nodes of zx.toml may acknowledge its writes, out of reach from here"},
      {"it takes writes without a replica", [](Silent& s) { s.last->min_replicas_to_write = 0; },
       "redis-a takes writes without a replica: min-replicas-to-write is 0"},
      {"an acknowledgement never gets too old",
       [](Silent& s) { s.last->min_replicas_max_lag_s = 0; },
       "redis-a takes writes without a replica: min-replicas-to-write is 1"},
      {"nobody has seen it", [](Silent& s) { s.last.reset(); },
       "the settings of redis-a have not been seen lately"},
      {"another was the master then", [](Silent& s) { s.last->master = "redis-b"; },
       "the settings of redis-a have not been seen lately"},
      {"it was seen too long ago",
       [](Silent& s) { s.last->at = s.snapshot.at - std::chrono::minutes(10); },
       "the settings of redis-a have not been seen lately"},
      {"it has restarted on a line of its own since",
       [](Silent& s) { s.node("redis-b").lineage.replid = test::kOtherLine; },
       "redis-a has begun another line since its settings were seen"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    Silent scene;
    row.change(scene);
    CHECK_FALSE(scene.refusal().holds);
    CHECK(scene.refusal().why == row.why);
    const auto fence = scene.fence();
    CHECK(fence.kind == RedisFence::Kind::none);
    CHECK(fence.refusal.why == row.why);
  }
}

TEST_CASE("one replica out of sight is not enough for a master that wants two") {
  Silent scene;
  scene.last->min_replicas_to_write = 2;
  scene.node("redis-c").failure = Failure::no_answer;
  CHECK(scene.refusal().holds);
  CHECK(join(scene.refusal().detach, " ") == "redis-b");
}

TEST_CASE("only who may be linked to it has to let go") {
  Silent scene;
  scene.node("redis-c").link->master_host = "10.0.0.2";
  CHECK(join(scene.refusal().detach, " ") == "redis-b");
  // An address of no node may be another one of the old master.
  scene.node("redis-c").link->master_host = "192.0.2.7";
  CHECK(join(scene.refusal().detach, " ") == "redis-b redis-c");
}

TEST_CASE("a host that answers comes first, and Sentinels would point replicas elsewhere") {
  Silent scene;
  scene.node("redis-a").local.emplace().is_data_dir = true;
  CHECK(scene.fence().kind == RedisFence::Kind::host);
  scene.node("redis-a").local.reset();
  scene.sentinel(0);
  CHECK(scene.fence().kind == RedisFence::Kind::none);
}

TEST_CASE(
    "a second, and what Redis counts in whole ones and looks at every second, are waited for") {
  CHECK(refuses_after(1) == Millis(3'500));
  CHECK(refuses_after(10) == Millis(12'500));
}

TEST_CASE("what proves that the old master takes no more writes") {
  const auto kind = [](const RedisScene& scene, bool assume = false) {
    return redis_fence(scene.deployment, scene.snapshot, "redis-a", assume, scene.last).kind;
  };
  using Kind = RedisFence::Kind;
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.cut_off(0);
  scene.last_master("redis-a");
  scene.node("redis-a").local_error = "host a has no \"remote\"";
  CHECK(kind(scene) == Kind::none);
  const auto none = redis_fence(scene.deployment, scene.snapshot, "redis-a", false, scene.last);
  CHECK(none.why.find("has no \"remote\"") != std::string::npos);
  CHECK(none.ways_out.back().find("--assume-fenced") != std::string::npos);
  CHECK(kind(scene, true) == Kind::operator_says);
  scene.deployment.policy.require_fence = false;
  CHECK(kind(scene) == Kind::policy);

  auto& local = scene.node("redis-a").local.emplace();
  local.is_data_dir = true;
  CHECK(kind(scene) == Kind::host);
  local.problem = "redis.conf cannot be rewritten";
  CHECK(kind(scene) == Kind::policy);
  scene.node("redis-a").failure = Failure::none;
  scene.node("redis-a").role = Role::master;
  CHECK(kind(scene) == Kind::live);
  scene.node("redis-a").role = Role::replica;
  CHECK(kind(scene) == Kind::is_replica);
  CHECK(redis_fence(scene.deployment, scene.snapshot, "", false, scene.last).kind ==
        Kind::is_replica);
}

}  // namespace
}  // namespace zx::ha
