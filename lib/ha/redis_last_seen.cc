#include "lib/ha/redis_last_seen.h"

#include <algorithm>
#include <cstdlib>

#include "lib/os/files.h"

namespace zx::ha {
namespace {

std::string path_of(const std::string& state_dir, const std::string& deployment) {
  return state_dir + "/last/redis." + deployment + ".json";
}

// By more than a tenth: a master that comes back empty is measured by it.
bool is_other_size(std::int64_t now, std::int64_t before) {
  constexpr std::int64_t kPart = 10;
  return std::abs(now - before) * kPart > std::max(now, before);
}

}  // namespace

std::optional<RedisLastSeen> read_redis_last_seen(const std::string& state_dir,
                                                  const std::string& deployment) {
  const auto text = os::read_file(path_of(state_dir, deployment), 1 << 20);
  if (!text) return std::nullopt;
  const auto json = parse_json(*text, "last seen");
  if (!json) return std::nullopt;
  RedisLastSeen seen;
  seen.at = parse_utc(get_string(*json, "at"));
  seen.master = get_string(*json, "master");
  seen.run_id = get_string(*json, "run_id");
  const auto& lineage = get_object(*json, "lineage");
  seen.lineage.replid = get_string(lineage, "replid");
  seen.lineage.replid2 = get_string(lineage, "replid2");
  seen.lineage.second_offset = get_int(lineage, "second_offset", -1);
  seen.lineage.offset = get_int(lineage, "offset");
  seen.keys = get_int(*json, "keys");
  seen.min_replicas_to_write = get_int(*json, "min_replicas_to_write");
  seen.min_replicas_max_lag_s = get_int(*json, "min_replicas_max_lag_s");
  seen.strangers = get_int(*json, "strangers");
  if (const auto& places = get_object(*json, "places"); places.is_object())
    for (const auto& [node, place] : places.items())
      seen.places[node] = {get_string(place, "dir"), get_string(place, "config_file")};
  if (seen.master.empty()) return std::nullopt;
  return seen;
}

std::optional<RedisLastSeen> redis_last_seen_of(const redis::Snapshot& snapshot,
                                                const std::optional<RedisLastSeen>& before) {
  const redis::NodeFacts* master = nullptr;
  for (const auto& facts : snapshot.nodes) {
    if (!facts.answered() || facts.role != redis::Role::master) continue;
    if (master != nullptr) return std::nullopt;
    master = &facts;
  }
  if (master == nullptr) return std::nullopt;
  RedisLastSeen seen;
  seen.at = master->at;
  seen.master = master->name;
  seen.run_id = master->run_id;
  seen.lineage = master->lineage;
  seen.keys = master->keys;
  seen.min_replicas_to_write = master->min_replicas_to_write;
  seen.min_replicas_max_lag_s = master->min_replicas_max_lag_s;
  seen.strangers =
      std::count_if(master->attached.begin(), master->attached.end(), [&](const auto& replica) {
        return redis::node_at(snapshot, replica.address, replica.port) == nullptr;
      });
  if (before) seen.places = before->places;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.has_config && !facts.dir.empty())
      seen.places[facts.name] = {facts.dir, facts.config_file};
  return seen;
}

bool says_more(const RedisLastSeen& now, const RedisLastSeen& before) {
  return now.master != before.master || now.run_id != before.run_id ||
         now.lineage.replid != before.lineage.replid || now.places != before.places ||
         now.min_replicas_to_write != before.min_replicas_to_write ||
         now.min_replicas_max_lag_s != before.min_replicas_max_lag_s ||
         now.strangers != before.strangers || is_other_size(now.keys, before.keys);
}

Status write_redis_last_seen(const std::string& state_dir, const std::string& deployment,
                             const RedisLastSeen& seen) {
  Json places = Json::object();
  for (const auto& [node, place] : seen.places)
    places[node] = {{"dir", place.dir}, {"config_file", place.config_file}};
  const Json json{{"at", format_utc(seen.at)},
                  {"master", seen.master},
                  {"run_id", seen.run_id},
                  {"lineage",
                   {{"replid", seen.lineage.replid},
                    {"replid2", seen.lineage.replid2},
                    {"second_offset", seen.lineage.second_offset},
                    {"offset", seen.lineage.offset}}},
                  {"keys", seen.keys},
                  {"min_replicas_to_write", seen.min_replicas_to_write},
                  {"min_replicas_max_lag_s", seen.min_replicas_max_lag_s},
                  {"strangers", seen.strangers},
                  {"places", std::move(places)}};
  ZX_TRY(os::make_directories(state_dir + "/last"));
  os::WriteOptions options;
  options.durable = false;
  return os::write_file(path_of(state_dir, deployment), dump_line(json) + "\n", options);
}

}  // namespace zx::ha
