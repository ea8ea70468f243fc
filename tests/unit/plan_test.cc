// From a decision to ordered steps, and a plan through JSON and back.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/ha/pg_plan.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::Role;
using Kind = FenceMeans::Kind;
using Names = std::vector<std::string>;

struct Seen {
  config::PgCluster cluster;
  pg::Snapshot snapshot;

  Seen() {
    cluster.name = "main";
    add("pg-a", Failure::refused, Role::unknown);
    add("pg-b", Failure::none, Role::standby);
    add("pg-c", Failure::none, Role::standby);
  }
  pg::NodeFacts& add(const std::string& name, Failure failure, Role role) {
    config::PgNode node;
    node.name = name;
    cluster.nodes.push_back(node);
    pg::NodeFacts facts;
    facts.name = name;
    facts.failure = failure;
    facts.role = role;
    return snapshot.nodes.emplace_back(std::move(facts));
  }
  [[nodiscard]] run::Plan failover(Kind kind, const ChooseOptions& options = {}) const {
    PgVerdict verdict;
    verdict.state = PgState::primary_dead;
    verdict.primary = "pg-a";
    Choice choice;
    choice.promote = "pg-b";
    choice.reference = {Lsn{0x3000028}, true, true, "read from its WAL on its host"};
    choice.sync_names = "ANY 1 (pg-b, pg-c)";
    choice.sync_known = true;
    return plan_failover(cluster, snapshot, verdict, choice, {kind, "the proof", {}}, options);
  }
};

Names names_of(const run::Plan& plan) {
  Names names;
  for (const auto& step : plan.steps) names.push_back(step.name);
  return names;
}

const run::Step& step_of(const run::Plan& plan, const std::string& name) {
  const auto found = std::find_if(plan.steps.begin(), plan.steps.end(),
                                  [&](const auto& step) { return step.name == name; });
  REQUIRE_MESSAGE(found != plan.steps.end(), name);
  return *found;
}

// What is true of every plan.
void check_form(const run::Plan& plan) {
  CHECK(plan.lock == "pg.main");
  CHECK_FALSE(plan.summary.empty());
  auto names = names_of(plan);
  std::sort(names.begin(), names.end());
  CHECK(std::adjacent_find(names.begin(), names.end()) == names.end());
  for (const auto& step : plan.steps) {
    CAPTURE(step.name);
    CHECK(step.action.starts_with("pg."));
    CHECK_FALSE(step.why.empty());
    CHECK(step.deadline > Millis(0));
  }
  const auto json = parse_json(dump_line(to_json(plan)), "it");
  REQUIRE(json.has_value());
  const auto back = run::plan_from_json(*json);
  REQUIRE(back.has_value());
  CHECK(dump_line(to_json(*back)) == dump_line(to_json(plan)));
}

TEST_CASE("a failover freezes, chooses, fences and only then promotes") {
  const auto plan = Seen().failover(Kind::host);
  check_form(plan);
  CHECK(plan.command == "failover pg");
  CHECK(names_of(plan) == Names{"freeze", "choose", "fence", "rule", "promote", "check", "slots",
                                "repoint", "sync", "seal", "receipt"});
  CHECK(step_of(plan, "freeze").subject == "pg-b, pg-c");
  CHECK(step_of(plan, "freeze").args["nodes"] == Json{"pg-b", "pg-c"});
  CHECK(step_of(plan, "fence").subject == "pg-a");
  CHECK(step_of(plan, "promote").subject == "pg-b");
  CHECK(step_of(plan, "repoint").subject == "pg-c");
}

TEST_CASE("up to the check every step of a failover must succeed, afterwards none must") {
  const auto plan = Seen().failover(Kind::quorum);
  bool is_over = false;
  for (const auto& step : plan.steps) {
    CAPTURE(step.name);
    CHECK(step.optional == is_over);
    if (step.name == "check") is_over = true;
  }
  CHECK(is_over);
}

TEST_CASE("a failover without a proof of its own says what proves that the old one is gone") {
  for (const auto kind : {Kind::quorum, Kind::operator_says, Kind::policy}) {
    const auto plan = Seen().failover(kind);
    CAPTURE(std::string(name_of(kind)));
    CHECK(step_of(plan, "fence").why == "the proof");
    CHECK(get_string(plan.context, "fence") == name_of(kind));
    check_form(plan);
  }
}

TEST_CASE("a node in recovery is frozen like the others and needs no fence") {
  Seen seen;
  seen.snapshot.nodes[0].failure = Failure::none;
  seen.snapshot.nodes[0].role = Role::standby;
  const auto plan = seen.failover(Kind::in_recovery);
  check_form(plan);
  CHECK(names_of(plan) == Names{"freeze", "choose", "rule", "promote", "check", "slots", "repoint",
                                "sync", "seal", "receipt"});
  CHECK(step_of(plan, "freeze").args["nodes"] == Json{"pg-b", "pg-c", "pg-a"});
  CHECK(step_of(plan, "repoint").subject == "pg-c, pg-a");
}

TEST_CASE("the only standby has nobody to repoint") {
  Seen seen;
  seen.snapshot.nodes[2].failure = Failure::no_answer;
  const auto plan = seen.failover(Kind::host);
  check_form(plan);
  CHECK(names_of(plan) == Names{"freeze", "choose", "fence", "rule", "promote", "check", "slots",
                                "sync", "seal", "receipt"});
  CHECK(step_of(plan, "freeze").args["nodes"] == Json{"pg-b"});
}

TEST_CASE("a failover's context has what a resumed run needs") {
  Seen seen;
  seen.snapshot.nodes[0].local.emplace();
  seen.snapshot.nodes[0].local->processes = true;
  seen.snapshot.nodes[0].local->wal_end = Lsn{0x3000028};
  ChooseOptions options;
  options.to = "pg-b";
  options.allow_loss = 4096;
  const auto plan = seen.failover(Kind::host, options);
  check_form(plan);
  CHECK(get_string(plan.context, "cluster") == "main");
  CHECK(get_string(plan.context, "old_primary") == "pg-a");
  CHECK(get_string(plan.context, "verdict") == "primary_dead");
  CHECK(get_string(plan.context, "to") == "pg-b");
  CHECK(get_int(plan.context, "allow_loss") == 4096);
  CHECK(get_string(plan.context, "sync_names") == "ANY 1 (pg-b, pg-c)");
  CHECK(get_bool(plan.context, "sync_known"));
  const auto& reference = get_object(plan.context, "reference");
  CHECK(get_string(reference, "end") == "0/3000028");
  CHECK(get_bool(reference, "exact"));
  const auto local = pg::local_from_json(get_object(plan.context, "old_local"));
  CHECK(local.processes);
  CHECK(local.wal_end == Lsn{0x3000028});
  CHECK(get_object(Seen().failover(Kind::host).context, "allow_loss").is_null());
}

TEST_CASE("deadlines are those of the policy") {
  Seen seen;
  seen.cluster.policy.fence_deadline = Millis(111);
  seen.cluster.policy.promote_deadline = Millis(222);
  seen.cluster.policy.catchup_deadline = Millis(333);
  seen.cluster.policy.stop_deadline = Millis(444);
  seen.cluster.policy.rebuild_deadline = Millis(555);
  const auto failover = seen.failover(Kind::host);
  CHECK(step_of(failover, "fence").deadline == Millis(111));
  CHECK(step_of(failover, "promote").deadline == Millis(222));
  CHECK(step_of(failover, "repoint").deadline == Millis(333));
  const auto switchover = plan_switchover(seen.cluster, seen.snapshot, "pg-a", "pg-b");
  CHECK(step_of(switchover, "stop").deadline == Millis(444));
  CHECK(step_of(switchover, "catch up").deadline == Millis(333));
  const auto rejoin = plan_rejoin(seen.cluster, {"pg-a", "pg-b", false, false});
  CHECK(step_of(rejoin, "fence").deadline == Millis(555));
  CHECK(step_of(rejoin, "rewind").deadline == Millis(555));
}

TEST_CASE("a switchover stops the old primary and catches up before it promotes") {
  Seen seen;
  seen.snapshot.nodes[0].failure = Failure::none;
  seen.snapshot.nodes[0].role = Role::primary;
  seen.snapshot.nodes[0].sync_names = "*";
  const auto plan = plan_switchover(seen.cluster, seen.snapshot, "pg-a", "pg-c");
  check_form(plan);
  CHECK(plan.command == "switchover pg");
  CHECK(names_of(plan) == Names{"checkpoint", "stop", "catch up", "rule", "promote", "check",
                                "slots", "repoint", "return", "sync", "seal"});
  CHECK(step_of(plan, "stop").subject == "pg-a");
  CHECK(step_of(plan, "catch up").subject == "pg-c");
  CHECK(step_of(plan, "promote").subject == "pg-c");
  CHECK(step_of(plan, "repoint").subject == "pg-b");
  CHECK(step_of(plan, "return").subject == "pg-a");
  CHECK(get_string(plan.context, "to") == "pg-c");
  CHECK(get_string(plan.context, "sync_names") == "*");
  for (const auto& step : plan.steps) {
    const bool is_after = step.name == "slots" || step.name == "repoint" || step.name == "return" ||
                          step.name == "sync" || step.name == "seal";
    CAPTURE(step.name);
    CHECK(step.optional == is_after);
  }
  // With two nodes nobody else follows; where no node has synchronous_standby_names nothing is set.
  Seen two;
  two.snapshot.nodes.pop_back();
  two.cluster.nodes.pop_back();
  const auto short_plan = plan_switchover(two.cluster, two.snapshot, "pg-a", "pg-b");
  CHECK(names_of(short_plan) == Names{"checkpoint", "stop", "catch up", "promote", "check", "slots",
                                      "return", "sync", "seal"});
}

TEST_CASE("a rejoin fences first, keeps what only the node has, and then rewinds or rebuilds") {
  const Seen seen;
  const auto rewind = plan_rejoin(seen.cluster, {"pg-a", "pg-b", false, true});
  check_form(rewind);
  CHECK(names_of(rewind) == Names{"fence", "keep", "slot", "rewind", "start", "tidy"});
  CHECK(step_of(rewind, "fence").why.find("accepts writes") != std::string::npos);
  CHECK(step_of(rewind, "slot").subject == "pg-b");
  CHECK(get_string(rewind.context, "node") == "pg-a");
  CHECK(get_string(rewind.context, "primary") == "pg-b");
  CHECK_FALSE(get_bool(rewind.context, "rebuild"));
  const auto rebuild = plan_rejoin(seen.cluster, {"pg-a", "pg-b", true, false});
  check_form(rebuild);
  CHECK(names_of(rebuild) == Names{"fence", "keep", "slot", "rebuild", "start", "tidy"});
  CHECK(get_bool(rebuild.context, "rebuild"));
  for (const auto& plan : {rewind, rebuild})
    for (const auto& step : plan.steps) CHECK(step.optional == (step.name == "tidy"));
}

TEST_CASE("a lock is of one cluster") {
  config::PgCluster cluster;
  cluster.name = "orders";
  CHECK(lock_of(cluster) == "pg.orders");
}

TEST_CASE("a failover takes as long as its slowest answer makes it") {
  Seen seen;
  const auto least = expected_duration(seen.snapshot);
  CHECK(least > Millis(0));
  seen.snapshot.nodes[0].took = Millis(9000);  // it did not answer: nothing waits for it
  CHECK(expected_duration(seen.snapshot) == least);
  seen.snapshot.nodes[1].took = Millis(100);
  CHECK(expected_duration(seen.snapshot) > least);
}

TEST_CASE("any text survives a plan's JSON") {
  run::Plan plan;
  plan.command = "failover \"pg\"";
  plan.lock = "pg.主库";
  plan.summary = "a\nb\\c";
  plan.context = {{"deep", {{"list", {1, 2, 3}}, {"null", nullptr}}}};
  run::Step step;
  step.name = "s' \"1\"";
  step.action = "pg.x";
  step.subject = "\x1B[2J";
  step.why = "\xFF";
  step.args = {{"nodes", Json::array()}};
  step.deadline = Millis(1);
  step.optional = true;
  plan.steps = {step};
  const auto json = parse_json(dump_line(to_json(plan)), "it");
  REQUIRE(json.has_value());
  const auto back = run::plan_from_json(*json);
  REQUIRE(back.has_value());
  CHECK(back->command == plan.command);
  CHECK(back->lock == plan.lock);
  CHECK(back->summary == plan.summary);
  CHECK(back->context == plan.context);
  REQUIRE(back->steps.size() == 1);
  CHECK(back->steps[0].name == step.name);
  CHECK(back->steps[0].action == step.action);
  CHECK(back->steps[0].subject == step.subject);
  CHECK(back->steps[0].why == "\xEF\xBF\xBD");
  CHECK(back->steps[0].args == step.args);
  CHECK(back->steps[0].deadline == step.deadline);
  CHECK(back->steps[0].optional);
}

TEST_CASE("JSON that is no plan is an error, not a plan with holes") {
  for (
      const std::string text :
      {"null", "7", "\"plan\"", "[]", "{}", R"({"command":"x","lock":"l"})",
       R"({"command":"","lock":"l","steps":[]})", R"({"command":"x","lock":"","steps":[]})",
       R"({"command":7,"lock":"l","steps":[]})", R"({"command":"x","lock":["l"],"steps":[]})",
       R"({"command":"x","lock":"l","steps":{}})", R"({"command":"x","lock":"l","steps":"s"})",
       R"({"command":"x","lock":"l","steps":[7]})", R"({"command":"x","lock":"l","steps":[null]})",
       R"({"command":"x","lock":"l","steps":[{}]})",
       R"({"command":"x","lock":"l","steps":[{"name":"a"}]})",
       R"({"command":"x","lock":"l","steps":[{"action":"a"}]})",
       R"({"command":"x","lock":"l","steps":[{"name":["a"],"action":"a"}]})",
       // By its name the journal knows a step: of two, one would never be done.
       R"({"command":"x","lock":"l","steps":[{"name":"a","action":"b"},{"name":"a","action":"c"}]})"}) {
    CAPTURE(text);
    const auto json = parse_json(text, "it");
    REQUIRE(json.has_value());
    const auto plan = run::plan_from_json(*json);
    REQUIRE_FALSE(plan.has_value());
    CHECK(plan.error().code == Code::io);
  }
}

TEST_CASE("what is missing of a step has its default") {
  const auto json = *parse_json(
      R"({"command":"x","lock":"l","steps":[{"name":"a","action":"b","args":[],"deadline_ms":"soon",
          "optional":1,"of tomorrow":true}]})",
      "it");
  const auto plan = run::plan_from_json(json);
  REQUIRE(plan.has_value());
  CHECK(plan->steps[0].deadline == Millis(10'000));
  CHECK_FALSE(plan->steps[0].optional);
  CHECK(plan->context.is_null());
  CHECK(plan->summary.empty());
}

}  // namespace
}  // namespace zx::ha
