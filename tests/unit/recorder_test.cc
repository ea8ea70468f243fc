// How loud an event is in the log.
#include "lib/agent/recorder.h"

#include <doctest/doctest.h>

#include "tests/support.h"

namespace zx::agent {
namespace {

store::Event event(const std::string& kind, const std::string& run = {}) {
  return {Wall{}, "main", kind, "pg-a", run, "why", {}};
}

TEST_CASE("what the agent could not do is a warning, a run that failed is an error") {
  for (const std::string kind : {"started", "leads", "follows", "confirmed", "decided", "promoted",
                                 "rejoined", "recovered", "paused", "commits_flow"})
    CHECK_MESSAGE(level_of(event(kind, "r1")) == log::Level::info, kind);
  for (const std::string kind : {"blocked", "failed", "cut_off", "lost_lead", "detected",
                                 "unproved", "commits_hang", "self_fenced"})
    CHECK_MESSAGE(level_of(event(kind)) == log::Level::warning, kind);
  CHECK(level_of(event("failed", "r1")) == log::Level::error);
}

TEST_CASE("what an event is about is named as in zx.toml") {
  CHECK(table_of("main") == "pg.main");
  CHECK(table_of("redis.cache") == "redis.cache");
  CHECK(table_of("").empty());
}

TEST_CASE("events go to the log with their level, also those that cannot be stored") {
  const test::Directory files;
  std::vector<std::string> lines;
  Recorder recorder(files / "file/events.sqlite", [&](log::Level level, const std::string& line) {
    lines.push_back((level == log::Level::warning ? "warning " : "info ") + line);
  });
  test::write(files / "file", "");
  recorder.add(event("blocked"));
  recorder.add(event("leads"));
  REQUIRE(lines.size() == 3);
  CHECK(lines[0] == "warning blocked: pg.main, pg-a, why");
  CHECK(lines[1].starts_with("warning events are not stored: "));
  CHECK(lines[2] == "info leads: pg.main, pg-a, why");
  CHECK(recorder.lost() == 2);
}

TEST_CASE("a table of events that was removed is made again") {
  const test::Directory files;
  const auto path = files / "state/events.sqlite";
  Recorder recorder(path, [](log::Level, const std::string&) {});
  recorder.add(event("leads"));
  std::filesystem::remove_all(files / "state");
  recorder.reopen();
  recorder.add(event("blocked"));
  CHECK(recorder.lost() == 0);
  const auto stored = store::Events::open_existing(path);
  REQUIRE((stored.has_value() && *stored != nullptr));
  const auto found = (*stored)->newest(10);
  REQUIRE(found.has_value());
  REQUIRE(found->size() == 1);
  CHECK(found->front().kind == "blocked");
}

}  // namespace
}  // namespace zx::agent
