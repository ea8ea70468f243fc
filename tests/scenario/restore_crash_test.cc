// kill -9 at any moment of a restore of everything: resumed it is what the set has, taken back it
// is what was there, and nothing is a mixture of both.
#include "lib/run/journal.h"
#include "tests/scenario/moments.h"

namespace zx {
namespace {

using test::Configured;
using test::databases_in;
using test::eventually;
using test::kill_after;
using test::mixed;
using test::Moments;
using test::Platform;
using test::State;

const std::vector<std::string> kRestore{"restore", "full", "--confirm", "lab"};
const std::vector<std::string> kUndo{"restore", "undo", "--confirm", "lab"};

// Of a run that came to no end.
std::string leavings(const Platform& platform) {
  std::string words =
      platform.sql("SELECT datname FROM pg_database WHERE datname LIKE '%\\_zxnew' ORDER BY 1");
  for (const auto& directory : {platform.lab().dir() + "/app", platform.state_dir()})
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      const auto name = entry.path().filename().string();
      if (name.ends_with(".zxnew") || name.starts_with("redis-throwaway-") ||
          name.find("pgpass") != std::string::npos)
        words += name + "\n";
    }
  return words;
}

std::vector<run::Record> unfinished(const Platform& platform) {
  const auto listed = run::list_runs(platform.state_dir(), 1000);
  REQUIRE_MESSAGE(listed.has_value(), test::why(listed));
  CHECK(listed->broken.empty());
  std::vector<run::Record> open;
  for (const auto& record : listed->runs)
    if (!record.outcome) open.push_back(record);
  return open;
}

// The step that it was in.
std::string place_of(const run::Record& record) {
  std::string last = "nothing yet";
  for (const auto& step : record.plan.steps) {
    const auto found = record.steps.find(step.name);
    if (found == record.steps.end() || found->second.state == run::StepState::pending) break;
    last = (found->second.state == run::StepState::unknown ? "" : "after ") + step.name;
  }
  return last;
}

void check_ended(const Platform& platform, const State& wanted, bool keeps) {
  CHECK(platform.changed_since(wanted) == "");
  CHECK(leavings(platform) == "");
  CHECK(platform.sql("SELECT count(*) > 0 FROM pg_database WHERE datname LIKE '%\\_zxold'") ==
        (keeps ? "t" : "f"));
  CHECK(os::exists(platform.uploads() + ".zxold") == keeps);
  CHECK(unfinished(platform).empty());
  for (const int port : platform.ports()) CHECK(platform.serves(port));
  CHECK(platform.redis({"SET", "written-after", "1"}) == "OK");
  CHECK(platform.redis({"DEL", "written-after"}) == "1");
  const auto verified = platform.zx({"backup", "verify", "--level", "checksum"});
  CHECK_MESSAGE(verified.exit == 0, (verified.out + verified.err));
}

// The run of that command that came to no end; of what it has begun, too.
struct Open {
  std::string id, place;
};
Open open_run(const Platform& platform, const std::string& command) {
  Open open;
  for (const auto& record : unfinished(platform)) {
    if (record.plan.command == command) open.id = record.id;
    open.place += open.place.empty() ? "" : " of ";
    open.place += place_of(record);
  }
  return open;
}

bool is_kept(const Platform& platform) {
  return os::exists(platform.state_dir() + "/restored.json");
}

// zx restore undo, killed and finished.
void undo(const Platform& platform, std::chrono::microseconds moment, const State& before) {
  CAPTURE(moment.count());
  const int exit = kill_after(platform, moment, kUndo);
  CHECK((exit == 0 || exit == -SIGKILL));
  const auto open = open_run(platform, "restore undo");
  CAPTURE(open.place);
  if (!open.id.empty() || is_kept(platform)) {
    const auto ended =
        platform.zx(open.id.empty() ? kUndo : std::vector<std::string>{"runs", "resume", open.id});
    REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
  }
  check_ended(platform, before, false);
}

}  // namespace

// ZX_RESTORE_KILLS: how often; else as often as takes about half a minute at most.
TEST_CASE("a restore that is killed at any moment is finished, or taken back") {
  const Platform platform({.pg = 1, .redis = 1, .services = true});
  // One more than are loaded at once.
  const std::vector<std::string> names{"zhi_xuan_user", "zhi_xuan_order", "zhi_xuan_inventory"};
  const Configured three(platform, databases_in(platform),
                         "databases = [\"" + join(names, "\", \"") + "\"]");
  platform.fill(200, 50);
  platform.back_up();
  const auto good = platform.everything();
  for (const auto& name : names) platform.sql("DELETE FROM zx_rows WHERE id % 3 = 0", name);
  platform.redis({"FLUSHALL"});
  platform.redis({"SET", "later", "1"});
  test::write(platform.uploads() + "/later", "later");
  test::write(platform.lab().dir() + "/app/config/later", "later");
  const auto before = platform.everything();
  const auto whole = test::took(platform, kRestore), back = test::took(platform, kUndo);
  constexpr Millis kAbout{20'000};
  const auto kills = test::number_in("ZX_RESTORE_KILLS",
                                     std::clamp<unsigned long>(kAbout / (whole + back), 8, 50));
  Moments moments(whole, kills), moments_of_undo(back, kills);
  REQUIRE(platform.changed_since(before) == "");

  std::map<std::string, int> places;
  unsigned long resumed = 0, aborted = 0;
  for (unsigned long i = 0; i < kills; ++i) {
    const auto moment = moments.next();
    CAPTURE(i);
    CAPTURE(moment.count());
    const int exit = kill_after(platform, moment, kRestore);
    CHECK((exit == 0 || exit == -SIGKILL));
    // Nothing that zx started goes on without it.
    CHECK(eventually([&] { return test::dumps_of(platform).empty(); }));
    CHECK(mixed(platform, before, good) == "");
    const auto open = open_run(platform, "restore full");
    CAPTURE(open.place);
    ++places[open.id.empty() ? "before its first line, or after its last" : open.place];
    bool is_restored = is_kept(platform);
    if (!open.id.empty()) {
      is_restored = resumed <= aborted;
      ++(is_restored ? resumed : aborted);
      const auto ended = platform.zx({"runs", is_restored ? "resume" : "abort", open.id});
      REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
    }
    check_ended(platform, is_restored ? good : before, is_restored);
    if (is_restored) undo(platform, moments_of_undo.next(), before);
  }
  std::string summary = fmt::format("{} resumed, {} taken back; killed in", resumed, aborted);
  for (const auto& [place, times] : places) summary += fmt::format("\n  {} {}", times, place);
  MESSAGE(summary);
  CHECK(resumed + aborted > kills / 4);
}

}  // namespace zx
