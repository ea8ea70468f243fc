// Lineage of servers, and who is at an address.
#include "lib/redis/facts.h"

#include <doctest/doctest.h>

namespace zx::redis {
namespace {

const std::string kNone(40, '0');

TEST_CASE("a stream is a prefix of another only on the same line") {
  struct Case {
    const char* says;
    Lineage behind, ahead;
    bool is_prefix;
  };
  const std::vector<Case> cases{
      {"the same replid, behind", {"a", kNone, -1, 90}, {"a", kNone, -1, 100}, true},
      {"the same replid, level", {"a", kNone, -1, 100}, {"a", kNone, -1, 100}, true},
      {"the same replid, ahead", {"a", kNone, -1, 101}, {"a", kNone, -1, 100}, false},
      {"another replid, behind", {"b", kNone, -1, 1}, {"a", kNone, -1, 100}, false},
      {"left behind by a promotion, in time", {"a", kNone, -1, 99}, {"b", "a", 100, 150}, true},
      {"left behind by a promotion, one too many",
       {"a", kNone, -1, 100},
       {"b", "a", 100, 150},
       false},
      {"promoted, with bytes of its own", {"b", "a", 100, 150}, {"a", kNone, -1, 200}, false},
      {"promoted, and nothing since", {"b", "a", 100, 99}, {"a", kNone, -1, 200}, true},
      {"promoted, and nothing since, but ahead", {"b", "a", 100, 99}, {"a", kNone, -1, 98}, false},
      {"both promoted, nothing of its own", {"b", "a", 100, 99}, {"c", "a", 120, 150}, true},
      {"both promoted, both with their own", {"b", "a", 100, 130}, {"c", "a", 120, 150}, false},
      {"no replid2 is no common past", {"b", kNone, 0, -5}, {"c", kNone, 100, 150}, false},
      {"nothing known", {}, {}, false},
  };
  for (const auto& one : cases) {
    CAPTURE(one.says);
    CHECK(is_prefix_of(one.behind, one.ahead) == one.is_prefix);
  }
}

TEST_CASE("two servers are of one line whichever is ahead") {
  const Lineage master{"a", kNone, -1, 100}, replica{"a", kNone, -1, 90},
      promoted{"b", "a", 91, 95};
  CHECK(is_same_line(master, replica));
  CHECK(is_same_line(replica, master));
  CHECK(is_same_line(replica, promoted));
  CHECK_FALSE(is_same_line(master, promoted));
  CHECK_FALSE(is_same_line({"x", kNone, -1, 5}, master));
}

TEST_CASE("a node is found by whatever name others have for its address") {
  Snapshot snapshot;
  const auto add = [&](const std::string& name, const std::string& host, const std::string& address,
                       int port) -> NodeFacts& {
    auto& node = snapshot.nodes.emplace_back();
    node.name = name;
    node.host = host;
    node.address = address;
    node.port = port;
    return node;
  };
  add("one", "cache-1", "cache-1.internal", 6379).addresses = {"10.0.0.1", "fd00::1"};
  add("two", "cache-2", "10.0.0.2", 6379);
  add("three", "", "127.0.0.1", 6380);
  const auto name_at = [&](const std::string& address, int port) {
    const auto* node = node_at(snapshot, address, port);
    return node == nullptr ? std::string("none") : node->name;
  };
  CHECK(name_at("10.0.0.1", 6379) == "one");
  CHECK(name_at("fd00::1", 6379) == "one");
  CHECK(name_at("cache-1.internal", 6379) == "one");
  CHECK(name_at("cache-2", 6379) == "two");
  CHECK(name_at("10.0.0.2", 6380) == "none");
  CHECK(name_at("localhost", 6380) == "three");
  CHECK(name_at("", 6380) == "none");
  add("again", "", "10.0.0.2", 6379);
  CHECK(name_at("10.0.0.2", 6379) == "none");
}

TEST_CASE("what a host found comes back whole from JSON") {
  LocalFacts local;
  local.is_data_dir = local.is_running = local.is_paused = local.is_working = local.fenced = true;
  local.holds_writes = true;
  local.pid = 77;
  local.fence_run = "20261124T031243-a1";
  local.problem = "目录";
  const auto again = local_from_json(to_json(local));
  CHECK(dump_line(to_json(again)) == dump_line(to_json(local)));
  CHECK(again.pid == 77);
  CHECK_FALSE(local_from_json(Json::array()).is_running);
}

TEST_CASE("the JSON of a node says what could not be had") {
  NodeFacts facts;
  facts.name = "redis-a";
  facts.failure = Failure::refused;
  facts.error.message = "redis-a (10.0.0.1:6379): connection refused";
  const auto json = to_json(facts);
  CHECK(json["role"] == "unknown");
  CHECK(json["failure"] == "refused");
  CHECK_FALSE(json.contains("offset"));
  facts.failure = Failure::none;
  facts.role = Role::replica;
  const auto answered = to_json(facts);
  CHECK(answered["role"] == "replica");
  CHECK(answered["replid2"].is_null());
  CHECK(answered["min_replicas"]["to_write"].is_null());
  CHECK_FALSE(answered.contains("config"));
}

}  // namespace
}  // namespace zx::redis
