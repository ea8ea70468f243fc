// What a restore looks at before it acts, and that undo and commit find all that they need or do
// nothing.
#include <pty.h>
#include <sys/wait.h>

#include "lib/backup/restore_checks.h"
#include "lib/ha/last_seen.h"
#include "lib/run/journal.h"
#include "tests/scenario/backup_scene.h"
#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::Configured;
using test::eventually;
using test::has;
using test::Platform;

const std::vector<std::string> kUndo{"restore", "undo", "--confirm", "lab"};
const std::vector<std::string> kCommit{"restore", "commit", "--yes"};
const std::vector<std::string> kFull{"restore", "full", "--confirm", "lab"};
const std::vector<std::string> kRedis{"restore", "redis", "--confirm", "cache"};

void succeeds(const Platform& platform, const std::vector<std::string>& words) {
  const auto result = platform.zx(words);
  REQUIRE_MESSAGE(result.exit == 0, (join(words, " ") + "\n" + result.out + result.err));
}

// It says so, and nothing is changed or begun.
void refuses(const Platform& platform, const std::vector<std::string>& words,
             const std::string& message, int exit = 3) {
  const auto before = platform.everything();
  const auto runs = platform.zx_json({"runs", "list"})["runs"].size();
  const auto result = platform.zx(words);
  CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
  CHECK_MESSAGE(has(result.err, message), (message + "\n" + result.err));
  CHECK(platform.changed_since(before) == "");
  CHECK(platform.zx_json({"runs", "list"})["runs"].size() == runs);
}

std::string output_of(const Platform& platform, const std::vector<std::string>& words,
                      int exit = 0) {
  const auto result = platform.zx(words);
  CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
  std::string text;  // wrapped for people
  for (const char c : result.out + result.err) text += c == '\n' ? ' ' : c;
  return text;
}

std::vector<std::string> kept_beside(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (has(entry.path().filename(), ".zx-before-")) names.push_back(entry.path());
  return names;
}

// Of Redis, with what tells of them.
std::vector<std::string> safety_copies(const Platform& platform) {
  std::vector<std::string> names;
  std::error_code none;  // before the first
  for (const auto& entry :
       std::filesystem::directory_iterator(platform.state_dir() + "/backups/redis", none))
    names.push_back(entry.path().filename());
  return names;
}

void stop_redis(const Platform& platform) {
  const auto sent = platform.lab().kill("redis-a", SIGTERM);
  REQUIRE((sent && *sent > 0));
  REQUIRE(eventually([&] { return !platform.lab().node("redis-a")->is_running(); }));
}

std::string newest_run(const Platform& platform, const std::string& command) {
  const auto listed = run::list_runs(platform.state_dir(), 100);
  REQUIRE_MESSAGE(listed.has_value(), test::why(listed));
  for (const auto& record : listed->runs)
    if (record.plan.command == command) return record.id;
  return {};
}

// A zx on a terminal of its own, that asks.
class Asking {
 public:
  Asking(const Platform& platform, std::vector<std::string> words) {
    words.insert(words.begin(), {ZX_BINARY, "-c", platform.config()});
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    int terminal = -1;
    pid_ = forkpty(&terminal, nullptr, nullptr, nullptr);
    if (pid_ == 0) {
      execv(argv[0], argv.data());
      _exit(127);
    }
    REQUIRE(pid_ > 0);
    terminal_ = os::Descriptor(terminal);
  }
  ~Asking() {
    if (pid_ > 0) (void)exit();
  }
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;
  // Reads until it has said so.
  void wait_for(const std::string& words) {
    while (!has(said_, words)) REQUIRE_MESSAGE(read_more(), said_);
  }
  void type(const std::string& text) {
    REQUIRE(::write(terminal_.get(), text.data(), text.size()) ==
            static_cast<ssize_t>(text.size()));
  }
  int exit() {
    while (read_more()) {
    }
    int status = 0;
    if (waitpid(std::exchange(pid_, -1), &status, 0) < 0 || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
  }
  [[nodiscard]] const std::string& said() const { return said_; }

 private:
  bool read_more() {
    char buffer[4096];
    const auto got = ::read(terminal_.get(), buffer, sizeof buffer);
    if (got > 0) said_.append(buffer, static_cast<std::size_t>(got));
    return got > 0;
  }
  pid_t pid_ = -1;
  os::Descriptor terminal_;
  std::string said_;
};

}  // namespace

TEST_CASE("what was agreed to is asked again once it is one's turn") {
  const Platform platform({.pg = 0, .redis = 1});
  platform.back_up({"--only", "files"});
  const std::vector<std::string> restore{"restore",          "files",     "--path",
                                         platform.uploads(), "--confirm", "lab"};
  const auto later = platform.uploads() + "/later";
  succeeds(platform, restore);
  for (const auto* command : {"undo", "commit"}) {
    test::write(later, command);
    Asking asking(platform, {"restore", command});
    asking.wait_for("?");
    succeeds(platform, kCommit);
    succeeds(platform, restore);
    asking.type("y\r");
    const auto status = asking.exit();
    CHECK_MESSAGE(status == 3, asking.said());
    CHECK_MESSAGE(has(asking.said(), "since then run"), asking.said());
    CHECK_FALSE(os::exists(later));
    CHECK(test::read(platform.uploads() + ".zxold/later") == command);
  }
}

TEST_CASE("what a stopped Redis had comes back with undo, and commit leaves nothing of it") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(0, 100);
  platform.back_up({"--only", "redis"});
  const auto good = platform.keys();
  platform.redis({"FLUSHALL"});
  platform.redis({"SET", "since", "then"});
  const auto lost = platform.keys();
  const auto data_dir = platform.lab().node("redis-a")->data_dir;

  stop_redis(platform);
  succeeds(platform, kRedis);
  CHECK(platform.keys() == good);
  CHECK(kept_beside(data_dir).size() == 1);
  succeeds(platform, kUndo);
  CHECK(platform.keys() == lost);
  CHECK(kept_beside(data_dir).empty());
  CHECK(safety_copies(platform).empty());

  stop_redis(platform);
  succeeds(platform, kRedis);
  CHECK(platform.keys() == good);
  succeeds(platform, kCommit);
  CHECK(platform.keys() == good);
  CHECK(kept_beside(data_dir).empty());
  CHECK(safety_copies(platform).empty());

  // While it serves, and without a journal that says where its safety copy is.
  platform.redis({"SET", "since", "then"});
  succeeds(platform, kRedis);
  const auto journal =
      platform.state_dir() + "/runs/" + newest_run(platform, "redis restore") + ".jsonl";
  std::filesystem::rename(journal, journal + ".away");
  refuses(platform, kUndo, "is away");
  std::filesystem::rename(journal + ".away", journal);
  CHECK_FALSE(safety_copies(platform).empty());
  succeeds(platform, kUndo);
  CHECK(platform.redis({"GET", "since"}) == "then");
  CHECK(safety_copies(platform).empty());
  // It had no keys: only then it is emptied.
  platform.redis({"FLUSHALL"});
  succeeds(platform, kRedis);
  CHECK(platform.keys() == good);
  succeeds(platform, kUndo);
  CHECK(platform.redis({"DBSIZE"}) == "0");
  CHECK(safety_copies(platform).empty());
}

TEST_CASE("keys come back although the run that replaced them was ended as it was") {
  const Platform platform({.pg = 0, .redis = 1});
  platform.redis({"SET", "good", "1"});
  platform.back_up({"--only", "redis"});
  platform.redis({"FLUSHALL"});
  platform.redis({"SET", "since", "then"});
  const auto lost = platform.keys();
  bool was_replaced = false;
  for (int line = 12; !was_replaced; ++line) {
    REQUIRE(platform.zx_killed_in("fdatasync", line, kRedis).signal == SIGKILL);
    const auto inner = newest_run(platform, "redis restore");
    const auto record = run::read_run(platform.state_dir(), inner);
    REQUIRE((record && !record->outcome));
    was_replaced = platform.keys() != lost;
    if (was_replaced) {
      const auto ended = platform.zx({"runs", "abort", inner, "--as-is"});
      REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
    }
    const std::vector<std::string> abort{"runs", "abort", newest_run(platform, "restore redis")};
    auto back = platform.zx(abort);
    // Still behind the server that fed it, which is gone: that is not taken for taken back.
    if (was_replaced && back.exit == 4) {
      CHECK(has(back.err, "redis-a is a replica"));
      CHECK(platform.redis({"REPLICAOF", "NO", "ONE"}) == "OK");
      back = platform.zx(abort);
    }
    CHECK_MESSAGE(back.exit == 0, (back.out + back.err));
    CHECK(platform.keys() == lost);
  }
}

TEST_CASE("undo and commit find all that they need, or change nothing") {
  const Platform platform({.pg = 1, .redis = 1, .services = true});
  platform.fill(10, 20);
  platform.back_up();
  platform.sql("DELETE FROM zx_rows", "zhi_xuan_order");
  platform.redis({"SET", "later", "1"});
  const auto before = platform.everything();

  // Redis would refuse it: nobody is stopped to find that out.
  platform.redis({"CONFIG", "SET", "min-replicas-to-write", "1000000"});
  refuses(platform, kFull, "as a restore has set it");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
  platform.redis({"CONFIG", "SET", "min-replicas-to-write", "0"});

  // All but the start of the services.
  const auto script = test::read(platform.script());
  test::edit(platform.script(), "start)", "start) exit 1;");
  const auto restored = platform.zx(kFull);
  CHECK(restored.exit == 4);
  const auto run = newest_run(platform, "restore full");
  test::write(platform.script(), script);

  platform.sql("ALTER DATABASE zhi_xuan_order_zxold RENAME TO away");
  refuses(platform, kUndo, "zhi_xuan_order_zxold is gone");
  platform.sql("ALTER DATABASE away RENAME TO zhi_xuan_order_zxold");
  std::filesystem::rename(platform.uploads() + ".zxold", platform.uploads() + "-away");
  refuses(platform, kUndo, platform.uploads() + ".zxold is gone");
  CHECK(has(output_of(platform, {"restore", "undo", "--dry-run"}, 3), ".zxold is gone"));
  std::filesystem::rename(platform.uploads() + "-away", platform.uploads() + ".zxold");
  platform.redis({"CONFIG", "SET", "min-replicas-to-write", "1000000"});
  refuses(platform, kUndo, "as a restore has set it");
  CHECK(platform.sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_zxold'") == "5");
  platform.redis({"CONFIG", "SET", "min-replicas-to-write", "0"});

  // Neither needs the repository.
  std::filesystem::rename(platform.repository(), platform.repository() + "-away");
  succeeds(platform, kUndo);
  CHECK(platform.changed_since(before) == "");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
  // Nobody takes the restore back once more.
  const auto again = platform.zx({"runs", "abort", run});
  CHECK(again.exit == 3);
  CHECK(has(again.err, "superseded"));
  std::filesystem::rename(platform.repository() + "-away", platform.repository());

  test::edit(platform.script(), "start)", "start) exit 1;");
  CHECK(platform.zx(kFull).exit == 4);
  test::write(platform.script(), script);
  const auto second = newest_run(platform, "restore full");
  std::filesystem::rename(platform.repository(), platform.repository() + "-away");
  succeeds(platform, kCommit);
  CHECK(platform.zx({"runs", "abort", second}).exit == 3);
  CHECK_FALSE(os::exists(platform.uploads() + ".zxold"));
}

TEST_CASE("a restore says what it cannot bring back, and what it will not replace") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(10, 0);
  const auto databases = test::databases_in(platform);

  // What an earlier restore has kept is no database of an application.
  platform.sql("CREATE DATABASE zhi_xuan_order_zxold");
  {
    const Configured named(platform, databases,
                           "databases = [\"zhi_xuan_user\", \"zhi_xuan_order_zxold\"]");
    platform.back_up({"--only", "pg"});
  }
  platform.sql("DROP DATABASE zhi_xuan_order_zxold");
  const auto plan = output_of(platform, {"restore", "pg", "--plan"});
  CHECK(has(plan, "zhi_xuan_order_zxold of the set is not restored"));
  refuses(platform, {"restore", "pg", "--db", "zhi_xuan_order_zxold", "--confirm", "main"},
          "no database of an application");
  succeeds(platform, {"restore", "pg", "--confirm", "main"});
  CHECK(platform.sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_order\\_zxold'") ==
        "0");
  {
    const Configured all(platform, databases, "");
    const auto id = platform.back_up({"--only", "pg"});
    const auto entry = platform.open_repository().set(id);
    REQUIRE((entry && entry->set));
    for (const auto& database : entry->set->pg->databases)
      CHECK_FALSE(has(database.name, "_zxold"));
  }
  succeeds(platform, kCommit);

  // There must be one that zx can connect to while all are renamed.
  {
    const Configured only(platform, databases, "databases = [\"postgres\"]");
    const auto id = platform.back_up({"--only", "pg"});
    platform.sql("UPDATE pg_database SET datallowconn = false WHERE datname = 'template1'");
    refuses(platform, {"restore", "pg", "--set", id, "--confirm", "main"},
            "no database to connect to");
    platform.sql("UPDATE pg_database SET datallowconn = true WHERE datname = 'template1'");
  }

  const auto id = platform.back_up();
  platform.sql(
      "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere' PUBLICATION p"
      " WITH (connect = false)",
      "zhi_xuan_order");
  CHECK(has(output_of(platform, {"restore", "pg", "--plan"}), "the subscription feed stays"));
  platform.sql("ALTER SUBSCRIPTION feed SET (slot_name = NONE)", "zhi_xuan_order");
  platform.sql("DROP SUBSCRIPTION feed", "zhi_xuan_order");
  {
    const Configured excluded(platform, "path = \"" + platform.uploads() + "\"",
                              "path = \"" + platform.uploads() + "\"\nexclude = [\"*.tmp\"]");
    test::write(platform.uploads() + "/only.tmp", "here");
    CHECK(has(output_of(platform, {"restore", "files", "--path", platform.uploads(), "--plan"}),
              "are only in " + platform.uploads() + ".zxold"));
    succeeds(platform, {"restore", "files", "--path", platform.uploads(), "--confirm", "lab"});
    CHECK(has(output_of(platform, {"restore", "commit", "--dry-run"}), "are only in"));
    succeeds(platform, kUndo);
    CHECK(os::exists(platform.uploads() + "/only.tmp"));
  }

  const auto repository = platform.open_repository();
  const auto entry = repository.set(id);
  REQUIRE((entry && entry->set));
  const std::vector<gid_t> groups{getegid()};
  const auto& part = entry->set->files.front();
  CHECK_FALSE(backup::has_other_owners(repository, part, geteuid(), groups).value());
  CHECK(backup::has_other_owners(repository, part, geteuid() + 1, groups).value());

  backup::Check check;
  check.level = backup::Level::restore;
  check.at = wall_now();
  check.problem = "rows are missing";
  REQUIRE(repository.remember(id, check).has_value());
  CHECK(has(output_of(platform, {"restore", "pg", "--set", id, "--plan"}),
            "known to be corrupt since"));
}

TEST_CASE("a tablespace that is gone does not keep a set from being restored") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(10, 0);
  const auto place = platform.lab().dir() + "/fast";
  std::filesystem::create_directory(place);
  const auto owner = os::owner_of(platform.lab().node("pg-a")->data_dir);
  REQUIRE((owner && chown(place.c_str(), owner->uid, owner->gid) == 0));
  platform.sql("CREATE TABLESPACE \"fa\"\"st\" LOCATION '" + place + "'");
  platform.sql("CREATE TABLE there (id int) TABLESPACE \"fa\"\"st\"; INSERT INTO there VALUES (7)",
               "zhi_xuan_order");
  platform.back_up({"--only", "pg"});
  platform.sql("DROP TABLE there", "zhi_xuan_order");
  platform.sql("DROP TABLESPACE \"fa\"\"st\"");
  const std::vector<std::string> words{"restore",        "pg",        "--db",
                                       "zhi_xuan_order", "--confirm", "main"};
  CHECK(has(output_of(platform, words), "lacks the tablespace fa\"st"));
  CHECK(platform.sql("SELECT id FROM there", "zhi_xuan_order") == "7");
}

TEST_CASE("a dropped database has its comment and its tablespace again, or without it all in one") {
  const Platform platform({.pg = 1, .redis = 0});
  const Configured one(platform, test::databases_in(platform), "databases = [\"拍卖\"]");
  const auto place = platform.lab().dir() + "/fast";
  std::filesystem::create_directory(place);
  const auto owner = os::owner_of(platform.lab().node("pg-a")->data_dir);
  REQUIRE((owner && chown(place.c_str(), owner->uid, owner->gid) == 0));
  platform.sql("CREATE TABLESPACE \"fa\"\"st\" LOCATION '" + place + "'");
  platform.sql("CREATE DATABASE \"拍卖\" TABLESPACE \"fa\"\"st\"");
  platform.sql("COMMENT ON DATABASE \"拍卖\" IS 'it''s \\; 茶'");
  platform.sql(
      "CREATE TABLE there AS SELECT g AS id FROM generate_series(1, 7) g;"
      "CREATE TABLE apart TABLESPACE pg_default AS SELECT 8 AS id",
      "拍卖");
  const auto comment = [&] {
    return platform.sql(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '拍卖'");
  };
  // Of the database, and of its tables.
  const auto spaces = [&] {
    return platform.sql(
        "SELECT (SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid ="
        " d.dattablespace WHERE datname = current_database()) || ': ' || string_agg(relname ||"
        " ' ' || coalesce(spcname, 'of it'), ', ' ORDER BY relname) FROM pg_class c LEFT JOIN"
        " pg_tablespace t ON t.oid = c.reltablespace WHERE relname IN ('there', 'apart')",
        "拍卖");
  };
  REQUIRE(comment() == "it's \\; 茶");
  REQUIRE(spaces() == "fa\"st: apart pg_default, there of it");
  const auto rows = [&] {
    return platform.sql("SELECT sum(there.id) || ' ' || max(apart.id) FROM there, apart", "拍卖");
  };
  REQUIRE(rows() == "28 8");
  platform.back_up({"--only", "pg"});

  const std::vector<std::string> words{"restore", "pg", "--db", "拍卖", "--confirm", "main"};
  platform.sql("DROP DATABASE \"拍卖\" WITH (FORCE)");
  CHECK_FALSE(has(output_of(platform, words), "lacks the tablespace"));
  CHECK(comment() == "it's \\; 茶");
  CHECK(spaces() == "fa\"st: apart pg_default, there of it");
  CHECK(rows() == "28 8");
  succeeds(platform, kCommit);

  platform.sql("DROP DATABASE \"拍卖\" WITH (FORCE)");
  platform.sql("DROP TABLESPACE \"fa\"\"st\"");
  CHECK(has(output_of(platform, words),
            "lacks the tablespace fa\"st of the set: all is put into that of its database"));
  CHECK(comment() == "it's \\; 茶");
  CHECK(spaces() == "pg_default: apart of it, there of it");
  CHECK(rows() == "28 8");
}

TEST_CASE("only what may be restored is looked at, and a dry run writes nothing") {
  const Platform platform({.pg = 1, .redis = 0});
  const auto first = platform.back_up({"--only", "files"});
  const auto aside = platform.beside("aside");
  const auto into = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"restore", "files", "--into", aside});
    return words;
  };
  CHECK(has(output_of(platform, into({"--path", platform.uploads(), "--dry-run"})),
            "Would restore " + platform.uploads() + " of set " + first));
  CHECK_FALSE(os::exists(aside));
  test::write(aside + "/something", "else");
  const auto taken = platform.zx(into({"--path", platform.uploads(), "--dry-run"}));
  CHECK(taken.exit == 3);
  CHECK(has(taken.err, "is no empty directory"));
  std::filesystem::remove_all(aside);

  // Which tree is asked before anything is read.
  const auto archive = [&] {
    const auto entry = platform.open_repository().set(first);
    return platform.repository() + "/" + entry->set->files.front().archives.front().path;
  }();
  platform.flip_a_byte(archive);
  const auto which = platform.zx(into({}));
  CHECK(which.exit == 2);
  CHECK(has(which.err, "--path PATH"));
  platform.flip_a_byte(archive);

  // A later set that cannot be read is not one of that time.
  const auto entry = platform.open_repository().set(first);
  REQUIRE((entry && entry->set));
  const auto at = format_utc(entry->set->point()).substr(0, 19) + "Z";
  REQUIRE(eventually([&] {
    return format_utc(wall_now()).substr(0, 19) > format_utc(entry->set->ended).substr(0, 19);
  }));
  const auto second = platform.back_up({"--only", "files"});
  test::write(platform.repository() + "/sets/" + second + "/manifest.json", "{");
  const std::vector<std::string> plan{"restore", "files", "--plan"};
  CHECK(has(output_of(platform, plan, 11), second));
  auto then = plan;
  then.insert(then.end(), {"--at", at});
  CHECK_FALSE(has(output_of(platform, then), second));
}

TEST_CASE("a primary that a later timeline has left behind is not restored into") {
  const Platform platform({.pg = 2, .redis = 0});
  platform.fill(10, 0);
  platform.back_up({"--only", "pg"});
  const std::vector<std::string> restore{"restore", "pg", "--confirm", "main"};
  const std::string run = "20261124T020000-7c51";
  REQUIRE(ha::write_fence_debt(platform.state_dir(), "main", {"pg-a", run, "quorum", wall_now()}));
  refuses(platform, restore, "pg-a was given up in run " + run);
  REQUIRE(ha::clear_fence_debt(platform.state_dir(), "main", "pg-a"));

  const auto standby = platform.lab().node("pg-b")->data_dir;
  REQUIRE(platform.lab().kill("pg-a").has_value());
  CHECK(platform.sql("SELECT pg_promote()", "postgres", "pg-b") == "t");
  REQUIRE(platform.lab().kill("pg-b", SIGINT).has_value());
  REQUIRE(eventually([&] { return !platform.lab().node("pg-b")->is_running(); }));
  test::write(standby + "/standby.signal", "");
  const auto owner = os::owner_of(standby);
  REQUIRE((owner && chown((standby + "/standby.signal").c_str(), owner->uid, owner->gid) == 0));
  REQUIRE(platform.lab().start("pg-b").has_value());
  REQUIRE(platform.lab().start("pg-a").has_value());
  refuses(platform, restore, "timeline 2");
}

}  // namespace zx
