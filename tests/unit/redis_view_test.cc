// What a look at a Redis deployment is said to be.
#include "commands/redis_view.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "lib/base/text.h"

namespace zx::commands {
namespace {

using redis::Failure;
using redis::Role;

// Three nodes on hosts of their own, one after the other; everything is well until a test says
// else.
struct Scene {
  config::RedisDeployment deployment;
  redis::Snapshot snapshot;

  explicit Scene(int sentinels = 0) {
    deployment.name = "cache";
    for (const auto* name : {"a", "b", "c"}) {
      auto& facts = snapshot.nodes.emplace_back();
      facts.name = name;
      facts.address = fmt::format("10.0.0.{}", snapshot.nodes.size());
      facts.failure = Failure::none;
      facts.role = Role::replica;
      facts.lineage = {"r1", "", -1, 100};
      facts.link = redis::Link{"10.0.0.1", 6379, true, 1, {}, false, {}};
    }
    node("a").role = Role::master;
    node("a").link.reset();
    if (sentinels > 0) deployment.sentinel.master_name = "cache";
    for (int i = 0; i < sentinels; ++i) {
      deployment.sentinel.nodes.push_back(fmt::format("10.0.0.{}:26379", i + 1));
      auto& facts = snapshot.sentinels.emplace_back();
      facts.address = fmt::format("10.0.0.{}", i + 1);
      facts.failure = Failure::none;
      facts.knows_master = true;
      facts.master_host = "10.0.0.1";
      facts.master_port = 6379;
      facts.has_quorum = true;
      facts.other_sentinels = sentinels - 1;
    }
  }
  redis::NodeFacts& node(const std::string& name) {
    return *std::find_if(snapshot.nodes.begin(), snapshot.nodes.end(),
                         [&](const auto& one) { return one.name == name; });
  }
  void fail(const std::string& name, Failure why) {
    auto& facts = node(name);
    facts.failure = why;
    facts.role = Role::unknown;
    facts.error.message = name + ": " + redis::says(why);
  }
  [[nodiscard]] RedisView view() const { return redis_view(deployment, snapshot); }
};

std::string state_word(const RedisView& view, const std::string& name) {
  return state_of(view, *view.snapshot.node(name)).word;
}

TEST_CASE("a deployment that is well has nothing to say but who is the master") {
  const auto view = Scene(3).view();
  CHECK(view.is_healthy());
  CHECK(view.problems.empty());
  CHECK(view.summary == "master a, 2 of 2 replicas linked, Sentinel agrees (3 of 3)");
  CHECK(state_word(view, "a") == "ok");
  CHECK(state_word(view, "b") == "linked");
  CHECK(followed_by(view, *view.snapshot.node("b")) == "a");
  CHECK(Scene(0).view().summary == "master a, 2 of 2 replicas linked");
}

TEST_CASE("what is wrong with a node is said in a sentence") {
  struct Case {
    const char* says;
    void (*change)(Scene&);
  };
  const std::vector<Case> cases{
      {"b: connection refused", [](Scene& s) { s.fail("b", Failure::refused); }},
      {"b follows 10.9.9.9:6379, none of this deployment",
       [](Scene& s) { s.node("b").link->master_host = "10.9.9.9"; }},
      {"b follows c, not the master a",
       [](Scene& s) {
         s.node("b").link->master_host = "10.0.0.3";
         s.node("c").link->is_up = false;
       }},
      {"b copies the whole data set of a, 1 KiB left",
       [](Scene& s) {
         s.node("b").link->is_up = false;
         s.node("b").link->is_syncing = true;
         s.node("b").link->sync_left_bytes = 1024;
       }},
      {"b has no link to a for 12 s",
       [](Scene& s) {
         s.node("b").link->is_up = false;
         s.node("b").link->down_for_s = 12;
       }},
      {"b has another history than a",
       [](Scene& s) {
         s.node("b").link->is_up = false;
         s.node("b").lineage.replid = "r2";
         s.node("b").lineage.offset = 500;
       }},
      {"b takes writes although it is a replica",
       [](Scene& s) { s.node("b").is_read_only = false; }},
      {"a takes no writes: 1 good replicas of at least 2",
       [](Scene& s) {
         s.node("a").min_replicas_to_write = 2;
         s.node("a").min_replicas_good = 1;
       }},
      {"a could not save", [](Scene& s) { s.node("a").persistence.last_save_ok = false; }},
      {"a cannot write to its AOF",
       [](Scene& s) { s.node("a").persistence.aof_last_write_ok = false; }},
      {"a uses 950 B of maxmemory 1000 B",
       [](Scene& s) {
         s.node("a").memory_max = 1000;
         s.node("a").memory_used = 950;
       }},
      {"a has 9999 of 10000 clients",
       [](Scene& s) {
         s.node("a").clients = 9999;
         s.node("a").clients_max = 10000;
       }},
      {"a failover is under way on a", [](Scene& s) { s.node("a").paused_by_failover = true; }},
      {"c: its settings are not known",
       [](Scene& s) { s.node("c").warnings = {"its settings are not known"}; }},
  };
  for (const auto& one : cases) {
    CAPTURE(one.says);
    Scene scene;
    one.change(scene);
    const auto view = scene.view();
    CHECK(view.state == "degraded");
    const bool is_said =
        std::any_of(view.problems.begin(), view.problems.end(),
                    [&](const auto& problem) { return problem.starts_with(one.says); });
    CHECK_MESSAGE(is_said, join(view.problems, "\n"));
  }
}

TEST_CASE("none, several and no reachable master are different states") {
  Scene none;
  none.fail("a", Failure::silent);
  CHECK(none.view().state == "no_master");
  CHECK(none.view().master() == nullptr);

  Scene several;
  several.node("b").role = Role::master;
  several.node("b").link.reset();
  CHECK(several.view().state == "several_masters");
  CHECK(several.view().summary == "a and b both take writes as masters");
  CHECK(several.view().master() == nullptr);

  Scene dark;
  for (const auto* name : {"a", "b", "c"}) dark.fail(name, Failure::no_answer);
  CHECK(dark.view().state == "unreachable");

  Scene loading;
  loading.node("a").failure = Failure::loading;
  CHECK(loading.view().state == "no_master");
  CHECK(state_word(loading.view(), "a") == "loading");
}

TEST_CASE("a replica is so many bytes behind, unless it has another history") {
  Scene scene;
  scene.node("b").lineage.offset = 60;
  scene.node("c").lineage.offset = 130;  // it was asked a moment later
  auto view = scene.view();
  CHECK(bytes_behind(view, *view.snapshot.node("b")) == 40);
  CHECK(bytes_behind(view, *view.snapshot.node("c")) == 0);
  CHECK_FALSE(bytes_behind(view, *view.snapshot.node("a")).has_value());
  scene.node("b").lineage.replid = "r2";
  view = scene.view();
  CHECK_FALSE(bytes_behind(view, *view.snapshot.node("b")).has_value());
}

TEST_CASE("what Sentinels say is summed up, and each that stands out is named") {
  struct Case {
    const char* summary;
    const char* problem;
    void (*change)(Scene&);
  };
  const std::vector<Case> cases{
      {"Sentinels disagree: a or b", "Sentinel 10.0.0.2:26379 takes b for the master",
       [](Scene& s) { s.snapshot.sentinels[1].master_host = "10.0.0.2"; }},
      {"Sentinels disagree: 10.9.9.9:6379 or a", "takes 10.9.9.9:6379 for the master",
       [](Scene& s) { s.snapshot.sentinels[1].master_host = "10.9.9.9"; }},
      {"Sentinel says b", "takes b for the master",
       [](Scene& s) {
         for (auto& one : s.snapshot.sentinels) one.master_host = "10.0.0.2";
       }},
      {"Sentinel has no quorum", "NOQUORUM 1 usable",
       [](Scene& s) {
         s.snapshot.sentinels[0].has_quorum = false;
         s.snapshot.sentinels[0].quorum_text = "NOQUORUM 1 usable Sentinels";
       }},
      {"Sentinel agrees (2 of 3)", "Sentinel 10.0.0.2:26379 does not watch cache",
       [](Scene& s) { s.snapshot.sentinels[1].knows_master = false; }},
      {"Sentinel agrees (2 of 3)", "gone",
       [](Scene& s) {
         s.snapshot.sentinels[2].failure = Failure::refused;
         s.snapshot.sentinels[2].error.message = "gone";
       }},
      {"no Sentinel answers", "",
       [](Scene& s) {
         for (auto& one : s.snapshot.sentinels) one.failure = Failure::refused;
       }},
      {"Sentinel agrees (3 of 3)", "knows 1 other Sentinels, zx.toml has 2",
       [](Scene& s) { s.snapshot.sentinels[0].other_sentinels = 1; }},
      {"Sentinel agrees (3 of 3)", "says of a: s_down",
       [](Scene& s) {
         s.snapshot.sentinels[0].flags = {"master", "s_down"};
       }},
      {"Sentinel agrees (3 of 3)", "keeps replicas that do not exist: 127.0.0.1:0",
       [](Scene& s) {
         s.snapshot.sentinels[0].replicas.push_back({"127.0.0.1", 0, {}, "", true});
       }},
  };
  for (const auto& one : cases) {
    CAPTURE(one.problem);
    Scene scene(3);
    one.change(scene);
    const auto view = scene.view();
    CHECK(view.state == "degraded");
    CHECK_MESSAGE(view.summary.ends_with(one.summary), view.summary);
    const bool is_said = std::any_of(
        view.problems.begin(), view.problems.end(),
        [&](const auto& problem) { return problem.find(one.problem) != std::string::npos; });
    CHECK_MESSAGE(is_said, join(view.problems, "\n"));
  }
}

}  // namespace
}  // namespace zx::commands
