// What surrounds zx backup run: its hooks, others that want the repository, and what ends it early.
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

namespace fs = std::filesystem;
using test::Background;
using test::Configured;
using test::databases_in;
using test::eventually;
using test::has;
using test::in_background;
using test::LockedTable;
using test::makes_no_set;
using test::Platform;

const std::vector<std::string> kRun{"backup", "run"};

}  // namespace

TEST_CASE("hooks run before and after, and what their failure means is configured") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured two(platform, databases_in(platform), "databases = [\"zhi_xuan_user\"]");
  const auto log = platform.beside("hooks"), hook = platform.beside("hook");
  test::write(hook, "#!/bin/sh\necho \"$1 $ZX_OUTCOME $ZX_SET $ZX_REPOSITORY\" >> " + log +
                        "\necho 钩子 >&2\n[ ! -e " + platform.beside("fail-") + "$1 ]\n");
  REQUIRE(chmod(hook.c_str(), 0755) == 0);
  test::edit(platform.config(), "[backup]",
             fmt::format("[backup]\npre = [\"{0}\", \"pre\"]\npost = [\"{0}\", \"post\"]", hook));
  const auto said = [&] {
    auto lines = test::lines_of(test::read(log));
    fs::remove(log);
    return lines;
  };
  const auto id = platform.back_up();
  const auto end = " " + id + " " + platform.repository();
  CHECK(said() == std::vector<std::string>{"pre begun" + end, "post done" + end});

  test::write(platform.beside("fail-pre"), "");
  makes_no_set(platform, 1, {"backup.pre", "钩子"});
  auto lines = said();
  REQUIRE(lines.size() == 2);
  CHECK(lines[1].starts_with("post failed "));
  {
    const Configured may(platform, "[backup]", "[backup]\npre_may_fail = true");
    const auto json = platform.zx_json({"backup", "run"});
    CHECK(has(json["set"]["warnings"].dump(), "backup.pre failed"));
    CHECK(platform.ids().size() == 2);
    CHECK(said().size() == 2);
  }
  fs::remove(platform.beside("fail-pre"));
  test::write(platform.beside("fail-post"), "");
  const auto ran = platform.zx(kRun);
  CHECK(ran.exit == 0);
  CHECK(has(ran.err, "backup.post failed"));
  CHECK(platform.ids().size() == 3);
  const Configured must(platform, "[backup]", "[backup]\npost_may_fail = false");
  const auto failed = platform.zx(kRun);
  CHECK(failed.exit == 4);  // the set is there
  CHECK(has(failed.err, "backup.post failed"));
  CHECK(platform.ids().size() == 4);
  // Of a backup that failed, its own error is what counts.
  const Configured gone(platform, "databases = [", "databases = [\"gone\", ");
  makes_no_set(platform, 1, {"no database gone"});
  CHECK(platform.damage() == "");
}

TEST_CASE("one run at a time; a server that is killed and a signal end it with nothing left") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(50, 0);
  const auto first = platform.back_up();
  const auto ends_at = [&](Background& run, int signal, int exit) {
    run.signal(signal);
    CHECK(run.finish() == exit);
    CHECK_MESSAGE(has(run.output(), signal == SIGTERM  ? "terminated"
                                    : signal == SIGHUP ? "the terminal is gone"
                                                       : "interrupted"),
                  run.output());
    CHECK(test::dumps_of(platform).empty());
    CHECK(platform.leavings() == "");
    CHECK(platform.ids() == std::vector<std::string>{first});
    CHECK(test::has_no_passfile(platform));
  };
  {
    const auto pruning = platform.open_repository().lock_to_write("zx backup prune");
    REQUIRE(pruning.has_value());
    makes_no_set(platform, 5, {"zx backup prune (pid ", "hint: "},
                 {"backup", "run", "--timeout", "300ms"});
  }
  {
    const LockedTable locked(platform, "zhi_xuan_order");
    auto run = in_background(platform, kRun);
    REQUIRE(locked.is_waited_for());
    const auto holder = fmt::format("backup run (pid {} on ", run.pid());
    for (const auto* name : {"run", "prune"}) {
      const auto second = platform.zx({"backup", name, "--timeout", "300ms"});
      CHECK_MESSAGE(second.exit == 5, (second.out + second.err));
      CHECK_MESSAGE(has(second.err, holder), second.err);
      CHECK(has(second.err, "hint: "));
    }
    // Readers need not wait, and see no half of it.
    CHECK(platform.ids() == std::vector<std::string>{first});
    CHECK(platform.zx({"backup", "verify"}).exit == 0);
    CHECK_FALSE(test::dumps_of(platform).empty());
    ends_at(run, SIGTERM, 143);
  }
  {
    const LockedTable locked(platform, "zhi_xuan_order");
    auto run = in_background(platform, kRun);
    REQUIRE(locked.is_waited_for());
    ends_at(run, SIGINT, 130);
  }
  {
    const LockedTable locked(platform, "zhi_xuan_order");
    auto run = in_background(platform, kRun);
    REQUIRE(locked.is_waited_for());
    ends_at(run, SIGHUP, 143);
  }
  {
    // Before anything is read; what is to be run at the end is.
    const auto fifo = platform.beside("fifo"), post = platform.beside("post-was-here");
    REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
    const Configured hooked(platform, "[backup]",
                            fmt::format("[backup]\npre = [\"/usr/bin/tee\", \"{}\"]\n"
                                        "post = [\"/usr/bin/touch\", \"{}\"]",
                                        fifo, post));
    auto run = in_background(platform, kRun);
    const auto hooks = [&] {
      int count = 0;
      std::error_code ignored;
      for (const auto& entry : fs::directory_iterator("/proc", ignored))
        count += has(test::content_of(entry.path() / "environ"),
                     "ZX_REPOSITORY=" + platform.repository())
                     ? 1
                     : 0;
      return count;
    };
    REQUIRE(eventually([&] { return hooks() == 1; }));
    ends_at(run, SIGTERM, 143);
    CHECK(hooks() == 0);
    CHECK(os::exists(post));
  }
  {
    // What waited for a lock goes on; under nohup also when the terminal is gone.
    auto locked = std::make_unique<LockedTable>(platform, "zhi_xuan_order");
    Background run({"/usr/bin/nohup", ZX_BINARY, "-c", platform.config(), "backup", "run"},
                   {"HOME=/nonexistent"});
    REQUIRE(locked->is_waited_for());
    run.signal(SIGHUP);
    CHECK_FALSE(test::dumps_of(platform).empty());
    locked.reset();
    CHECK(run.finish() == 0);
    CHECK_FALSE(has(run.output(), "the terminal is gone"));
    CHECK(platform.ids().size() == 2);
    CHECK(platform.leavings() == "");
  }
  {
    const LockedTable locked(platform, "zhi_xuan_order");
    auto run = in_background(platform, kRun);
    REQUIRE(locked.is_waited_for());
    REQUIRE(platform.lab().kill("pg-a").has_value());
    const int exit = run.finish();
    CHECK_MESSAGE(exit == 7, run.output());
    CHECK_MESSAGE(has(run.output(), "zhi_xuan_"), run.output());
    CHECK_MESSAGE(has(run.output(), "hint: "), run.output());
    CHECK(test::dumps_of(platform).empty());
    CHECK(platform.leavings() == "");
    CHECK(platform.ids().size() == 2);
    CHECK(platform.damage() == "");
  }
}

}  // namespace zx
