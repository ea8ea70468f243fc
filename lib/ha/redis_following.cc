#include "lib/ha/redis_following.h"

#include <fmt/format.h>

#include "lib/base/count.h"

namespace zx::ha {

using redis::NodeFacts;
using redis::Role;
using redis::Snapshot;

std::string master_of(const Snapshot& snapshot, const NodeFacts& replica) {
  if (!replica.link) return {};
  const auto* found =
      redis::node_at(snapshot, replica.link->master_host, replica.link->master_port);
  return found == nullptr ? std::string() : found->name;
}

bool is_behind(const Snapshot& snapshot, const NodeFacts& replica, const NodeFacts& master) {
  const auto* upstream = snapshot.node(master_of(snapshot, replica));
  for (std::size_t hops = 0; upstream != nullptr && hops < snapshot.nodes.size(); ++hops) {
    if (upstream->name == master.name) return true;
    if (!upstream->is_linked()) return false;
    upstream = snapshot.node(master_of(snapshot, *upstream));
  }
  return false;
}

std::string lost_by_following(const NodeFacts& node, const NodeFacts& master) {
  if (node.keys == 0 || redis::is_prefix_of(node.lineage, master.lineage)) return {};
  // A replica that only lost its link for long has nothing that the master has not.
  const bool has_more = node.role == Role::master || node.keys > master.keys ||
                        node.lineage.offset > master.lineage.offset;
  if (!has_more) return {};
  return fmt::format("{} has {} of another line, gone once it follows {} ({})", node.name,
                     count_of(node.keys, "key"), master.name, count_of(master.keys, "key"));
}

}  // namespace zx::ha
