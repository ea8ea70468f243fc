// What is left out of a tree, and what vanishes while it is looked at.
#include "lib/backup/files_walk.h"

#include <fcntl.h>

#include "lib/backup/files_lister.h"
#include "tests/unit/backup_files_scene.h"

namespace zx::backup {
namespace {

using test::FilesScene;

bool says(const FilesPart& part, const std::string& words) {
  return join(part.warnings, "\n").find(words) != std::string::npos;
}

TEST_CASE("a repository that lies in the tree, by whatever path, is left out") {
  FilesScene scene;
  scene.write("a", "1");
  scene.write("all/b", "2");
  std::filesystem::rename(scene.directory / "repository", scene.tree + "/all/repository");
  std::filesystem::create_directory_symlink(scene.tree + "/all/repository",
                                            scene.directory / "link");
  auto there = Repository::open(scene.directory / "link");
  REQUIRE_MESSAGE(there.has_value(), there.error().message);
  scene.repository = *std::move(there);
  for (int i = 0; i < 2; ++i) {
    const auto part = scene.backed_up();
    CHECK(part.files == 4);
    CHECK(part.bytes == 2);
    CHECK(says(part, "all/repository is a directory of zx's own, and is left out"));
    CHECK(part.warnings.size() == 1);
  }
  scene.what.path = scene.directory / "link";
  const auto part = scene.back_up();
  REQUIRE_FALSE(part.has_value());
  CHECK(part.error().code == Code::config);
}

TEST_CASE("other directories that zx works in are left out too") {
  FilesScene scene;
  scene.write("a", "1");
  scene.write("state/scratch/b", "2");
  std::filesystem::create_directory_symlink(scene.tree + "/state", scene.directory / "state");
  REQUIRE(scene.repository.begin(FilesScene::id(1)).has_value());
  FilesJob job{scene.what, FilesScene::id(1)};
  job.own = {scene.directory / "state", scene.directory / "not there"};
  const auto part = back_up_files(scene.repository, job);
  REQUIRE_MESSAGE(part.has_value(), part.error().message);
  CHECK(part->files == 2);
  CHECK(says(*part, "state is a directory of zx's own, and is left out"));
}

TEST_CASE("a directory that is removed once it is open has vanished") {
  FilesScene scene;
  const auto path = scene.tree + "/goes";
  std::filesystem::create_directory(path);
  os::Descriptor open(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(open.get() >= 0);
  std::filesystem::remove(path);
  const auto listing = Lister::list_open(std::move(open), path);
  REQUIRE_FALSE(listing.has_value());
  CHECK(listing.error().code == Code::not_found);
}

TEST_CASE(
    "what a server of the network has removed has vanished, what it cannot give is an error") {
  CHECK(cannot_read("read", "a", ENOENT).code == Code::not_found);
  CHECK(cannot_read("read", "a", ESTALE).code == Code::not_found);
  CHECK(cannot_read("read", "a", EACCES).code == Code::auth);
  CHECK(cannot_read("read", "a", EIO).code == Code::io);
}

}  // namespace
}  // namespace zx::backup
