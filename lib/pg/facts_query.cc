#include "lib/pg/facts_query.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>

#include "lib/base/json.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/lineage.h"

namespace zx::pg {
namespace {

using Value = std::optional<std::string>;

std::string text_of(const Value& value) { return value.value_or(std::string()); }

template <typename Number = int>
Number number_of(const Value& value) {
  Number number{};
  if (!value) return number;
  const auto* end = value->data() + value->size();
  const auto [last, error] = std::from_chars(value->data(), end, number);
  return error == std::errc() && last == end ? number : Number{};
}

bool is_true(const Value& value) { return value == "t"; }

std::optional<Lsn> lsn_of(const Value& value) { return value ? parse_lsn(*value) : std::nullopt; }

std::optional<Lsn> lsn_of(const Json& json, const char* key) {
  return parse_lsn(get_string(json, key));
}

// A clock that went back gives no age below zero.
Millis age_of(std::int64_t ms) { return Millis(std::max<std::int64_t>(0, ms)); }

// One that cannot be read is told: it is not the same as none.
Json list_of(const Value& value, const char* what, NodeFacts& facts) {
  if (!value) return Json::array();
  auto json = parse_json(*value, what);
  if (json && json->is_array()) return *std::move(json);
  facts.warnings.push_back(json ? std::string(what) + " are no list" : json.error().message);
  return Json::array();
}

void read_senders(const Value& value, NodeFacts& facts) {
  for (const auto& s : list_of(value, "its senders", facts)) {
    if (get_string(s, "state").empty()) continue;
    facts.senders.push_back(
        {get_string(s, "application_name"), get_string(s, "client_address"), get_string(s, "state"),
         get_string(s, "sync_state"), lsn_of(s, "sent").value_or(Lsn{}),
         lsn_of(s, "flushed").value_or(Lsn{}), lsn_of(s, "replayed").value_or(Lsn{})});
    if (get_object(s, "reply_age_ms").is_number_integer())
      facts.senders.back().reply_age = age_of(get_int(s, "reply_age_ms"));
  }
}

void read_slots(const Value& value, NodeFacts& facts) {
  for (const auto& s : list_of(value, "its slots", facts))
    facts.slots.push_back(
        {get_string(s, "name"), get_bool(s, "active"), lsn_of(s, "restart").value_or(Lsn{})});
}

void read_upstream(const Value& value, NodeFacts& facts) {
  if (!value) return;
  if (const auto upstream = upstream_of(*value)) {
    facts.has_upstream = true;
    facts.upstream_host = upstream->host;
    facts.upstream_port = upstream->port;
  }
}

// The sizes that initdb allows; positions are divided by it.
void read_segment_size(const Value& value, NodeFacts& facts) {
  const auto size = number_of<std::uint64_t>(value);
  if (std::has_single_bit(size) && size >= 1u << 20 && size <= 1u << 30) facts.segment_size = size;
}

struct Column {
  std::string_view name;
  std::string_view sql;
  void (*read)(const Value&, NodeFacts&);
};

// What is read by others stands before them: the role first, the segment size before what is
// divided by it, the receiver's status before what it receives. The CASEs matter: half of the
// functions raise an error in the other role.
// The timeline of a standby has three sources, as each lags in its own way: the control file is
// written at restart points, the walreceiver forgets when it ends, and the newest segment file that
// holds the position is there as soon as WAL of that timeline has arrived.
constexpr std::array kColumns = std::to_array<Column>({
    {"recovery", "rec",
     [](const Value& v, NodeFacts& f) {
       if (v == "t") f.role = Role::standby;
       if (v == "f") f.role = Role::primary;
     }},
    {"version", "current_setting('server_version')",
     [](const Value& v, NodeFacts& f) { f.version = text_of(v); }},
    {"version_number", "current_setting('server_version_num')",
     [](const Value& v, NodeFacts& f) { f.version_number = number_of(v); }},
    {"system_id", "(SELECT system_identifier FROM pg_control_system())",
     [](const Value& v, NodeFacts& f) { f.lineage.system_id = text_of(v); }},
    {"segment_size", "seg", read_segment_size},
    {"timeline", R"SQL(CASE WHEN rec THEN greatest(
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
        w.received_tli,
        (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir()
          WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 9) = (
            SELECT lpad(upper(to_hex(n / (4294967296 / seg))), 8, '0')
                || lpad(upper(to_hex(n % (4294967296 / seg))), 8, '0')
              FROM (SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/1')
                            - '0/1'::pg_lsn)::bigint / seg AS n) AS s)))
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END)SQL",
     [](const Value& v, NodeFacts& f) { f.lineage.timeline = number_of<std::uint32_t>(v); }},
    {"written", "CASE WHEN NOT rec THEN pg_current_wal_lsn() END",
     [](const Value& v, NodeFacts& f) { f.written = lsn_of(v).value_or(Lsn{}); }},
    {"flushed", "CASE WHEN NOT rec THEN pg_current_wal_flush_lsn() END",
     [](const Value& v, NodeFacts& f) { f.flushed = lsn_of(v).value_or(Lsn{}); }},
    {"received", "CASE WHEN rec THEN pg_last_wal_receive_lsn() END",
     [](const Value& v, NodeFacts& f) { f.received = lsn_of(v); }},
    {"replayed", "CASE WHEN rec THEN pg_last_wal_replay_lsn() END",
     [](const Value& v, NodeFacts& f) { f.replayed = lsn_of(v); }},
    {"oldest_wal", R"SQL(CASE WHEN NOT rec THEN
      (SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') END)SQL",
     [](const Value& v, NodeFacts& f) {
       f.oldest_wal = start_of_segment(text_of(v), f.segment_size);
     }},
    {"waits_for_wal",
     R"SQL(rec AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
      AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')))SQL",
     [](const Value& v, NodeFacts& f) { f.waits_for_wal = is_true(v); }},
    {"restores", "CASE WHEN sees THEN current_setting('restore_command') <> '' END",
     [](const Value& v, NodeFacts& f) { f.restores = v != "f"; }},
    {"replay_paused", "CASE WHEN rec THEN pg_is_wal_replay_paused() END",
     [](const Value& v, NodeFacts& f) { f.replay_paused = is_true(v); }},
    {"receiver", "CASE WHEN w.pid IS NOT NULL THEN coalesce(w.status, '') END",
     [](const Value& v, NodeFacts& f) {
       if (v) f.receiver.emplace().status = *v;
     }},
    {"sender_host", "w.sender_host",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver) f.receiver->sender_host = text_of(v);
     }},
    {"sender_port", "w.sender_port",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver) f.receiver->sender_port = number_of(v);
     }},
    {"receiver_slot", "w.slot_name",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver) f.receiver->slot_name = text_of(v);
     }},
    {"latest_end", "w.latest_end_lsn",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver) f.receiver->latest_end = lsn_of(v).value_or(Lsn{});
     }},
    {"receiver_timeline", "w.received_tli",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver) f.receiver->timeline = number_of<std::uint32_t>(v);
     }},
    {"message_age_ms",
     "(extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time) * 1000)::bigint",
     [](const Value& v, NodeFacts& f) {
       if (f.receiver && v) f.receiver->message_age = age_of(number_of<std::int64_t>(v));
     }},
    {"senders", R"SQL((SELECT json_agg(json_build_object(
      'application_name', application_name, 'client_address', host(client_addr), 'state', state,
      'sync_state', sync_state, 'sent', sent_lsn, 'flushed', flush_lsn, 'replayed', replay_lsn,
      'reply_age_ms', (extract(epoch FROM clock_timestamp() - reply_time) * 1000)::bigint))
    FROM pg_stat_replication))SQL",
     read_senders},
    {"slots", R"SQL((SELECT json_agg(json_build_object(
      'name', slot_name, 'active', active, 'restart', restart_lsn))
    FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary))SQL",
     read_slots},
    {"conninfo", "CASE WHEN sees THEN current_setting('primary_conninfo') END", read_upstream},
    {"primary_slot_name", "current_setting('primary_slot_name')",
     [](const Value& v, NodeFacts& f) { f.primary_slot_name = text_of(v); }},
    {"sync_names", "current_setting('synchronous_standby_names')",
     [](const Value& v, NodeFacts& f) { f.sync_names = text_of(v); }},
    {"read_only", "current_setting('default_transaction_read_only')::bool",
     [](const Value& v, NodeFacts& f) { f.read_only = is_true(v); }},
    {"connections", "(SELECT sum(numbackends) FROM pg_stat_database)",
     [](const Value& v, NodeFacts& f) { f.connections = number_of(v); }},
    {"max_connections", "current_setting('max_connections')",
     [](const Value& v, NodeFacts& f) { f.max_connections = number_of(v); }},
    {"rewindable", R"SQL(current_setting('full_page_writes')::bool
      AND (current_setting('wal_log_hints')::bool OR current_setting('data_checksums')::bool))SQL",
     [](const Value& v, NodeFacts& f) { f.rewindable = is_true(v); }},
    {"data_directory", "CASE WHEN sees THEN current_setting('data_directory') END",
     [](const Value& v, NodeFacts& f) { f.data_directory = text_of(v); }},
    {"config_file", "CASE WHEN sees THEN current_setting('config_file') END",
     [](const Value& v, NodeFacts& f) { f.config_file = text_of(v); }},
});

constexpr std::string_view kFrom = R"SQL(
FROM (SELECT pg_is_in_recovery() AS rec, pg_has_role('pg_read_all_settings', 'usage') AS sees,
             (SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END
                FROM pg_settings WHERE name = 'wal_segment_size') AS seg) AS r
LEFT JOIN pg_stat_wal_receiver AS w ON w.pid IS NOT NULL)SQL";

std::string make_query() {
  std::string query = "SELECT ";
  for (const auto& column : kColumns) {
    if (&column != kColumns.data()) query += ",\n  ";
    query += column.sql;
  }
  query += kFrom;
  return query;
}

}  // namespace

const std::string& facts_query() {
  static const auto kQuery = make_query();
  return kQuery;
}

std::vector<std::string_view> facts_columns() {
  std::vector<std::string_view> names;
  for (const auto& column : kColumns) names.push_back(column.name);
  return names;
}

Status read_facts(const Row& row, NodeFacts& facts) {
  facts.role = Role::unknown;
  for (std::size_t i = 0; i < std::min(row.size(), kColumns.size()); ++i) {
    kColumns.at(i).read(row[i], facts);
    if (facts.role == Role::unknown) break;
  }
  if (facts.role == Role::unknown)
    return fail(Code::server,
                "the answer of " + facts.name + " does not say whether it is in recovery");
  return {};
}

}  // namespace zx::pg
