// A journal that takes no more: what becomes of the run.
#include <doctest/doctest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <set>

#include "lib/run/executor.h"
#include "lib/run/journal.h"
#include "tests/support.h"

namespace zx::run {
namespace {

std::string path_in(const std::string& state_dir, const std::string& id) {
  return runs_directory(state_dir) + "/" + id + ".jsonl";
}

// Files of this process cannot grow over `bytes` while it lives: write() fails as on a full disk,
// after what still fits.
class Full {
 public:
  explicit Full(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit less{bytes, before_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &less) == 0);
  }
  ~Full() { setrlimit(RLIMIT_FSIZE, &before_); }
  Full(const Full&) = delete;
  Full& operator=(const Full&) = delete;

 private:
  rlimit before_{};
};

Plan two_steps() {
  Plan plan;
  plan.command = "failover pg";
  plan.lock = "pg.main";
  plan.steps.resize(2);
  plan.steps[0].name = "a";
  plan.steps[0].action = "t.a";
  plan.steps[1].name = "b";
  plan.steps[1].action = "t.b";
  return plan;
}

Action acting(std::set<std::string>& effects, const std::string& name) {
  return {{},
          [&effects, name](StepContext&) -> Result<Json> {
            effects.insert(name);
            return Json::object();
          },
          {},
          [&effects, name](StepContext&) -> Status {
            effects.erase(name);
            return {};
          }};
}

TEST_CASE("a run whose beginning cannot be written is not begun and leaves nothing behind") {
  for (const rlim_t room : {0, 1, 100}) {
    CAPTURE(room);
    test::Directory state;
    std::set<std::string> effects;
    const Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
    {
      const Full full(room);
      CHECK_FALSE(execute(two_steps(), actions, state.path(), {}).has_value());
    }
    CHECK(effects.empty());
    CHECK_FALSE(unfinished_run(state.path(), "pg.main")->has_value());
    CHECK(std::filesystem::is_empty(runs_directory(state.path())));
  }
}

TEST_CASE("a disk that is full for a while in the middle of a run costs the run, not its journal") {
  // The line that did not fit may have been cut at any place.
  for (const rlim_t room : {0, 1, 20, 60, 120, 200}) {
    CAPTURE(room);
    test::Directory state;
    std::set<std::string> effects;
    std::optional<Full> full;
    Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
    actions["t.b"].act = [&](StepContext& context) -> Result<Json> {
      effects.insert("b");
      full.emplace(std::filesystem::file_size(path_in(state.path(), context.run_id())) + room);
      ZX_TRY(context.note("big", std::string(300, 'x')));
      return Json::object();
    };
    Hooks hooks;
    hooks.on_end = [&](const StepReport&) { full.reset(); };
    hooks.on_undo = [&](const Step&, const Status&) { full.reset(); };
    const auto report = execute(two_steps(), actions, state.path(), hooks);
    full.reset();
    REQUIRE(report.has_value());
    const auto record = read_run(state.path(), report->id);
    REQUIRE_MESSAGE(record.has_value(), (record ? std::string() : record.error().message));
    CHECK(record->outcome.has_value() == (report->ending != Ending::partial));
    if (report->ending == Ending::partial) {
      const auto again = abort(report->id, actions, state.path(), {});
      REQUIRE(again.has_value());
      CHECK(again->ending == Ending::aborted);
    }
    CHECK(effects.empty());
  }
}

TEST_CASE("a run that changed nothing, and whose end cannot be written, does not stay open") {
  test::Directory state;
  std::set<std::string> effects;
  Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
  std::optional<Full> full;
  const auto no_more = [&](const std::string& id) {
    full.emplace(std::filesystem::file_size(path_in(state.path(), id)));
  };
  std::string run;
  Hooks hooks;
  hooks.enter = [&](const Record& record) -> Status {
    run = record.id;
    return {};
  };
  std::size_t undone = 0;
  hooks.on_undo = [&](const Step&, const Status& status) { undone += status ? 1 : 0; };
  SUBCASE("no step was begun") {
    hooks.on_start = [&](const Step&) { no_more(run); };
  }
  SUBCASE("the first one was, and is taken back") {
    actions["t.a"].act = [&](StepContext& context) -> Result<Json> {
      effects.insert("a");
      no_more(context.run_id());
      ZX_TRY(context.note("what", "it will need"));
      return Json::object();
    };
  }
  const auto report = execute(two_steps(), actions, state.path(), hooks);
  full.reset();
  REQUIRE(report.has_value());
  CHECK(report->ending == Ending::failed);
  CHECK_FALSE(report->has_journal);
  REQUIRE(report->error.has_value());
  CHECK(report->error->code != Code::partial);
  CHECK(effects.empty());
  CHECK(std::filesystem::is_empty(runs_directory(state.path())));
}

TEST_CASE("a run that was taken back and whose end cannot be written says how to end it") {
  test::Directory state;
  std::set<std::string> effects;
  Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
  actions["t.b"].act = [](StepContext&) -> Result<Json> {
    return fail(Code::failed, "it broke", "mend it");
  };
  std::optional<Full> full;
  std::string run;
  Hooks hooks;
  hooks.enter = [&](const Record& record) -> Status {
    run = record.id;
    return {};
  };
  // Right after the last undo has been journalled.
  hooks.on_line = [&] {
    const auto path = path_in(state.path(), run);
    const auto text = os::read_file(path);
    if (text && text->find("\"undo-done\",\"step\":\"a\"") != std::string::npos)
      full.emplace(text->size());
  };
  const auto report = execute(two_steps(), actions, state.path(), hooks);
  REQUIRE(full.has_value());
  full.reset();
  REQUIRE(report.has_value());
  CHECK(report->ending == Ending::failed);
  CHECK(report->has_journal);
  CHECK(effects.empty());
  CHECK(report->error->message == "it broke");
  CHECK(report->error->hint == "mend it; then zx runs abort " + run);
  const auto ended = abort(run, actions, state.path(), {});
  REQUIRE(ended.has_value());
  CHECK(ended->ending == Ending::aborted);
}

TEST_CASE("what could not be taken back for want of room names the run") {
  test::Directory state;
  std::set<std::string> effects;
  const Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
  std::optional<Full> full;
  Hooks hooks;
  hooks.on_end = [&](const StepReport& step) {
    full.emplace(std::filesystem::file_size(path_in(state.path(), step.run)));
  };
  const auto report = execute(two_steps(), actions, state.path(), hooks);
  full.reset();
  REQUIRE(report.has_value());
  CHECK(report->ending == Ending::partial);
  CHECK(report->has_journal);
  CHECK(effects == std::set<std::string>{"a"});
  CHECK(report->error->hint == "take it back once more: zx runs abort " + report->id);
  CHECK(report->error->trail == std::vector<std::string>{"and it could not be undone"});
  CHECK(abort(report->id, actions, state.path(), {})->ending == Ending::aborted);
  CHECK(effects.empty());
}

TEST_CASE("a point of no return that cannot be written is not passed") {
  test::Directory state;
  std::set<std::string> effects;
  Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
  std::optional<Full> full;
  actions["t.b"].act = [&](StepContext& context) -> Result<Json> {
    full.emplace(std::filesystem::file_size(path_in(state.path(), context.run_id())) + 10);
    ZX_TRY(context.no_return());
    effects.insert("promoted");
    return Json::object();
  };
  const auto report = execute(two_steps(), actions, state.path(), {});
  full.reset();
  REQUIRE(report.has_value());
  CHECK_FALSE(effects.contains("promoted"));
  CHECK_FALSE(read_run(state.path(), report->id)->no_return);
  const auto again = abort(report->id, actions, state.path(), {});
  REQUIRE(again.has_value());
  CHECK(again->ending == Ending::aborted);
  CHECK(effects.empty());
}

// On a file system of its own, which goes with the child that mounted it. 77: it may not mount.
int on_tiny_disk(const std::string& state) {
  if (unshare(CLONE_NEWNS) != 0 ||
      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      mount("tmpfs", state.c_str(), "tmpfs", 0, "size=64k") != 0)
    return 77;
  std::set<std::string> effects;
  const Actions actions{{"t.a", acting(effects, "a")}, {"t.b", acting(effects, "b")}};
  const auto report = execute(two_steps(), actions, state, {});
  if (report || report.error().code != Code::disk_full) return 1;
  if (report.error().hint.empty() || !effects.empty()) return 2;
  std::error_code code;
  return std::filesystem::is_empty(runs_directory(state), code) && !code ? 0 : 3;
}

TEST_CASE("a disk without room for the whole journal is found before anything is done") {
  test::Directory state;
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(on_tiny_disk(state.path()));
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    MESSAGE("skipped: a tmpfs cannot be mounted here");
    return;
  }
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace zx::run
