// Runs that share neither a state_dir nor a coordinator, kept apart by the servers.
#include "lib/ha/redis_mark.h"

#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::RedisDeployment;

std::vector<redis::Target> targets_of(const RedisDeployment& servers) {
  std::vector<redis::Target> all;
  for (const auto& name : servers.names()) all.push_back(servers.target(name));
  return all;
}
Result<std::unique_ptr<coord::Lease>> mark(const RedisDeployment& servers, const std::string& run,
                                           const std::string& command = "redis restore") {
  return ha::mark_servers(targets_of(servers), run, command, Deadline::after(Millis(2'000)));
}
bool is_marked(const RedisDeployment& servers, const std::string& name, const std::string& run) {
  return test::eventually([&] {
    const auto marks = ha::marks_in(servers.ask(name, {"CLIENT", "LIST"}));
    return marks.size() == 1 && marks.front().run == run;
  });
}

TEST_CASE("a run finds another's mark on the servers, changes nothing, and says who is at work") {
  const RedisDeployment servers(2, 0);
  {
    const auto other = mark(servers, "20261126T000000-beef");
    REQUIRE(other.has_value());
    for (const auto& words :
         {std::vector<std::string>{"failover", "redis", "--planned", "--yes"},
          std::vector<std::string>{"failover", "redis", "--planned", "--dry-run"},
          std::vector<std::string>{"redis", "sync", "--all", "--yes"}}) {
      const auto refused = servers.zx(words);
      CHECK_MESSAGE(refused.exit == 5, refused.err);
      CHECK_MESSAGE(refused.err.find("20261126T000000-beef (redis restore) is at work on ") !=
                        std::string::npos,
                    refused.err);
    }
    CHECK(servers.the_master() == "redis-a");
    CHECK((*other)->check().has_value());
  }
  CHECK(servers.zx({"failover", "redis", "--planned", "--yes"}).exit == 0);
  CHECK(servers.the_master() == "redis-b");
}

TEST_CASE(
    "of two runs the first has the servers, and keeps them though its connections are ended") {
  const RedisDeployment servers(2, 0);
  auto first = mark(servers, "first");
  REQUIRE(first.has_value());
  const auto second = mark(servers, "second");
  REQUIRE_FALSE(second.has_value());
  CHECK(second.error().code == Code::locked);
  for (const auto& name : servers.names()) servers.ask(name, {"CLIENT", "KILL", "TYPE", "normal"});
  for (const auto& name : servers.names()) CHECK(is_marked(servers, name, "first"));
  CHECK((*first)->check().has_value());
  // As after a crash.
  servers.kill("redis-a");
  servers.start("redis-a");
  CHECK(is_marked(servers, "redis-a", "first"));
  first->reset();
  CHECK(mark(servers, "second").has_value());
}

TEST_CASE("a run whose server another has taken meanwhile is told so before its next step") {
  const RedisDeployment servers(1, 0);
  const auto first = mark(servers, "first");
  REQUIRE(first.has_value());
  // What one that was still for long finds: the other came, and ended its connection.
  auto other = redis::Client::open(servers.target("redis-a"), Deadline::after(Millis(5'000)));
  REQUIRE(other.has_value());
  const auto name = ha::mark_name("second", "ops-2", "failover redis");
  REQUIRE(other->command({"CLIENT", "SETNAME", name}, Deadline::after(Millis(5'000))).has_value());
  REQUIRE(other->command({"CLIENT", "KILL", "TYPE", "normal"}, Deadline::after(Millis(5'000)))
              .has_value());
  CHECK(test::eventually([&] {
    const auto status = (*first)->check();
    return !status && status.error().code == Code::locked &&
           status.error().message.find("second (failover redis) is at work on ops-2") !=
               std::string::npos;
  }));
}

}  // namespace
}  // namespace zx
