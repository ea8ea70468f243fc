// Repositories that are full, cannot be written, are of a newer zx, or hold what an enemy put
// there.
#include <random>
#include <set>

#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

namespace fs = std::filesystem;
using test::Configured;
using test::databases_in;
using test::has;
using test::listed;
using test::Mount;
using test::Platform;

const std::vector<std::string> kRun{"backup", "run"};

std::set<std::string> sets_in(const Platform& platform) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(platform.repository() + "/sets"))
    names.insert(entry.path().filename());
  return names;
}

// Fails with `exit`, says `words`, and makes and deletes no set.
void fails(const Platform& platform, int exit, const std::vector<std::string>& words,
           const std::vector<std::string>& command = kRun) {
  const auto before = sets_in(platform);
  const auto result = platform.zx(command);
  CHECK_MESSAGE(result.exit == exit, (join(command, " ") + "\n" + result.out + result.err));
  for (const auto& word : words)
    CHECK_MESSAGE(has(result.err, word), (join(command, " ") + ": " + result.err));
  CHECK(sets_in(platform) == before);
}

// Of whatever days sets are, and it may be midnight: a prune keeps the newest alone.
constexpr const char* kNewestAlone =
    "[backup.retention]\ndaily = 1\nweekly = 0\nmonthly = 0\n\n[backup]";

// What lies in a directory beside the repository that nothing may be written to or removed from.
std::string outside(const Platform& platform) {
  const auto path = platform.beside("outside");
  fs::remove_all(path);
  test::write(path + "/kept/file", "kept");
  return path;
}
bool is_as_it_was(const std::string& path) {
  int entries = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    entries += entry.exists() ? 1 : 0;
  return entries == 2 && test::read(path + "/kept/file") == "kept";
}

// `name` of the repository is a link to where it was moved, until the end.
class Linked {
 public:
  Linked(const Platform& platform, const std::string& name)
      : at_(platform.repository() + "/" + name), moved_(platform.beside("moved")) {
    fs::rename(at_, moved_);
    fs::create_symlink(moved_, at_);
  }
  ~Linked() {
    fs::remove(at_);
    fs::rename(moved_, at_);
  }
  Linked(const Linked&) = delete;
  Linked& operator=(const Linked&) = delete;

 private:
  fs::path at_, moved_;
};

std::string random_bytes(std::size_t count) {
  std::mt19937 random(17);
  std::string bytes(count, '\0');
  for (auto& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// The set's manifest as another zx would have written it.
void edit_manifest(const Platform& platform, const std::string& id, const std::string& from,
                   const std::string& to) {
  test::edit(platform.repository() + "/sets/" + id + "/manifest.json", from, to);
}

}  // namespace

TEST_CASE("a full disk ends a run at any byte with nothing left, and zx says to make room") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(20, 10);
  const Configured one(platform, databases_in(platform), "databases = [\"zhi_xuan_order\"]");
  test::edit(platform.config(), "spare = \"64 MiB\"", "spare = \"1 KiB\"");
  const auto mounted = Mount::of_memory(platform.repository(), "size=1m,mode=0700");
  if (!mounted.is_there()) return;  // only root can
  const auto first = platform.back_up();

  // Each file of a set once is the one that has no room.
  const auto filler = platform.repository() + "/lost+found";
  const auto leave_free = [&](std::uint64_t bytes) {
    fs::remove(filler);
    const auto space = fs::space(platform.repository()).available;
    REQUIRE(space > bytes);
    test::write(filler, std::string(space - bytes, 'x'));
  };
  leave_free(4096);
  fails(platform, 3, {"are to stay free", "zx backup prune makes room"});
  fs::remove_all(platform.repository() + "/sets/" + first);  // nothing is expected now
  int full = 0;
  for (std::uint64_t kept = 4096;; kept += 4096) {
    CAPTURE(kept);
    leave_free(kept);
    const auto result = platform.zx(kRun);
    if (result.exit == 0) break;
    ++full;
    CHECK_MESSAGE((result.exit == 3 || result.exit == 1), result.err);
    CHECK_MESSAGE(has(result.err, "No space left on device"), result.err);
    CHECK_MESSAGE(has(result.err, "hint: make room"), result.err);
    CHECK(platform.leavings() == "");
    CHECK(platform.ids().empty());
    REQUIRE(kept < 400'000);
  }
  CHECK(full >= 8);
  CHECK(platform.ids().size() == 1);
  CHECK(platform.damage() == "");

  // In the middle of large ones.
  fs::remove(filler);
  platform.sql("CREATE TABLE much AS SELECT g, md5(g::text) FROM generate_series(1, 50000) g",
               "zhi_xuan_order");
  fails(platform, 3, {"zhi_xuan_order", "No space left on device", "hint: make room"});
  CHECK(platform.leavings() == "");
  platform.sql("DROP TABLE much", "zhi_xuan_order");
  test::write(platform.uploads() + "/大", random_bytes(2u << 20));
  fails(platform, 3, {"No space left on device", "hint: make room"});
  CHECK(platform.leavings() == "");
  fs::remove(platform.uploads() + "/大");
  CHECK(platform.zx(kRun).exit == 0);
  CHECK(platform.ids().size() == 2);
  CHECK(platform.damage() == "");
}

TEST_CASE("a repository that cannot be written can be read") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured newest(platform, "[backup]", kNewestAlone);
  const auto first = platform.back_up(), second = platform.back_up();
  const auto mounted = Mount::read_only(platform.repository());
  if (!mounted.is_there()) return;  // only root can
  fails(platform, 8, {platform.repository(), "Read-only file system", "hint: "});
  fails(platform, 8, {platform.repository(), "Read-only file system", "hint: "},
        {"backup", "prune", "--yes"});
  CHECK(platform.ids() == std::vector<std::string>{second, first});
  const auto verified = platform.zx({"backup", "verify"});
  CHECK_MESSAGE(verified.exit == 0, (verified.out + verified.err));
  CHECK(has(verified.err, "does not remember"));
  CHECK(platform.zx({"backup", "prune", "--dry-run"}).exit == 0);
}

TEST_CASE("a link that somebody put into a repository is not followed") {
  const Platform platform({.pg = 1, .redis = 0});
  const auto first = platform.back_up(), second = platform.back_up();
  const auto root = platform.repository();
  const auto victim = outside(platform);
  for (const char* folder : {"sets", "incoming", "archives", "trash"}) {
    const Linked link(platform, folder);
    for (const auto& command : {kRun,
                                std::vector<std::string>{"backup", "list"},
                                {"backup", "prune", "--yes"},
                                {"backup", "verify"}})
      fails(platform, 3, {root + "/" + folder + " is a symbolic link", "hint: "}, command);
  }
  {
    const Linked link(platform, "zx-repository.json");
    fails(platform, 1, {"zx-repository.json is no regular file"});
    fails(platform, 1, {"zx-repository.json is no regular file"}, {"backup", "list"});
  }
  {
    const Linked link(platform, "lock");
    fails(platform, 1, {root + "/lock"});
    CHECK(has(test::read(platform.beside("moved")), "backup run"));  // of the run before
  }
  CHECK(platform.ids() == std::vector<std::string>{second, first});

  // Where runs and deletions leave things: the link goes, what it leads to stays.
  fs::create_directory_symlink(victim, root + "/incoming/20261122T020000-aaaa");
  fs::create_directory_symlink(victim, root + "/trash/20261122T020000-bbbb");
  fs::create_symlink(victim + "/kept/file", root + "/archives/20261122T020000-cccc-x.tar.zst");
  const auto third = platform.back_up();
  CHECK(platform.leavings() == "");
  CHECK(is_as_it_was(victim));

  const auto object = platform.an_object(third).substr(root.size() + 1);
  {
    const Linked link(platform, object);
    fails(platform, 10, {}, {"backup", "verify", third});
    CHECK(has(listed(platform, third)["problem"].get<std::string>(), "symbolic link"));
  }
  for (const auto& name : {"sets/" + third + "/manifest.json", "sets/" + third}) {
    CAPTURE(name);
    const Linked link(platform, name);
    const auto set = listed(platform, third);
    CHECK(set["counted"] == false);
    CHECK(set["problem"].is_string());
    // What it needs is not known: nothing that it may need goes, and it stays itself.
    const auto pruned = platform.zx({"backup", "prune", "--yes"});
    CHECK_MESSAGE(pruned.exit == 0, pruned.err);
    CHECK(has(pruned.err, "no archive of files is deleted"));
    CHECK(fs::is_symlink(root + "/" + name));
  }
  CHECK(platform.zx({"backup", "verify", third}).exit == 0);
  CHECK(platform.damage() == "");
  CHECK(is_as_it_was(victim));
}

TEST_CASE("what a newer zx wrote is refused, said, and never deleted") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured newest(platform, "[backup]", kNewestAlone);
  const auto first = platform.back_up();
  test::write(platform.uploads() + "/neu", "neu");
  const auto second = platform.back_up();
  const auto archives = std::distance(fs::directory_iterator(platform.repository() + "/archives"),
                                      fs::directory_iterator{});
  CHECK(archives == 3);
  edit_manifest(platform, first, "\"format\": 1", "\"format\": 2");
  const auto old = listed(platform, first);
  CHECK(old["trust"].is_null());
  CHECK(old["counted"] == false);
  CHECK(old["kept"] == true);
  CHECK(has(old["problem"].get<std::string>(), "format 2"));
  CHECK(has(platform.zx({"backup", "list"}).out, "newer format"));
  fails(platform, 3, {"format 2", "newer zx"}, {"backup", "verify", first});
  // Sets of this format are made beside it; what it may need stays.
  const auto third = platform.back_up();
  const auto pruned = platform.zx_json({"backup", "prune", "--yes"});
  CHECK(pruned["deleted"] == Json::array({second}));
  CHECK(platform.ids() == std::vector<std::string>{third, first});
  CHECK(std::distance(fs::directory_iterator(platform.repository() + "/archives"),
                      fs::directory_iterator{}) == archives);
  edit_manifest(platform, first, "\"format\": 2", "\"format\": 1");
  CHECK(platform.damage() == "");

  const auto before = test::read(platform.repository() + "/zx-repository.json");
  test::edit(platform.repository() + "/zx-repository.json", "\"format\": 1", "\"format\": 2");
  for (const auto& command : {kRun,
                              std::vector<std::string>{"backup", "list"},
                              {"backup", "prune", "--yes"},
                              {"backup", "verify"},
                              {"restore", "full", "--confirm", "lab"}})
    fails(platform, 3, {platform.repository() + " has format 2", "newer zx"}, command);
  test::write(platform.repository() + "/zx-repository.json", before);
  CHECK(platform.damage() == "");
  CHECK(platform.ids().size() == 2);

  // A directory of somebody else's.
  const auto other = platform.beside("other");
  test::write(other + "/file", "x");
  const Configured elsewhere(platform, "\"" + platform.repository() + "\"", "\"" + other + "\"");
  fails(platform, 3, {other, "holds other things, such as file"});
  CHECK(std::distance(fs::directory_iterator(other), fs::directory_iterator{}) == 1);
}

}  // namespace zx
