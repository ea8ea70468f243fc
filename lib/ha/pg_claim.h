// Where no coordinator says who is at work, the servers do: of two runs that promote, by whomever,
// from whatever host or state_dir, only one gets on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/coord/lock.h"
#include "lib/pg/connection.h"

namespace zx::ha {

// Holds an advisory lock on every server of `targets` that answers within `deadline`, in sessions
// that the servers end by themselves when this process has said nothing for 10 s
// (idle_session_timeout, PostgreSQL 14). Code::locked, naming the holder, when somebody else has
// one of them. The lease's check() is refused, for good, once this process has stood still for so
// long that another may have begun. Servers that do not answer claim nothing, nor do those that
// stop meanwhile; all that would promote ask those that are left.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> claim_servers(
    const std::vector<pg::Target>& targets, const std::string& command, Deadline deadline);

}  // namespace zx::ha
