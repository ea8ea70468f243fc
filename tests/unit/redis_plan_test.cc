// The steps of a plan for Redis, in order.
#include "lib/ha/redis_plan.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "tests/unit/redis_scene.h"

namespace zx::ha {
namespace {

using redis::Failure;
using test::RedisScene;

std::string names_of(const run::Plan& plan) {
  std::vector<std::string> names;
  for (const auto& step : plan.steps) names.push_back(step.name + (step.optional ? "?" : ""));
  return join(names, " | ");
}

run::Plan failover_of(const RedisScene& scene, RedisFence::Kind kind) {
  const auto verdict = judge(scene.deployment, scene.snapshot, scene.last);
  const RedisChooseOptions options;
  const auto choice = choose(scene.deployment, scene.snapshot, verdict.master, scene.last, options);
  return plan_redis_failover(scene.deployment, scene.snapshot, verdict, choice, {kind, "", {}},
                             options);
}

TEST_CASE("a failover fences before it promotes, and everything after the write is optional") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.cut_off(0);
  scene.cut_off(0, 4900);
  scene.last_master("redis-a");
  const auto plan = failover_of(scene, RedisFence::Kind::host);
  CHECK(names_of(plan) ==
        "fence | choose | promote | repoint? | check | follow? | rewrite? | receipt?");
  CHECK(plan.lock == "redis.cache");
  CHECK(plan.command == "failover redis");
  CHECK(get_string(plan.context, "old_master") == "redis-a");
  CHECK(get_string(plan.context, "to") == "redis-b");
}

TEST_CASE("a master that came back empty lives: its writes are paused, then it follows") {
  RedisScene scene;
  auto& master = scene.master(20);
  master.run_id = "run-new";
  master.lineage = {test::kOtherLine, test::kNoLine, -1, 20};
  master.keys = 0;
  scene.cut_off(0, 5000);
  scene.last_master("redis-a", 5000);
  CHECK(names_of(failover_of(scene, RedisFence::Kind::live)) ==
        "fence | choose | promote | demote | check | follow? | rewrite? | receipt?");
}

TEST_CASE("where every node is a replica nobody is fenced, and the last master follows too") {
  RedisScene scene;
  scene.cut_off(1, 4000);
  scene.cut_off(0, 5000);
  scene.last_master("redis-a");
  scene.deployment.nodes[0].priority = 0;
  const auto plan = failover_of(scene, RedisFence::Kind::is_replica);
  CHECK(names_of(plan) == "choose | promote | repoint? | check | follow? | rewrite? | receipt?");
  CHECK(plan.steps[2].subject == "redis-a");
}

TEST_CASE("a handover is one step of the servers, then the others follow") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  scene.replica(0);
  const auto plan = plan_redis_handover(scene.deployment, scene.snapshot, "redis-a", "redis-b");
  CHECK(names_of(plan) == "hand over | cut? | repoint? | check | follow? | rewrite?");
  CHECK(get_bool(plan.context, "planned"));
}

TEST_CASE("where a master refuses by itself its replicas let go of it, and that is waited for") {
  RedisScene scene;
  scene.gone(Failure::no_answer);
  scene.replica(0);
  scene.replica(0, 4900);
  scene.last_master("redis-a");
  for (auto& facts : scene.snapshot.nodes)
    if (facts.link) facts.link->last_io_s = 5;
  const auto verdict = judge(scene.deployment, scene.snapshot, scene.last);
  const auto choice =
      choose(scene.deployment, scene.snapshot, verdict.master, scene.last, RedisChooseOptions{});
  RedisFence fence{RedisFence::Kind::max_lag, "", {}};
  fence.refusal.max_lag_s = 1;
  fence.refusal.detach = {"redis-b", "redis-c"};
  const auto plan =
      plan_redis_failover(scene.deployment, scene.snapshot, verdict, choice, fence, {});
  CHECK(names_of(plan) ==
        "detach | fence | choose | promote | repoint? | check | follow? | rewrite? | receipt?");
  CHECK(join(get_strings(plan.steps[0].args, "nodes"), " ") == "redis-b redis-c");
  CHECK(plan.steps[1].deadline > refuses_after(1));
  CHECK(get_int(plan.context, "max_lag_s") == 1);
}

TEST_CASE("through Sentinels a living master is paused first, and one that is gone fenced") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  scene.replica(0);
  scene.sentinel(0);
  const auto verdict = judge(scene.deployment, scene.snapshot, scene.last);
  RedisChoice choice;
  choice.promote = "redis-b";
  using Kind = RedisFence::Kind;
  const auto planned = [&](bool named) {
    return names_of(
        plan_sentinel_failover(scene.deployment, scene.snapshot, verdict, choice, nullptr, named));
  };
  const auto with_fence = [&](Kind kind, bool named) {
    const RedisFence fence{kind, "", {}};
    return names_of(
        plan_sentinel_failover(scene.deployment, scene.snapshot, verdict, choice, &fence, named));
  };
  // The Sentinels would choose redis-b: it has as much as redis-c, and the lower run id.
  CHECK(planned(false) ==
        "prefer | pause | hand over | demote | check | follow? | rewrite? | unprefer? | agree?");
  CHECK(with_fence(Kind::host, false) ==
        "fence | hand over | check | follow? | rewrite? | receipt? | agree?");
  CHECK(with_fence(Kind::host, true) ==
        "fence | prefer | hand over | check | follow? | rewrite? | unprefer? | receipt? | agree?");
  CHECK(with_fence(Kind::live, false) ==
        "fence | hand over | demote | check | follow? | rewrite? | receipt? | agree?");
  CHECK(with_fence(Kind::is_replica, false) ==
        "hand over | check | follow? | rewrite? | receipt? | agree?");
  const RedisFence fence{Kind::host, "", {}};
  const auto plan = [&](bool named) {
    return plan_sentinel_failover(scene.deployment, scene.snapshot, verdict, choice, &fence, named);
  };
  CHECK(plan(false).summary.find("let the Sentinels promote one: redis-b by their rule") == 0);
  CHECK(plan(true).summary == "promote redis-b, through the Sentinels");
  scene.snapshot.nodes[1].priority = 50;
  CHECK(plan(true).summary == "promote redis-b, through the Sentinels");
  CHECK(plan(false).summary == "promote redis-b, through the Sentinels");
  CHECK(with_fence(Kind::host, true) ==
        "fence | hand over | check | follow? | rewrite? | receipt? | agree?");
  scene.snapshot.nodes[1].priority = 100;
  choice.promote = "redis-c";
  CHECK(planned(true) ==
        "prefer | pause | hand over | demote | check | follow? | rewrite? | unprefer? | agree?");
  CHECK(with_fence(Kind::host, true) ==
        "fence | prefer | hand over | check | follow? | rewrite? | unprefer? | receipt? | agree?");
}

TEST_CASE("a sync takes one replica after the other, and leaves alone what is blocked") {
  RedisScene scene;
  SyncTask wrong;
  wrong.node = "redis-b";
  wrong.points = true;
  wrong.said = "it follows redis-c";
  wrong.resync.is_partial = true;
  SyncTask slow;
  slow.node = "redis-c";
  slow.waits = true;
  SyncTask blocked;
  blocked.node = "redis-d";
  blocked.points = true;
  blocked.blocked = "wrong password";
  scene.deployment.name = "cache";
  const auto plan = plan_redis_sync(scene.deployment, "redis-a", {wrong, slow, blocked});
  CHECK(names_of(plan) == "point redis-b | sync redis-b? | sync redis-c? | check? | rewrite?");
  CHECK(plan.summary == "make redis-b, redis-c follow redis-a");

  SyncTask fenced;
  fenced.node = "redis-b";
  fenced.is_fenced = true;
  CHECK(names_of(plan_redis_sync(scene.deployment, "redis-a", {fenced})) == "unfence?");
}

}  // namespace
}  // namespace zx::ha
