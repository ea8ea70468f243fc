// zx backup run and zx backup prune of trees of files alone, on file systems and by hands that fail
// them: each names what went wrong, and no set and no archive is lost.
#include <signal.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "tests/backup_sets.h"
#include "tests/scenario/cluster.h"
#include "tests/scenario/traced.h"

namespace zx::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

const Words kRun{"backup", "run"};
const Words kPrune{"backup", "prune", "--yes"};

bool has(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

struct Scene {
  Directory directory;
  std::string toml = directory / "zx.toml", tree = directory / "tree";
  std::string root;

  explicit Scene(const std::string& backup = {}, const std::string& name = "backups")
      : root(directory / name) {
    write(tree + "/茶", "茶");
    write(toml, "[platform]\nname = \"zhixuan\"\nstate_dir = \"" + directory / "state" +
                    "\"\n[backup]\nrepository = \"" + root + "\"\nspare = \"1 KiB\"\n" + backup +
                    "\n[backup.retention]\ndaily = 1\nweekly = 0\nmonthly = 0\n" +
                    "[backup.files.uploads]\npath = \"" + tree + "\"\n");
  }
  [[nodiscard]] os::ProcessResult zx(Words words) const {
    words.insert(words.begin(), {"-c", toml});
    return run_zx(words);
  }
  // `inject` as strace takes it, of the calls that are about `path`.
  [[nodiscard]] os::ProcessResult zx_hurt(const std::string& path, const std::string& inject,
                                          const Words& words) const {
    auto argv = argv_under(toml, inject, words);
    argv.insert(argv.begin() + 1, {"-P", path});
    return run_program(argv, traced());
  }
  // The id of a new set, with an archive of its own.
  std::string back_up(const std::string& text, Words words = {}) const {
    write(tree + "/" + text, text);
    words.insert(words.begin(), kRun.begin(), kRun.end());
    words.insert(words.end(), {"-o", "json"});
    const auto result = zx(words);
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    return json_of(result)["id"].get<std::string>();
  }
  [[nodiscard]] Words in(const std::string& folder) const { return names_in(root + "/" + folder); }
  void is_whole() const {
    for (const auto& id : in("sets")) {
      const auto result = zx({"backup", "verify", id});
      CHECK_MESSAGE(result.exit == 0, (result.out + result.err));
    }
  }
};

void ends(const os::ProcessResult& result, int exit, const Words& says) {
  CHECK_MESSAGE(result.exit == exit, (result.out + result.err));
  for (const auto& words : says) CHECK_MESSAGE(has(result.err, words), (words + ": " + result.err));
}

}  // namespace

TEST_CASE("a set that cannot be looked at is not a set that is gone: its archives stay") {
  const Scene scene;
  const auto first = scene.back_up("a"), second = scene.back_up("b");
  const auto archives = scene.in("archives");
  REQUIRE(archives.size() == 2);
  const auto pruned =
      scene.zx_hurt(scene.root + "/sets/" + second, "access,newfstatat:error=EIO", kPrune);
  ends(pruned, 0, {second, "no archive of files is deleted"});
  CHECK(scene.in("archives") == archives);
  // Nor is a list that breaks off a short one.
  ends(scene.zx_hurt(scene.root + "/sets", "getdents64:error=EIO", kPrune), 1, {"cannot list"});
  CHECK(scene.in("sets").size() == 2);
  CHECK(scene.in("archives") == archives);
  scene.is_whole();
}

TEST_CASE("a repository that cannot be looked at is not made anew") {
  const Scene scene;
  scene.back_up("a");
  const auto record = read(scene.root + "/zx-repository.json");
  for (const auto& path : {scene.root, scene.root + "/zx-repository.json"}) {
    const auto result = scene.zx_hurt(path, "access,newfstatat,openat:error=EIO", kRun);
    ends(result, 1, {path, "Input/output error"});
  }
  CHECK(read(scene.root + "/zx-repository.json") == record);
  scene.is_whole();
}

TEST_CASE("a file system that cannot rename without replacing takes sets and restores") {
  const Scene scene;
  const std::string no_flags = "renameat2:error=EINVAL";
  auto options = traced();
  const auto run = [&](const Words& words) {
    return run_program(argv_under(scene.toml, no_flags, words), options);
  };
  ends(run(kRun), 0, {});
  CHECK(scene.in("sets").size() == 1);
  scene.is_whole();
  write(scene.tree + "/茶", "水");
  ends(run({"restore", "files", "--confirm", "zhixuan"}), 0, {});
  CHECK(read(scene.tree + "/茶") == "茶");
  CHECK(read(scene.tree + ".zxold/茶") == "水");
}

TEST_CASE("a set that was published is there, whatever fails after it") {
  const Scene scene;
  scene.back_up("a");
  write(scene.tree + "/b", "b");
  const auto result = scene.zx_hurt(scene.root + "/sets", "fsync:error=EIO", kRun);
  ends(result, 0, {"a power cut could still take it"});
  CHECK(scene.in("sets").size() == 2);
  CHECK(scene.in("archives").size() == 2);
  scene.is_whole();
}

TEST_CASE("backup.post has its time also when none is left") {
  const Directory marks;
  const Scene scene(
      "pre = [\"/bin/sleep\", \"60\"]\npost = [\"/bin/sh\", \"-c\", \"sleep 1; touch " +
      marks / "post" + "\"]");
  ends(scene.zx({"backup", "run", "--timeout", "300ms"}), 7, {"backup.pre"});
  CHECK(fs::exists(marks / "post"));
}

TEST_CASE("what the lock file says to people is no reason to fail") {
  const Scene scene;
  scene.back_up("a");
  CHECK(has(read(scene.root + "/lock"), "backup run (pid "));
  ends(scene.zx_hurt(scene.root + "/lock", "pwrite64:error=ENOSPC", kPrune), 0, {});
  CHECK(read(scene.root + "/lock") == "");
  ends(scene.zx_hurt(scene.root + "/lock", "ftruncate:error=ENOSPC", kRun), 0, {});
  CHECK(read(scene.root + "/lock") == "");
}

TEST_CASE("who finds the repository locked waits, says for whom, and can be interrupted") {
  const Scene scene;
  scene.back_up("a");
  const auto start = [&](Words words) {
    words.insert(words.begin(), {ZX_BINARY, "-c", scene.toml});
    return std::make_unique<Background>(words, Words{"HOME=/nonexistent"});
  };
  const auto repository = make_repository(scene.root);
  for (const auto& words : {kRun, kPrune}) {
    auto held = std::make_optional(repository.lock_to_write("zx backup run"));
    REQUIRE(held->has_value());
    const auto waiting = start(words), ended = start(words);
    for (auto* one : {waiting.get(), ended.get()})
      one->wait_for("waiting: another backup or prune is at work in " + scene.root +
                    ": zx backup run (pid ");
    ended->signal(SIGTERM);
    CHECK_MESSAGE(ended->finish() == 143, ended->output());
    auto few = words;
    few.insert(few.end(), {"--timeout", "200ms"});
    ends(scene.zx(few), 5, {"another backup or prune is at work", "hint: "});
    held.reset();
    CHECK_MESSAGE(waiting->finish() == 0, waiting->output());
  }
  CHECK(scene.in("sets").size() == 1);
  // While a prune waits for readers a backup need not wait for it.
  auto reading = std::make_optional(repository.lock_to_read());
  REQUIRE(reading->has_value());
  const auto waiting = start(kPrune);
  waiting->wait_for("waiting: a verification or a restore reads the repository");
  scene.back_up("b");
  reading.reset();
  CHECK_MESSAGE(waiting->finish() == 0, waiting->output());
}

TEST_CASE("a mount that is missing does not become a new repository") {
  const Scene scene;
  ends(scene.zx(kRun), 0, {"made a new repository in " + scene.root});
  const auto again = scene.zx(kRun);
  ends(again, 0, {});
  CHECK_FALSE(has(again.err, "new repository"));
  const auto away = scene.directory / "away";
  fs::rename(scene.root, away);
  fs::create_directory(scene.root);  // where it is mounted
  for (const auto& words : {kRun, Words{"backup", "run", "--dry-run"}})
    ends(scene.zx(words), 3,
         {"there is no repository in " + scene.root, "mount", "--new-repository"});
  CHECK(fs::is_empty(scene.root));
  ends(scene.zx({"backup", "run", "--new-repository"}), 0, {"made a new repository"});
  ends(scene.zx(kRun), 0, {});
  fs::remove_all(scene.root);
  fs::rename(away, scene.root);
  ends(scene.zx(kRun), 3, {"another repository", "--new-repository"});
  CHECK(scene.in("sets").size() == 2);
  const auto accepted = scene.zx({"backup", "run", "--new-repository"});
  ends(accepted, 0, {});
  CHECK_FALSE(has(accepted.err, "made a new repository"));
  CHECK(scene.in("sets").size() == 3);
  ends(scene.zx(kRun), 0, {});
  // What is known cannot be read: a repository that is there is taken, none is made.
  write(scene.directory / "state/repository.json", "no JSON");
  ends(scene.zx({"backup", "run", "--dry-run"}), 0, {});
  fs::rename(scene.root, away);
  ends(scene.zx(kRun), 1, {"repository.json"});
  CHECK_FALSE(fs::exists(scene.root));
  fs::rename(away, scene.root);
  ends(scene.zx(kRun), 0, {});
}

TEST_CASE("a tree that is not mounted does not become an empty one") {
  const Scene scene;
  const auto first = scene.back_up("a");
  const auto away = scene.directory / "away";
  fs::rename(scene.tree, away);
  fs::create_directory(scene.tree);  // where it is mounted
  for (const auto& words : {kRun, Words{"backup", "run", "--dry-run"}})
    ends(scene.zx(words), 3,
         {scene.tree + " is empty, and had 2 files in set " + first, "mount", "--accept-empty"});
  CHECK(scene.in("sets") == Words{first});
  ends(scene.zx({"backup", "run", "--dry-run", "--accept-empty"}), 0, {});
  ends(scene.zx({"backup", "run", "--accept-empty"}), 0, {});
  ends(scene.zx(kRun), 0, {});
  CHECK(scene.in("sets").size() == 3);
}

TEST_CASE("a file system that goes away while a tree is read makes no set without its files") {
  const Scene scene;
  for (const char* name : {"a", "b", "c", "d", "e"}) write(scene.tree + "/" + name, name);
  // Each thread's first look goes well.
  auto argv = argv_under(scene.toml, "newfstatat,statx:error=ESTALE:when=2+", kRun);
  argv.insert(argv.begin() + 1, {"-f", "-P", scene.tree});
  const auto result = run_program(argv, traced());
  ends(result, 1, {"cannot go on reading " + scene.tree, "hint: "});
  CHECK(scene.in("sets").empty());
}

TEST_CASE("what does not go stops no backup and no prune, a disk that takes nothing does") {
  const Scene scene;
  scene.back_up("a");
  const auto left = scene.root + "/archives/20261121T020000-bbbb-uploads.tar.zst";
  for (const auto& words : {kRun, kPrune}) {
    write(left, "x");
    const auto folder = scene.root + "/archives";
    ends(scene.zx_hurt(folder, "unlinkat:error=EBUSY", words), 0, {"cannot remove " + left});
    CHECK(fs::exists(left));
    ends(scene.zx_hurt(folder, "unlinkat:error=ENOSPC", words), 3, {"cannot remove " + left});
    ends(scene.zx_hurt(folder, "unlinkat:error=EPERM", words), 8, {"cannot remove " + left});
    ends(scene.zx(words), 0, {});
    CHECK_FALSE(fs::exists(left));
  }
  scene.is_whole();
}

TEST_CASE("who reads waits for a prune that deletes") {
  const Scene scene;
  scene.back_up("a");
  const auto repository = make_repository(scene.root);
  for (const auto& words :
       {Words{"backup", "verify"}, Words{"restore", "files", "--confirm", "zhixuan"}}) {
    auto held = std::make_optional(repository.lock_to_delete());
    REQUIRE(held->has_value());
    auto few = words;
    few.insert(few.end(), {"--timeout", "200ms"});
    ends(scene.zx(few), 5, {"sets are being deleted"});
    Words argv{ZX_BINARY, "-c", scene.toml};
    argv.insert(argv.end(), words.begin(), words.end());
    Background waiting(argv, Words{"HOME=/nonexistent"});
    waiting.wait_for("waiting: sets are being deleted");
    held.reset();
    CHECK_MESSAGE(waiting.finish() == 0, waiting.output());
  }
}

TEST_CASE("--dry-run refuses what the run refuses") {
  const Words dry{"backup", "run", "--dry-run"};
  const Scene scene;
  scene.back_up("a");
  ends(scene.zx(dry), 0, {});
  edit(scene.toml, "spare = \"1 KiB\"", "spare = \"1000 TiB\"");
  ends(scene.zx(dry), 3, {"are to stay free"});
  edit(scene.toml, "spare = \"1000 TiB\"", "spare = \"1 KiB\"");
  edit(scene.toml, "name = \"zhixuan\"", "name = \"another\"");
  ends(scene.zx(dry), 3, {"sets of the platform zhixuan"});
}

TEST_CASE("where backup.post fails and may not, the set is there, and is named") {
  const Scene scene("post = [\"/bin/false\"]\npost_may_fail = false");
  const auto result = scene.zx(kRun);
  ends(result, 4, {"backup.post failed"});
  REQUIRE(scene.in("sets").size() == 1);
  CHECK(has(result.out, "backup verify --level restore " + scene.in("sets").front() + "\n"));
  const auto json = json_of(scene.zx({"backup", "run", "-o", "json"}));
  CHECK(json["outcome"] == "done");
  CHECK(json["error"]["code"] == "partial");
  CHECK(has(json["error"]["hint"], json["id"].get<std::string>()));
}

TEST_CASE("what is known of repositories and is no JSON is kept aside, and that is said") {
  const Scene scene;
  scene.back_up("a");
  write(scene.directory / "state/repository.json", "no JSON");
  ends(scene.zx(kRun), 0, {"is not JSON", "repository.json.bad-"});
  CHECK_FALSE(has(scene.zx(kRun).err, "repository.json"));
}

TEST_CASE("what root makes in another's repository is its owner's") {
  if (geteuid() != 0) return;
  constexpr uid_t kOther = 65534;
  const Scene scene;
  REQUIRE(fs::create_directory(scene.root));
  REQUIRE(chown(scene.root.c_str(), kOther, kOther) == 0);
  const auto strangers = [&] {
    std::string words;
    for (const auto& entry : fs::recursive_directory_iterator(scene.root)) {
      struct stat found {};
      REQUIRE(lstat(entry.path().c_str(), &found) == 0);
      if (found.st_uid != kOther || found.st_gid != kOther) words += entry.path().string() + "\n";
    }
    return words;
  };
  scene.back_up("a");
  scene.back_up("b");
  CHECK(strangers() == "");
  scene.is_whole();  // and remembers it
  ends(scene.zx(kPrune), 0, {});
  CHECK(strangers() == "");
}

TEST_CASE("a run whose lock was lost publishes nothing") {
  const Directory aside;
  std::string pre;
  SUBCASE("removed") { pre = "rm $ZX_REPOSITORY/lock"; }
  SUBCASE("replaced") { pre = "cd $ZX_REPOSITORY && cp lock other && mv other lock"; }
  const Scene scene("pre = [\"/bin/sh\", \"-c\", \"" + pre + "\"]");
  ends(scene.zx(kRun), 5, {scene.root + "/lock", "was lost", "hint: "});
  CHECK(scene.in("sets").empty());
  CHECK(scene.in("incoming").empty());
  CHECK(scene.in("archives").empty());
}

TEST_CASE("a run that fails clears away as far as it can, and ends") {
  const Scene scene;
  scene.back_up("a");
  edit(scene.toml, "[backup]", "[backup]\npre = [\"/bin/false\"]");
  // Of its own end: the list is read twice before that.
  ends(scene.zx_hurt(scene.root + "/archives", "getdents64:error=EIO:when=4+", kRun), 1,
       {"backup.pre"});
  CHECK(scene.in("incoming").empty());
  CHECK(scene.in("archives").size() == 1);
}

TEST_CASE("the names that a new repository gets in its parents are synced") {
  for (const std::string parent : {"", "/a", "/a/b"}) {
    INFO(parent);
    const Scene scene({}, "a/b/备份");
    const auto path = scene.directory.path() + parent;
    ends(scene.zx_hurt(path, "fsync:error=EIO", kRun), 1, {"cannot sync the directory " + path});
  }
}

}  // namespace zx::test
