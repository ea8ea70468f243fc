// Which replica becomes the master, and what is lost.
#include "lib/ha/redis_choose.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "tests/unit/redis_scene.h"

namespace zx::ha {
namespace {

using redis::Failure;
using redis::Role;
using test::RedisScene;

RedisChoice chosen(const RedisScene& scene, const RedisChooseOptions& options = {}) {
  return choose(scene.deployment, scene.snapshot, "redis-a", scene.last, options);
}

const RedisCandidate& of(const RedisChoice& choice, const std::string& node) {
  for (const auto& one : choice.candidates)
    if (one.node == node) return one;
  FAIL("no candidate " << node);
  return choice.candidates.front();
}

// redis-a is dead; redis-b has 5000 bytes of its stream, redis-c 4900.
struct Dead : RedisScene {
  Dead() {
    gone(Failure::refused);
    cut_off(0, 5000);
    cut_off(0, 4900);
    last_master("redis-a", 5000);
  }
};

TEST_CASE("the one that has most of the stream is promoted, and the others follow it") {
  Dead scene;
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-b");
  CHECK(choice.lost == 0);
  CHECK(choice.reference.known);
  CHECK_FALSE(choice.reference.exact);
  CHECK(of(choice, "redis-c").fate == RedisCandidate::Fate::follow);
  CHECK(of(choice, "redis-c").reasons.front() == "100 B behind redis-b");
}

TEST_CASE("of two that are as far the higher priority wins, then the order of the file") {
  Dead scene;
  scene.node("redis-c").lineage.offset = 5000;
  CHECK(chosen(scene).promote == "redis-b");
  scene.deployment.nodes[2].priority = 200;
  CHECK(chosen(scene).promote == "redis-c");
  CHECK(of(chosen(scene), "redis-b").reasons.front() == "as far, but priority 100 is lower");
  scene.deployment.nodes[2].priority = 0;
  CHECK(chosen(scene).promote == "redis-b");
  CHECK(of(chosen(scene), "redis-c").reasons.front() == "priority 0");
}

TEST_CASE("one that left the line and wrote by itself does not go on with it") {
  Dead scene;
  // It was made a master at 4950, after the last look at the real one.
  scene.last_master("redis-a", 4800);
  scene.node("redis-b").lineage = {test::kOtherLine, test::kLine, 4951, 9000};
  scene.node("redis-c").lineage.offset = 4960;
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-c");
  CHECK(of(choice, "redis-b").reasons.front().find("of another line") != std::string::npos);
  // Where it has all that anybody has of that line, nothing is lost with it.
  scene.node("redis-c").lineage.offset = 4950;
  CHECK(chosen(scene).promote == "redis-b");
}

TEST_CASE("one that refuses writes comes after those that take them, and is better than none") {
  Dead scene;
  scene.node("redis-b").persistence.last_save_ok = false;
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-c");
  CHECK(choice.lost == 100);
  CHECK(of(choice, "redis-b").fate == RedisCandidate::Fate::resync);
  CHECK(of(choice, "redis-b").reasons.back().find("MISCONF") != std::string::npos);
  // Not at the price of more than may be lost.
  scene.deployment.policy.max_lag = 99;
  CHECK(chosen(scene).promote == "redis-b");
  scene.deployment.policy.max_lag = 100;
  scene.node("redis-c").persistence.aof = true;
  scene.node("redis-c").persistence.aof_last_write_ok = false;
  CHECK(chosen(scene).promote == "redis-b");
}

TEST_CASE("a replica ahead of the one that is named must be sent everything anew") {
  Dead scene;
  RedisChooseOptions options;
  options.to = "redis-c";
  const auto choice = chosen(scene, options);
  CHECK(choice.promote == "redis-c");
  CHECK(choice.lost == 100);
  CHECK(of(choice, "redis-b").fate == RedisCandidate::Fate::resync);
}

TEST_CASE("what is lost is measured against the furthest that was seen of the stream") {
  Dead scene;
  scene.last_master("redis-a", 5600);
  CHECK(chosen(scene).lost == 600);
  scene.last->lineage.offset = 10;
  CHECK(chosen(scene).lost == 0);

  SUBCASE("more than max_lag is refused, and allowed by name") {
    scene.last->lineage.offset = 5000 + (2 << 20);
    const auto refused = chosen(scene);
    CHECK(refused.promote.empty());
    REQUIRE(refused.refusal.has_value());
    CHECK(refused.refusal->code == Code::refused);
    CHECK(refused.refusal->hint.find("--allow-data-loss") != std::string::npos);
    RedisChooseOptions options;
    options.allow_loss = 1 << 20;
    CHECK(chosen(scene, options).promote.empty());
    options.allow_loss = 3 << 20;
    CHECK(chosen(scene, options).promote == "redis-b");
    CHECK(chosen(scene, options).lost == (2 << 20));
  }
}

TEST_CASE("a stream that nobody has seen for long ends at a place that is not known") {
  Dead scene;
  scene.node("redis-b").link->down_for_s = 4000;
  scene.node("redis-c").link->down_for_s = 4000;
  scene.last->at = scene.snapshot.at - std::chrono::hours(1);
  const auto refused = chosen(scene);
  CHECK(refused.promote.empty());
  CHECK(of(refused, "redis-b").reasons.front() == "where the master's stream ended is not known");
  RedisChooseOptions options;
  options.allow_loss = 0;
  const auto choice = chosen(scene, options);
  CHECK(choice.promote == "redis-b");
  CHECK(of(choice, "redis-b").reasons.back().find("accepted by --allow-data-loss") == 0);
  // One that was linked a moment ago knows it.
  scene.node("redis-c").link->down_for_s = 3;
  CHECK(chosen(scene).promote == "redis-b");
}

TEST_CASE("another line is not promoted, however high its offset") {
  Dead scene;
  scene.node("redis-b").lineage = {test::kOtherLine, test::kNoLine, -1, 99999};
  scene.node("redis-b").link->down_for_s = 4000;
  auto choice = chosen(scene);
  CHECK(choice.promote == "redis-c");
  CHECK(of(choice, "redis-b").fate == RedisCandidate::Fate::resync);

  scene.node("redis-c").failure = Failure::refused;
  choice = chosen(scene);
  CHECK(choice.promote.empty());
  CHECK(choice.refusal->hint.find("--to redis-b --allow-data-loss") != std::string::npos);
  RedisChooseOptions options;
  options.allow_loss = 0;
  CHECK(chosen(scene, options).promote.empty());
  options.to = "redis-b";
  CHECK(chosen(scene, options).promote == "redis-b");
}

TEST_CASE("a master that restarted since it was last seen left another line to its replicas") {
  Dead scene;
  for (const auto* name : {"redis-b", "redis-c"})
    scene.node(name).lineage.replid = test::kOtherLine;
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-b");
  CHECK(choice.lost == 0);
  CHECK(of(choice, "redis-c").fate == RedisCandidate::Fate::follow);
  SUBCASE("whom it took along is on it, who was cut off before is not") {
    scene.node("redis-c").lineage = {test::kLine, test::kNoLine, -1, 99999};
    scene.last->at = scene.snapshot.at - std::chrono::seconds(10);
    CHECK(chosen(scene).promote == "redis-b");
    CHECK(of(chosen(scene), "redis-c").fate == RedisCandidate::Fate::resync);
  }
  SUBCASE("one that was not linked any more when the master was seen says nothing of it") {
    scene.node("redis-c").lineage.replid = test::kLine;
    scene.node("redis-b").link->down_for_s = 5;
    CHECK(chosen(scene).promote == "redis-c");
  }
  SUBCASE("a link that may have ended after the look counts, for it is counted in whole seconds") {
    for (const auto* name : {"redis-b", "redis-c"}) scene.node(name).link->down_for_s = 3;
    scene.last->at = scene.snapshot.at - Millis(2300);
    CHECK(chosen(scene).promote == "redis-b");
  }
  SUBCASE("two lines of which either may be the last are for a person") {
    scene.node("redis-c").lineage.replid = test::kLine;
    CHECK(chosen(scene).promote.empty());
    CHECK(chosen(scene).refusal->hint.find("--to NODE --allow-data-loss") != std::string::npos);
    RedisChooseOptions options;
    options.to = "redis-b";
    CHECK(chosen(scene, options).promote.empty());
    options.allow_loss = 0;
    CHECK(chosen(scene, options).promote == "redis-b");
  }
  SUBCASE("nor when it came back empty and took them along") {
    scene.node("redis-b").keys = scene.node("redis-c").keys = 3;
    CHECK(chosen(scene).promote.empty());
  }
}

TEST_CASE("one whose data set is not whole is never promoted") {
  Dead scene;
  scene.node("redis-b").link->is_syncing = true;
  CHECK(chosen(scene).promote == "redis-c");
  scene.node("redis-c").persistence.is_loading = true;
  const auto refused = chosen(scene);
  CHECK(refused.promote.empty());
  CHECK(join(refused.refusal->trail, "|").find("in a full resync") != std::string::npos);
  CHECK(join(refused.refusal->trail, "|").find("loading") != std::string::npos);
}

TEST_CASE("with both replicas down nobody is promoted, and the way out is said") {
  Dead scene;
  scene.node("redis-b").failure = Failure::refused;
  scene.node("redis-c").failure = Failure::silent;
  const auto choice = chosen(scene);
  CHECK(choice.promote.empty());
  REQUIRE(choice.refusal.has_value());
  CHECK(choice.refusal->message == "no replica may be promoted");
  CHECK(of(choice, "redis-b").fate == RedisCandidate::Fate::down);
  CHECK(choice.refusal->hint.find("start the server") != std::string::npos);
}

TEST_CASE("one that says that it is a master itself is left alone") {
  Dead scene;
  scene.node("redis-b").role = Role::master;
  scene.node("redis-b").link.reset();
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-c");
  CHECK(of(choice, "redis-b").fate == RedisCandidate::Fate::excluded);
}

TEST_CASE("when a master came back empty the replica that has its data is promoted") {
  RedisScene scene;
  auto& master = scene.master(20);
  master.run_id = "run-new";
  master.lineage = {test::kOtherLine, test::kNoLine, -1, 20};
  master.keys = 0;
  scene.cut_off(0, 5000);
  SUBCASE("known from an earlier look") { scene.last_master("redis-a", 5000); }
  SUBCASE("or not") {}
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-b");
  CHECK(choice.lost == 0);
}

TEST_CASE("where the data are gone everywhere the backup is the way, and no empty replica") {
  RedisScene scene;
  auto& master = scene.master(0);
  master.run_id = "run-new";
  master.keys = 0;
  scene.replica(0, 0).keys = 0;
  scene.replica(0, 0).keys = 0;
  for (auto& facts : scene.snapshot.nodes) facts.lineage = {test::kOtherLine, test::kNoLine, -1, 0};
  scene.last_master("redis-a");
  const auto choice = chosen(scene);
  REQUIRE(choice.refusal);
  CHECK(choice.refusal->hint.find("zx redis restore FILE --target redis-a") != std::string::npos);
  CHECK(choice.refusal->hint.find("--to") == std::string::npos);
  // On a person's word all the same: then all is lost.
  RedisChooseOptions options;
  options.to = "redis-c";
  options.allow_loss = 1000;
  const auto forced = chosen(scene, options);
  CHECK(forced.promote == "redis-c");
  CHECK(forced.is_of_another_line);
  scene.node("redis-c").keys = 50;
  const auto kept = chosen(scene);
  REQUIRE(kept.refusal);
  CHECK_MESSAGE(kept.refusal->hint.find("--to redis-c") != std::string::npos, kept.refusal->hint);
}

TEST_CASE("a node that was the master and is a replica now may be promoted again") {
  RedisScene scene;
  scene.cut_off(1, 5000);
  scene.cut_off(0, 4000);
  scene.last_master("redis-a", 5000);
  const auto choice = chosen(scene);
  CHECK(choice.promote == "redis-a");
  CHECK(choice.reference.exact);
}

TEST_CASE("bytes that a former master wrote by itself are not the master's") {
  Dead scene;
  // It was a master since 4801, wrote more than anybody, and has not followed redis-a yet.
  auto& former = scene.node("redis-c");
  former.lineage = {test::kOtherLine, test::kLine, 4801, 9000};
  former.link->down_for_s = -1;
  scene.last->lineage.offset = 4700;  // what was seen of redis-a, all of them have
  auto choice = chosen(scene);
  CHECK(choice.promote == "redis-b");
  CHECK(choice.reference.end == 5000);
  CHECK(of(choice, "redis-c").fate == RedisCandidate::Fate::resync);
  CHECK(of(choice, "redis-c").lost == 200);
  RedisChooseOptions named{"redis-c", std::nullopt, false, std::nullopt};
  CHECK(chosen(scene, named).promote.empty());
  named.allow_loss = 200;
  CHECK(chosen(scene, named).lost == 200);
  // One that came in line behind a master that restarted has the stream of that master.
  former.link->down_for_s = 2;
  choice = chosen(scene);
  CHECK(of(choice, "redis-c").lost == 0);
}

TEST_CASE("a resync is partial as long as the backlog reaches back to where the replica is") {
  RedisScene scene;
  auto& master = scene.master(5000);
  master.memory_used = 7 << 20;
  master.backlog_size = 1 << 20;
  master.backlog_first = 1001;
  master.backlog_length = 4000;
  scene.replica(0, 1000);
  const auto resync = [&] { return resync_of(scene.node("redis-b"), scene.node("redis-a")); };
  CHECK(resync().is_partial);
  CHECK(resync().bytes == 4000);
  scene.node("redis-b").lineage.offset = 5000;
  CHECK(resync().is_partial);
  CHECK(resync().bytes == 0);
  scene.node("redis-b").lineage.offset = 999;
  CHECK_FALSE(resync().is_partial);
  CHECK(resync().bytes == (7 << 20));
  CHECK(resync().why.find("the backlog of redis-a reaches back 3.9 KiB") != std::string::npos);
  scene.node("redis-b").lineage.offset = 5001;
  CHECK(resync().why == "it is 1 B ahead of redis-a");
  scene.node("redis-b").lineage.replid = test::kOtherLine;
  CHECK(resync().why.find("it is of another line (22222222)") == 0);
  scene.node("redis-b").lineage = scene.node("redis-a").lineage;
  scene.node("redis-a").backlog_length = scene.node("redis-a").backlog_first = 0;
  CHECK(resync().why == "redis-a has no backlog");
}

}  // namespace
}  // namespace zx::ha
