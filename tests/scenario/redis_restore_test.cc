// zx redis backup and restore on a deployment, seen by its clients.
#include <filesystem>

#include "tests/scenario/redis_restore.h"
#include "tests/scenario/redis_server.h"

namespace zx {
namespace {

using test::all_have;
using test::check_settings;
using test::digest;
using test::filled;
using test::kDigest;
using test::kMaster;
using test::RedisDeployment;
using test::restore;

TEST_CASE("everything is there after a restore and kill -9, with the append-only file on") {
  const RedisDeployment deployment({.sentinels = 3, .settings = kDigest});
  deployment.take(kMaster, filled(100'000, "商品") + "SELECT 3\nSET 智选 杯\n");
  const auto before = digest(deployment);
  const auto file = deployment.beside("copy.rdb");
  const auto backup = deployment.zx_json({"redis", "backup", "--digest", "--to", file});
  CHECK(backup["keys"] == 100001);
  CHECK(backup["digest"] == before);
  CHECK(backup["loaded"] == true);
  CHECK(backup["node"] != "redis-a");
  CHECK(deployment.sentinels_content());  // no phantom

  CHECK(deployment.ask(kMaster, {"FLUSHALL"}) == "OK");
  CHECK(deployment.ask(kMaster, {"SET", "since", "then"}) == "OK");
  const auto planned =
      deployment.zx_json({"redis", "restore", file, "--target", "redis-a", "--dry-run"});
  CHECK(planned["mode"] == "live");
  CHECK(planned["present_keys"] == 1);
  CHECK(deployment.ask(kMaster, {"GET", "since"}) == "then");
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

  deployment.kill(kMaster);
  deployment.start(kMaster);
  CHECK(test::eventually([&] { return digest(deployment) == before; }));
  CHECK(test::eventually([&] { return deployment.all_linked(kMaster); }));
  CHECK(all_have(deployment, before));
  CHECK(test::eventually([&] { return deployment.sentinels_content(); }));

  // And back again.
  CHECK(deployment.zx_json(restore(kept))["outcome"] == "done");
  CHECK(deployment.ask(kMaster, {"DBSIZE"}) == "1");
  CHECK(deployment.ask(kMaster, {"GET", "since"}) == "then");
}

TEST_CASE("without DEBUG, and without an append-only file") {
  const RedisDeployment deployment({.servers = 2, .settings = "appendonly no"});
  deployment.take(kMaster, test::every_type());
  const auto file = deployment.beside("copy.rdb");
  const auto keys = deployment.zx_json({"redis", "backup", "--to", file})["keys"];
  CHECK(deployment.ask(kMaster, {"FLUSHALL"}) == "OK");
  const auto done = deployment.zx_json(restore(file));
  CHECK(done["outcome"] == "done");
  for (const auto& step : done["steps"])
    if (step["name"] == "compare") {
      CHECK(step["seen"]["by"] == "a copy of redis-b");
      CHECK(step["seen"]["keys"] == keys);
    }
  check_settings(deployment);
  deployment.kill(kMaster);
  deployment.start(kMaster);
  CHECK(test::eventually([&] {
    return deployment.ask(kMaster, {"GET", "商品:1001"}) == "智选 保温杯";
  }));
}

TEST_CASE("a stopped server is restored where its start finds it") {
  for (const char* settings : {"appendonly yes\nappendfilename \"my 文件\"", "appendonly no"}) {
    CAPTURE(settings);
    const RedisDeployment deployment({.servers = 2, .settings = kDigest + settings});
    deployment.take(kMaster, test::every_type());
    const auto before = digest(deployment);
    const auto file = deployment.beside("copy.rdb");
    deployment.zx_json({"redis", "backup", "--to", file});
    CHECK(deployment.ask(kMaster, {"FLUSHALL"}) == "OK");
    CHECK(deployment.ask(kMaster, {"SET", "since", "then"}) == "OK");
    deployment.stop(kMaster);
    const auto done = deployment.zx_json(restore(file));
    CHECK(done["outcome"] == "done");
    CHECK(digest(deployment) == before);
    CHECK(test::eventually([&] { return deployment.all_linked(kMaster); }));
    CHECK(all_have(deployment, before));
  }
}

TEST_CASE("a restore is refused before anything is changed") {
  const RedisDeployment deployment({.servers = 2, .settings = kDigest});
  deployment.take(kMaster, "SET k v\n");
  const auto file = deployment.beside("copy.rdb");
  deployment.zx_json({"redis", "backup", "--to", file});
  const auto before = digest(deployment);
  const auto refused = [&](const std::vector<std::string>& words, int exit,
                           const std::string& message) {
    const auto json = deployment.zx_json(words, exit);
    CHECK_MESSAGE(get_string(json["error"], "message").find(message) != std::string::npos,
                  json.dump());
    CHECK(digest(deployment) == before);
  };
  refused({"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-b"}, 9,
          "--confirm names \"redis-b\"");
  refused({"redis", "restore", file, "--target", "redis-a"}, 9, "");
  refused({"redis", "restore", file, "--target", "redis-b", "--confirm", "redis-b"}, 3,
          "redis-a is the master");
  refused({"redis", "restore", file, "--target", "redis-z", "--confirm", "redis-z"}, 2,
          "no node named");
  auto text = test::read(file);
  test::write(deployment.beside("cut.rdb"), text.substr(0, text.size() - 3));
  refused(restore(deployment.beside("cut.rdb")), 1, "within its checksum");
  text[text.size() / 2] ^= 1;
  test::write(deployment.beside("flipped.rdb"), text);
  refused(restore(deployment.beside("flipped.rdb")), 1, "not a whole RDB");
  test::write(file + ".json",
              test::read(file + ".json")
                  .replace(test::read(file + ".json").find("\"sha256\": \"") + 11, 4, "0000"));
  refused(restore(file), 1, "another SHA-256");
}

}  // namespace
}  // namespace zx
