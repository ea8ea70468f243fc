// Deletion in real directories, and what the metrics say.
#include "lib/backup/prune.h"

#include <sys/stat.h>

#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/metrics.h"
#include "lib/os/signals.h"
#include "tests/backup_sets.h"

namespace zx::backup {
namespace {

namespace fs = std::filesystem;
using test::moment;
using test::names_in;
using test::put_set;
using Names = std::vector<std::string>;

constexpr const char* kOld = "20261122T020000-aaaa";
constexpr const char* kMiddle = "20261123T020000-bbbb";
constexpr const char* kNew = "20261124T020000-cccc";
const Wall kNow = parse_utc("2026-11-24T03:00:00.000Z");

config::Backup daily(int count) {
  config::Backup policy;
  policy.daily = count;
  policy.weekly = policy.monthly = 0;
  return policy;
}

// Three sets, of which each refers to its own archive, and the newest to that of the oldest too.
struct Scene {
  test::Directory directory;
  Repository repository = test::make_repository(directory / "备份");
  Scene() {
    put_set(repository, {kOld, moment("2026-11-22T02:00"), {"old.tar.zst"}});
    put_set(repository,
            {kMiddle, moment("2026-11-23T02:00"), {"old.tar.zst", "%E4%B8%AD.tar.zst"}});
    put_set(repository, {kNew, moment("2026-11-24T02:00"), {"old.tar.zst", "new.tar.zst"}});
  }
  [[nodiscard]] Names sets() const { return names_in(repository.path() + "/sets"); }
  [[nodiscard]] Names archives() const { return names_in(repository.path() + "/archives"); }
  [[nodiscard]] Names trash() const { return names_in(repository.path() + "/trash"); }
  // As the command does it: what the plan names is agreed to.
  [[nodiscard]] Result<Pruned> prune_all(const config::Backup& policy, Wall now = kNow) const {
    ZX_ASSIGN(const auto plan, plan_prune(repository, policy, now));
    return prune(repository, policy, now, plan.deleted);
  }
};

std::uint64_t size_of(const std::string& path) {
  std::uint64_t sum = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file() && entry.path().filename() != "lock") sum += entry.file_size();
  return sum;
}

Check failed_check() {
  Check check;
  check.level = Level::checksum;
  check.at = kNow;
  check.problem = "object 3, redis/cache.rdb: another SHA-256";
  return check;
}

std::string said(const Result<Pruned>& result) { return result ? "" : result.error().message; }

}  // namespace

TEST_CASE("what no rule keeps is deleted, with the archives that it alone needed") {
  const Scene scene;
  const auto before = size_of(scene.repository.path());
  const auto pruned = scene.prune_all(daily(1));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted == Names{kMiddle, kOld});
  CHECK(scene.sets() == Names{kNew});
  CHECK(scene.archives() == Names{"new.tar.zst", "old.tar.zst"});
  CHECK(scene.trash().empty());
  CHECK(pruned->freed == before - size_of(scene.repository.path()));
  CHECK(pruned->freed > 1000);
  CHECK(pruned->warnings.empty());
  // Once more finds nothing.
  const auto again = scene.prune_all(daily(1));
  REQUIRE(again.has_value());
  CHECK(again->deleted.empty());
  CHECK(again->freed == 0);
}

TEST_CASE("a plan tells the same and changes nothing") {
  const Scene scene;
  const auto before = test::tree_of(scene.repository.path());
  const auto plan = plan_prune(scene.repository, daily(1), kNow);
  REQUIRE_MESSAGE(plan.has_value(), said(plan));
  CHECK(test::tree_of(scene.repository.path()) == before);
  const auto pruned = scene.prune_all(daily(1));
  REQUIRE(pruned.has_value());
  CHECK(pruned->deleted == plan->deleted);
  CHECK(pruned->freed == plan->freed);
}

TEST_CASE("only what was agreed to is deleted") {
  const Scene scene;
  const auto pruned = prune(scene.repository, daily(1), kNow, {kOld, kNew});
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted == Names{kOld});  // the newest is kept by a rule
  CHECK(scene.sets() == Names{kMiddle, kNew});
  CHECK(scene.archives().size() == 3);
}

TEST_CASE("a prune that was killed is finished by the next one") {
  const Scene scene;
  const auto root = scene.repository.path();
  SUBCASE("between the phases: the set is gone, its archive is not") {
    fs::rename(root + "/sets/" + kMiddle, root + "/trash/" + kMiddle);
  }
  SUBCASE("while the trash was removed") {
    fs::rename(root + "/sets/" + kMiddle, root + "/trash/" + kMiddle);
    fs::remove(root + "/trash/" + kMiddle + "/manifest.json");
  }
  SUBCASE("before the archives were removed") { fs::remove_all(root + "/sets/" + kMiddle); }
  const auto pruned = scene.prune_all(daily(7));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted.empty());
  CHECK(pruned->finished.archives == 1);
  CHECK(scene.sets() == Names{kOld, kNew});
  CHECK(scene.archives() == Names{"new.tar.zst", "old.tar.zst"});
  CHECK(scene.trash().empty());
}

TEST_CASE("interrupted in the first phase, the oldest are gone and every other set is whole") {
  const Scene scene;
  const auto plan = plan_prune(scene.repository, daily(1), kNow);
  REQUIRE(plan.has_value());
  {
    int asked = 0;
    const os::InterruptibleBy second([&asked] { return ++asked == 2; });
    const auto pruned = prune(scene.repository, daily(1), kNow, plan->deleted);
    REQUIRE(!pruned.has_value());
    CHECK(pruned.error().code == Code::interrupted);
  }
  CHECK(scene.sets() == Names{kMiddle, kNew});
  CHECK(scene.trash() == Names{kOld});
  const auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  for (const auto& entry : *entries) {
    REQUIRE(entry.set.has_value());
    for (const auto& object : entry.set->objects()) {
      INFO(object.path);
      CHECK(scene.repository.open_object(object).has_value());
    }
  }
  CHECK(scene.prune_all(daily(1)).has_value());
  CHECK(scene.sets() == Names{kNew});
  CHECK(scene.trash().empty());
}

TEST_CASE("while one manifest cannot be read no archive is deleted, and that is said") {
  const Scene scene;
  const auto manifest = scene.repository.set_path(kMiddle) + "/manifest.json";
  SUBCASE("damaged") { test::write(manifest, "{\"kind\": \"zx-set\", \"for"); }
  SUBCASE("gone") { fs::remove(manifest); }
  SUBCASE("of a newer zx") { test::edit(manifest, "\"format\": 1", "\"format\": 2"); }
  SUBCASE("a symbolic link to another's") {
    fs::remove(manifest);
    fs::create_symlink(scene.repository.set_path(kNew) + "/manifest.json", manifest);
  }
  const auto pruned = scene.prune_all(daily(1));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted == Names{kOld});
  CHECK(scene.sets() == Names{kMiddle, kNew});
  CHECK(scene.archives().size() == 3);
  const auto warnings = join(pruned->warnings, "\n");
  INFO(warnings);
  CHECK(warnings.find(std::string(kMiddle) + ": not counted, and kept") != std::string::npos);
  CHECK(warnings.find("no archive of files is deleted") != std::string::npos);
}

TEST_CASE("the newest set is corrupt: the newest good one stays") {
  const Scene scene;
  REQUIRE(scene.repository.remember(kNew, failed_check()).has_value());
  const auto pruned = scene.prune_all(daily(0));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(scene.sets() == Names{kMiddle, kNew});
  REQUIRE(pruned->decisions.size() == 3);
  CHECK(pruned->decisions[0].reasons ==
        Names{"corrupt: not counted; kept until a newer one is good"});
  CHECK(pruned->decisions[1].reasons == Names{"the newest good one"});
  // Its archives are needed as long as it is there.
  CHECK(scene.archives() == Names{"%E4%B8%AD.tar.zst", "new.tar.zst", "old.tar.zst"});
}

TEST_CASE("what was found in a set that goes is known of the sets that share it") {
  const Scene scene;
  auto damage = failed_check();
  damage.level = Level::decode;
  damage.at = moment("2026-11-23T03:00");
  damage.damaged = {"archives/old.tar.zst"};
  REQUIRE(scene.repository.remember(kMiddle, damage).has_value());
  // Of this one alone, and good.
  put_set(scene.repository, {"20261210T020000-dddd", moment("2026-12-10T02:00"), {"own.tar.zst"}});
  const auto later = moment("2026-12-10T03:00");
  const auto known = [&](const std::string& name) {
    const auto entries = scene.repository.sets();
    REQUIRE(entries.has_value());
    for (const auto& entry : *entries)
      if (entry.id == name) return believed(*entry.set, entry.checks);
    FAIL("no set " << name);
    return Believed{};
  };
  Names agreed{kMiddle};
  SUBCASE("it is handed on") {
    const auto pruned = prune(scene.repository, daily(1), later, agreed);
    REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
    CHECK(pruned->deleted == agreed);
    for (const auto* name : {kOld, kNew}) {
      CAPTURE(name);
      const auto trust = known(name);
      CHECK(trust.trust == Trust::corrupt);
      CHECK(trust.since == damage.at);
      CHECK(trust.damaged == damage.damaged);
      CHECK(trust.failures.front().level == Level::decode);
      CHECK(trust.failures.front().found_in == kMiddle);
    }
    // And so on, once.
    agreed = {kNew};
    REQUIRE(prune(scene.repository, daily(1), later, agreed).has_value());
    CHECK(known(kOld).failures.size() == 1);
  }
  SUBCASE("where that cannot be written it stays") {
    fs::create_directory(scene.repository.set_path(kNew) + "/trust.json");  // is kept aside
    test::write(scene.repository.set_path(kOld) + "/trust.json",
                R"({"checks": [{"level": "newest", "at": "2026-11-24T02:00:00.000Z"}]})");
    const auto pruned = prune(scene.repository, daily(1), later, agreed);
    REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
    CHECK(pruned->deleted.empty());
    CHECK(scene.sets().size() == 4);
    const auto warnings = join(pruned->warnings, "\n");
    INFO(warnings);
    CHECK(warnings.find(std::string(kMiddle) + " is not deleted") != std::string::npos);
    CHECK(warnings.find("trust.json.bad-") != std::string::npos);
  }
}

TEST_CASE("a name that is no set's keeps every archive, which is said once and not counted") {
  const Scene scene;
  test::write(scene.repository.path() + "/sets/README", "mine");
  const auto plan = plan_prune(scene.repository, daily(1), kNow);
  REQUIRE_MESSAGE(plan.has_value(), said(plan));
  const auto before = size_of(scene.repository.path());
  const auto pruned = prune(scene.repository, daily(1), kNow, plan->deleted);
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted == Names{kMiddle, kOld});
  CHECK(scene.archives().size() == 3);
  CHECK(pruned->freed == before - size_of(scene.repository.path()));
  CHECK(plan->freed == pruned->freed);
  for (const auto* one : {&*plan, &*pruned}) {
    REQUIRE(one->warnings.size() == 1);
    CHECK_MESSAGE(one->warnings.front().find("sets/README") != std::string::npos,
                  one->warnings.front());
  }
}

TEST_CASE("what a sweep could not remove is told with the rest") {
  const Scene scene;
  fs::create_directory(scene.repository.path() + "/archives/a directory");
  const auto pruned = scene.prune_all(daily(1));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(pruned->deleted.size() == 2);
  REQUIRE(pruned->warnings.size() == 1);  // of both sweeps
  CHECK_MESSAGE(pruned->warnings.front().find("a directory") != std::string::npos,
                pruned->warnings.front());
}

TEST_CASE("a set whose checks cannot be read is kept and takes no place") {
  const Scene scene;
  test::write(scene.repository.set_path(kNew) + "/trust.json", "no JSON");
  const auto pruned = scene.prune_all(daily(1));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(scene.sets() == Names{kMiddle, kNew});
}

TEST_CASE("nothing is deleted while somebody reads or writes, and the error says who") {
  const Scene scene;
  {
    const auto writing = scene.repository.lock_to_write("zx backup run");
    REQUIRE(writing.has_value());
    const auto pruned = scene.prune_all(daily(1));
    REQUIRE(!pruned.has_value());
    CHECK(pruned.error().code == Code::locked);
    CHECK_MESSAGE(pruned.error().message.find("zx backup run") != std::string::npos, said(pruned));
  }
  {
    const auto reading = scene.repository.lock_to_read();
    REQUIRE(reading.has_value());
    CHECK(plan_prune(scene.repository, daily(1), kNow).has_value());  // it reads as well
    const auto pruned = scene.prune_all(daily(1));
    REQUIRE(!pruned.has_value());
    CHECK(pruned.error().code == Code::locked);
  }
  {
    const auto deleting = scene.repository.lock_to_delete();
    REQUIRE(deleting.has_value());
    CHECK(plan_prune(scene.repository, daily(1), kNow).error().code == Code::locked);
  }
  CHECK(scene.sets().size() == 3);
  CHECK(scene.archives().size() == 3);
  CHECK(scene.prune_all(daily(1)).has_value());
}

TEST_CASE("with a clock that is a day behind the set of the future stays, and the rest as well") {
  const Scene scene;
  const auto pruned = scene.prune_all(daily(2), kNow - std::chrono::hours(24));
  REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
  CHECK(scene.sets() == Names{kOld, kMiddle, kNew});
  CHECK(join(pruned->warnings, "\n").find("of the future") != std::string::npos);
  // Right again, the oldest goes.
  CHECK(scene.prune_all(daily(2)).has_value());
  CHECK(scene.sets() == Names{kMiddle, kNew});
}

TEST_CASE("a symbolic link in the place of a set or of the trash leads nowhere") {
  const Scene scene;
  const auto outside = scene.directory / "outside";
  SUBCASE("a set") {
    fs::rename(scene.repository.set_path(kOld), outside);
    fs::create_directory_symlink(outside, scene.repository.set_path(kOld));
    const auto pruned = scene.prune_all(daily(1));
    REQUIRE_MESSAGE(pruned.has_value(), said(pruned));
    CHECK(pruned->deleted == Names{kMiddle});
    CHECK(fs::is_symlink(scene.repository.set_path(kOld)));
    CHECK(fs::exists(outside + "/manifest.json"));
  }
  SUBCASE("the trash") {
    fs::create_directory(outside);
    test::write(outside + "/precious", "");
    fs::remove(scene.repository.trash_path());
    fs::create_directory_symlink(outside, scene.repository.trash_path());
    const auto pruned = scene.prune_all(daily(1));
    REQUIRE(!pruned.has_value());
    CHECK(pruned.error().code == Code::refused);
    CHECK(names_in(outside) == Names{"precious"});
    CHECK(scene.sets().size() == 3);
  }
  SUBCASE("in the trash") {
    fs::create_directory(outside);
    test::write(outside + "/precious", "");
    fs::create_directory_symlink(outside, scene.repository.trash_path() + "/link");
    CHECK(scene.prune_all(daily(1)).has_value());
    CHECK(names_in(outside) == Names{"precious"});
    CHECK(scene.trash().empty());
  }
}

TEST_CASE("metrics tell moments, counts and the trust of the newest set") {
  const Scene scene;
  Check rehearsal;
  rehearsal.level = Level::restore;
  rehearsal.at = moment("2026-11-24T02:30");
  rehearsal.ok = true;
  rehearsal.restore_ms = 432'500;
  REQUIRE(scene.repository.remember(kMiddle, rehearsal).has_value());
  REQUIRE(scene.repository.remember(kNew, failed_check()).has_value());
  const auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  const auto text = metrics_text(*entries, config::Backup{}, kNow);
  const auto lines = test::lines_of(text);
  const auto has = [&](const std::string& line) {
    INFO(text);
    CHECK(std::count(lines.begin(), lines.end(), line) == 1);
  };
  const auto seconds = [](const char* utc) {
    return std::chrono::duration_cast<std::chrono::seconds>(moment(utc).time_since_epoch()).count();
  };
  // The newest good one is the middle one.
  has(fmt::format("zx_backup_last_success_timestamp_seconds {}", seconds("2026-11-23T02:01")));
  has(fmt::format("zx_backup_point_timestamp_seconds{{part=\"redis\",name=\"cache\"}} {}",
                  seconds("2026-11-23T02:00") + 1));
  has("zx_backup_sets 3");
  has("zx_backup_good_sets 2");
  has("zx_backup_bytes 4500");  // three archives, each once, and 500 bytes of each set
  has(fmt::format("zx_backup_trust{{set=\"{}\",trust=\"corrupt\"}} 1", kNew));
  has(fmt::format("zx_backup_trust{{set=\"{}\",trust=\"checksummed\"}} 0", kNew));
  has(fmt::format("zx_backup_last_verify_timestamp_seconds{{level=\"restore\"}} {}",
                  seconds("2026-11-24T02:30")));
  has("zx_backup_last_verify_timestamp_seconds{level=\"decode\"} 0");
  has("zx_backup_rto_seconds 432.5");
  has("zx_backup_rto_target_seconds 1800");
  has("zx_backup_rpo_target_seconds 86400");
  // Every family is explained once, before its values.
  std::string family;
  for (const auto& line : lines) {
    INFO(line);
    if (line.starts_with("# HELP ")) family = split(line, ' ')[2];
    if (!line.starts_with("#")) CHECK(line.substr(0, line.find_first_of(" {")) == family);
  }
}

TEST_CASE("metrics of an empty repository say never, and no time of a restore") {
  const auto text = metrics_text({}, config::Backup{}, kNow);
  CHECK(text.find("\nzx_backup_last_success_timestamp_seconds 0\n") != std::string::npos);
  CHECK(text.find("\nzx_backup_sets 0\n") != std::string::npos);
  CHECK(text.find("zx_backup_rto_seconds") == std::string::npos);
}

TEST_CASE("the file of metrics is readable for node_exporter, and none is written unasked") {
  const Scene scene;
  config::Backup policy;
  CHECK(write_metrics(scene.repository, policy, kNow).has_value());
  policy.metrics_file = scene.directory / "zx_backup.prom";
  const auto mask = umask(077);
  CHECK(write_metrics(scene.repository, policy, kNow).has_value());
  umask(mask);
  struct stat found {};
  REQUIRE(stat(policy.metrics_file.c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0644);
  CHECK(test::read(policy.metrics_file).find("\nzx_backup_sets 3\n") != std::string::npos);
  CHECK(names_in(scene.directory.path()) == Names{"zx_backup.prom", "备份"});
  policy.metrics_file = scene.directory / "missing/zx_backup.prom";
  CHECK(write_metrics(scene.repository, policy, kNow).error().code == Code::not_found);
}

}  // namespace zx::backup
