#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>

#include "lib/config/config.h"
#include "lib/config/render.h"

namespace zx::config {
namespace {

Error error_of(const std::string& text) {
  const auto config = load_text(text, "zx.toml");
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().code == Code::config);
  return config.error();
}

Config right(const std::string& text) {
  const auto config = load_text(text, "/etc/zx/zx.toml");
  REQUIRE_MESSAGE(config.has_value(), (config ? std::string() : config.error().message));
  return *config;
}

constexpr const char* kRedis = R"([hosts.a]
address = "10.0.0.1"
[hosts."缓存"]
address = "10.0.0.2"
[redis.cache]
user = "zx"
password = "${ZX_TEST_PASSWORD}"
[redis.cache.nodes.redis-b]
host = "a"
data_dir = "r/b"
start = ["redis-server", "/etc/b.conf"]
priority = 0
[redis.cache.nodes.redis-a]
host = "缓存"
port = 6380
[redis.cache.sentinel]
master_name = "shop"
nodes = ["缓存:26379", "10.0.0.9:26380", "[::1]:26381"]
quorum = 3
password_file = "sentinel.pass"
[redis.cache.policy]
max_lag = "64 KiB"
automatic = false
)";

TEST_CASE("a Redis deployment is read, shown and rendered like a cluster") {
  const auto config = right(kRedis);
  REQUIRE(config.redis.size() == 1);
  const auto* cache = config.deployment("cache");
  REQUIRE(cache == &config.redis[0]);
  CHECK(config.deployment("other") == nullptr);
  CHECK(cache->user == "zx");
  REQUIRE(cache->nodes.size() == 2);
  CHECK(cache->nodes[0].name == "redis-b");
  CHECK(cache->nodes[0].port == 6379);
  CHECK(cache->nodes[0].data_dir == "/etc/zx/r/b");
  CHECK(cache->nodes[0].priority == 0);
  CHECK(cache->node("redis-a")->port == 6380);
  CHECK(cache->node("redis-a")->data_dir.empty());
  CHECK(cache->node("redis-c") == nullptr);
  CHECK(cache->sentinel.master_name == "shop");
  CHECK(cache->sentinel.quorum == 3);
  CHECK(cache->policy.max_lag == 64u << 10);
  CHECK(cache->policy.probe_interval == Millis(500));
  CHECK_FALSE(cache->policy.automatic);
  CHECK(right(render(config)) == config);

  const auto at = [&](const std::string& node) {
    const auto endpoint = endpoint_of(config, node);
    return fmt::format("{} {}", endpoint.address, endpoint.port);
  };
  CHECK(at("缓存:26379") == "10.0.0.2 26379");
  CHECK(at("10.0.0.9:26380") == "10.0.0.9 26380");
  CHECK(at("[::1]:26381") == "::1 26381");
  CHECK(at("nothing") == "nothing 0");

  setenv("ZX_TEST_PASSWORD", "s3cret", 1);
  CHECK(password_of(config, *cache) == "s3cret");
  unsetenv("ZX_TEST_PASSWORD");
  CHECK_FALSE(password_of(config, *cache).has_value());
  CHECK_FALSE(sentinel_password_of(config, *cache).has_value());
}

TEST_CASE("what is wrong with a Redis deployment is named with its place") {
  struct Case {
    std::string more;  // behind a right file of 5 lines
    std::string says;
  };
  const std::vector<Case> cases{
      {"prot = 1", R"(6:1: unknown key "prot" in [redis.cache.nodes.r-a]; did you mean "port"?)"},
      {"user = \"x\"",
       "6:1: unknown key \"user\" in [redis.cache.nodes.r-a]; it belongs in "
       "[redis.NAME]"},
      {"service = \"x\"\nstop = [\"y\"]",
       "redis.cache.nodes.r-a.service stands beside stop; keep one of them"},
      {"[redis.spare]", "redis.spare has no nodes; add a table [redis.spare.nodes.NAME]"},
      {"[redis.cache.nodes.r-b]\nhost = \"b\"",
       "7:8: redis.cache.nodes.r-b.host names the unknown "
       "host \"b\""},
      {"[redis.cache.nodes.r-b]\nhost = \"a\"",
       "redis.cache.nodes.r-b has the same address and port as redis.cache.nodes.r-a: "
       "10.0.0.1:6379"},
      {"[pg.main.nodes.p]\nhost = \"a\"\nport = 6379\ndata_dir = \"/d\"",
       "redis.cache.nodes.r-a has the same address and port as pg.main.nodes.p: 10.0.0.1:6379"},
      {"[redis.cache]\nuser = \"zx\"",
       "7:8: redis.cache.user is given without password_file or password"},
      {"[redis.cache]\npassword = \"${A}\"\npassword_file = \"x\"",
       "redis.cache.password stands beside password_file; keep one of them"},
      {"[redis.cache.policy]\nprobe_deadline = \"1ms\"",
       "redis.cache.policy.probe_deadline is 1 ms; it takes a duration of at least 50 ms"},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"",
       "7:15: redis.cache.sentinel.master_name is given without nodes"},
      {"[redis.cache.sentinel]\nnodes = [\"a:1\", \"a:2\"]",
       "7:9: redis.cache.sentinel.nodes is given without master_name"},
      {"[redis.cache.sentinel]\nmaster_name = \"m 1\"\nnodes = [\"a:1\", \"a:2\"]",
       "redis.cache.sentinel.master_name takes only A-z 0-9 and \".-_\", as Sentinel does, found "
       "\"m 1\""},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nnodes = [\"a:1\", \"a\"]",
       "redis.cache.sentinel.nodes takes HOST:PORT, found \"a\""},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nnodes = [\"a:1\", \"a:65536\"]",
       "redis.cache.sentinel.nodes takes HOST:PORT, found \"a:65536\""},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nnodes = [\"a:1\", \":2\"]",
       "redis.cache.sentinel.nodes takes HOST:PORT, found \":2\""},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nnodes = [\"a:1\", \"10.0.0.1:1\"]",
       "redis.cache.sentinel.nodes has \"10.0.0.1:1\", the same address and port as another of it"},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nnodes = [\"a:1\", \"a:6379\"]",
       "redis.cache.sentinel.nodes has \"a:6379\", the same address and port as "
       "redis.cache.nodes.r-a"},
      {"[redis.cache.sentinel]\nmaster_name = \"m\"\nquorum = 3\nnodes = [\"a:1\", \"a:2\"]",
       "8:10: redis.cache.sentinel.quorum is 3, but nodes has only 2"},
      {"[hosts.cache-1]\naddress = \"10.0.0.2\"\n[redis.cache.sentinel]\nmaster_name = \"m\"\n"
       "nodes = [\"cahce-1:1\", \"a:2\"]",
       "redis.cache.sentinel.nodes names the unknown host \"cahce-1\"; did you mean \"cache-1\"?"},
  };
  for (const auto& [given, says] : cases) {
    const auto& more = given;
    CAPTURE(more);
    const auto error =
        error_of("[hosts.a]\naddress = \"10.0.0.1\"\n\n[redis.cache.nodes.r-a]\nhost = \"a\"\n" +
                 more + "\n");
    CHECK_MESSAGE(error.message.find(says) != std::string::npos, error.message);
    CHECK(error.trail.empty());
  }
}

}  // namespace
}  // namespace zx::config
