// What is looked at before a copy is taken.
#include <cstdlib>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/redis/backup.h"
#include "lib/redis/observe.h"

namespace zx::redis {
namespace {

constexpr Millis kCatchUp{5'000};
constexpr int kManyDatabases = 10'000;

}  // namespace

int databases_of(const Target& target, Deadline deadline) {
  auto client = Client::open(target, deadline);
  if (!client) return kManyDatabases;
  const auto reply = client->command({"CONFIG", "GET", "databases"}, deadline);
  if (!reply || reply->items.size() != 2) return kManyDatabases;
  const auto count = std::atoi(reply->items[1].text.c_str());
  return count > 0 ? count : kManyDatabases;
}

Status has_room_for(const NodeFacts& source) {
  const auto free = memory_available();
  if (!free || *free >= source.memory_used + source.memory_used / 10) return {};
  return fail(Code::refused,
              fmt::format("{} has {} in memory, and this host has {} free to load the copy",
                          source.name, format_bytes(source.memory_used), format_bytes(*free)));
}

Result<std::string> catch_up(const config::Config& config,
                             const config::RedisDeployment& deployment, const Snapshot& snapshot,
                             const std::string& node, Deadline until) {
  const auto* source = snapshot.node(node);
  if (source == nullptr || !source->is_linked()) return std::string();
  const auto* master = node_at(snapshot, source->link->master_host, source->link->master_port);
  if (master == nullptr || !master->answered()) return std::string();
  ZX_ASSIGN(const auto target, target_of(config, deployment, node));
  ZX_ASSIGN(const auto lacking,
            wait_for_offset(target, master->lineage.offset, until.at_most(kCatchUp)));
  if (lacking <= 0) return std::string();
  return fmt::format("{} is {} behind {}: the copy is of then", node,
                     format_bytes(static_cast<std::uint64_t>(lacking)), master->name);
}

std::string doubt_of(const Snapshot& snapshot, const std::string& node) {
  std::vector<std::string> masters;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == Role::master) masters.push_back(facts.name);
  if (masters.size() < 2) return {};
  const auto* source = snapshot.node(node);
  const auto* followed =
      source == nullptr || !source->link
          ? nullptr
          : node_at(snapshot, source->link->master_host, source->link->master_port);
  return fmt::format(
      "{} both say that they are the master, and it is not clear which is right: this copy is of "
      "{}{}",
      join(masters, " and "), node, followed == nullptr ? "" : ", which follows " + followed->name);
}

}  // namespace zx::redis
