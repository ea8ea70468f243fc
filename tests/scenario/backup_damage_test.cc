// Damage of what several sets share: each of them is known to be corrupt, and the next run stores
// anew what lay there.
#include <algorithm>
#include <random>

#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::has;
using test::listed;
using test::Platform;

const std::vector<std::string> kOnlyFiles{"--only", "files"};

backup::FilesPart uploads_of(const Platform& platform, const std::string& id) {
  const auto entry = platform.open_repository().set(id);
  REQUIRE_MESSAGE((entry && entry->set), id);
  for (const auto& part : entry->set->files)
    if (part.path == platform.uploads()) return part;
  FAIL("set " << id << " has no " << platform.uploads());
  return {};
}

bool refers_to(const backup::FilesPart& part, const std::string& archive) {
  return std::any_of(part.archives.begin(), part.archives.end(),
                     [&](const backup::Object& one) { return one.path == archive; });
}

// The one that the set has stored itself.
std::string own_archive(const backup::FilesPart& part, const std::string& id) {
  std::string own;
  for (const auto& archive : part.archives)
    if (archive.path.starts_with("archives/" + id + "-")) {
      CHECK(own == "");
      own = archive.path;
    }
  REQUIRE_MESSAGE(own != "", id);
  return own;
}

// A file that was changed as its backup began is read anew by the next one: until what is there is
// older.
void grow_old(const Platform& platform) {
  const auto newest = [&](const std::string& path) {
    test::write(path, "");
    return std::filesystem::last_write_time(path);
  };
  const auto now = newest(platform.beside("clock"));
  REQUIRE(test::eventually(
      [&] { return newest(platform.beside("clock")) > now + std::chrono::milliseconds(150); }));
}

std::string random_bytes(std::size_t count) {
  std::mt19937 random(17);
  std::string bytes(count, '\0');
  for (auto& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

}  // namespace

TEST_CASE("sets that share a damaged archive are all corrupt, and the next run stores it anew") {
  const Platform platform({.pg = 0, .redis = 1});
  test::write(platform.uploads() + "/旧/大", random_bytes(300'000));
  test::write(platform.uploads() + "/旧/leer", "");
  grow_old(platform);
  const auto first = platform.back_up(kOnlyFiles);
  const auto keys = platform.back_up({"--only", "redis"});
  test::write(platform.uploads() + "/second", random_bytes(100'000));
  grow_old(platform);
  const auto second = platform.back_up(kOnlyFiles);
  test::write(platform.uploads() + "/third", "third");
  grow_old(platform);
  const auto third = platform.back_up(kOnlyFiles);
  const auto shared = own_archive(uploads_of(platform, first), first);
  const auto later = own_archive(uploads_of(platform, second), second);
  for (const auto& id : {second, third}) REQUIRE(refers_to(uploads_of(platform, id), shared));
  REQUIRE(refers_to(uploads_of(platform, third), later));
  CHECK(platform.damage() == "");

  platform.flip_a_byte(platform.repository() + "/" + shared);
  const auto name = shared.substr(shared.rfind('/') + 1);
  const auto found = platform.zx({"backup", "verify"});
  CHECK_MESSAGE(found.exit == 10, (found.out + found.err));
  CHECK_MESSAGE(has(found.out, "Set " + third + " is damaged (checksum): object "), found.out);
  CHECK_MESSAGE(has(found.out, name), found.out);
  const auto are_corrupt = [&] {
    for (const auto& id : {first, second, third}) {
      CAPTURE(id);
      const auto set = listed(platform, id);
      CHECK(set["trust"] == "corrupt");
      CHECK_MESSAGE(has(set["problem"].dump(), name), set["problem"].dump());
    }
    CHECK(listed(platform, keys)["trust"] == "checksummed");
  };
  are_corrupt();
  const auto aside = platform.beside("aside");
  const std::vector<std::string> into{"restore",          "files",  "--path",
                                      platform.uploads(), "--into", aside};
  const auto refused = platform.zx(into);
  CHECK_MESSAGE(refused.exit == 1, (refused.out + refused.err));
  CHECK_MESSAGE(has(refused.err, "no good set"), refused.err);
  CHECK_FALSE(os::exists(aside));

  // Nothing has changed since: only what lay there is stored.
  const auto fourth = platform.back_up(kOnlyFiles);
  const auto part = uploads_of(platform, fourth);
  CHECK_FALSE(refers_to(part, shared));
  CHECK(refers_to(part, later));
  const auto anew = own_archive(part, fourth);
  CHECK(std::filesystem::file_size(platform.repository() + "/" + anew) > 300'000);
  for (const auto* level : {"checksum", "decode"}) {
    const auto good = platform.zx({"backup", "verify", "--level", level});
    CHECK_MESSAGE(good.exit == 0, (good.out + good.err));
    CHECK_MESSAGE(has(good.out, "Set " + fourth + " is good"), good.out);
  }
  // What is good of a newer set says nothing of what older ones need.
  are_corrupt();
  CHECK(platform.zx_json({"backup", "list"})["newest_good"] == fourth);

  const auto restored = platform.zx(into);
  CHECK_MESSAGE(restored.exit == 0, (restored.out + restored.err));
  const auto differ =
      test::run_program({"/usr/bin/diff", "-r", "--no-dereference", platform.uploads(), aside});
  CHECK_MESSAGE(differ.exit == 0, (differ.out + differ.err));
}

}  // namespace zx
