// What is believed of a set for what its checks found, and which of them it may forget.
#include "lib/backup/trust.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <random>

#include <fmt/format.h>

#include "lib/backup/object.h"
#include "lib/backup/restore.h"
#include "lib/backup/verify.h"
#include "tests/backup_sets.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;
using test::moment;
using test::names_in;
using test::put_set;
using Names = std::vector<std::string>;

constexpr const char* kId = "20261124T020000-cccc";
Wall begin() { return moment("2026-11-24T05:00"); }

Check passed(Level level, int hour) {
  Check one;
  one.level = level;
  one.at = begin() + std::chrono::hours(hour);
  one.ok = true;
  return one;
}

Check failed(Level level, int hour, const Names& damaged, Fault fault = Fault::damage) {
  auto one = passed(level, hour);
  one.ok = false;
  one.fault = fault;
  one.problem = fmt::format("found at {}", hour);
  one.damaged = damaged;
  return one;
}

Believed of(const std::vector<Check>& checks) {
  Set set;
  set.ended = moment("2026-11-24T02:00");
  return believed(set, checks);
}

// A terminal that is not there: what opens it gets EIO. False: that cannot be had here.
bool make_unreadable(const std::string& path) {
  if (mknod(path.c_str(), S_IFCHR | 0600, makedev(136, 250)) != 0) return false;
  const os::Descriptor opened(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  return !opened && errno == EIO;
}

struct Scene {
  test::Directory directory;
  Repository repository = test::make_repository(directory / "备份");
  Set set = put_set(repository, {kId, moment("2026-11-24T02:00"), {"a.tar.zst", "b.tar.zst"}});
  [[nodiscard]] std::string trust() const { return repository.set_path(kId) + "/trust.json"; }
  [[nodiscard]] Entry entry() const {
    auto entry = repository.set(kId);
    REQUIRE(entry.has_value());
    return *std::move(entry);
  }
  [[nodiscard]] Names aside() const {
    auto names = names_in(repository.set_path(kId));
    std::erase_if(names, [](const auto& name) { return !name.starts_with("trust.json.bad-"); });
    return names;
  }
};

}  // namespace

TEST_CASE("a look that passes clears what its level looks at, and nothing beyond") {
  std::vector<Check> checks{failed(Level::restore, 0, {"a"}), failed(Level::checksum, 1, {"b"})};
  auto known = of(checks);
  CHECK(known.damaged == Names{"a", "b"});
  CHECK(known.since == begin());
  CHECK(known.problem == "found at 1");
  checks.push_back(passed(Level::checksum, 2));
  known = of(checks);
  CHECK(known.trust == Trust::corrupt);
  CHECK(known.damaged == Names{"a"});
  CHECK(known.problem == "found at 0");
  checks.push_back(passed(Level::restore, 3));
  known = of(checks);
  CHECK(known.trust == Trust::restored);
  CHECK(known.failures.empty());
}

TEST_CASE("damage that was found later does not take the place of what was found before") {
  const auto known = of({failed(Level::checksum, 0, {"archives/x.tar.zst"}),
                         failed(Level::checksum, 1, {"sets/1/pg/shop.dump.zst"})});
  CHECK(known.damaged == Names{"archives/x.tar.zst", "sets/1/pg/shop.dump.zst"});
  CHECK(known.failures.size() == 2);
}

TEST_CASE("what a set forgets changes nothing of what is believed of it") {
  std::mt19937 random(5);
  const auto draw = [&random](int count) {
    return static_cast<int>(random() % static_cast<unsigned>(count));
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Check> checks;
    for (int hour = 0; hour < 14; ++hour) {
      const auto level = static_cast<Level>(draw(3));
      switch (draw(4)) {
        case 0: checks.push_back(passed(level, hour)); break;
        case 1: checks.push_back(failed(level, hour, {}, Fault::unknown)); break;
        case 2: checks.push_back(failed(Level::restore, hour, {}, Fault::answers)); break;
        default: checks.push_back(failed(level, hour, {draw(2) == 0 ? "a" : "b"}));
      }
      if (checks.back().level == Level::restore && checks.back().ok)
        checks.back().restore_ms = 1000 + hour;
    }
    const auto before = of(checks);
    auto rest = checks;
    thin_out(rest, 4);
    const auto after = of(rest);
    CAPTURE(round);
    CHECK(rest.size() < checks.size());
    CHECK(rest.back().at == checks.back().at);
    CHECK(after.trust == before.trust);
    CHECK(after.at == before.at);
    CHECK(after.since == before.since);
    CHECK(after.problem == before.problem);
    CHECK(after.doubt == before.doubt);
    CHECK(after.restore_ms == before.restore_ms);
    auto damaged = after.damaged, expected = before.damaged;
    std::sort(damaged.begin(), damaged.end());
    std::sort(expected.begin(), expected.end());
    CHECK(damaged == expected);
  }
}

TEST_CASE("a set remembers damage and its rehearsal however often it is looked at after that") {
  const Scene scene;
  const auto remember = [&](const Check& one) {
    REQUIRE(scene.repository.remember(kId, one).has_value());
  };
  auto rehearsal = passed(Level::restore, 0);
  rehearsal.restore_ms = 1234;
  remember(rehearsal);
  remember(failed(Level::decode, 1, {"archives/a.tar.zst"}));
  for (int hour = 2; hour < 70; ++hour) remember(passed(Level::checksum, hour));
  for (int hour = 70; hour < 140; ++hour)
    remember(failed(Level::checksum, hour, {}, Fault::unknown));
  const auto entry = scene.entry();
  CHECK(entry.checks.size() <= 100);
  const auto known = believed(scene.set, entry.checks);
  CHECK(known.trust == Trust::corrupt);
  CHECK(known.since == begin() + std::chrono::hours(1));
  CHECK(known.restore_ms == 1234);
  CHECK(entry.checks.back().at == begin() + std::chrono::hours(139));
}

TEST_CASE("nothing is written over checks that this zx cannot read") {
  const Scene scene;
  REQUIRE(
      scene.repository.remember(kId, failed(Level::decode, 0, {"archives/a.tar.zst"})).has_value());
  SUBCASE("of a newer zx") {
    SUBCASE("a level") { test::edit(scene.trust(), "\"decode\"", "\"newest\""); }
    SUBCASE("a fault") { test::edit(scene.trust(), "\"damage\"", "\"newest\""); }
    const auto before = test::read(scene.trust());
    const auto kept = scene.repository.remember(kId, passed(Level::decode, 1));
    REQUIRE_FALSE(kept.has_value());
    CHECK(kept.error().code == Code::refused);
    CHECK_FALSE(kept.error().hint.empty());
    CHECK(test::read(scene.trust()) == before);
  }
  SUBCASE("of a set of a newer format") {
    test::edit(scene.repository.set_path(kId) + "/manifest.json", "\"format\": 1", "\"format\": 2");
    const auto before = test::read(scene.trust());
    const auto unknown = failed(Level::decode, 1, {}, Fault::unknown);
    CHECK(scene.repository.remember(kId, unknown).error().code == Code::refused);
    CHECK(test::read(scene.trust()) == before);
  }
  SUBCASE("that cannot be read this time") {
    fs::rename(scene.trust(), scene.trust() + ".aside");
    if (!make_unreadable(scene.trust())) return;
    CHECK(scene.repository.remember(kId, passed(Level::decode, 1)).error().code == Code::io);
    fs::rename(scene.trust() + ".aside", scene.trust());
  }
  CHECK(scene.aside().empty());
}

TEST_CASE("a trust.json that is broken is kept, and so are the checks in it that can be read") {
  const Scene scene;
  REQUIRE(
      scene.repository.remember(kId, failed(Level::decode, 0, {"archives/a.tar.zst"})).has_value());
  bool is_damage_known = true;
  SUBCASE("one check") {
    REQUIRE(scene.repository.remember(kId, passed(Level::checksum, 1)).has_value());
    test::edit(scene.trust(), "\"checksum\"", "7");
  }
  SUBCASE("all of it") {
    test::write(scene.trust(), "{\"set\": ");
    is_damage_known = false;
  }
  const auto before = test::read(scene.trust());
  const auto kept = scene.repository.remember(kId, passed(Level::checksum, 2));
  REQUIRE(kept.has_value());
  const auto aside = scene.aside();
  REQUIRE(aside.size() == 1);
  CHECK_MESSAGE(kept->find(aside.front()) != std::string::npos, *kept);
  CHECK(test::read(scene.repository.set_path(kId) + "/" + aside.front()) == before);
  const auto entry = scene.entry();
  CHECK(entry.trust_problem.empty());
  CHECK(entry.checks.size() == (is_damage_known ? 2 : 1));
  CHECK((believed(scene.set, entry.checks).trust == Trust::corrupt) == is_damage_known);
  // Nothing to say any more.
  CHECK(scene.repository.remember(kId, passed(Level::checksum, 3)).value().empty());
}

TEST_CASE("what the file system has lost is damage, what it does not let one see is not") {
  const Scene scene;
  const auto& archive = scene.set.files.front().archives.front();
  for (const int number : {EIO, EUCLEAN, EBADMSG, ENODATA, EILSEQ}) {
    CAPTURE(number);
    CHECK(unreadable(archive, number).code == Code::failed);
  }
  CHECK(unreadable(archive, EACCES).code == Code::auth);
  CHECK(unreadable(archive, ESTALE).code == Code::io);
  const auto file = scene.repository.path() + "/" + archive.path;
  fs::remove(file);
  if (!make_unreadable(file)) return;
  const auto opened = scene.repository.open_object(archive);
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Code::failed);
}

TEST_CASE("a look at the sums names every object that is damaged") {
  // The objects of this set have other sums than its manifest says; three are not there at all.
  const Scene scene;
  for (const char* name : {"archives/a.tar.zst", "archives/b.tar.zst"})
    fs::remove(scene.repository.path() + "/" + name);
  const auto& part = scene.set.files.front();
  fs::remove(scene.repository.path() + "/" + part.recipe.path);
  std::vector<PartChecked> parts;
  VerifyOptions options;
  options.checked = [&](const PartChecked& one) { parts.push_back(one); };
  const config::Config config;
  // The archives have no lists, and so the manifest contradicts itself as well.
  for (const auto level : {Level::checksum, Level::decode}) {
    parts.clear();
    const auto check = verify(scene.repository, scene.entry(), level, config, options);
    REQUIRE(check.has_value());
    CHECK_FALSE(check->ok);
    auto damaged = check->damaged, expected = Names{};
    for (const auto& object : scene.set.objects()) expected.push_back(object.path);
    std::sort(damaged.begin(), damaged.end());
    std::sort(expected.begin(), expected.end());
    CHECK(damaged == expected);
    REQUIRE(parts.size() == 3);
    CHECK_MESSAGE(parts.back().problem.find("; and 3 more problems") != std::string::npos,
                  parts.back().problem);
  }
}

TEST_CASE("a restore remembers every object that is damaged of what it wants") {
  const Scene scene;
  fs::remove(scene.repository.path() + "/archives/b.tar.zst");
  RestoreWish wish;
  wish.sources = {Source::files};
  const auto chosen = choose_set(scene.repository, wish);
  REQUIRE_FALSE(chosen.has_value());
  const auto entry = scene.entry();
  REQUIRE(entry.checks.size() == 1);
  const auto& part = scene.set.files.front();
  CHECK(entry.checks.front().damaged ==
        Names{part.index.path, part.archives[0].path, part.archives[1].path});
  CHECK_MESSAGE(
      entry.checks.front().problem.find("; and 2 more damaged objects") != std::string::npos,
      entry.checks.front().problem);
}

TEST_CASE("damage of nobody knows what concerns every restore, whatever else is found") {
  const Scene scene;
  for (const auto& one :
       {failed(Level::restore, 0, {}), failed(Level::checksum, 1, {scene.set.redis->rdb.path})})
    REQUIRE(scene.repository.remember(kId, one).has_value());
  RestoreWish wish;
  wish.sources = {Source::files};
  const auto chosen = choose_set(scene.repository, wish);
  REQUIRE_FALSE(chosen.has_value());
  CHECK_MESSAGE(chosen.error().message.find("found at 0") != std::string::npos,
                chosen.error().message);
  CHECK(scene.entry().checks.size() == 2);  // it was not read for that
}

}  // namespace zx::backup
