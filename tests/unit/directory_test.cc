// What a host found in a data directory: whose it is, and what can be done with it.
#include "lib/ha/pg_directory.h"

#include <doctest/doctest.h>

namespace zx::ha {
namespace {

using pg::Failure;
using pg::LocalFacts;
using pg::NodeFacts;
using pg::Role;

constexpr Lsn kFork{0x5000000};

NodeFacts primary() {
  NodeFacts facts;
  facts.name = "pg-a";
  facts.failure = Failure::none;
  facts.role = Role::primary;
  facts.version_number = 150008;
  facts.lineage = {"7301", 1, pg::History{}, {}};
  facts.flushed = Lsn{0x9000000};
  facts.oldest_wal = Lsn{0x4000000};
  return facts;
}

// Promoted to timeline 2 beside the primary, and down since.
NodeFacts crashed() {
  NodeFacts facts;
  facts.name = "pg-b";
  facts.port = 5433;
  facts.failure = Failure::refused;
  LocalFacts local;
  local.is_data_directory = true;
  local.control_state = "in production";
  local.lineage = {"7301", 2, pg::History{{1, kFork}}, {}};
  facts.local = local;
  return facts;
}

NodeFacts waiting_at(Lsn position) {
  NodeFacts facts;
  facts.name = "pg-c";
  facts.failure = Failure::none;
  facts.role = Role::standby;
  facts.lineage = {"7301", 1, pg::History{}, {}};
  facts.replayed = position;
  facts.waits_for_wal = true;
  facts.restores = false;
  return facts;
}

TEST_CASE("a node that crashed before the first checkpoint of its timeline may be rewound") {
  auto node = crashed();
  node.local->unsealed = true;
  CHECK(must_rebuild(node, primary()).empty());
}

TEST_CASE("an interrupted rewind must be rebuilt") {
  auto node = crashed();
  node.local->interrupted_rewind = true;
  CHECK(must_rebuild(node, primary()).find("interrupted") != std::string::npos);
}

TEST_CASE("a standby that waits for WAL that the primary has removed must be rebuilt") {
  // Streaming begins at the start of the segment that holds the position.
  CHECK(must_rebuild(waiting_at(Lsn{0x4000000}), primary()).empty());
  CHECK(must_rebuild(waiting_at(Lsn{0x4000028}), primary()).empty());
  const auto why = must_rebuild(waiting_at(Lsn{0x3FFFFF8}), primary());
  CHECK(why.find("0/3FFFFF8") != std::string::npos);
  CHECK(why.find("0/4000000") != std::string::npos);
}

TEST_CASE("missing WAL is only called missing when nothing can bring it") {
  auto node = waiting_at(Lsn{0x1000000});
  auto source = primary();
  REQUIRE(node.misses_wal_of(source));
  SUBCASE("it still replays what it has") { node.waits_for_wal = false; }
  SUBCASE("it has an archive") { node.restores = true; }
  SUBCASE("it receives") {
    node.receiver.emplace();
    node.receiver->status = "streaming";
  }
  SUBCASE("what the primary has is not known") { source.oldest_wal.reset(); }
  CHECK_FALSE(node.misses_wal_of(source));
}

TEST_CASE("nothing is begun in a directory that cannot be worked on") {
  config::PgCluster cluster;
  cluster.bin_dir = "/opt/pg/bin";
  LocalFacts local;
  local.is_data_directory = true;
  CHECK(can_work_on(cluster, "pg-b", local).has_value());
  local.missing_programs = {"pg_rewind", "pg_waldump"};
  const auto programs = can_work_on(cluster, "pg-b", local);
  CHECK(programs.error().code == Code::config);
  CHECK(programs.error().message.find("pg_rewind, pg_waldump in /opt/pg/bin") != std::string::npos);
  local = {};
  local.problem = "no PG_VERSION";
  CHECK(can_work_on(cluster, "pg-b", local).error().code == Code::not_a_data_directory);
  local.denied = true;
  CHECK(can_work_on(cluster, "pg-b", local).error().code == Code::auth);
}

pg::Snapshot with(const NodeFacts& node) {
  pg::Snapshot snapshot;
  snapshot.nodes = {primary(), node};
  return snapshot;
}

TEST_CASE("a directory is wrong when another server runs in it or it is another cluster's") {
  CHECK(wrong_directory(with(crashed()), "pg-b").empty());
  auto node = crashed();
  node.local->processes = true;
  node.local->port = 5433;
  CHECK(wrong_directory(with(node), "pg-b").empty());
  node.local->port = 5432;
  CHECK(wrong_directory(with(node), "pg-b").find("port 5432") != std::string::npos);
  node = crashed();
  node.local->lineage.system_id = "7302";
  CHECK(wrong_directory(with(node), "pg-b").find("7302") != std::string::npos);
}

TEST_CASE("a directory whose system identifier cannot be read may be anybody's") {
  auto node = crashed();
  node.local->lineage.system_id.clear();
  node.local->problem = "cannot run pg_controldata";
  CHECK(wrong_directory(with(node), "pg-b").find("cannot run pg_controldata") != std::string::npos);
}

TEST_CASE("a node whose timeline was begun twice waits for those who may be on it") {
  const auto on = [](const std::string& name, const char* mark) {
    pg::NodeFacts facts;
    facts.name = facts.address = name;
    facts.port = 5432;
    facts.failure = pg::Failure::none;
    facts.role = pg::Role::standby;
    facts.lineage = {"7301", 2, pg::History{{1, Lsn{0x3000000}}}, mark};
    facts.received = facts.replayed = Lsn{0x3000100};
    return facts;
  };
  pg::Snapshot snapshot;
  snapshot.nodes = {on("pg-a", "2:1"), on("pg-b", "2:2"), on("pg-c", "2:2")};
  auto& primary = snapshot.nodes[0];
  auto& node = snapshot.nodes[1];
  auto& other = snapshot.nodes[2];
  primary.role = pg::Role::primary;
  CHECK(why_not_yet(snapshot, node, primary).empty());
  other.has_upstream = true;
  other.upstream_host = "pg-b";
  other.upstream_port = 5432;
  CHECK(why_not_yet(snapshot, node, primary).find("pg-c is on that line") != std::string::npos);
  other.upstream_host = "pg-a";
  CHECK(why_not_yet(snapshot, node, primary).empty());
  other.failure = pg::Failure::no_answer;
  CHECK(why_not_yet(snapshot, node, primary).find("pg-c does not answer") != std::string::npos);
  // Begun elsewhere, and of the same number.
  node.lineage.history = pg::History{{1, Lsn{0x2000000}}};
  node.lineage.mark.reset();
  CHECK(why_not_yet(snapshot, node, primary).find("pg-c does not answer") != std::string::npos);
  // An old primary that has begun none.
  node.lineage = {"7301", 1, pg::History{}, {}};
  CHECK(why_not_yet(snapshot, node, primary).empty());
  node.lineage = primary.lineage;
  CHECK(why_not_yet(snapshot, node, primary).empty());
}

}  // namespace
}  // namespace zx::ha
