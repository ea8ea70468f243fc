// Restores of files: damages, hostile archives and indexes, targets that are not what they seem.
#include "lib/backup/files_restore.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "lib/os/sha256.h"
#include "lib/os/signals.h"
#include "tests/unit/backup_files_scene.h"

namespace zx::backup {
namespace {

using test::FilesScene;

std::string sum_of(const std::string& text) {
  os::Sha256 hash;
  hash.feed(text);
  return hash.hex();
}

// A member as any tar may write it; of a path and target of less than 100 bytes.
std::string member(const std::string& path, char type, const std::string& content = {},
                   const std::string& target = {}, std::uint64_t size = 0) {
  std::string head(512, '\0');
  const auto put = [&](std::size_t at, const std::string& text) {
    head.replace(at, text.size(), text);
  };
  put(0, path);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", size > 0 ? size : content.size()));
  put(136, "00000000000");
  put(148, "        ");
  put(156, std::string(1, type));
  put(157, target);
  put(257, std::string("ustar\00000", 8));
  unsigned sum = 0;
  for (const char letter : head) sum += static_cast<unsigned char>(letter);
  put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  auto body = content;
  body.resize((content.size() + 511) / 512 * 512, '\0');
  return head + body;
}

IndexEntry file_entry(const std::string& path, const std::string& content) {
  IndexEntry entry;
  entry.mode = 0644;
  entry.uid = geteuid();
  entry.gid = getegid();
  entry.size = content.size();
  entry.sha256 = sum_of(content);
  entry.set = FilesScene::id(1);
  entry.path = path;
  return entry;
}
IndexEntry other_entry(char type, const std::string& path, const std::string& target = {}) {
  auto entry = file_entry(path, {});
  entry.type = type;
  entry.mode = 0755;
  entry.sha256.clear();
  entry.target = target;
  return entry;
}

// A set whose manifest agrees with whatever its archive and index are.
FilesPart made_by_an_enemy(const FilesScene& scene, std::string tar,
                           const std::vector<IndexEntry>& entries) {
  tar += std::string(1024, '\0');
  const auto store = [&](const std::string& path, const std::string& bytes) {
    const auto file = scene.repository.path() + "/" + path;
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::filesystem::remove(file);
    auto writer = ObjectWriter::create(file, path, 3);
    REQUIRE(writer.has_value());
    REQUIRE(writer->write(bytes).has_value());
    const auto object = writer->finish();
    REQUIRE(object.has_value());
    return *object;
  };
  FilesPart part;
  part.name = "uploads";
  part.path = scene.tree;
  part.archives = {store(archive_path(FilesScene::id(1), "uploads"), tar)};
  auto text = index_head(1);
  for (const auto& entry : entries) {
    append_line(text, entry);
    ++part.files;
    part.bytes += entry.size;
  }
  part.index = store("sets/" + FilesScene::id(1) + "/files/uploads.index.zst", text);
  return part;
}

void check_refused(const FilesScene& scene, const FilesPart& part, const std::string& words) {
  const auto decoded = decode_files(scene.repository, part);
  REQUIRE_FALSE(decoded.has_value());
  CHECK(decoded.error().code == Code::failed);
  CHECK_MESSAGE(decoded.error().message.find(words) != std::string::npos, decoded.error().message);
  std::filesystem::remove_all(scene.directory / "back");
  const auto restored = scene.restore(part, "back");
  REQUIRE_FALSE(restored.has_value());
  CHECK(restored.error().code == Code::failed);
  CHECK(restored.error().message == decoded.error().message);
}

const std::string kRoot = member("./", '5');

TEST_CASE("an archive of an ordinary tar is read") {
  FilesScene scene;
  const auto part = made_by_an_enemy(
      scene, kRoot + member("a", '0', "content") + member("l", '2', "", "/etc/passwd"),
      {other_entry('d', "."), file_entry("a", "content"), other_entry('l', "l", "/etc/passwd")});
  CHECK(decode_files(scene.repository, part).has_value());
  const auto restored = scene.restore(part, "back");
  REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
  CHECK(test::read(scene.directory / "back/a") == "content");
}

TEST_CASE("a member that leads out of the tree is refused") {
  FilesScene scene;
  const auto index = std::vector{other_entry('d', "."), file_entry("a", "x")};
  for (const char* path : {"../a", "/tmp/a", "d/../../a", "a/.."}) {
    CAPTURE(path);
    check_refused(scene, made_by_an_enemy(scene, kRoot + member(path, '0', "x"), index),
                  "a member's path leads elsewhere");
  }
}

TEST_CASE("a member of a kind that zx does not write is refused, wanted or not") {
  FilesScene scene;
  const auto index = std::vector{other_entry('d', "."), file_entry("a", "x")};
  const auto good = member("a", '0', "x");
  for (const char type : {'3', '4', '6'})
    check_refused(scene, made_by_an_enemy(scene, kRoot + good + member("b", type), index),
                  "b is no file, directory or symbolic link");
  check_refused(scene,
                made_by_an_enemy(scene, kRoot + good + member("b", '1', "", "/etc/passwd"), index),
                "b is a hard link");
  check_refused(scene, made_by_an_enemy(scene, kRoot + member("a", '1', "", "b"), index),
                "a is a hard link");
}

TEST_CASE("nothing is written through a link of the archive") {
  FilesScene scene;
  const auto outside = scene.directory / "outside";
  std::filesystem::create_directory(outside);
  const auto tar = kRoot + member("a", '2', "", outside) + member("a/f", '0', "x");
  // The index cannot say so,
  check_refused(scene,
                made_by_an_enemy(scene, tar,
                                 {other_entry('d', "."), other_entry('l', "a", outside),
                                  file_entry("a/f", "x")}),
                "in a directory that it does not have");
  // and what it says is not what the archive has.
  check_refused(
      scene,
      made_by_an_enemy(scene, tar,
                       {other_entry('d', "."), other_entry('d', "a"), file_entry("a/f", "x")}),
      "a in archives/20261126T120001-a1f3-uploads.tar.zst is something else");
  check_refused(scene,
                made_by_an_enemy(scene, kRoot + member("a", '2', "", "/etc"),
                                 {other_entry('d', "."), other_entry('l', "a", "b")}),
                "is something else");
  CHECK(std::filesystem::is_empty(outside));
}

TEST_CASE("a member that the index does not name is not written") {
  FilesScene scene;
  const auto part = made_by_an_enemy(
      scene, kRoot + member("a", '0', "x") + member("b", '0', "evil") + member("c", '2', "", "/"),
      {other_entry('d', "."), file_entry("a", "x")});
  REQUIRE(scene.restore(part, "back").has_value());
  CHECK(test::tree_of(scene.directory / "back").size() == 2);
}

TEST_CASE("a file that is missing, longer, shorter or another is a damage that is named") {
  FilesScene scene;
  const auto index =
      std::vector{other_entry('d', "."), file_entry("a", "right"), file_entry("b", "x")};
  const auto b = member("b", '0', "x");
  check_refused(scene, made_by_an_enemy(scene, kRoot + b, index),
                "a in archives/20261126T120001-a1f3-uploads.tar.zst is missing");
  check_refused(scene, made_by_an_enemy(scene, kRoot + member("a", '0', "right"), index),
                "b in archives/20261126T120001-a1f3-uploads.tar.zst is missing");
  check_refused(scene, made_by_an_enemy(scene, b + kRoot + member("a", '0', "right"), index),
                " is missing");
  check_refused(scene, made_by_an_enemy(scene, kRoot + member("a", '0', "longer") + b, index),
                "has 6 bytes instead of 5");
  check_refused(scene, made_by_an_enemy(scene, kRoot + member("a", '0', "") + b, index),
                "has 0 bytes instead of 5");
  check_refused(scene, made_by_an_enemy(scene, kRoot + member("a", '0', "wrong") + b, index),
                "has another SHA-256");
}

TEST_CASE("of two members of one path the later one counts") {
  FilesScene scene;
  const auto index = std::vector{other_entry('d', "."), file_entry("a", "right")};
  for (const auto& before : {member("a", '0', "wrong"), member("a", '0', "longer than it"),
                             member("a", '0', "right"), std::string()}) {
    const auto part = made_by_an_enemy(scene, kRoot + before + member("a", '0', "right"), index);
    CHECK(decode_files(scene.repository, part).has_value());
    std::filesystem::remove_all(scene.directory / "back");
    REQUIRE(scene.restore(part, "back").has_value());
    CHECK(test::read(scene.directory / "back/a") == "right");
  }
  check_refused(
      scene,
      made_by_an_enemy(scene, kRoot + member("a", '0', "right") + member("a", '0', "wrong"), index),
      "has another SHA-256");
}

TEST_CASE("an archive that says more than it has is a damage") {
  FilesScene scene;
  auto huge = file_entry("a", "x");
  huge.size = 1ULL << 32;
  check_refused(scene,
                made_by_an_enemy(scene, kRoot + member("a", '0', "x", "", 1ULL << 32),
                                 {other_entry('d', "."), huge}),
                "a in archives/");
  // One that is not wanted too: its end is not where it must be.
  check_refused(
      scene,
      made_by_an_enemy(scene, kRoot + member("a", '0', "x") + member("z", '0', "x", "", 1 << 30),
                       {other_entry('d', "."), file_entry("a", "x")}),
      "is damaged");
}

TEST_CASE("a bomb is not inflated further than the manifest tells") {
  FilesScene scene;
  auto part = made_by_an_enemy(scene, kRoot + member("a", '0', std::string(50 << 20, '\0')),
                               {other_entry('d', "."), file_entry("a", "x")});
  part.archives.front().raw = 100'000;
  check_refused(scene, part, "");
}

TEST_CASE("an index that does not agree with the manifest is refused before anything is written") {
  FilesScene scene;
  const auto tar = kRoot + member("a", '0', "x");
  const auto index = std::vector{other_entry('d', "."), file_entry("a", "x")};
  auto more = made_by_an_enemy(scene, tar, index);
  ++more.files;
  check_refused(scene, more, "the manifest 3 of 1");
  CHECK(std::filesystem::is_empty(scene.directory / "back"));
  auto foreign = index;
  foreign[1].set = FilesScene::id(9);
  check_refused(scene, made_by_an_enemy(scene, tar, foreign), "which is none of its set's");
}

FilesPart damaged_scene(FilesScene& scene) {
  std::string noise;
  for (unsigned i = 0, state = 1; i < 400'000; ++i) {
    state = state * 1664525u + 1013904223u;
    noise += static_cast<char>(state >> 24);
  }
  for (int i = 0; i < 20; ++i)
    scene.write(fmt::format("d{}/f", i),
                noise.substr(static_cast<std::size_t>(i) * 20'000, 20'000));
  return scene.backed_up();
}

TEST_CASE("an archive that is cut is found, wherever, also when the manifest agrees") {
  FilesScene scene;
  const auto part = damaged_scene(scene);
  const auto path = scene.repository.path() + "/" + part.archives.front().path;
  const auto good = test::read(path);
  for (const auto size : {std::size_t{0}, good.size() / 100, good.size() / 20, good.size() / 2,
                          good.size() / 100 * 99, good.size() - 3}) {
    CAPTURE(size);
    test::write(path, good.substr(0, size));
    check_refused(scene, part, part.archives.front().path);
    auto agreed = part;
    agreed.archives.front().bytes = size;
    agreed.archives.front().sha256 = sum_of(good.substr(0, size));
    check_refused(scene, agreed, part.archives.front().path);
  }
}

TEST_CASE("one flipped bit is found, in the archive and in the index") {
  FilesScene scene;
  const auto part = damaged_scene(scene);
  for (const auto& object : {part.archives.front(), part.index}) {
    const auto path = scene.repository.path() + "/" + object.path;
    const auto good = test::read(path);
    for (int i = 0; i <= 10; ++i) {
      const auto at = (good.size() - 1) * static_cast<std::size_t>(i) / 10;
      CAPTURE(at);
      auto bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (i % 8)));
      test::write(path, bad);
      check_refused(scene, part, "");
    }
    test::write(path, good);
  }
  scene.check_comes_back(part, "whole");
}

TEST_CASE("a target that holds something, or is a link, is refused untouched") {
  FilesScene scene;
  scene.write("a", "1");
  const auto part = scene.backed_up();
  test::write(scene.directory / "full/mine", "mine");
  const auto full = scene.restore(part, "full");
  REQUIRE_FALSE(full.has_value());
  CHECK(full.error().code == Code::refused);
  CHECK(test::tree_of(scene.directory / "full").size() == 2);
  std::filesystem::create_directory(scene.directory / "elsewhere");
  std::filesystem::create_directory_symlink(scene.directory / "elsewhere",
                                            scene.directory / "link");
  const auto link = scene.restore(part, "link");
  REQUIRE_FALSE(link.has_value());
  CHECK(link.error().code == Code::refused);
  CHECK(std::filesystem::is_empty(scene.directory / "elsewhere"));
  CHECK(scene.restore(part, "elsewhere").has_value());
}

TEST_CASE("a link that somebody plants in the target while a restore is at work is not followed") {
  FilesScene scene;
  for (int i = 0; i < 3; ++i) scene.write(fmt::format("d{}/f", i), "x");
  const auto part = scene.backed_up();
  const auto outside = scene.directory / "outside";
  std::filesystem::create_directory(outside);
  const auto planted = scene.directory / "back/d1";
  const os::InterruptibleBy hook([&] {
    if (std::filesystem::is_directory(std::filesystem::symlink_status(planted))) {
      std::filesystem::rename(planted, scene.directory / "moved");
      std::filesystem::create_directory_symlink(outside, planted);
    }
    return false;
  });
  const auto restored = scene.restore(part, "back");
  REQUIRE_FALSE(restored.has_value());
  CHECK(restored.error().code == Code::refused);
  CHECK(std::filesystem::is_empty(outside));
}

TEST_CASE("some files alone come back, with the directories that lead to them") {
  FilesScene scene;
  for (const char* name : {"a/b/one.png", "a/b/two.txt", "a/c/three.png", "d/four.txt", "e/f/five"})
    scene.write(name, name);
  chmod((scene.tree + "/a").c_str(), 0750);
  const auto part = scene.backed_up();
  const auto restored = scene.restore(part, "back", {"*.png", "e"});
  REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
  CHECK(restored->files == 5);
  auto expected = test::tree_of(scene.tree);
  for (const char* name : {"a/b/two.txt", "d/four.txt", "d"}) expected.erase(name);
  CHECK(test::tree_of(scene.directory / "back") == expected);
  const auto none = scene.restore(part, "none", {"*.gif"});
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::not_found);
}

TEST_CASE("a restore that is given up, or passes its deadline, ends") {
  FilesScene scene;
  const auto part = damaged_scene(scene);
  {
    int asked = 0;
    const os::InterruptibleBy hook([&] { return ++asked > 30; });
    const auto restored = scene.restore(part, "back");
    REQUIRE_FALSE(restored.has_value());
    CHECK(restored.error().code == Code::interrupted);
  }
  FilesRestore job;
  job.into = scene.directory / "late";
  job.until = Deadline::after(Millis(0));
  const auto late = restore_files(scene.repository, part, job);
  REQUIRE_FALSE(late.has_value());
  CHECK(late.error().code == Code::timeout);
}

// As zx-repository(7) tells.
TEST_CASE("tar and zstd alone bring a tree back from several archives") {
  FilesScene scene;
  scene.write("config/app.toml", "port = 8080\n");
  scene.write("商品/图片 \\n \\ 1.png", "图");
  scene.write("new\nline", "x");
  scene.write("-T", "x");
  scene.write("*", "star");
  scene.write("bytes \xff", "x");
  scene.write("gone", "x");
  scene.write(std::string(200, 'l') + "/" + std::string(200, 'm'), "long");
  std::filesystem::create_symlink("config/app.toml", scene.tree + "/link");
  std::filesystem::create_directories(scene.tree + "/empty");
  REQUIRE(truncate((scene.tree + "/config/app.toml").c_str(), 3'000'000) == 0);
  (void)scene.backed_up();
  scene.write("config/app.toml", "port = 8081\n");
  scene.write("商品/2", "2");
  std::filesystem::remove(scene.tree + "/gone");
  const auto part = scene.backed_up();
  REQUIRE(part.archives.size() == 2);

  const auto root = scene.repository.path() + "/";
  const auto recipe =
      test::lines_of(test::read(root + "sets/" + FilesScene::id(2) + "/files/uploads.restore"));
  REQUIRE(recipe.size() == 2);
  const auto target = scene.directory / "by hand";
  std::filesystem::create_directory(target);
  for (const auto& line : recipe) {
    const auto words = split(line, '\t');
    REQUIRE(words.size() == 2);
    const auto list = scene.directory / "list";
    CHECK(test::run_program({"zstd", "-q", "-d", "-f", "-o", list, root + words[1]}).ok());
    const auto tar =
        test::run_program({"tar", "--extract", "--zstd", "--file", root + words[0], "--directory",
                           target, "--preserve-permissions", "--numeric-owner", "--xattrs",
                           "--xattrs-include=*", "--warning=no-unknown-keyword", "--no-recursion",
                           "--null", "--no-unquote", "--files-from", list});
    CHECK_MESSAGE(tar.ok(), tar.err);
    CHECK_MESSAGE(tar.err.empty(), tar.err);
  }
  auto expected = test::tree_of(scene.tree, false);
  auto found = test::tree_of(target, false);
  // A later archive's files change the times of the directories that an earlier one has made.
  const auto without_times = [](std::map<std::string, std::string>& tree) {
    for (auto& [path, text] : tree)
      if (text.starts_with("4")) text = text.substr(0, text.find_last_of(' '));
  };
  without_times(expected);
  without_times(found);
  CHECK(found == expected);
}

}  // namespace
}  // namespace zx::backup
