#include "lib/backup/restore_checks.h"

#include <doctest/doctest.h>

#include "commands/restore/restore.h"

namespace zx {
namespace {

using Kind = commands::RedisBefore::Kind;
using run::StepState;

TEST_CASE("what one file system is to take is summed, and some stays free") {
  constexpr std::uint64_t kMib = 1 << 20;
  const auto room = [&](std::uint64_t free, const std::vector<backup::Need>& needs) {
    return backup::has_room(needs, [&](const std::string&) { return Result<std::uint64_t>(free); });
  };
  const std::vector<backup::Need> both{{1, "/srv", 300 * kMib, "/srv/uploads"},
                                       {1, "/var", 200 * kMib, "a copy"}};
  CHECK(room(500 * kMib + backup::kReserve, both).has_value());
  const auto full = room(500 * kMib, both);
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == Code::disk_full);
  CHECK(full.error().message.find("/srv/uploads 300 MiB") != std::string::npos);
  CHECK(full.error().message.find("a copy 200 MiB") != std::string::npos);
  auto apart = both;
  apart[1].device = 2;
  CHECK(room(300 * kMib + backup::kReserve, apart).has_value());
  CHECK(room(0, {{1, "/srv", 0, "nothing"}}).has_value());
}

TEST_CASE("the name of a tablespace is read as SQL has it") {
  CHECK(backup::tablespace_made_by("CREATE TABLESPACE fast OWNER zx LOCATION '/x'") == "fast");
  CHECK(backup::tablespace_made_by("CREATE TABLESPACE \"Fa\"\"st\" OWNER zx") == "Fa\"st");
  CHECK(backup::tablespace_made_by("ALTER TABLESPACE fast SET (seq_page_cost=1)").empty());
}

run::Record record_of(const std::string& mode, const std::map<std::string, StepState>& steps) {
  run::Record record;
  record.plan.context = {{"mode", mode}};
  for (const auto& [name, state] : steps) record.steps[name].state = state;
  return record;
}

Kind kind_of(const std::string& mode, const std::map<std::string, StepState>& steps) {
  return commands::redis_before(record_of(mode, steps)).kind;
}

TEST_CASE("what Redis had is told by how far its restore came, not by how it ended") {
  CHECK(kind_of("live", {}) == Kind::same);
  CHECK(kind_of("live", {{"safety copy", StepState::skipped}}) == Kind::same);
  // Only what was looked at and found empty was empty.
  CHECK(kind_of("live", {{"safety copy", StepState::skipped}, {"load", StepState::done}}) ==
        Kind::empty);
  CHECK(kind_of("live", {{"load", StepState::done}}) == Kind::unknown);
  CHECK(kind_of("live", {{"safety copy", StepState::done}, {"load", StepState::done}}) ==
        Kind::unknown);
  CHECK(kind_of("live", {{"safety copy", StepState::done}, {"load", StepState::undone}}) ==
        Kind::same);
  for (const auto state : {StepState::unknown, StepState::failed, StepState::done}) {
    auto record = record_of("live", {{"safety copy", StepState::done}, {"load", state}});
    record.steps["safety copy"].seen = {{"file", "/copy.rdb"}};
    for (const auto* outcome : {"abandoned", "superseded", "done", "partial"}) {
      record.outcome = outcome;
      CHECK(commands::redis_before(record).kind == Kind::copy);
      CHECK(commands::redis_before(record).file == "/copy.rdb");
    }
  }
  CHECK(kind_of("offline", {{"file", StepState::done}}) == Kind::same);
  CHECK(kind_of("offline", {{"place", StepState::done}, {"start", StepState::done}}) ==
        Kind::placed);
  CHECK(kind_of("offline", {{"place", StepState::undone}}) == Kind::same);
}

}  // namespace
}  // namespace zx
