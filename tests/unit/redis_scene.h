// Canned observations of a Redis deployment: redis-a, redis-b, … on 10.0.0.1, 10.0.0.2, …; seen
// from "here".
#pragma once

#include <optional>
#include <string>

#include "lib/config/config.h"
#include "lib/ha/redis_last_seen.h"
#include "lib/redis/facts.h"

namespace zx::test {

inline constexpr const char* kLine = "1111111111111111111111111111111111111111";
inline constexpr const char* kOtherLine = "2222222222222222222222222222222222222222";
inline constexpr const char* kNoLine = "0000000000000000000000000000000000000000";

struct RedisScene {
  config::RedisDeployment deployment;
  redis::Snapshot snapshot;
  std::optional<ha::RedisLastSeen> last;

  RedisScene() {
    deployment.name = "cache";
    snapshot.observer = "here";
    snapshot.at = Wall(std::chrono::hours(1000));
  }

  redis::NodeFacts& node(const std::string& name) {
    for (auto& facts : snapshot.nodes)
      if (facts.name == name) return facts;
    std::abort();
  }
  redis::NodeFacts& add(redis::Failure failure, redis::Role role, std::int64_t offset = 0) {
    const auto number = snapshot.nodes.size();
    redis::NodeFacts facts;
    facts.name = std::string("redis-") + static_cast<char>('a' + number);
    facts.host = "host-" + std::string(1, static_cast<char>('a' + number));
    facts.address = "10.0.0." + std::to_string(number + 1);
    facts.port = 6379;
    facts.at = snapshot.at;
    facts.failure = failure;
    facts.role = role;
    facts.run_id = "run-" + facts.name;
    facts.lineage = {kLine, kNoLine, -1, offset};
    facts.keys = 1000;
    config::RedisNode node;
    node.name = facts.name;
    node.host = facts.host;
    deployment.nodes.push_back(node);
    return snapshot.nodes.emplace_back(std::move(facts));
  }
  redis::NodeFacts& master(std::int64_t offset = 5000) {
    return add(redis::Failure::none, redis::Role::master, offset);
  }
  redis::NodeFacts& gone(redis::Failure failure) {
    auto& facts = add(failure, redis::Role::unknown);
    facts.error.message = "it says why";
    facts.lineage = {};
    facts.keys = 0;
    return facts;
  }
  // Linked to the node of that number, which it heard a second ago.
  redis::NodeFacts& replica(int of, std::int64_t offset = 5000) {
    auto& facts = add(redis::Failure::none, redis::Role::replica, offset);
    redis::Link link;
    link.master_host = "10.0.0." + std::to_string(of + 1);
    link.master_port = 6379;
    link.is_up = true;
    link.last_io_s = 1;
    facts.link = link;
    return facts;
  }
  redis::NodeFacts& cut_off(int of, std::int64_t offset = 5000, std::int64_t seconds = 2) {
    auto& facts = replica(of, offset);
    facts.link->is_up = false;
    facts.link->last_io_s.reset();
    facts.link->down_for_s = seconds;
    return facts;
  }
  ha::RedisLastSeen& last_master(const std::string& name, std::int64_t offset = 5000) {
    last.emplace();
    last->at = snapshot.at - std::chrono::seconds(3);
    last->master = name;
    last->run_id = "run-" + name;
    last->lineage = {kLine, kNoLine, -1, offset};
    last->keys = 1000;
    return *last;
  }
  redis::SentinelFacts& sentinel(int master) {
    deployment.sentinel.master_name = "shop";
    redis::SentinelFacts facts;
    facts.address = "10.0.1." + std::to_string(snapshot.sentinels.size() + 1);
    facts.failure = redis::Failure::none;
    facts.knows_master = true;
    facts.master_host = "10.0.0." + std::to_string(master + 1);
    facts.master_port = 6379;
    facts.flags = {"master"};
    facts.quorum = 2;
    facts.has_quorum = true;
    deployment.sentinel.nodes.push_back(facts.address + ":26379");
    snapshot.sentinels.push_back(std::move(facts));
    for (auto& one : snapshot.sentinels)
      one.other_sentinels = static_cast<int>(snapshot.sentinels.size()) - 1;
    return snapshot.sentinels.back();
  }
};

}  // namespace zx::test
