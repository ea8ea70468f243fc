// zx backup run: what is in a set, and what no set is made of.
#include <regex>

#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

namespace fs = std::filesystem;
using test::Configured;
using test::databases_in;
using test::eventually;
using test::has;
using test::makes_no_set;
using test::Platform;

const std::vector<std::string> kRun{"backup", "run"};

// A file's mode mask, for this process and what it starts.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(umask(mask)) {}
  ~Umask() { umask(before_); }
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;

 private:
  mode_t before_;
};

void add_databases(const Platform& platform) {
  for (const auto* name : {"\"订单\"", "\"Bestell DB\"", "\"a\"\"b\""})
    platform.sql(fmt::format("CREATE DATABASE {}", name));
  for (const auto* sql :
       {"CREATE ROLE \"leser 中文\"", "ALTER DATABASE \"订单\" SET search_path = \"销售\", public",
        "ALTER ROLE zx IN DATABASE \"订单\" SET work_mem = '8MB'",
        "REVOKE ALL ON DATABASE \"订单\" FROM PUBLIC",
        "GRANT CONNECT ON DATABASE \"订单\" TO \"leser 中文\" WITH GRANT OPTION"})
    platform.sql(sql);
  platform.sql(
      "CREATE SCHEMA \"销售\"; CREATE TABLE \"销售\".\"订 单\" AS SELECT g FROM"
      " generate_series(1, 77) g",
      "订单");
  platform.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 3) g", "a\"b");
  test::edit(platform.config(), "databases = [", R"(databases = ["订单", "Bestell DB", "a\"b", )");
  const auto tree = platform.lab().dir() + "/app/图片 库";
  test::write(tree + "/红 茶/壶'\"1.txt", "茶");
  test::write(platform.config(), test::read(platform.config()) +
                                     "\n[backup.files.\"图片 库\"]\npath = \"" + tree + "\"\n");
}

void check_modes(const std::string& root) {
  const auto mode_of = [](const std::string& path) {
    struct stat found {};
    REQUIRE(lstat(path.c_str(), &found) == 0);
    return found.st_mode & 07777;
  };
  CHECK(mode_of(root) == 0700);
  for (const auto& entry : fs::recursive_directory_iterator(root))
    CHECK_MESSAGE(mode_of(entry.path()) == (entry.is_directory() ? 0700 : 0600), entry.path());
}

void check_sums(const Platform& platform, const backup::Set& set) {
  const auto own = platform.repository() + "/sets/" + set.id;
  std::set<std::string> known{own + "/manifest.json", own + "/SHA256SUMS"};
  for (const auto& object : set.objects()) {
    const auto path = platform.repository() + "/" + object.path;
    known.insert(path);
    CHECK(fs::file_size(path) == object.bytes);
    const auto result = test::run_program({"/usr/bin/sha256sum", "--zero", path});
    CHECK_MESSAGE(result.out.substr(0, 64) == object.sha256, path);
  }
  for (const auto& entry : fs::recursive_directory_iterator(platform.repository() + "/sets"))
    if (entry.is_regular_file()) CHECK_MESSAGE(known.contains(entry.path()), entry.path());
}

void check_pg(const Platform& platform, const backup::PgPart& part) {
  CHECK(part.node == "pg-b");
  CHECK(part.from_standby);
  CHECK(part.databases.size() == 8);
  CHECK(part.skew_ms >= 0);
  CHECK(part.skew_ms <= part.took_ms);
  const std::set<std::string> roles(part.roles.begin(), part.roles.end());
  CHECK(roles.contains("leser 中文"));
  CHECK(part.system_id == platform.sql("SELECT system_identifier FROM pg_control_system()"));
  for (const auto& database : part.databases) {
    CAPTURE(database.name);
    CHECK(std::regex_match(database.lsn, std::regex("[0-9A-F]+/[0-9A-F]+")));
    CHECK(std::to_string(database.tables.size()) ==
          platform.sql("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog',"
                       " 'information_schema')",
                       database.name));
    for (const auto& table : database.tables)
      CHECK_MESSAGE(std::to_string(table.rows) ==
                        platform.sql("SELECT count(*) FROM " + table.table, database.name),
                    table.table);
    if (database.name != "订单") continue;
    const std::vector<backup::DatabaseSetting> settings{{"", "search_path", "\"销售\", public"},
                                                        {"zx", "work_mem", "8MB"}};
    CHECK(database.settings.size() == 2);
    for (const auto& setting : settings)
      CHECK(std::find(database.settings.begin(), database.settings.end(), setting) !=
            database.settings.end());
    const backup::Grant grant{"leser 中文", "CONNECT", true};
    CHECK(std::find(database.acl.begin(), database.acl.end(), grant) != database.acl.end());
    CHECK(std::none_of(database.acl.begin(), database.acl.end(),
                       [](const backup::Grant& one) { return one.grantee.empty(); }));
  }
}

// Also of what is compressed.
void check_no_secret(const Platform& platform, const std::set<std::string>& secrets,
                     const backup::Set& set) {
  std::vector<std::pair<std::string, std::string>> texts;
  for (const auto& root : {platform.repository(), platform.state_dir()})
    for (const auto& entry : fs::recursive_directory_iterator(root))
      if (entry.is_regular_file()) texts.emplace_back(entry.path(), test::read(entry.path()));
  for (const auto& object : set.objects())
    if (object.path.ends_with(".zst")) {
      const auto text = backup::read_object(platform.open_repository(), object, 64u << 20);
      REQUIRE_MESSAGE(text.has_value(), test::why(text));
      texts.emplace_back(object.path, *text);
    }
  CHECK(texts.size() > 20);
  for (const auto& text : texts)
    for (const auto& secret : secrets) CHECK_MESSAGE(!has(text.second, secret), text.first);
}

}  // namespace

TEST_CASE("a set tells of every source what the source tells, and is its owner's alone") {
  const Platform platform({.pg = 2, .redis = 2});
  platform.fill(200, 300);
  add_databases(platform);
  const auto end = platform.sql("SELECT pg_current_wal_lsn()");
  REQUIRE(eventually([&] {
    return platform.sql("SELECT pg_last_wal_replay_lsn() >= '" + end + "'", "postgres", "pg-b") ==
           "t";
  }));
  const auto secrets = test::secrets_of(platform);
  test::Watcher watcher(secrets);
  auto ran = [&] {
    const Umask all(0);
    return platform.zx({"backup", "run", "--label", "促销前", "-o", "json", "-v", "-v"});
  }();
  watcher.stop();
  REQUIRE_MESSAGE(ran.exit == 0, (ran.out + ran.err));
  CHECK(watcher.dumps() > 0);
  CHECK(watcher.told().empty());
  for (const auto& secret : secrets) CHECK_FALSE(has(ran.out + ran.err, secret));
  CHECK_FALSE(has(ran.err, "is not backed up"));

  const auto json = test::json_of(ran);
  const auto id = json["id"].get<std::string>();
  const auto entry = platform.open_repository().set(id);
  REQUIRE_MESSAGE((entry && entry->set), (entry ? test::why(entry->set) : test::why(entry)));
  const auto& set = *entry->set;
  // What databases are set to is in the manifest alone.
  auto shown = backup::to_json(set);
  for (auto& database : shown["pg"]["databases"])
    for (auto& setting : database["settings"]) setting.erase("value");
  CHECK(json["set"] == shown);
  CHECK_FALSE(has(ran.out, "8MB"));
  CHECK(set.label == "促销前");
  CHECK(set.warnings.empty());
  check_modes(platform.repository());
  check_sums(platform, set);
  check_no_secret(platform, secrets, set);
  REQUIRE((set.pg && set.redis));
  check_pg(platform, *set.pg);
  CHECK(set.redis->node == "redis-b");
  CHECK(std::to_string(set.redis->keys) == platform.redis({"DBSIZE"}));
  CHECK(set.redis->at <= set.pg->at);
  REQUIRE(set.files.size() == 3);
  for (const auto& files : set.files) {
    CHECK(set.pg->at <= files.at);
    if (files.name == "图片 库") CHECK(files.bytes == 3);
  }
  const auto listed = platform.zx_json({"backup", "list"})["sets"];
  REQUIRE(listed.size() == 1);
  CHECK(listed[0]["label"] == "促销前");
  CHECK(listed[0]["trust"] == "checksummed");
  CHECK(listed[0]["bytes"] == set.bytes());
  const auto decoded = platform.zx({"backup", "verify", "--level", "decode"});
  CHECK_MESSAGE(decoded.exit == 0, (decoded.out + decoded.err));
  const auto restored = platform.zx({"backup", "verify", "--level", "restore"});
  CHECK_MESSAGE(restored.exit == 0, (restored.out + restored.err));
  CHECK(platform.leavings() == "");

  // What a standby has no rows of.
  platform.sql("CREATE UNLOGGED TABLE körbe AS SELECT g FROM generate_series(1, 9) g", "订单");
  const auto second = platform.zx_json({"backup", "run", "--only", "pg"});
  CHECK(second["set"]["pg"]["node"] == "pg-a");
  CHECK(second["set"]["pg"]["from_standby"] == false);
  CHECK(has(second["set"]["warnings"].dump(), "taken from the primary, pg-a: pg-b could not"));
  CHECK(has(second["set"]["pg"].dump(), "\"rows\":9"));
  CHECK(has(second["set"]["pg"].dump(), "körbe"));
  CHECK(platform.damage() == "");
}

TEST_CASE("what cannot be had as a whole makes no set, and zx says what and why") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(50, 20);
  platform.back_up();
  const auto databases = databases_in(platform);
  const std::string two = "databases = [\"zhi_xuan_user\", \"zhi_xuan_order\"]";

  {
    INFO("a database that is not there");
    const Configured more(platform, "databases = [", "databases = [\"zhi_xuan_没有\", ");
    makes_no_set(platform, 1, {"zhi_xuan_没有", "pg.main.databases", "hint: "});
    CHECK(platform.zx_json({"backup", "run"}, 1)["error"]["code"] == "failed");
  }
  {
    INFO("a database that zx.toml does not name");
    platform.sql("CREATE DATABASE \"新 的\"");
    const auto json = platform.zx_json({"backup", "run"});
    CHECK(json["set"]["pg"]["databases"].size() == 5);
    CHECK(has(json["set"]["warnings"].dump(), "新 的"));
    CHECK_FALSE(has(json["set"]["warnings"].dump(), "postgres"));
    const auto shown = platform.zx(kRun);
    CHECK(shown.exit == 0);
    CHECK(has(shown.err, "the database 新 的 of pg-a is not backed up"));
    platform.sql("DROP DATABASE \"新 的\"");
  }
  {
    INFO("a role that may not read one table");
    platform.sql(
        "CREATE ROLE leser LOGIN PASSWORD 'lesen'; GRANT SELECT ON pg_authid TO leser;"
        "GRANT pg_monitor TO leser");
    for (const auto* name : {"zhi_xuan_user", "zhi_xuan_order"})
      platform.sql(
          "GRANT SELECT ON ALL TABLES IN SCHEMA public TO leser;"
          "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO leser",
          name);
    const auto password = platform.beside("leser.pass");
    test::write(password, "lesen\n");
    REQUIRE(chmod(password.c_str(), 0600) == 0);
    const Configured fewer(platform, databases, two + "\nuser = \"leser\"");
    test::edit(platform.config(), platform.lab().dir() + "/secrets/zx.pass", password);
    const auto good = platform.zx({"backup", "run", "--only", "pg"});
    CHECK_MESSAGE(good.exit == 0, good.err);
    platform.sql("REVOKE SELECT ON zx_rows FROM leser", "zhi_xuan_order");
    makes_no_set(platform, 8,
                 {"permission denied", "zx_rows", "zhi_xuan_order", "leser", "hint: "});
  }
  {
    INFO("a wrong password");
    const auto password = platform.beside("wrong.pass");
    test::write(password, "falsch-0123\n");
    REQUIRE(chmod(password.c_str(), 0600) == 0);
    const Configured wrong(platform, platform.lab().dir() + "/secrets/zx.pass", password);
    const auto words = makes_no_set(platform, 8, {"pg-a", "authentication", "hint: "});
    CHECK_FALSE(has(words, "falsch-0123"));
  }
  {
    INFO("a pg_dump older than the server");
    const auto bin = platform.beside("bin");
    test::write(bin + "/pg_dump", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.1'\n");
    REQUIRE(chmod((bin + "/pg_dump").c_str(), 0755) == 0);
    const Configured older(platform, databases, databases + "\nbin_dir = \"" + bin + "\"");
    makes_no_set(platform, 6, {"14.1", "older", "pg.main.bin_dir", "hint: "});
  }
  {
    INFO("a pg_dump that fails for one of five");
    const auto bin = platform.beside("bin");
    fs::create_directories(bin);
    for (const auto& entry : fs::directory_iterator(config::PgCluster{}.bin_dir))
      if (entry.path().filename() != "pg_dump")
        fs::create_symlink(entry.path(), bin + "/" + entry.path().filename().string());
    // It has written most of its archive by then.
    test::write(bin + "/pg_dump",
                fmt::format("#!/bin/sh\n[ \"$PGDATABASE\" = zhi_xuan_marketing ] || exec {0} "
                            "\"$@\"\n{0} \"$@\"\necho 'pg_dump: error: 磁盘坏了' >&2\nexit 1\n",
                            config::PgCluster{}.bin_dir + "/pg_dump"));
    REQUIRE(chmod((bin + "/pg_dump").c_str(), 0755) == 0);
    const Configured broken(platform, databases, databases + "\nbin_dir = \"" + bin + "\"");
    makes_no_set(platform, 1, {"zhi_xuan_marketing", "磁盘坏了", "hint: "});
  }
  {
    INFO("a disk that would not keep backup.spare");
    const Configured spare(platform, "spare = \"64 MiB\"", "spare = \"1000 TiB\"");
    const auto pre = platform.beside("pre-was-here");
    test::edit(platform.config(), "[backup]",
               "[backup]\npre = [\"/usr/bin/touch\", \"" + pre + "\"]");
    makes_no_set(platform, 3, {"1000 TiB", "are to stay free", "zx backup prune", "backup.spare"});
    CHECK_FALSE(os::exists(pre));
  }
  {
    INFO("a wrong password of Redis");
    const auto password = platform.beside("wrong.pass");
    const Configured wrong(platform, platform.lab().redis_password_file(), password);
    const auto words = makes_no_set(platform, 8, {"redis-a", "hint: "});
    CHECK_FALSE(has(words, "falsch-0123"));
  }
  {
    INFO("servers that are down");
    REQUIRE(platform.lab().kill("redis-a").has_value());
    makes_no_set(platform, 7, {"redis-a", "refused", "hint: "});
    REQUIRE(platform.lab().start("redis-a").has_value());
    REQUIRE(eventually([&] { return platform.redis({"PING"}) == "PONG"; }));
    REQUIRE(platform.lab().kill("pg-a").has_value());
    makes_no_set(platform, 7, {"pg-a", "refused", "hint: "});
  }
}

}  // namespace zx
