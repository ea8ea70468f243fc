// While a run of a restore is unfinished, zx restore undo and zx restore commit change nothing and
// name it; once it has come to an end they do what they are for.
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::Configured;
using test::has;
using test::killed_at;
using test::Platform;
using test::unfinished_run;

using Words = std::vector<std::string>;

const Words kRestore{"restore", "pg", "--confirm", "main"};
const Words kUndo{"restore", "undo", "--confirm", "lab"};
const Words kCommit{"restore", "commit", "--yes"};

// Lines of the journal of kRestore: begin, two each of load, rows and analyze, three of databases,
// two of receipt.
constexpr int kLoaded = 3;
constexpr int kSwapped = 10;
constexpr int kAllDone = 12;

std::string kept(const Platform& platform) { return platform.state_dir() + "/restored.json"; }

void succeeds(const Platform& platform, const Words& words) {
  const auto result = platform.zx(words);
  REQUIRE_MESSAGE(result.exit == 0, (join(words, " ") + "\n" + result.out + result.err));
}

// As if it had been killed before the last line of its journal was written.
void forget_last_line(const Platform& platform, const std::string& run) {
  const auto path = platform.state_dir() + "/runs/" + run + ".jsonl";
  auto lines = test::lines_of(test::read(path));
  REQUIRE(std::ssize(lines) == kAllDone);
  REQUIRE_MESSAGE((has(lines.back(), "\"step-done\"") && has(lines.back(), "\"receipt\"")),
                  lines.back());
  lines.pop_back();
  test::write(path, join(lines, "\n") + "\n");
}

std::string databases(const Platform& platform) {
  return platform.sql(
      "SELECT string_agg(format('%s %s', datname, oid), ', ' ORDER BY oid) FROM pg_database");
}

void both_name(const Platform& platform, const std::string& run) {
  const auto before = platform.everything();
  const auto there = databases(platform);
  const bool is_kept = os::exists(kept(platform));
  const auto receipt = is_kept ? test::read(kept(platform)) : std::string();
  for (const auto& words : {kUndo, kCommit, Words{"restore", "undo", "--dry-run"}}) {
    const auto said = join(words, " ");
    CAPTURE(said);
    const auto result = platform.zx(words);
    CHECK_MESSAGE(result.exit == 3, (result.out + result.err));
    CHECK_MESSAGE(has(result.err, "run " + run + " (restore "), result.err);
    CHECK_MESSAGE(has(result.err, "zx runs resume " + run), result.err);
  }
  CHECK(platform.changed_since(before) == "");
  CHECK(databases(platform) == there);
  CHECK(os::exists(kept(platform)) == is_kept);
  if (is_kept) CHECK(test::read(kept(platform)) == receipt);
}

void nothing_is_kept(const Platform& platform) {
  CHECK_FALSE(os::exists(kept(platform)));
  CHECK(platform.sql("SELECT datname FROM pg_database WHERE datname LIKE '%\\_zx___'") == "");
  CHECK(platform.zx(kUndo).exit == 2);
  const auto committed = platform.zx(kCommit);
  CHECK_MESSAGE(committed.exit == 0, (committed.out + committed.err));
  CHECK_MESSAGE(has(committed.out, "Nothing is kept"), committed.out);
}

}  // namespace

TEST_CASE("undo and commit wait for the end of a restore, and name it") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured one(platform, test::databases_in(platform), "databases = [\"zhi_xuan_order\"]");
  platform.fill(20, 0);
  platform.back_up({"--only", "pg"});
  const auto good = platform.everything();
  const auto damage = [&] { platform.sql("DELETE FROM zx_rows WHERE id > 5", "zhi_xuan_order"); };
  damage();
  const auto lost = platform.everything();
  REQUIRE(lost != good);

  for (const int line : {kLoaded, kSwapped}) {
    CAPTURE(line);
    auto run = killed_at(platform, line, kRestore);
    CHECK_FALSE(os::exists(kept(platform)));
    both_name(platform, run);
    succeeds(platform, {"runs", "abort", run});
    CHECK(platform.changed_since(lost) == "");
    nothing_is_kept(platform);

    run = killed_at(platform, line, kRestore);
    both_name(platform, run);
    succeeds(platform, {"runs", "resume", run});
    CHECK(platform.changed_since(good) == "");
    succeeds(platform, kUndo);
    CHECK(platform.changed_since(lost) == "");
    nothing_is_kept(platform);
  }

  // What it keeps is written down, but not that this was done.
  auto run = killed_at(platform, kAllDone, kRestore);
  forget_last_line(platform, run);
  CHECK(os::exists(kept(platform)));
  both_name(platform, run);
  succeeds(platform, {"runs", "resume", run});
  succeeds(platform, kCommit);
  CHECK(platform.changed_since(good) == "");
  nothing_is_kept(platform);

  // Of which all is done need not be finished first.
  damage();
  run = killed_at(platform, kAllDone, kRestore);
  succeeds(platform, kUndo);
  CHECK(platform.changed_since(lost) == "");
  nothing_is_kept(platform);
  CHECK(unfinished_run(platform, "restore pg") == "");

  // A way back that was begun goes to its end, and there is no other.
  succeeds(platform, kRestore);
  run = killed_at(platform, 3, kUndo);
  both_name(platform, run);
  succeeds(platform, {"runs", "resume", run});
  CHECK(platform.changed_since(lost) == "");
  nothing_is_kept(platform);
}

}  // namespace zx
