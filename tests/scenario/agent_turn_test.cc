// Persons on several hosts and an agent, coordinated by real etcd: of all of them one is at work.
#include <atomic>
#include <thread>

#include "lib/coord/etcd_shared.h"
#include "tests/scenario/agent.h"

namespace zx {
namespace {

using test::Cluster;
using test::EtcdServers;
using test::eventually;
using test::Halted;
using test::HostAgent;
using test::says;

// A person on a host with a state directory of its own.
class Person {
 public:
  Person(const Cluster& cluster, const std::string& name)
      : cluster_(cluster), state_dir_(cluster.beside("state-" + name)) {}
  os::ProcessResult zx(std::vector<std::string> words) const {
    os::ProcessOptions options;
    options.environment.emplace_back("ZX__PLATFORM__STATE_DIR", state_dir_);
    return cluster_.zx(std::move(words), options);
  }
  [[nodiscard]] std::vector<run::Record> runs() const {
    const auto runs = run::list_runs(state_dir_, 1000);
    REQUIRE_MESSAGE(runs.has_value(), test::why(runs));
    return runs->runs;
  }

 private:
  const Cluster& cluster_;
  std::string state_dir_;
};

// Another person's run, as long as it lives.
std::unique_ptr<coord::Lease> somebody_at_work(const Cluster& cluster) {
  const auto config = config::load(cluster.config());
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  const auto shared = coord::shared_of(*config);
  REQUIRE_MESSAGE(shared.has_value(), test::why(shared));
  auto turn = (*shared)->take_turn("pg.main", "zx switchover pg", false);
  REQUIRE_MESSAGE(turn.has_value(), test::why(turn));
  return *std::move(turn);
}

struct Scene {
  EtcdServers etcd;
  Cluster cluster;
  Scene() { test::coordinate_by(cluster, etcd); }
};

// Nothing but `primary` accepts writes, and it was promoted once since `timeline`.
void check_promoted_once(const Cluster& cluster, const std::string& from, int timeline) {
  const auto primary = test::the_primary(cluster);
  CHECK(primary != from);
  CHECK(test::timeline_of(cluster, primary) == timeline + 1);
}

TEST_CASE("while somebody is at work on another host nobody else begins, and everybody says who") {
  Scene scene;
  const auto& cluster = scene.cluster;
  const Person here(cluster, "here");
  auto turn = somebody_at_work(cluster);
  cluster.kill("pg-a");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"failover", "pg", "--yes"},
                                                {"failover", "pg", "--dry-run"},
                                                {"failover", "pg", "--yes", "--assume-alone"},
                                                {"switchover", "pg", "--to", "pg-b", "--yes"},
                                                {"rejoin", "pg", "pg-a", "--dry-run"}}) {
    CAPTURE(join(words, " "));
    const auto result = here.zx(words);
    CHECK(result.exit == 5);
    CHECK(says(result.err, "zx switchover pg on host"));
    CHECK(says(result.err, fmt::format("(pid {}, since ", getpid())));
    CHECK(says(result.err, "is at work on pg.main"));
  }
  const auto status = here.zx({"status"});
  CHECK_MESSAGE(says(status.out, "zx switchover pg on host "), status.out);
  CHECK_MESSAGE(!says(status.out, "next: "), status.out);
  CHECK(here.runs().empty());
  CHECK(cluster.writable().empty());
  CHECK((turn->check()).has_value());
  turn.reset();  // given back: nobody waits for a lease to run out
  CHECK_FALSE(says(here.zx({"status"}).out, "is at work"));
  const auto result = here.zx({"failover", "pg", "--yes"});
  CHECK_MESSAGE(result.exit == 0, result.err);
  check_promoted_once(cluster, "pg-a", 1);
}

TEST_CASE("an agent waits for a person's run, says so once, and acts when that has ended") {
  Scene scene;
  const auto& cluster = scene.cluster;
  HostAgent agent(cluster, "first");
  REQUIRE(agent.leads());
  REQUIRE(agent->becomes_healthy());
  auto turn = somebody_at_work(cluster);
  cluster.kill("pg-a");
  REQUIRE(eventually([&] { return says(agent->text("/status"), "is at work on pg.main"); }));
  const auto looks = agent->looks();
  REQUIRE(eventually([&] { return agent->looks() > looks + 10; }));
  CHECK(cluster.writable().empty());
  CHECK(agent.failovers().empty());
  turn.reset();
  REQUIRE(eventually([&] { return agent->primary() != "pg-a" && !agent->primary().empty(); }));
  REQUIRE(agent->becomes_healthy());
  test::check_served(cluster, agent->primary());
  check_promoted_once(cluster, "pg-a", 1);
  CHECK(agent.failovers().size() == 1);
  // The turn of the agent's runs is given back too, while the agent lives.
  const Person here(cluster, "here");
  const auto moved = here.zx({"switchover", "pg", "--to", "pg-a", "--yes"});
  CHECK_MESSAGE(moved.exit == 0, moved.err);
  agent->stop();
  std::size_t said = 0;
  for (const auto& line : test::lines_of(agent->log()))
    if (says(line, "failover: zx switchover pg on host")) ++said;
  CHECK(said == 1);
}

TEST_CASE("two persons on two hosts at the same time: one promotes, the other changes nothing") {
  Scene scene;
  const auto& cluster = scene.cluster;
  const std::vector<Person> persons{Person(cluster, "one"), Person(cluster, "two")};
  test::Sampler sampler(cluster);
  cluster.kill("pg-a");
  std::vector<os::ProcessResult> results(2);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 2; ++i)
    threads.emplace_back([&, i] { results[i] = persons[i].zx({"failover", "pg", "--yes"}); });
  for (auto& thread : threads) thread.join();
  const std::size_t winner = results[0].exit == 0 ? 0 : 1;
  const auto& lost = results[1 - winner];
  CHECK_MESSAGE(results[winner].exit == 0, results[winner].err);
  // Refused: it came when the other had ended.
  CHECK_MESSAGE((lost.exit == 5 || lost.exit == 3), lost.err);
  CHECK(persons[winner].runs().size() == 1);
  CHECK(persons[1 - winner].runs().empty());
  check_promoted_once(cluster, "pg-a", 1);
  CHECK(sampler.finish().empty());
}

TEST_CASE("a person and an agent at the same time: one promotes") {
  Scene scene;
  const auto& cluster = scene.cluster;
  HostAgent agent(cluster, "first");
  REQUIRE(agent.leads());
  REQUIRE(agent->becomes_healthy());
  const Person here(cluster, "here");
  test::Sampler sampler(cluster);
  cluster.kill("pg-a");
  const auto result = here.zx({"failover", "pg", "--yes"});
  CHECK_MESSAGE((result.exit == 0 || result.exit == 5 || result.exit == 3), result.err);
  CHECK(here.runs().size() == (result.exit == 0 ? 1 : 0));
  REQUIRE(eventually([&] { return !cluster.writable().empty(); }));
  REQUIRE(agent->becomes_healthy());
  test::check_served(cluster, agent->primary());
  check_promoted_once(cluster, "pg-a", 1);
  CHECK(sampler.finish().empty());
  agent->stop();
}

TEST_CASE("a person's run that was killed is in nobody's way when its lease has run out") {
  Scene scene;
  const auto& cluster = scene.cluster;
  const Person other(cluster, "other");
  // The primary is stopped, and nobody promoted.
  Halted halted(cluster, 5, {"switchover", "pg", "--to", "pg-b", "--yes"});
  REQUIRE(test::last_event(cluster) == "step-done stop");
  halted.kill();
  const auto first = other.zx({"failover", "pg", "--yes"});
  CHECK_MESSAGE(first.exit == 5, first.err);
  CHECK(says(first.err, fmt::format("(pid {}, since ", halted.run().pid)));
  os::ProcessResult result;
  REQUIRE(eventually([&] {
    result = other.zx({"failover", "pg", "--yes"});
    return result.exit != 5;
  }));
  CHECK_MESSAGE(result.exit == 0, result.err);
  check_promoted_once(cluster, "pg-a", 1);
  const auto before = test::roles_on_disk(cluster);
  const auto back = cluster.zx({"runs", "abort", halted.run().id});
  CHECK_MESSAGE(back.exit != 0, back.out);
  CHECK(test::roles_on_disk(cluster) == before);
}

TEST_CASE("a person's run that stood still for longer than its lease does nothing more") {
  Scene scene;
  const auto& cluster = scene.cluster;
  const Person other(cluster, "other");
  cluster.kill("pg-a");
  int line = 0;
  std::string words;
  SUBCASE("before it has taken anything from anybody") {
    line = 2;
    words = "step-start freeze";
  }
  SUBCASE("right before the promotion") {
    line = 10;
    words = "no-return promote";
  }
  test::Sampler sampler(cluster);
  Halted halted(cluster, line, {"failover", "pg", "--yes"});
  REQUIRE(test::last_event(cluster) == words);
  os::ProcessResult result;
  REQUIRE(eventually([&] {
    result = other.zx({"failover", "pg", "--yes"});
    return result.exit != 5;
  }));
  CHECK_MESSAGE(result.exit == 0, result.err);
  check_promoted_once(cluster, "pg-a", 1);
  const auto before = test::roles_on_disk(cluster);
  const auto held = test::receivers(cluster);
  halted.go_on();
  CHECK(halted.finish() == 4);
  CHECK(says(halted.output(), "the turn of pg.main has run out"));
  CHECK(says(halted.output(), halted.run().id));
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(test::receivers(cluster) == held);
  // Nor can it be taken up or back any more, only ended as it is.
  for (const char* what : {"resume", "abort"}) {
    const auto ended = cluster.zx({"runs", what, halted.run().id});
    CHECK(ended.exit == 3);
    CHECK_MESSAGE(says(ended.err, "came after it"), ended.err);
  }
  CHECK(test::receivers(cluster) == held);
  CHECK(cluster.zx({"runs", "abort", halted.run().id, "--as-is"}).exit == 0);
  check_promoted_once(cluster, "pg-a", 1);
  CHECK(sampler.finish().empty());
}

TEST_CASE("without etcd a person's run is refused, and goes on by his word alone") {
  Scene scene;
  const auto& cluster = scene.cluster;
  const Person here(cluster, "here");
  scene.etcd.kill(0);
  cluster.kill("pg-a");
  const auto before = test::roles_on_disk(cluster);
  for (const auto& words : {std::vector<std::string>{"failover", "pg", "--yes"},
                            {"failover", "pg", "--dry-run"},
                            {"rejoin", "pg", "pg-a", "--yes"}}) {
    CAPTURE(join(words, " "));
    const auto result = here.zx(words);
    CHECK(result.exit == 7);
    CHECK(says(result.err, "--assume-alone"));
  }
  CHECK(here.runs().empty());
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(here.zx({"failover", "pg", "--dry-run", "--assume-alone"}).exit == 0);
  CHECK(here.runs().empty());

  const auto result = here.zx({"failover", "pg", "--yes", "--assume-alone"});
  CHECK_MESSAGE(result.exit == 0, result.err);
  check_promoted_once(cluster, "pg-a", 1);
  REQUIRE(here.runs().size() == 1);
  const auto shown = here.zx({"runs", "show", here.runs().front().id});
  CHECK(shown.exit == 0);
  CHECK(says(shown.out, "by --assume-alone: "));
}

TEST_CASE("a person's rebuild gives way to a failover") {
  Scene scene;
  const auto& cluster = scene.cluster;
  HostAgent agent(cluster, "first");
  REQUIRE(agent.leads());
  REQUIRE(agent->becomes_healthy());
  // A copy that does not hear that its source is gone, as when that host is silent.
  const auto program = test::without_program(cluster, "pg_basebackup") / "pg_basebackup";
  const auto begun = cluster.beside("begun");
  test::write(begun, "");
  std::filesystem::permissions(begun, std::filesystem::perms(0666));
  test::write(program, "#!/bin/sh\necho $$ > " + begun + "\nexec sleep 1000\n");
  std::filesystem::permissions(program, std::filesystem::perms(0755));
  test::Background rebuild(
      test::argv_of(cluster, {"rejoin", "pg", "pg-c", "--rebuild", "--confirm", "pg-c"}),
      {"HOME=/nonexistent"});
  REQUIRE(eventually([&] { return test::read(begun).ends_with("\n"); }));
  cluster.kill("pg-a");
  REQUIRE(eventually([&] { return agent->primary() == "pg-b"; }));
  CHECK(rebuild.finish() != 0);
  CHECK_MESSAGE(says(rebuild.output(), "this run gave way to a failover"), rebuild.output());
  CHECK(agent.failovers().size() == 1);
  check_promoted_once(cluster, "pg-a", 1);
  agent->stop();
}

TEST_CASE("agents on other hosts know what a person promoted, and bring back who was left behind") {
  Scene scene;
  const auto& cluster = scene.cluster;
  cluster.edit_config("flap_window = \"1ms\"", "flap_window = \"1h\"");
  const Person here(cluster, "here");
  HostAgent agent(cluster, "first");
  REQUIRE(agent.leads());
  REQUIRE(agent->becomes_healthy());
  const auto moved = here.zx({"switchover", "pg", "--to", "pg-b", "--yes"});
  REQUIRE_MESSAGE(moved.exit == 0, moved.err);
  REQUIRE(eventually([&] { return agent->primary() == "pg-b"; }));
  REQUIRE(agent->becomes_healthy());

  REQUIRE(agent.ask({"agent", "pause", "--for", "10m"}).exit == 0);
  cluster.kill("pg-b");
  const auto failed_over = here.zx({"failover", "pg", "--to", "pg-a", "--yes"});
  REQUIRE_MESSAGE(failed_over.exit == 0, failed_over.err);
  REQUIRE(eventually([&] { return agent->primary() == "pg-a"; }));
  CHECK(eventually([&] { return agent->status_of("/pg/pg-a/primary") == 200; }));
  CHECK(says(agent->pg()["owed"], "pg-b"));
  REQUIRE(agent.ask({"agent", "resume"}).exit == 0);
  REQUIRE(agent->becomes_healthy());
  test::check_served(cluster, "pg-a");
  CHECK(agent.failovers().empty());

  // What a person did is no reason to wait for one, as after an agent's own failover.
  cluster.kill("pg-a");
  REQUIRE(eventually([&] { return agent.failovers().size() == 1; }));
  REQUIRE(agent->becomes_healthy());
  test::check_served(cluster, agent->primary());
  agent->stop();
}

}  // namespace
}  // namespace zx
