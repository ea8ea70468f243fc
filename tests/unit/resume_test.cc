// A run that is killed after every line of its journal, and in the middle of every line, by the
// kernel, then resumed or aborted by another process.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cstring>

#include "lib/run/executor.h"
#include "tests/support.h"

namespace zx::run {
namespace {

// The world outside is a directory: an effect is a file in it, so that it outlives a killed zx.
class World {
 public:
  explicit World(std::string path) : path_(std::move(path)) {
    std::filesystem::create_directories(path_ + "/effects");
  }
  void put(const std::string& name) const { test::write(path_ + "/effects/" + name, ""); }
  void take(const std::string& name) const { std::filesystem::remove(path_ + "/effects/" + name); }
  [[nodiscard]] bool has(const std::string& name) const {
    return std::filesystem::exists(path_ + "/effects/" + name);
  }
  [[nodiscard]] std::size_t count() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(path_ + "/effects"),
                      std::filesystem::directory_iterator()));
  }
  // How often the effect that cannot be taken back was asked for.
  void promote() const {
    std::ofstream(path_ + "/promotions", std::ios::app) << 'x';
    put("promote");
  }
  [[nodiscard]] std::size_t promotions() const {
    return std::filesystem::exists(path_ + "/promotions") ? test::read(path_ + "/promotions").size()
                                                          : 0;
  }

 private:
  std::string path_;
};

// Where the process kills itself inside an act: behind step-start, before or after the effect.
struct Suicide {
  std::string step;
  bool before_effect = false;
};

struct Scene {
  test::Directory directory;
  World world{directory.path()};
  Plan plan;
  bool refuses = false;  // the guard of the last step before the point of no return
  std::optional<Suicide> suicide;

  explicit Scene(bool is_refused = false) : refuses(is_refused) {
    plan.command = "failover pg";
    plan.lock = "pg.main";
    for (const char* name : {"freeze", "fence", "promote", "check", "repoint"}) {
      Step step;
      step.name = name;
      step.action = "t." + step.name;
      plan.steps.push_back(step);
    }
  }
  void maybe_die(const std::string& step, bool before_effect) const {
    if (suicide && suicide->step == step && suicide->before_effect == before_effect) raise(SIGKILL);
  }
  [[nodiscard]] Actions actions() {
    Actions all;
    for (const std::string name : {"freeze", "fence"})
      all["t." + name] = {{},
                          [this, name](StepContext& context) -> Result<Json> {
                            if (context.noted("before").is_null())
                              ZX_TRY(context.note("before", world.has(name)));
                            maybe_die(name, true);
                            world.put(name);
                            maybe_die(name, false);
                            return Json{{"did", name}};
                          },
                          {},
                          [this, name](StepContext& context) -> Status {
                            // Undo relies on the note: with an effect in place it must be there.
                            if (world.has(name) && context.noted("before").is_null())
                              return fail(Code::internal, "no note of " + name);
                            world.take(name);
                            return {};
                          }};
    all["t.promote"] = {[this](StepContext& context) -> Status {
                          if (refuses) return fail(Code::refused, "another primary is alive");
                          if (!world.has("freeze") || !world.has("fence"))
                            return fail(Code::internal, "promoting without a fence");
                          if (get_string(context.seen("fence"), "did") != "fence")
                            return fail(Code::internal, "what the fence saw is lost");
                          return {};
                        },
                        [this](StepContext& context) -> Result<Json> {
                          ZX_TRY(context.no_return());
                          maybe_die("promote", true);
                          world.promote();
                          maybe_die("promote", false);
                          return Json{{"node", "pg-b"}};
                        },
                        [this](StepContext&) -> Result<std::optional<Json>> {
                          if (!world.has("promote")) return std::optional<Json>();
                          return std::optional<Json>(Json{{"node", "pg-b"}});
                        },
                        {}};
    for (const std::string name : {"check", "repoint"})
      all["t." + name] = {{},
                          [this, name](StepContext& context) -> Result<Json> {
                            if (get_string(context.seen("promote"), "node") != "pg-b")
                              return fail(Code::internal, "whom it promoted is lost");
                            maybe_die(name, true);
                            world.put(name);
                            maybe_die(name, false);
                            return Json::object();
                          },
                          {},
                          {}};
    return all;
  }
  [[nodiscard]] std::string id() const {
    for (const auto& entry : std::filesystem::directory_iterator(runs_directory(directory.path())))
      return entry.path().stem().string();
    return {};
  }
  [[nodiscard]] std::string journal() const {
    return test::read(runs_directory(directory.path()) + "/" + id() + ".jsonl");
  }
  // Runs `work` in a child that the kernel kills at the first byte of a file behind `room`.
  void in_child(std::optional<std::size_t> room, const std::function<void()>& work) const {
    const auto child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const rlimit none{0, 0};
      setrlimit(RLIMIT_CORE, &none);
      signal(SIGXFSZ, SIG_DFL);
      if (room) {
        const rlimit limit{*room, *room};
        setrlimit(RLIMIT_FSIZE, &limit);
      }
      work();
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
  }
  void execute_killed(std::optional<std::size_t> room) {
    in_child(room, [&] { static_cast<void>(execute(plan, actions(), directory.path(), {})); });
  }
  [[nodiscard]] bool was_begun() const { return read_run(directory.path(), id()).has_value(); }
  RunReport resumed() {
    const auto report = resume(id(), actions(), directory.path(), {});
    REQUIRE_MESSAGE(report.has_value(), (report ? std::string() : report.error().message));
    return *report;
  }
};

// The ends of all lines, and a place inside each.
std::vector<std::size_t> cuts_of(const std::string& text) {
  std::vector<std::size_t> cuts;
  std::size_t begin = 0;
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    cuts.push_back(begin + (end - begin) / 2);
    cuts.push_back(end);  // all but the newline
    cuts.push_back(end + 1);
    begin = end + 1;
  }
  return cuts;
}

// The lines of another run have the same length but for digits of times and ids, so that cuts of
// one fit the other nearly; each is used as it is.
std::vector<std::size_t> cuts_of_run(bool refuses) {
  Scene scene(refuses);
  const auto report = execute(scene.plan, scene.actions(), scene.directory.path(), {});
  REQUIRE(report.has_value());
  CHECK(report->ending == (refuses ? Ending::refused : Ending::done));
  return cuts_of(scene.journal());
}

void check_done(Scene& scene, const RunReport& report) {
  CHECK(std::string(name_of(report.ending)) == "done");
  CHECK((report.error ? report.error->message : std::string()).empty());
  CHECK(scene.world.count() == 5);
  CHECK_FALSE(unfinished_run(scene.directory.path(), "pg.main")->has_value());
  for (const auto& step : report.steps) CHECK(step.state == StepState::done);
}

TEST_CASE("a run killed anywhere is resumed to its end, and promotes once") {
  const auto cuts = cuts_of_run(false);
  CHECK(cuts.size() >= 3 * 14);
  std::size_t resumed = 0;
  for (const auto cut : cuts) {
    CAPTURE(cut);
    Scene scene;
    scene.execute_killed(cut);
    if (!scene.was_begun()) {
      CHECK(scene.world.count() == 0);
      CHECK_FALSE(unfinished_run(scene.directory.path(), "pg.main")->has_value());
      continue;
    }
    if (read_run(scene.directory.path(), scene.id())->outcome) continue;
    ++resumed;
    check_done(scene, scene.resumed());
    CHECK(scene.world.promotions() == 1);
  }
  CHECK(resumed > 30);
}

TEST_CASE("a run killed anywhere is killed again while it resumes, and still promotes once") {
  const auto cuts = cuts_of_run(false);
  for (std::size_t i = 3; i < cuts.size(); i += 2) {
    CAPTURE(cuts[i]);
    Scene scene;
    scene.execute_killed(cuts[i]);
    if (!scene.was_begun()) continue;
    for (std::size_t more = 40; more < 500; more += 97) {
      const auto room = scene.journal().size() + more;
      scene.in_child(room, [&] {
        static_cast<void>(resume(scene.id(), scene.actions(), scene.directory.path(), {}));
      });
    }
    const auto record = read_run(scene.directory.path(), scene.id());
    REQUIRE_MESSAGE(record.has_value(), (record ? std::string() : record.error().message));
    if (!record->outcome) check_done(scene, scene.resumed());
    CHECK(*read_run(scene.directory.path(), scene.id())->outcome == "done");
    CHECK(scene.world.promotions() == 1);
    CHECK(scene.world.count() == 5);
  }
}

TEST_CASE("a run killed inside an act, before its effect or after, is resumed to its end") {
  for (const std::string step : {"freeze", "fence", "promote", "check", "repoint"})
    for (const bool before_effect : {true, false}) {
      CAPTURE(step);
      CAPTURE(before_effect);
      Scene scene;
      scene.suicide = Suicide{step, before_effect};
      scene.execute_killed(std::nullopt);
      REQUIRE(scene.was_begun());
      CHECK(read_run(scene.directory.path(), scene.id())->steps[step].state == StepState::unknown);
      scene.suicide.reset();
      check_done(scene, scene.resumed());
      CHECK(scene.world.promotions() == 1);
    }
}

TEST_CASE("a run killed before its point of no return is aborted without a trace, later refused") {
  const auto cuts = cuts_of_run(false);
  std::size_t aborted = 0, refused = 0;
  for (const auto cut : cuts) {
    CAPTURE(cut);
    Scene scene;
    scene.execute_killed(cut);
    if (!scene.was_begun()) continue;
    const auto record = read_run(scene.directory.path(), scene.id());
    const auto report = abort(scene.id(), scene.actions(), scene.directory.path(), {});
    if (record->outcome || record->no_return) {
      REQUIRE_FALSE(report.has_value());
      CHECK(report.error().code == Code::refused);
      ++refused;
      continue;
    }
    ++aborted;
    REQUIRE(report.has_value());
    CHECK(std::string(name_of(report->ending)) == "aborted");
    CHECK(scene.world.count() == 0);
    CHECK(scene.world.promotions() == 0);
    CHECK_FALSE(unfinished_run(scene.directory.path(), "pg.main")->has_value());
  }
  CHECK(aborted > 15);
  CHECK(refused > 10);
}

TEST_CASE("a run that was killed while it was being undone is undone to its end") {
  const auto cuts = cuts_of_run(true);
  std::size_t resumed = 0;
  for (const auto cut : cuts) {
    CAPTURE(cut);
    Scene scene(true);
    scene.execute_killed(cut);
    if (!scene.was_begun()) continue;
    if (read_run(scene.directory.path(), scene.id())->outcome) continue;
    ++resumed;
    const auto report = scene.resumed();
    const bool is_back = report.ending == Ending::refused || report.ending == Ending::failed;
    CHECK(is_back);
    CHECK(scene.world.count() == 0);
    CHECK(scene.world.promotions() == 0);
    CHECK_FALSE(unfinished_run(scene.directory.path(), "pg.main")->has_value());
  }
  CHECK(resumed > 20);
}

}  // namespace
}  // namespace zx::run
