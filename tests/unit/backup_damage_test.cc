// What checks say of a set, and what damage of one set means for those that share its archives.
#include "lib/backup/damage.h"

#include "tests/backup_sets.h"

namespace zx::backup {
namespace {

using test::moment;
using test::put_set;

constexpr const char* kOld = "20261122T020000-aaaa";
constexpr const char* kNew = "20261124T020000-cccc";

Check check(Level level, const char* at, bool ok = true, Fault fault = Fault::damage) {
  Check one;
  one.level = level;
  one.at = moment(at);
  one.ok = ok;
  one.fault = fault;
  if (!ok) one.problem = "object 3, archives/old.tar.zst: another SHA-256";
  if (!ok && fault == Fault::damage) one.damaged = {"archives/old.tar.zst"};
  return one;
}

// Two sets that share an archive; the newer one has another of its own.
struct Scene {
  test::Directory directory;
  Repository repository = test::make_repository(directory / "backups");
  Scene() {
    put_set(repository, {kOld, moment("2026-11-22T02:00"), {"old.tar.zst"}});
    put_set(repository, {kNew, moment("2026-11-24T02:00"), {"old.tar.zst", "new.tar.zst"}});
  }
  void remember(const char* id, const Check& one) const {
    REQUIRE(repository.remember(id, one).has_value());
  }
  [[nodiscard]] Believed known(const char* id) const {
    const auto entries = repository.sets();
    REQUIRE(entries.has_value());
    for (const auto& entry : *entries)
      if (entry.id == id) return believed(*entry.set, entry.checks);
    FAIL("no set " << id);
    return {};
  }
};

Believed of(const std::vector<Check>& checks) {
  Set set;
  set.ended = moment("2026-11-20T02:00");
  return believed(set, checks);
}

TEST_CASE("a wrong answer is no damage, and a look that was not made says nothing") {
  const auto decoded = check(Level::decode, "2026-11-21T02:00");
  const auto answered = of({check(Level::restore, "2026-11-22T02:00", false, Fault::answers)});
  CHECK(answered.trust == Trust::decoded);
  CHECK(answered.at == moment("2026-11-22T02:00"));
  CHECK(answered.doubt.starts_with("object 3"));
  const auto better = of({check(Level::restore, "2026-11-22T02:00", false, Fault::answers),
                          check(Level::restore, "2026-11-23T02:00")});
  CHECK(better.trust == Trust::restored);
  CHECK(better.doubt.empty());
  const auto tried =
      of({decoded, check(Level::restore, "2026-11-22T02:00", false, Fault::unknown)});
  CHECK(tried.trust == Trust::decoded);
  CHECK(tried.at == decoded.at);
}

TEST_CASE("a corrupt set is so since it was first found, until a look of that level passes") {
  const std::vector<Check> found{check(Level::decode, "2026-11-21T02:00", false),
                                 check(Level::checksum, "2026-11-22T02:00"),
                                 check(Level::decode, "2026-11-23T02:00", false)};
  const auto corrupt = of(found);
  CHECK(corrupt.trust == Trust::corrupt);
  CHECK(corrupt.since == moment("2026-11-21T02:00"));
  CHECK(corrupt.at == moment("2026-11-23T02:00"));
  auto passed = found;
  passed.push_back(check(Level::decode, "2026-11-24T02:00"));
  CHECK(of(passed).trust == Trust::decoded);
  CHECK(of(passed).damaged.empty());
}

TEST_CASE("checks come back from trust.json as they were") {
  for (const auto fault : {Fault::damage, Fault::answers, Fault::unknown}) {
    const auto one = check(Level::restore, "2026-11-21T02:00", false, fault);
    const auto again = check_from_json(to_json(one));
    REQUIRE(again.has_value());
    CHECK(again->fault == fault);
    CHECK(again->damaged == one.damaged);
    CHECK(again->problem == one.problem);
  }
}

TEST_CASE("a damaged archive makes every set corrupt that needs it, until its own look passes") {
  const Scene scene;
  scene.remember(kNew, check(Level::checksum, "2026-11-24T05:00", false));
  const auto old = scene.known(kOld);
  CHECK(old.trust == Trust::corrupt);
  CHECK(old.problem ==
        "object 3, archives/old.tar.zst is damaged, as was found in set " + std::string(kNew));
  scene.remember(kOld, check(Level::decode, "2026-11-24T06:00"));
  CHECK(scene.known(kOld).trust == Trust::decoded);
  CHECK(scene.known(kNew).trust == Trust::corrupt);
}

TEST_CASE("shared damage is of the level that found it, and known since it was first found") {
  const Scene scene;
  scene.remember(kNew, check(Level::decode, "2026-11-24T05:00", false));
  scene.remember(kNew, check(Level::decode, "2026-11-30T05:00", false));
  auto old = scene.known(kOld);
  CHECK(old.since == moment("2026-11-24T05:00"));
  CHECK(old.at == moment("2026-11-30T05:00"));
  // The archive has its SHA-256: a look at that alone says nothing of what is in it.
  scene.remember(kOld, check(Level::checksum, "2026-12-01T05:00"));
  CHECK(scene.known(kOld).trust == Trust::corrupt);
  scene.remember(kOld, check(Level::decode, "2026-12-02T05:00"));
  CHECK(scene.known(kOld).trust == Trust::decoded);
}

TEST_CASE("a look of its own between two that found the damage clears only the first") {
  const Scene scene;
  scene.remember(kNew, check(Level::checksum, "2026-11-24T05:00", false));
  scene.remember(kOld, check(Level::checksum, "2026-11-25T05:00"));
  scene.remember(kNew, check(Level::checksum, "2026-11-26T05:00", false));
  const auto old = scene.known(kOld);
  CHECK(old.trust == Trust::corrupt);
  CHECK(old.since == moment("2026-11-26T05:00"));
}

TEST_CASE("damage of what only one set has concerns no other") {
  const Scene scene;
  auto own = check(Level::checksum, "2026-11-24T05:00", false);
  own.damaged = {"archives/new.tar.zst"};
  scene.remember(kNew, own);
  CHECK(scene.known(kNew).trust == Trust::corrupt);
  CHECK(scene.known(kOld).trust == Trust::checksummed);
}

TEST_CASE("what lay in a damaged archive counts as stored nowhere") {
  const Scene scene;
  scene.remember(kNew, check(Level::checksum, "2026-11-24T05:00", false));
  const auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  const auto damaged = damaged_objects(*entries);
  CHECK(damaged.size() == 1);
  const auto rest = without_damage(*entries->front().set, damaged);
  REQUIRE(rest.files.front().archives.size() == 1);
  CHECK(rest.files.front().archives.front().path == "archives/new.tar.zst");
}

TEST_CASE("a corrupt set is referred to while its index is good and its damage has names") {
  const Scene scene;
  const auto may = [&] {
    const auto entry = scene.repository.set(kNew);
    REQUIRE((entry && entry->set));
    return may_be_referred_to(*entry, entry->set->files.front());
  };
  CHECK(may());
  scene.remember(kNew, check(Level::checksum, "2026-11-24T05:00", false));
  CHECK(scene.known(kNew).trust == Trust::corrupt);
  CHECK(may());
  auto unnamed = check(Level::decode, "2026-11-24T06:00", false);
  unnamed.damaged.clear();
  scene.remember(kNew, unnamed);
  CHECK_FALSE(may());
  scene.remember(kNew, check(Level::decode, "2026-11-24T07:00"));
  CHECK(may());
  auto index = check(Level::checksum, "2026-11-24T08:00", false);
  index.damaged = {scene.repository.set(kNew)->set->files.front().index.path};
  scene.remember(kNew, index);
  CHECK_FALSE(may());
}

}  // namespace
}  // namespace zx::backup
