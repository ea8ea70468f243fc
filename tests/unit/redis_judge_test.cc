// From canned observations to verdicts on a Redis deployment: what is the case, and what must not
// be taken for it.
#include "lib/ha/redis_judge.h"

#include <algorithm>

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/ha/redis_quorum.h"
#include "tests/unit/redis_scene.h"

namespace zx::ha {
namespace {

using redis::Failure;
using redis::Role;
using test::RedisScene;

RedisVerdict judged(const RedisScene& scene) {
  return judge(scene.deployment, scene.snapshot, scene.last);
}

bool says(const RedisVerdict& verdict, const std::string& words) {
  return verdict.summary.find(words) != std::string::npos ||
         std::any_of(verdict.problems.begin(), verdict.problems.end(),
                     [&](const auto& one) { return one.find(words) != std::string::npos; });
}

TEST_CASE("a master whose replicas are linked to it is healthy") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  scene.replica(0, 4990);
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::healthy);
  CHECK(verdict.master == "redis-a");
  CHECK(verdict.problems.empty());
  CHECK(verdict.evidence.size() == 3);
}

TEST_CASE("a replica of a replica is in line") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  scene.replica(1);
  CHECK(judged(scene).state == RedisState::healthy);
}

TEST_CASE("a master that refuses, with no replica linked to it, is dead") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.cut_off(0);
  scene.cut_off(0);
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::master_dead);
  CHECK(verdict.master == "redis-a");
  CHECK(calls_for_failover(verdict.state));
}

TEST_CASE("a master that refuses this host and is linked to a replica is alive") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.replica(0).link->last_io_s = 0;
  scene.cut_off(0);
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::master_unreachable);
  CHECK(says(verdict, "redis-b heard from it 0 s ago"));
  CHECK_FALSE(calls_for_failover(verdict.state));
}

TEST_CASE("a silent master is silent once no replica hears from it, linked or not") {
  for (const auto failure : {Failure::silent, Failure::no_answer, Failure::no_route}) {
    RedisScene scene;
    scene.gone(failure);
    scene.replica(0).link->last_io_s = 4;
    CHECK(judged(scene).state == RedisState::master_silent);
    scene.snapshot.nodes[1].link->last_io_s = 1;
    CHECK(judged(scene).state == RedisState::master_unreachable);
    scene.snapshot.nodes[1].link->last_io_s.reset();
    CHECK(judged(scene).state == RedisState::master_unreachable);
  }
}

TEST_CASE("a silent master whose process works on something has ten times as long") {
  RedisScene scene;
  auto& local = scene.gone(Failure::silent).local.emplace();
  local.is_running = local.is_working = true;
  scene.replica(0).link->last_io_s = 14;
  scene.cut_off(0);
  CHECK(judged(scene).state == RedisState::master_overloaded);
  CHECK(says(judged(scene), "works on one command"));
  scene.node("redis-b").link->last_io_s = 15;
  CHECK(judged(scene).state == RedisState::master_silent);
  scene.node("redis-b").link->last_io_s = 5;
  scene.node("redis-a").local->is_working = false;
  CHECK(judged(scene).state == RedisState::master_silent);
}

TEST_CASE("another host that reaches a silent master speaks for it") {
  RedisScene scene;
  scene.gone(Failure::no_answer);
  scene.cut_off(0);
  scene.snapshot.testimonies.push_back({"host-b", false, "connection refused"});
  CHECK(judged(scene).state == RedisState::master_silent);
  scene.snapshot.testimonies.push_back({"host-c", true, "answers"});
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::master_unreachable);
  CHECK(says(verdict, "host-c reaches it"));
}

TEST_CASE("a master that says something is never dead") {
  const struct {
    Failure failure;
    RedisState state;
  } table[] = {{Failure::loading, RedisState::master_loading},
               {Failure::too_many_clients, RedisState::master_overloaded},
               {Failure::busy, RedisState::master_overloaded},
               {Failure::auth, RedisState::unknown},
               {Failure::permission, RedisState::unknown},
               {Failure::protected_mode, RedisState::unknown},
               {Failure::broken, RedisState::unknown},
               {Failure::not_redis, RedisState::unknown},
               {Failure::resolve, RedisState::unknown},
               {Failure::error, RedisState::unknown}};
  for (const auto& row : table) {
    CAPTURE(redis::name_of(row.failure));
    RedisScene scene;
    scene.gone(row.failure);
    scene.cut_off(0);
    const auto verdict = judged(scene);
    CHECK(verdict.state == row.state);
    CHECK(verdict.master == "redis-a");
    CHECK_FALSE(calls_for_failover(verdict.state));
    CHECK_FALSE(verdict.hint.empty());
  }
}

TEST_CASE("what keeps a master from taking writes, or a replica from following, is named") {
  using Change = void (*)(RedisScene&);
  const struct {
    const char* words;
    Change change;
  } table[] = {{"redis-a cannot save its data set (MISCONF)",
                [](RedisScene& s) { s.node("redis-a").persistence.last_save_ok = false; }},
               {"redis-a cannot write its AOF (MISCONF)",
                [](RedisScene& s) {
                  s.node("redis-a").persistence.aof = true;
                  s.node("redis-a").persistence.aof_last_write_ok = false;
                }},
               {"redis-a cannot rewrite its AOF",
                [](RedisScene& s) {
                  s.node("redis-a").persistence.aof = true;
                  s.node("redis-a").persistence.aof_last_rewrite_ok = false;
                }},
               {"redis-a uses 950 B of its maxmemory of 1000 B",
                [](RedisScene& s) {
                  s.node("redis-a").memory_max = 1000;
                  s.node("redis-a").memory_used = 950;
                }},
               {"redis-a has 9999 of 10000 clients",
                [](RedisScene& s) {
                  s.node("redis-a").clients = 9999;
                  s.node("redis-a").clients_max = 10000;
                }},
               {"redis-c: its settings are not known",
                [](RedisScene& s) { s.node("redis-c").warnings = {"its settings are not known"}; }},
               {"redis-b is not linked to redis-a for 12 s",
                [](RedisScene& s) {
                  s.node("redis-b").link->is_up = false;
                  s.node("redis-b").link->down_for_s = 12;
                }},
               {"takes no writes (OOM)",
                [](RedisScene& s) {
                  s.node("redis-a").memory_max = s.node("redis-a").memory_used = 1 << 20;
                  s.node("redis-a").memory_policy = "noeviction";
                }},
               {"takes no writes (NOREPLICAS): 0 of the 1",
                [](RedisScene& s) {
                  s.node("redis-a").min_replicas_to_write = 1;
                  s.node("redis-a").min_replicas_good = 0;
                }},
               {"redis-a is handing over",
                [](RedisScene& s) { s.node("redis-a").paused_by_failover = true; }},
               {"redis-b is not linked to redis-a",
                [](RedisScene& s) { s.node("redis-b").link->is_up = false; }},
               {"redis-b is in a full resync, 1 MiB to go",
                [](RedisScene& s) {
                  s.node("redis-b").link->is_syncing = true;
                  s.node("redis-b").link->sync_left_bytes = 1 << 20;
                }},
               {"redis-b follows 10.9.9.9:6379 and not redis-a",
                [](RedisScene& s) { s.node("redis-b").link->master_host = "10.9.9.9"; }},
               {"redis-b follows redis-c and not redis-a",
                [](RedisScene& s) {
                  s.node("redis-b").link->master_host = "10.0.0.3";
                  s.node("redis-c").link->is_up = false;
                }},
               {"redis-b follows nobody", [](RedisScene& s) { s.node("redis-b").link.reset(); }},
               {"redis-b is of another line (22222222), at a higher offset, than redis-a",
                [](RedisScene& s) {
                  s.node("redis-b").lineage = {test::kOtherLine, test::kNoLine, -1, 9000};
                  s.node("redis-b").keys = 10;
                }},
               {"redis-b takes writes of its own",
                [](RedisScene& s) { s.node("redis-b").is_read_only = false; }},
               {"redis-b is loading its data set",
                [](RedisScene& s) { s.node("redis-b").failure = Failure::loading; }},
               {"redis-b: connection refused",
                [](RedisScene& s) { s.node("redis-b").failure = Failure::refused; }},
               {"redis-b is fenced", [](RedisScene& s) {
                  s.node("redis-b").failure = Failure::refused;
                  s.node("redis-b").local.emplace().fenced = true;
                }}};
  for (const auto& row : table) {
    CAPTURE(row.words);
    RedisScene scene;
    scene.master();
    scene.replica(0);
    scene.replica(0);
    row.change(scene);
    const auto verdict = judged(scene);
    CHECK(verdict.state == RedisState::degraded);
    CHECK(verdict.master == "redis-a");
    CHECK_MESSAGE(says(verdict, row.words), join(verdict.problems, " | "));
  }
  // A cache whose memory is full does what it is there for.
  RedisScene cache;
  cache.master().memory_policy = "allkeys-lru";
  cache.node("redis-a").memory_max = cache.node("redis-a").memory_used = 1 << 20;
  CHECK(judged(cache).state == RedisState::healthy);
}

TEST_CASE("what is wrong elsewhere is named too where there is no master, or more than one") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.cut_off(0, 5000, 12);
  scene.replica(0).persistence.last_save_ok = false;
  scene.node("redis-c").link->is_up = false;
  auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::master_dead);
  CHECK(verdict.hint == "zx failover redis --dry-run says what can be done");
  CHECK(says(verdict, "redis-b is not linked to redis-a for 12 s"));
  CHECK(says(verdict, "redis-c cannot save its data set"));
  REQUIRE(verdict.hints.size() == 2);
  CHECK(verdict.hints[1].find("make room") != std::string::npos);

  scene.node("redis-a").failure = Failure::none;
  scene.node("redis-a").role = Role::master;
  scene.node("redis-b").role = Role::master;
  verdict = judged(scene);
  CHECK(verdict.state == RedisState::several_masters);
  CHECK(says(verdict, "redis-c cannot save its data set"));
}

TEST_CASE("a master that restarted without its data is named before anybody follows it") {
  RedisScene scene;
  auto& master = scene.master(0);
  master.run_id = "run-new";
  master.lineage = {test::kOtherLine, test::kNoLine, -1, 0};
  master.keys = 3;
  scene.cut_off(0);
  scene.last_master("redis-a");
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::master_reborn_empty);
  CHECK(verdict.master == "redis-a");
  CHECK(says(verdict, "redis-a restarted with 3 keys and had 1000"));
  CHECK(verdict.hint.find("--to redis-b") != std::string::npos);
  CHECK(calls_for_failover(verdict.state));

  SUBCASE("also when nobody had looked before") {
    scene.last.reset();
    CHECK(judged(scene).state == RedisState::master_reborn_empty);
    // One that lost its link long before has keys of who knows when.
    scene.node("redis-b").link->down_for_s = 500;
    CHECK(judged(scene).state == RedisState::degraded);
    scene.node("redis-b").link->down_for_s.reset();
    CHECK(judged(scene).state == RedisState::degraded);
  }
  SUBCASE("not when it has its keys") {
    scene.node("redis-a").keys = 990;
    CHECK(judged(scene).state == RedisState::degraded);
  }
  SUBCASE("not when it went on with its line") {
    scene.node("redis-a").lineage = {test::kOtherLine, test::kLine, 5001, 5000};
    CHECK(judged(scene).state == RedisState::degraded);
  }
  SUBCASE("not when it was flushed on purpose, by the process that was seen") {
    scene.node("redis-a").run_id = "run-redis-a";
    scene.node("redis-b").lineage = scene.node("redis-a").lineage;
    CHECK(judged(scene).state != RedisState::master_reborn_empty);
  }
  SUBCASE("when no replica has its data any more, the backup is the way") {
    scene.node("redis-b").lineage = scene.node("redis-a").lineage;
    scene.node("redis-b").keys = 0;
    const auto late = judged(scene);
    CHECK(late.state == RedisState::master_reborn_empty);
    CHECK(says(late, "the data are gone: redis-a came back with 3 keys and had 1000 ("));
    CHECK(late.hint == "no replica has kept its data: zx redis restore FILE --target redis-a");
    REQUIRE(late.hints.size() > 1);
    CHECK(late.hints[1] == "when it is meant to be empty: zx redis sync --all --confirm redis-a");
  }
}

TEST_CASE("two that say they are masters are told apart by their line, then by their replicas") {
  RedisScene scene;
  scene.master();
  scene.master(6000).lineage = {test::kOtherLine, test::kNoLine, -1, 6000};
  scene.replica(0);
  SUBCASE("by the line that was seen last") {
    scene.last_master("redis-a");
    const auto verdict = judged(scene);
    CHECK(verdict.state == RedisState::several_masters);
    CHECK(verdict.master == "redis-a");
    CHECK(says(verdict, "redis-b says that it is a master"));
  }
  SUBCASE("by who follows whom") { CHECK(judged(scene).master == "redis-a"); }
  SUBCASE("and not at all when nothing tells") {
    scene.node("redis-c").link->is_up = false;
    const auto verdict = judged(scene);
    CHECK(verdict.master.empty());
    CHECK_FALSE(calls_for_failover(verdict.state));
  }
}

TEST_CASE("one that poses as the master beside the line of a dead one is no reason to act") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.master(10).lineage = {test::kOtherLine, test::kNoLine, -1, 10};
  scene.cut_off(0);
  scene.last_master("redis-a");
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::unknown);
  CHECK(says(verdict, "redis-b says that it is the master, but its line 22222222"));
}

TEST_CASE(
    "one that was told to be the master has not taken over from a dead one without its keys") {
  RedisScene scene;
  scene.gone(Failure::refused);
  auto& other = scene.master(5100);
  other.lineage = {test::kOtherLine, test::kLine, 5001, 5100};
  other.keys = 1;
  auto& waiting = scene.cut_off(0);
  scene.last_master("redis-a");
  auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::unknown);
  CHECK(verdict.master == "redis-a");
  CHECK(says(verdict, "redis-c, which still waits for redis-a, has 1000 keys"));
  SUBCASE("when it has them it is the master") {
    scene.node("redis-b").keys = 900;
    CHECK(judged(scene).master == "redis-b");
  }
  SUBCASE("but not with its keys alone: it left the line before its end") {
    scene.node("redis-b").keys = 1000;
    waiting.lineage.offset = 5100;
    verdict = judged(scene);
    CHECK(verdict.state == RedisState::unknown);
    CHECK(verdict.master == "redis-a");
    CHECK(says(verdict, "redis-c, which still waits for redis-a, has 100 B more of its stream"));
    SUBCASE("and when the old one is back it is the right one, which replicas wait for") {
      auto& back = scene.node("redis-a");
      back = scene.node("redis-b");
      back.name = "redis-a";
      back.address = "10.0.0.1";
      back.lineage = waiting.lineage;
      CHECK(judged(scene).master == "redis-a");
      scene.node("redis-c").link->master_host = "10.0.0.2";
      CHECK(judged(scene).master.empty());
    }
    SUBCASE("unless the Sentinels have chosen it") {
      redis::SentinelFacts sentinel;
      sentinel.failure = Failure::none;
      sentinel.knows_master = true;
      sentinel.master_host = "10.0.0.2";
      sentinel.master_port = 6379;
      scene.snapshot.sentinels.push_back(sentinel);
      CHECK(judged(scene).master == "redis-b");
    }
  }
  SUBCASE("and is not the right one of two") {
    auto& back = scene.node("redis-a");
    back = scene.node("redis-b");
    back.name = "redis-a";
    back.address = "10.0.0.1";
    back.lineage = {"3333333333333333333333333333333333333333", test::kNoLine, -1, 14};
    back.keys = 1000;
    waiting.link->is_up = true;
    CHECK(judged(scene).master == "redis-a");
  }
}

TEST_CASE("a promoted replica goes on with the line and is the master") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.master(5100).lineage = {test::kOtherLine, test::kLine, 5001, 5100};
  scene.replica(1, 5100).lineage = {test::kOtherLine, test::kLine, 5001, 5100};
  scene.last_master("redis-a");
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::degraded);
  CHECK(verdict.master == "redis-b");
}

TEST_CASE("which node was the master is told by what it was, then by those that follow it") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.gone(Failure::refused);
  scene.cut_off(0);
  CHECK(judged(scene).master == "redis-a");
  scene.last_master("redis-b");
  CHECK(judged(scene).master == "redis-a");  // its replica knows better than an old look
  scene.node("redis-c").link.reset();
  CHECK(judged(scene).master == "redis-b");
  scene.last.reset();
  CHECK(judged(scene).state == RedisState::unknown);
}

TEST_CASE("where no node answers nobody is taken for the master, unless one was seen as it") {
  RedisScene scene;
  scene.gone(Failure::refused);
  scene.gone(Failure::no_answer);
  CHECK(judged(scene).state == RedisState::unreachable);
  CHECK_FALSE(calls_for_failover(judged(scene).state));
  scene.last_master("redis-a");
  CHECK(judged(scene).state == RedisState::master_dead);
}

TEST_CASE("replicas without a master, and with one elsewhere") {
  RedisScene scene;
  scene.cut_off(1);
  scene.cut_off(0);
  CHECK(judged(scene).state == RedisState::no_master);
  scene.last_master("redis-b");
  CHECK(judged(scene).master == "redis-b");
  scene.node("redis-a").link->master_host = "10.9.9.9";
  scene.node("redis-a").link->is_up = true;
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::unknown);
  CHECK(says(verdict, "10.9.9.9:6379, which is none of the nodes"));
}

TEST_CASE("Sentinels that are gone, disagree or list phantoms are named") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  for (int i = 0; i < 3; ++i) scene.sentinel(0);
  CHECK(judged(scene).state == RedisState::healthy);
  CHECK(why_no_quorum(scene.deployment, scene.snapshot).empty());

  scene.snapshot.sentinels[1].master_host = "10.0.0.2";
  CHECK(says(judged(scene), "Sentinel 10.0.1.2:26379 takes redis-b for the master"));
  scene.snapshot.sentinels[0].replicas.push_back({"127.0.0.1", 0, {}, "", true});
  CHECK(says(judged(scene), "keeps replicas that do not exist: 127.0.0.1:0"));
  CHECK(judged(scene).hint.find("SENTINEL RESET shop") == 0);
  scene.snapshot.sentinels[0].flags = {"master", "s_down", "o_down"};
  CHECK(says(judged(scene), "Sentinel 10.0.1.1:26379 and others get no answer of redis-a"));
  scene.snapshot.sentinels[0].other_sentinels = 1;
  CHECK(says(judged(scene), "knows 1 other Sentinels, zx.toml has 2"));
  scene.snapshot.sentinels[1].knows_master = false;
  CHECK(says(judged(scene), "Sentinel 10.0.1.2:26379 does not watch shop"));
  scene.snapshot.sentinels[1].knows_master = true;
  scene.snapshot.sentinels[2].failure = Failure::refused;
  CHECK(judged(scene).state == RedisState::degraded);
  CHECK(why_no_quorum(scene.deployment, scene.snapshot).empty());

  const auto hints_with = [&](const char* words) {
    const auto hints = judged(scene).hints;
    return std::count_if(hints.begin(), hints.end(),
                         [&](const auto& hint) { return hint.find(words) != std::string::npos; });
  };
  CHECK(hints_with("restart the Sentinels that do not answer") == 1);
  scene.snapshot.sentinels[1].failure = Failure::silent;
  CHECK(hints_with("restart the Sentinels that do not answer") == 1);
  scene.snapshot.sentinels[1].failure = Failure::auth;
  CHECK(hints_with("mend user and password_file of the Sentinels") == 1);
  scene.snapshot.sentinels[1].failure = Failure::none;

  // It still counts the two that stopped a moment ago.
  CHECK(why_no_quorum(scene.deployment, scene.snapshot).empty());
  scene.snapshot.sentinels[1].failure = Failure::silent;
  CHECK(why_no_quorum(scene.deployment, scene.snapshot)
            .find("only 1 of 3 Sentinels can be asked, which is no majority: 10.0.1.2:26379 (") ==
        0);
  CHECK(way_to_a_quorum(scene.deployment, scene.snapshot).find("start the Sentinels") == 0);
  scene.snapshot.sentinels[1].failure = Failure::auth;
  CHECK(way_to_a_quorum(scene.deployment, scene.snapshot).find("they run, and refuse zx") == 0);
  scene.snapshot.sentinels[1].failure = Failure::none;

  for (auto& one : scene.snapshot.sentinels) {
    one.has_quorum = false;
    one.quorum_text = "NOQUORUM 1 usable Sentinels. Not enough available Sentinels";
  }
  const auto why = why_no_quorum(scene.deployment, scene.snapshot);
  CHECK(why.find("no Sentinel has a quorum") != std::string::npos);
  CHECK(why.find("NOQUORUM 1 usable") != std::string::npos);
}

TEST_CASE("a Sentinel that waits for a day is named, with what mends it") {
  RedisScene scene;
  scene.master();
  scene.replica(0);
  scene.sentinel(0).down_after = std::chrono::hours(1) - Millis(1);
  CHECK(judged(scene).state == RedisState::healthy);
  scene.snapshot.sentinels.front().down_after = std::chrono::hours(24);
  const auto verdict = judged(scene);
  CHECK(verdict.state == RedisState::degraded);
  CHECK(says(verdict, "before it takes the master for dead"));
  CHECK(verdict.hint.starts_with("SENTINEL SET shop down-after-milliseconds"));
}

TEST_CASE("a master that wants more replicas than there are is not for sync to mend") {
  RedisScene scene;
  scene.master().min_replicas_to_write = 2;
  scene.replica(0);
  scene.node("redis-a").min_replicas_good = 1;
  CHECK(judged(scene).hint.find("min-replicas-to-write") != std::string::npos);
  scene.node("redis-a").min_replicas_to_write = 1;
  scene.node("redis-a").min_replicas_good = 0;
  CHECK(judged(scene).hint.find("zx redis sync") != std::string::npos);
}

}  // namespace
}  // namespace zx::ha
