#include "lib/ha/pg_proof.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/pg/lineage.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {

using pg::NodeFacts;
using pg::Role;
using pg::Snapshot;
using pg::SyncNames;

bool is_standby(const NodeFacts* facts) {
  return facts != nullptr && facts->answered() && facts->role == Role::standby;
}

const char* name_of(FenceMeans::Kind kind) {
  switch (kind) {
    case FenceMeans::Kind::host: return "host";
    case FenceMeans::Kind::in_recovery: return "in_recovery";
    case FenceMeans::Kind::quorum: return "quorum";
    case FenceMeans::Kind::guard: return "guard";
    case FenceMeans::Kind::operator_says: return "operator";
    case FenceMeans::Kind::policy: return "policy";
    case FenceMeans::Kind::none: return "none";
  }
  return "none";
}

namespace {

// The listed nodes other than the old primary, in the order of the list.
std::vector<std::string> members_of(const SyncNames& names, const config::PgCluster& cluster,
                                    const std::string& old_primary) {
  std::vector<std::string> members;
  const auto add = [&](const std::string& node) {
    if (node != old_primary && std::find(members.begin(), members.end(), node) == members.end())
      members.push_back(node);
  };
  for (const auto& name : names.names)
    for (const auto& node : cluster.nodes)
      if (name == "*" || lower(name) == lower(node.name)) add(node.name);
  // A listed name that is no node of ours may have acknowledged as well: it counts, and is never
  // reachable.
  for (const auto& name : names.names) {
    const bool ours = name == "*" || std::any_of(cluster.nodes.begin(), cluster.nodes.end(),
                                                 [&](const auto& node) {
                                                   return lower(node.name) == lower(name);
                                                 });
    if (!ours) add(name);
  }
  return members;
}

// How far a standby is on the line of `node`: one that is on an earlier timeline, and went on where
// that one left it, has nothing more of it.
Lsn common_end(const NodeFacts& facts, const NodeFacts* node) {
  if (node == nullptr || facts.lineage.timeline >= node->lineage.timeline) return facts.position();
  const auto relation = pg::can_follow(facts.lineage, facts.position(), node->lineage);
  return relation.kin == pg::Kin::diverged ? relation.fork : facts.position();
}

}  // namespace

SyncSafety sync_safety(const std::string& sync_names, const config::PgCluster& cluster,
                       const Snapshot& snapshot, const std::string& old_primary,
                       const std::string& node, const std::optional<LastSeen>& last, bool is_off) {
  SyncSafety safety;
  const auto names = pg::parse_sync_names(sync_names);
  if (!names) {
    safety.applies = true;
    safety.why = names.error().message;
    return safety;
  }
  if (names->method == SyncNames::Method::none) return safety;
  safety.applies = true;
  auto members = members_of(*names, cluster, old_primary);
  if (names->lists("*")) {
    // Anything that connects matches it, such as pg_receivewal: only who was seen to be there last
    // says whether all of them are known.
    const bool knows = last && last->primary == old_primary;
    if (!knows) members.emplace_back("whoever else was connected");
    for (const auto& name : knows ? last->sync_standbys : std::vector<std::string>{})
      if (cluster.node(name) == nullptr) members.push_back(name);
  }
  Lsn best;
  std::vector<std::string> missing, replaying;
  const auto* mine = snapshot.node(node);
  for (const auto& member : members) {
    const auto* facts = snapshot.node(member);
    if (is_standby(facts) && (member == node || facts->knows_its_end())) {
      best = std::max(best, common_end(*facts, mine));
      continue;
    }
    missing.push_back(member);
    if (is_standby(facts)) replaying.push_back(member);
  }
  // Every acknowledged commit is on `count` of the members: when fewer than that are missing, one
  // that answers has it, and the one furthest ahead has all.
  if (static_cast<int>(missing.size()) < names->count) {
    safety.safe = is_standby(mine) && mine->position() >= best;
    safety.why =
        safety.safe ? "it has all that was acknowledged" : "a synchronous standby is ahead of it";
    return safety;
  }
  // FIRST: the first connected ones acknowledge. One of them that was so until the end has all.
  const auto place = std::find(members.begin(), members.end(), node) - members.begin();
  const bool was_sync = last && last->primary == old_primary && last->is_watched &&
                        snapshot.at - last->at < kLooksLast &&
                        std::find(last->sync_standbys.begin(), last->sync_standbys.end(), node) !=
                            last->sync_standbys.end();
  // One that runs still, or is started again, sees it go when it is frozen and takes the next of
  // the list in its place.
  const auto* old = snapshot.node(old_primary);
  const bool may_go_on = !is_off && old != nullptr && (!old->local || old->local->processes);
  if (names->method == SyncNames::Method::first && place < names->count && was_sync && !may_go_on) {
    safety.safe = true;
    safety.why = "it was the synchronous standby when last seen";
    return safety;
  }
  safety.why = fmt::format(
      "acknowledged commits may be only on {}, {} (synchronous_standby_names = '{}')",
      join(missing, ", "),
      replaying.empty()
          ? "which cannot be asked"
          : join(replaying, ", ") + " still replaying WAL from before a restart: let it",
      sync_names);
  return safety;
}

FenceMeans fence_means(const config::PgCluster& cluster, const Snapshot& snapshot,
                       const std::string& old_primary, const std::string& sync_names,
                       bool sync_known, bool assume_fenced, bool is_guarded) {
  using Kind = FenceMeans::Kind;
  const auto* old = snapshot.node(old_primary);
  if (old_primary.empty())
    return {Kind::in_recovery, "no node was the primary; all are in recovery", {}};
  if (old != nullptr && old->answered() && old->role == Role::standby)
    return {Kind::in_recovery, old_primary + " is in recovery and cannot accept writes", {}};
  if (old != nullptr && old->local && old->local->is_data_directory)
    return {Kind::host,
            fmt::format("{} answers, {} will be fenced there first", old->host, old_primary),
            {}};
  const auto why_not = old == nullptr ? std::string("it is not in zx.toml")
                       : old->local   ? old->local->problem
                                      : old->local_error;
  if (assume_fenced)
    return {Kind::operator_says,
            fmt::format("the operator says that {} cannot accept writes (--assume-fenced)",
                        old_primary),
            {}};
  if (sync_known)
    if (const auto names = pg::parse_sync_names(sync_names);
        names && names->method != SyncNames::Method::none) {
      int left = 0;
      for (const auto& member : members_of(*names, cluster, old_primary))
        if (!is_standby(snapshot.node(member))) ++left;
      if (left < names->count && !names->lists("*"))
        return {Kind::quorum,
                fmt::format("{} needs {} of '{}' to acknowledge a commit and can reach {} once the "
                            "others are frozen",
                            old_primary, names->count, sync_names, left),
                {}};
    }
  if (is_guarded)
    return {Kind::guard,
            fmt::format("the guard of {} stops it before its lease runs out, which is waited for",
                        old_primary),
            {}};
  if (!cluster.policy.require_fence)
    return {Kind::policy, "require_fence is off: nothing proves that the old primary is gone", {}};
  FenceMeans means;
  means.why = fmt::format("{} cannot be fenced: {}", old_primary,
                          why_not.empty() ? "its host was not asked" : why_not);
  means.ways_out = {
      old != nullptr && old->local ? std::string("mend that, in zx.toml or on its host")
                                   : fmt::format("make its host reachable ([hosts.{}] remote)",
                                                 old != nullptr ? old->host : "HOST"),
      fmt::format("or switch the machine off yourself, then: zx failover pg --assume-fenced")};
  return means;
}

}  // namespace zx::ha
