#include "lib/ha/redis_inquiry.h"

namespace zx::ha {

void look_on_host(RedisWorld& world, redis::NodeFacts& facts, Millis deadline) {
  const auto found = world.on_host_of(facts.name, "redis-inspect", Json::object(), deadline);
  if (found)
    facts.local = redis::local_from_json(*found);
  else
    facts.local_error = found.error().message;
}

RedisInquiry inquire(RedisWorld& world, const std::string& node, Millis deadline) {
  RedisInquiry inquiry;
  inquiry.node = node;
  inquiry.began = monotonic_now();
  const std::string own_host = "own host", others = "others";
  const auto parts = all_at_once<RedisInquiry>({own_host, others}, [&](const std::string& whom) {
    RedisInquiry part;
    if (whom == others) {
      part.testimonies = world.ask_around(node, deadline);
      return part;
    }
    redis::NodeFacts facts;
    facts.name = node;
    look_on_host(world, facts, deadline);
    part.local = facts.local;
    part.local_error = facts.local_error;
    return part;
  });
  inquiry.local = parts.front().local;
  inquiry.local_error = parts.front().local_error;
  inquiry.testimonies = parts.back().testimonies;
  return inquiry;
}

void add(redis::Snapshot& snapshot, const RedisInquiry& inquiry) {
  snapshot.testimonies.insert(snapshot.testimonies.end(), inquiry.testimonies.begin(),
                              inquiry.testimonies.end());
  for (auto& facts : snapshot.nodes) {
    if (facts.name != inquiry.node || facts.answered()) continue;
    facts.local = inquiry.local;
    facts.local_error = inquiry.local_error;
  }
}

}  // namespace zx::ha
