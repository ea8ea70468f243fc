// A restore while somebody else moves the master, and one that goes over what replicas still have.
#include "tests/scenario/redis_restore.h"

namespace zx {
namespace {

using test::eventually;
using test::kMaster;
using test::RedisDeployment;
using test::restore;

// The line of the newest run's journal that says that this step is done.
int line_of(const RedisDeployment& deployment, const std::string& step) {
  const auto path =
      run::runs_directory(deployment.state_dir()) + "/" + deployment.newest_run().id + ".jsonl";
  int number = 0;
  for (const auto& line : test::lines_of(test::read(path))) {
    ++number;
    const auto json = parse_json(line, path);
    REQUIRE_MESSAGE(json.has_value(), line);
    if (get_string(*json, "event") == "step-done" && get_string(*json, "step") == step)
      return number;
  }
  FAIL("no step " << step << " was done");
  return 0;
}

bool file_holds_writes(const RedisDeployment& deployment, const std::string& node) {
  const auto file = deployment.data_dir(node) + "/../redis.conf";
  REQUIRE_MESSAGE(os::exists(file), file);
  return test::read(file).find("min-replicas-to-write 1000000") != std::string::npos;
}

struct Moved {
  RedisDeployment deployment{{.sentinels = 3, .settings = test::kDigest}};
  std::string file, wanted;

  // A copy, and a restore of it whose journal tells where `step` ends.
  int prepare(const std::string& step) {
    deployment.take(kMaster, test::filled(300, "new"));
    wanted = test::digest(deployment);
    file = deployment.beside("copy.rdb");
    deployment.zx_json({"redis", "backup", "--to", file});
    deployment.zx_json(restore(file));
    const int line = line_of(deployment, step);
    deployment.take(kMaster, "FLUSHALL\n" + test::filled(100, "old"));
    REQUIRE(test::all_have(deployment, test::digest(deployment)));
    return line;
  }
  // By somebody who knows nothing of the restore.
  std::string move() const {
    REQUIRE(deployment.ask("sentinel-a", {"SENTINEL", "FAILOVER", "cache"}) == "OK");
    REQUIRE(eventually([&] {
      const auto masters = deployment.masters();
      return masters.size() == 1 && masters.front() != kMaster;
    }));
    return deployment.the_master();
  }
};

TEST_CASE("a master that is moved away before its replicas have the new data ends the restore") {
  Moved moved;
  const auto& deployment = moved.deployment;
  const int saved = moved.prepare("save");
  // They keep what they had.
  REQUIRE(deployment.ask(kMaster, {"CONFIG", "SET", "repl-diskless-sync-delay", "600"}) == "OK");
  REQUIRE(deployment.zx_killed_at(saved, restore(moved.file)).signal == SIGKILL);
  const auto id = deployment.newest_run().id;
  const auto master = moved.move();
  // Sentinels keep what they have changed in the file of a server, and with it what was set there.
  REQUIRE(eventually([&] { return file_holds_writes(deployment, kMaster); }));
  const auto resumed = deployment.zx({"runs", "resume", id});
  CHECK(resumed.exit == 4);
  CAPTURE(resumed.err);
  CHECK(resumed.err.find("redis-a is not the master any more") != std::string::npos);
  CHECK(resumed.err.find("zx runs abort " + id + " --as-is") != std::string::npos);
  const auto ended = deployment.zx({"runs", "abort", id, "--as-is", "--yes"});
  CHECK_MESSAGE(ended.exit == 0, ended.err);
  CHECK(eventually([&] { return deployment.sentinels_content(master); }));
  CHECK(deployment.ask(kMaster, {"CONFIG", "GET", "min-replicas-to-write"}) ==
        "min-replicas-to-write 0");
  CHECK_FALSE(file_holds_writes(deployment, kMaster));
  CHECK(deployment.in_line_with(master));
  CHECK(deployment.info(master, "db0").starts_with("keys=100,"));

  REQUIRE(deployment.ask(kMaster, {"CONFIG", "SET", "repl-diskless-sync-delay", "0"}) == "OK");
  const auto again =
      deployment.zx_json({"redis", "restore", moved.file, "--target", master, "--confirm", master});
  CHECK(again["outcome"] == "done");
  CHECK(test::all_have(deployment, moved.wanted));
}

TEST_CASE("a master that is moved after its data were compared does not stop the restore") {
  Moved moved;
  const auto& deployment = moved.deployment;
  const int compared = moved.prepare("compare");
  REQUIRE(deployment.zx_killed_at(compared, restore(moved.file)).signal == SIGKILL);
  const auto id = deployment.newest_run().id;
  const auto master = moved.move();
  CAPTURE(dump_line(deployment.newest_run().steps["compare"].seen));
  CAPTURE(dump_line(deployment.status()));
  CHECK(deployment.zx_json({"runs", "resume", id})["outcome"] == "done");
  CHECK(eventually([&] { return deployment.sentinels_content(master); }));
  CHECK(deployment.in_line_with(master));
  CHECK(test::all_have(deployment, moved.wanted));
  CHECK(deployment.ask(kMaster, {"CONFIG", "GET", "min-replicas-to-write"}) ==
        "min-replicas-to-write 0");
  CHECK(deployment.ask(master, {"SET", "written-after", "1"}) == "OK");
  CHECK_FALSE(file_holds_writes(deployment, kMaster));
}

TEST_CASE("a target that others took away while it had the data is not taken back by the restore") {
  Moved moved;
  const auto& deployment = moved.deployment;
  // Behind it: that the run goes only forward from here, and that the step is done.
  const int fed = moved.prepare("load") - 2;
  // Its replicas keep what they had.
  REQUIRE(deployment.ask(kMaster, {"CONFIG", "SET", "repl-diskless-sync-delay", "600"}) == "OK");
  REQUIRE(deployment.zx_killed_at(fed, restore(moved.file)).signal == SIGKILL);
  const auto id = deployment.newest_run().id;
  REQUIRE(deployment.newest_run().steps["load"].notes.contains("fed"));
  const auto master = moved.move();
  // By the Sentinels, in their own time, or by a person.
  const auto place = deployment.node(master);
  REQUIRE(deployment.ask(kMaster, {"REPLICAOF", "127.0.0.1", std::to_string(place.port)}) == "OK");
  REQUIRE(deployment.in_line_with(master));
  const auto resumed = deployment.zx({"runs", "resume", id});
  CHECK(resumed.exit == 4);
  CHECK_MESSAGE(resumed.err.find("redis-a is not the master any more") != std::string::npos,
                resumed.err);
  CHECK(deployment.masters() == std::vector<std::string>{master});
  CHECK(deployment.zx({"runs", "abort", id, "--as-is", "--yes"}).exit == 0);
  CHECK(deployment.masters() == std::vector<std::string>{master});
  CHECK(deployment.in_line_with(master));
  CHECK_MESSAGE(deployment.info(kMaster, "db0").starts_with("keys=100,"),
                deployment.info(kMaster, "db0"));
  CHECK(eventually([&] { return deployment.sentinels_content(master); }));
}

TEST_CASE("a run that is ended as it is does not let two masters take writes") {
  const RedisDeployment deployment({.settings = test::kDigest});
  deployment.take(kMaster, test::filled(50, "new"));
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  deployment.zx_json(restore(file));
  const int loaded = line_of(deployment, "load");
  REQUIRE(deployment.zx_killed_at(loaded, restore(file)).signal == SIGKILL);
  deployment.take("redis-b", "REPLICAOF NO ONE\n");
  const auto id = deployment.newest_run().id;
  CHECK(deployment.zx({"runs", "resume", id}).exit == 4);
  const auto ended = deployment.zx({"runs", "abort", id, "--as-is", "--yes"});
  CHECK_MESSAGE(
      ended.out.find("redis-a says that it is the master, and redis-b too") != std::string::npos,
      (ended.out + ended.err));
  CHECK(deployment.ask(kMaster, {"SET", "k", "v"}).starts_with("NOREPLICAS"));
  // Nobody is moved to a server that would refuse every write, and it is named.
  REQUIRE(deployment.ask("redis-b", {"REPLICAOF", "127.0.0.1",
                                     std::to_string(deployment.node(kMaster).port)}) == "OK");
  REQUIRE(deployment.in_line_with(kMaster));
  CHECK(dump_line(deployment.status()["problems"])
            .find("redis-a refuses every write, as a restore has set it") != std::string::npos);
  const auto refused = deployment.zx_json({"failover", "redis", "--planned", "--yes"}, 3);
  CHECK(get_string(refused["error"], "message").find("as a restore has set it") !=
        std::string::npos);
}

TEST_CASE("what a replica has that hangs is not overwritten, and of one that is down it is said") {
  const RedisDeployment deployment({.servers = 2, .settings = test::kForgetful});
  deployment.take(kMaster, test::filled(20, "copied"));
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  REQUIRE(deployment.in_line_with(kMaster));
  deployment.kill(kMaster);
  deployment.kill("redis-b", SIGSTOP);
  const auto refused = deployment.zx_json(restore(file), 3);
  CHECK(get_string(refused["error"], "message")
            .starts_with("redis-b runs and does not answer: no copy can be taken"));
  deployment.kill("redis-b", SIGCONT);
  deployment.kill("redis-b");
  auto dry = restore(file);
  dry.emplace_back("--dry-run");
  CHECK(
      dump_line(deployment.zx_json(dry)["warnings"]).find("redis-b does not answer: once it is") !=
      std::string::npos);
}

TEST_CASE("what a replica of a stopped master still has is kept, and few keys are no loss") {
  const RedisDeployment deployment({.servers = 2, .settings = test::kForgetful});
  deployment.take(kMaster, test::filled(20, "copied"));
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  deployment.take(kMaster, test::filled(500, "since"));
  REQUIRE(eventually([&] { return deployment.info("redis-b", "db0").starts_with("keys=520,"); }));
  CHECK(deployment.zx({"redis", "status"}).ok());  // somebody has looked
  deployment.kill(kMaster);

  auto dry = restore(file);
  dry.emplace_back("--dry-run");
  const auto planned = deployment.zx_json(dry);
  CHECK(dump_line(planned["warnings"]).find("redis-b has 520 keys of redis-a") !=
        std::string::npos);
  const auto done = deployment.zx_json(restore(file));
  CHECK(done["outcome"] == "done");
  const auto is_whole = [&](const std::string& keys) {
    return eventually([&] {
      return deployment.info(kMaster, "db0").starts_with(keys) &&
             deployment.info("redis-b", "db0").starts_with(keys);
    });
  };
  CHECK(is_whole("keys=20,"));
  const auto status = deployment.status();
  CHECK_MESSAGE(status["state"] == "healthy", dump_line(status));

  std::string kept;
  for (const auto& step : done["steps"])
    if (step["name"] == "safety copy") kept = get_string(step["seen"], "file");
  REQUIRE(os::exists(kept));
  CHECK(deployment.zx_json(restore(kept))["outcome"] == "done");
  CHECK(is_whole("keys=520,"));
}

}  // namespace
}  // namespace zx
