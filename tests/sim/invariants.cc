#include "tests/sim/invariants.h"

#include <fmt/format.h>

namespace zx::sim {
namespace {

constexpr Micros kWritesWithin = 1500 * kMs;

}  // namespace

void Invariants::violate(std::string invariant, std::string what) {
  trace_([&] { return fmt::format("VIOLATION of {}: {}", invariant, what); });
  if (!violation_) violation_ = Violation{std::move(invariant), std::move(what)};
}

void Invariants::acknowledged(const ModelNode& node, int commit, bool by_standbys) {
  ++count_;
  auto at = node.wal.size();
  while (at > 0 && cluster_.records[static_cast<std::size_t>(node.wal[at - 1])].commit != commit)
    --at;
  const auto& holder = cluster_.nodes[static_cast<std::size_t>(holder_)];
  // The word of a standby may arrive late: what the new primary has is not lost.
  const bool is_on_both =
      at > 0 && holder.wal.size() >= at && holder.wal[at - 1] == node.wal[at - 1];
  if (node.index != holder_ && !is_on_both) {
    if (unfenced_.contains(node.name) && !by_standbys) {
      ++beside_;
      return;
    }
    return violate("one primary",
                   fmt::format("{} acknowledges commit {}{} after {} was promoted", node.name,
                               commit, by_standbys ? " (synchronously)" : "", holder.name));
  }
  last_acknowledged_ = scheduler_.now();
  if (by_standbys && at > 0) kept_.push_back({node.wal[at - 1], at - 1});
}

void Invariants::promoted(const ModelNode& node) {
  ++promotions_;
  holder_ = node.index;
  unfenced_.erase(node.name);
  check_kept(node, "was promoted");
}

void Invariants::check_kept(const ModelNode& node, const char* when) {
  for (const auto& kept : kept_)
    if (node.wal.size() <= kept.position || node.wal[kept.position] != kept.record)
      return violate(
          "no synchronous commit is lost",
          fmt::format("{} {} without commit {} at {}, which a standby had acknowledged", node.name,
                      when, cluster_.records[static_cast<std::size_t>(kept.record)].commit,
                      to_string(lsn_after(kept.position))));
}

void Invariants::mixed(const ModelNode& standby, const ModelNode& upstream) {
  violate("one line of WAL",
          fmt::format("{} (timeline {}, {}) receives from {}, whose WAL before is another",
                      standby.name, standby.timeline, to_string(standby.end()), upstream.name));
}

void Invariants::primary_started(const ModelNode& node) {
  if (node.index == holder_) return;
  trace_([&] { return node.name + " STARTS AS A SECOND PRIMARY"; });
}

std::string Invariants::what_is_missing(const std::set<std::string>& given_over,
                                        bool strict) const {
  const ModelNode* primary = nullptr;
  for (const auto& node : cluster_.nodes) {
    if (!node.accepts_writes()) continue;
    if (primary != nullptr)
      return fmt::format("{} and {} are both primaries", primary->name, node.name);
    primary = &node;
  }
  if (primary == nullptr) return "there is no primary";
  for (const auto& node : cluster_.nodes) {
    if (&node == primary || given_over.contains(node.name)) continue;
    if (!node.serves()) return node.name + " does not serve";
    if (node.receiver < 0 || !cluster_.connection(node.receiver).up_open)
      return node.name + " receives from nobody";
    const auto* up = &node;  // a cascade is as good
    for (std::size_t i = 0; i < cluster_.nodes.size() && up != primary && up->receiver >= 0; ++i)
      up = &cluster_.nodes[static_cast<std::size_t>(cluster_.connection(up->receiver).up)];
    if (up != primary) return node.name + " does not follow " + primary->name;
    if (!Cluster::is_prefix(node, *primary)) return node.name + " has other WAL than the primary";
  }
  const bool may_wait =
      strict && std::any_of(given_over.begin(), given_over.end(),
                            [&](const auto& name) { return primary->sync.lists(name); });
  if (!may_wait && scheduler_.now() - last_acknowledged_ > kWritesWithin)
    return "no write is acknowledged";
  return {};
}

}  // namespace zx::sim
