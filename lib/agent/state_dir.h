// The state directory under a running agent: is it still there, and is there room for a failover?
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "lib/coord/coordinator.h"

namespace zx::agent {

struct Room {
  std::optional<std::uint64_t> free;  // bytes that this process may still write
  std::string warning;                // why a failover could not be begun; empty: there is room
};
[[nodiscard]] Room room_in(const std::string& directory);

// Somebody removed the directory, or what the agent is found and kept apart by. With coordination
// by files the lock of the leader is gone with it: it is held on a file that nobody else finds.
struct Lost {
  bool has_socket = true, has_coordination = true;
  [[nodiscard]] bool is_nothing() const { return has_socket && has_coordination; }
};
// Of the leader's lock, as it was found there last; nothing while another agent leads.
struct LockFile {
  dev_t device = 0;
  ino_t number = 0;
  bool operator==(const LockFile&) const = default;
};
[[nodiscard]] Lost what_is_lost(const std::string& state_dir, const std::string& socket,
                                bool by_files, const coord::Standing& standing,
                                std::optional<LockFile>& held);

}  // namespace zx::agent
