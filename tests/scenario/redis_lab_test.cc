// The Redis servers and Sentinels of a lab.
#include <sys/stat.h>

#include "lib/os/files.h"
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::eventually;
using test::kPatience;
using test::LabDirectory;
using test::RedisDeployment;
using test::why;

mode_t mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE_MESSAGE(stat(path.c_str(), &found) == 0, path);
  return found.st_mode & 07777;
}

TEST_CASE("a lab has a Redis master, replicas in sync, and Sentinels that agree") {
  const RedisDeployment cache(3, 3);
  const auto master = cache.node("redis-a");
  CHECK(cache.ask("redis-a", {"SET", "订单:1", "北京"}) == "OK");
  for (const auto* replica : {"redis-b", "redis-c"}) {
    CHECK(cache.info(replica, "role") == "slave");
    CHECK(cache.info(replica, "master_port") == std::to_string(master.port));
    CHECK(eventually([&] { return cache.ask(replica, {"GET", "订单:1"}) == "北京"; }));
    CHECK(cache.info(replica, "aof_enabled") == "1");
  }
  for (const auto* sentinel : {"sentinel-a", "sentinel-b", "sentinel-c"}) {
    CHECK(cache.ask(sentinel, {"SENTINEL", "CKQUORUM", "cache"}).starts_with("OK 3 usable"));
    const auto address = cache.command(sentinel, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cache"});
    REQUIRE(address.has_value());
    CHECK(address->items.at(1).text == std::to_string(master.port));
  }
  const auto nodes = cache.lab().nodes();
  REQUIRE(nodes.has_value());
  std::vector<std::string> roles;
  for (const auto& node : *nodes) roles.push_back(node.role);
  CHECK(roles == std::vector<std::string>{"master", "replica", "replica", "sentinel", "sentinel",
                                          "sentinel"});

  SUBCASE("passwords stand in files of their owner only, and in no command line") {
    const auto password = cache.target("redis-a").password;
    CHECK(password.size() >= 16);
    CHECK(password != cache.target("sentinel-a").password);
    for (const auto& file :
         {cache.lab().redis_password_file(), cache.lab().sentinel_password_file(),
          cache.lab().dir() + "/redis-b/redis.conf",
          cache.lab().dir() + "/sentinel-b/sentinel.conf"})
      CHECK(mode_of(file) == 0600);
    CHECK(test::read(cache.config()).find(password) == std::string::npos);
    for (const auto& node : *nodes)
      CHECK(test::read(fmt::format("/proc/{}/cmdline", node.pid)).find(password) ==
            std::string::npos);
    auto nobody = cache.target("redis-a");
    nobody.password.clear();
    const auto refused = redis::Client::open(nobody, Deadline::after(kPatience));
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().why == redis::Failure::auth);
  }

  SUBCASE("a killed server comes back with its data, a paused one is not down") {
    cache.kill("redis-b");
    CHECK_FALSE(cache.node("redis-b").is_running());
    CHECK(cache.start("redis-b"));
    CHECK_FALSE(cache.start("redis-b"));
    CHECK(eventually([&] { return cache.info("redis-b", "master_link_status") == "up"; }));
    CHECK(cache.ask("redis-b", {"GET", "订单:1"}) == "北京");

    cache.kill("redis-c", SIGSTOP);
    CHECK(cache.node("redis-c").is_paused);
    const auto refused = cache.lab().start("redis-c");
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Code::refused);
    cache.kill("redis-c", SIGCONT);
    CHECK_FALSE(cache.node("redis-c").is_paused);

    // Each ends a moment after it was told to.
    for (const auto* name : {"sentinel-a", "redis-b", "redis-a"}) {
      REQUIRE(cache.lab().kill(name, SIGTERM).has_value());
      CHECK_MESSAGE(cache.start(name), name);
      CHECK_FALSE(cache.start(name));
    }
  }

  SUBCASE("down loses nothing that was acknowledged, up goes on with it") {
    for (int i = 0; i < 200; ++i) cache.ask("redis-a", {"INCR", "counter"});
    const auto down = lab::down(cache.lab().dir(), false);
    REQUIRE_MESSAGE(down.has_value(), why(down));
    const auto stopped = cache.lab().nodes();
    REQUIRE(stopped.has_value());
    for (const auto& node : *stopped) CHECK_FALSE(node.is_running());
    lab::Options as_it_is;
    as_it_is.dir = cache.lab().dir();
    const auto up = lab::up(as_it_is);
    REQUIRE_MESSAGE(up.has_value(), why(up));
    CHECK_FALSE(up->was_built);
    CHECK(up->started.size() == 6);
    CHECK(cache.ask("redis-a", {"GET", "counter"}) == "200");
    for (const auto* replica : {"redis-b", "redis-c"})
      CHECK(eventually([&] { return cache.info(replica, "master_link_status") == "up"; }));
  }
}

TEST_CASE("a lab without Redis is not given any, and one with it is not reshaped") {
  const LabDirectory dir;
  lab::Options options;
  options.dir = dir.path();
  options.pg = 0;
  options.redis = 1;
  options.sentinel = 0;
  options.deadline = kPatience;
  REQUIRE(lab::up(options).has_value());

  struct Case {
    std::optional<int> pg, redis, sentinel;
    Code code;
    const char* says;
  };
  const std::vector<Case> cases{
      {{}, 3, {}, Code::refused, "has 1 Redis servers, not 3"},
      {{}, {}, 3, Code::refused, "has 0 Sentinels, not 3"},
      {1, {}, {}, Code::refused, "has 0 PostgreSQL servers, not 1"},
      {0, 0, 0, Code::usage, "at least one"},
      {0, 0, 1, Code::usage, "at least one"},
      {1, 0, 1, Code::usage, "Sentinels need a Redis server"},
      {{}, 9, {}, Code::usage, "0 to 8 Redis servers, not 9"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.says);
    options.pg = one.pg;
    options.redis = one.redis;
    options.sentinel = one.sentinel;
    const auto up = lab::up(options);
    REQUIRE_FALSE(up.has_value());
    CHECK(up.error().code == one.code);
    CHECK_MESSAGE(up.error().message.find(one.says) != std::string::npos, up.error().message);
    if (one.code == Code::refused)
      CHECK(up.error().hint.find("down --delete") != std::string::npos);
  }
}

TEST_CASE("zx lab starts PostgreSQL and Redis together, and one zx.toml leads to both") {
  const LabDirectory dir;
  const auto up = test::run_zx(
      {"lab", "up", "--dir", dir.path(), "--pg", "1", "--redis", "2", "--sentinel", "1"});
  REQUIRE_MESSAGE(up.ok(), up.err);
  CHECK(up.out.starts_with("lab is up: 1 PostgreSQL server, 2 Redis servers, 1 Sentinel, ready"));
  const auto config = config::load(dir.path() + "/zx.toml");
  REQUIRE_MESSAGE(config.has_value(), why(config));
  REQUIRE(config->pg.size() == 1);
  const auto* cache = config->deployment("cache");
  REQUIRE(cache != nullptr);
  CHECK(cache->nodes.size() == 2);
  CHECK(cache->sentinel.nodes.size() == 1);
  CHECK(cache->nodes[0].host == config->pg[0].nodes[0].host);
  const auto check = test::run_zx({"-c", dir.path() + "/zx.toml", "config", "check"});
  CHECK_MESSAGE(check.ok(), check.err);
  const auto status = test::run_zx({"-c", dir.path() + "/zx.toml", "status"});
  REQUIRE_MESSAGE(status.ok(), status.err);
  CHECK(status.out.find("PostgreSQL main   primary pg-a") != std::string::npos);
  CHECK(status.out.find("Redis cache   master redis-a, 1 of 1 replicas linked, Sentinel agrees "
                        "(1 of 1)") != std::string::npos);
  const auto down = test::run_zx({"lab", "down", "--delete", "--dir", dir.path()});
  CHECK_MESSAGE(down.ok(), down.err);
  CHECK_FALSE(os::exists(dir.path()));
}

}  // namespace
}  // namespace zx
