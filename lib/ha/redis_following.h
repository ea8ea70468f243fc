// Who follows whom, and what a node would lose by following another. Pure.
#pragma once

#include <string>

#include "lib/redis/facts.h"

namespace zx::ha {

// The node that a replica is told to follow; empty when it is none of the deployment's.
[[nodiscard]] std::string master_of(const redis::Snapshot& snapshot,
                                    const redis::NodeFacts& replica);
// It is told to follow `master`, or to follow a replica that is linked and does: a chain. Whether
// its own link is up is another question.
[[nodiscard]] bool is_behind(const redis::Snapshot& snapshot, const redis::NodeFacts& replica,
                             const redis::NodeFacts& master);
// What nobody has any more once `node` follows `master`: keys of a line of its own. Empty: nothing.
[[nodiscard]] std::string lost_by_following(const redis::NodeFacts& node,
                                            const redis::NodeFacts& master);

}  // namespace zx::ha
