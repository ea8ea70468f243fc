// How one look at a Redis deployment is worded and drawn; what is the case is judged in lib/ha.
// Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "commands/command.h"
#include "lib/ha/redis_chain.h"
#include "lib/run/journal.h"

namespace zx::commands {

struct RedisView {
  const config::RedisDeployment* deployment = nullptr;
  redis::Snapshot snapshot;
  ha::RedisVerdict verdict;
  std::string summary;      // "master redis-a, 2 of 2 replicas linked, Sentinel agrees (3 of 3)"
  std::string open_run;     // the id of a run on it that has no end; empty: none
  bool is_at_work = false;  // it is being done now
  [[nodiscard]] bool is_healthy() const { return verdict.state == ha::RedisState::healthy; }
  // The only node that answers as a master; null when there is none, when there are several, or
  // when it seems to be one by mistake.
  [[nodiscard]] const redis::NodeFacts* master() const;
};
[[nodiscard]] RedisView redis_view(const config::RedisDeployment& deployment, ha::RedisView seen);

// A run on the deployment that has no end is a problem, and what to type about it a hint.
void add_open_run(RedisView& view, const run::Record& record, bool is_at_work);
// Why it is not known whether there is one.
void add_unclear_runs(RedisView& view, const Error& error);

// One word for a node; the note says more.
struct RedisState {
  std::string word;
  Tone tone = Tone::plain;
  std::string note;
};
[[nodiscard]] RedisState state_of(const RedisView& view, const redis::NodeFacts& facts);
// The node that a replica follows, or HOST:PORT when it is none of the deployment; empty for
// others.
[[nodiscard]] std::string followed_by(const RedisView& view, const redis::NodeFacts& facts);
// Bytes of the stream of the only master that a replica has not got; absent when it has another
// history, or when either is not known.
[[nodiscard]] std::optional<std::int64_t> bytes_behind(const RedisView& view,
                                                       const redis::NodeFacts& facts);
// The node that a Sentinel takes for the master, or HOST:PORT.
[[nodiscard]] std::string master_of(const RedisView& view, const redis::SentinelFacts& facts);

[[nodiscard]] Json to_json(const RedisView& view);

}  // namespace zx::commands
