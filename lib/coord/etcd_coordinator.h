// Coordination of agents on several hosts through etcd.
#pragma once

#include <memory>
#include <string>

#include "lib/coord/coordinator.h"
#include "lib/coord/etcd_client.h"

namespace zx::coord {

struct EtcdCoordinatorOptions {
  EtcdOptions etcd;
  std::string prefix;  // "/zx/shop/": of one platform
  std::string name;    // of this agent; no two agents have the same
  std::string region;
  Millis ttl{5'000};  // whole seconds, at least 2: how long after its death another agent leads
  bool is_candidate = true;  // false: looks on, votes and shares facts, but never leads
  // The leader lets etcd forget history older than this, or its database would grow until it is
  // full; 0 leaves that to etcd's own --auto-compaction-retention.
  Millis compact_every{600'000};
};

// A thread keeps one lease in etcd, with the vote and, if it comes first, the leader's key attached
// to it. Whoever holds the leader's key leads; its create_revision is the fencing token.
//
// cut_off follows as soon as the lease may have run out: at most ttl after the last round in which
// etcd answered everything. That a majority of etcd is gone, that it is full (NOSPACE), that it
// refuses our password all end there; with the first round that succeeds it is over. If the token
// is still the same then, nobody else has led meanwhile. Ending it gives the lease back, so that
// another agent leads at once.
// Code::config when the options make no sense; etcd is not asked yet.
[[nodiscard]] Result<std::unique_ptr<Coordinator>> etcd_coordinator(EtcdCoordinatorOptions options);

}  // namespace zx::coord
