// Trees of files that are backed up, again and again, and brought back.
#include "lib/backup/files_source.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/files_walk.h"
#include "lib/os/signals.h"
#include "tests/unit/backup_files_scene.h"

namespace zx::backup {
namespace {

using test::FilesScene;

std::string message_of(const FilesPart& part) { return join(part.warnings, "\n"); }

bool says(const FilesPart& part, const std::string& words) {
  return message_of(part).find(words) != std::string::npos;
}

const IndexEntry& entry_at(const std::vector<IndexEntry>& entries, const std::string& path) {
  const auto found = std::find_if(entries.begin(), entries.end(),
                                  [&](const IndexEntry& entry) { return entry.path == path; });
  REQUIRE_MESSAGE(found != entries.end(), path);
  return *found;
}

std::string text_of(std::size_t size, unsigned seed) {
  std::string text;
  for (auto state = seed * 2654435761u + 1; text.size() < size;) {
    state = state * 1664525u + 1013904223u;
    text += static_cast<char>(state >> 24);
  }
  return text;
}

void plant_much(const FilesScene& scene) {
  scene.write("config/app.toml", "port = 8080\n");
  scene.write("config/空的", "");
  scene.write("uploads/商品 图片/1.png", text_of(300'000, 1));
  scene.write("uploads/large", text_of(3'000'000, 2));
  scene.write("uploads/exactly", text_of(1 << 20, 3));
  scene.write("uploads/one more", text_of((1 << 20) + 1, 4));
  scene.write("uploads/new\nline\tand tab\\", "strange");
  scene.write("uploads/-T", "an option");
  scene.write("uploads/\xff\xfe bytes", "no UTF-8");
  scene.write("uploads/e\xcc\x81", "decomposed");
  scene.write("uploads/\xc3\xa9", "composed");
  scene.write("uploads/" + std::string(250, 'x') + "/" + std::string(250, 'y'), "long");
  std::filesystem::create_directories(scene.tree + "/empty/in empty");
  std::filesystem::create_symlink("../config/app.toml", scene.tree + "/uploads/link");
  std::filesystem::create_symlink("/nowhere/\xff/无", scene.tree + "/uploads/dangling");
  std::filesystem::create_directory_symlink("uploads", scene.tree + "/to a directory");
  std::filesystem::create_hard_link(scene.tree + "/config/app.toml", scene.tree + "/config/same");
  chmod((scene.tree + "/config/app.toml").c_str(), 04750);
  chmod((scene.tree + "/empty").c_str(), 0500);
  const timespec old[] = {{0, 0}, {-5, 123'456'789}};
  utimensat(AT_FDCWD, (scene.tree + "/config/空的").c_str(), old, 0);
}

TEST_CASE("a tree comes back with all that it has") {
  FilesScene scene;
  plant_much(scene);
  const auto part = scene.backed_up();
  CHECK_MESSAGE(part.warnings.empty(), message_of(part));
  CHECK(part.stored_files == part.files);
  CHECK(part.files == test::tree_of(scene.tree).size());
  CHECK(part.archives.size() == 1);
  CHECK(part.lists.size() == 1);
  scene.check_comes_back(part, "back");
  chmod((scene.tree + "/empty").c_str(), 0700);
  chmod((scene.directory / "back/empty").c_str(), 0700);
}

TEST_CASE("what did not change is not stored again, and no archive is made for it") {
  FilesScene scene;
  plant_much(scene);
  const auto first = scene.backed_up();
  const auto second = scene.backed_up();
  CHECK(second.stored_files == 0);
  CHECK(second.archives == first.archives);
  CHECK(second.files == first.files);
  CHECK(second.bytes == first.bytes);
  scene.check_comes_back(second, "back");
  chmod((scene.tree + "/empty").c_str(), 0700);
  chmod((scene.directory / "back/empty").c_str(), 0700);
}

TEST_CASE("only what is new or changed is stored, and every set brings back its own state") {
  FilesScene scene;
  for (int i = 0; i < 50; ++i) scene.write(fmt::format("d{}/f{}", i % 5, i), fmt::format("{}", i));
  const auto first = scene.backed_up();
  const auto first_tree = test::tree_of(scene.tree);

  scene.write("d1/f1", "X");  // of the same size
  scene.write("d1/new", "new");
  chmod((scene.tree + "/d2/f2").c_str(), 0600);
  std::filesystem::remove(scene.tree + "/d3/f3");
  std::filesystem::rename(scene.tree + "/d4/f4", scene.tree + "/d4/moved");
  std::filesystem::remove(scene.tree + "/d0/f0");
  std::filesystem::create_directory(scene.tree + "/d0/f0");
  const auto second = scene.backed_up();
  const auto second_tree = test::tree_of(scene.tree);
  // f1, new, f2, moved, d0/f0; and the directories d0, d1, d3, d4.
  CHECK(second.stored_files == 9);
  CHECK(second.archives.size() == 2);
  CHECK(second.archives.front() == first.archives.front());

  scene.write("d1/f1", "Y");
  const auto third = scene.backed_up();
  CHECK(third.stored_files == 1);
  CHECK(third.archives.size() == 3);
  scene.check_comes_back(third, "third");
  REQUIRE(scene.restore(first, "first").has_value());
  CHECK(test::tree_of(scene.directory / "first") == first_tree);
  REQUIRE(scene.restore(second, "second").has_value());
  CHECK(test::tree_of(scene.directory / "second") == second_tree);
}

TEST_CASE("an archive that nothing is needed of is not among those of a set") {
  FilesScene scene;
  scene.write("a", "1");
  const auto first = scene.backed_up();
  std::filesystem::remove_all(scene.tree);
  scene.write("b", "2");
  const auto second = scene.backed_up();
  REQUIRE(second.archives.size() == 1);
  CHECK(second.archives.front().path != first.archives.front().path);
  scene.check_comes_back(second, "back");
}

TEST_CASE("a change that left all times as they were is found while it is fresh") {
  IndexEntry earlier;
  earlier.ctime = earlier.mtime = 1'000'000'000'123'456'789;
  auto now = earlier;
  CHECK(is_unchanged(earlier, now, earlier.ctime + 200'000'000));
  CHECK_FALSE(is_unchanged(earlier, now, earlier.ctime + 50'000'000));
  CHECK_FALSE(is_unchanged(earlier, now, earlier.ctime - 50'000'000));
  // A file system that knows seconds only.
  earlier.ctime = now.ctime = 1'000'000'000'000'000'000;
  CHECK_FALSE(is_unchanged(earlier, now, earlier.ctime + 1'500'000'000));
  CHECK(is_unchanged(earlier, now, earlier.ctime + 2'500'000'000));
  for (const auto change : {0, 1, 2, 3, 4, 5, 6, 7, 8}) {
    auto other = now;
    switch (change) {
      case 0: other.type = 'l'; break;
      case 1: other.mode = 1; break;
      case 2: other.uid = 1; break;
      case 3: other.gid = 1; break;
      case 4: other.size = 1; break;
      case 5: other.mtime += 1; break;
      case 6: other.ctime += 1; break;
      case 7: other.inode = 1; break;
      default: other.target = "x";
    }
    CAPTURE(change);
    CHECK_FALSE(is_unchanged(earlier, other, earlier.ctime + 10'000'000'000));
  }
}

TEST_CASE("what a tree has right after it was written is stored again rather than missed") {
  FilesScene scene;
  scene.write("a", "1");
  REQUIRE(scene.back_up().has_value());
  scene.write("a", "2");
  const auto part = scene.backed_up();
  scene.check_comes_back(part, "back");
}

TEST_CASE("an empty tree is one") {
  FilesScene scene;
  const auto part = scene.backed_up();
  CHECK(part.files == 1);
  scene.check_comes_back(part, "back");
}

TEST_CASE("a tree that is not there is an error, one behind a link is followed") {
  FilesScene scene;
  scene.write("a", "1");
  std::filesystem::create_directory_symlink(scene.tree, scene.directory / "current");
  scene.what.path = scene.directory / "current";
  const auto part = scene.backed_up();
  CHECK(part.files == 2);
  scene.what.path = scene.directory / "nowhere";
  const auto none = scene.back_up();
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::not_found);
  CHECK(none.error().message.find("nowhere") != std::string::npos);
}

TEST_CASE("include and exclude say what is held") {
  FilesScene scene;
  for (const char* name :
       {"a.png", "b.txt", "sub/c.png", "sub/d.txt", "cache/e.png", "all/f", "all/g/h"})
    scene.write(name, name);
  scene.what.include = {"*.png", "all"};
  scene.what.exclude = {"cache"};
  std::vector<std::string> paths;
  for (const auto& entry : scene.index_of(scene.backed_up())) paths.push_back(entry.path);
  CHECK((paths == std::vector<std::string>{".", "a.png", "all", "all/f", "all/g", "all/g/h", "sub",
                                           "sub/c.png"}));
  // What was left out before is new when it is wanted.
  scene.what.include.clear();
  scene.what.exclude.clear();
  const auto part = scene.backed_up();
  scene.check_comes_back(part, "back");
}

TEST_CASE("sockets and FIFOs are left out with a word, of many only the number") {
  FilesScene scene;
  for (int i = 0; i < 30; ++i)
    REQUIRE(mkfifo((scene.tree + fmt::format("/fifo{:02}", i)).c_str(), 0600) == 0);
  const int end = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(scene.tree.size() + 10 < sizeof address.sun_path);
  std::copy_n((scene.tree + "/a socket").c_str(), scene.tree.size() + 10, address.sun_path);
  REQUIRE(bind(end, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  close(end);
  const auto part = scene.backed_up();
  CHECK(part.files == 1);
  CHECK(says(part, "a socket is a socket, and is left out"));
  CHECK(says(part, "fifo00 is a FIFO, and is left out"));
  CHECK(part.warnings.size() == 21);
  CHECK(part.warnings.back() == "and 11 more");
}

TEST_CASE("a set without a file that may not be read is none") {
  FilesScene scene;
  scene.write("secret", "1");
  chmod((scene.tree + "/secret").c_str(), 0);
  REQUIRE(scene.repository.begin(FilesScene::id(1)).has_value());
  // Root may read it.
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (geteuid() == 0) {
      for (const auto& entry :
           std::filesystem::recursive_directory_iterator(scene.directory.path()))
        if (chown(entry.path().c_str(), 65534, 65534) != 0) _exit(2);
      if (chown(scene.directory.path().c_str(), 65534, 65534) != 0 || setgid(65534) != 0 ||
          setuid(65534) != 0)
        _exit(3);
    }
    const auto part = back_up_files(scene.repository, FilesJob{scene.what, FilesScene::id(1)});
    const bool is_right = !part && part.error().code == Code::auth &&
                          part.error().message.find("tree/secret") != std::string::npos &&
                          part.error().hint.find("exclude") != std::string::npos;
    _exit(is_right ? 0 : 4);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a small file that changes whenever it is read is taken as it was read last") {
  FilesScene scene;
  scene.what.path = "/proc/sys/kernel/random";
  scene.what.include = {"uuid"};
  const auto part = scene.back_up();
  REQUIRE_MESSAGE(part.has_value(), part.error().message);
  CHECK(says(*part, "uuid changed while it was read"));
  const auto restored = scene.restore(*part, "back");
  REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
  CHECK(test::read(scene.directory / "back/uuid").size() == 37);
}

// Does something while a large file is read.
Result<FilesPart> back_up_while(FilesScene& scene, const std::function<void()>& act) {
  const os::InterruptibleBy hook([&] {
    act();
    return false;
  });
  return scene.back_up();
}

TEST_CASE("a large file that grows while it is read is taken whole as it was") {
  FilesScene scene;
  const auto content = text_of(5 << 20, 1);
  scene.write("log", content);
  std::ofstream log(scene.tree + "/log", std::ios::app);
  const auto part = back_up_while(scene, [&] { log << "more" << std::flush; });
  REQUIRE_MESSAGE(part.has_value(), part.error().message);
  CHECK(says(*part, "log changed while it was read"));
  const auto restored = scene.restore(*part, "back");
  REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
  const auto back = test::read(scene.directory / "back/log");
  CHECK(back.size() == entry_at(scene.index_of(*part), "log").size);
  CHECK(back.size() > content.size());
  CHECK((test::read(scene.tree + "/log").starts_with(back)));
  CHECK(decode_files(scene.repository, *part).has_value());
}

TEST_CASE("a large file that is cut while it is read is read again") {
  FilesScene scene;
  scene.write("data", text_of(6 << 20, 1));
  int asked = 0;
  const auto part = back_up_while(scene, [&] {
    // Not before a part of it was read.
    if (++asked == 6) std::filesystem::resize_file(scene.tree + "/data", (2 << 20) + 5);
  });
  REQUIRE_MESSAGE(part.has_value(), part.error().message);
  CHECK(asked > 6);
  CHECK_MESSAGE(part->warnings.empty(), message_of(*part));
  CHECK(part->bytes == (2 << 20) + 5);
  scene.check_comes_back(*part, "back");
}

TEST_CASE("a backup that is given up ends at once and leaves nothing in the archives") {
  FilesScene scene;
  scene.write("data", text_of(20 << 20, 1));
  int asked = 0;
  const os::InterruptibleBy hook([&] { return ++asked > 8; });
  const auto part = scene.back_up();
  REQUIRE_FALSE(part.has_value());
  CHECK(part.error().code == Code::interrupted);
  CHECK(std::filesystem::is_empty(scene.repository.archives_path()));
}

TEST_CASE("a backup that is given up while it reads the list of before does not begin a new one") {
  FilesScene scene;
  scene.write("data", text_of(3 << 20, 1));
  scene.write("stays", "1");
  scene.backed_up();
  // Of its archive next to nothing is needed any more: the next run reads how much.
  std::filesystem::remove(scene.tree + "/data");
  scene.backed_up();
  const os::InterruptibleBy hook([] { return true; });
  const auto part = scene.back_up();
  REQUIRE_FALSE(part.has_value());
  CHECK(part.error().code == Code::interrupted);
  const auto index =
      scene.repository.incoming_path(FilesScene::id(scene.runs)) + "/files/uploads.index.zst";
  CHECK_FALSE(std::filesystem::exists(index));
}

TEST_CASE("files that come and go do not end a backup") {
  FilesScene scene;
  for (int i = 0; i < 200; ++i) scene.write(fmt::format("stays{}", i), "stays");
  std::atomic<bool> is_over{false};
  std::thread writer([&] {
    for (int i = 0; !is_over; i = (i + 1) % 50) {
      const auto path = scene.tree + fmt::format("/goes{}", i);
      std::filesystem::remove_all(path);
      if (i % 3 == 0)
        std::filesystem::create_directories(path + "/in");
      else if (i % 3 == 1)
        std::ofstream(path) << std::string(static_cast<std::size_t>(i) * 1000, 'x');
      else
        std::filesystem::create_symlink("stays1", path);
    }
  });
  std::vector<FilesPart> parts;
  for (int i = 0; i < 4; ++i) {
    auto part = scene.back_up();
    if (part) parts.push_back(*std::move(part));
  }
  is_over = true;
  writer.join();
  REQUIRE(parts.size() == 4);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto name = fmt::format("back{}", i);
    const auto restored = scene.restore(parts[i], name);
    REQUIRE_MESSAGE(restored.has_value(), restored.error().message);
    CHECK(test::read(scene.directory / (name + "/stays7")) == "stays");
  }
}

TEST_CASE("the holes of a sparse file stay holes") {
  FilesScene scene;
  const auto sparse = [&](const std::string& name, off_t size,
                          const std::vector<std::pair<off_t, std::string>>& pieces) {
    const int file =
        open((scene.tree + "/" + name).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(file >= 0);
    REQUIRE(ftruncate(file, size) == 0);
    for (const auto& [at, bytes] : pieces)
      REQUIRE(pwrite(file, bytes.data(), bytes.size(), at) == static_cast<ssize_t>(bytes.size()));
    close(file);
  };
  sparse("disk", 1 << 30, {{0, "begins"}, {500'000'000, "middle"}, {(1 << 30) - 4, "ends"}});
  sparse("hole at the end", 40'000'000, {{3'000'000, text_of(70'000, 1)}});
  sparse("all hole", 30'000'000, {});
  sparse("图 with a name", 20'000'000, {{9'000'000, "x"}});
  const auto part = scene.backed_up();
  CHECK(part.archives.front().bytes < 200'000);
  CHECK(part.archives.front().raw < 1'000'000);
  scene.check_comes_back(part, "back");
  for (const char* name : {"disk", "hole at the end", "all hole", "图 with a name"}) {
    struct stat found {};
    REQUIRE(stat((scene.directory / (std::string("back/") + name)).c_str(), &found) == 0);
    CHECK(found.st_blocks < 1000);
  }
}

TEST_CASE("extended attributes come back, those of directories too") {
  FilesScene scene;
  scene.write("d/f", "1");
  const std::string value("with\0zero 值", 13);
  const auto set = [&](const std::string& name) {
    return setxattr((scene.tree + "/" + name).c_str(), "user.zx 名%41=", value.data(), value.size(),
                    0);
  };
  if (set("d/f") != 0) {
    REQUIRE(errno == ENOTSUP);
    MESSAGE("the file system has no extended attributes");
    return;
  }
  REQUIRE(set("d") == 0);
  REQUIRE(chmod((scene.tree + "/d/f").c_str(), 0400) == 0);
  const auto part = scene.backed_up();
  scene.check_comes_back(part, "back");
  for (const char* name : {"back/d/f", "back/d"}) {
    std::string back(100, '\0');
    const auto got =
        getxattr((scene.directory / name).c_str(), "user.zx 名%41=", back.data(), back.size());
    REQUIRE_MESSAGE(got > 0, name);
    back.resize(static_cast<std::size_t>(got));
    CHECK(back == value);
  }
}

TEST_CASE("a set before that is damaged or incomplete is not built upon") {
  FilesScene scene;
  scene.write("a", "1");
  const auto first = scene.backed_up();
  const auto index = scene.repository.path() + "/" + first.index.path;
  const auto good = test::read(index);
  auto bad = good;
  bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
  test::write(index, bad);
  const auto second = scene.backed_up();
  CHECK(says(second, "everything is stored anew"));
  CHECK(second.stored_files == 2);
  scene.check_comes_back(second, "second");

  std::filesystem::remove(scene.repository.path() + "/" + second.archives.front().path);
  const auto third = scene.backed_up();
  CHECK(says(third, "is missing"));
  CHECK(third.stored_files == 2);
  scene.check_comes_back(third, "third");
}

TEST_CASE("the progress adds up") {
  FilesScene scene;
  plant_much(scene);
  REQUIRE(scene.repository.begin(FilesScene::id(1)).has_value());
  std::uint64_t files = 0, bytes = 0;
  FilesJob job{scene.what, FilesScene::id(1)};
  job.progress = [&](std::uint64_t more_files, std::uint64_t more_bytes) {
    files += more_files;
    bytes += more_bytes;
  };
  const auto part = back_up_files(scene.repository, job);
  REQUIRE(part.has_value());
  CHECK(files == part->files);
  CHECK(bytes == part->bytes);
  chmod((scene.tree + "/empty").c_str(), 0700);
}

TEST_CASE("a deadline ends a backup") {
  FilesScene scene;
  scene.write("data", text_of(20 << 20, 1));
  REQUIRE(scene.repository.begin(FilesScene::id(1)).has_value());
  FilesJob job{scene.what, FilesScene::id(1)};
  job.until = Deadline::after(Millis(0));
  const auto part = back_up_files(scene.repository, job);
  REQUIRE_FALSE(part.has_value());
  CHECK(part.error().code == Code::timeout);
}

}  // namespace
}  // namespace zx::backup
