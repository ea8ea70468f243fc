// Which node has every acknowledged commit, and what proves that the old primary cannot
// acknowledge another.
#include <doctest/doctest.h>

#include <set>

#include "lib/ha/pg_choose.h"
#include "lib/ha/pg_proof.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::Role;
using Kind = FenceMeans::Kind;

constexpr std::uint64_t kEnd = 1 << 20;

// The primary pg-a does not answer. Each letter of `up` is a standby that does, at kEnd.
struct Seen {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  std::optional<LastSeen> last;

  explicit Seen(const std::string& up, int nodes = 4) {
    for (int i = 0; i < nodes; ++i) {
      const char letter = static_cast<char>('a' + i);
      config::PgNode node;
      node.name = std::string("pg-") + letter;
      cluster.nodes.push_back(node);
      pg::NodeFacts facts;
      facts.name = node.name;
      facts.host = "host-" + node.name;
      facts.failure = Failure::no_answer;
      if (up.find(letter) != std::string::npos) {
        facts.failure = Failure::none;
        facts.role = Role::standby;
        facts.received = facts.replayed = Lsn{kEnd};
      }
      snapshot.nodes.push_back(std::move(facts));
    }
  }
  pg::NodeFacts& facts(char letter) {
    return snapshot.nodes[static_cast<std::size_t>(letter - 'a')];
  }
  void was_sync(std::vector<std::string> names) {
    last.emplace();
    last->primary = "pg-a";
    last->sync_standbys = std::move(names);
    last->is_watched = true;
  }
  [[nodiscard]] SyncSafety safety(const std::string& names, const std::string& node) const {
    return sync_safety(names, cluster, snapshot, "pg-a", node, last);
  }
  [[nodiscard]] FenceMeans means(const std::string& names, bool known = true,
                                 bool assume = false) const {
    return fence_means(cluster, snapshot, "pg-a", names, known, assume);
  }
};

// Frozen, it was stopped; continued, it takes the next standby of the list for the one that zx
// froze.
TEST_CASE("who was synchronous when last seen proves nothing while the old primary may run") {
  Seen seen("b");
  seen.was_sync({"pg-b"});
  seen.facts('a').local.emplace();
  CHECK(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.facts('a').local->processes = true;
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  // Out of sight, it may have lost pg-b and taken pg-c as well; not when the operator knows better.
  seen.facts('a').local.reset();
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  CHECK(sync_safety("FIRST 1 (pg-b, pg-c)", seen.cluster, seen.snapshot, "pg-a", "pg-b", seen.last,
                    true)
            .safe);
}

TEST_CASE("a standby that went on where the line of another left has nothing more of that") {
  Seen seen("bc");
  seen.facts('b').lineage = {"7301", 2, pg::History{{1, Lsn{kEnd - 100}}}, {}};
  seen.facts('c').lineage = {"7301", 1, pg::History{}, {}};
  seen.facts('c').received = seen.facts('c').replayed = Lsn{2 * kEnd};
  CHECK(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.facts('c').lineage = seen.facts('b').lineage;
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
}

TEST_CASE("a quorum is safe when fewer members are missing than must acknowledge") {
  const struct {
    std::string names;
    std::string up;
    bool safe;
  } rows[] = {
      {"ANY 1 (pg-b, pg-c)", "bc", true},
      {"ANY 1 (pg-b, pg-c)", "b", false},
      {"ANY 2 (pg-b, pg-c)", "b", true},
      {"ANY 2 (pg-b, pg-c, pg-d)", "bc", true},
      {"ANY 2 (pg-b, pg-c, pg-d)", "b", false},
      {"ANY 3 (pg-b, pg-c, pg-d)", "b", true},
      {"FIRST 1 (pg-b, pg-c)", "bc", true},
      {"FIRST 1 (pg-b, pg-c)", "b", false},
      {"FIRST 2 (pg-b, pg-c, pg-d)", "bd", true},
      {"FIRST 2 (pg-b, pg-c, pg-d)", "b", false},
      {"pg-b", "b", true},
      {"pg-b", "bc", true},
      {"*", "bc", false},
      {"ANY 2 (*)", "b", false},
      // The old primary in its own list acknowledges nothing for itself.
      {"ANY 1 (pg-a, pg-b)", "b", true},
      {"ANY 1 (PG-A, PG-B)", "b", true},
      // A name twice is one standby.
      {"ANY 1 (pg-b, pg-b)", "b", true},
      // A listed name that is no node here can never be asked.
      {"ANY 1 (pg-b, other)", "bcd", false},
      {"ANY 2 (pg-b, other)", "b", true},
  };
  for (const auto& row : rows) {
    CAPTURE(row.names);
    CAPTURE(row.up);
    const auto safety = Seen(row.up).safety(row.names, "pg-b");
    CHECK(safety.applies);
    CHECK(safety.safe == row.safe);
    CHECK_FALSE(safety.why.empty());
  }
}

TEST_CASE("no rule, no promise") {
  const auto safety = Seen("bcd").safety("", "pg-b");
  CHECK_FALSE(safety.applies);
  CHECK_FALSE(safety.safe);
  // A rule that is not understood may promise anything.
  const auto odd = Seen("bcd").safety("ANY (", "pg-b");
  CHECK(odd.applies);
  CHECK_FALSE(odd.safe);
  CHECK_FALSE(odd.why.empty());
}

TEST_CASE("only who is as far as every listed standby that answers has it all") {
  Seen seen("bcd");
  seen.facts('c').received = Lsn{kEnd + 1};
  CHECK_FALSE(seen.safety("ANY 1 (pg-b, pg-c)", "pg-b").safe);
  CHECK(seen.safety("ANY 1 (pg-b, pg-c)", "pg-c").safe);
  // A standby that is not listed may be the one with all.
  seen.facts('d').received = Lsn{kEnd + 1};
  CHECK(seen.safety("ANY 1 (pg-b, pg-c)", "pg-d").safe);
  seen.facts('d').received = Lsn{kEnd + 2};
  CHECK(seen.safety("ANY 1 (pg-b, pg-c)", "pg-c").safe);
  // One that does not answer is never it.
  CHECK_FALSE(Seen("bc").safety("ANY 1 (pg-b, pg-c)", "pg-d").safe);
  CHECK_FALSE(Seen("bc").safety("ANY 1 (pg-b, pg-c)", "unheard-of").safe);
}

TEST_CASE("one that still replays WAL from before its restart may have any commit") {
  Seen seen("bc");
  seen.facts('c').received.reset();
  const auto safety = seen.safety("ANY 1 (pg-b, pg-c)", "pg-b");
  CHECK_FALSE(safety.safe);
  CHECK(safety.why.find("pg-c still replaying WAL") != std::string::npos);
  // Its promotion replays the rest.
  seen.facts('c').replayed = Lsn{kEnd + 1};
  CHECK(seen.safety("ANY 1 (pg-b, pg-c)", "pg-c").safe);
  seen.facts('c').replayed = Lsn{kEnd};
  seen.facts('c').waits_for_wal = true;
  CHECK(seen.safety("ANY 1 (pg-b, pg-c)", "pg-b").safe);
}

TEST_CASE("of a priority list the first that was synchronous when last seen has it all") {
  Seen seen("b");
  seen.was_sync({"pg-b"});
  // One that refuses may have been started again since, and taken the next one.
  seen.facts('a').failure = Failure::refused;
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.facts('a').local.emplace();
  CHECK(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  CHECK(seen.safety("pg-b, pg-c", "pg-b").safe);
  CHECK(seen.safety("FIRST 2 (pg-c, pg-b, pg-d)", "pg-b").safe);
  // Somebody looked once, or it is long ago: another may have been the one since.
  seen.last->is_watched = false;
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.last->is_watched = true;
  seen.snapshot.at = seen.last->at + Millis(11 * 60'000);
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.snapshot.at = seen.last->at;
  // It stands behind one that may have been connected alone.
  CHECK_FALSE(seen.safety("FIRST 1 (pg-c, pg-b)", "pg-b").safe);
  // In a quorum the others may have been the ones.
  CHECK_FALSE(seen.safety("ANY 1 (pg-b, pg-c)", "pg-b").safe);
  seen.last->primary = "pg-z";
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
  seen.was_sync({"pg-c"});
  CHECK_FALSE(seen.safety("FIRST 1 (pg-b, pg-c)", "pg-b").safe);
}

// '*' is also matched by whoever connects from outside zx.toml, such as pg_receivewal: its word
// alone may have acknowledged a commit. fence_means() takes this into account.
TEST_CASE("a wildcard may have been satisfied by a standby that zx does not know") {
  CHECK_FALSE(Seen("bcd").safety("FIRST 1 (*)", "pg-b").safe);
  Seen known("bcd");
  known.was_sync({"pg-b"});
  CHECK(known.safety("FIRST 1 (*)", "pg-b").safe);
  CHECK(known.safety("*", "pg-c").safe);
  known.was_sync({"pg_receivewal"});
  CHECK_FALSE(known.safety("FIRST 1 (*)", "pg-b").safe);
  CHECK(known.safety("ANY 2 (*)", "pg-b").safe);
}

TEST_CASE("a fence on the host is the best there is") {
  Seen seen("bcd");
  seen.facts('a').local.emplace();
  seen.facts('a').local->is_data_directory = true;
  for (const bool assume : {false, true}) {
    CHECK(seen.means("ANY 2 (pg-b, pg-c)", true, assume).kind == Kind::host);
    CHECK(seen.means("", false, assume).kind == Kind::host);
  }
  seen.cluster.policy.require_fence = false;
  CHECK(seen.means("").kind == Kind::host);
  // An answer of the host that there is no such directory is no way to fence.
  seen.cluster.policy.require_fence = true;
  seen.facts('a').local->is_data_directory = false;
  seen.facts('a').local->problem = "/data is empty";
  CHECK(seen.means("").kind == Kind::none);
  CHECK(seen.means("").why.find("/data is empty") != std::string::npos);
}

TEST_CASE("a node in recovery needs no fence") {
  Seen seen("abcd");
  CHECK(seen.means("").kind == Kind::in_recovery);
  const auto none = fence_means(seen.cluster, seen.snapshot, "", "", false, false);
  CHECK(none.kind == Kind::in_recovery);
  // One that answers as a primary is not in recovery.
  seen.facts('a').role = Role::primary;
  CHECK(seen.means("").kind == Kind::none);
}

TEST_CASE("a quorum is a fence when too few are left to acknowledge") {
  const struct {
    std::string names;
    std::string up;
    Kind kind;
  } rows[] = {
      {"ANY 1 (pg-b, pg-c)", "bc", Kind::quorum},
      {"ANY 1 (pg-b, pg-c)", "b", Kind::none},
      {"ANY 2 (pg-b, pg-c)", "b", Kind::quorum},
      {"ANY 2 (pg-b, pg-c, pg-d)", "bc", Kind::quorum},
      {"ANY 2 (pg-b, pg-c, pg-d)", "b", Kind::none},
      {"FIRST 1 (pg-b, pg-c)", "b", Kind::none},
      {"FIRST 2 (pg-b, pg-c)", "c", Kind::quorum},
      {"pg-b", "b", Kind::quorum},
      {"pg-b", "cd", Kind::none},
      {"ANY 1 (pg-a, pg-b)", "b", Kind::quorum},
      // Others may connect and acknowledge.
      {"*", "bcd", Kind::none},
      {"ANY 1 (pg-b, *)", "bcd", Kind::none},
      {"ANY 1 (pg-b, other)", "bcd", Kind::none},
      // Without a rule every commit is acknowledged at once.
      {"", "bcd", Kind::none},
      {"ANY (", "bcd", Kind::none},
  };
  for (const auto& row : rows) {
    CAPTURE(row.names);
    CAPTURE(row.up);
    const Seen seen(row.up);
    CHECK(std::string(name_of(seen.means(row.names).kind)) == name_of(row.kind));
    // A rule that was only guessed proves nothing.
    CHECK(seen.means(row.names, false).kind == Kind::none);
  }
}

TEST_CASE("a standby that answers as something else is not one that was frozen") {
  Seen seen("bc");
  seen.facts('c').role = Role::primary;
  CHECK(seen.means("ANY 1 (pg-b, pg-c)").kind == Kind::none);
}

TEST_CASE("the operator's word and the policy come last, and a refusal says the ways out") {
  Seen seen("b");
  seen.facts('a').local_error = "ssh: no route to host";
  CHECK(seen.means("", true, true).kind == Kind::operator_says);
  const auto none = seen.means("");
  CHECK(none.kind == Kind::none);
  CHECK(none.why.find("ssh: no route to host") != std::string::npos);
  REQUIRE(none.ways_out.size() == 2);
  CHECK(none.ways_out[0].find("[hosts.host-pg-a]") != std::string::npos);
  CHECK(none.ways_out[1].find("--assume-fenced") != std::string::npos);
  seen.cluster.policy.require_fence = false;
  CHECK(seen.means("").kind == Kind::policy);
  CHECK(seen.means("", true, true).kind == Kind::operator_says);
  CHECK(Seen("b").means("").why.find("its host was not asked") != std::string::npos);
}

// Only "no primary at all" needs no proof. A name that was not observed may be serving.
TEST_CASE("a primary that was not looked at is not taken for one in recovery") {
  const Seen seen("bcd");
  const auto means = fence_means(seen.cluster, seen.snapshot, "pg-z", "", false, false);
  CHECK(means.kind == Kind::none);
}

TEST_CASE("names of fences are stable: the journal and fence records hold them") {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(Kind::none); ++i)
    names.insert(name_of(static_cast<Kind>(i)));
  CHECK(names == std::set<std::string>{"host", "in_recovery", "quorum", "guard", "operator",
                                       "policy", "none"});
}

}  // namespace
}  // namespace zx::ha
