// From what was seen of a Redis deployment to what is the case. Pure: no I/O, no clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/ha/evidence.h"
#include "lib/ha/redis_following.h"
#include "lib/ha/redis_last_seen.h"
#include "lib/redis/facts.h"

namespace zx::ha {

enum class RedisState {
  healthy,              // one master, every other node is linked to it
  degraded,             // one master, but something is missing
  master_overloaded,    // no free client slot, or one command that takes long: alive
  master_unreachable,   // not from here; others reach it: alive
  master_loading,       // reading its data set: alive, of no use yet
  master_reborn_empty,  // it restarted without its data: whoever follows it becomes empty too
  master_silent,        // nobody gets an answer, nobody hears from it: dead or frozen
  master_dead,          // nothing listens there and nobody is linked to it
  several_masters,
  no_master,    // every node that could be it is a replica
  unreachable,  // no node answers, and nobody knows which one was the master
  unknown,      // not enough is known; never a reason to act
};
[[nodiscard]] const char* name_of(RedisState state);
// May a failover follow from it, when everything else agrees?
[[nodiscard]] bool calls_for_failover(RedisState state);

struct RedisVerdict {
  RedisState state = RedisState::unknown;
  std::string master;  // the one that serves, or the one that was; empty: not known
  std::vector<std::string> masters;
  std::string summary;  // one sentence without a full stop
  std::string hint;
  std::vector<Evidence> evidence;
  std::vector<std::string> problems;  // sentences: what is not as it should be, whatever the state
  std::vector<std::string> hints;     // what to do about it, each once; `hint` is the first
};

[[nodiscard]] RedisVerdict judge(const config::RedisDeployment& deployment,
                                 const redis::Snapshot& snapshot,
                                 const std::optional<RedisLastSeen>& last);

// Does `name`, which answers as the only master, seem to have been made one by mistake? Clients are
// not to be sent there.
[[nodiscard]] bool is_master_by_mistake(const RedisVerdict& verdict, const std::string& name);
// It restarted, is on a line of its own, and has next to nothing of the keys it was seen with, or
// that a replica on another line still has.
[[nodiscard]] bool is_reborn_empty(const redis::Snapshot& snapshot, const redis::NodeFacts& master,
                                   const std::optional<RedisLastSeen>& last);
// Its down-after-milliseconds is such that it fails over far too late, if ever.
[[nodiscard]] bool waits_too_long(const redis::SentinelFacts& facts);
// Why the Sentinels cannot fail over now; empty: they can, as far as those that answer say.
[[nodiscard]] std::string why_no_quorum(const config::RedisDeployment& deployment,
                                        const redis::Snapshot& snapshot);

}  // namespace zx::ha
