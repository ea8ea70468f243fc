// zx killed at every step of a restore, live and offline: resume finishes it, abort takes it back.
#include <filesystem>

#include "tests/scenario/redis_restore.h"

namespace zx {
namespace {

using test::all_have;
using test::check_settings;
using test::digest;
using test::eventually;
using test::filled;
using test::kDigest;
using test::kMaster;
using test::RedisDeployment;
using test::restore;

std::size_t runs(const RedisDeployment& deployment) {
  const auto listed = run::list_runs(deployment.state_dir(), 1000);
  return listed ? listed->runs.size() : 0;
}

// Killed in its calls of `call` number 1, 1 + `apart`, 1 + 2 `apart`, … until it ends before that.
void kill_live(const std::string& call, int apart) {
  const RedisDeployment deployment({.servers = 2, .settings = kDigest});
  deployment.take(kMaster, filled(500, "new"));
  const auto wanted = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  int taken_back = 0, resumed = 0;
  for (int count = 1, round = 1;; count += apart, ++round) {
    CAPTURE(call);
    CAPTURE(count);
    deployment.take(kMaster, "FLUSHALL\n" + filled(300, "old"));
    const auto old = digest(deployment);
    REQUIRE(all_have(deployment, old));
    const auto before = runs(deployment);
    const auto killed = deployment.zx_killed_in(call, count, restore(file));
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      CHECK(all_have(deployment, wanted));
      break;
    }
    if (runs(deployment) == before) {  // it had begun nothing
      CHECK(all_have(deployment, old));
      check_settings(deployment);
      continue;
    }
    const auto run = deployment.newest_run();
    if (run.outcome) continue;  // after its last line
    // What can be taken back is, every other time.
    if (!run.no_return && round % 2 == 0) {
      const auto aborted = deployment.zx({"runs", "abort", run.id, "--yes"});
      CAPTURE(aborted.err);
      if (aborted.exit == 0) {
        ++taken_back;
        CHECK(all_have(deployment, old));
        check_settings(deployment);
        continue;
      }
      CHECK(aborted.exit == 4);  // the new data were whole already
    }
    CHECK(deployment.zx_json({"runs", "resume", run.id})["outcome"] == "done");
    ++resumed;
    CHECK(all_have(deployment, wanted));
    check_settings(deployment);
  }
  CHECK(taken_back > 2);
  CHECK(resumed > 5);
}

TEST_CASE("a restore killed after any line of its journal is resumed, or taken back") {
  kill_live("fdatasync", 1);
}

// In the middle of a step: what was asked of a server is done, and nobody has noted it.
TEST_CASE("a restore killed behind any question to a server is resumed, or taken back") {
  kill_live("write", 5);
}

TEST_CASE("Sentinels that were told to wait are put back after kill -9") {
  const RedisDeployment deployment({.servers = 2, .sentinels = 3, .settings = kDigest});
  deployment.take(kMaster, filled(500, "new"));
  const auto wanted = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  deployment.take(kMaster, "FLUSHALL\nSET old 1\n");
  // In the middle of the load.
  for (const bool resumes : {false, true}) {
    int line = 1;
    for (; line < 40; ++line) {
      const auto killed = deployment.zx_killed_at(line, restore(file));
      REQUIRE(killed.signal == SIGKILL);
      const auto run = deployment.newest_run();
      const auto calm = run.steps.find("calm");
      if (calm != run.steps.end() && calm->second.state == run::StepState::done) break;
      CHECK(deployment.zx({"runs", "abort", run.id, "--yes"}).exit == 0);
    }
    CHECK_FALSE(deployment.sentinels_content());
    const auto run = deployment.newest_run();
    CHECK(deployment.zx_json({"runs", resumes ? "resume" : "abort", run.id, "--yes"})["outcome"] ==
          (resumes ? "done" : "aborted"));
    CHECK(test::eventually([&] { return deployment.sentinels_content(); }));
  }
  CHECK(all_have(deployment, wanted));
}

// Every other line: without Sentinels each has its turn.
TEST_CASE("under Sentinels a restore killed after a line is resumed, and they are as before") {
  const RedisDeployment deployment({.servers = 2, .sentinels = 3, .settings = kDigest});
  deployment.take(kMaster, filled(200, "new"));
  const auto wanted = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  int line = 1;
  for (;; line += 2) {
    CAPTURE(line);
    deployment.take(kMaster, "FLUSHALL\n" + filled(100, "old"));
    const auto killed = deployment.zx_killed_at(line, restore(file));
    const auto run = deployment.newest_run();
    if (killed.signal == 0) CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
    if (!run.outcome) CHECK(deployment.zx_json({"runs", "resume", run.id})["outcome"] == "done");
    CHECK(all_have(deployment, wanted));
    check_settings(deployment);
    CHECK(eventually([&] { return deployment.sentinels_content(); }));
    if (killed.signal == 0) break;
  }
  CHECK(line > 20);
}

// The line of the newest run's journal that says so; 1 is the first.
int line_of(const RedisDeployment& deployment, const std::string& event, const std::string& step) {
  const auto path = run::runs_directory(deployment.state_dir()) + "/" + deployment.newest_run().id;
  int number = 0;
  for (const auto& line : test::lines_of(test::read(path + ".jsonl"))) {
    ++number;
    const auto json = parse_json(line, path);
    if (json && get_string(*json, "event") == event && get_string(*json, "step") == step)
      return number;
  }
  FAIL("no " << event << " of " << step);
  return 0;
}

TEST_CASE("a server that crashes before the new data are on its disk is given them once more") {
  const RedisDeployment deployment({.servers = 2, .sentinels = 3, .settings = kDigest});
  deployment.take(kMaster, filled(500, "new"));
  const auto wanted = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  CHECK(deployment.zx_json(restore(file))["outcome"] == "done");
  const int loaded = line_of(deployment, "step-done", "load");

  deployment.take(kMaster, "FLUSHALL\n" + filled(300, "old"));
  const auto old = digest(deployment);
  REQUIRE(all_have(deployment, old));
  // Its append-only file takes seconds to be written anew.
  CHECK(deployment.ask(kMaster, {"CONFIG", "SET", "rdb-key-save-delay", "20000"}) == "OK");
  REQUIRE(deployment.zx_killed_at(loaded, restore(file)).signal == SIGKILL);
  CHECK(digest(deployment) == wanted);
  // To another zx, what the run has set is not the setting of before.
  const auto config = test::read(deployment.config());
  deployment.edit_config(deployment.state_dir(), deployment.beside("other-state"));
  const auto refused =
      deployment.zx_json({"redis", "restore", file, "--target", kMaster, "--dry-run"}, 3);
  CHECK(get_string(refused["error"], "message").find("as a restore has set it") !=
        std::string::npos);
  test::write(deployment.config(), config);

  deployment.kill(kMaster);
  deployment.start(kMaster);
  REQUIRE(eventually([&] { return digest(deployment) == old; }));
  CHECK(deployment.ask(kMaster, {"SET", "written-between", "1"}) == "OK");
  const auto run = deployment.newest_run().id;
  CHECK(deployment.zx_json({"runs", "resume", run})["outcome"] == "done");
  CHECK(all_have(deployment, wanted));
  check_settings(deployment);
  CHECK(eventually([&] { return deployment.sentinels_content(); }));
  // What it had each time is kept.
  int kept = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(deployment.state_dir() + "/backups/redis")) {
    const auto name = entry.path().filename().string();
    if (name.find(run) != std::string::npos && name.ends_with(".rdb")) ++kept;
  }
  CHECK(kept == 2);

  // Ended as it is, nothing but the data stays.
  REQUIRE(deployment.zx_killed_at(loaded, restore(file)).signal == SIGKILL);
  CHECK_FALSE(deployment.sentinels_content());
  const auto ended =
      deployment.zx_json({"runs", "abort", deployment.newest_run().id, "--as-is", "--yes"});
  CHECK(ended["outcome"] == "abandoned");
  CHECK(ended["left"] == Json::array());
  CHECK(ended["put_back"].size() == 5);
  check_settings(deployment);
  CHECK(eventually([&] { return deployment.sentinels_content(); }));
}

// As it was before any restore.
void check_clean(const RedisDeployment& deployment) {
  for (const auto& entry : std::filesystem::directory_iterator(deployment.data_dir(kMaster))) {
    const auto name = entry.path().filename().string();
    CHECK_MESSAGE(name.find("zx-before") == std::string::npos, name);
    CHECK_MESSAGE(name.find("zx-restore") == std::string::npos, name);
  }
}

void forget_kept(const RedisDeployment& deployment) {
  std::vector<std::filesystem::path> kept;
  for (const auto& entry : std::filesystem::directory_iterator(deployment.data_dir(kMaster)))
    if (entry.path().filename().string().find(".zx-before-") != std::string::npos)
      kept.push_back(entry.path());
  for (const auto& path : kept) std::filesystem::remove_all(path);
}

// Killed in its calls of `call`, the first, the second, … until it ends before that.
void kill_offline(const std::string& call, const std::string& settings, int least) {
  const RedisDeployment deployment({.servers = 2, .settings = kDigest + settings});
  deployment.take(kMaster, filled(300, "new"));
  const auto wanted = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  int taken_back = 0, resumed = 0;
  for (int count = 1;; ++count) {
    CAPTURE(call);
    CAPTURE(count);
    deployment.take(kMaster, "FLUSHALL\n" + filled(100, "old"));
    const auto old = digest(deployment);
    deployment.stop(kMaster);
    forget_kept(deployment);
    const auto before = runs(deployment);
    const auto killed = deployment.zx_killed_in(call, count, restore(file));
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      CHECK(all_have(deployment, wanted));
      break;
    }
    if (runs(deployment) == before) {  // it had begun nothing
      check_clean(deployment);
      deployment.start(kMaster);
      CHECK(all_have(deployment, old));
      continue;
    }
    const auto run = deployment.newest_run();
    if (run.outcome) {  // after its last line
      CHECK(all_have(deployment, wanted));
    } else if (count % 2 == 0 && !run.no_return) {
      CHECK(deployment.zx_json({"runs", "abort", run.id, "--yes"})["outcome"] == "aborted");
      check_clean(deployment);
      deployment.start(kMaster);
      CHECK(all_have(deployment, old));
      ++taken_back;
    } else {
      // Its replica copies the new data as soon as it is up.
      if (run.no_return) CHECK(deployment.zx({"runs", "abort", run.id, "--yes"}).exit == 3);
      CHECK(deployment.zx_json({"runs", "resume", run.id})["outcome"] == "done");
      CHECK(all_have(deployment, wanted));
      ++resumed;
    }
  }
  CHECK(taken_back >= least);
  CHECK(resumed >= least);
}

TEST_CASE("an offline restore killed after any line of its journal is resumed, or taken back") {
  kill_offline("fdatasync", "appendonly yes", 4);
  kill_offline("fdatasync", "appendonly no\nsave 3600 1", 4);
}

TEST_CASE("an offline restore killed while it changes names is resumed, or taken back") {
  kill_offline("rename", "appendonly yes", 1);
  kill_offline("rename", "appendonly no\nsave 3600 1", 1);
}

}  // namespace
}  // namespace zx
