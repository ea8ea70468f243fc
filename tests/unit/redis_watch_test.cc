// What an agent does next about a Redis deployment.
#include "lib/ha/redis_watch.h"

#include <vector>

#include <doctest/doctest.h>

#include "tests/unit/redis_scene.h"

namespace zx::ha {
namespace {

using redis::Failure;
using test::RedisScene;

constexpr Monotonic kStart{std::chrono::hours(10)};

struct Watched : RedisScene {
  WatchRecord record;
  WatchMemory memory;
  bool leads = true;
  std::optional<run::Record> open;
  std::optional<Monotonic> answered;
  Monotonic now = kStart;
  Wall wall = snapshot.at;

  Watched() {
    gone(Failure::refused);
    cut_off(0);
    last_master("redis-a");
  }
  Decision decided() {
    const auto verdict = judge(deployment, snapshot, last);
    RedisSight sight{deployment, snapshot, verdict, record};
    sight.leads = leads;
    sight.why_not_leading = "other acts, this agent watches";
    sight.open = open;
    sight.answered = answered;
    sight.now = now;
    sight.wall = wall;
    remember(memory, sight);
    return decide(sight, memory);
  }
};

TEST_CASE("a dead master is replaced at once, by whoever leads") {
  Watched scene;
  CHECK(scene.decided().act == Act::failover);
  CHECK(scene.decided().subject == "redis-a");
  scene.leads = false;
  CHECK(scene.decided().act == Act::none);
  CHECK(scene.decided().why == "other acts, this agent watches");
}

TEST_CASE("a pause holds it back, until its time is over") {
  Watched scene;
  scene.record.pause = WatchRecord::Pause{"p1", scene.wall, Millis(1000), "升级"};
  CHECK(scene.decided().act == Act::none);
  CHECK(scene.decided().is_blocked);
  CHECK(scene.decided().why == "paused for 1 s more: 升级");
  scene.now += Millis(1000);
  CHECK(scene.decided().act == Act::failover);
}

TEST_CASE("where a master came back empty and so are its replicas, a person is needed") {
  Watched scene;
  auto& master = scene.node("redis-a");
  master.failure = Failure::none;
  master.role = redis::Role::master;
  master.run_id = "run-new";
  master.lineage = {test::kOtherLine, test::kNoLine, -1, 0};
  scene.node("redis-b").keys = 900;
  CHECK(scene.decided().act == Act::failover);
  auto& replica = scene.node("redis-b");
  replica.keys = 0;
  replica.lineage = master.lineage;
  replica.link->is_up = true;
  const auto late = scene.decided();
  CHECK(late.act == Act::none);
  CHECK(late.is_blocked);
  CHECK(late.why.starts_with("the data are gone: redis-a came back with 0 keys and had 1000"));
  CHECK(late.remedy == "redis restore FILE --target redis-a");
}

TEST_CASE("of two masters the one that the last failover gave up follows again, no other") {
  Watched scene;
  for (const auto* name : {"redis-a", "redis-b"}) {
    auto& facts = scene.node(name);
    facts.failure = Failure::none;
    facts.role = redis::Role::master;
    facts.lineage = {name == std::string("redis-b") ? test::kLine : test::kOtherLine, test::kNoLine,
                     -1, 5000};
    facts.link.reset();
    facts.keys = 1000;
  }
  scene.last_master("redis-b");
  CHECK(scene.decided().act == Act::none);
  CHECK(scene.decided().is_blocked);
  scene.record.last = WatchRecord::Failover{scene.wall, "run", "redis-a", "redis-b"};
  CHECK(scene.decided().act == Act::rejoin);
  CHECK(scene.decided().subject == "redis-a");
  scene.record.last->to = "redis-c";
  CHECK(scene.decided().act == Act::none);
}

// redis-a is the master, redis-b follows somebody else.
struct Astray : Watched {
  Astray() {
    snapshot.nodes.clear();
    deployment.nodes.clear();
    master(5000);
    replica(0).link->master_host = "10.9.9.9";
    replica(0);
    last_master("redis-a");
  }
  Decision after(Millis span) {
    static_cast<void>(decided());
    now += span;
    return decided();
  }
};

TEST_CASE("who follows a wrong server is brought back, after the time that a person may need") {
  Astray scene;
  CHECK(scene.after(Millis(5'999)).act == Act::none);
  CHECK(scene.after(Millis(1)).act == Act::rejoin);
  CHECK(scene.decided().subject == "redis-b");
  scene.record.pause = WatchRecord::Pause{"p1", scene.wall, Millis(1000), ""};
  CHECK(scene.decided().act == Act::none);
  CHECK_FALSE(scene.decided().is_blocked);
  scene.record.pause.reset();
  scene.deployment.policy.automatic = false;
  CHECK(scene.decided().act == Act::none);
  scene.deployment.policy.automatic = true;
  // One that came back by itself in between begins anew.
  scene.node("redis-b").link->master_host = "10.0.0.1";
  CHECK(scene.decided().act == Act::none);
  scene.node("redis-b").link->master_host = "10.9.9.9";
  CHECK(scene.decided().act == Act::none);
}

TEST_CASE("who has what the master lacks, or would become empty by it, is left to a person") {
  struct Case {
    const char* what;
    Act act;
    bool is_blocked;
    void (*change)(Astray&);
  };
  const std::vector<Case> cases{
      {"nothing of its own", Act::rejoin, false, [](Astray&) {}},
      {"fewer keys of another line", Act::rejoin, false,
       [](Astray& s) {
         s.node("redis-b").lineage = {test::kOtherLine, test::kNoLine, -1, 10};
         s.node("redis-b").keys = 1;
       }},
      {"more keys of another line", Act::none, false,
       [](Astray& s) {
         s.node("redis-b").lineage = {test::kOtherLine, test::kNoLine, -1, 10};
         s.node("redis-b").keys = 1001;
       }},
      {"it was promoted, and has written since", Act::none, true,
       [](Astray& s) {
         auto& facts = s.node("redis-b");
         facts.role = redis::Role::master;
         facts.link.reset();
         facts.lineage = {test::kOtherLine, test::kLine, 4900, 4950};
         s.last->lineage.replid2 = "";
       }},
      {"it was promoted, and has written nothing", Act::rejoin, false,
       [](Astray& s) {
         auto& facts = s.node("redis-b");
         facts.role = redis::Role::master;
         facts.link.reset();
         facts.lineage = {test::kOtherLine, test::kLine, 4900, 4899};
       }},
      {"the master came back empty", Act::none, true,
       [](Astray& s) {
         auto& facts = s.node("redis-a");
         facts.run_id = "another";
         facts.lineage = {test::kOtherLine, test::kNoLine, -1, 10};
         facts.keys = 0;
         s.deployment.policy.automatic = false;  // a failover is what is called for
       }},
      {"it follows a replica of the master", Act::none, false,
       [](Astray& s) { s.node("redis-b").link->master_host = "10.0.0.3"; }},
      {"its link is down", Act::none, false,
       [](Astray& s) {
         s.node("redis-b").link->master_host = "10.0.0.1";
         s.node("redis-b").link->is_up = false;
       }},
      {"the Sentinels watch", Act::none, false, [](Astray& s) { s.sentinel(0); }},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    Astray scene;
    one.change(scene);
    const auto decision = scene.after(Millis(6'000));
    CHECK(decision.act == one.act);
    CHECK_MESSAGE(decision.is_blocked == one.is_blocked, decision.why);
  }
}

TEST_CASE("a silent one only after it was silent for long enough, counted from its last answer") {
  Watched scene;
  scene.node("redis-a").failure = Failure::silent;
  CHECK(scene.decided().act == Act::none);
  scene.now += Millis(1499);
  CHECK(scene.decided().act == Act::none);
  scene.now += Millis(1);
  CHECK(scene.decided().act == Act::failover);

  Watched earlier;
  earlier.node("redis-a").failure = Failure::silent;
  earlier.answered = kStart - Millis(1500);
  CHECK(earlier.decided().act == Act::failover);

  // One that answered in between begins anew.
  Watched back = scene;
  back.node("redis-a").failure = Failure::none;
  back.node("redis-a").role = redis::Role::master;
  back.node("redis-a").lineage = back.node("redis-b").lineage;
  CHECK(back.decided().act == Act::none);
  back.node("redis-a").failure = Failure::silent;
  CHECK(back.decided().act == Act::none);
}

TEST_CASE("where Sentinels watch, or automatic is off, the agent only watches") {
  Watched scene;
  scene.deployment.policy.automatic = false;
  CHECK(scene.decided().is_blocked);
  CHECK(scene.decided().remedy == "failover redis --dry-run");
  scene.deployment.policy.automatic = true;
  scene.sentinel(0);
  CHECK(scene.decided().act == Act::none);
  CHECK_FALSE(scene.decided().is_blocked);
  CHECK(scene.decided().why == "the Sentinels fail over by themselves");
}

TEST_CASE("the next failover waits for a person while the last one is recent") {
  Watched scene;
  scene.record.last =
      WatchRecord::Failover{scene.wall - std::chrono::minutes(10), "run-1", "redis-b", "redis-a"};
  CHECK(scene.decided().is_blocked);
  CHECK(scene.decided().why.find("too recent") != std::string::npos);
  scene.now += std::chrono::minutes(51);
  CHECK(scene.decided().act == Act::failover);
  scene.now = kStart;
  scene.record.last->by_hand = true;
  CHECK(scene.decided().act == Act::failover);
}

TEST_CASE("a failover that was cut short is resumed first, whatever is the case now") {
  Watched scene;
  scene.open.emplace();
  scene.open->id = "20261124T031243-a1f3";
  scene.open->plan.command = "failover redis";
  run::Step step;
  step.name = "check";
  scene.open->plan.steps.push_back(step);
  CHECK(scene.decided().act == Act::resume);
  CHECK(scene.decided().subject == "20261124T031243-a1f3");
  scene.open->plan.command = "redis sync";
  CHECK(scene.decided().act == Act::failover);
}

TEST_CASE("after a failed attempt the next one waits") {
  Watched scene;
  REQUIRE(scene.decided().act == Act::failover);
  note_failure(scene.memory, scene.decided().key(), scene.now);
  CHECK(scene.decided().act == Act::none);
  scene.now += Millis(30'000);
  CHECK(scene.decided().act == Act::failover);
}

TEST_CASE("what is no proof of death is no reason to act") {
  for (const auto failure : {Failure::loading, Failure::auth, Failure::busy, Failure::broken,
                             Failure::too_many_clients, Failure::protected_mode}) {
    CAPTURE(redis::name_of(failure));
    Watched scene;
    scene.node("redis-a").failure = failure;
    scene.now += Millis(3'600'000);
    CHECK(scene.decided().act == Act::none);
  }
}

}  // namespace
}  // namespace zx::ha
