#include "lib/pg/facts.h"

#include <algorithm>

namespace zx::pg {
namespace {

Json to_json(const Lineage& lineage) {
  Json json{{"system_id", lineage.system_id}, {"timeline", lineage.timeline}};
  if (lineage.history) {
    Json edges = Json::array();
    for (const auto& edge : *lineage.history)
      edges.push_back({{"timeline", edge.timeline}, {"until", to_string(edge.until)}});
    json["history"] = std::move(edges);
  }
  if (lineage.mark) json["mark"] = *lineage.mark;
  return json;
}

Json lsn_or_null(const std::optional<Lsn>& lsn) { return lsn ? Json(to_string(*lsn)) : Json(); }

}  // namespace

const char* name_of(Role role) {
  switch (role) {
    case Role::primary: return "primary";
    case Role::standby: return "standby";
    case Role::unknown: break;
  }
  return "unknown";
}

Role role_named(std::string_view name) {
  if (name == "primary") return Role::primary;
  return name == "standby" ? Role::standby : Role::unknown;
}

Lsn NodeFacts::position() const {
  if (role == Role::primary) return flushed;
  return std::max(received.value_or(Lsn{}), replayed.value_or(Lsn{}));
}

bool NodeFacts::knows_its_end() const {
  return role != Role::standby || received.has_value() || waits_for_wal;
}

bool NodeFacts::misses_wal_of(const NodeFacts& primary) const {
  if (!waits_for_wal || restores || receives() || !primary.oldest_wal) return false;
  // A walreceiver asks from the beginning of the segment on.
  const Lsn wanted{position().value / primary.segment_size * primary.segment_size};
  return wanted < *primary.oldest_wal;
}

bool NodeFacts::receives() const {
  return role == Role::standby && receiver &&
         (receiver->status == "streaming" || receiver->status == "waiting");
}

const NodeFacts* Snapshot::node(const std::string& name) const {
  for (const auto& facts : nodes)
    if (facts.name == name) return &facts;
  return nullptr;
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
  } else {
    json["version"] = f.version;
    json.update(to_json(f.lineage));
    if (f.role == Role::primary) {
      json["write_lsn"] = to_string(f.written);
      json["flush_lsn"] = to_string(f.flushed);
      json["oldest_wal_lsn"] = lsn_or_null(f.oldest_wal);
    } else {
      json["receive_lsn"] = lsn_or_null(f.received);
      json["replay_lsn"] = lsn_or_null(f.replayed);
      json["replay_paused"] = f.replay_paused;
      json["waits_for_wal"] = f.waits_for_wal;
      if (f.receiver) {
        const auto& r = *f.receiver;
        json["receiver"] = {
            {"status", r.status},
            {"sender_host", r.sender_host},
            {"sender_port", r.sender_port},
            {"slot", r.slot_name},
            {"latest_end_lsn", to_string(r.latest_end)},
            {"message_age_ms", r.message_age ? Json(r.message_age->count()) : Json()}};
      } else {
        json["receiver"] = nullptr;
      }
    }
    Json senders = Json::array();
    for (const auto& s : f.senders)
      senders.push_back({{"application_name", s.application_name},
                         {"client_address", s.client_address},
                         {"state", s.state},
                         {"sync_state", s.sync_state},
                         {"sent_lsn", to_string(s.sent)},
                         {"flush_lsn", to_string(s.flushed)},
                         {"replay_lsn", to_string(s.replayed)}});
    json["replication"] = std::move(senders);
    Json slots = Json::array();
    for (const auto& s : f.slots)
      slots.push_back(
          {{"name", s.name}, {"active", s.active}, {"restart_lsn", to_string(s.restart)}});
    json["slots"] = std::move(slots);
    json["synchronous_standby_names"] = f.sync_names;
    json["read_only"] = f.read_only;
    json["connections"] = f.connections;
    json["max_connections"] = f.max_connections;
    json["rewindable"] = f.rewindable;
    if (!f.warnings.empty()) json["warnings"] = f.warnings;
  }
  if (f.local)
    json["local"] = to_json(*f.local);
  else if (!f.local_error.empty())
    json["local_error"] = f.local_error;
  return json;
}

Json to_json(const LocalFacts& l) {
  Json json{{"is_data_directory", l.is_data_directory}};
  if (!l.problem.empty()) json["problem"] = l.problem;
  json["processes"] = l.processes;
  if (l.port != 0) json["port"] = l.port;
  json["stopped"] = l.stopped;
  json["standby_signal"] = l.standby_signal;
  json["fenced"] = l.fenced;
  if (!l.fence_run.empty()) json["fence_run"] = l.fence_run;
  json["interrupted_rewind"] = l.interrupted_rewind;
  json["unsealed"] = l.unsealed;
  json["missing_programs"] = l.missing_programs;
  if (!l.no_rebuild.empty()) json["no_rebuild"] = l.no_rebuild;
  json["denied"] = l.denied;
  json["is_empty"] = l.is_empty;
  json["control_state"] = l.control_state;
  json["lineage"] = to_json(l.lineage);
  json["checkpoint_lsn"] = to_string(l.checkpoint);
  if (!l.control_mark.empty()) json["control_mark"] = l.control_mark;
  json["wal_end"] = lsn_or_null(l.wal_end);
  if (l.sync_names_known) json["synchronous_standby_names"] = l.sync_names;
  return json;
}

LocalFacts local_from_json(const Json& json) {
  LocalFacts l;
  l.is_data_directory = get_bool(json, "is_data_directory");
  l.problem = get_string(json, "problem");
  l.processes = get_bool(json, "processes");
  l.port = static_cast<int>(get_int(json, "port"));
  l.stopped = get_bool(json, "stopped");
  l.standby_signal = get_bool(json, "standby_signal");
  l.fenced = get_bool(json, "fenced");
  l.fence_run = get_string(json, "fence_run");
  l.interrupted_rewind = get_bool(json, "interrupted_rewind");
  l.unsealed = get_bool(json, "unsealed");
  l.missing_programs = get_strings(json, "missing_programs");
  l.no_rebuild = get_string(json, "no_rebuild");
  l.denied = get_bool(json, "denied");
  l.is_empty = get_bool(json, "is_empty");
  l.control_state = get_string(json, "control_state");
  const auto& lineage = get_object(json, "lineage");
  l.lineage.system_id = get_string(lineage, "system_id");
  l.lineage.timeline = static_cast<std::uint32_t>(get_int(lineage, "timeline"));
  if (const auto& history = get_object(lineage, "history"); history.is_array()) {
    l.lineage.history.emplace();
    for (const auto& edge : history)
      l.lineage.history->push_back({static_cast<std::uint32_t>(get_int(edge, "timeline")),
                                    parse_lsn(get_string(edge, "until")).value_or(Lsn{})});
  }
  if (auto mark = get_string(lineage, "mark"); !mark.empty()) l.lineage.mark = std::move(mark);
  l.checkpoint = parse_lsn(get_string(json, "checkpoint_lsn")).value_or(Lsn{});
  l.control_mark = get_string(json, "control_mark");
  l.wal_end = parse_lsn(get_string(json, "wal_end"));
  l.sync_names_known = json.is_object() && json.contains("synchronous_standby_names");
  l.sync_names = get_string(json, "synchronous_standby_names");
  return l;
}

}  // namespace zx::pg
