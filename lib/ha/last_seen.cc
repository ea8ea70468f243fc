#include "lib/ha/last_seen.h"

#include <algorithm>
#include <filesystem>

#include "lib/os/files.h"

namespace zx::ha {
namespace {

std::string path_of(const std::string& state_dir, const std::string& cluster) {
  return state_dir + "/last/pg." + cluster + ".json";
}

std::string debts_directory(const std::string& state_dir, const std::string& cluster) {
  return state_dir + "/fences/pg." + cluster;
}

}  // namespace

namespace {

std::optional<LastSeen> last_seen_from(const std::string& text) {
  const auto json = parse_json(text, "last seen");
  if (!json) return std::nullopt;
  LastSeen seen;
  seen.at = parse_utc(get_string(*json, "at"));
  seen.primary = get_string(*json, "primary");
  seen.flushed = parse_lsn(get_string(*json, "flushed")).value_or(Lsn{});
  seen.sync_names = get_string(*json, "sync_names");
  seen.was_sync = get_bool(*json, "was_sync");
  seen.is_watched = get_bool(*json, "is_watched");
  const auto& lineage = get_object(*json, "lineage");
  seen.lineage.system_id = get_string(lineage, "system_id");
  seen.lineage.timeline = static_cast<std::uint32_t>(get_int(lineage, "timeline"));
  if (lineage.contains("history")) {
    seen.lineage.history.emplace();
    for (const auto& edge : get_object(lineage, "history"))
      seen.lineage.history->push_back({static_cast<std::uint32_t>(get_int(edge, "timeline")),
                                       parse_lsn(get_string(edge, "until")).value_or(Lsn{})});
  }
  if (const auto mark = get_string(lineage, "mark"); !mark.empty()) seen.lineage.mark = mark;
  for (const auto& name : get_object(*json, "sync_standbys"))
    if (name.is_string()) seen.sync_standbys.push_back(name.get<std::string>());
  if (seen.primary.empty()) return std::nullopt;
  return seen;
}

}  // namespace

std::optional<LastSeen> read_last_seen(const std::string& state_dir, const std::string& cluster) {
  const auto text = os::read_file(path_of(state_dir, cluster), 1 << 20);
  if (!text) return std::nullopt;
  // An agent reads it several times in each of its looks, on a thread for each cluster.
  thread_local std::string read;
  thread_local std::optional<LastSeen> seen;
  if (*text != read) {
    seen = last_seen_from(*text);
    read = *text;
  }
  return seen;
}

bool says_more(const LastSeen& now, const LastSeen& before) {
  return now.primary != before.primary || now.sync_names != before.sync_names ||
         now.sync_standbys != before.sync_standbys ||
         now.lineage.system_id != before.lineage.system_id ||
         now.lineage.timeline != before.lineage.timeline;
}

std::optional<LastSeen> last_seen_of(const pg::Snapshot& snapshot) {
  const pg::NodeFacts* primary = nullptr;
  for (const auto& facts : snapshot.nodes) {
    if (facts.role != pg::Role::primary) continue;
    if (primary != nullptr) return std::nullopt;
    primary = &facts;
  }
  if (primary == nullptr) return std::nullopt;
  LastSeen seen{
      primary->at, primary->name, primary->lineage, primary->flushed, primary->sync_names, {},
      false,       false};
  for (const auto& sender : primary->senders)
    if (sender.sync_state == "sync" || sender.sync_state == "quorum")
      seen.sync_standbys.push_back(sender.application_name);
  return seen;
}

// An agent notes it at least as often.
constexpr Millis kWatchedOften{10'000};

Status write_last_seen(const std::string& state_dir, const std::string& cluster,
                       const LastSeen& seen) {
  const auto before = read_last_seen(state_dir, cluster);
  const bool was_sync =
      seen.was_sync || (before && before->lineage.system_id == seen.lineage.system_id &&
                        (before->was_sync || (!before->sync_names.empty() &&
                                              before->lineage.timeline < seen.lineage.timeline)));
  const bool is_watched =
      seen.is_watched || (before && before->is_watched && !says_more(seen, *before) &&
                          seen.at >= before->at && seen.at - before->at < kWatchedOften);
  Json lineage{{"system_id", seen.lineage.system_id}, {"timeline", seen.lineage.timeline}};
  if (seen.lineage.history) {
    Json edges = Json::array();
    for (const auto& edge : *seen.lineage.history)
      edges.push_back({{"timeline", edge.timeline}, {"until", to_string(edge.until)}});
    lineage["history"] = std::move(edges);
  }
  if (seen.lineage.mark) lineage["mark"] = *seen.lineage.mark;
  const Json json{{"at", format_utc(seen.at)},
                  {"primary", seen.primary},
                  {"flushed", to_string(seen.flushed)},
                  {"sync_names", seen.sync_names},
                  {"sync_standbys", seen.sync_standbys},
                  {"was_sync", was_sync},
                  {"is_watched", is_watched},
                  {"lineage", std::move(lineage)}};
  ZX_TRY(os::make_directories(state_dir + "/last"));
  os::WriteOptions options;
  options.durable = false;
  return os::write_file(path_of(state_dir, cluster), dump_line(json) + "\n", options);
}

std::vector<FenceDebt> fence_debts(const std::string& state_dir, const std::string& cluster) {
  std::vector<FenceDebt> debts;
  std::error_code code;
  for (const auto& entry :
       std::filesystem::directory_iterator(debts_directory(state_dir, cluster), code)) {
    const auto text = os::read_file(entry.path().string(), 65536);
    if (!text) continue;
    const auto json = parse_json(*text, "a fence record");
    if (!json || get_string(*json, "node").empty()) continue;
    debts.push_back({get_string(*json, "node"), get_string(*json, "run"),
                     get_string(*json, "proof"), parse_utc(get_string(*json, "at"))});
  }
  std::sort(debts.begin(), debts.end(),
            [](const auto& a, const auto& b) { return a.node < b.node; });
  return debts;
}

Status write_fence_debt(const std::string& state_dir, const std::string& cluster,
                        const FenceDebt& debt) {
  const auto directory = debts_directory(state_dir, cluster);
  ZX_TRY(os::make_directories(directory));
  const Json json{
      {"node", debt.node}, {"run", debt.run}, {"proof", debt.proof}, {"at", format_utc(debt.at)}};
  return os::write_file(directory + "/" + debt.node + ".json", dump_line(json) + "\n");
}

Status clear_fence_debt(const std::string& state_dir, const std::string& cluster,
                        const std::string& node) {
  const auto path = debts_directory(state_dir, cluster) + "/" + node + ".json";
  if (!os::exists(path)) return {};
  return os::remove_file(path);
}

}  // namespace zx::ha
