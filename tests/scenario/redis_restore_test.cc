// zx redis backup and restore on a deployment, seen by its clients.
#include <signal.h>

#include <filesystem>

#include "tests/scenario/bare_redis.h"

namespace zx {
namespace {

using test::BareRedis;

// By writes, which replicas get.
std::string filled(int keys, const std::string& name) {
  return fmt::format(
      "EVAL \"for i = 1, {} do redis.call('SET', '{}:' .. i, string.rep('值', 20) .. i) end\" 0\n",
      keys, name);
}

std::string digest(test::RedisServer& server) { return server.says({"DEBUG", "DIGEST"}); }

bool all_have(BareRedis& deployment, const std::string& wanted) {
  return test::eventually([&] {
    for (std::size_t i = 0; i < deployment.size(); ++i)
      if (digest(deployment.node(i)) != wanted) return false;
    return true;
  });
}

bool all_linked(BareRedis& deployment) {
  return test::eventually([&] {
    for (std::size_t i = 1; i < deployment.size(); ++i)
      if (deployment.node(i).info("master_link_status") != "up") return false;
    return true;
  });
}

// Nothing of a restore is left in the settings of the master, and it takes writes.
void check_settings(BareRedis& deployment) {
  auto& master = deployment.node(0);
  CHECK(master.says({"CONFIG", "GET", "min-replicas-to-write"}) == "min-replicas-to-write\n0");
  CHECK(master.says({"CONFIG", "GET", "repl-diskless-load"}) == "repl-diskless-load\ndisabled");
  CHECK(master.says({"CONFIG", "GET", "masterauth"}) == "masterauth");
  CHECK(master.info("role") == "master");
  CHECK(master.says({"SET", "written-after", "1"}) == "OK");
  CHECK(master.says({"DEL", "written-after"}) == "1");
}

std::vector<std::string> restore(const std::string& file) {
  return {"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-a"};
}

TEST_CASE("everything is there after a restore and kill -9, with the append-only file on") {
  BareRedis deployment({.nodes = 3, .sentinels = 3, .settings = "appendonly yes"});
  auto& master = deployment.node(0);
  master.take(filled(100'000, "商品") + "SELECT 3\nSET 智选 杯\n");
  const auto before = digest(master);
  const auto file = deployment / "copy.rdb";
  const auto backup = deployment.zx_json({"redis", "backup", "--digest", "--to", file});
  CHECK(backup["keys"] == 100001);
  CHECK(backup["digest"] == before);
  CHECK(backup["loaded"] == true);
  CHECK(backup["node"] != "redis-a");
  CHECK(deployment.sentinels_content());  // no phantom

  CHECK(master.says({"FLUSHALL"}) == "OK");
  CHECK(master.says({"SET", "since", "then"}) == "OK");
  const auto planned =
      deployment.zx_json({"redis", "restore", file, "--target", "redis-a", "--dry-run"});
  CHECK(planned["mode"] == "live");
  CHECK(planned["present_keys"] == 1);
  CHECK(master.says({"GET", "since"}) == "then");
  const auto done = deployment.zx_json(restore(file));
  CHECK(done["outcome"] == "done");

  CHECK(all_have(deployment, before));
  check_settings(deployment);
  CHECK(test::eventually([&] { return deployment.sentinels_content(); }));
  // What it had is in the safety copy.
  std::string kept;
  for (const auto& entry :
       std::filesystem::directory_iterator(deployment.state_dir() + "/backups/redis"))
    if (entry.path().extension() == ".rdb") kept = entry.path();
  REQUIRE_FALSE(kept.empty());

  master.kill();
  master.start();
  CHECK(test::eventually([&] { return digest(master) == before; }));
  CHECK(all_linked(deployment));
  CHECK(all_have(deployment, before));
  CHECK(test::eventually([&] { return deployment.sentinels_content(); }));

  // And back again.
  CHECK(deployment.zx_json(restore(kept))["outcome"] == "done");
  CHECK(master.says({"DBSIZE"}) == "1");
  CHECK(master.says({"GET", "since"}) == "then");
}

TEST_CASE("without DEBUG, with a password, and without an append-only file") {
  BareRedis deployment(
      {.nodes = 2, .sentinels = 0, .settings = "enable-debug-command no\nsave 3600 1"});
  auto& master = deployment.node(0);
  test::fill_with_every_type(master);
  const auto file = deployment / "copy.rdb";
  const auto keys = deployment.zx_json({"redis", "backup", "--to", file})["keys"];
  CHECK(master.says({"FLUSHALL"}) == "OK");
  const auto done = deployment.zx_json(restore(file));
  CHECK(done["outcome"] == "done");
  for (const auto& step : done["steps"])
    if (step["name"] == "compare") {
      CHECK(step["seen"]["by"] == "a copy of redis-b");
      CHECK(step["seen"]["keys"] == keys);
    }
  check_settings(deployment);
  master.kill();
  master.start();
  CHECK(test::eventually([&] { return master.says({"GET", "商品:1001"}) == "智选 保温杯"; }));
}

TEST_CASE("a stopped server is restored where its start finds it") {
  for (const char* settings : {"appendonly yes", "appendonly no\nsave 3600 1"}) {
    CAPTURE(settings);
    BareRedis deployment({.nodes = 2, .sentinels = 0, .settings = settings});
    auto& master = deployment.node(0);
    test::fill_with_every_type(master);
    const auto before = digest(master);
    const auto file = deployment / "copy.rdb";
    deployment.zx_json({"redis", "backup", "--to", file});
    CHECK(master.says({"FLUSHALL"}) == "OK");
    CHECK(master.says({"SET", "since", "then"}) == "OK");
    master.shut_down();
    const auto done = deployment.zx_json(restore(file));
    CHECK(done["outcome"] == "done");
    CHECK(digest(master) == before);
    CHECK(all_linked(deployment));
    CHECK(all_have(deployment, before));
  }
}

TEST_CASE("a restore is refused before anything is changed") {
  BareRedis deployment({.nodes = 2, .sentinels = 0, .settings = {}});
  auto& master = deployment.node(0);
  master.take("SET k v\n");
  const auto file = deployment / "copy.rdb";
  deployment.zx_json({"redis", "backup", "--to", file});
  const auto before = digest(master);
  const auto refused = [&](const std::vector<std::string>& words, int exit,
                           const std::string& message) {
    const auto json = deployment.zx_json(words, exit);
    CHECK_MESSAGE(get_string(json["error"], "message").find(message) != std::string::npos,
                  json.dump());
    CHECK(digest(master) == before);
  };
  refused({"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-b"}, 9,
          "--confirm names \"redis-b\"");
  refused({"redis", "restore", file, "--target", "redis-a"}, 9, "");
  refused({"redis", "restore", file, "--target", "redis-b", "--confirm", "redis-b"}, 3,
          "redis-a is the master");
  refused({"redis", "restore", file, "--target", "redis-z", "--confirm", "redis-z"}, 2,
          "no node named");
  auto text = test::read(file);
  test::write(deployment / "cut.rdb", text.substr(0, text.size() - 3));
  refused(restore(deployment / "cut.rdb"), 1, "within its checksum");
  text[text.size() / 2] ^= 1;
  test::write(deployment / "flipped.rdb", text);
  refused(restore(deployment / "flipped.rdb"), 1, "not a whole RDB");
  test::write(file + ".json",
              test::read(file + ".json")
                  .replace(test::read(file + ".json").find("\"sha256\": \"") + 11, 4, "0000"));
  refused(restore(file), 1, "another SHA-256");
}

// kill -9 of zx right after it has synced line `line` of its journal.
os::ProcessResult killed_at(BareRedis& deployment, int line,
                            const std::vector<std::string>& words) {
  os::Argv argv{"strace",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "signal=none",
                fmt::format("--inject=fdatasync:signal=SIGKILL:when={}", line),
                ZX_BINARY,
                "-c",
                deployment / "zx.toml"};
  argv.insert(argv.end(), words.begin(), words.end());
  os::ProcessOptions options;
  const char* given = getenv("ASAN_OPTIONS");
  options.environment = {
      {"ASAN_OPTIONS", (given != nullptr ? std::string(given) + ":" : "") + "detect_leaks=0"}};
  options.deadline = Millis(120'000);
  return test::run_program(argv, options);
}

TEST_CASE("a restore killed after any line of its journal is resumed, or taken back") {
  BareRedis deployment({.nodes = 2, .sentinels = 0, .settings = "appendonly yes"});
  auto& master = deployment.node(0);
  master.take(filled(500, "new"));
  const auto wanted = digest(master);
  const auto file = deployment / "copy.rdb";
  deployment.zx_json({"redis", "backup", "--to", file});
  int taken_back = 0, resumed = 0;
  for (int line = 1;; ++line) {
    CAPTURE(line);
    master.take("FLUSHALL\n" + filled(300, "old"));
    const auto old = digest(master);
    REQUIRE(all_have(deployment, old));
    const auto killed = killed_at(deployment, line, restore(file));
    if (killed.signal == 0) {
      CHECK_MESSAGE(killed.exit == 0, (killed.out + killed.err));
      CHECK(all_have(deployment, wanted));
      break;
    }
    const auto run = deployment.newest_run();
    if (run.outcome) continue;  // after its last line
    // What can be taken back is, every other time.
    if (!run.no_return && line % 2 == 0) {
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

TEST_CASE("Sentinels that were told to wait are put back after kill -9") {
  BareRedis deployment({.nodes = 2, .sentinels = 3, .settings = {}});
  auto& master = deployment.node(0);
  master.take(filled(500, "new"));
  const auto wanted = digest(master);
  const auto file = deployment / "copy.rdb";
  deployment.zx_json({"redis", "backup", "--to", file});
  master.take("FLUSHALL\nSET old 1\n");
  // In the middle of the load.
  for (const bool resumes : {false, true}) {
    int line = 1;
    for (; line < 40; ++line) {
      const auto killed = killed_at(deployment, line, restore(file));
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

}  // namespace
}  // namespace zx
