// What has happened between two looks at a server, and what a Sentinel announces, in sentences.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/redis/facts.h"

namespace zx::redis {

struct Event {
  Wall at{};
  std::string node;  // or HOST:PORT of a Sentinel
  std::string kind;  // stable, for JSON: "down", "up", "loading", "restarted", "role", "follows", …
  std::string text;  // "redis-b has lost its link to 10.0.0.1:6379"
  bool is_bad = false;
};

// What is known of a server from the looks before.
struct History {
  std::optional<NodeFacts> last;      // with an answer or without
  std::optional<NodeFacts> answered;  // the last one with an answer
  void add(const NodeFacts& facts);
};
// What is new in `after`; servers of `others` are called by their names. Pure.
[[nodiscard]] std::vector<Event> events_since(const History& history, const NodeFacts& after,
                                              const Snapshot& others = {});

// A message of a Sentinel's pub/sub: "+switch-master" with "cache 10.0.0.1 6379 10.0.0.2 6379".
// Nothing for those of other masters than `master_name`, and for channels that are no event. Pure.
[[nodiscard]] std::optional<Event> sentinel_event(const std::string& sentinel, Wall at,
                                                  std::string_view channel, std::string_view text,
                                                  std::string_view master_name);

[[nodiscard]] Json to_json(const Event& event);

}  // namespace zx::redis
