// From canned observations to verdicts: what is the case, and what must not be taken for it.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "lib/ha/pg_judge.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::NodeFacts;
using pg::Role;

constexpr Lsn kAt{0x5000000};

// pg-a, pg-b, … on 10.0.0.1, 10.0.0.2, …; seen from "here".
struct Seen {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  std::optional<LastSeen> last;

  Seen() {
    cluster.name = "main";
    snapshot.observer = "here";
  }

  NodeFacts& add(Failure failure, Role role) {
    const auto number = snapshot.nodes.size();
    NodeFacts facts;
    facts.name = std::string("pg-") + static_cast<char>('a' + number);
    facts.host = "host-" + facts.name;
    facts.address = "10.0.0." + std::to_string(number + 1);
    facts.port = 5432;
    facts.failure = failure;
    facts.role = role;
    facts.lineage = {"7301", 1, pg::History{}, std::nullopt};
    config::PgNode node;
    node.name = facts.name;
    cluster.nodes.push_back(node);
    return snapshot.nodes.emplace_back(std::move(facts));
  }
  Seen& primary() {
    auto& facts = add(Failure::none, Role::primary);
    facts.written = facts.flushed = kAt;
    return *this;
  }
  Seen& gone(Failure failure) {
    add(failure, Role::unknown).error.message = "it says why";
    return *this;
  }
  // Configured to follow `upstream`, receives from nobody.
  Seen& standby(int upstream) {
    auto& facts = add(Failure::none, Role::standby);
    facts.received = facts.replayed = kAt;
    if (upstream < 0) return *this;
    facts.has_upstream = true;
    facts.upstream_host = "10.0.0." + std::to_string(upstream + 1);
    facts.upstream_port = 5432;
    return *this;
  }
  // Its walreceiver holds a connection to `upstream`.
  Seen& streaming(int upstream, std::optional<Millis> age,
                  const std::string& status = "streaming") {
    standby(upstream);
    auto& facts = snapshot.nodes.back();
    facts.receiver = pg::Receiver{status, facts.upstream_host, 5432, "", kAt, 1, age};
    return *this;
  }
  Seen& last_primary(const std::string& name) {
    last.emplace();
    last->primary = name;
    return *this;
  }
  Seen& told(const std::string& observer, const std::string& node, Failure failure,
             Role role = Role::unknown) {
    snapshot.testimonies.push_back({observer, node, failure, role, ""});
    return *this;
  }
  NodeFacts& node(std::size_t number) { return snapshot.nodes[number]; }
  [[nodiscard]] PgVerdict verdict() const { return judge(cluster, snapshot, last); }
};

// Whatever the verdict: evidence of every node, a sentence, and no words that end it.
void check_form(const PgVerdict& verdict, const Seen& seen) {
  CHECK_FALSE(verdict.summary.empty());
  CHECK_FALSE(verdict.summary.ends_with('.'));
  CHECK(verdict.evidence.size() == seen.snapshot.nodes.size() + seen.snapshot.testimonies.size());
  for (const auto& evidence : verdict.evidence) CHECK_FALSE(evidence.text.empty());
}

void check(const Seen& seen, PgState state, const std::string& primary) {
  const auto verdict = seen.verdict();
  CAPTURE(verdict.summary);
  CHECK(std::string(name_of(verdict.state)) == name_of(state));
  CHECK(verdict.primary == primary);
  check_form(verdict, seen);
}

TEST_CASE("one primary and streaming standbys are healthy") {
  check(Seen().primary().streaming(0, Millis(50)).streaming(0, Millis(9000)), PgState::healthy,
        "pg-a");
  // An idle primary sends a message every half of wal_sender_timeout.
  check(Seen().streaming(1, Millis(29'000)).primary(), PgState::healthy, "pg-b");
  check(Seen().primary(), PgState::healthy, "pg-a");
  // A cascade.
  check(Seen().primary().streaming(0, Millis(1)).streaming(1, Millis(1)), PgState::healthy, "pg-a");
}

TEST_CASE("one primary with something missing is degraded, and says what") {
  Seen seen = Seen().primary().streaming(0, Millis(1));
  const auto problem_after = [&](const std::function<void(Seen&)>& change) {
    Seen changed = seen;
    change(changed);
    const auto verdict = changed.verdict();
    CHECK(verdict.state == PgState::degraded);
    CHECK(verdict.primary == "pg-a");
    check_form(verdict, changed);
    REQUIRE(verdict.problems.size() == 1);
    return verdict.problems.front();
  };
  CHECK(problem_after([](Seen& s) { s.node(1).receiver.reset(); }) == "pg-b receives from nobody");
  CHECK(problem_after([](Seen& s) { s.node(1).receiver->status = "starting"; }) ==
        "pg-b receives from nobody");
  CHECK(problem_after([](Seen& s) { s.node(1).replay_paused = true; }) ==
        "the replay of pg-b is paused");
  CHECK(problem_after([](Seen& s) { s.gone(Failure::refused); }) == "pg-c: connection refused");
  CHECK(problem_after([](Seen& s) {
          s.gone(Failure::refused);
          s.node(2).local.emplace();
          s.node(2).local->fenced = true;
        }) == "pg-c is fenced");
  CHECK(
      problem_after([](Seen& s) { s.node(0).read_only = true; }).starts_with("pg-a is read-only"));
  CHECK(problem_after([](Seen& s) { s.node(0).max_connections = s.node(0).connections = 100; }) ==
        "pg-a uses all of its 100 connections");
  CHECK(problem_after([](Seen& s) {
          s.node(1).receiver->sender_host = "198.51.100.9";
          s.node(1).has_upstream = false;
        }).find("198.51.100.9") != std::string::npos);
}

TEST_CASE("a primary that serves is never failed over from, whatever the others do") {
  for (const auto failure : {Failure::refused, Failure::silent, Failure::auth, Failure::other}) {
    Seen seen = Seen().primary().gone(failure).gone(failure).last_primary("pg-b");
    const auto verdict = seen.verdict();
    CHECK(verdict.state == PgState::degraded);
    CHECK(verdict.problems.size() == 2);
    CHECK_FALSE(calls_for_failover(verdict.state));
  }
}

TEST_CASE("two that accept writes are two primaries, and none of them is the primary") {
  Seen seen = Seen().primary().primary().streaming(0, Millis(1)).last_primary("pg-a");
  const auto verdict = seen.verdict();
  CHECK(verdict.state == PgState::two_primaries);
  CHECK(verdict.primary.empty());
  CHECK(verdict.primaries == std::vector<std::string>{"pg-a", "pg-b"});
  CHECK_FALSE(calls_for_failover(verdict.state));
  check_form(verdict, seen);
}

TEST_CASE("how the primary fails to answer decides, with standbys that hear nothing") {
  const struct {
    Failure failure;
    PgState state;
  } rows[] = {
      {Failure::refused, PgState::primary_dead},
      {Failure::no_route, PgState::primary_silent},
      {Failure::no_answer, PgState::primary_silent},
      {Failure::silent, PgState::primary_silent},
      {Failure::too_many_connections, PgState::primary_overloaded},
      {Failure::starting_up, PgState::primary_starting},
      {Failure::recovering, PgState::primary_starting},
      {Failure::shutting_down, PgState::primary_shutting_down},
      // An answer of any kind is no death.
      {Failure::auth, PgState::unknown},
      {Failure::permission, PgState::unknown},
      {Failure::no_database, PgState::unknown},
      {Failure::resolve, PgState::unknown},
      {Failure::broken, PgState::unknown},
      {Failure::not_postgres, PgState::unknown},
      {Failure::other, PgState::unknown},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(pg::name_of(row.failure)));
    check(Seen().gone(row.failure).standby(0).standby(0), row.state, "pg-a");
    // The same when only what was last seen tells who it was.
    check(Seen().gone(row.failure).standby(-1).last_primary("pg-a"), row.state, "pg-a");
    // Or when it is the only one left.
    check(Seen().standby(-1).gone(row.failure), row.state, "pg-b");
  }
}

TEST_CASE("refused here and received from there is alive") {
  for (const auto age :
       {std::optional<Millis>(10), std::optional<Millis>(50'000), std::optional<Millis>()}) {
    // A dead postmaster's walsenders are gone within milliseconds: any held connection is life.
    check(Seen().gone(Failure::refused).standby(0).streaming(0, age), PgState::primary_unreachable,
          "pg-a");
    check(Seen().gone(Failure::refused).streaming(0, age, "waiting"), PgState::primary_unreachable,
          "pg-a");
  }
  check(Seen().gone(Failure::refused).streaming(0, Millis(1), "starting"), PgState::primary_dead,
        "pg-a");
  check(Seen().gone(Failure::refused).streaming(0, Millis(1), "stopping"), PgState::primary_dead,
        "pg-a");
}

TEST_CASE("from a silent primary only a fresh message is life") {
  for (const auto failure : {Failure::silent, Failure::no_answer, Failure::no_route}) {
    CAPTURE(std::string(pg::name_of(failure)));
    const auto with_age = [&](std::int64_t ms) {
      return Seen().gone(failure).standby(0).streaming(0, Millis(ms));
    };
    check(with_age(0), PgState::primary_unreachable, "pg-a");
    check(with_age(1499), PgState::primary_unreachable, "pg-a");
    check(with_age(1500), PgState::primary_silent, "pg-a");
    check(with_age(60'000), PgState::primary_silent, "pg-a");
    Seen patient = with_age(1500);
    patient.cluster.policy.silent_after = Millis(2000);
    check(patient, PgState::primary_unreachable, "pg-a");
  }
}

TEST_CASE("a standby of another standby says nothing about the primary") {
  check(Seen().gone(Failure::refused).standby(0).streaming(1, Millis(1)), PgState::primary_dead,
        "pg-a");
  check(Seen().gone(Failure::silent).standby(0).streaming(1, Millis(1)), PgState::primary_silent,
        "pg-a");
}

TEST_CASE("when another host reaches it, it is alive") {
  for (const auto here : {Failure::refused, Failure::no_route, Failure::no_answer, Failure::silent})
    for (const auto there : {Failure::none, Failure::auth, Failure::permission,
                             Failure::no_database, Failure::too_many_connections}) {
      CAPTURE(std::string(pg::name_of(here)));
      CAPTURE(std::string(pg::name_of(there)));
      Seen seen = Seen().gone(here).standby(0).standby(0);
      seen.told("far", "pg-a", there, Role::primary);
      check(seen, PgState::primary_unreachable, "pg-a");
      CHECK(seen.verdict().summary.find("far") != std::string::npos);
    }
  // A word about another node, or one's own word, is none about the primary.
  Seen seen = Seen().gone(Failure::silent).standby(0).standby(0);
  seen.told("far", "pg-b", Failure::none, Role::standby).told("far", "pg-a", Failure::no_answer);
  seen.told("here", "pg-a", Failure::none);
  check(seen, PgState::primary_silent, "pg-a");
}

// What another host sees there speaks: PostgreSQL is on its way up or down, and not dead.
TEST_CASE("when another host sees it start or stop, it is not dead") {
  for (const auto there : {Failure::starting_up, Failure::recovering, Failure::shutting_down}) {
    Seen seen = Seen().gone(Failure::silent).standby(0);
    seen.told("far", "pg-a", there);
    CAPTURE(std::string(pg::name_of(there)));
    CHECK_FALSE(calls_for_failover(seen.verdict().state));
  }
}

TEST_CASE("when no node answers, this host may be the one that is cut off") {
  for (const auto failure : {Failure::refused, Failure::no_route, Failure::silent}) {
    check(Seen().gone(failure).gone(failure).last_primary("pg-a"), PgState::unknown, "pg-a");
    check(Seen().gone(failure).gone(failure), PgState::unknown, "");
    check(Seen().gone(failure), PgState::unknown, "pg-a");
  }
  const auto nothing = Seen().verdict();
  CHECK_FALSE(has_live_primary(nothing.state));
}

TEST_CASE("when every node is in recovery there is no primary") {
  check(Seen().standby(-1).standby(-1), PgState::no_primary, "");
  check(Seen().standby(1).standby(0), PgState::no_primary, "");
  check(Seen().standby(-1).standby(0).last_primary("pg-a"), PgState::no_primary, "pg-a");
}

TEST_CASE("who was the primary is what the standbys follow, before what was last seen") {
  // pg-b took over since the last look.
  check(Seen().standby(1).gone(Failure::refused).standby(1).last_primary("pg-a"),
        PgState::primary_dead, "pg-b");
  // One may be the other's standby: a majority does not tell which.
  check(Seen().gone(Failure::refused).gone(Failure::refused).standby(1).standby(1).standby(0),
        PgState::unknown, "");
  // A node of zx.toml that is gone from it is nobody's primary.
  check(Seen().gone(Failure::refused).gone(Failure::refused).standby(-1).last_primary("pg-z"),
        PgState::unknown, "");
  // Two do not answer and nothing tells which one it was.
  check(Seen().gone(Failure::refused).gone(Failure::refused).standby(-1), PgState::unknown, "");
}

TEST_CASE("upstreams are matched by address, host name and port, loopback in any spelling") {
  Seen seen = Seen().primary().standby(0);
  CHECK(node_at(seen.snapshot, "10.0.0.1", 5432) == "pg-a");
  CHECK(node_at(seen.snapshot, "host-pg-a", 5432) == "pg-a");
  CHECK(node_at(seen.snapshot, "10.0.0.1", 5433).empty());
  CHECK(node_at(seen.snapshot, "10.0.0.9", 5432).empty());
  CHECK(node_at(seen.snapshot, "", 5432).empty());
  seen.node(0).address = "localhost";
  CHECK(node_at(seen.snapshot, "127.0.0.1", 5432) == "pg-a");
  CHECK(node_at(seen.snapshot, "::1", 5432) == "pg-a");
  seen.node(0).address = "DB-1.example";
  CHECK(node_at(seen.snapshot, "db-1.EXAMPLE", 5432) == "pg-a");

  seen = Seen().primary().streaming(0, Millis(1)).primary();
  CHECK(upstream_node(seen.snapshot, seen.node(1)) == "pg-a");
  // Whom it receives from now counts before whom it is configured to.
  seen.node(1).receiver->sender_host = "10.0.0.3";
  CHECK(upstream_node(seen.snapshot, seen.node(1)) == "pg-c");
  seen.node(1).receiver.reset();
  CHECK(upstream_node(seen.snapshot, seen.node(1)) == "pg-a");
  seen.node(1).has_upstream = false;
  CHECK(upstream_node(seen.snapshot, seen.node(1)).empty());
}

TEST_CASE("what calls for a failover, and what counts as alive") {
  const std::set<PgState> calls{PgState::primary_dead, PgState::primary_silent,
                                PgState::no_primary};
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(PgState::unknown); ++i) {
    const auto state = static_cast<PgState>(i);
    CAPTURE(std::string(name_of(state)));
    CHECK(names.insert(name_of(state)).second);
    CHECK(calls_for_failover(state) == calls.contains(state));
    CHECK_FALSE((calls_for_failover(state) && has_live_primary(state)));
  }
  CHECK(has_live_primary(PgState::primary_unreachable));
  CHECK(has_live_primary(PgState::primary_overloaded));
  CHECK_FALSE(has_live_primary(PgState::unknown));
}

// --- where a wrong verdict would promote beside a primary that lives ------------------------

// pg-a was last seen as the primary and is only cut off; pg-b, its standby, is dead; pg-c followed
// pg-b. What pg-c points at is not the primary.
TEST_CASE("a dead middle of a cascade is not the primary") {
  const auto verdict = Seen()
                           .gone(Failure::no_answer)
                           .gone(Failure::refused)
                           .standby(1)
                           .last_primary("pg-a")
                           .verdict();
  CHECK_FALSE((calls_for_failover(verdict.state) && verdict.primary == "pg-b"));
}

// pg-a, once the primary, is a standby; pg-b does not answer and may be the primary now.
TEST_CASE("a node that does not answer may be the primary that no standby shows") {
  const auto verdict =
      Seen().standby(-1).gone(Failure::no_answer).standby(-1).last_primary("pg-a").verdict();
  CHECK_FALSE(calls_for_failover(verdict.state));
}

// Standbys may follow by a name or a virtual address that zx.toml does not have.
TEST_CASE("a standby that receives from an address unknown may be receiving from the primary") {
  for (const auto failure : {Failure::refused, Failure::silent}) {
    Seen seen = Seen().gone(failure).standby(-1).standby(-1).last_primary("pg-a");
    seen.node(1).receiver = pg::Receiver{"streaming", "db.example", 5432, "", kAt, 1, Millis(20)};
    CHECK_FALSE(calls_for_failover(seen.verdict().state));
  }
}

// Without pg_read_all_stats a role sees that there is a walreceiver and nothing more of it.
TEST_CASE(
    "standbys that receive from a server which is none of the nodes have a primary elsewhere") {
  for (const auto age :
       {std::optional(Millis(10)), std::optional(Millis(60'000)), std::optional<Millis>()}) {
    Seen scene;
    scene.streaming(7, age).standby(7);
    const auto verdict = judge(scene.cluster, scene.snapshot, scene.last);
    CHECK(verdict.state == PgState::unknown);
    CHECK(verdict.summary.find("receives from 10.0.0.8:5432") != std::string::npos);
    // The one that was last seen as such is a standby now, and not the one they receive from.
    scene.last_primary("pg-b");
    CHECK(judge(scene.cluster, scene.snapshot, scene.last).state == PgState::unknown);
    // Refused, and by another name they receive from it, however long ago.
    Seen idle;
    idle.gone(Failure::refused).streaming(7, age).last_primary("pg-a");
    CHECK(judge(idle.cluster, idle.snapshot, idle.last).state == PgState::unknown);
  }
}

TEST_CASE("a walreceiver whose state is hidden is not one that receives nothing") {
  Seen seen = Seen().gone(Failure::refused).standby(0);
  seen.node(1).receiver = pg::Receiver{};
  CHECK_FALSE(calls_for_failover(seen.verdict().state));
}

TEST_CASE("a message of unknown age is not an old one") {
  CHECK_FALSE(
      calls_for_failover(Seen().gone(Failure::silent).streaming(0, std::nullopt).verdict().state));
}

TEST_CASE("two primaries are primaries that accept writes") {
  CHECK(has_live_primary(PgState::two_primaries));
}

}  // namespace
}  // namespace zx::ha
