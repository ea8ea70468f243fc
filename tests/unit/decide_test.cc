// From what an agent sees and remembers to what it does next: act, wait, or call for a person.
#include <doctest/doctest.h>

#include "lib/ha/pg_watch.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::NodeFacts;
using pg::Role;

constexpr Lsn kFork{0x5000000};
constexpr Monotonic kStart{std::chrono::hours(100)};
const Wall kMorning = parse_utc("2026-11-24T03:00:00.000Z");

// pg-a was the primary, pg-b and pg-c follow; this agent leads.
struct Scene {
  config::PgCluster cluster;
  pg::Snapshot snapshot;
  PgVerdict verdict;
  WatchRecord record;
  bool leads = true;
  int regions_agree = 1;
  std::optional<run::Record> open;
  std::optional<PlannedStop> planned;
  std::optional<Monotonic> answered;
  Monotonic now = kStart;
  Wall wall = kMorning;
  WatchMemory memory;

  explicit Scene(PgState state = PgState::healthy) {
    cluster.name = "main";
    for (const std::string name : {"pg-a", "pg-b", "pg-c"}) {
      config::PgNode node;
      node.name = name;
      cluster.nodes.push_back(node);
      NodeFacts facts;
      facts.name = name;
      facts.lineage = {"7301", 1, pg::History{}, std::nullopt};
      snapshot.nodes.push_back(facts);
      streams(name);
    }
    is(state);
  }
  NodeFacts& node(const std::string& name) {
    for (auto& facts : snapshot.nodes)
      if (facts.name == name) return facts;
    FAIL("no such node");
    return snapshot.nodes.front();
  }
  void streams(const std::string& name) {
    auto& facts = node(name);
    facts.failure = Failure::none;
    facts.role = Role::standby;
    facts.received = facts.replayed = kFork;
    facts.receiver = pg::Receiver{"streaming", "10.0.0.1", 5432, "", kFork, 1, Millis(1)};
  }
  void answers_as_primary(const std::string& name) {
    auto& facts = node(name);
    facts.failure = Failure::none;
    facts.role = Role::primary;
    facts.receiver.reset();
    facts.written = facts.flushed = kFork;
  }
  void answers_not(const std::string& name) {
    auto& facts = node(name);
    facts.failure = Failure::refused;
    facts.role = Role::unknown;
    facts.receiver.reset();
  }
  void drifts(const std::string& name) { node(name).receiver.reset(); }
  void is(PgState state) {
    verdict.state = state;
    verdict.primary = "pg-a";
    verdict.summary = name_of(state);
    verdict.primaries.clear();
    if (has_live_primary(state)) {
      verdict.primaries = {"pg-a"};
      answers_as_primary("pg-a");
    } else {
      answers_not("pg-a");
    }
  }
  // pg-b is on timeline 2, which began at kFork; pg-a went on along timeline 1.
  void has_two_primaries() {
    is(PgState::two_primaries);
    answers_as_primary("pg-a");
    answers_as_primary("pg-b");
    verdict.primary = "pg-b";
    verdict.primaries = {"pg-a", "pg-b"};
  }
  void owes(const std::string& name) { record.owed.push_back({name, "r1", "", kMorning}); }
  void pass(Millis span) {
    now += span;
    wall += span;
  }
  Decision look() {
    const Sight sight{cluster,       snapshot, verdict, record,   leads, "another acts",
                      regions_agree, open,     planned, answered, now,   wall};
    remember(memory, sight);
    return decide(sight, memory);
  }
};

void check(const Decision& decision, Act act, const std::string& subject) {
  CAPTURE(decision.why);
  CHECK(std::string(name_of(decision.act)) == name_of(act));
  CHECK(decision.subject == subject);
  CHECK_FALSE(decision.is_blocked);
}
// Nothing is done; the reason has these words. Who is to do something is told what to type.
void check_waits(const Decision& decision, const std::string& words, bool is_blocked,
                 const std::string& remedy = {}) {
  CHECK(decision.remedy == remedy);
  CAPTURE(decision.why);
  CHECK(std::string(name_of(decision.act)) == "none");
  CHECK(decision.why.find(words) != std::string::npos);
  CHECK(decision.is_blocked == is_blocked);
}

TEST_CASE("a healthy cluster is left alone without a word") {
  const auto decision = Scene().look();
  CHECK(decision.act == Act::none);
  CHECK(decision.why.empty());
  CHECK_FALSE(decision.is_blocked);
}

TEST_CASE("only a primary that is dead, silent or nowhere calls for a failover") {
  for (const auto state :
       {PgState::healthy, PgState::degraded, PgState::primary_overloaded,
        PgState::primary_unreachable, PgState::primary_starting, PgState::primary_shutting_down,
        PgState::unknown, PgState::two_primaries}) {
    CAPTURE(name_of(state));
    Scene scene(state);
    scene.look();
    scene.pass(std::chrono::hours(1));
    CHECK(scene.look().act != Act::failover);
  }
  for (const auto state : {PgState::primary_dead, PgState::no_primary})
    check(Scene(state).look(), Act::failover, "pg-a");
}

TEST_CASE("nobody acts where automatic is off, and a person is told only by the leader") {
  Scene scene(PgState::primary_dead);
  scene.cluster.policy.automatic = false;
  check_waits(scene.look(), "automatic is off", true, "failover pg --dry-run");
  scene.leads = false;
  check_waits(scene.look(), "automatic is off", false);
  Scene lesser(PgState::degraded);
  lesser.cluster.policy.automatic = false;
  lesser.owes("pg-b");
  lesser.drifts("pg-b");
  check_waits(lesser.look(), "automatic is off", false);
}

TEST_CASE("an agent that does not lead watches and says why") {
  Scene scene(PgState::primary_dead);
  scene.leads = false;
  check_waits(scene.look(), "another acts", false);
}

TEST_CASE("a pause holds everything back, and ends by itself") {
  Scene scene(PgState::primary_dead);
  scene.record.pause = WatchRecord::Pause{"p1", kMorning, Millis(60'000), "new disks"};
  check_waits(scene.look(), "paused for 1m00s more: new disks", true, "agent resume");
  scene.pass(Millis(59'999));
  check_waits(scene.look(), "paused", true, "agent resume");
  scene.pass(Millis(1));
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("a pause that is taken back ends at once, and the next one counts anew") {
  Scene scene(PgState::primary_dead);
  scene.record.pause = WatchRecord::Pause{"p1", kMorning, Millis(60'000), ""};
  check_waits(scene.look(), "paused", true, "agent resume");
  scene.record.pause.reset();
  check(scene.look(), Act::failover, "pg-a");
  scene.pass(Millis(50'000));
  scene.record.pause = WatchRecord::Pause{"p2", scene.wall, Millis(60'000), ""};
  scene.look();
  scene.pass(Millis(59'000));
  check_waits(scene.look(), "paused", true, "agent resume");
}

TEST_CASE("a pause that began before this agent did lasts only as long as is left of it") {
  Scene scene(PgState::primary_dead);
  scene.record.pause =
      WatchRecord::Pause{"p1", kMorning - Millis(50'000), Millis(60'000), "by another"};
  check_waits(scene.look(), "10 s more", true, "agent resume");
  scene.pass(Millis(10'000));
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("a wall clock that jumps an hour ends neither a pause nor the flap window early") {
  for (const auto jump : {std::chrono::hours(1), std::chrono::hours(-1)}) {
    for (const bool is_pause : {true, false}) {
      CAPTURE(jump.count());
      CAPTURE(is_pause);
      Scene scene(PgState::primary_dead);
      scene.cluster.policy.flap_window = Millis(60'000);
      if (is_pause)
        scene.record.pause = WatchRecord::Pause{"p1", kMorning, Millis(60'000), ""};
      else
        scene.record.last = WatchRecord::Failover{kMorning, "r0", "pg-b", "pg-a", false};
      scene.look();
      scene.wall += jump;
      scene.now += Millis(59'999);
      CHECK(scene.look().act == Act::none);
      scene.now += Millis(1);
      check(scene.look(), Act::failover, "pg-a");
    }
  }
}

TEST_CASE("a record from the future by this host's clock lasts its whole span and no longer") {
  Scene scene(PgState::primary_dead);
  scene.cluster.policy.flap_window = Millis(60'000);
  scene.record.last = WatchRecord::Failover{kMorning + std::chrono::hours(1), "r0", "", "", false};
  check_waits(scene.look(), "1m00s more", true, "failover ack");
  scene.pass(Millis(60'000));
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("soon after a failover the next one waits for the window or for a person") {
  Scene scene(PgState::primary_dead);
  scene.record.last = WatchRecord::Failover{kMorning, "r0", "pg-b", "pg-a", false};
  check_waits(scene.look(), "pg-b to pg-a, run r0", true, "failover ack");
  scene.record.last->is_acknowledged = true;
  check(scene.look(), Act::failover, "pg-a");
  // Another failover is not acknowledged by that.
  scene.record.last = WatchRecord::Failover{scene.wall, "r1", "pg-b", "pg-a", false};
  check_waits(scene.look(), "run r1", true, "failover ack");
  scene.pass(scene.cluster.policy.flap_window);
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("after what a person did the next failover waits for nobody") {
  Scene scene(PgState::primary_dead);
  scene.record.last = WatchRecord::Failover{kMorning, "r0", "pg-b", "pg-a", false, 2, true};
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("an agent that missed a failover does not give the old primary up once more") {
  Scene scene(PgState::primary_dead);
  scene.record.last = WatchRecord::Failover{kMorning, "r1", "pg-a", "pg-b", true};
  scene.owes("pg-a");
  check_waits(scene.look(), "pg-a was given up for pg-b in run r1", true, "failover pg --dry-run");
  // Fenced by a run that promoted nobody, or back since: it is the primary that is missed.
  scene.record.last->run = "r0";
  check(scene.look(), Act::failover, "pg-a");
  scene.record.last->run = "r1";
  scene.record.owed.clear();
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("a primary that was told to stop has its grace to come back") {
  Scene scene(PgState::primary_dead);
  scene.planned = PlannedStop{"pg-a", "fast", kStart};
  check_waits(scene.look(), "was told to stop (fast)", false);
  scene.pass(scene.cluster.policy.planned_restart_grace - Millis(1));
  check_waits(scene.look(), "1 ms more", false);
  scene.pass(Millis(1));
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("the grace is of the node that was told, and of one that is gone") {
  Scene other(PgState::primary_dead);
  other.planned = PlannedStop{"pg-b", "immediate", kStart};
  check(other.look(), Act::failover, "pg-a");
  // Frozen, not stopped: the words were of something else.
  Scene frozen(PgState::primary_silent);
  frozen.planned = PlannedStop{"pg-a", "fast", kStart};
  frozen.look();
  frozen.pass(frozen.cluster.policy.silent_after);
  check(frozen.look(), Act::failover, "pg-a");
}

TEST_CASE("silence counts after silent_after, from the last answer when it is known") {
  Scene scene(PgState::primary_silent);
  check_waits(scene.look(), "1.5 s more", false);
  scene.pass(Millis(1499));
  check_waits(scene.look(), "is silent", false);
  scene.pass(Millis(1));
  check(scene.look(), Act::failover, "pg-a");

  Scene known(PgState::primary_silent);
  known.answered = kStart - Millis(1000);
  check_waits(known.look(), "500 ms more", false);
  known.pass(Millis(500));
  check(known.look(), Act::failover, "pg-a");
}

TEST_CASE("a primary that answers in between is silent anew") {
  Scene scene(PgState::primary_silent);
  scene.look();
  scene.pass(Millis(1400));
  scene.is(PgState::healthy);
  scene.look();
  scene.is(PgState::primary_silent);
  scene.pass(Millis(1400));
  check_waits(scene.look(), "1.5 s more", false);
}

TEST_CASE("as many regions as the policy says must see no life in the primary") {
  Scene scene(PgState::primary_dead);
  scene.cluster.policy.observers = 2;
  check_waits(scene.look(), "1 of 2 regions", true, "failover pg --dry-run");
  scene.regions_agree = 2;
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("attempts at a failover wait 0.5 s, doubled up to 30 s, and a success forgets them") {
  Scene scene(PgState::primary_dead);
  for (const int wait : {500, 1000, 2000, 4000, 8000, 16'000, 30'000, 30'000}) {
    CAPTURE(wait);
    const auto decision = scene.look();
    check(decision, Act::failover, "pg-a");
    note_failure(scene.memory, decision.key(), scene.now);
    scene.pass(Millis(wait - 1));
    check_waits(scene.look(), "again in 1 ms", false, wait == 500 ? "" : "failover pg --dry-run");
    scene.pass(Millis(1));
  }
  note_success(scene.memory, "failover");
  note_failure(scene.memory, "failover", scene.now);
  check_waits(scene.look(), "failed once, again in 500 ms", false);
  // The primary came back: the next failover is another matter.
  scene.is(PgState::healthy);
  scene.look();
  scene.is(PgState::primary_dead);
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("attempts at a standby wait 2 s, doubled up to 5 min, however many there were") {
  Scene scene;
  const std::string what = "rejoin pg-b";
  const auto wait = [&] {
    note_failure(scene.memory, what, scene.now);
    return std::chrono::duration_cast<Millis>(scene.memory.tries[what].next - scene.now).count();
  };
  for (const int ms : {2000, 4000, 8000, 16'000, 32'000, 64'000, 128'000, 256'000, 300'000})
    CHECK(wait() == ms);
  for (int i = 0; i < 1000; ++i) CHECK(wait() == 300'000);
  note_failure(scene.memory, "resume r1", scene.now);
  CHECK(scene.memory.tries["resume r1"].next - scene.now == Millis(500));
}

TEST_CASE("what failed while a host was away is tried at once when it is back") {
  Scene scene;
  auto& node = scene.snapshot.nodes[1];
  const std::string what = "rejoin " + node.name;
  const auto fails_as = [&](pg::Failure failure) {
    node.failure = failure;
    scene.look();
  };
  fails_as(pg::Failure::no_answer);
  for (int i = 0; i < 5; ++i) note_failure(scene.memory, what, scene.now);
  fails_as(pg::Failure::no_answer);
  CHECK(scene.memory.tries.contains(what));
  fails_as(pg::Failure::refused);
  CHECK_FALSE(scene.memory.tries.contains(what));
  // What an attempt does to the server itself is no such news.
  note_failure(scene.memory, what, scene.now);
  fails_as(pg::Failure::starting_up);
  fails_as(pg::Failure::refused);
  CHECK(scene.memory.tries.contains(what));
}

// --- runs that were interrupted -------------------------------------------------------------

run::Record run_of(const std::string& command, bool by_agent) {
  run::Record record;
  record.id = "r9";
  record.plan.command = command;
  if (by_agent) record.plan.context["agent"] = "left";
  for (const char* name : {"fence", "promote", "repoint"}) {
    run::Step step;
    step.name = name;
    step.optional = step.name == "repoint";
    record.plan.steps.push_back(step);
  }
  return record;
}
void finish(run::Record& record, const std::string& step) {
  record.steps[step].state = run::StepState::done;
}

TEST_CASE("an unfinished failover is resumed while there is no primary, whoever began it") {
  for (const std::string command : {"failover pg", "switchover pg"})
    for (const bool by_agent : {true, false}) {
      CAPTURE(command);
      CAPTURE(by_agent);
      Scene scene(PgState::primary_dead);
      scene.open = run_of(command, by_agent);
      // Neither the grace nor the flap window is of a failover that was begun.
      scene.planned = PlannedStop{"pg-a", "fast", kStart};
      scene.record.last = WatchRecord::Failover{kMorning, "r0", "pg-b", "pg-a", false};
      check(scene.look(), Act::resume, "r9");
      scene.leads = false;
      check_waits(scene.look(), "another acts", false);
    }
}

TEST_CASE("an unfinished run about a standby does not stand in the way of a failover") {
  Scene scene(PgState::primary_dead);
  scene.open = run_of("rejoin pg", true);
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("with a primary there, an agent's run is resumed and a person's waits for the person") {
  Scene scene(PgState::degraded);
  scene.open = run_of("failover pg", true);
  check(scene.look(), Act::resume, "r9");
  scene.open = run_of("rejoin pg", true);
  check(scene.look(), Act::resume, "r9");
  scene.open = run_of("failover pg", false);
  check_waits(scene.look(), "a person began it", true, "runs resume r9");
  scene.open->no_return = true;
  check(scene.look(), Act::resume, "r9");
  // What a person does to a standby is never taken out of their hands.
  scene.open = run_of("rejoin pg", false);
  scene.open->no_return = true;
  check_waits(scene.look(), "a person began it", true, "runs resume r9");
}

TEST_CASE("a run that has nothing but optional steps left is over") {
  auto run = run_of("failover pg", true);
  CHECK_FALSE(has_only_leftovers(run));
  finish(run, "fence");
  CHECK_FALSE(has_only_leftovers(run));
  run.steps["promote"].state = run::StepState::skipped;
  CHECK(has_only_leftovers(run));
  run.undoing = true;
  CHECK_FALSE(has_only_leftovers(run));
  run.undoing = false;
  run.steps["promote"].state = run::StepState::unknown;
  CHECK_FALSE(has_only_leftovers(run));
  finish(run, "promote");
  Scene scene(PgState::degraded);
  scene.open = run;
  // One that no agent has noted is taken up for the note.
  check(scene.look(), Act::resume, "r9");
  scene.record.last = WatchRecord::Failover{scene.wall, "r9", "pg-b", "pg-a", true};
  CHECK(scene.look().act == Act::none);
  scene.is(PgState::primary_dead);
  check(scene.look(), Act::failover, "pg-a");
}

TEST_CASE("optional steps that a killed run did not come to are done, when they are not old") {
  for (const std::string command : {"failover pg", "switchover pg"})
    for (const bool by_agent : {true, false}) {
      CAPTURE(command);
      CAPTURE(by_agent);
      Scene cut_short(PgState::degraded);
      cut_short.record.last = WatchRecord::Failover{cut_short.wall, "r9", "pg-b", "pg-a", true};
      cut_short.open = run_of(command, by_agent);
      cut_short.open->plan.context["to"] = "pg-a";
      cut_short.open->begun = cut_short.wall - std::chrono::hours(1);
      for (const char* name : {"fence", "promote"}) finish(*cut_short.open, name);
      cut_short.open->steps["promote"].ended = cut_short.wall;
      check(Scene(cut_short).look(), Act::resume, "r9");

      auto begun = cut_short;
      begun.open->steps["repoint"].state = run::StepState::unknown;
      check(begun.look(), Act::resume, "r9");
      auto tried = cut_short;
      tried.open->steps["repoint"].state = run::StepState::failed;
      CHECK(tried.look().act == Act::none);
      auto another = cut_short;
      another.open->plan.context["to"] = "pg-b";
      CHECK(another.look().act == Act::none);
      auto old = cut_short;
      old.pass(std::chrono::minutes(10));
      CHECK(old.look().act == Act::none);
      // A try that failed keeps nothing else waiting.
      auto failed = cut_short;
      note_failure(failed.memory, "resume r9", failed.now);
      failed.owes("pg-b");
      failed.drifts("pg-b");
      check(failed.look(), Act::rejoin, "pg-b");
    }
}

TEST_CASE("a run that cannot be resumed is tried again later and later") {
  Scene scene(PgState::degraded);
  scene.open = run_of("failover pg", true);
  const auto decision = scene.look();
  CHECK(decision.key() == "resume r9");
  note_failure(scene.memory, decision.key(), scene.now);
  check_waits(scene.look(), "resume r9 failed once", false);
  scene.pass(Millis(500));
  check(scene.look(), Act::resume, "r9");
}

// --- nodes that were left behind ------------------------------------------------------------

TEST_CASE("a node that a failover left behind is brought back at once, unless it streams") {
  Scene scene(PgState::degraded);
  scene.owes("pg-b");
  scene.answers_not("pg-b");
  check(scene.look(), Act::rejoin, "pg-b");
  scene.drifts("pg-b");
  check(scene.look(), Act::rejoin, "pg-b");
  scene.streams("pg-b");
  CHECK(scene.look().act == Act::none);
  scene.answers_not("pg-b");
  scene.cluster.policy.rejoin = "rebuild";
  check(scene.look(), Act::rejoin, "pg-b");
  scene.cluster.policy.rejoin = "manual";
  CHECK(scene.look().act == Act::none);
}

TEST_CASE("a standby that is gone and was not left behind by a failover is left to its host") {
  Scene scene(PgState::degraded);
  scene.answers_not("pg-b");
  scene.look();
  scene.pass(std::chrono::hours(1));
  CHECK(scene.look().act == Act::none);
}

TEST_CASE("nobody is brought back to a primary that was given up itself") {
  Scene scene(PgState::degraded);
  scene.owes("pg-a");
  scene.owes("pg-b");
  scene.answers_not("pg-b");
  check_waits(scene.look(), "pg-a accepts writes, but was given up in a failover", true,
              "failover ack");
}

TEST_CASE("of two primaries the one that was given up goes, and without that knowledge none") {
  Scene scene;
  scene.has_two_primaries();
  check_waits(scene.look(), "which one is right is not known", true, "status");
  scene.owes("pg-a");
  check(scene.look(), Act::rejoin, "pg-a");
  scene.cluster.policy.rejoin = "manual";
  check(scene.look(), Act::fence, "pg-a");
  scene.owes("pg-b");
  check_waits(scene.look(), "which one is right is not known", true, "status");
  // A node that is none of the two tells nothing.
  scene.record.owed.clear();
  scene.owes("pg-c");
  check_waits(scene.look(), "which one is right is not known", true, "status");
}

TEST_CASE("of three primaries of which two were given up, these are stopped one after the other") {
  Scene scene;
  scene.has_two_primaries();
  scene.answers_as_primary("pg-c");
  scene.verdict.primaries.push_back("pg-c");
  check_waits(scene.look(), "which one is right is not known", true, "status");
  scene.owes("pg-a");
  scene.owes("pg-b");
  check(scene.look(), Act::fence, "pg-a");
  scene.owes("pg-c");
  check_waits(scene.look(), "which one is right is not known", true, "status");
}

// --- standbys that follow nobody ------------------------------------------------------------

TEST_CASE("a standby that receives from nobody for 6 s is pointed at the primary") {
  Scene scene(PgState::degraded);
  scene.drifts("pg-b");
  CHECK(scene.look().act == Act::none);
  scene.pass(Millis(5999));
  CHECK(scene.look().act == Act::none);
  scene.pass(Millis(1));
  check(scene.look(), Act::repoint, "pg-b");
  // Its walreceiver was back in between.
  scene.streams("pg-b");
  scene.look();
  scene.drifts("pg-b");
  scene.pass(Millis(1));
  CHECK(scene.look().act == Act::none);
}

TEST_CASE("a standby on a later timeline than the primary is left to a person") {
  Scene scene(PgState::degraded);
  scene.drifts("pg-b");
  scene.node("pg-b").lineage = {"7301", 2, pg::History{{1, kFork}}, std::nullopt};
  scene.node("pg-b").received = Lsn{kFork.value + 1};
  scene.look();
  scene.pass(Millis(6000));
  check_waits(scene.look(), "pg-b is on timeline 2", true, "status");
  // Also when it was left behind by a run that promoted another.
  scene.owes("pg-b");
  scene.record.last = WatchRecord::Failover{kMorning, "r1", "pg-a", "pg-c", true};
  check_waits(scene.look(), "pg-b is on timeline 2", true, "status");
  // It was given up for this primary.
  scene.record.last = WatchRecord::Failover{kMorning, "r1", "pg-b", "pg-a", true};
  check(scene.look(), Act::rejoin, "pg-b");
}

TEST_CASE("a standby on a line that ended is brought back, where that is wanted") {
  Scene scene(PgState::degraded);
  scene.drifts("pg-b");
  scene.node("pg-a").lineage = {"7301", 2, pg::History{{1, kFork}}, std::nullopt};
  scene.node("pg-b").received = Lsn{kFork.value + 1};
  scene.look();
  scene.pass(Millis(6000));
  check(scene.look(), Act::rejoin, "pg-b");
  scene.cluster.policy.rejoin = "manual";
  CHECK(scene.look().act == Act::none);
  scene.node("pg-b").received = kFork;
  check(scene.look(), Act::repoint, "pg-b");
}

TEST_CASE("a standby of another cluster, or of unknown descent, is left as it is") {
  for (const bool is_foreign : {true, false}) {
    Scene scene(PgState::degraded);
    scene.drifts("pg-b");
    if (is_foreign)
      scene.node("pg-b").lineage.system_id = "9999";
    else
      scene.node("pg-a").lineage.timeline = scene.node("pg-b").lineage.timeline = 2;
    if (!is_foreign) scene.node("pg-a").lineage.history.reset();
    scene.look();
    scene.pass(Millis(60'000));
    CHECK(scene.look().act == Act::none);
  }
}

TEST_CASE("a standby that keeps failing does not keep the others waiting") {
  Scene scene(PgState::degraded);
  scene.owes("pg-b");
  scene.answers_not("pg-b");
  scene.drifts("pg-c");
  scene.look();
  scene.pass(Millis(6000));
  const auto first = scene.look();
  check(first, Act::rejoin, "pg-b");
  note_failure(scene.memory, first.key(), scene.now);
  const auto second = scene.look();
  check(second, Act::repoint, "pg-c");
  note_failure(scene.memory, second.key(), scene.now);
  CHECK(scene.look().act == Act::none);
  scene.pass(Millis(2000));
  check(scene.look(), Act::rejoin, "pg-b");
}

TEST_CASE("what a failover has reduced is restored when enough standbys are there, and only then") {
  Scene scene;
  scene.record.sync_owed = SyncDebt{"ANY 1 (\"pg-b\", \"pg-c\")", "", "r7"};
  scene.answers_not("pg-b");
  scene.drifts("pg-c");
  CHECK(scene.look().act == Act::none);
  scene.streams("pg-c");
  check(scene.look(), Act::sync, "pg-a");
  SUBCASE("not one that is far behind: commits would wait for it") {
    scene.node("pg-c").received = scene.node("pg-c").replayed = Lsn{1};
    CHECK(scene.look().act == Act::none);
  }
  SUBCASE("not a standby that the rule does not name") {
    scene.record.sync_owed->wanted = "ANY 1 (\"pg-b\")";
    CHECK(scene.look().act == Act::none);
  }
  SUBCASE("not by one that does not lead") {
    scene.leads = false;
    CHECK(scene.look().act == Act::none);
  }
  SUBCASE("what somebody has set since is only forgotten, whoever is there") {
    scene.node("pg-a").sync_names = "pg-c";
    scene.answers_not("pg-c");
    check(scene.look(), Act::sync, "pg-a");
  }
  SUBCASE("a failed attempt waits") {
    note_failure(scene.memory, scene.look().key(), scene.now);
    CHECK(scene.look().act == Act::none);
    scene.pass(Millis(2000));
    check(scene.look(), Act::sync, "pg-a");
  }
}

TEST_CASE("every act has a name and a key of its own subject") {
  const std::pair<Act, const char*> names[] = {{Act::none, "none"},     {Act::failover, "failover"},
                                               {Act::resume, "resume"}, {Act::repoint, "repoint"},
                                               {Act::rejoin, "rejoin"}, {Act::fence, "fence"},
                                               {Act::sync, "sync"}};
  for (const auto& [act, name] : names) CHECK(std::string(name_of(act)) == name);
  CHECK(Decision{Act::failover, "pg-a", "", false}.key() == "failover");
  CHECK(Decision{Act::rejoin, "pg-a", "", false}.key() == "rejoin pg-a");
}

}  // namespace
}  // namespace zx::ha
