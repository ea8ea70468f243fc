// What an agent does about a cluster in which a failover was begun, or has given a node up.
#include <doctest/doctest.h>

#include "lib/ha/pg_watch.h"

namespace zx::ha {
namespace {

struct Seen {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  WatchRecord record;
  WatchMemory memory;
  Monotonic now{std::chrono::hours(1)};

  Seen() {
    cluster.name = "main";
    for (const char* name : {"pg-a", "pg-b", "pg-c"}) {
      config::PgNode node;
      node.name = name;
      cluster.nodes.push_back(node);
      pg::NodeFacts facts;
      facts.name = name;
      facts.address = name;
      facts.port = 5432;
      facts.failure = pg::Failure::refused;
      snapshot.nodes.push_back(facts);
    }
  }
  pg::NodeFacts& answers(std::size_t i, pg::Role role, std::uint32_t timeline) {
    auto& facts = snapshot.nodes[i];
    facts.failure = pg::Failure::none;
    facts.role = role;
    facts.lineage = {"7301", timeline, pg::History{}, {}};
    if (timeline == 2) facts.lineage.history->push_back({1, Lsn{1000}});
    return facts;
  }
  Decision decide_now() {
    const auto verdict = judge(cluster, snapshot, {});
    Sight sight{cluster, snapshot, verdict, record};
    sight.leads = true;
    sight.now = now;
    remember(memory, sight);
    return decide(sight, memory);
  }
};

TEST_CASE(
    "of two primaries the one that a failover was giving up goes, also if nobody told its end") {
  Seen seen;
  seen.answers(0, pg::Role::primary, 1);
  seen.answers(1, pg::Role::primary, 2);
  CHECK(seen.decide_now().is_blocked);
  seen.record.begun = WatchRecord::Begun{"zx-1", "pg-a", "pg-b", "quorum", {}};
  CHECK(seen.decide_now().act == Act::rejoin);
  CHECK(seen.decide_now().subject == "pg-a");
}

TEST_CASE("nothing is made to follow a primary that was given up while its successor is away") {
  Seen seen;
  seen.answers(0, pg::Role::primary, 1);
  seen.answers(2, pg::Role::standby, 1).received = Lsn{900};
  seen.record.last = WatchRecord::Failover{{}, "run", "pg-a", "pg-b", false};
  seen.record.owe({"pg-a", "run", "quorum", {}});
  static_cast<void>(seen.decide_now());
  seen.now += Millis(60'000);
  CHECK(seen.decide_now().act == Act::none);
  CHECK(seen.decide_now().is_blocked);
  SUBCASE("a person says that it is the one") {
    seen.record.last->is_acknowledged = true;
    CHECK(seen.decide_now().act == Act::repoint);
    CHECK(seen.decide_now().subject == "pg-c");
  }
  SUBCASE("all others are standbys of its own line") {
    seen.answers(1, pg::Role::standby, 1).received = Lsn{900};
    CHECK(doubt_of(seen.record, seen.snapshot, "pg-a").empty());
  }
  SUBCASE("a standby is on the timeline of its successor") {
    seen.answers(2, pg::Role::standby, 2).received = Lsn{2000};
    CHECK(seen.decide_now().act == Act::fence);
    CHECK(seen.decide_now().subject == "pg-a");
  }
}

TEST_CASE("whom an earlier failover may have promoted is named while it does not answer") {
  Seen seen;
  const auto heir = [&] { return heir_of(seen.record, seen.snapshot, "pg-a"); };
  CHECK(heir().empty());
  seen.record.begun = WatchRecord::Begun{"zx-1", "pg-a", "pg-b", "", {}};
  CHECK(heir() == "pg-b");
  seen.answers(1, pg::Role::standby, 1);
  CHECK(heir().empty());
  seen.record.last = WatchRecord::Failover{{}, "run", "pg-a", "pg-c", false};
  CHECK(heir() == "pg-c");
  CHECK(heir_of(seen.record, seen.snapshot, "pg-b").empty());
  // A failover that nobody told, and that an agent saw the end of.
  seen.record.last.reset();
  seen.record.begun.reset();
  seen.record.owe({"pg-a", "of zx-1", "", {}, "pg-c"});
  CHECK(heir() == "pg-c");
  seen.answers(2, pg::Role::standby, 1);
  CHECK(heir().empty());
  seen.snapshot.nodes[2].failure = pg::Failure::refused;
  seen.record.last = WatchRecord::Failover{{}, "run", "pg-a", "pg-c", true};
  CHECK(heir().empty());
}

TEST_CASE("a standby that commits wait for receives from the primary itself") {
  Seen seen;
  seen.answers(0, pg::Role::primary, 1).flushed = Lsn{500};
  for (const std::size_t i : {1U, 2U}) {
    auto& standby = seen.answers(i, pg::Role::standby, 1);
    standby.received = Lsn{400};
    standby.receiver =
        pg::Receiver{"streaming", i == 1 ? "pg-a" : "pg-b", 5432, {}, {}, 1, Millis(1)};
  }
  static_cast<void>(seen.decide_now());
  seen.now += Millis(7000);
  CHECK(seen.decide_now().act == Act::none);
  seen.snapshot.nodes[0].sync_names = "FIRST 1 (\"pg-c\")";
  static_cast<void>(seen.decide_now());
  seen.now += Millis(7000);
  CHECK(seen.decide_now().act == Act::repoint);
  CHECK(seen.decide_now().subject == "pg-c");
  // What is to come back waits for it too.
  seen.snapshot.nodes[0].sync_names.clear();
  CHECK(seen.decide_now().act == Act::none);
  seen.record.sync_owed = SyncDebt{"ANY 2 (\"pg-b\", \"pg-c\")", "", "run"};
  static_cast<void>(seen.decide_now());
  seen.now += Millis(7000);
  CHECK(seen.decide_now().act == Act::repoint);
  CHECK(seen.decide_now().subject == "pg-c");
}

TEST_CASE("a standby that receives from nobody is repointed, also when its old upstream answers") {
  Seen seen;
  seen.answers(1, pg::Role::primary, 1).flushed = Lsn{500};
  auto& standby = seen.answers(2, pg::Role::standby, 1);
  standby.received = Lsn{400};
  standby.has_upstream = true;
  standby.upstream_host = "pg-a";
  standby.upstream_port = 5432;
  auto& old = seen.answers(0, pg::Role::standby, 1);
  old.received = Lsn{500};
  old.receiver = pg::Receiver{"streaming", "pg-b", 5432, {}, {}, 1, Millis(1)};
  CHECK(seen.decide_now().act == Act::none);
  seen.now += Millis(7000);
  CHECK(seen.decide_now().act == Act::repoint);
  CHECK(seen.decide_now().subject == "pg-c");
}

TEST_CASE("a follower on a line that ended is brought back before the node that it follows") {
  Seen seen;
  seen.answers(0, pg::Role::primary, 2).lineage.mark = "2:aa";
  seen.record.owe({"pg-b", "run", "", {}});
  CHECK(seen.decide_now().subject == "pg-b");
  auto& follower = seen.answers(2, pg::Role::standby, 2);
  follower.received = Lsn{2000};
  follower.receiver = pg::Receiver{"streaming", "pg-b", 5432, {}, {}, 1, Millis(1)};
  follower.lineage.mark = "2:bb";  // of another promotion
  CHECK(seen.decide_now().act == Act::rejoin);
  CHECK(seen.decide_now().subject == "pg-c");
}

TEST_CASE("of all followers on a line that ended that only a rebuild helps a person is told") {
  Seen seen;
  auto four = seen.snapshot.nodes.back();
  four.name = four.address = "pg-d";
  seen.snapshot.nodes.push_back(four);
  seen.cluster.nodes.push_back({});
  seen.cluster.nodes.back().name = "pg-d";
  seen.answers(0, pg::Role::primary, 2).lineage.mark = "2:aa";
  seen.record.owe({"pg-b", "run", "", {}});
  for (const std::size_t i : {2U, 3U}) {
    auto& follower = seen.answers(i, pg::Role::standby, 2);
    follower.received = Lsn{2000};
    follower.receiver = pg::Receiver{"streaming", "pg-b", 5432, {}, {}, 1, Millis(1)};
    follower.lineage.mark = "2:bb";
    seen.memory.beyond_rewind[follower.name] = {"pg-a", "no way but one: " + follower.name, true};
  }
  seen.memory.beyond_rewind["pg-b"] = {"pg-a", "no way but one: pg-b", false};
  const auto decision = seen.decide_now();
  CHECK(decision.is_blocked);
  for (const char* name : {"pg-b", "pg-c", "pg-d"})
    CHECK_MESSAGE(decision.why.find(std::string("no way but one: ") + name) != std::string::npos,
                  decision.why);
}

TEST_CASE("the record of a begun failover survives being written and read") {
  WatchRecord record;
  record.begun =
      WatchRecord::Begun{"zx-1", "pg-a", "pg-b", "quorum", parse_utc("2026-01-01T00:00:00.000Z")};
  record.owe({"pg-c", "run", "", parse_utc("2026-01-01T00:00:00.000Z")});
  const auto read = watch_record_from(dump_line(to_json(record)));
  REQUIRE(read);
  CHECK(*read == record);
}

}  // namespace
}  // namespace zx::ha
