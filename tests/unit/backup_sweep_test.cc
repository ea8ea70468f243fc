// What is removed in a repository, by whose hands ever its names come.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "lib/backup/known_repository.h"
#include "lib/backup/removal.h"
#include "lib/backup/run.h"
#include "tests/backup_sets.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;
using test::moment;
using test::names_in;
using test::put_set;
using Names = std::vector<std::string>;

constexpr const char* kSet = "20261122T020000-aaaa";

struct Scene {
  test::Directory directory;
  Repository repository = test::make_repository(directory / "备份");
  std::string root = repository.path();
  Scene() { put_set(repository, {kSet, moment("2026-11-22T02:00"), {"needed.tar.zst"}}); }
  [[nodiscard]] Result<Repository::Swept> sweep() const { return test::sweep(repository); }
};

bool has(const Names& lines, const std::string& words) {
  return join(lines, "\n").find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("a name that is no archive stays where it is, and the rest goes") {
  const Scene scene;
  fs::create_directory(scene.root + "/archives/lost+found");
  test::write(scene.root + "/archives/unneeded.tar.zst", "x");
  test::write(scene.root + "/incoming/lost+found/file", "x");
  test::write(scene.root + "/trash/20261121T020000-bbbb/deep/er/file", "x");
  for (int i = 0; i < 2; ++i) {
    const auto swept = scene.sweep();
    REQUIRE_MESSAGE(swept.has_value(), (swept ? "" : swept.error().message));
    CHECK(swept->warnings.size() == 1);
    CHECK(has(swept->warnings, scene.root + "/archives/lost+found"));
    CHECK(swept->archives == 1 - i);
    CHECK(swept->runs == 1 - i);
    CHECK(names_in(scene.root + "/archives") == Names{"lost+found", "needed.tar.zst"});
    CHECK(names_in(scene.root + "/incoming").empty());
    CHECK(names_in(scene.root + "/trash").empty());
  }
}

TEST_CASE("who puts a link in the place of incoming while it is swept leads it nowhere else") {
  const Scene scene;
  const auto incoming = scene.root + "/incoming", away = scene.root + "/away";
  const auto victim = scene.directory / "etc-of-another";
  int swept = 0;
  for (int round = 0; round < 500 && swept < 20; ++round) {
    test::write(victim + "/b/file", "root's");
    for (int i = 0; i < 300; ++i) test::write(incoming + "/a/" + std::to_string(i), "");
    test::write(incoming + "/b/file", "");
    std::atomic<bool> is_over{false};
    std::thread enemy([&] {
      std::error_code ignored;
      while (!is_over) {
        fs::rename(incoming, away, ignored);
        fs::create_directory_symlink(victim, incoming, ignored);
        fs::remove(incoming, ignored);
        fs::rename(away, incoming, ignored);
      }
    });
    swept += scene.sweep() ? 1 : 0;
    is_over = true;
    enemy.join();
    REQUIRE(fs::exists(victim + "/b/file"));
  }
  CHECK(swept > 0);
}

TEST_CASE(
    "what is removed is what lies in the open directory, whatever its path leads to by then") {
  const test::Directory directory;
  test::write(directory / "folder/etc/mine", "");
  test::write(directory / "other/etc/file", "");
  const os::Descriptor folder(::open((directory / "folder").c_str(), O_RDONLY | O_DIRECTORY));
  REQUIRE(folder);
  fs::rename(directory / "folder", directory / "moved");
  fs::create_directory_symlink(directory / "other", directory / "folder");
  fs::create_directory_symlink(directory / "other", directory / "moved/etc/link");
  const auto cannot = [](const std::string& path, int number) {
    return errno_error(Code::io, "cannot remove " + path, number);
  };
  const auto removed = remove_in(folder, "etc", directory / "folder/etc", cannot);
  CHECK_MESSAGE(removed.has_value(), (removed ? "" : removed.error().message));
  CHECK(remove_in(folder, "gone", directory / "folder/gone", cannot).has_value());
  CHECK(names_in(directory / "moved").empty());
  CHECK(fs::exists(directory / "other/etc/file"));
}

TEST_CASE(
    "a lock that is no plain file of the repository alone is neither given away nor written") {
  const Scene scene;
  const auto lock = scene.root + "/lock", outside = scene.directory / "outside";
  test::write(outside, "another's");
  fs::remove(lock);
  SUBCASE("another name of a file elsewhere") { fs::create_hard_link(outside, lock); }
  SUBCASE("a FIFO") { REQUIRE(mkfifo(lock.c_str(), 0600) == 0); }
  CHECK(scene.repository.lock_to_write("a test").error().code == Code::refused);
  CHECK(scene.repository.lock_to_read().error().code == Code::refused);
  CHECK(test::read(outside) == "another's");
}

TEST_CASE("what was known of repositories and cannot be read is put aside") {
  const test::Directory state;
  const auto file = state / "repository.json";
  REQUIRE(know_repository(state.path(), "/srv/a", "1").value() == "");
  test::write(file, "{\"repositories\": {\"/srv/a\": ");
  const auto aside = know_repository(state.path(), "/srv/b", "2");
  REQUIRE(aside.has_value());
  CHECK(aside->starts_with(file + ".bad-"));
  CHECK(test::read(*aside) == "{\"repositories\": {\"/srv/a\": ");
  CHECK(known_repository(state.path(), "/srv/b").value() == "2");
  CHECK_FALSE(known_repository(state.path(), "/srv/a")->has_value());
  CHECK(know_repository(state.path(), "/srv/c", "3").value() == "");
}

TEST_CASE("a tree that is empty and had files in the newest set with it is not backed up") {
  const test::Directory directory;
  config::Config config;
  auto& files = config.backup.files.emplace_back();
  files.name = "上传";
  files.path = directory / "tree";
  fs::create_directory(files.path);
  const auto set_of = [&](const std::string& id, std::uint64_t count) {
    Entry entry;
    entry.id = id;
    entry.set = Set();
    entry.set->files.emplace_back();
    entry.set->files.back().name = files.name;
    entry.set->files.back().path = files.path;
    entry.set->files.back().files = count;
    return entry;
  };
  const std::vector<Source> all{Source::redis, Source::files};
  CHECK(has_what_it_had({}, config, all).has_value());
  std::vector<Entry> sets{set_of("new", 3), set_of("old", 1)};
  const auto refused = has_what_it_had(sets, config, all);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::refused);
  CHECK(refused.error().message == files.path + " is empty, and had 2 files in set new");
  CHECK(refused.error().hint.find("--accept-empty") != std::string::npos);
  CHECK(has_what_it_had(sets, config, {Source::redis}).has_value());
  // One was made of it so, and is the newest now.
  std::swap(sets.front(), sets.back());
  CHECK(has_what_it_had(sets, config, all).has_value());
  std::swap(sets.front(), sets.back());
  // Of another directory nothing is said.
  sets.front().set->files.back().path = directory / "before";
  CHECK(has_what_it_had(sets, config, all).has_value());
  sets.front().set->files.back().path = files.path;
  test::write(files.path + "/file", "");
  CHECK(has_what_it_had(sets, config, all).has_value());
}

}  // namespace zx::backup
