#include "lib/ha/pg_directory.h"

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/pg_judge.h"

namespace zx::ha {

using pg::NodeFacts;
using pg::Snapshot;

std::string another_server(const NodeFacts& facts, const pg::LocalFacts& local) {
  if (!local.processes || local.port == 0 || local.port == facts.port) return {};
  return fmt::format(
      "data_dir of {} is not that server's: a server on port {} runs there, not on {}", facts.name,
      local.port, facts.port);
}

std::string wrong_directory(const Snapshot& snapshot, const std::string& node) {
  const auto* facts = snapshot.node(node);
  if (facts == nullptr || !facts->local || !facts->local->is_data_directory) return {};
  const auto& local = *facts->local;
  const auto says = [&](const std::string& why) {
    return fmt::format("data_dir of {} is not that server's: {}", node, why);
  };
  if (auto why = another_server(*facts, local); !why.empty()) return why;
  if (!local.processes && facts->failure == pg::Failure::silent)
    return says(fmt::format("no server runs there, and something accepts connections on {}:{}",
                            facts->address, facts->port));
  if (local.lineage.system_id.empty())
    return fmt::format(
        "data_dir of {} may be another server's, its system identifier could not be "
        "read: {}",
        node, local.problem);
  bool asked = false, ours = false;
  for (const auto& other : snapshot.nodes) {
    if (!other.answered() || other.name == node) continue;
    asked = true;
    ours = ours || other.lineage.system_id == local.lineage.system_id;
  }
  if (asked && !ours)
    return says("it is of another cluster, system identifier " + local.lineage.system_id);
  return {};
}

Status can_work_on(const config::PgCluster& cluster, const std::string& node,
                   const pg::LocalFacts& local) {
  if (local.denied)
    return fail(Code::auth, local.problem,
                "run zx on the host of " + node + " as root or as the directory's owner");
  if (!local.is_data_directory)
    return fail(Code::not_a_data_directory, local.problem,
                "set data_dir of the node to what SHOW data_directory says there; after a disk was "
                "replaced, make an empty directory of the server's user there and --rebuild");
  if (!local.missing_programs.empty())
    return fail(Code::config,
                fmt::format("the host of {} has no {} in {}", node,
                            join(local.missing_programs, ", "), cluster.bin_dir),
                "set bin_dir of the cluster in zx.toml to what pg_config --bindir says there");
  if (!local.problem.empty())
    return fail(Code::refused, local.problem, "nothing was changed; mend that first");
  return {};
}

std::string must_rebuild(const NodeFacts& node, const NodeFacts& primary) {
  if (node.answered() && node.misses_wal_of(primary))
    return fmt::format("it needs WAL from {} on, and {} has none before {}",
                       to_string(node.position()), primary.name, to_string(*primary.oldest_wal));
  if (!node.local) return {};
  const auto& local = *node.local;
  if (local.interrupted_rewind) return "its rewind, or its rebuild, was interrupted";
  if (local.is_empty) return "its data directory is empty";
  const auto relation = pg::can_follow(local.lineage, Lsn{~std::uint64_t{0}}, primary.lineage);
  if (relation.kin == pg::Kin::diverged && relation.same_names)
    return relation.why + ", which pg_rewind does not see";
  return {};
}

namespace {

// Its last timeline began where the two lines part, or later.
bool began_apart(const pg::Lineage& lineage, Lsn fork) {
  return !lineage.history || (!lineage.history->empty() && lineage.history->back().until >= fork);
}

}  // namespace

std::string why_not_yet(const pg::Snapshot& snapshot, const NodeFacts& node,
                        const NodeFacts& primary) {
  if (!node.answered() && !node.local) return {};
  constexpr Lsn kAll{~std::uint64_t{0}};
  const auto& line = node.answered() ? node.lineage : node.local->lineage;
  const auto relation = pg::can_follow(line, kAll, primary.lineage);
  if (relation.kin != pg::Kin::diverged) return {};
  const bool both_began =
      began_apart(line, relation.fork) && began_apart(primary.lineage, relation.fork);
  if (!relation.same_names && !both_began) return {};
  for (const auto& other : snapshot.nodes) {
    if (other.name == node.name || other.name == primary.name) continue;
    if (!other.answered())
      return fmt::format("{}; {} does not answer, it may be on that line and follow {}",
                         relation.why, other.name, node.name);
    if (other.role == pg::Role::standby && upstream_node(snapshot, other) == node.name &&
        pg::can_follow(other.lineage, other.position(), primary.lineage).kin == pg::Kin::diverged)
      return fmt::format("{}; {} is on that line and follows {}", relation.why, other.name,
                         node.name);
  }
  return {};
}

std::string rebuild_hint(const std::string& node) {
  return fmt::format("make it anew: zx rejoin pg {0} --rebuild --confirm {0}", node);
}

}  // namespace zx::ha
