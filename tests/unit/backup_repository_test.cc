// What a repository does beside others who read, write and put things into it.
#include "lib/backup/repository.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/known_repository.h"
#include "lib/backup/repository_owner.h"
#include "lib/backup/run.h"
#include "lib/base/clock.h"
#include "lib/base/ids.h"
#include "tests/backup_sets.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;
using test::moment;
using test::names_in;
using test::put_set;
using Names = std::vector<std::string>;

constexpr const char* kOld = "20261122T020000-aaaa";
constexpr const char* kNew = "20261124T020000-cccc";

struct Scene {
  test::Directory directory;
  Repository repository = test::make_repository(directory / "备份");
  Scene() {
    put_set(repository, {kOld, moment("2026-11-22T02:00"), {"old.tar.zst"}});
    put_set(repository, {kNew, moment("2026-11-24T02:00"), {"new.tar.zst"}});
  }
  [[nodiscard]] Names archives() const { return names_in(repository.path() + "/archives"); }
  [[nodiscard]] Result<Repository::Swept> sweep() const { return test::sweep(repository); }
};

Check check_of(const std::string& host) {
  Check check;
  check.at = moment("2026-11-24T03:00");
  check.ok = true;
  check.host = host;
  return check;
}

// On this thread and all others, for as long as it is there.
class AsNobody {
 public:
  AsNobody() { REQUIRE(seteuid(65534) == 0); }
  ~AsNobody() { (void)!seteuid(0); }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
};

class StandingClock final : public Clock {
 public:
  explicit StandingClock(Wall at) : at_(at) {}
  [[nodiscard]] Monotonic now() const override { return system_clock().now(); }
  [[nodiscard]] Wall wall() const override { return at_; }
  void pause(Millis span) override { system_clock().pause(span); }

 private:
  Wall at_;
};

}  // namespace

TEST_CASE("the archives of a set that is a link to nowhere stay") {
  const Scene scene;
  fs::rename(scene.repository.set_path(kOld), scene.directory / "elsewhere");
  fs::create_directory_symlink(scene.directory / "unmounted", scene.repository.set_path(kOld));
  const auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  REQUIRE(entries->size() == 2);
  CHECK_FALSE(entries->back().set.has_value());
  const auto swept = scene.sweep();
  REQUIRE(swept.has_value());
  CHECK(scene.archives() == Names{"new.tar.zst", "old.tar.zst"});
  CHECK(swept->archives_stay.find(kOld) != std::string::npos);
  CHECK_FALSE(scene.repository.set("20261122T020000-bbbb").has_value());
  // What is really gone is.
  fs::remove(scene.repository.set_path(kOld));
  REQUIRE(scene.sweep().has_value());
  CHECK(scene.archives() == Names{"new.tar.zst"});
}

TEST_CASE("a lock that somebody took away is noticed before anything is deleted") {
  const Scene scene;
  const auto lock = scene.repository.path() + "/lock";
  const auto writing = scene.repository.lock_to_write("a test");
  REQUIRE(writing.has_value());
  CHECK(writing->is_held().has_value());
  SUBCASE("removed") { fs::remove(lock); }
  SUBCASE("replaced") {
    test::write(lock + "2", "");
    fs::rename(lock + "2", lock);
  }
  test::write(scene.repository.path() + "/archives/another.tar.zst", "of a run that has it now");
  CHECK(writing->is_held().error().code == Code::locked);
  const auto swept = scene.repository.sweep(*writing);
  REQUIRE_FALSE(swept.has_value());
  CHECK(swept.error().code == Code::locked);
  CHECK(scene.archives().size() == 3);
}

TEST_CASE("who may only read takes the lock of readers as well") {
  if (geteuid() != 0) return;
  const Scene scene;
  const auto root = scene.repository.path();
  REQUIRE(chmod(scene.directory.path().c_str(), 0755) == 0);
  for (const auto& path :
       {root, root + "/sets", root + "/archives", root + "/incoming", root + "/trash"})
    REQUIRE(chmod(path.c_str(), 0755) == 0);
  REQUIRE(chmod((root + "/zx-repository.json").c_str(), 0644) == 0);
  test::write(root + "/lock", "");
  REQUIRE(chmod((root + "/lock").c_str(), 0644) == 0);
  const auto read = [&] {
    const AsNobody nobody;
    const auto repository = Repository::open(root);
    REQUIRE(repository.has_value());
    return repository->lock_to_read();
  };
  {
    const auto reading = read();
    REQUIRE(reading.has_value());
    CHECK(reading->has_value());
    CHECK(scene.repository.lock_to_delete().error().code == Code::locked);
  }
  {
    const auto deleting = scene.repository.lock_to_delete();
    REQUIRE(deleting.has_value());
    CHECK(read().error().code == Code::locked);
  }
  // Nobody has locked anything here yet: there is nothing to share.
  fs::remove(root + "/lock");
  const auto reading = read();
  REQUIRE(reading.has_value());
  CHECK_FALSE(reading->has_value());
}

TEST_CASE("verifications that end at once are all remembered") {
  const Scene scene;
  constexpr int kEach = 25;
  const auto remember = [&](const std::string& host) {
    for (int i = 0; i < kEach; ++i)
      if (!scene.repository.remember(kNew, check_of(host + std::to_string(i)))) return;
  };
  std::thread other(remember, "a");
  remember("b");
  other.join();
  const auto entry = scene.repository.set(kNew);
  REQUIRE(entry.has_value());
  CHECK(entry->checks.size() == 2 * kEach);
}

TEST_CASE("what a verification left that was killed is swept, and that of one at work is not") {
  const Scene scene;
  const auto left = scene.repository.set_path(kOld) + "/trust.json.tmp-0badcafe";
  test::write(left, "{\"set\": ");
  REQUIRE(scene.repository.remember(kOld, check_of("here")).has_value());
  REQUIRE(scene.sweep().has_value());
  CHECK_FALSE(fs::exists(left));
  CHECK(scene.repository.set(kOld)->checks.size() == 1);
  test::write(left, "{\"set\": ");
  const auto writing = RepositoryLock::take(
      {.path = scene.repository.path() + "/lock", .byte = RepositoryLock::Byte::checks});
  REQUIRE(writing.has_value());
  REQUIRE(scene.sweep().has_value());
  CHECK(fs::exists(left));
}

TEST_CASE("what becomes a link while it is read is not followed") {
  const Scene scene;
  const auto trust = scene.repository.set_path(kOld) + "/trust.json";
  const auto outside = scene.directory / "outside";
  REQUIRE(scene.repository.remember(kOld, check_of("outside")).has_value());
  fs::rename(trust, outside);
  REQUIRE(scene.repository.remember(kOld, check_of("here")).has_value());
  fs::copy_file(trust, scene.directory / "plain");
  std::atomic<bool> is_over{false};
  std::atomic<int> swaps{0};
  std::thread enemy([&] {
    const auto next = scene.directory / "next";
    for (; !is_over; ++swaps) {
      fs::create_symlink(outside, next);
      fs::rename(next, trust);
      fs::copy_file(scene.directory / "plain", next);
      fs::rename(next, trust);
    }
  });
  int followed = 0, plain = 0;
  for (int i = 0; i < 3000 || swaps < 300; ++i) {
    const auto entry = scene.repository.set(kOld);
    if (!entry) continue;
    for (const auto& check : entry->checks) ++(check.host == "outside" ? followed : plain);
  }
  is_over = true;
  enemy.join();
  CHECK(followed == 0);
  CHECK(plain > 0);
}

TEST_CASE("only a plain file of the repository alone is given to its owner") {
  if (geteuid() != 0) return;
  const Scene scene;
  const auto root = scene.repository.path(), outside = scene.directory / "outside";
  test::write(outside, "root's");
  const os::Owner other{65534, 65534};
  const auto owner = [](const std::string& path) {
    struct stat found {};
    REQUIRE(lstat(path.c_str(), &found) == 0);
    return found.st_uid;
  };
  const std::string name = "archives/20261124T020000-cccc-x.tar.zst";
  SUBCASE("a link") { fs::create_symlink(outside, root + "/" + name); }
  SUBCASE("a second name") { fs::create_hard_link(outside, root + "/" + name); }
  SUBCASE("a directory that is a link") {
    fs::remove_all(root + "/archives");
    fs::create_directory(scene.directory / "etc");
    test::write(scene.directory / "etc/20261124T020000-cccc-x.tar.zst", "root's");
    fs::create_directory_symlink(scene.directory / "etc", root + "/archives");
  }
  CHECK_FALSE(give_away(root, name, other).has_value());
  CHECK(owner(outside) == 0);
  if (fs::exists(scene.directory / "etc"))
    CHECK(owner(scene.directory / "etc/20261124T020000-cccc-x.tar.zst") == 0);
  CHECK(give_away(root, std::string("sets/") + kNew, other).has_value());
  for (const auto& entry : fs::recursive_directory_iterator(scene.repository.set_path(kNew)))
    CHECK(owner(entry.path()) == 65534);
}

TEST_CASE("a run takes another id where its own is taken") {
  const test::Directory directory;
  config::Config config;
  config.platform.state_dir = directory / "state";
  config.backup.repository = directory / "repository";
  config.backup.spare = 1;
  test::write(directory / "tree/file", "text");
  config.backup.files.push_back({});
  config.backup.files.back().name = "tree";
  config.backup.files.back().path = directory / "tree";
  StandingClock clock(moment("2026-11-24T02:00"));
  const ScopedClock scoped(clock);
  // Of all ids there are three.
  int drawn = 0;
  const ScopedRandom random([&drawn] {
    constexpr unsigned char kBytes[] = {0xaa, 0xbb, 0xcc};
    return kBytes[drawn++ / 2 % 3];
  });
  for (int i = 0; i < 3; ++i) {
    const auto ran = run_backup(config, {});
    CHECK_MESSAGE(ran.has_value(), (ran ? "" : ran.error().message));
  }
  CHECK(names_in(config.backup.repository + "/sets").size() == 3);
  const auto none = run_backup(config, {});
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().message.find("no id is free") != std::string::npos);
}

TEST_CASE("of a repository its id is known, and no other takes its place unasked") {
  const test::Directory directory;
  const auto state = directory / "state";
  REQUIRE(known_repository(state, "/srv/备份").has_value());
  CHECK_FALSE(known_repository(state, "/srv/备份")->has_value());
  REQUIRE(know_repository(state, "/srv/备份", "0badcafe").has_value());
  REQUIRE(know_repository(state, "/srv/b", "1").has_value());
  CHECK(known_repository(state, "/srv/备份").value() == "0badcafe");
  CHECK(is_expected("/a", {}, {}).has_value());
  CHECK(is_expected("/a", {}, "1").has_value());
  CHECK(is_expected("/a", "1", "1").has_value());
  CHECK(is_expected("/a", "1", "2").error().code == Code::refused);
  CHECK(is_expected("/a", "1", {}).error().code == Code::refused);
}

}  // namespace zx::backup
