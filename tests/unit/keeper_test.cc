// What an agent does about a failover that another began, or that it began itself and did not end.
#include <doctest/doctest.h>

#include "lib/ha/pg_heir.h"
#include "lib/ha/pg_keeper.h"
#include "lib/ha/pg_steps.h"
#include "lib/run/journal.h"
#include "tests/support.h"

namespace zx::ha {
namespace {

using coord::Standing;
using pg::Failure;
using pg::Role;

// pg-a and pg-b refuse, pg-c is a standby. Nothing that would change a server but a fence works.
class World final : public PgWorld {
 public:
  explicit World(const std::string& state_dir) {
    config_.platform.state_dir = state_dir;
    cluster_.name = "main";
    cluster_.policy.silent_after = Millis(0);
    for (const char* name : {"pg-a", "pg-b", "pg-c"}) {
      config::PgNode node;
      node.name = name;
      cluster_.nodes.push_back(node);
      pg::NodeFacts facts;
      facts.name = facts.address = name;
      facts.port = 5432;
      facts.failure = Failure::refused;
      snapshot.nodes.push_back(facts);
      pg::LocalFacts local;
      local.is_data_directory = true;
      local.lineage = {"7301", 1, pg::History{}, {}};
      hosts[name] = local;
    }
    answers("pg-c", Role::standby, 1);
  }
  void answers(const std::string& name, Role role, std::uint32_t timeline) {
    for (auto& facts : snapshot.nodes) {
      if (facts.name != name) continue;
      facts.failure = Failure::none;
      facts.role = role;
      facts.lineage = {"7301", timeline, pg::History{}, {}};
      facts.received = facts.flushed = Lsn{1000};
    }
  }

  void streams(const std::string& name, const std::string& from) {
    for (auto& facts : snapshot.nodes)
      if (facts.name == name)
        facts.receiver = pg::Receiver{"streaming", from, 5432, "", Lsn{1000}, 1, Millis(1)};
  }

  pg::Snapshot snapshot;
  std::map<std::string, pg::LocalFacts> hosts;  // that answer
  std::vector<std::string> done;

  const config::Config& config() const override { return config_; }
  const config::PgCluster& cluster() const override { return cluster_; }
  pg::Snapshot observe(const std::vector<std::string>& nodes, Millis) override {
    auto seen = snapshot;
    seen.at = wall_now();
    std::erase_if(seen.nodes, [&](const auto& facts) {
      return !nodes.empty() && std::find(nodes.begin(), nodes.end(), facts.name) == nodes.end();
    });
    return seen;
  }
  Result<Json> on_host_of(const std::string& node, const std::string& op, Json, Millis) override {
    const auto host = hosts.find(node);
    if (host == hosts.end()) return fail(Code::timeout, "host-" + node + " does not answer");
    if (op == "pg-inspect") return pg::to_json(host->second);
    done.push_back(op + " " + node);
    if (op == "pg-fence") host->second.fenced = true;
    return Json::object();
  }
  std::vector<pg::Testimony> ask_around(const std::string&, Millis) override { return {}; }
  bool refuses(const std::string&, int, Millis, Millis) override { return true; }
  Result<pg::CurrentUpstream> current_upstream(const std::string&, Deadline) override {
    return no<pg::CurrentUpstream>("look at");
  }
  Result<pg::Frozen> freeze(const std::string&, Deadline) override {
    return no<pg::Frozen>("freeze");
  }
  Status set_upstream(const std::string&, const std::string&, const std::string&, bool,
                      Deadline) override {
    return no<void>("repoint");
  }
  Result<pg::Receiver> wait_streaming(const std::string&, const std::string&, Deadline) override {
    return no<pg::Receiver>("wait");
  }
  Result<pg::Promoted> promote(const std::string&, const std::function<Status()>&,
                               Deadline) override {
    return no<pg::Promoted>("promote");
  }
  Status write_canary(const std::string&, const std::string&, Deadline) override {
    return no<void>("write");
  }
  Result<std::vector<std::string>> make_slots(const std::string&, const std::vector<std::string>&,
                                              Deadline) override {
    return no<std::vector<std::string>>("make slots");
  }
  Result<std::vector<std::string>> drop_slots(const std::string&, const std::vector<std::string>&,
                                              Deadline) override {
    return no<std::vector<std::string>>("drop slots");
  }
  bool may_set = false;
  Status set_sync_names(const std::string& node, const std::string& names, Deadline) override {
    if (!may_set) return no<void>("set");
    for (auto& facts : snapshot.nodes)
      if (facts.name == node) facts.sync_names = names;
    return {};
  }
  Status checkpoint(const std::string&, Deadline) override { return no<void>("checkpoint"); }

 private:
  template <class T>
  Result<T> no(const char* what) {
    done.emplace_back(what);
    return fail(Code::failed, std::string(what) + " is not for this test");
  }
  config::Config config_;
  config::PgCluster cluster_;
};

struct Lease final : coord::Lease {
  Status check() override { return {}; }
};

class Shared final : public coord::Coordinator {
 public:
  Standing now{Standing::Role::leader, "zx-2", 1, {}};
  coord::Value value;
  std::optional<Error> held;  // the turn is another's

  void set(const WatchRecord& record) { value = {dump_line(to_json(record)), value.version + 1}; }
  [[nodiscard]] WatchRecord record() const { return *watch_record_from(value.text); }

  Standing standing() override { return now; }
  Result<std::unique_ptr<coord::Lease>> lead() override {
    if (now.role != Standing::Role::leader) return fail(Code::locked, "another leads");
    return std::make_unique<Lease>();
  }
  Result<std::unique_ptr<coord::Lease>> take_turn(const std::string&, const std::string&,
                                                  bool) override {
    if (held) return fail(*held);
    return lead();
  }
  Status is_turn_free(const std::string&) override { return {}; }
  void vote(const Json&) override {}
  std::vector<coord::Vote> votes() override { return {}; }
  Result<coord::Value> get(const std::string&) override { return value; }
  Status put(const std::string&, const std::string& text, std::int64_t version) override {
    if (version != value.version) return fail(Code::locked, "changed");
    value = {text, version + 1};
    return {};
  }
  coord::GuardState of_guard;
  Result<coord::GuardState> guard(const std::string&) override { return of_guard; }
  Status bar(const std::string&) override { return {}; }
  Status unbar(const std::string&) override { return {}; }
};

struct Scene {
  test::Directory state;
  World world{state.path()};
  Shared shared;
  PgKeeper keeper{world, shared, "zx-2", "here", {}};
  const std::string id = "20261124T031243-a1f3";

  // A failover from pg-a to pg-b of which these lines are left.
  void killed_run(std::vector<Json> lines) const {
    const Json plan{
        {"command", "failover pg"},
        {"lock", "pg.main"},
        {"context",
         {{"old_primary", "pg-a"}, {"agent", "zx-2"}, {"fence", "host"}, {"after", "r1"}}},
        {"steps",
         {{{"name", "freeze"}, {"action", "pg.freeze"}},
          {{"name", "choose"}, {"action", "pg.choose"}},
          {{"name", "promote"}, {"action", "pg.promote"}},
          {{"name", "check"}, {"action", "pg.check"}}}}};
    lines.front()["at"] = "2026-11-24T03:12:43.120Z";
    lines.front()["plan"] = plan;
    std::string text;
    for (const auto& line : lines) text += dump_line(line) + "\n";
    std::filesystem::create_directories(run::runs_directory(state.path()));
    test::write(run::runs_directory(state.path()) + "/" + id + ".jsonl", text);
  }
  // Right after its promotion.
  void killed_run() const {
    killed_run({Json{{"event", "begin"}}, Json{{"event", "step-start"}, {"step", "choose"}},
                Json{{"event", "step-done"}, {"step", "choose"}, {"seen", {{"candidate", "pg-b"}}}},
                Json{{"event", "step-start"}, {"step", "promote"}},
                Json{{"event", "no-return"}, {"step", "promote"}}});
  }
  void begun_by(const std::string& agent) {
    WatchRecord record;
    record.begun = WatchRecord::Begun{agent, "pg-a", "pg-b", "", wall_now()};
    shared.set(record);
  }
  // pg-a was the primary when it was last seen.
  void knows_pg_a() {
    LastSeen last;
    last.at = wall_now();
    last.primary = "pg-a";
    last.lineage = {"7301", 1, pg::History{}, {}};
    last.flushed = Lsn{1000};
    REQUIRE(write_last_seen(state.path(), "main", last));
  }
  [[nodiscard]] std::optional<std::string> outcome() const {
    return run::read_run(state.path(), id)->outcome;
  }
};

TEST_CASE("a run is overtaken when another failover came after it, whoever is left of that") {
  Scene scene;
  scene.knows_pg_a();
  scene.killed_run();
  WatchRecord record;
  record.last = WatchRecord::Failover{wall_now(), "r1", "pg-c", "pg-a", true};
  SUBCASE("the last one is the one before it") {
    scene.shared.set(record);
    scene.world.hosts["pg-b"].processes = true;
    static_cast<void>(scene.keeper.tick({}));
    CHECK_FALSE(scene.outcome().has_value());
  }
  SUBCASE("another one") {
    record.last->run = "r2";
    scene.shared.set(record);
    static_cast<void>(scene.keeper.tick({}));
    CHECK(scene.outcome() == "superseded");
  }
}

TEST_CASE("a stricter rule is noted once enough standbys have what it was set at") {
  Scene scene;
  auto& world = scene.world;
  const std::string one = "FIRST 1 (\"pg-b\", \"pg-c\")", two = "FIRST 2 (\"pg-b\", \"pg-c\")";
  const auto noted = [&] { return read_last_seen(scene.state.path(), "main")->sync_names; };
  const auto change = [&](const std::string& names) {
    return change_sync_names(world, "pg-a", names, Deadline::after(Millis(100))).has_value();
  };
  world.answers("pg-a", Role::primary, 1);
  for (const char* node : {"pg-b", "pg-c"}) {
    world.answers(node, Role::standby, 1);
    world.streams(node, "pg-a");
  }
  // The first rule before a commit waits for it.
  CHECK_FALSE(change(one));
  CHECK(noted() == one);
  world.may_set = true;
  REQUIRE(change(one));
  world.snapshot.nodes.back().received = Lsn{999};
  REQUIRE(change(two));
  CHECK(noted() == one);
  world.snapshot.nodes.back().received = Lsn{1000};
  REQUIRE(change(one));
  REQUIRE(change(two));
  CHECK(noted() == two);
  // A weaker one is noted before.
  world.may_set = false;
  CHECK_FALSE(change(one));
  CHECK(noted() == one);
}

TEST_CASE("a primary that its own guard stopped gets no time for a planned restart") {
  Scene scene;
  scene.knows_pg_a();
  PgKeeper::Told told;
  told.planned = PlannedStop{"pg-a", "fast", monotonic_now()};
  auto& guard = scene.shared.of_guard;
  guard.ttl = Millis(5000);
  const auto waits = [&] {
    return scene.keeper.tick(told).decision.why.find("was told to stop") != std::string::npos;
  };
  CHECK(waits());
  guard.kind = coord::GuardState::Kind::held;
  CHECK(waits());
  guard.kind = coord::GuardState::Kind::run_out;
  guard.since = Millis(5000);  // and a hundredth
  CHECK(waits());
  guard.since = Millis(5050);
  CHECK_FALSE(waits());
}

TEST_CASE("a run is overtaken when another than its candidate is the primary") {
  Scene scene;
  scene.killed_run();
  scene.world.answers("pg-c", Role::primary, 2);
  static_cast<void>(scene.keeper.tick({}));
  CHECK(scene.outcome() == "superseded");
}

TEST_CASE("a run past its point of no return ends when its candidate is dead for certain") {
  Scene scene;
  scene.knows_pg_a();
  scene.begun_by("zx-2");
  scene.killed_run();
  SUBCASE("it refuses, and does not run on its host") {
    static_cast<void>(scene.keeper.tick({}));
    CHECK(scene.outcome() == "superseded");
    // What it may have done is still known.
    CHECK(scene.shared.record().begun->to == "pg-b");
    static_cast<void>(scene.keeper.tick({}));
    CHECK(scene.world.done.front() == "pg-fence pg-b");
  }
  SUBCASE("it runs there") {
    scene.world.hosts["pg-b"].processes = true;
    static_cast<void>(scene.keeper.tick({}));
    CHECK_FALSE(scene.outcome().has_value());
  }
  SUBCASE("its host does not answer") {
    scene.world.hosts.erase("pg-b");
    static_cast<void>(scene.keeper.tick({}));
    CHECK_FALSE(scene.outcome().has_value());
  }
}

TEST_CASE("whom another agent may have promoted is stopped before anyone is promoted") {
  Scene scene;
  scene.knows_pg_a();
  scene.begun_by("zx-1");
  SUBCASE("on its host") {
    scene.world.hosts["pg-b"].processes = true;
    const auto tick = scene.keeper.tick({});
    CHECK(tick.report->plan.command == "fence pg");
    CHECK(scene.world.done == std::vector<std::string>{"pg-fence pg-b", "pg-stop pg-b"});
  }
  SUBCASE("nothing is done when its host cannot be asked") {
    scene.world.hosts.erase("pg-b");
    const auto tick = scene.keeper.tick({});
    CHECK(tick.error->code == Code::refused);
    CHECK(tick.error->message ==
          "pg-b may be a primary that does not answer, and its host cannot tell: host-pg-b does "
          "not answer");
    CHECK(scene.world.done.empty());
  }
  SUBCASE("nothing is done when another server is in its directory") {
    scene.world.hosts["pg-b"].processes = true;
    scene.world.hosts["pg-b"].port = 6000;
    CHECK(scene.keeper.tick({}).error->code == Code::refused);
    CHECK(scene.world.done.empty());
  }
  SUBCASE("its commits are the ones to keep when it was promoted") {
    scene.world.hosts["pg-b"].fenced = true;
    scene.world.hosts["pg-b"].lineage = {"7301", 2, pg::History{{1, Lsn{900}}}, {}};
    static_cast<void>(scene.keeper.tick({}));
    CHECK(read_last_seen(scene.state.path(), "main")->primary == "pg-b");
  }
}

TEST_CASE("a person's failover heeds whom an agent may have promoted") {
  Scene scene;
  scene.knows_pg_a();
  scene.begun_by("zx-1");
  FailoverOptions options;
  const auto prepare = [&] {
    return prepare_failover_by_hand(scene.world, &scene.shared, options, false, nullptr);
  };
  scene.world.hosts["pg-b"].processes = true;
  SUBCASE("it is to be stopped first") {
    const auto found = prepare();
    REQUIRE(found.has_value());
    CHECK(found->fence_first == "pg-b");
    scene.world.hosts["pg-b"].fenced = true;
    CHECK(prepare()->fence_first.empty());
  }
  SUBCASE("its host cannot tell") {
    scene.world.hosts.erase("pg-b");
    CHECK(prepare().error().code == Code::refused);
    options.assume_fenced = true;
    CHECK(prepare()->fence_first.empty());
  }
  SUBCASE("it was promoted, and the failover is from it") {
    scene.world.hosts["pg-b"].lineage = {"7301", 2, pg::History{{1, Lsn{900}}}, {}};
    const auto found = prepare();
    CHECK(read_last_seen(scene.state.path(), "main")->primary == "pg-b");
    if (found) CHECK(found->prepared.view.verdict.primary == "pg-b");
  }
  SUBCASE("not one who took over and was not seen since") {
    WatchRecord record;
    record.last = WatchRecord::Failover{wall_now(), "r1", "pg-a", "pg-c", false, 5};
    record.owe({"pg-a", "r1", "", wall_now()});
    scene.shared.set(record);
    const auto found = prepare();
    REQUIRE(!found);
    CHECK(found.error().code == Code::refused);
    CHECK(found.error().message.find("pg-a was given up for pg-c in run r1") == 0);
  }
  CHECK(scene.world.done.empty());
}

TEST_CASE("only the leader tells that a begun failover came to nothing, and not by one look") {
  Scene scene;
  scene.world.answers("pg-a", Role::primary, 1);
  scene.world.answers("pg-b", Role::standby, 1);
  scene.begun_by("zx-1");
  scene.shared.now.role = Standing::Role::follower;
  for (int i = 0; i < 3; ++i) static_cast<void>(scene.keeper.tick({}));
  CHECK(scene.shared.record().begun.has_value());
  scene.shared.now.role = Standing::Role::leader;
  static_cast<void>(scene.keeper.tick({}));
  CHECK_FALSE(scene.shared.record().begun.has_value());
  scene.begun_by("zx-3");
  static_cast<void>(scene.keeper.tick({}));
  CHECK(scene.shared.record().begun.has_value());
  static_cast<void>(scene.keeper.tick({}));
  CHECK_FALSE(scene.shared.record().begun.has_value());
}

TEST_CASE("a failover that cannot be taken back does not stay open for ever") {
  Scene scene;
  scene.knows_pg_a();
  scene.killed_run({Json{{"event", "begin"}}, Json{{"event", "step-start"}, {"step", "freeze"}},
                    Json{{"event", "note"},
                         {"step", "freeze"},
                         {"key", "upstreams"},
                         {"data", {{"pg-c", {{"conninfo", "host=pg-a"}, {"slot", ""}}}}}},
                    Json{{"event", "step-failed"}, {"step", "freeze"}},
                    Json{{"event", "undo-start"}, {"step", "freeze"}}});
  // The node that stays away answers this time no more than before.
  CHECK(scene.keeper.tick({}).report->ending == run::Ending::partial);
  CHECK_FALSE(scene.outcome().has_value());
  pause_for(Millis(600));
  CHECK(scene.keeper.tick({}).report->ending == run::Ending::done);
  CHECK(scene.outcome() == "superseded");
}

TEST_CASE("a node that only a rebuild helps is tried once, and a person is told of it") {
  Scene scene;
  scene.world.answers("pg-a", Role::primary, 1);
  scene.world.answers("pg-c", Role::standby, 1);
  scene.world.streams("pg-c", "pg-a");
  scene.world.hosts["pg-b"].interrupted_rewind = true;
  WatchRecord record;
  record.owe({"pg-b", "r1", "", wall_now()});
  scene.shared.set(record);
  CHECK(scene.keeper.tick({}).error->code == Code::refused);
  for (int i = 0; i < 2; ++i) {
    const auto tick = scene.keeper.tick({});
    CHECK(tick.decision.act == Act::none);
    CHECK(tick.decision.is_blocked);
    CHECK(tick.decision.subject == "pg-b");
    CHECK(tick.decision.why.find("zx rejoin pg pg-b --rebuild") != std::string::npos);
  }
  // Someone has started it: that may be a way.
  scene.world.answers("pg-b", Role::standby, 1);
  CHECK_FALSE(scene.keeper.tick({}).decision.is_blocked);
}

TEST_CASE("an agent waits for a person's run as long as it takes, and says so once") {
  test::Directory state;
  World world{state.path()};
  Shared shared;
  std::vector<store::Event> events;
  PgKeeper::Hooks hooks;
  hooks.event = [&](const store::Event& event) { events.push_back(event); };
  PgKeeper keeper(world, shared, "zx-2", "here", hooks);
  world.answers("pg-a", Role::primary, 1);
  world.answers("pg-c", Role::standby, 1);
  world.streams("pg-c", "pg-a");
  WatchRecord record;
  record.owe({"pg-b", "r1", "", wall_now()});
  shared.set(record);
  world.hosts["pg-b"].interrupted_rewind = true;
  shared.held = Error{Code::locked, "zx rejoin pg on host h1 is at work on pg.main", {}, {}, false};
  for (int i = 0; i < 20; ++i) {
    const auto tick = keeper.tick({});
    // Not counted as a failure: it would try later and later.
    REQUIRE(tick.decision.act == Act::rejoin);
    CHECK(tick.error->code == Code::locked);
    CHECK(tick.again <= Millis(500));
  }
  CHECK(std::count_if(events.begin(), events.end(),
                      [](const auto& event) { return event.kind == "waits"; }) == 1);
  shared.held.reset();
  CHECK(keeper.tick({}).error->code == Code::refused);
  CHECK(keeper.tick({}).decision.act == Act::none);
}

TEST_CASE("a successor that is in recovery is whom the next failover is from") {
  Scene scene;
  scene.knows_pg_a();
  scene.world.hosts["pg-a"].fenced = true;
  scene.world.answers("pg-b", Role::standby, 2);
  WatchRecord record;
  record.last =
      WatchRecord::Failover{wall_now() - std::chrono::hours(1), "r1", "pg-a", "pg-b", false, 2};
  record.owe({"pg-a", "r1", "", wall_now()});
  SUBCASE("on the line that it began") {
    scene.shared.set(record);
    CHECK(scene.keeper.tick({}).decision.act == Act::failover);
    CHECK(read_last_seen(scene.state.path(), "main")->primary == "pg-b");
  }
  SUBCASE("not on an earlier one") {
    record.last->timeline = 3;
    scene.shared.set(record);
    CHECK(scene.keeper.tick({}).decision.is_blocked);
  }
  SUBCASE("not when which one it began is not known") {
    record.last->timeline = 0;
    scene.shared.set(record);
    CHECK(scene.keeper.tick({}).decision.is_blocked);
  }
  SUBCASE("not when another is further") {
    scene.world.answers("pg-c", Role::standby, 3);
    scene.shared.set(record);
    CHECK(scene.keeper.tick({}).decision.is_blocked);
  }
}

}  // namespace
}  // namespace zx::ha
