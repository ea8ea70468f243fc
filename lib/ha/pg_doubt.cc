// Who of the nodes that a failover was about may be a primary, and whose line is the right one.
#include <algorithm>

#include <fmt/format.h>

#include "lib/ha/pg_watch.h"

namespace zx::ha {

using pg::NodeFacts;
using pg::Role;

std::string doubt_of(const WatchRecord& record, const pg::Snapshot& snapshot,
                     const std::string& primary) {
  const auto* owed = record.owes(primary);
  const bool was_left = record.begun && record.begun->from == primary;
  if (owed == nullptr && !was_left) return {};
  if (record.last && record.last->is_acknowledged) return {};
  // When every other node is a standby, none of them is ahead on a line of its own any more.
  const auto missing =
      std::find_if(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
        return facts.name != primary && (!facts.answered() || facts.role != Role::standby);
      });
  const auto* own = snapshot.node(primary);
  const auto* ahead = own != nullptr ? ahead_of(snapshot, *own) : nullptr;
  if (ahead != nullptr)
    return fmt::format(
        "{} accepts writes, but was given up in a failover, and {} is on timeline {} of who took "
        "over",
        primary, ahead->name, ahead->lineage.timeline);
  if (missing == snapshot.nodes.end()) return {};
  return fmt::format(
      "{} accepts writes, but was given up in a failover, and {} may have taken over: start {}, or "
      "zx failover ack when it is gone for good",
      primary, missing->name, missing->name);
}

const NodeFacts* ahead_of(const pg::Snapshot& snapshot, const NodeFacts& primary) {
  for (const auto& facts : snapshot.nodes)
    if (facts.name != primary.name && facts.answered() && facts.role == Role::standby &&
        facts.lineage.system_id == primary.lineage.system_id &&
        facts.lineage.timeline > primary.lineage.timeline)
      return &facts;
  return nullptr;
}

std::string newer_than(const std::string& node, const pg::Lineage& line, const NodeFacts& primary) {
  if (line.system_id != primary.lineage.system_id || line.timeline <= primary.lineage.timeline)
    return {};
  const auto relation = pg::can_follow(line, Lsn{~std::uint64_t{0}}, primary.lineage);
  return fmt::format(
      "{} is on timeline {}{}, later than timeline {} of {}: what was committed there is not on {}",
      node, line.timeline,
      relation.kin == pg::Kin::diverged ? " since " + to_string(relation.fork) : std::string(),
      primary.lineage.timeline, primary.name, primary.name);
}

std::string way_back(const NodeFacts& primary, const std::string& ahead) {
  return fmt::format(
      "if {0} was given up: touch {1}/standby.signal on its host, restart its server there, then "
      "zx failover pg where its successor was seen; to give up what only {2} has: zx rejoin pg {2} "
      "--confirm {2}",
      primary.name, primary.data_directory.empty() ? "DATA" : primary.data_directory, ahead);
}

std::string given_up_in(const std::vector<FenceDebt>& debts, const WatchRecord* record,
                        const std::string& node) {
  for (const auto& debt : debts)
    if (debt.node == node) return debt.run;
  const auto* owed = record != nullptr ? record->owes(node) : nullptr;
  return owed != nullptr ? owed->run : std::string();
}

bool gave_way_to(const WatchRecord& record, const std::string& node, const std::string& primary) {
  const auto* owed = record.owes(node);
  if (owed == nullptr) return false;
  const auto& last = record.last;
  return (owed->to.empty() && last && last->run == owed->run ? last->to : owed->to) == primary;
}

std::string heir_of(const WatchRecord& record, const pg::Snapshot& snapshot,
                    const std::string& primary) {
  if (record.last && record.last->is_acknowledged) return {};
  const auto is_heir = [&](const std::string& from, const std::string& to) {
    const auto* facts = snapshot.node(to);
    return from == primary && to != primary && facts != nullptr && !facts->answered();
  };
  if (record.begun && is_heir(record.begun->from, record.begun->to)) return record.begun->to;
  if (record.last && is_heir(record.last->from, record.last->to)) return record.last->to;
  const auto* owed = record.owes(primary);
  return owed != nullptr && is_heir(primary, owed->to) ? owed->to : std::string();
}

std::string missed_successor(const WatchRecord& record, const pg::Snapshot& snapshot,
                             const std::string& primary) {
  const auto* owed = record.owes(primary);
  if (owed == nullptr || !record.last || record.last->run != owed->run ||
      successor_of(record, snapshot, primary) != nullptr)
    return {};
  return fmt::format(
      "{} was given up for {} in run {}, which was not seen from here as the primary: what that "
      "one committed may be nowhere else",
      primary, record.last->to, owed->run);
}

const NodeFacts* successor_of(const WatchRecord& record, const pg::Snapshot& snapshot,
                              const std::string& primary) {
  const auto* owed = record.owes(primary);
  const auto& last = record.last;
  if (owed == nullptr || !last || last->run != owed->run || last->from != primary ||
      record.owes(last->to) != nullptr)
    return nullptr;
  const auto* successor = snapshot.node(last->to);
  if (successor == nullptr || !successor->answered() || successor->role != Role::standby)
    return nullptr;
  const auto& line = successor->lineage;
  if (last->timeline == 0 || line.timeline < last->timeline) return nullptr;
  const bool is_latest =
      std::all_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
        if (facts.name == primary && facts.answered())
          return facts.lineage.timeline < line.timeline;
        return !facts.answered() || (facts.lineage.system_id == line.system_id &&
                                     facts.lineage.timeline <= line.timeline);
      });
  return is_latest ? successor : nullptr;
}

}  // namespace zx::ha
