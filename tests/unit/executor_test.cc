// How a run goes: forward, backward, in part, and taken up again.
#include "lib/run/executor.h"

#include <doctest/doctest.h>

#include <set>
#include <utility>

#include "tests/support.h"

namespace zx::run {
namespace {

using Log = std::vector<std::string>;

// The world outside: which effects are in place, and what was done to it in which order.
struct Fake {
  test::Directory state;
  Plan plan;
  std::set<std::string> effects;
  Log log;
  std::map<std::string, Error> guard_fails, act_fails, undo_fails;  // by step
  std::set<std::string> no_undo, no_return, skips;
  std::function<Result<Json>(StepContext&)> also;  // within act, after the effect
  Hooks hooks;

  Fake() {
    plan.command = "failover pg";
    plan.lock = "pg.main";
    for (const char* name : {"freeze", "fence", "promote", "check"}) {
      Step step;
      step.name = name;
      step.action = "t." + step.name;
      step.subject = "pg-a";
      plan.steps.push_back(step);
    }
  }
  [[nodiscard]] Actions actions() {
    Actions all;
    for (const auto& step : plan.steps) {
      auto& action = all[step.action];
      const auto name = step.name;
      action.guard = [this, name](StepContext&) -> Status {
        if (guard_fails.contains(name)) return fail(guard_fails.at(name));
        return {};
      };
      action.act = [this, name](StepContext& context) -> Result<Json> {
        log.push_back("act " + name);
        if (no_return.contains(name)) ZX_TRY(context.no_return());
        if (skips.contains(name)) return Json{{"skipped", "nothing to do"}};
        effects.insert(name);
        if (also) ZX_TRY(also(context));
        if (act_fails.contains(name)) return fail(act_fails.at(name));
        return Json{{"did", name}};
      };
      if (!no_undo.contains(name))
        action.undo = [this, name](StepContext&) -> Status {
          log.push_back("undo " + name);
          if (undo_fails.contains(name)) return fail(undo_fails.at(name));
          effects.erase(name);
          return {};
        };
    }
    return all;
  }
  RunReport good(Result<RunReport> result) {
    REQUIRE_MESSAGE(result.has_value(), (result ? std::string() : result.error().message));
    // What the journal says afterwards is what was reported.
    const auto record = read_run(state.path(), result->id);
    REQUIRE(record.has_value());
    CHECK(record->outcome.has_value() == (result->ending != Ending::partial));
    if (record->outcome) CHECK(*record->outcome == name_of(result->ending));
    REQUIRE(result->steps.size() == plan.steps.size());
    for (const auto& step : result->steps) {
      CAPTURE(step.name);
      const auto found = record->steps.find(step.name);
      const auto state_read =
          found == record->steps.end() ? StepState::pending : found->second.state;
      CHECK(std::string(name_of(step.state)) == name_of(state_read));
    }
    return *result;
  }
  RunReport execute() { return good(run::execute(plan, actions(), state.path(), hooks)); }
  RunReport resume(const std::string& id) {
    return good(run::resume(id, actions(), state.path(), hooks));
  }
  RunReport abort(const std::string& id) {
    return good(run::abort(id, actions(), state.path(), hooks));
  }
  [[nodiscard]] bool is_open() const {
    return unfinished_run(state.path(), "pg.main")->has_value();
  }
};

Error error(Code code = Code::failed) { return {code, "it broke", "mend it", {}, false}; }

StepState state_of(const RunReport& report, const std::string& step) {
  const auto* found = report.step(step);
  REQUIRE(found != nullptr);
  return found->state;
}

// Time that passes while this process does not run.
struct Ahead final : Clock {
  Millis by{0};
  Monotonic now() const override { return system_clock().now() + by; }
  Wall wall() const override { return system_clock().wall() + by; }
  void pause(Millis span) override { system_clock().pause(span); }
};

TEST_CASE("a run on a person's word that nobody else is at work says so in its journal") {
  Fake fake;
  fake.hooks.alone_because = "etcd: no answer";
  SUBCASE("from its beginning") {}
  SUBCASE("only when it is taken up") {
    fake.hooks.alone_because.clear();
    fake.act_fails["check"] = Error{Code::failed, "no", {}, {}, false};
    fake.no_return.insert("promote");
  }
  const auto report = execute(fake.plan, fake.actions(), fake.state.path(), fake.hooks);
  REQUIRE(report.has_value());
  if (report->ending == Ending::partial) {
    CHECK(read_run(fake.state.path(), report->id)->alone_because.empty());
    fake.act_fails.clear();
    fake.hooks.alone_because = "etcd: no answer";
    REQUIRE(resume(report->id, fake.actions(), fake.state.path(), fake.hooks)->ending ==
            Ending::done);
  }
  CHECK(read_run(fake.state.path(), report->id)->alone_because == "etcd: no answer");
}

TEST_CASE("a process that stood still after announcing an act asks whether it may still act") {
  Fake fake;
  Ahead clock;
  const ScopedClock scoped(clock);
  bool is_lost = false, is_still = false;
  fake.hooks.still_ours = [&]() -> Status {
    if (is_lost) return fail(Code::refused, "another one leads");
    return {};
  };
  fake.hooks.on_start = [&](const Step& step) { is_still = step.name == "fence"; };
  fake.hooks.on_line = [&] {
    if (!std::exchange(is_still, false)) return;
    clock.by += Millis(5000);
    is_lost = true;
  };
  const auto report = fake.good(execute(fake.plan, fake.actions(), fake.state.path(), fake.hooks));
  CHECK(report.ending == Ending::partial);
  CHECK(fake.log == Log{"act freeze"});
}

TEST_CASE("a run does its steps in order and ends") {
  Fake fake;
  Log told;
  fake.hooks.on_start = [&](const Step& step) { told.push_back("start " + step.name); };
  fake.hooks.on_end = [&](const StepReport& step) { told.push_back("end " + step.name); };
  fake.hooks.still_ours = [] { return Status{}; };
  fake.hooks.interruption = [] { return std::optional<Error>(); };
  const auto report = fake.execute();
  CHECK(report.ending == Ending::done);
  CHECK_FALSE(report.error.has_value());
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote", "act check"});
  CHECK(told.size() == 8);
  CHECK(told[0] == "start freeze");
  CHECK(told[7] == "end check");
  CHECK(get_string(report.step("fence")->seen, "did") == "fence");
  CHECK(report.step("absent") == nullptr);
  CHECK_FALSE(fake.is_open());
  for (const auto& taken : {run::resume(report.id, fake.actions(), fake.state.path(), {}),
                            run::abort(report.id, fake.actions(), fake.state.path(), {})}) {
    REQUIRE_FALSE(taken.has_value());
    CHECK(taken.error().code == Code::refused);
  }
}

TEST_CASE("a step that finds nothing to do is skipped, and not undone") {
  Fake fake;
  fake.skips = {"fence"};
  fake.act_fails["check"] = error();
  const auto report = fake.execute();
  CHECK(report.ending == Ending::failed);
  CHECK(state_of(report, "fence") == StepState::skipped);
  CHECK(report.step("fence")->why_skipped == "nothing to do");
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote", "act check", "undo check",
                        "undo promote", "undo freeze"});
}

TEST_CASE("a guard that refuses undoes what went before, last first, and touches nothing itself") {
  Fake fake;
  fake.guard_fails["promote"] = error(Code::refused);
  Log undone;
  fake.hooks.on_undo = [&](const Step& step, const Status& status) {
    undone.push_back(step.name + (status ? "" : " failed"));
  };
  const auto report = fake.execute();
  CHECK(report.ending == Ending::refused);
  CHECK(report.error->code == Code::refused);
  CHECK(report.error->message == "it broke");
  CHECK(fake.log == Log{"act freeze", "act fence", "undo fence", "undo freeze"});
  CHECK(undone == Log{"fence", "freeze"});
  CHECK(fake.effects.empty());
  CHECK(state_of(report, "freeze") == StepState::undone);
  CHECK(state_of(report, "promote") == StepState::pending);
  CHECK(report.step("promote")->error.has_value());
  CHECK_FALSE(fake.is_open());

  Fake other;
  other.guard_fails["fence"] = error(Code::unreachable);
  CHECK(other.execute().ending == Ending::failed);
}

TEST_CASE("a step that fails is undone too, as it may have done a part") {
  Fake fake;
  fake.act_fails["fence"] = error(Code::timeout);
  const auto report = fake.execute();
  CHECK(report.ending == Ending::failed);
  CHECK(report.error->code == Code::timeout);
  CHECK(fake.log == Log{"act freeze", "act fence", "undo fence", "undo freeze"});
  CHECK(fake.effects.empty());
}

TEST_CASE("a step without undo is passed over") {
  Fake fake;
  fake.no_undo = {"fence"};
  fake.act_fails["promote"] = error();
  CHECK(fake.execute().ending == Ending::failed);
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote", "undo promote", "undo freeze"});
  CHECK(fake.effects == std::set<std::string>{"fence"});
}

TEST_CASE("an undo that fails leaves the run open, and another abort goes on with it") {
  for (const bool by_abort : {true, false}) {
    CAPTURE(by_abort);
    Fake fake;
    fake.act_fails["promote"] = error();
    fake.undo_fails["fence"] = {Code::unreachable, "the host is gone", {}, {}, false};
    auto report = fake.execute();
    CHECK(report.ending == Ending::partial);
    CHECK(report.error->code == Code::partial);
    CHECK(report.error->hint.find("zx runs abort " + report.id) != std::string::npos);
    CHECK(report.error->trail.back().find("the host is gone") != std::string::npos);
    CHECK(state_of(report, "freeze") == StepState::undone);
    CHECK(state_of(report, "fence") == StepState::done);
    CHECK(fake.effects == std::set<std::string>{"fence"});
    CHECK(fake.is_open());

    fake.log.clear();
    const auto again = [&] { return by_abort ? fake.abort(report.id) : fake.resume(report.id); };
    CHECK(again().ending == Ending::partial);
    CHECK(fake.log == Log{"undo fence"});
    fake.undo_fails.clear();
    fake.log.clear();
    report = again();
    CHECK(report.ending == (by_abort ? Ending::aborted : Ending::failed));
    CHECK(fake.log == Log{"undo fence"});
    CHECK(fake.effects.empty());
    CHECK_FALSE(fake.is_open());
  }
}

TEST_CASE("past the point of no return a failure leaves the run open, and resume goes on") {
  Fake fake;
  fake.no_return = {"promote"};
  fake.act_fails["promote"] = error(Code::timeout);
  auto report = fake.execute();
  CHECK(report.ending == Ending::partial);
  CHECK(report.error->code == Code::partial);
  CHECK(report.error->message == "it broke");
  CHECK(report.error->hint == "mend it; then zx runs resume " + report.id);
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote"});
  CHECK(fake.is_open());

  const auto refused = run::abort(report.id, fake.actions(), fake.state.path(), {});
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::refused);
  CHECK(refused.error().hint.find("resume") != std::string::npos);

  fake.log.clear();
  fake.act_fails.clear();
  fake.act_fails["check"] = error(Code::refused);  // not even a refusal goes back now
  report = fake.resume(report.id);
  CHECK(report.ending == Ending::partial);
  CHECK(fake.log == Log{"act promote", "act check"});
  fake.guard_fails["check"] = error(Code::refused);
  CHECK(fake.resume(report.id).ending == Ending::partial);
  fake.guard_fails.clear();
  fake.act_fails.clear();
  fake.log.clear();
  report = fake.resume(report.id);
  CHECK(report.ending == Ending::done);
  CHECK(fake.log == Log{"act check"});
  CHECK(fake.effects.size() == 4);
  CHECK_FALSE(report.step("check")->error.has_value());
  CHECK_FALSE(fake.is_open());
  const auto text = test::read(runs_directory(fake.state.path()) + "/" + report.id + ".jsonl");
  CHECK(text.find("no-return") == text.rfind("no-return"));
}

TEST_CASE("a resumed run looks whether a step that failed had its effect all the same") {
  Fake fake;
  fake.no_return = {"promote"};
  fake.act_fails["promote"] = error(Code::timeout);
  auto actions = fake.actions();
  std::optional<Json> found;
  actions["t.promote"].verify = [&](StepContext&) -> Result<std::optional<Json>> {
    fake.log.emplace_back("verify promote");
    return found;
  };
  const auto id = run::execute(fake.plan, actions, fake.state.path(), {})->id;
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote"});
  fake.log.clear();
  SUBCASE("it had: it is not done again") {
    found = Json{{"did", "promote"}};
    const auto report = run::resume(id, actions, fake.state.path(), {});
    CHECK(report->ending == Ending::done);
    CHECK(fake.log == Log{"verify promote", "act check"});
  }
  SUBCASE("it had not") {
    fake.act_fails.clear();
    const auto report = run::resume(id, actions, fake.state.path(), {});
    CHECK(report->ending == Ending::done);
    CHECK(fake.log == Log{"verify promote", "act promote", "act check"});
  }
}

TEST_CASE("an optional step that fails does not stop the others, and is all that resume does") {
  for (const bool by_guard : {false, true}) {
    CAPTURE(by_guard);
    Fake fake;
    fake.plan.steps[1].optional = fake.plan.steps[3].optional = true;
    auto& fails = by_guard ? fake.guard_fails : fake.act_fails;
    fails["fence"] = error();
    auto report = fake.execute();
    CHECK(report.ending == Ending::partial);
    CHECK(report.error->code == Code::partial);
    CHECK(report.error->hint.find("zx runs resume " + report.id) != std::string::npos);
    CHECK(state_of(report, "check") == StepState::done);
    CHECK(fake.is_open());
    fake.log.clear();
    fails.clear();
    report = fake.resume(report.id);
    CHECK(report.ending == Ending::done);
    CHECK(fake.log == Log{"act fence"});
  }
}

TEST_CASE("an optional step that failed is undone with the rest") {
  Fake fake;
  fake.plan.steps[1].optional = true;
  fake.act_fails["fence"] = fake.act_fails["promote"] = error();
  CHECK(fake.execute().ending == Ending::failed);
  CHECK(fake.effects.empty());
}

TEST_CASE("a signal undoes before the point of no return and is ignored after it") {
  Fake fake;
  bool came = false;
  fake.hooks.interruption = [&] {
    return came ? std::optional<Error>(Error{Code::interrupted, "SIGINT", {}, {}, false})
                : std::nullopt;
  };
  came = true;
  auto report = fake.execute();
  CHECK(report.ending == Ending::failed);
  CHECK(report.error->code == Code::interrupted);
  CHECK(fake.log.empty());
  CHECK_FALSE(fake.is_open());

  came = false;
  fake.hooks.on_end = [&](const StepReport& step) { came = step.name == "fence"; };
  report = fake.execute();
  CHECK(report.ending == Ending::failed);
  CHECK(fake.log == Log{"act freeze", "act fence", "undo fence", "undo freeze"});

  came = false;
  fake.log.clear();
  fake.no_return = {"fence"};
  report = fake.execute();
  CHECK(report.ending == Ending::done);
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote", "act check"});
}

TEST_CASE("a lost lock stops the run where it is: neither forward nor back") {
  Fake fake;
  bool ours = true;
  fake.hooks.still_ours = [&]() -> Status {
    if (!ours) return fail(Code::locked, "another run holds the lock");
    return {};
  };
  fake.hooks.on_end = [&](const StepReport& step) { ours = step.name != "fence"; };
  auto report = fake.execute();
  CHECK(report.ending == Ending::partial);
  CHECK(report.error->code == Code::locked);
  CHECK(report.error->hint == "zx runs resume " + report.id);
  CHECK(fake.log == Log{"act freeze", "act fence"});
  CHECK(fake.is_open());
  ours = true;
  fake.hooks.on_end = nullptr;
  CHECK(fake.resume(report.id).ending == Ending::done);
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote", "act check"});
}

TEST_CASE("without the lock nothing is undone either: the other run may be relying on it") {
  Fake fake;
  bool ours = true;
  fake.hooks.still_ours = [&]() -> Status {
    if (!ours) return fail(Code::locked, "another run holds the lock");
    return {};
  };
  fake.act_fails["promote"] = error();
  fake.hooks.on_end = [&](const StepReport& step) { ours = step.name != "promote"; };
  auto report = fake.execute();
  CHECK(report.ending == Ending::partial);
  CHECK(fake.log == Log{"act freeze", "act fence", "act promote"});
  CHECK(fake.effects.size() == 3);
  CHECK(fake.is_open());
  // In the middle of undoing.
  ours = true;
  fake.hooks.on_undo = [&](const Step& step, const Status&) { ours = step.name != "fence"; };
  report = fake.abort(report.id);
  CHECK(report.ending == Ending::partial);
  CHECK(fake.effects == std::set<std::string>{"freeze"});
  ours = true;
  report = fake.resume(report.id);
  CHECK(report.ending == Ending::failed);
  CHECK(fake.effects.empty());
}

TEST_CASE("a plan with a step that this zx does not know is not begun") {
  Fake fake;
  const auto actions = fake.actions();
  fake.plan.steps[3].action = "t.of_tomorrow";
  const auto result = run::execute(fake.plan, actions, fake.state.path(), {});
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().message.find("t.of_tomorrow") != std::string::npos);
  CHECK(fake.log.empty());
  CHECK(list_runs(fake.state.path(), 10)->runs.empty());
}

TEST_CASE("what a step noted and saw is there for later steps, for undo and after a resume") {
  Fake fake;
  auto actions = fake.actions();
  bool resumed = false;
  actions["t.freeze"].act = [](StepContext& context) -> Result<Json> {
    CHECK_FALSE(context.resumed());
    CHECK(context.noted("upstreams").is_null());
    CHECK(context.seen("promote").is_null());
    CHECK(context.deadline().left() <= context.step().deadline);
    ZX_TRY(context.note("upstreams", {{"pg-b", "x\xFF"}}));
    ZX_TRY(context.note("upstreams", {{"pg-b", "host=a"}}));
    return Json{{"position", "0/3"}};
  };
  actions["t.promote"].act = [&](StepContext& context) -> Result<Json> {
    resumed = context.resumed();
    CHECK(get_string(context.seen("freeze"), "position") == "0/3");
    CHECK(context.noted("upstreams").is_null());  // another step's
    ZX_TRY(context.no_return());
    if (!resumed) return fail(Code::failed, "not yet");
    return fail(Code::failed, "still not");
  };
  auto report = fake.good(run::execute(fake.plan, actions, fake.state.path(), {}));
  CHECK(report.ending == Ending::partial);
  report = fake.good(run::resume(report.id, actions, fake.state.path(), {}));
  CHECK(resumed);

  Fake second;
  Json undone;
  actions = second.actions();
  actions["t.freeze"].act = [](StepContext& context) -> Result<Json> {
    ZX_TRY(context.note("upstreams", {{"pg-b", "host=a"}}));
    return Json::object();
  };
  actions["t.freeze"].undo = [&](StepContext& context) -> Status {
    undone = context.noted("upstreams");
    if (!context.resumed()) return fail(Code::failed, "later");
    return {};
  };
  second.act_fails["promote"] = error();
  report = second.good(run::execute(second.plan, actions, second.state.path(), {}));
  CHECK(get_string(undone, "pg-b") == "host=a");
  undone = {};
  report = second.good(run::abort(report.id, actions, second.state.path(), {}));
  CHECK(report.ending == Ending::aborted);
  CHECK(get_string(undone, "pg-b") == "host=a");
}

TEST_CASE("a server's broken text in a result or an error does not break the journal") {
  Fake fake;
  auto actions = fake.actions();
  actions["t.freeze"].act = [](StepContext&) -> Result<Json> {
    return Json{{"said", "caf\xE9\n\x1B[31m"}};
  };
  actions["t.fence"].act = [](StepContext&) -> Result<Json> {
    return fail(Code::server, "\xFF\xFE\n{\"event\":\"end\",\"outcome\":\"done\"}");
  };
  const auto report = fake.good(run::execute(fake.plan, actions, fake.state.path(), {}));
  CHECK(report.ending == Ending::failed);
}

}  // namespace
}  // namespace zx::run
