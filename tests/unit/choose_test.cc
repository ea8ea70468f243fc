// Who becomes the primary, who does not and why, and what would be lost.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/ha/pg_choose.h"
#include "tests/support.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::NodeFacts;
using pg::Role;
using Fate = Candidate::Fate;

constexpr std::uint64_t kMiB = 1 << 20;
constexpr Lsn kEnd{100 * kMiB};

// pg-a was the primary and does not answer; pg-b and pg-c have all it had when last seen.
struct Seen {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  std::optional<LastSeen> last;
  ChooseOptions options;

  Seen() {
    cluster.name = "main";
    snapshot.at = Wall{} + Millis(1'000'000);
    add(Failure::refused, Role::unknown);
    standby(kEnd);
    standby(kEnd);
    last.emplace();
    last->at = snapshot.at - Millis(3000);
    last->primary = "pg-a";
    last->flushed = kEnd;
    last->lineage = {"7301", 1, pg::History{}, std::nullopt};
  }
  NodeFacts& add(Failure failure, Role role) {
    NodeFacts facts;
    facts.name = std::string("pg-") + static_cast<char>('a' + snapshot.nodes.size());
    facts.failure = failure;
    facts.role = role;
    if (failure == Failure::none) facts.lineage = {"7301", 1, pg::History{}, std::nullopt};
    config::PgNode node;
    node.name = facts.name;
    cluster.nodes.push_back(node);
    return snapshot.nodes.emplace_back(std::move(facts));
  }
  NodeFacts& standby(Lsn at) {
    auto& facts = add(Failure::none, Role::standby);
    facts.received = facts.replayed = at;
    return facts;
  }
  NodeFacts& facts(const std::string& name) {
    return *std::find_if(snapshot.nodes.begin(), snapshot.nodes.end(),
                         [&](const auto& node) { return node.name == name; });
  }
  config::PgNode& node(const std::string& name) {
    return *std::find_if(cluster.nodes.begin(), cluster.nodes.end(),
                         [&](const auto& one) { return one.name == name; });
  }
  void at(const std::string& name, std::uint64_t position) {
    facts(name).received = facts(name).replayed = Lsn{position};
  }
  void wal_end(std::uint64_t position) {
    facts("pg-a").local.emplace();
    facts("pg-a").local->is_data_directory = true;
    facts("pg-a").local->wal_end = Lsn{position};
  }
  [[nodiscard]] Choice choice() const { return choose(cluster, snapshot, "pg-a", last, options); }
};

const Candidate& of(const Choice& choice, const std::string& name) {
  for (const auto& candidate : choice.candidates)
    if (candidate.node == name) return candidate;
  FAIL("not a candidate: " << name);
  return choice.candidates.front();
}

std::string why(const Choice& choice, const std::string& name) {
  std::string all;
  for (const auto& reason : of(choice, name).reasons) all += reason + "; ";
  return all;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void check_none(const Choice& choice) {
  CHECK(choice.promote.empty());
  REQUIRE(choice.refusal.has_value());
  CHECK(choice.refusal->code == Code::refused);
  CHECK_FALSE(choice.refusal->hint.empty());
  CHECK(choice.refusal->trail.size() == choice.candidates.size());
}

// pg-c may be the one that acknowledged, were commits synchronous.
TEST_CASE("of a primary that was never seen no other node is given up unasked") {
  Seen seen;
  seen.last.reset();
  for (const char* name : {"pg-b", "pg-c"})
    seen.facts(name).receiver = pg::Receiver{"streaming", "10.0.0.1", 5432, "", kEnd, 1, Millis(1)};
  CHECK(seen.choice().promote == "pg-b");
  seen.facts("pg-c").failure = Failure::no_answer;
  check_none(seen.choice());
  CHECK(has(why(seen.choice(), "pg-b"), "acknowledged by pg-c alone"));
  seen.options.allow_loss = kMiB;
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("an idle primary loses nothing and the first in the file takes over") {
  const auto choice = Seen().choice();
  CHECK(choice.promote == "pg-b");
  CHECK(choice.lost == 0);
  CHECK_FALSE(choice.refusal.has_value());
  CHECK(choice.candidates.size() == 2);
  CHECK(of(choice, "pg-b").fate == Fate::promote);
  CHECK(of(choice, "pg-c").fate == Fate::follow);
  CHECK(has(why(choice, "pg-c"), "pg-b comes first in zx.toml"));
  CHECK(choice.reference.known);
  CHECK_FALSE(choice.reference.exact);
  CHECK(has(choice.reference.source, "3 s ago"));
}

TEST_CASE("position goes first, then sync, then priority, then the order of the file") {
  Seen seen;
  seen.node("pg-b").priority = 10;
  seen.node("pg-c").priority = 200;
  seen.at("pg-b", kEnd.value - 1);
  CHECK(seen.choice().promote == "pg-c");
  seen.at("pg-c", kEnd.value - 2);
  auto choice = seen.choice();
  CHECK(choice.promote == "pg-b");
  CHECK(has(why(choice, "pg-c"), "1 B behind pg-b"));

  seen.at("pg-c", kEnd.value - 1);
  choice = seen.choice();
  CHECK(choice.promote == "pg-c");
  CHECK(has(why(choice, "pg-b"), "priority 10 is lower"));

  // As far: the synchronous one, against its lower priority.
  seen.last->sync_names = "FIRST 1 (\"PG-B\")";
  choice = seen.choice();
  CHECK(choice.promote == "pg-b");
  CHECK(has(why(choice, "pg-b"), "synchronous"));
  CHECK(has(why(choice, "pg-c"), "pg-b is synchronous"));
}

TEST_CASE("position is what was received or replayed, whichever is further") {
  Seen seen;
  seen.at("pg-b", kEnd.value - 100);
  // Restarted without streaming: nothing received since.
  seen.facts("pg-c").received.reset();
  seen.facts("pg-c").replayed = Lsn{kEnd.value - 50};
  CHECK(seen.choice().promote == "pg-c");
  seen.facts("pg-b").received = Lsn{kEnd.value - 10};
  auto choice = seen.choice();
  CHECK(choice.promote == "pg-b");
  CHECK(of(choice, "pg-b").position == Lsn{kEnd.value - 10});
  CHECK(of(choice, "pg-b").lost == 10);
  CHECK(choice.lost == 10);
}

TEST_CASE("every rule that excludes says so, and all of them are named") {
  const auto reason_after = [](const std::function<void(Seen&)>& change) {
    Seen seen;
    change(seen);
    const auto choice = seen.choice();
    CHECK(choice.promote == "pg-c");
    CHECK(of(choice, "pg-b").fate != Fate::promote);
    return why(choice, "pg-b");
  };
  CHECK(has(reason_after([](Seen& s) { s.node("pg-b").nofailover = true; }), "nofailover is set"));
  CHECK(has(reason_after([](Seen& s) { s.node("pg-b").priority = 0; }), "priority 0"));
  CHECK(has(reason_after([](Seen& s) { s.options.to = "pg-c"; }), "--to names pg-c"));
  CHECK(has(reason_after([](Seen& s) { s.at("pg-b", kEnd.value - 17 * kMiB); }),
            "17 MiB behind, more than max_lag 16 MiB"));
  CHECK(has(reason_after([](Seen& s) { s.facts("pg-b").lineage.system_id = "9"; }),
            "system identifier"));
  CHECK(has(reason_after([](Seen& s) {
              s.facts("pg-b").lineage = {"7301", 2, pg::History{{1, Lsn{kMiB}}}, std::nullopt};
            }),
            "diverged"));
  CHECK(has(reason_after([](Seen& s) { s.facts("pg-b").lineage.timeline = 0; }),
            "its lineage cannot be compared"));
  CHECK(has(reason_after([](Seen& s) { s.facts("pg-b").failure = Failure::silent; }),
            pg::says(Failure::silent)));
  CHECK(has(reason_after([](Seen& s) { s.facts("pg-b").role = Role::primary; }), "not a standby"));
  CHECK(has(reason_after([](Seen& s) { s.snapshot.nodes.erase(s.snapshot.nodes.begin() + 1); }),
            "not asked"));
  const auto many = reason_after([](Seen& s) {
    s.node("pg-b").nofailover = true;
    s.node("pg-b").priority = 0;
    s.at("pg-b", 1);
  });
  CHECK((has(many, "nofailover") && has(many, "priority 0") && has(many, "max_lag")));
}

TEST_CASE("what happens to those that are not promoted") {
  Seen seen;
  seen.node("pg-b").nofailover = true;        // as far: it follows
  seen.standby(Lsn{kEnd.value - 20 * kMiB});  // pg-d, far behind: it follows
  seen.standby(Lsn{kEnd.value + 8});          // pg-e, ahead and not to be promoted
  seen.node("pg-e").nofailover = true;
  auto& forked = seen.standby(kEnd);  // pg-f
  forked.lineage = {"7301", 2, pg::History{{1, Lsn{kMiB}}}, std::nullopt};
  seen.add(Failure::refused, Role::unknown);  // pg-g
  const auto choice = seen.choice();
  CHECK(choice.promote == "pg-c");
  CHECK(of(choice, "pg-b").fate == Fate::follow);
  CHECK(of(choice, "pg-d").fate == Fate::follow);
  CHECK(of(choice, "pg-e").fate == Fate::rejoin);
  CHECK(has(why(choice, "pg-e"), "8 B ahead of pg-c"));
  CHECK(of(choice, "pg-f").fate == Fate::rejoin);
  CHECK(of(choice, "pg-g").fate == Fate::down);
  CHECK(choice.candidates.front().node == "pg-c");
  CHECK(choice.candidates.back().node == "pg-g");
  CHECK(choice.lost == 8);
}

TEST_CASE("when none may be promoted each node's reasons are in the refusal") {
  Seen seen;
  seen.node("pg-b").nofailover = true;
  seen.facts("pg-c").failure = Failure::no_answer;
  const auto choice = seen.choice();
  check_none(choice);
  CHECK(has(choice.refusal->trail[0], "pg-b: nofailover is set"));
  CHECK(has(choice.refusal->trail[1], "pg-c: "));

  Seen alone;
  alone.snapshot.nodes.resize(1);
  alone.cluster.nodes.resize(1);
  const auto none = alone.choice();
  check_none(none);
  CHECK(none.refusal->hint == "there is no standby");
}

TEST_CASE("max_lag is the most that may be lost, unless --allow-data-loss says otherwise") {
  Seen seen;
  const auto lag = [&](std::uint64_t bytes) {
    seen.at("pg-b", kEnd.value - bytes);
    seen.at("pg-c", kEnd.value - bytes);
  };
  lag(16 * kMiB);
  CHECK(seen.choice().promote == "pg-b");
  CHECK(seen.choice().lost == 16 * kMiB);
  lag(16 * kMiB + 1);
  check_none(seen.choice());
  seen.options.allow_loss = 16 * kMiB + 1;
  CHECK(seen.choice().promote == "pg-b");
  seen.options.allow_loss = 16 * kMiB;
  check_none(seen.choice());
  // Less than the policy's bound, too.
  lag(1);
  seen.options.allow_loss = 0;
  check_none(seen.choice());
  seen.options.allow_loss.reset();
  seen.cluster.policy.max_lag = 0;
  check_none(seen.choice());
  lag(0);
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("--to takes that node or none") {
  Seen seen;
  seen.options.to = "pg-c";
  seen.at("pg-c", kEnd.value - kMiB);
  auto choice = seen.choice();
  CHECK(choice.promote == "pg-c");
  CHECK(choice.lost == kMiB);
  // The one left behind is ahead now and would have to be rewound.
  CHECK(of(choice, "pg-b").fate == Fate::rejoin);
  seen.node("pg-c").nofailover = true;
  check_none(seen.choice());
}

TEST_CASE("the reference is the old primary's own WAL, then its answer, then the last look") {
  Seen seen;
  const auto reference = [&] { return reference_of(seen.snapshot, "pg-a", seen.last); };
  CHECK(reference().end == kEnd);
  seen.last->flushed = Lsn{7};
  CHECK(reference().end == kEnd);  // what a standby has, the primary had
  CHECK(reference().known);
  seen.facts("pg-c").receiver =
      pg::Receiver{"streaming", "10.0.0.1", 5432, "", Lsn{kEnd.value + 5}, 1, Millis(1)};
  CHECK(reference().end == Lsn{kEnd.value + 5});  // and what it was told of
  // Its WAL ends before what it has sent: that is not all that it had.
  seen.wal_end(kEnd.value + 4);
  CHECK_FALSE(reference().exact);
  CHECK(reference().end == Lsn{kEnd.value + 5});
  seen.wal_end(kEnd.value + 5);
  CHECK(reference().exact);
  CHECK(reference().end == Lsn{kEnd.value + 5});
  seen.last->flushed = Lsn{kEnd.value + 6};  // nor what was seen of it
  CHECK_FALSE(reference().exact);
  CHECK(reference().end == Lsn{kEnd.value + 6});
  seen.last->flushed = Lsn{7};
  seen.facts("pg-a").local.reset();
  seen.facts("pg-a").failure = Failure::none;
  seen.facts("pg-a").role = Role::primary;
  seen.facts("pg-a").flushed = Lsn{kEnd.value + 9};
  CHECK(reference().end == Lsn{kEnd.value + 9});
  CHECK(reference().known);
  CHECK_FALSE(reference().exact);
}

TEST_CASE("a primary never seen from here has no known end unless a standby still receives") {
  Seen seen;
  seen.last.reset();
  check_none(seen.choice());
  CHECK_FALSE(seen.choice().reference.known);
  CHECK(has(why(seen.choice(), "pg-b"), "how far it is behind is not known"));
  seen.options.allow_loss = 0;  // what is not known may be more than nothing
  check_none(seen.choice());
  seen.options.allow_loss = 1;
  CHECK(seen.choice().promote == "pg-b");

  seen.options.allow_loss.reset();
  seen.last.emplace();
  seen.last->primary = "pg-z";  // another one's past is no knowledge of this one
  seen.last->flushed = kEnd;
  check_none(seen.choice());

  seen.last.reset();
  seen.facts("pg-b").receiver = pg::Receiver{"streaming", "x", 5432, "", kEnd, 1, Millis(1)};
  CHECK(seen.choice().promote == "pg-b");
  seen.facts("pg-b").receiver.reset();
  seen.wal_end(kEnd.value);
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("what was known before the freeze holds after it") {
  Seen seen;
  seen.last.reset();
  seen.options.prior = Reference{Lsn{kEnd.value + 100}, false, true, "what pg-b has of it"};
  auto choice = seen.choice();
  CHECK(choice.promote == "pg-b");
  CHECK(choice.lost == 100);
  CHECK(choice.reference.source == "what pg-b has of it");
  // More arrived between the look and the freeze.
  seen.options.prior->end = Lsn{kEnd.value - 100};
  choice = seen.choice();
  CHECK(choice.promote == "pg-b");
  CHECK(choice.lost == 0);
  seen.options.prior->known = false;
  check_none(seen.choice());
  // Its own WAL beats all that was thought.
  seen.options.prior = Reference{Lsn{kEnd.value + 100 * kMiB}, false, true, "guessed"};
  seen.wal_end(kEnd.value);
  CHECK(seen.choice().lost == 0);
}

TEST_CASE("a fork is seen against the old primary's line as known from files or the last look") {
  Seen seen;
  const pg::Lineage second{"7301", 2, pg::History{{1, Lsn{kMiB}}}, std::nullopt};
  seen.last->lineage = second;
  // Both are still on timeline 1, beyond where the old primary left it.
  check_none(seen.choice());
  seen.facts("pg-c").lineage = second;
  CHECK(seen.choice().promote == "pg-c");
  CHECK(of(seen.choice(), "pg-b").fate == Fate::rejoin);
  // Its own files know better than the last look.
  seen.facts("pg-a").local.emplace();
  seen.facts("pg-a").local->is_data_directory = true;
  seen.facts("pg-a").local->lineage = {"7301", 1, pg::History{}, std::nullopt};
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("when the line is not known, standbys that disagree are not chosen between") {
  Seen seen;
  seen.last.reset();
  seen.options.allow_loss = kMiB;
  seen.facts("pg-c").lineage = {"7301", 2, pg::History{{1, Lsn{kMiB}}}, std::nullopt};
  const auto choice = seen.choice();
  check_none(choice);
  CHECK(has(why(choice, "pg-b"), "pg-c are of different lines"));
  // An ancestor that can follow does not disagree.
  seen.facts("pg-c").lineage.history = pg::History{{1, kEnd}};
  seen.at("pg-c", kEnd.value + 100);
  CHECK(seen.choice().promote == "pg-c");
}

TEST_CASE("a paused replay does not exclude, and is said") {
  Seen seen;
  seen.facts("pg-b").replay_paused = true;
  CHECK(has(why(seen.choice(), "pg-b"), "replay is paused"));
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("an old primary that came back as a standby stands for election too") {
  Seen seen;
  auto& old = seen.facts("pg-a");
  old.failure = Failure::none;
  old.role = Role::standby;
  old.lineage = {"7301", 1, pg::History{}, std::nullopt};
  old.received = old.replayed = Lsn{kEnd.value + 5};
  const auto choice = seen.choice();
  CHECK(choice.promote == "pg-a");
  CHECK(choice.candidates.size() == 3);
  CHECK(choice.lost == 0);
}

TEST_CASE("require_sync takes only what is known to have been synchronous") {
  Seen seen;
  seen.cluster.policy.require_sync = true;
  check_none(seen.choice());
  CHECK(has(why(seen.choice(), "pg-b"), "the old primary was asynchronous"));
  seen.last->sync_names = "ANY 1 (pg-b, pg-c)";
  CHECK(seen.choice().promote == "pg-b");
  seen.last.reset();
  check_none(seen.choice());
  CHECK(has(why(seen.choice(), "pg-b"), "is not known"));
  // With its whole WAL read there is nothing left to be lost.
  seen.wal_end(kEnd.value);
  CHECK(seen.choice().promote == "pg-b");
  seen.wal_end(kEnd.value + 1);
  check_none(seen.choice());
}

TEST_CASE("synchronous_standby_names of its own files beats what was last seen") {
  Seen seen;
  seen.last->sync_names = "ANY 1 (pg-b)";
  CHECK(seen.choice().sync_known);
  CHECK(seen.choice().sync_names == "ANY 1 (pg-b)");
  seen.facts("pg-a").local.emplace();
  seen.facts("pg-a").local->sync_names_known = true;
  seen.facts("pg-a").local->sync_names = "ANY 2 (pg-b, pg-c)";
  CHECK(seen.choice().sync_names == "ANY 2 (pg-b, pg-c)");
  seen.facts("pg-a").local.reset();
  seen.last->primary = "pg-z";
  CHECK_FALSE(seen.choice().sync_known);
}

TEST_CASE("a candidate that may lack acknowledged commits is excluded, unless loss is accepted") {
  Seen seen;
  seen.last->sync_names = "FIRST 1 (pg-c)";
  seen.facts("pg-c").failure = Failure::no_answer;
  check_none(seen.choice());
  CHECK(has(why(seen.choice(), "pg-b"), "acknowledged commits may be only on pg-c"));
  seen.options.allow_loss = 0;
  check_none(seen.choice());
  seen.options.allow_loss = 1;
  CHECK(seen.choice().promote == "pg-b");
  CHECK(has(why(seen.choice(), "pg-b"), "accepted by --allow-data-loss"));
  // The old primary's WAL says that nothing is missing.
  seen.options.allow_loss.reset();
  seen.wal_end(kEnd.value);
  CHECK(seen.choice().promote == "pg-b");
}

// "Whatever a standby has, the primary had" holds for its own line only.
TEST_CASE("a standby of another cluster or line says nothing about how far the primary was") {
  Seen foreign;
  foreign.facts("pg-b").lineage.system_id = "9";
  foreign.at("pg-b", 900 * kMiB);
  CHECK(foreign.choice().promote == "pg-c");
  CHECK(foreign.choice().lost == 0);
  Seen forked;
  forked.facts("pg-b").lineage = {"7301", 2, pg::History{{1, Lsn{kMiB}}}, std::nullopt};
  forked.at("pg-b", 900 * kMiB);
  CHECK(forked.choice().promote == "pg-c");
  CHECK(forked.choice().lost == 0);
}

TEST_CASE("one that a failover left behind is not taken when commits before it were synchronous") {
  Seen seen;
  seen.last->lineage = {"7301", 2, pg::History{{1, Lsn{kEnd.value - 100}}}, std::nullopt};
  seen.at("pg-b", kEnd.value - 200);
  seen.at("pg-c", kEnd.value - 200);
  CHECK(seen.choice().promote == "pg-b");
  seen.last->was_sync = true;
  CHECK(seen.choice().promote.empty());
  seen.options.allow_loss = 1000;
  CHECK(seen.choice().promote == "pg-b");
}

TEST_CASE("that commits were synchronous is remembered across a promotion") {
  test::Directory state;
  LastSeen seen;
  seen.primary = "pg-a";
  seen.lineage = {"7301", 1, pg::History{}, std::nullopt};
  seen.sync_names = "ANY 1 (x)";
  REQUIRE(write_last_seen(state.path(), "main", seen));
  CHECK_FALSE(read_last_seen(state.path(), "main")->was_sync);
  seen.sync_names.clear();
  seen.lineage.timeline = 2;
  for (int i = 0; i < 2; ++i) {
    REQUIRE(write_last_seen(state.path(), "main", seen));
    CHECK(read_last_seen(state.path(), "main")->was_sync);
  }
}

TEST_CASE("names of fates are stable") {
  CHECK(std::string(name_of(Fate::promote)) == "promote");
  CHECK(std::string(name_of(Fate::follow)) == "follow");
  CHECK(std::string(name_of(Fate::rejoin)) == "rejoin");
  CHECK(std::string(name_of(Fate::down)) == "down");
  CHECK(std::string(name_of(Fate::excluded)) == "excluded");
}

}  // namespace
}  // namespace zx::ha
