#include "lib/ha/sync_debt.h"

#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/pg_told.h"
#include "lib/os/files.h"

namespace zx::ha {
namespace {

std::string path_of(const std::string& state_dir, const std::string& cluster) {
  return state_dir + "/sync/pg." + cluster + ".json";
}

Status share(coord::Shared& shared, const std::string& cluster, const SyncDebt& debt) {
  return change_record(shared, cluster, [&](WatchRecord& record) { record.sync_owed = debt; });
}

}  // namespace

std::optional<LocalSyncDebt> local_sync_debt(const std::string& state_dir,
                                             const std::string& cluster) {
  const auto text = os::read_file(path_of(state_dir, cluster), 65536);
  if (!text) return std::nullopt;
  const auto json = parse_json(*text, "a record of synchronous_standby_names");
  if (!json) return std::nullopt;
  LocalSyncDebt local{
      {get_string(*json, "wanted"), get_string(*json, "reduced"), get_string(*json, "run")},
      get_bool(*json, "shared")};
  if (local.debt.wanted.empty()) return std::nullopt;
  return local;
}

Status write_local_sync_debt(const std::string& state_dir, const std::string& cluster,
                             const LocalSyncDebt& local) {
  const auto path = path_of(state_dir, cluster);
  ZX_TRY(os::make_directories(os::parent_of(path)));
  const Json json{{"wanted", local.debt.wanted},
                  {"reduced", local.debt.reduced},
                  {"run", local.debt.run},
                  {"shared", local.is_shared}};
  return os::write_file(path, dump_line(json) + "\n");
}

Status clear_local_sync_debt(const std::string& state_dir, const std::string& cluster) {
  const auto path = path_of(state_dir, cluster);
  return os::exists(path) ? os::remove_file(path) : Status{};
}

bool is_still_reduced(const SyncDebt& debt, const std::string& sync_names) {
  const auto now = pg::parse_sync_names(sync_names);
  return now && to_string(*now) == debt.reduced;
}

std::optional<SyncDebt> newest_sync_debt(const std::optional<LocalSyncDebt>& local,
                                         const WatchRecord* record, const std::string& sync_names) {
  std::optional<SyncDebt> newest;
  if (record != nullptr) newest = record->sync_owed;
  // The name of a run begins with its moment.
  if (local && (record == nullptr || !local->is_shared) &&
      (!newest || local->debt.run > newest->run))
    newest = local->debt;
  if (newest && !is_still_reduced(*newest, sync_names)) newest.reset();
  return newest;
}

std::vector<std::string> able_standbys(const pg::Snapshot& snapshot, const pg::NodeFacts& primary,
                                       const pg::SyncNames& names,
                                       std::optional<std::uint64_t> max_behind) {
  std::vector<std::string> able;
  for (const auto& facts : snapshot.nodes) {
    if (facts.name == primary.name || !facts.receives() || !names.lists(facts.name)) continue;
    // One whose address is none of the cluster's, as behind a proxy, may be the primary's.
    const auto upstream = upstream_node(snapshot, facts);
    if (!upstream.empty() && upstream != primary.name) continue;
    if (max_behind && bytes_ahead(primary.flushed, facts.position()) > *max_behind) continue;
    able.push_back(facts.name);
  }
  return able;
}

KnownSyncDebt sync_debt(PgWorld& world, const std::string& sync_names) {
  const auto& cluster = world.cluster().name;
  const auto local = local_sync_debt(cluster_state_dir(world), cluster);
  auto* shared = world.shared();
  if (shared == nullptr) return {newest_sync_debt(local, nullptr, sync_names), std::nullopt};
  const auto record = read_record(*shared, cluster);
  if (!record) return {newest_sync_debt(local, nullptr, sync_names), record.error()};
  return {newest_sync_debt(local, &*record, sync_names), std::nullopt};
}

Noted write_sync_debt(PgWorld& world, const KnownSyncDebt& known, const SyncDebt& debt) {
  const auto& state = cluster_state_dir(world);
  const auto& cluster = world.cluster().name;
  Noted noted;
  noted.here = write_local_sync_debt(state, cluster, {debt, false});
  if (!noted.here || world.shared() == nullptr) return noted;
  noted.everywhere =
      known.not_asked ? fail(*known.not_asked) : share(*world.shared(), cluster, debt);
  if (noted.everywhere) noted.here = write_local_sync_debt(state, cluster, {debt, true});
  return noted;
}

Noted clear_sync_debt(PgWorld& world, const KnownSyncDebt& known) {
  const auto& cluster = world.cluster().name;
  Noted noted;
  if (world.shared() != nullptr)
    noted.everywhere = known.not_asked
                           ? fail(*known.not_asked)
                           : change_record(*world.shared(), cluster,
                                           [](WatchRecord& record) { record.sync_owed.reset(); });
  noted.here = clear_local_sync_debt(cluster_state_dir(world), cluster);
  return noted;
}

Status share_sync_debt(const std::string& state_dir, coord::Shared& shared,
                       const std::string& cluster, const std::string& run) {
  const auto local = local_sync_debt(state_dir, cluster);
  if (!local || local->is_shared || local->debt.run != run) return {};
  ZX_TRY(share(shared, cluster, local->debt));
  return write_local_sync_debt(state_dir, cluster, {local->debt, true});
}

}  // namespace zx::ha
