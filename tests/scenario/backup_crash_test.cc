// kill -9 at any moment of a backup and of a prune: every set is whole or not there, and the next
// run clears away what was left.
#include "tests/scenario/moments.h"

namespace zx {

namespace fs = std::filesystem;
using test::Configured;
using test::databases_in;
using test::eventually;
using test::kill_after;
using test::Moments;
using test::Platform;
using test::took;

TEST_CASE("a backup that is killed at any moment leaves whole sets, and the next one clears away") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(300, 50);
  const Configured two(platform, databases_in(platform),
                       "databases = [\"zhi_xuan_user\", \"zhi_xuan_order\"]");
  const auto kills = static_cast<int>(test::number_in("ZX_BACKUP_KILLS", 30));
  constexpr int kEvery = 5;
  const std::vector<std::string> run{"backup", "run"};
  const auto first = took(platform, run);
  Moments moments(std::min(first, took(platform, run)), kills);
  int killed = 0, left = 0;
  for (int i = 0; i < kills; ++i) {
    const auto moment = moments.next();
    CAPTURE(i);
    CAPTURE(moment.count());
    test::write(platform.uploads() + "/neu", std::to_string(i));
    const auto before = platform.ids();
    const int exit = kill_after(platform, moment, run);
    CHECK((exit == 0 || exit == -SIGKILL));
    killed += exit == 0 ? 0 : 1;
    left += platform.leavings().empty() ? 0 : 1;
    const auto after = platform.ids();
    CHECK(after.size() <= before.size() + 1);
    CHECK(after.size() >= before.size() + (exit == 0 ? 1 : 0));
    CHECK(platform.damage() == "");
    // Nothing that zx started goes on without it.
    CHECK(eventually([&] { return test::dumps_of(platform).empty(); }));
    if (i % kEvery != kEvery - 1) continue;
    const auto made = platform.back_up();
    CHECK(platform.ids().front() == made);
    CHECK(platform.ids().size() == after.size() + 1);
    CHECK(platform.leavings() == "");
    CHECK(platform.damage() == "");
    CHECK(test::has_no_passfile(platform));
  }
  MESSAGE(killed << " of " << kills << " were killed, " << left << " left something");
  CHECK(killed > kills / 4);
  CHECK(left > kills / 8);
}

TEST_CASE("a backup that is killed in a step of its making or publishing leaves nothing half") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured one(platform, databases_in(platform), "databases = [\"zhi_xuan_user\"]");
  const std::vector<std::string> run{"backup", "run", "--new-repository"};
  int killed = 0;
  for (int count = 1;; ++count) {
    CAPTURE(count);
    fs::remove_all(platform.repository());
    const auto result = platform.zx_killed_in("mkdir", count, run);
    if (result.signal != SIGKILL) break;
    ++killed;
    const auto made = platform.back_up({"--new-repository"});
    CHECK(platform.ids() == std::vector<std::string>{made});
    CHECK(platform.leavings() == "");
    CHECK(platform.damage() == "");
  }
  CHECK(killed >= 5);
  for (const auto* call : {"fsync", "renameat2"}) {
    const std::string step = call;
    for (int count = 1;; ++count) {
      CAPTURE(step);
      CAPTURE(count);
      const auto before = platform.ids();
      const auto result = platform.zx_killed_in(step, count, run);
      const auto after = platform.ids();
      CHECK(platform.damage() == "");
      if (result.signal != SIGKILL) {
        CHECK_MESSAGE(result.exit == 0, (result.out + result.err));
        CHECK(after.size() == before.size() + 1);
        CHECK(platform.leavings() == "");
        CHECK(count > 1);
        break;
      }
      ++killed;
      CHECK(after.size() <= before.size() + 1);
    }
  }
  CHECK(killed > 10);
}

namespace {

// Sets of which the newest stays; what a prune may do to them, again and again.
class Sets {
 public:
  explicit Sets(const Platform& platform) : platform_(platform), copy_(platform.beside("copy")) {
    constexpr int kSets = 6;
    for (int i = 0; i < kSets; ++i) {
      // Each has an archive of its own, and one that all have.
      test::write(platform.uploads() + "/neu", std::to_string(i));
      made_.insert(made_.begin(), platform.back_up());
    }
    fs::copy(platform.repository(), copy_, fs::copy_options::recursive);
  }
  void put_back() const {
    fs::remove_all(platform_.repository());
    fs::copy(copy_, platform_.repository(), fs::copy_options::recursive);
  }
  // After a prune that was killed; true: it had begun and was not done.
  [[nodiscard]] bool are_whole() const {
    const auto there = platform_.ids();
    REQUIRE_FALSE(there.empty());
    REQUIRE(there.size() <= made_.size());
    // The oldest go first.
    CHECK(there == std::vector<std::string>(
                       made_.begin(), made_.begin() + static_cast<std::ptrdiff_t>(there.size())));
    CHECK(platform_.damage() == "");
    return there.size() < made_.size() && (there.size() > 1 || !platform_.leavings().empty());
  }
  // A prune finishes it, or the next backup clears away what is in the trash.
  void are_finished(bool by_prune) const {
    if (by_prune)
      CHECK(platform_.zx({"backup", "prune", "--yes"}).exit == 0);
    else
      platform_.back_up();
    CHECK(platform_.leavings() == "");
    CHECK(platform_.damage() == "");
    if (by_prune) CHECK(platform_.ids() == std::vector<std::string>{made_.front()});
  }

 private:
  const Platform& platform_;
  std::string copy_;
  std::vector<std::string> made_;
};

}  // namespace

TEST_CASE("a prune that is killed at any moment leaves whole sets, and is finished") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured one(platform, databases_in(platform), "databases = [\"zhi_xuan_user\"]");
  // However many days they are of: it may be midnight.
  const Configured newest(platform, "[backup]",
                          "[backup.retention]\ndaily = 1\nweekly = 0\nmonthly = 0\n\n[backup]");
  const Sets sets(platform);
  const std::vector<std::string> prune{"backup", "prune", "--yes"};
  constexpr int kKills = 20;
  Moments moments(took(platform, prune), kKills);
  int killed = 0;
  for (int i = 0; i < kKills; ++i) {
    const auto moment = moments.next();
    CAPTURE(i);
    CAPTURE(moment.count());
    sets.put_back();
    const int exit = kill_after(platform, moment, prune);
    CHECK((exit == 0 || exit == -SIGKILL));
    killed += exit == 0 ? 0 : 1;
    (void)sets.are_whole();
    sets.are_finished(i % 4 != 0);
  }
  // Most of its time is its start: in each of its steps, too.
  int halfway = 0;
  for (const auto& [call, every] : {std::pair("renameat", 1), {"fsync", 1}, {"unlinkat", 9}}) {
    for (int count = 1;; count += every) {
      const std::string step = call;
      CAPTURE(step);
      CAPTURE(count);
      sets.put_back();
      const auto result = platform.zx_killed_in(call, count, prune);
      if (result.signal != SIGKILL) {
        CHECK_MESSAGE(result.exit == 0, (result.out + result.err));
        CHECK(count > 1);
        break;
      }
      halfway += sets.are_whole() ? 1 : 0;
      sets.are_finished(count % 4 != 0);
    }
  }
  MESSAGE(killed << " of " << kKills << " were killed, " << halfway << " halfway by the step");
  CHECK(halfway > 8);
}

}  // namespace zx
