// A tree of files and a repository for it.
#pragma once

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lib/backup/files_archive.h"
#include "lib/backup/files_restore.h"
#include "lib/backup/files_source.h"
#include "lib/backup/repository.h"
#include "tests/support.h"

namespace zx::test {

// Everything of a tree that a restore brings back, by path.
inline std::map<std::string, std::string> tree_of(const std::string& root, bool with_ns = true) {
  std::map<std::string, std::string> tree;
  const auto add = [&](const std::string& path, const std::string& name) {
    struct stat found {};
    REQUIRE(lstat(path.c_str(), &found) == 0);
    auto text = fmt::format("{:o} {}:{} {}.{}", found.st_mode, found.st_uid, found.st_gid,
                            found.st_mtim.tv_sec, with_ns ? found.st_mtim.tv_nsec : 0);
    if (S_ISLNK(found.st_mode)) text += " " + std::filesystem::read_symlink(path).string();
    if (S_ISREG(found.st_mode)) text += fmt::format(" {}", found.st_size);
    if (S_ISREG(found.st_mode) && found.st_size < (64 << 20)) text += " " + read(path);
    tree[name] = text;
  };
  add(root, ".");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root))
    add(entry.path().string(), entry.path().lexically_relative(root).string());
  return tree;
}

struct FilesScene {
  Directory directory;
  std::string tree = directory / "tree";
  backup::Repository repository = *backup::Repository::open_or_make(directory / "repository");
  config::BackupFiles what;
  std::optional<backup::Set> last;
  int runs = 0;

  FilesScene() {
    what.name = "uploads";
    what.path = tree;
    std::filesystem::create_directories(tree);
  }
  void write(const std::string& name, const std::string& text) const {
    test::write(tree + "/" + name, text);
  }
  [[nodiscard]] static std::string id(int number) {
    return fmt::format("20261126T12{:02}{:02}-a1f3", number / 60, number % 60);
  }
  // Until a change of the tree can no longer have the times of the one before.
  void settle() const {
    const auto newest = [&] {
      std::int64_t most = 0;
      const auto look = [&](const std::string& path) {
        struct stat found {};
        REQUIRE(lstat(path.c_str(), &found) == 0);
        most = std::max(most, found.st_ctim.tv_sec * 1'000'000'000L + found.st_ctim.tv_nsec);
      };
      look(tree);
      for (const auto& entry : std::filesystem::recursive_directory_iterator(tree))
        look(entry.path().string());
      return most;
    }();
    const auto deadline = Deadline::after(Millis(10'000));
    const auto now = [] {
      timespec time{};
      clock_gettime(CLOCK_REALTIME, &time);
      return time.tv_sec * 1'000'000'000L + time.tv_nsec;
    };
    while (now() < newest + 200'000'000 && !deadline.passed()) pause_for(Millis(5));
    REQUIRE_FALSE(deadline.passed());
  }
  // A set of this tree alone, published when it worked.
  Result<backup::FilesPart> back_up() {
    const auto set_id = id(++runs);
    ZX_TRY(repository.begin(set_id));
    backup::FilesJob job{what, set_id, last ? &*last : nullptr};
    ZX_ASSIGN(auto part, backup::back_up_files(repository, job));
    backup::Set set;
    set.id = set_id;
    set.host = "here";
    set.platform = "shop";
    set.zx_version = "1";
    set.begun = set.ended = wall_now();
    set.files.push_back(part);
    ZX_TRY(repository.publish(set));
    const auto again = repository.set(set_id);
    REQUIRE(again.has_value());
    REQUIRE_MESSAGE(again->set.has_value(), again->set.error().message);
    last = *again->set;
    return last->files.front();
  }
  backup::FilesPart backed_up() {
    settle();
    const auto part = back_up();
    REQUIRE_MESSAGE(part.has_value(), part.error().message);
    return *part;
  }
  [[nodiscard]] Result<backup::FilesRestored> restore(const backup::FilesPart& part,
                                                      const std::string& name,
                                                      std::vector<std::string> only = {}) const {
    backup::FilesRestore job;
    job.into = directory / name;
    job.only = std::move(only);
    return backup::restore_files(repository, part, job);
  }
  void check_comes_back(const backup::FilesPart& part, const std::string& name) const {
    const auto restored = restore(part, name);
    REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
    CHECK(restored->files == part.files);
    CHECK(restored->bytes == part.bytes);
    CHECK(tree_of(directory / name) == tree_of(tree));
    const auto decoded = backup::decode_files(repository, part);
    CHECK_MESSAGE(decoded.has_value(), decoded.error().message);
  }
  [[nodiscard]] std::vector<backup::IndexEntry> index_of(const backup::FilesPart& part) const {
    auto object = backup::ObjectReader::open(repository, part.index);
    REQUIRE(object.has_value());
    backup::IndexReader reader([&] { return object->next(); });
    std::vector<backup::IndexEntry> entries;
    backup::IndexEntry entry;
    while (true) {
      const auto has = reader.next(entry);
      REQUIRE_MESSAGE(has.has_value(), has.error().message);
      if (!*has) return entries;
      entries.push_back(entry);
    }
  }
};

}  // namespace zx::test
