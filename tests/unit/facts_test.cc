// What servers and hosts answer, as facts: whole, in part, and hostile.
#include "lib/pg/facts.h"

#include <doctest/doctest.h>

#include <bit>
#include <map>

#include "lib/pg/facts_query.h"

namespace zx::pg {
namespace {

// A row in which the named columns have these values and the others are NULL.
Row row_of(const std::map<std::string_view, std::string>& values) {
  Row row;
  std::size_t found = 0;
  for (const auto name : facts_columns()) {
    const auto value = values.find(name);
    found += value == values.end() ? 0 : 1;
    row.push_back(value == values.end() ? std::nullopt : std::optional(value->second));
  }
  REQUIRE(found == values.size());
  return row;
}

NodeFacts facts_of(const std::map<std::string_view, std::string>& values) {
  NodeFacts facts;
  facts.name = "pg-a";
  const auto status = read_facts(row_of(values), facts);
  REQUIRE_MESSAGE(status.has_value(), (status ? std::string() : status.error().message));
  return facts;
}

TEST_CASE("a primary's answer is read") {
  const auto facts =
      facts_of({{"recovery", "f"},
                {"version", "15.8"},
                {"version_number", "150008"},
                {"system_id", "7301"},
                {"segment_size", "16777216"},
                {"timeline", "2"},
                {"written", "0/5000060"},
                {"flushed", "0/5000028"},
                {"oldest_wal", "0000000000000003"},
                {"senders",
                 R"([{"application_name":"pg-b","client_address":"10.0.0.2","state":"streaming",
             "sync_state":"sync","sent":"0/5000060","flushed":"0/5000028","replayed":null,
             "reply_age_ms":-5},
            {"application_name":"hidden","state":null}])"},
                {"slots",
                 R"([{"name":"pg_b","active":true,"restart":"0/5000000"},
            {"name":"pg_c","active":false,"restart":null}])"},
                {"conninfo", ""},
                {"sync_names", "*"},
                {"read_only", "t"},
                {"connections", "7"},
                {"max_connections", "100"},
                {"rewindable", "t"}});
  CHECK(facts.role == Role::primary);
  CHECK(facts.version_number == 150008);
  CHECK(facts.lineage.system_id == "7301");
  CHECK(facts.lineage.timeline == 2);
  CHECK(facts.position() == Lsn{0x5000028});
  CHECK(facts.oldest_wal == Lsn{0x3000000});
  CHECK_FALSE(facts.receives());
  CHECK_FALSE(facts.has_upstream);
  REQUIRE(facts.senders.size() == 1);
  CHECK(facts.senders[0].sync_state == "sync");
  CHECK(facts.senders[0].reply_age == Millis(0));
  CHECK(facts.slots.size() == 2);
  CHECK_FALSE(facts.slots[1].restart.is_valid());
  CHECK(facts.read_only);
  CHECK(facts.rewindable);
  CHECK(facts.restores);  // not known
  CHECK(facts.connections == 7);
  CHECK(facts.max_connections == 100);
}

TEST_CASE("a standby's answer is read, and its upstream from its connection string") {
  const auto facts = facts_of({{"recovery", "t"},
                               {"timeline", "1"},
                               {"received", "0/5000060"},
                               {"replayed", "0/5000028"},
                               {"replay_paused", "t"},
                               {"restores", "f"},
                               {"conninfo", "host=10.0.0.1 port=5433 user=replicator"},
                               {"receiver", "streaming"},
                               {"sender_host", "10.0.0.1"},
                               {"sender_port", "5433"},
                               {"receiver_slot", "s"},
                               {"latest_end", "0/6000000"},
                               {"receiver_timeline", "1"},
                               {"message_age_ms", "25"}});
  CHECK(facts.role == Role::standby);
  CHECK(facts.position() == Lsn{0x5000060});
  CHECK(facts.receives());
  CHECK(facts.receiver->message_age == Millis(25));
  CHECK(facts.receiver->latest_end == Lsn{0x6000000});
  CHECK(facts.receiver->slot_name == "s");
  CHECK(facts.upstream_host == "10.0.0.1");
  CHECK(facts.upstream_port == 5433);
  CHECK(facts.replay_paused);
  CHECK_FALSE(facts.restores);
}

TEST_CASE("an answer that does not say its role is an error") {
  std::vector<Row> rows = {{}, {std::nullopt}, row_of({}), row_of({{"timeline", "1"}})};
  for (const std::string text : {"", "T", "true", "0", "\xFF\x1B[2J"})
    rows.push_back(row_of({{"recovery", text}, {"timeline", "1"}}));
  for (const auto& row : rows) {
    CAPTURE(row.empty() ? "no column" : row.front().value_or("NULL"));
    NodeFacts facts;
    facts.name = "pg-a";
    facts.role = Role::primary;
    const auto status = read_facts(row, facts);
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().message.find("pg-a") != std::string::npos);
    CHECK(facts.role == Role::unknown);
  }
}

TEST_CASE("facts of another type are no facts") {
  const auto facts = facts_of({{"recovery", "t"},
                               {"version_number", "15x"},
                               {"timeline", "two"},
                               {"received", "7"},
                               {"replayed", "x/y"},
                               {"sender_host", "10.0.0.1"},
                               {"senders", "7"},
                               {"slots", "none"},
                               {"conninfo", "="},
                               {"connections", "99999999999"},
                               {"replay_paused", "true"},
                               {"message_age_ms", "1"}});
  CHECK(facts.version_number == 0);
  CHECK(facts.lineage.timeline == 0);
  CHECK_FALSE(facts.received.has_value());
  CHECK_FALSE(facts.replayed.has_value());
  CHECK_FALSE(facts.position().is_valid());
  CHECK_FALSE(facts.receiver.has_value());
  CHECK(facts.senders.empty());
  CHECK(facts.slots.empty());
  REQUIRE(facts.warnings.size() == 2);
  CHECK(facts.warnings[0] == "its senders are no list");
  CHECK(facts.warnings[1].starts_with("its slots is not JSON"));
  CHECK_FALSE(facts.has_upstream);
  CHECK_FALSE(facts.replay_paused);
  CHECK(facts.connections == 0);
  CHECK(facts_of({{"recovery", "f"}, {"senders", R"([7,{"state":7}])"}}).senders.empty());
  // Who may not see the receiver sees that there is one.
  const auto hidden = facts_of({{"recovery", "t"}, {"receiver", ""}});
  REQUIRE(hidden.receiver.has_value());
  CHECK_FALSE(hidden.receives());
  CHECK_FALSE(hidden.receiver->message_age.has_value());
  // A clock that went back gives no age below zero.
  const auto early =
      facts_of({{"recovery", "t"}, {"receiver", "streaming"}, {"message_age_ms", "-5"}});
  CHECK(early.receiver->message_age == Millis(0));
}

// Divided by it, a position would end zx with SIGFPE.
TEST_CASE("a segment size is one that PostgreSQL can have") {
  for (const std::string size : {"-1", "0", "3", "1099511627776", "-9223372036854775808"}) {
    CAPTURE(size);
    const auto facts = facts_of({{"recovery", "f"}, {"segment_size", size}});
    CHECK(std::has_single_bit(facts.segment_size));
    CHECK(facts.segment_size >= 1ULL << 20);
    CHECK(facts.segment_size <= 1ULL << 30);
  }
}

TEST_CASE("who receives is a standby with a connection that is held") {
  NodeFacts facts;
  facts.role = Role::standby;
  CHECK_FALSE(facts.receives());
  for (const std::string status : {"", "starting", "restarting", "stopping", "stopped"}) {
    CAPTURE(status);
    facts.receiver = Receiver{};
    facts.receiver->status = status;
    CHECK_FALSE(facts.receives());
  }
  for (const std::string status : {"streaming", "waiting"}) {
    CAPTURE(status);
    facts.receiver->status = status;
    CHECK(facts.receives());
  }
  facts.role = Role::primary;
  CHECK_FALSE(facts.receives());
}

TEST_CASE("what a host found is the same behind JSON") {
  LocalFacts local;
  local.is_data_directory = true;
  local.problem = "a \"problem\"\n";
  local.processes = local.stopped = local.standby_signal = local.fenced = true;
  local.interrupted_rewind = true;
  local.fence_run = "20261124T031243-a1f3";
  local.control_state = "in production";
  local.lineage = {"7301", 3, History{{1, Lsn{1}}, {2, Lsn{2}}}, std::nullopt};
  local.checkpoint = Lsn{0x3000028};
  local.wal_end = Lsn{0x5000060};
  local.sync_names = "ANY 1 (a)";
  local.sync_names_known = true;
  const auto back = local_from_json(*parse_json(dump_line(to_json(local)), "it"));
  CHECK(dump_line(to_json(back)) == dump_line(to_json(local)));
  CHECK(back.lineage.history == local.lineage.history);
  CHECK(back.wal_end == local.wal_end);

  // What is not known stays so: an empty rule is a fact, an absent one is none.
  const auto empty = local_from_json(*parse_json(dump_line(to_json(LocalFacts{})), "it"));
  CHECK_FALSE(empty.wal_end.has_value());
  CHECK_FALSE(empty.lineage.history.has_value());
  CHECK_FALSE(empty.sync_names_known);
  local.sync_names.clear();
  CHECK(local_from_json(to_json(local)).sync_names_known);
  for (const auto& other : {Json(), Json(7), Json::array(), Json{{"wal_end", 7}, {"lineage", 7}}}) {
    const auto none = local_from_json(other);
    CHECK_FALSE(none.is_data_directory);
    CHECK_FALSE(none.processes);
    CHECK_FALSE(none.wal_end.has_value());
  }
}

TEST_CASE("facts of servers' broken text can be written") {
  NodeFacts facts;
  facts.name = "pg-a";
  facts.failure = Failure::other;
  facts.error.message = "caf\xE9 \x1B[2J";
  facts.local_error = "\xFF";
  CHECK(parse_json(dump_line(to_json(facts)), "it").has_value());
  facts.failure = Failure::none;
  facts.version = "\xFF";
  facts.senders.push_back({"\xC0", "", "streaming", "async", {}, {}, {}});
  CHECK(parse_json(dump_line(to_json(facts)), "it").has_value());
}

}  // namespace
}  // namespace zx::pg
