// zx redis and Redis in zx status, on a platform whose servers do not run.
#include <doctest/doctest.h>

#include "tests/support.h"

namespace zx {
namespace {

std::string file_with(const test::Directory& directory, const std::string& more) {
  const auto path = directory / "zx.toml";
  test::write(path, "[platform]\nname = \"shop\"\nstate_dir = \"" + directory.path() +
                        "\"\n[hosts.here]\naddress = \"127.0.0.1\"\nremote = []\n" + more);
  return path;
}

constexpr const char* kCache =
    "[redis.cache.nodes.redis-left]\nhost = \"here\"\nport = 1\n"
    "[redis.cache.nodes.redis-right]\nhost = \"here\"\nport = 2\n"
    "[redis.cache.sentinel]\nmaster_name = \"cache\"\nquorum = 1\nnodes = [\"here:3\"]\n";

TEST_CASE("zx redis status of servers that do not run says so and what it asked") {
  const test::Directory directory;
  const auto path = file_with(directory, kCache);
  const auto result = test::run_zx({"-c", path, "redis", "status", "-o", "json"});
  REQUIRE_MESSAGE(result.exit == 0, result.err);
  const auto json = test::json_of(result);
  CHECK(json["schema"] == 1);
  CHECK(json["deployment"] == "cache");
  CHECK(json["state"] == "unreachable");
  CHECK(json["master"].is_null());
  REQUIRE(json["nodes"].size() == 2);
  CHECK(json["nodes"][0]["name"] == "redis-left");
  CHECK(json["nodes"][0]["host"] == "127.0.0.1");
  CHECK(json["nodes"][0]["port"] == 1);
  CHECK(json["nodes"][0]["role"] == "unknown");
  CHECK(json["nodes"][0]["failure"] == "refused");
  CHECK(json["sentinels"][0]["failure"] == "refused");

  const auto table = test::run_zx({"-c", path, "redis", "status", "--detailed-exitcode"});
  CHECK(table.exit == 10);
  CHECK(table.out.starts_with("Redis cache   no node answers, no Sentinel answers\n"));
  CHECK(table.out.find("redis-left (127.0.0.1:1): connection refused") != std::string::npos);
  const auto all = test::run_zx({"-c", path, "status", "--detailed-exitcode"});
  CHECK(all.exit == 10);
  CHECK(all.out.starts_with("shop  unreachable"));
}

TEST_CASE("a deployment is chosen by name when there are several") {
  const test::Directory directory;
  const auto path = file_with(
      directory, std::string(kCache) + "[redis.sessions.nodes.s-1]\nhost = \"here\"\nport = 4\n");
  const auto both = test::run_zx({"-c", path, "redis", "status", "-o", "json"});
  REQUIRE_MESSAGE(both.exit == 0, both.err);
  CHECK(test::json_of(both)["deployments"].size() == 2);
  const auto one =
      test::run_zx({"-c", path, "redis", "status", "--deployment", "sessions", "-o", "json"});
  CHECK(test::json_of(one)["deployment"] == "sessions");
  const auto mistyped = test::run_zx({"-c", path, "redis", "status", "--deployment", "sesions"});
  CHECK(mistyped.exit == 2);
  CHECK(mistyped.err.find("did you mean \"sessions\"?") != std::string::npos);
  const auto undecided = test::run_zx({"-c", path, "redis", "monitor"});
  CHECK(undecided.exit == 2);
  CHECK(undecided.err.find("--deployment") != std::string::npos);
}

TEST_CASE("zx redis monitor ends after the time that it is given") {
  const test::Directory directory;
  const auto path = file_with(directory, kCache);
  const auto result = test::run_zx({"-c", path, "--timeout", "500ms", "redis", "monitor"});
  CHECK_MESSAGE(result.exit == 0, result.err);
  CHECK(result.out.find("redis-left") != std::string::npos);
}

TEST_CASE("a run that was begun and not ended is said by zx status and zx redis status") {
  const test::Directory directory;
  const auto path = file_with(directory, kCache);
  test::write(directory / "runs/20261126T100000-abcd.jsonl",
              R"({"at":"2026-11-26T10:00:00.000Z","event":"begin","run":"20261126T100000-abcd",)"
              R"("version":"1","pid":1,"host":"here","plan":{"command":"redis restore",)"
              R"("summary":"","lock":"redis.cache","context":{},"steps":[]}})"
              "\n");
  for (const auto& words : {std::vector<std::string>{"status"}, {"redis", "status"}}) {
    std::vector<std::string> all{"-c", path};
    all.insert(all.end(), words.begin(), words.end());
    const auto result = test::run_zx(all);
    CHECK_MESSAGE(result.out.find("run 20261126T100000-abcd (redis restore) is unfinished") !=
                      std::string::npos,
                  result.out);
    CHECK(result.out.find("zx runs resume 20261126T100000-abcd") != std::string::npos);
  }
}

TEST_CASE("a file to restore that is not there is named, with where copies are") {
  const test::Directory directory;
  const auto path = file_with(directory, kCache);
  const auto missing = test::run_zx(
      {"-c", path, "redis", "restore", "/nowhere/备份.rdb", "--target", "redis-left", "--dry-run"});
  CHECK(missing.exit == 2);
  CHECK_MESSAGE(missing.err.find("cannot read /nowhere/备份.rdb") != std::string::npos,
                missing.err);
  CHECK_MESSAGE(
      missing.err.find("hint: name a file that zx redis backup wrote") != std::string::npos,
      missing.err);
}

TEST_CASE("without a Redis deployment zx redis says what to do") {
  const test::Directory directory;
  const auto path = file_with(directory, "");
  for (const auto* leaf : {"status", "monitor"}) {
    const auto result = test::run_zx({"-c", path, "redis", leaf});
    CHECK(result.exit == 6);
    CHECK(result.out.empty());
    CHECK(result.err.find("[redis.NAME]") != std::string::npos);
  }
}

TEST_CASE("a password of Redis that cannot be read is said by zx config check") {
  const test::Directory directory;
  const auto path = file_with(
      directory, std::string("[redis.cache]\npassword_file = \"missing.pass\"\n") + kCache);
  const auto result = test::run_zx({"-c", path, "config", "check"});
  CHECK(result.exit == 6);
  CHECK(result.err.find("the password of redis.cache") != std::string::npos);
  const auto status = test::run_zx({"-c", path, "redis", "status"});
  CHECK(status.exit == 6);
  CHECK(status.out.empty());
}

}  // namespace
}  // namespace zx
