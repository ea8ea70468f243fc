// What servers and hosts answer, as facts: whole, in part, and hostile.
#include "lib/pg/facts.h"

#include <doctest/doctest.h>

#include <bit>

#include "lib/pg/observe.h"

namespace zx::pg {
namespace {

NodeFacts facts_of(const std::string& json) {
  NodeFacts facts;
  facts.name = "pg-a";
  const auto status = read_facts(json, facts);
  REQUIRE_MESSAGE(status.has_value(), (status ? std::string() : status.error().message));
  return facts;
}

TEST_CASE("a primary's answer is read") {
  const auto facts = facts_of(
      R"({"recovery":false,"version":"15.8","version_number":150008,"system_id":"7301",
          "segment_size":16777216,"timeline":2,"written":"0/5000060","flushed":"0/5000028",
          "received":null,"replayed":null,"replay_paused":false,"receiver":null,
          "senders":[{"application_name":"pg-b","client_address":"10.0.0.2","state":"streaming",
                      "sync_state":"sync","sent":"0/5000060","flushed":"0/5000028","replayed":null},
                     {"application_name":"hidden","state":null}],
          "slots":[{"name":"pg_b","active":true,"restart":"0/5000000"},
                   {"name":"pg_c","active":false,"restart":null}],
          "conninfo":"","sync_names":"*","read_only":true,"connections":7,"max_connections":100,
          "rewindable":true})");
  CHECK(facts.role == Role::primary);
  CHECK(facts.lineage.system_id == "7301");
  CHECK(facts.lineage.timeline == 2);
  CHECK(facts.position() == Lsn{0x5000028});
  CHECK_FALSE(facts.receives());
  CHECK_FALSE(facts.has_upstream);
  REQUIRE(facts.senders.size() == 1);
  CHECK(facts.senders[0].sync_state == "sync");
  CHECK(facts.slots.size() == 2);
  CHECK_FALSE(facts.slots[1].restart.is_valid());
  CHECK(facts.read_only);
  CHECK(facts.max_connections == 100);
}

TEST_CASE("a standby's answer is read, and its upstream from its connection string") {
  const auto facts = facts_of(
      R"({"recovery":true,"timeline":1,"received":"0/5000060","replayed":"0/5000028",
          "replay_paused":true,"conninfo":"host=10.0.0.1 port=5433 user=replicator",
          "receiver":{"status":"streaming","sender_host":"10.0.0.1","sender_port":5433,"slot":"s",
                      "latest_end":"0/6000000","timeline":1,"message_age_ms":25}})");
  CHECK(facts.role == Role::standby);
  CHECK(facts.position() == Lsn{0x5000060});
  CHECK(facts.receives());
  CHECK(facts.receiver->message_age == Millis(25));
  CHECK(facts.receiver->latest_end == Lsn{0x6000000});
  CHECK(facts.upstream_host == "10.0.0.1");
  CHECK(facts.upstream_port == 5433);
  CHECK(facts.replay_paused);
}

TEST_CASE("an answer that does not say its role is an error") {
  for (const std::string text :
       {"", "null", "[]", "{}", "7", R"({"recovery":"f"})", R"({"recovery":null})",
        R"({"recovery":0})", "{\"recovery\":fal", "\xFF\x1B[2J"}) {
    CAPTURE(text);
    NodeFacts facts;
    facts.name = "pg-a";
    const auto status = read_facts(text, facts);
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().message.find("pg-a") != std::string::npos);
    CHECK(facts.role == Role::unknown);
  }
}

TEST_CASE("facts of another type are no facts") {
  const auto facts = facts_of(
      R"({"recovery":true,"version":15,"timeline":"two","received":7,"replayed":"x/y",
          "receiver":"yes","senders":7,"slots":"none","conninfo":["host=x"],"sync_names":null,
          "connections":"7","replay_paused":"t","message_age_ms":1})");
  CHECK(facts.version.empty());
  CHECK(facts.lineage.timeline == 0);
  CHECK_FALSE(facts.received.has_value());
  CHECK_FALSE(facts.replayed.has_value());
  CHECK_FALSE(facts.position().is_valid());
  CHECK_FALSE(facts.receiver.has_value());
  CHECK(facts.senders.empty());
  CHECK_FALSE(facts.has_upstream);
  CHECK_FALSE(facts.replay_paused);
  const auto strange =
      facts_of(R"({"recovery":true,"receiver":{"status":7,"message_age_ms":"1"}})");
  REQUIRE(strange.receiver.has_value());
  CHECK_FALSE(strange.receives());
  CHECK_FALSE(strange.receiver->message_age.has_value());
  // A clock that went back gives no age below zero.
  const auto early = facts_of(R"({"recovery":true,"receiver":{"message_age_ms":-5}})");
  CHECK(early.receiver->message_age == Millis(0));
}

// Divided by it, a position would end zx with SIGFPE.
TEST_CASE("a segment size is one that PostgreSQL can have") {
  for (const std::string size : {"-1", "0", "3", "1099511627776", "-9223372036854775808"}) {
    CAPTURE(size);
    const auto facts = facts_of(R"({"recovery":false,"segment_size":)" + size + "}");
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
