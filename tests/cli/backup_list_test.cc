// zx backup list and zx backup prune on repositories whose sets hold nothing.
#include <signal.h>

#include <algorithm>

#include <fmt/format.h>

#include "commands/backup/list.h"
#include "lib/base/ids.h"
#include "tests/backup_sets.h"
#include "tests/scenario/traced.h"

namespace zx::test {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// A platform with a repository of sets that are so old.
struct Scene {
  Directory directory;
  std::string toml = directory / "zx.toml";
  backup::Repository repository = make_repository(directory / "backups");
  Wall now = wall_now();

  explicit Scene(const std::string& backup = {}, const std::string& platform = {}) {
    write(toml, "[platform]\nname = \"zhixuan\"\nstate_dir = \"" + directory.path() + "\"\n" +
                    platform + "\n[backup]\nrepository = \"" + repository.path() + "\"\n" + backup);
  }
  std::string put(Millis age, SetToPut wanted = {}) const {
    wanted.begun = now - age;
    wanted.id = make_run_id(wanted.begun);
    put_set(repository, wanted);
    return wanted.id;
  }
  [[nodiscard]] os::ProcessResult zx(Words words) const {
    words.insert(words.begin(), {"-c", toml, "backup"});
    return run_zx(words);
  }
  [[nodiscard]] Json json(Words words) const {
    words.insert(words.end(), {"-o", "json"});
    const auto result = zx(words);
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    return json_of(result);
  }
  [[nodiscard]] Words sets() const { return names_in(repository.path() + "/sets"); }
};

backup::Check check(backup::Level level, Wall at, const std::string& problem = {}) {
  backup::Check check;
  check.level = level;
  check.at = at;
  check.ok = problem.empty();
  check.problem = problem;
  if (level == backup::Level::restore && check.ok) check.restore_ms = 432'000;
  return check;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The row of a set in a table, its cells separated by "|".
std::string row(const std::string& out, const std::string& id) {
  for (const auto& line : lines_of(out)) {
    if (!has(line, id)) continue;
    std::string cells;
    for (const auto& cell : split(line, ' ')) {
      if (cell.empty())
        cells += cells.empty() || cells.ends_with("|") ? "" : "|";
      else
        cells += (cells.empty() || cells.ends_with("|") ? "" : " ") + cell;
    }
    return cells;
  }
  return {};
}

config::Config with_target(Millis rpo) {
  config::Config config;
  config.backup.rpo = rpo;
  return config;
}

}  // namespace

TEST_CASE("zx backup list says of each set its age, size, trust, reason and measured RTO") {
  const Scene scene;
  const auto newest = scene.put(4h, {.archives = {"both.tar.zst"}});
  // More than a day before it: another day, at whatever hour this runs.
  const auto middle = scene.put(29h, {.archives = {"both.tar.zst"}});
  const auto oldest = scene.put(49h);
  REQUIRE(scene.repository.remember(newest, check(backup::Level::restore, scene.now)).has_value());
  REQUIRE(
      scene.repository.remember(middle, check(backup::Level::decode, scene.now - 24h)).has_value());
  REQUIRE(scene.repository
              .remember(oldest, check(backup::Level::checksum, scene.now,
                                      "object 3, pg/商城.dump.zst: another SHA-256"))
              .has_value());

  const auto table = scene.zx({"list"});
  REQUIRE_MESSAGE(table.exit == 0, table.err);
  INFO(table.out);
  CHECK(lines_of(table.out).front().starts_with("  SET "));
  CHECK(row(table.out, newest) == newest + "|4h|1.5 KiB|restored today|daily 1 of 7|7m12s");
  CHECK(row(table.out, middle) == middle + "|1d|1.5 KiB|decoded 1d ago|daily 2 of 7|–");
  CHECK(row(table.out, oldest) == oldest + "|2d|500 B|corrupt: object 3|not counted|–");
  CHECK(has(table.out, oldest + ": object 3, pg/商城.dump.zst: another SHA-256"));
  const auto last = lines_of(table.out).back();
  CHECK(last == "3 sets, 2.4 KiB. Oldest point of return: " +
                    format_local(scene.now - 29h + 1s, Wall{}) + ".");

  const auto json = scene.json({"list"});
  CHECK(json["schema"] == 1);
  REQUIRE(json["sets"].size() == 3);
  CHECK(json["bytes"] == 2500);
  CHECK(json["newest_good"] == newest);
  const auto& first = json["sets"][0];
  CHECK(first["id"] == newest);
  CHECK(first["trust"] == "restored");
  CHECK(first["bytes"] == 1500);
  CHECK(first["rto_ms"] == 432'000);
  CHECK(first["parts"] == Json::array({"redis cache", "files 上传"}));
  CHECK(first["point"] == format_utc(scene.now - 4h + 1s));
  CHECK(first["platform"] == "zhixuan");
  CHECK(first["kept_as"][0].get<std::string>().starts_with("daily 1 of 7 ("));
  CHECK(first["problem"].is_null());
  CHECK(first["expires"].get<std::string>().size() == 10);
  CHECK(json["sets"][1]["trust"] == "decoded");
  CHECK(json["sets"][1]["rto_ms"].is_null());
  CHECK(json["sets"][2]["trust"] == "corrupt");
  CHECK(json["sets"][2]["counted"] == false);
  CHECK(json["sets"][2]["problem"] == "object 3, pg/商城.dump.zst: another SHA-256");
}

TEST_CASE("zx backup list shows labels, what sets hold where they differ, and what to do next") {
  const Scene scene;
  const auto whole = scene.put(30h);
  const auto part = scene.put(2h, {.label = "上线前 4.2", .has_files = false});
  const auto result = scene.zx({"list"});
  INFO(result.out);
  CHECK(row(result.out, part) == part + "|2h|300 B|checksummed|daily 1 of 7|–|redis|上线前 4.2");
  CHECK(has(row(result.out, whole), "|redis, files"));
  CHECK(has(result.out, ". next: zx -c " + scene.toml + " backup verify --level restore\n"));
}

TEST_CASE("what is to be brought up is named where it is not the newest set") {
  const Scene scene;
  const auto good = scene.put(30h);
  const auto corrupt = scene.put(2h);
  REQUIRE(
      scene.repository.remember(corrupt, check(backup::Level::decode, scene.now, "object 1: cut"))
          .has_value());
  CHECK(has(scene.zx({"list"}).out,
            ". next: zx -c " + scene.toml + " backup verify --level restore " + good + "\n"));
}

TEST_CASE("zx status looks at every part that the platform has, too") {
  const Directory nowhere;
  const Scene scene("[backup.target]\nrpo = \"24h\"\n[backup.files.\"上传\"]\npath = \"" +
                    nowhere.path() + "\"\n[hosts.here]\naddress = \"127.0.0.1\"\nremote = []\n" +
                    "[redis.cache.nodes.redis-a]\nhost = \"here\"\nport = 1\n");
  const auto ask = [&](const Words& words) {
    Words all{"-c", scene.toml, "status"};
    all.insert(all.end(), words.begin(), words.end());
    return run_zx(all);
  };
  scene.put(90min, {.has_files = false});
  auto json = json_of(ask({"-o", "json"}))["backup"];
  CHECK(json["age_ms"].is_null());
  CHECK(json["stalest"] == "files 上传");
  auto out = ask({}).out;
  CHECK_MESSAGE(has(out, "newest 1h ago, no good set has files 上传; never restored"), out);
  scene.put(30h);
  json = json_of(ask({"-o", "json"}))["backup"];
  CHECK(json["age_ms"] > 29 * 3'600'000);
  CHECK(json["stalest"] == "files 上传");
  out = ask({}).out;
  CHECK_MESSAGE(has(out, "newest 1h ago, files 上传 1d ago, over the target of "), out);
}

TEST_CASE("sets that cannot be read are listed, and not taken for good ones") {
  const Scene scene;
  const auto torn = scene.put(1h);
  const auto newer = scene.put(2h);
  write(scene.repository.set_path(torn) + "/manifest.json", "{");
  edit(scene.repository.set_path(newer) + "/manifest.json", "\"format\": 1", "\"format\": 7");
  const auto result = scene.zx({"list"});
  REQUIRE(result.exit == 0);
  INFO(result.out);
  CHECK(row(result.out, torn) == torn + "|–|–|unreadable|not counted|–");
  CHECK(row(result.out, newer) == newer + "|–|–|newer format|not counted|–");
  CHECK(has(result.out, "No set is good: there is nothing to return to. next: "));
  const auto json = scene.json({"list"});
  CHECK(json["sets"][0]["trust"] == "corrupt");
  CHECK(json["sets"][1]["trust"].is_null());
  CHECK(json["newest_good"].is_null());
  CHECK(has(json["sets"][1]["problem"], "format 7"));
}

TEST_CASE("an empty repository, none, and none configured are three answers") {
  const Scene scene;
  const auto empty = scene.zx({"list"});
  CHECK(empty.exit == 0);
  CHECK(has(empty.out, "No sets in " + scene.repository.path()));
  CHECK(has(empty.out, "backup run"));
  CHECK(scene.json({"list"})["sets"] == Json::array());

  fs::remove_all(scene.repository.path());
  const auto none = scene.zx({"list"});
  CHECK(none.exit == 2);
  CHECK(has(none.err, "there is no repository in " + scene.repository.path()));
  CHECK(has(none.err, "hint: zx backup run makes it"));

  write(scene.toml, "[platform]\nname = \"zhixuan\"\nstate_dir = \"/tmp\"\n");
  for (const char* leaf : {"list", "prune"}) {
    const auto unset = scene.zx({leaf});
    CHECK(unset.exit == 6);
    CHECK(has(unset.err, "backup.repository"));
  }
}

TEST_CASE("-o nagios is one line with figures and a plugin's status") {
  const Scene scene("[backup.target]\nrpo = \"24h\"\n");
  const auto ask = [&](int exit, const std::string& start) {
    const auto result = scene.zx({"list", "-o", "nagios"});
    INFO(result.out << result.err);
    CHECK(result.exit == exit);
    REQUIRE(lines_of(result.out).size() == 1);
    CHECK(result.out.starts_with(start));
    return result.out;
  };
  ask(2, "BACKUP CRITICAL: there is no set | sets=0 good=0 size=0B");
  scene.put(49h);
  ask(2, "BACKUP CRITICAL: ");
  scene.put(25h);
  CHECK(has(ask(1, "BACKUP WARNING: "), "s;86400;172800;0 sets=2 good=2 size=1000B"));
  const auto fresh = scene.put(1h);
  CHECK(has(ask(0, "BACKUP OK: "), "in " + fresh));
  const auto unreadable = scene.put(30min);
  write(scene.repository.set_path(unreadable) + "/manifest.json", "{");
  CHECK(has(ask(1, "BACKUP WARNING: the newest set, "), unreadable));
  fs::remove_all(scene.repository.set_path(unreadable));
  REQUIRE(
      scene.repository.remember(fresh, check(backup::Level::checksum, scene.now, "object 1 | gone"))
          .has_value());
  const auto line = ask(1, "BACKUP WARNING: ");  // by age, for the newest good one is 25h old
  CHECK(std::count(line.begin(), line.end(), '|') == 1);
  fs::remove_all(scene.repository.path());
  ask(2, "BACKUP CRITICAL: there is no repository in ");
  write(scene.repository.path() + "/zx-repository.json", "{}");
  ask(3, "UNKNOWN: ");
  write(scene.toml, "[platform]\nname = 1\n");
  ask(3, "UNKNOWN: ");
}

TEST_CASE("nagios looks at every part that the platform has") {
  const Scene scene;
  scene.put(1h, {.has_files = false});
  scene.put(30h);
  auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  auto config = with_target(24h);
  config.redis.emplace_back().name = "cache";
  CHECK(commands::nagios_line(*entries, config, scene.now).exit == 0);
  config.backup.files.emplace_back().name = "上传";
  const auto files = commands::nagios_line(*entries, config, scene.now);
  CHECK(files.exit == 1);
  CHECK(files.line.starts_with("BACKUP WARNING: files 上传 backed up 1d ago"));
  config.pg.emplace_back().name = "main";
  const auto pg = commands::nagios_line(*entries, config, scene.now);
  CHECK(pg.exit == 2);
  CHECK(pg.line.starts_with("BACKUP CRITICAL: no good set has pg main | "));
}

TEST_CASE("nagios warns of a corrupt newest set though an older one is young enough") {
  const Scene scene;
  const auto newest = scene.put(1h);
  scene.put(2h);
  REQUIRE(
      scene.repository.remember(newest, check(backup::Level::decode, scene.now, "object 2: cut"))
          .has_value());
  const auto entries = scene.repository.sets();
  REQUIRE(entries.has_value());
  const auto answer = commands::nagios_line(*entries, with_target(24h), scene.now);
  CHECK(answer.exit == 1);
  CHECK(has(answer.line, "the newest set, " + newest + ", is not good: object 2: cut"));
  // One of the future hides nothing.
  CHECK(commands::nagios_line(*entries, with_target(24h), scene.now - 100h).exit == 2);
}

TEST_CASE("no other command takes -o nagios, and only the help of this one names it") {
  const auto result = run_zx({"status", "-o", "nagios"});
  CHECK(result.exit == 2);
  CHECK(has(result.err, "--output takes table or json, not \"nagios\""));
  CHECK(has(run_zx({"backup", "list", "--help"}).out, "table|json|nagios"));
  for (const Words& words : {Words{"status", "--help"}, {"backup", "prune", "--help"}, {"--help"}})
    CHECK(!has(run_zx(words).out, "nagios"));
  const auto wrong = run_zx({"backup", "list", "-o", "nagois"});
  CHECK(has(wrong.err, "--output takes table, json or nagios, not \"nagois\""));
  CHECK(has(wrong.err, "did you mean \"nagios\"?"));
}

TEST_CASE("zx backup prune tells what it would delete, and deletes with consent alone") {
  const Scene scene("[backup.retention]\ndaily = 1\nweekly = 0\nmonthly = 0\n");
  const auto old = scene.put(49h, {.archives = {"%E6%97%A7.tar.zst"}});
  const auto newest = scene.put(1h);
  const auto stays = [&] { CHECK(scene.sets().size() == 2); };

  const auto plan = scene.zx({"prune", "--dry-run"});
  REQUIRE_MESSAGE(plan.exit == 0, plan.err);
  INFO(plan.out);
  CHECK(row(plan.out, old) == "delete|" + old + "|2d|1.5 KiB|no day, week or month keeps it");
  CHECK(has(row(plan.out, newest), "keep|" + newest + "|1h|500 B|daily 1 of 1 ("));
  CHECK(has(plan.out, "Would delete 1 set, "));
  CHECK(has(plan.out, "Run it: zx -c " + scene.toml + " backup prune --yes\n"));
  stays();

  const auto explained = scene.zx({"prune", "--explain"});
  CHECK(explained.exit == 0);
  CHECK(has(explained.out, "the newest good one"));
  CHECK(has(explained.out, "UNTIL"));
  stays();

  const auto unasked = scene.zx({"prune"});
  CHECK(unasked.exit == 9);
  CHECK(has(unasked.err, "--yes"));
  stays();

  const auto json = scene.json({"prune", "--yes"});
  CHECK(json["outcome"] == "done");
  CHECK(json["deleted"] == Json::array({old}));
  CHECK(json["kept"] == 1);
  CHECK(json["freed_bytes"].get<std::uint64_t>() > 1500);
  CHECK(json["sets"][0]["action"] == "keep");
  CHECK(json["sets"][1]["action"] == "delete");
  CHECK(scene.sets() == Words{newest});
  CHECK(names_in(scene.repository.archives_path()).empty());

  const auto again = scene.zx({"prune"});  // nothing to agree to
  CHECK(again.exit == 0);
  CHECK(has(again.out, "Nothing to delete: 1 set, all of them stay."));
}

TEST_CASE("zx backup prune deletes nothing where another platform has sets") {
  const Scene scene("[backup.retention]\ndaily = 0\nweekly = 0\nmonthly = 0\n");
  scene.put(49h);
  scene.put(1h);
  edit(scene.toml, "zhixuan", "另一家");
  const auto refused = scene.zx({"prune", "--yes"});
  CHECK(refused.exit == 3);
  CHECK(has(refused.err, "the repository has sets of the platform zhixuan"));
  CHECK(has(refused.err, "另一家"));
  CHECK(has(refused.err, "hint: "));
  CHECK(scene.sets().size() == 2);
}

TEST_CASE("in production zx backup prune wants the name of the platform") {
  const Scene scene("[backup.retention]\ndaily = 0\nweekly = 0\nmonthly = 0\n",
                    "environment = \"production\"\n");
  scene.put(49h);
  scene.put(1h);
  CHECK(has(scene.zx({"prune", "--dry-run"}).out, "backup prune --confirm zhixuan\n"));
  CHECK(scene.zx({"prune", "--yes"}).exit == 9);
  CHECK(scene.zx({"prune", "--confirm", "other"}).exit == 9);
  CHECK(scene.sets().size() == 2);
  CHECK(scene.zx({"prune", "--confirm", "zhixuan"}).exit == 0);
  CHECK(scene.sets().size() == 1);
}

TEST_CASE("zx backup prune leaves alone what another holds, and says so") {
  const Scene scene("[backup.retention]\ndaily = 0\nweekly = 0\nmonthly = 0\n");
  scene.put(49h);
  scene.put(1h);
  {
    const auto lock = scene.repository.lock_to_write("zx backup run");
    REQUIRE(lock.has_value());
    const auto result = scene.zx({"prune", "--yes", "--timeout", "200ms"});
    CHECK(result.exit == 5);
    CHECK(has(result.err, "zx backup run"));
    CHECK(scene.zx({"list"}).exit == 0);
  }
  {
    const auto lock = scene.repository.lock_to_delete();
    REQUIRE(lock.has_value());
    const auto result = scene.zx({"list", "--timeout", "200ms"});
    CHECK(result.exit == 5);
    CHECK(scene.zx({"list", "--timeout", "200ms", "-o", "nagios"}).exit == 3);
  }
  CHECK(scene.sets().size() == 2);
}

TEST_CASE("zx backup prune writes the metrics anew, and says when it cannot") {
  const Directory metrics;
  const Scene scene("metrics_file = \"" + metrics.path() +
                    "/zx_backup.prom\"\n[backup.retention]\ndaily = 1\nweekly = 0\nmonthly = 0\n");
  scene.put(49h);
  scene.put(1h);
  CHECK(scene.json({"prune", "--yes"})["warnings"] == Json::array());
  CHECK(has(read(metrics / "zx_backup.prom"), "\nzx_backup_sets 1\n"));
  fs::remove_all(metrics.path());
  const auto json = scene.json({"prune", "--yes"});
  REQUIRE(json["warnings"].size() == 1);
  CHECK(has(json["warnings"][0], "backup.metrics_file"));
}

TEST_CASE("killed in any call that changes the disk, zx backup prune leaves sets whole or gone") {
  const Scene scene("[backup.retention]\ndaily = 2\nweekly = 0\nmonthly = 0\n");
  int killed = 0, between = 0;
  const auto is_killed = [&](const std::string& call, int when) {
    for (const auto& name : scene.sets()) fs::remove_all(scene.repository.set_path(name));
    for (int day = 0; day < 4; ++day)
      scene.put(day * 24h + 1h, {.archives = {fmt::format("{}{}-{}.tar.zst", call, when, day),
                                              fmt::format("{}{}-all.tar.zst", call, when)}});
    const auto inject = fmt::format("{}:signal=KILL:when={}", call, when);
    const auto result =
        run_program(argv_under(scene.toml, inject, {"backup", "prune", "--yes"}), traced());
    INFO(call << " " << when << ": " << result.err);
    REQUIRE((result.signal == SIGKILL || result.exit == 0));
    const auto entries = scene.repository.sets();
    REQUIRE(entries.has_value());
    between += entries->size() == 3 ? 1 : 0;
    REQUIRE(entries->size() >= 2);
    for (const auto& entry : *entries) {
      REQUIRE(entry.set.has_value());
      for (const auto& object : entry.set->objects())
        CHECK(scene.repository.open_object(object).has_value());
    }
    const auto finished = scene.zx({"prune", "--yes"});
    REQUIRE_MESSAGE(finished.exit == 0, finished.err);
    CHECK(scene.sets().size() == 2);
    CHECK(names_in(scene.repository.trash_path()).empty());
    CHECK(names_in(scene.repository.archives_path()).size() == 3);
    return result.signal == SIGKILL;
  };
  for (const std::string call : {"renameat", "fsync", "unlinkat"}) {
    int when = 1;
    for (; is_killed(call, when); ++when) {
      ++killed;
      REQUIRE(when < 100);
    }
    INFO(call);
    CHECK(when > 1);
  }
  CHECK(killed > 15);
  CHECK(between > 0);
}

}  // namespace zx::test
