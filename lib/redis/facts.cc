#include "lib/redis/facts.h"

#include <algorithm>

#include "lib/base/clock.h"

namespace zx::redis {
namespace {

bool is_id(std::string_view id) {
  return !id.empty() && id.find_first_not_of('0') != std::string_view::npos;
}

// How far `line` has the stream called `id`; nothing when it never had it.
std::optional<std::int64_t> end_of(const Lineage& line, std::string_view id) {
  if (!is_id(id)) return std::nullopt;
  if (id == line.replid) return line.offset;
  if (id == line.replid2) return line.second_offset - 1;
  return std::nullopt;
}

bool is_loopback(std::string_view address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json to_json(const Link& link) {
  return {{"master_host", link.master_host},
          {"master_port", link.master_port},
          {"up", link.is_up},
          {"last_io_s", or_null(link.last_io_s)},
          {"down_for_s", or_null(link.down_for_s)},
          {"syncing", link.is_syncing},
          {"sync_left_bytes", or_null(link.sync_left_bytes)}};
}

Json to_json(const Persistence& p) {
  return {{"loading", p.is_loading},
          {"loading_eta_s", or_null(p.loading_eta_s)},
          {"saving", p.is_saving},
          {"last_save_ok", p.last_save_ok},
          {"last_save", p.last_save},
          {"changes_since_save", p.changes_since_save},
          {"aof", p.aof},
          {"aof_rewriting", p.aof_rewriting},
          {"aof_last_write_ok", p.aof_last_write_ok},
          {"aof_last_rewrite_ok", p.aof_last_rewrite_ok}};
}

void add_server(const NodeFacts& f, Json& json) {
  json["version"] = f.version;
  json["run_id"] = f.run_id;
  json["uptime_s"] = f.uptime_s;
  json["replid"] = f.lineage.replid;
  json["replid2"] = is_id(f.lineage.replid2) ? Json(f.lineage.replid2) : Json();
  json["second_offset"] = f.lineage.second_offset;
  json["offset"] = f.lineage.offset;
  json["link"] = f.link ? to_json(*f.link) : Json();
  auto& replicas = json["replicas"] = Json::array();
  for (const auto& one : f.attached)
    replicas.push_back({{"host", one.address},
                        {"port", one.port},
                        {"state", one.state},
                        {"offset", one.offset},
                        {"lag_s", one.lag_s}});
  json["replica_priority"] = f.priority;
  if (f.role == Role::replica) json["read_only"] = f.is_read_only;
  json["failover_in_progress"] = f.paused_by_failover;
  json["backlog"] = {
      {"size", f.backlog_size}, {"first", f.backlog_first}, {"length", f.backlog_length}};
  json["min_replicas"] = {{"to_write", f.has_config ? Json(f.min_replicas_to_write) : Json()},
                          {"max_lag_s", f.has_config ? Json(f.min_replicas_max_lag_s) : Json()},
                          {"good", or_null(f.min_replicas_good)}};
  json["keys"] = f.keys;
  json["expires"] = f.expires;
  json["databases"] = f.databases;
  json["memory"] = {{"used", f.memory_used}, {"max", f.memory_max}, {"policy", f.memory_policy}};
  json["clients"] = {
      {"connected", f.clients}, {"max", f.clients_max}, {"blocked", f.blocked_clients}};
  json["persistence"] = to_json(f.persistence);
  if (f.has_config)
    json["config"] = {{"dir", f.dir},
                      {"dbfilename", f.dbfilename},
                      {"appenddirname", f.appenddirname},
                      {"config_file", f.config_file},
                      {"aclfile", f.aclfile}};
}

}  // namespace

const char* name_of(Role role) {
  switch (role) {
    case Role::master: return "master";
    case Role::replica: return "replica";
    case Role::unknown: break;
  }
  return "unknown";
}

Role role_named(std::string_view name) {
  if (name == "master") return Role::master;
  return name == "replica" ? Role::replica : Role::unknown;
}

bool is_prefix_of(const Lineage& behind, const Lineage& ahead) {
  const auto has_all = [&](std::string_view id) {
    const auto end = end_of(ahead, id);
    return end && behind.offset <= *end;
  };
  if (has_all(behind.replid)) return true;
  // It was promoted, and has no byte of its own since.
  return is_id(behind.replid2) && behind.offset < behind.second_offset && has_all(behind.replid2);
}

bool is_same_line(const Lineage& one, const Lineage& other) {
  return is_prefix_of(one, other) || is_prefix_of(other, one);
}

const NodeFacts* Snapshot::node(std::string_view name) const {
  for (const auto& facts : nodes)
    if (facts.name == name) return &facts;
  return nullptr;
}

const NodeFacts* node_at(const Snapshot& snapshot, std::string_view address, int port) {
  if (address.empty()) return nullptr;
  const NodeFacts* found = nullptr;
  for (const auto& facts : snapshot.nodes) {
    if (facts.port != port) continue;
    const auto& numeric = facts.addresses;
    const bool is_there = facts.address == address || facts.host == address ||
                          std::find(numeric.begin(), numeric.end(), address) != numeric.end() ||
                          (is_loopback(address) && is_loopback(facts.address));
    if (!is_there) continue;
    if (found != nullptr) return nullptr;
    found = &facts;
  }
  return found;
}

Json to_json(const NodeFacts& f) {
  Json json{{"name", f.name},
            {"host", f.address},
            {"port", f.port},
            {"host_name", f.host},
            {"role", name_of(f.role)},
            {"took_ms", f.took.count()},
            {"seen_at", format_utc(f.at)}};
  if (!f.answered()) {
    json["failure"] = name_of(f.failure);
    json["error"] = f.error.message;
  }
  if (f.answered() || (f.is_loading() && f.role != Role::unknown)) add_server(f, json);
  if (!f.warnings.empty()) json["warnings"] = f.warnings;
  if (f.local)
    json["local"] = to_json(*f.local);
  else if (!f.local_error.empty())
    json["local_error"] = f.local_error;
  return json;
}

Json to_json(const SentinelFacts& f) {
  Json json{{"host", f.address},
            {"port", f.port},
            {"took_ms", f.took.count()},
            {"seen_at", format_utc(f.at)}};
  if (!f.answered()) {
    json["failure"] = name_of(f.failure);
    json["error"] = f.error.message;
    return json;
  }
  json["knows_master"] = f.knows_master;
  if (!f.knows_master) return json;
  json["master_host"] = f.master_host;
  json["master_port"] = f.master_port;
  json["flags"] = f.flags;
  json["quorum"] = f.quorum;
  json["other_sentinels"] = f.other_sentinels;
  json["has_quorum"] = or_null(f.has_quorum);
  json["ckquorum"] = f.quorum_text;
  json["config_epoch"] = f.config_epoch;
  json["down_after_ms"] = f.down_after.count();
  json["failover_timeout_ms"] = f.failover_timeout.count();
  auto& replicas = json["replicas"] = Json::array();
  for (const auto& one : f.replicas)
    replicas.push_back({{"host", one.address},
                        {"port", one.port},
                        {"flags", one.flags},
                        {"master_link_status", one.master_link_status},
                        {"phantom", one.is_phantom}});
  return json;
}

Json to_json(const LocalFacts& l) {
  Json json{{"is_data_dir", l.is_data_dir}, {"running", l.is_running}, {"pid", l.pid},
            {"paused", l.is_paused},        {"working", l.is_working}, {"fenced", l.fenced}};
  if (!l.fence_run.empty()) json["fence_run"] = l.fence_run;
  if (l.holds_writes) json["holds_writes"] = true;
  if (!l.problem.empty()) json["problem"] = l.problem;
  return json;
}

LocalFacts local_from_json(const Json& json) {
  LocalFacts local;
  local.is_data_dir = get_bool(json, "is_data_dir");
  local.is_running = get_bool(json, "running");
  local.pid = get_int(json, "pid");
  local.is_paused = get_bool(json, "paused");
  local.is_working = get_bool(json, "working");
  local.fenced = get_bool(json, "fenced");
  local.fence_run = get_string(json, "fence_run");
  local.holds_writes = get_bool(json, "holds_writes");
  local.problem = get_string(json, "problem");
  return local;
}

}  // namespace zx::redis
