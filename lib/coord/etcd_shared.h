// What a person's command shares with the agents through etcd.
#pragma once

#include <memory>
#include <string>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/coord/etcd_client.h"

namespace zx::coord {

// Where a platform's keys are: "/zx/PLATFORM/".
[[nodiscard]] std::string etcd_prefix(const config::Config& config);
// Code::config: a password that cannot be read.
[[nodiscard]] Result<EtcdOptions> etcd_options(const config::Config& config);

struct EtcdSharedOptions {
  EtcdOptions etcd;
  std::string prefix;  // as of the agents
  Millis ttl{5'000};   // of a turn: how long after its holder was killed another may begin
};
// A turn taken here has a lease of its own, which a thread keeps.
// Code::config when the options make no sense; etcd is not asked yet.
[[nodiscard]] Result<std::unique_ptr<Shared>> etcd_shared(EtcdSharedOptions options);

// By files or by etcd, as [agent] coordination says.
[[nodiscard]] Result<std::unique_ptr<Shared>> shared_of(const config::Config& config);

}  // namespace zx::coord
