#include <doctest/doctest.h>

#include <filesystem>

#include "lib/backup/files_swap.h"
#include "lib/backup/restore.h"
#include "tests/support.h"

namespace zx::backup {
namespace {

TEST_CASE("what is mounted at a path or below it is found, whatever its name") {
  const std::string mounts =
      "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
      "23 22 0:41 / /app/uploads-old rw - nfs4 nas:/old rw\n"
      "24 22 0:42 / /app/new\\040uploads/a\\134b rw shared:7 - nfs4 nas:/new rw\n"
      "25 22 0:43 / /srv rw - tmpfs tmpfs rw\n";
  CHECK(mount_within(mounts, "/srv") == "/srv");
  CHECK(mount_within(mounts, "/app/new uploads") == "/app/new uploads/a\\b");
  CHECK_FALSE(mount_within(mounts, "/app/uploads").has_value());
  CHECK_FALSE(mount_within(mounts, "/srv/tree").has_value());
  CHECK_FALSE(mount_within("garbage\n\n1 2\n", "/srv").has_value());
}

TEST_CASE("a tree without what was loaded for it is not taken for swapped") {
  const test::Directory dir;
  const auto path = dir.path() + "/uploads";
  const auto make = [](const std::string& at) {
    REQUIRE(std::filesystem::create_directory(at));
    return inode_of(at).value();
  };
  const auto loaded = make(aside_path(path));
  const auto old = make(path);
  CHECK_FALSE(had_tree(path + "-other"));
  CHECK(had_tree(path));
  REQUIRE(swap_tree_in(path, loaded).has_value());
  CHECK(inode_of(path).value() == loaded);
  CHECK(inode_of(kept_path(path)).value() == old);
  CHECK(had_tree(path));
  CHECK(swap_tree_in(path, loaded).has_value());  // once more
  REQUIRE(swap_tree_back(path, true).has_value());
  CHECK(inode_of(path).value() == old);

  REQUIRE(remove_tree(aside_path(path)).has_value());
  const auto gone = swap_tree_in(path, loaded);
  REQUIRE_FALSE(gone.has_value());
  CHECK(gone.error().code == Code::refused);
  CHECK_FALSE(swap_tree_in(path, 0).has_value());
  make(aside_path(path) + "-later");
  std::filesystem::rename(aside_path(path) + "-later", aside_path(path));
  CHECK_FALSE(swap_tree_in(path, 1).has_value());  // another directory of that name
  CHECK(inode_of(path).value() == old);
}

TEST_CASE("a tree is removed with all that it has, and nothing that it leads to") {
  const test::Directory dir;
  const auto path = dir.path() + "/uploads", other = dir.path() + "/other";
  std::filesystem::create_directories(path + "/a/b");
  std::filesystem::create_directories(other);
  test::write(path + "/a/b/file", "x");
  test::write(other + "/file", "x");
  std::filesystem::create_directory_symlink(other, path + "/a/link");
  std::filesystem::create_directory_symlink("/nowhere", path + "/dangling");
  CHECK(remove_tree(path).has_value());
  CHECK_FALSE(std::filesystem::exists(std::filesystem::symlink_status(path)));
  CHECK(std::filesystem::exists(other + "/file"));
  CHECK(remove_tree(path).has_value());
  CHECK(remove_tree(path + "/below/that").has_value());
  std::filesystem::create_directory_symlink(other, path);
  CHECK(remove_tree(path).has_value());
  CHECK(std::filesystem::exists(other + "/file"));
}

TEST_CASE("a receipt says that what it names is being removed") {
  const test::Directory dir;
  Kept kept;
  kept.run = "r";
  kept.committing = true;
  REQUIRE(write_kept(dir.path(), kept).has_value());
  const auto read = read_kept(dir.path());
  REQUIRE((read.has_value() && read->has_value()));
  CHECK((*read)->committing);
}

}  // namespace
}  // namespace zx::backup
