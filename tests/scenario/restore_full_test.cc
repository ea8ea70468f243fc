// A platform that has lost a database, its keys and its files is brought back from a set, and what
// was there before the restore can be brought back too.
#include "tests/scenario/backup_scene.h"
#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::eventually;
using test::Platform;
using test::says;

TEST_CASE("what was lost comes back of the newest good set, and undo brings back what was there") {
  const Platform platform({.pg = 2, .redis = 2, .sentinels = 1, .services = true});
  platform.fill(1'000, 500);
  const auto before = platform.everything();
  const auto good = platform.back_up();
  platform.sql("INSERT INTO zx_rows VALUES (100001, '后来')", "zhi_xuan_order");
  const auto bad = platform.back_up();
  platform.flip_a_byte(platform.an_object(bad));

  platform.sql("DROP DATABASE zhi_xuan_order WITH (FORCE)");
  platform.redis({"FLUSHALL"});
  std::filesystem::remove_all(platform.uploads());
  const auto lost = platform.everything();

  const auto plan = platform.zx({"restore", "full", "--plan"});
  CHECK(plan.exit == 11);
  CHECK(says(plan.err, "damaged: set " + bad));
  CHECK(says(plan.out, good));
  CHECK(platform.changed_since(lost) == "");

  const auto done = platform.zx_json({"restore", "full", "--confirm", "lab"}, 11);
  CHECK(done["set"] == good);
  CHECK(done["passed_over"].size() == 1);
  CHECK(platform.changed_since(before) == "");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
  CHECK(platform.zx_json({"redis", "status"})["nodes"].size() == 2);
  CHECK(platform.sql("SELECT count(*) FROM zx_rows", "zhi_xuan_user_zxold") == "1000");
  // The standby has it all.
  CHECK(eventually([&] {
    const auto result =
        test::psql(platform.lab(), "pg-b", "SELECT count(*) FROM zx_rows", "zhi_xuan_order");
    return result.ok() && trim(result.out) == "1000";
  }));
  // Another restore would leave no way back.
  CHECK(platform.zx({"restore", "full", "--confirm", "lab"}).exit == 3);

  const auto undone = platform.zx({"restore", "undo", "--confirm", "lab"});
  REQUIRE_MESSAGE(undone.exit == 0, (undone.out + undone.err));
  CHECK(platform.changed_since(lost) == "");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
  CHECK(platform.zx({"restore", "undo", "--confirm", "lab"}).exit == 2);

  // Once more, for good.
  CHECK(platform.zx({"restore", "full", "--confirm", "lab"}).exit == 11);
  CHECK(platform.zx({"restore", "commit", "--yes"}).exit == 0);
  CHECK(platform.changed_since(before) == "");
  CHECK(platform.sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_zx___'") == "0");
  CHECK_FALSE(os::exists(platform.uploads() + ".zxold"));
}

TEST_CASE("one database and one tree are restored, and nothing else is touched") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(10, 0);
  const auto id = platform.back_up();
  platform.sql("ALTER DATABASE zhi_xuan_order SET search_path = shop, public");
  platform.sql("DELETE FROM zx_rows", "zhi_xuan_order");
  platform.sql("DELETE FROM zx_rows", "zhi_xuan_user");
  const auto before = platform.everything();
  const auto done = platform.zx({"restore", "pg", "--db", "zhi_xuan_order", "--confirm", "main"});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(platform.sql("SELECT count(*) FROM zx_rows", "zhi_xuan_order") == "10");
  CHECK(platform.sql("SHOW search_path", "zhi_xuan_order") == "\"$user\", public");
  CHECK(platform.sql("SELECT count(*) FROM zx_rows", "zhi_xuan_user") == "0");
  for (const auto& line : test::lines_of(platform.changed_since(before)))
    CHECK_MESSAGE(line.starts_with("zhi_xuan_order public.zx_rows: "), line);
  CHECK(platform.zx({"restore", "commit", "--yes"}).exit == 0);

  const auto aside = platform.beside("aside");
  test::write(platform.uploads() + "/new", "new");
  const auto copied = platform.zx({"restore", "files", "--set", id, "--path", platform.uploads(),
                                   "--into", aside, "--only", "*.txt"});
  REQUIRE_MESSAGE(copied.exit == 0, copied.err);
  CHECK(test::read(aside + "/2026/商品-1.txt") == "红色茶壶\n");
  CHECK_FALSE(os::exists(aside + "/new"));
  CHECK(os::exists(platform.uploads() + "/new"));
}

TEST_CASE("a database that is copied over several connections is as it was, whatever is in it") {
  const Platform platform({.pg = 1, .redis = 0});
  const auto in_order = [&](const std::string& sql) { return platform.sql(sql, "zhi_xuan_order"); };
  in_order(
      "CREATE TABLE large (id int PRIMARY KEY, says text);"
      "INSERT INTO large SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 50000) g;"
      "CREATE TABLE \"Ta;b \"\"le\" (a text, b bytea, c int[], d timestamptz DEFAULT now());"
      "INSERT INTO \"Ta;b \"\"le\" VALUES (E'new\\nline\\ttab \\\\. 茶', '\\x00ff', '{1,NULL}', "
      "'epoch'),"
      " (NULL, NULL, NULL, NULL), ('', '', '{}', 'infinity');"
      "CREATE TABLE nothing ();"
      "CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS"
      " (1 + 1) STORED);"
      "INSERT INTO generated DEFAULT VALUES;"
      "CREATE TABLE parts (at int) PARTITION BY RANGE (at);"
      "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);"
      "CREATE TABLE parts_2 PARTITION OF parts DEFAULT;"
      "INSERT INTO parts SELECT generate_series(1, 20);"
      "CREATE TABLE child (id int REFERENCES large, mine int);"
      "INSERT INTO child VALUES (1, 1);"
      "CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM large;"
      "CREATE SEQUENCE counter; SELECT setval('counter', 4711);"
      "SELECT lo_from_bytea(4711, decode(repeat('ab', 100000), 'hex'));"
      "ALTER TABLE generated ENABLE ROW LEVEL SECURITY;"
      "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
      "CREATE TRIGGER no BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION no()");
  const auto state = [&] {
    return in_order(
        "SELECT md5(string_agg(l::text, '' ORDER BY id)) FROM large l;"
        "SELECT * FROM \"Ta;b \"\"le\" ORDER BY 1; SELECT * FROM generated; SELECT * FROM child;"
        "SELECT tableoid::regclass, * FROM parts ORDER BY 2; SELECT * FROM seen;"
        "SELECT last_value FROM counter; SELECT md5(lo_get(4711));"
        "SELECT conname, convalidated FROM pg_constraint WHERE connamespace ="
        " 'public'::regnamespace ORDER BY 1; SELECT tgname FROM pg_trigger WHERE NOT tgisinternal");
  };
  const auto before = state();
  const auto id = platform.back_up({"--only", "pg"});
  // The manifest counts what pg_dump wrote.
  const auto entry = platform.open_repository().set(id);
  REQUIRE((entry && entry->set));
  int tables = 0;
  for (const auto& database : entry->set->pg->databases)
    for (const auto& table : database.tables) {
      ++tables;
      CHECK_MESSAGE(std::to_string(table.rows) ==
                        platform.sql("SELECT count(*) FROM ONLY " + table.table, database.name),
                    table.table);
    }
  CHECK(tables > 10);
  in_order("TRUNCATE large CASCADE; SELECT lo_unlink(4711); DROP TABLE parts");
  const auto done =
      platform.zx_json({"restore", "pg", "--db", "zhi_xuan_order", "--confirm", "main"});
  CHECK(state() == before);
  int loads = 0;
  for (const auto& step : done["steps"]) {
    if (step["name"] != "load") continue;
    ++loads;
    CHECK(step["seen"]["counted"] == Json::array({"zhi_xuan_order"}));
  }
  CHECK(loads == 1);
}

TEST_CASE("what is not safe is refused before anything is done") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(10, 0);
  platform.back_up();
  const auto refused = [&](const std::string& words) {
    const auto before = platform.everything();
    const auto result = platform.zx({"restore", "full", "--confirm", "lab"});
    CHECK(result.exit == 3);
    CHECK_MESSAGE(says(result.err, words), result.err);
    CHECK(platform.changed_since(before) == "");
  };
  platform.sql("CREATE DATABASE zhi_xuan_order_zxold");
  refused("zhi_xuan_order_zxold is there");
  platform.sql("DROP DATABASE zhi_xuan_order_zxold");
  platform.sql("CREATE DATABASE zhi_xuan_order_zxnew");
  refused("zhi_xuan_order_zxnew is there");
  platform.sql("DROP DATABASE zhi_xuan_order_zxnew");
  std::filesystem::rename(platform.uploads(), platform.uploads() + "-real");
  std::filesystem::create_directory_symlink(platform.uploads() + "-real", platform.uploads());
  refused("is a symbolic link");
  std::filesystem::remove(platform.uploads());
  std::filesystem::rename(platform.uploads() + "-real", platform.uploads());
  CHECK(platform.zx({"restore", "full"}).exit == 9);
  CHECK(platform.zx({"restore", "full", "--confirm", "other"}).exit == 9);
}

TEST_CASE("a restore that is killed at any line of its journal is finished, or taken back") {
  const Platform platform({.pg = 1, .redis = 1, .services = true});
  const test::Configured two(platform, test::databases_in(platform),
                             "databases = [\"zhi_xuan_user\", \"zhi_xuan_order\"]");
  platform.fill(50, 20);
  platform.back_up();
  const auto good = platform.everything();
  platform.sql("DELETE FROM zx_rows", "zhi_xuan_order");
  platform.redis({"SET", "later", "1"});
  test::write(platform.uploads() + "/later", "later");
  const auto before = platform.everything();
  int killed = 0;
  // Every line in its turn would take minutes: of each step the beginning or the end, and few of
  // the run of Redis inside it, which restore_redis_test.cc kills at each.
  constexpr int kOwn = 2, kOfRedis = 8;
  for (int line = 1, apart = kOwn;; line += apart) {
    CAPTURE(line);
    const auto result =
        platform.zx_killed_in("fdatasync", line, {"restore", "full", "--confirm", "lab"});
    if (result.signal != SIGKILL) {
      CHECK_MESSAGE(result.exit == 0, (result.out + result.err));
      break;
    }
    ++killed;
    // Databases and trees are the old ones or the new ones, each as a whole.
    CHECK(test::mixed(platform, before, good) == "");
    const auto runs = platform.zx_json({"runs", "list"})["runs"];
    std::string open, inner;
    for (const auto& run : runs)
      if (run["outcome"] == "unfinished")
        (run["command"] == "restore full" ? open : inner) = run["run"].get<std::string>();
    apart = inner.empty() ? kOwn : kOfRedis;
    if (open.empty()) {  // it was killed before its first line, or after its last
      CHECK(inner.empty());
      if (line == 1) continue;
      const auto undone = platform.zx({"restore", "undo", "--confirm", "lab"});
      REQUIRE_MESSAGE(undone.exit == 0, (undone.out + undone.err));
      continue;
    }
    const bool is_resumed = killed % 2 == 0;
    const auto ended = platform.zx({"runs", is_resumed ? "resume" : "abort", open});
    REQUIRE_MESSAGE(ended.exit == 0, (result.out + result.err + ended.out + ended.err));
    if (is_resumed) {
      CHECK(platform.changed_since(good) == "");
      const auto undone = platform.zx({"restore", "undo", "--confirm", "lab"});
      REQUIRE_MESSAGE(undone.exit == 0, (undone.out + undone.err));
    }
    CHECK(platform.changed_since(before) == "");
    for (const int port : platform.ports()) CHECK(platform.serves(port));
  }
  CHECK(killed > 10);
  CHECK(platform.changed_since(good) == "");
}

}  // namespace
}  // namespace zx
