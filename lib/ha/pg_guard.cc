#include "lib/ha/pg_guard.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {
namespace {

bool replies(const GuardSight& sight, const std::string& standby) {
  const auto& senders = sight.facts.senders;
  return std::any_of(senders.begin(), senders.end(), [&](const auto& sender) {
    return sender.application_name == standby && sender.state == "streaming" && sender.reply_age &&
           *sender.reply_age < sight.reply_within;
  });
}

// A failover that does not reach as many of the listed standbys as a commit waits for is refused:
// one of them may have a commit that no other node has.
bool has_sync_quorum(const GuardSight& sight) {
  const auto names = pg::parse_sync_names(sight.facts.sync_names);
  if (!names || names->method == pg::SyncNames::Method::none || names->lists("*")) return false;
  int replying = 0;
  for (const auto& node : sight.cluster.nodes)
    if (node.name != sight.facts.name && names->lists(node.name) && replies(sight, node.name))
      ++replying;
  return replying >= names->count;
}

std::vector<std::string> silent_candidates(const GuardSight& sight) {
  std::vector<std::string> silent;
  for (const auto& node : sight.cluster.nodes) {
    const bool may_lead = !node.nofailover && node.priority > 0;
    if (node.name != sight.facts.name && may_lead && !replies(sight, node.name))
      silent.push_back(node.name);
  }
  return silent;
}

}  // namespace

GuardVerdict guard(const GuardSight& sight) {
  const auto& facts = sight.facts;
  if (!facts.answered() || facts.role != pg::Role::primary)
    return {false, facts.name + " is no primary"};
  if (sight.is_barred) return {true, facts.name + " was given up by a failover"};
  if (sight.lease_left > sight.stop_margin)
    return {false, fmt::format("the lease lasts {} more", format_duration(sight.lease_left))};
  if (has_sync_quorum(sight))
    return {false, "no lease, and the synchronous standbys still receive from it"};
  const auto silent = silent_candidates(sight);
  if (silent.empty() && sight.cluster.nodes.size() > 1)
    return {false, "no lease, and every node that could take over still receives from it"};
  return {true, fmt::format("the lease cannot be renewed, and {} may have taken over",
                            silent.empty() ? std::string("another node") : join(silent, " or "))};
}

}  // namespace zx::ha
