// Sets of real servers, looked at and restored: good ones pass at every level, damaged ones are
// found, and nothing is left of a rehearsal.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "lib/backup/object.h"
#include "lib/backup/pg_globals.h"
#include "lib/backup/pg_load.h"
#include "lib/backup/run.h"
#include "lib/backup/verify.h"
#include "lib/os/sha256.h"
#include "lib/pg/throwaway.h"
#include "tests/scenario/redis_server.h"

namespace zx {
namespace {

namespace fs = std::filesystem;
using backup::Level;
using backup::verify;

Deadline soon() { return Deadline::after(test::kPatience); }

pg::Rows rows_of(const pg::Target& target, const std::string& sql) {
  auto client = pg::Client::open(target, soon());
  REQUIRE_MESSAGE(client.has_value(), (client ? "" : client.error().error.message));
  const auto rows = client->query(sql, soon());
  REQUIRE_MESSAGE(rows.has_value(), (rows ? "" : sql + ": " + rows.error().error.message));
  return *rows;
}

pg::Throwaway server_in(const std::string& base, const std::string& superuser) {
  pg::ThrowawayOptions options;
  options.base = base;
  options.superuser = superuser;
  auto started = pg::Throwaway::start(options, soon());
  REQUIRE_MESSAGE(started.has_value(), test::why(started));
  return *std::move(started);
}

// A shop with everything whose restore is not a matter of course, and one set of it.
class Shop {
 public:
  Shop() : pg_(server_in(entered(directory_.path()), "chef")) {
    fill_pg();
    redis_.take("SELECT 0\nSET eins 1\nSET 键 值\nSADD menge a b c\nSELECT 3\nSET drei 3\n");
    replica_.follow(redis_);
    test::write(directory_ / "uploads/图片/一.jpg", std::string(3000, 'x') + "end");
    test::write(directory_ / "uploads/plain.txt", "text");
    configure();
    auto ran = backup::run_backup(config, {});
    REQUIRE_MESSAGE(ran.has_value(), test::why(ran));
    set = ran->set;
  }
  [[nodiscard]] backup::Repository repository() const { return opened(config.backup.repository); }
  static backup::Repository opened(const std::string& path) {
    auto repository = backup::Repository::open(path);
    REQUIRE_MESSAGE(repository.has_value(), test::why(repository));
    return *std::move(repository);
  }
  [[nodiscard]] backup::Entry entry() const {
    auto entry = repository().set(set.id);
    REQUIRE_MESSAGE(entry.has_value(), test::why(entry));
    return *std::move(entry);
  }
  [[nodiscard]] backup::Entry entry_of(backup::Set other) const {
    auto changed = entry();
    changed.set = std::move(other);
    return changed;
  }
  [[nodiscard]] std::string scratch() const { return directory_ / "scratch"; }
  [[nodiscard]] std::string beside(const std::string& name) const { return directory_ / name; }
  [[nodiscard]] const pg::Throwaway& server() const { return pg_; }
  [[nodiscard]] Result<backup::Check> look(const backup::Entry& entry, Level level,
                                           backup::VerifyOptions options = {}) const {
    return verify(repository(), entry, level, config, options);
  }

  config::Config config;
  backup::Set set;

 private:
  static const std::string& entered(const std::string& path) {
    REQUIRE(chmod(path.c_str(), 0711) == 0);
    return path;
  }
  void fill_pg() const {
    for (const char* sql :
         {"CREATE ROLE app LOGIN PASSWORD 'geheim;\\! \"x'", "CREATE ROLE \"leser 中文\" NOLOGIN",
          "CREATE ROLE \"Gr\"\"oß\" IN ROLE app CONNECTION LIMIT 3",
          "ALTER ROLE app SET work_mem TO '8MB'", "COMMENT ON ROLE app IS 'it''s; the app'",
          "CREATE DATABASE shop OWNER app ENCODING 'UTF8' TEMPLATE template0",
          "CREATE DATABASE \"Bestell-DB 中文\" TEMPLATE template0 LC_COLLATE 'C.UTF-8'"
          " LC_CTYPE 'C.UTF-8' CONNECTION LIMIT 7",
          "REVOKE ALL ON DATABASE shop FROM PUBLIC",
          "GRANT CONNECT ON DATABASE shop TO \"leser 中文\" WITH GRANT OPTION",
          "ALTER DATABASE shop SET search_path TO \"Lager-1\", public",
          "ALTER DATABASE shop SET statement_timeout TO '90s'",
          "ALTER ROLE app IN DATABASE shop SET application_name TO 'a ''quoted'' name'",
          "GRANT app TO \"leser 中文\" WITH ADMIN OPTION"})
      rows_of(pg_.target(), sql);
    for (
        const char* sql :
        {"CREATE SCHEMA \"Lager-1\"", "CREATE EXTENSION pg_trgm SCHEMA public",
         "CREATE TABLE \"Lager-1\".\"Order\" (id bigint PRIMARY KEY, was text)",
         "INSERT INTO \"Lager-1\".\"Order\" SELECT i, '商品 ' || i FROM generate_series(1, 2000) i",
         "CREATE TABLE public.leer (x int)",
         "CREATE TABLE public.kopf (id int PRIMARY KEY, \"Order\" bigint REFERENCES"
         " \"Lager-1\".\"Order\")",
         "INSERT INTO public.kopf SELECT i, i FROM generate_series(1, 50) i",
         "CREATE INDEX ON \"Lager-1\".\"Order\" USING gin (was public.gin_trgm_ops)",
         "ALTER TABLE public.kopf ENABLE ROW LEVEL SECURITY", "GRANT SELECT ON public.kopf TO app"})
      rows_of(pg_.target("shop"), sql);
    rows_of(pg_.target("Bestell-DB 中文"),
            "CREATE TABLE public.订单 AS SELECT i AS 编号 FROM generate_series(1, 30) i");
  }
  void configure() {
    config.platform.name = "shop";
    config.platform.state_dir = directory_ / "state";
    const auto add_host = [&](const std::string& name, const std::string& address) {
      config.hosts.emplace_back();
      config.hosts.back().name = name;
      config.hosts.back().address = address;
      config.hosts.back().remote.emplace();
    };
    add_host("db", pg_.target().address);
    add_host("here", "127.0.0.1");
    config::PgCluster cluster;
    cluster.name = "main";
    cluster.user = "chef";
    cluster.databases = {"shop", "Bestell-DB 中文"};
    cluster.nodes.emplace_back();
    cluster.nodes.back().name = "pg-a";
    cluster.nodes.back().host = "db";
    config.pg.push_back(cluster);
    config::RedisDeployment deployment;
    deployment.name = "cache";
    for (const auto* server : {&redis_, &replica_}) {
      deployment.nodes.emplace_back();
      deployment.nodes.back().name = server == &redis_ ? "redis-a" : "redis-b";
      deployment.nodes.back().host = "here";
      deployment.nodes.back().port = server->port();
    }
    config.redis.push_back(deployment);
    config.backup.repository = directory_ / "repository";
    config.backup.scratch = scratch();
    config.backup.files.emplace_back();
    config.backup.files.back().name = "uploads";
    config.backup.files.back().path = directory_ / "uploads";
  }

  test::Directory directory_;
  pg::Throwaway pg_;
  test::RedisServer redis_, replica_;
};

// Made once: most tests only look at it, or at a copy.
const Shop& shop() {
  static const Shop one;
  return one;
}

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(path, ignored))
    names.push_back(entry.path().filename());
  return names;
}

std::string problem_of(const Result<backup::Check>& check) {
  REQUIRE_MESSAGE(check.has_value(), test::why(check));
  CHECK(check->ok == check->problem.empty());
  return check->problem;
}

TEST_CASE("a good set passes at every level, is restored, and leaves nothing") {
  for (const auto level : {Level::checksum, Level::decode, Level::restore}) {
    CAPTURE(backup::name_of(level));
    std::vector<std::string> lines;
    backup::VerifyOptions options;
    options.checked = [&](const backup::PartChecked& part) {
      lines.push_back(part.part + ": " + part.compared + part.problem);
    };
    const auto check = shop().look(shop().entry(), level, options);
    REQUIRE_MESSAGE(check.has_value(), test::why(check));
    CHECK_MESSAGE(check->ok, check->problem);
    CHECK(check->level == level);
    CHECK(check->restore_ms.has_value() == (level == Level::restore));
    const auto has = [&](const std::string& line) {
      return std::find(lines.begin(), lines.end(), line) != lines.end();
    };
    CAPTURE(join(lines, "\n"));
    if (level == Level::restore) {
      CHECK(has("restored pg globals: 4 roles made"));
      CHECK(has("restored pg shop: 3 tables, 2050 rows"));
      CHECK(has("restored pg Bestell-DB 中文: 1 table, 30 rows"));
      CHECK(has("restored redis cache: 4 keys"));
    }
  }
  CHECK(names_in(shop().scratch()).empty());
}

// The query's rows as one text.
std::string told(const pg::Target& target, const std::string& sql) {
  std::string text;
  for (const auto& row : rows_of(target, sql))
    for (const auto& field : row) text += field.value_or("NULL") + "|";
  return text;
}

TEST_CASE("roles, rights, settings and rows come back as they were") {
  const test::Directory directory;
  REQUIRE(chmod(directory.path().c_str(), 0711) == 0);
  const auto server = server_in(directory.path(), "zx_throwaway");
  const auto repository = shop().repository();
  const backup::PgServer to{server.target(), config::PgCluster().bin_dir};
  const auto& part = *shop().set.pg;
  const auto made = backup::load_globals(repository, part, to, soon());
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  CHECK(made->made == std::vector<std::string>{"Gr\"oß", "app", "chef", "leser 中文"});
  for (const auto& database : part.databases) {
    for (const auto& done :
         {backup::create_database(to, database, database.name, soon()),
          [&]() -> Status {
            ZX_TRY(backup::load_database(repository, database, to, database.name, {}));
            return {};
          }(),
          backup::apply_properties(to, database, database.name, soon())})
      REQUIRE_MESSAGE(done.has_value(), test::why(done));
  }
  for (const char* sql :
       {"SELECT rolname, rolcanlogin, rolsuper, rolconnlimit, rolpassword, rolvaliduntil,"
        " shobj_description(oid, 'pg_authid') FROM pg_authid"
        " WHERE rolname !~ '^pg_' AND rolname <> 'zx_throwaway' ORDER BY 1",
        "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members"
        " WHERE roleid >= 16384 ORDER BY 1::text, 2::text",
        "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate,"
        " datctype, datlocprovider, datconnlimit FROM pg_database"
        " WHERE datname IN ('shop', 'Bestell-DB 中文') ORDER BY 1",
        "SELECT datname, a.grantee::regrole, a.privilege_type, a.is_grantable FROM pg_database d,"
        " aclexplode(d.datacl) a WHERE datname = 'shop' ORDER BY 1, 2::text, 3",
        "SELECT d.datname, coalesce(s.setrole::regrole::text, ''), c FROM pg_db_role_setting s"
        " LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c ORDER BY 1, 2, "
        "3"}) {
    CAPTURE(sql);
    const auto before = told(shop().server().target(), sql);
    CHECK(before.size() > 10);
    CHECK(told(server.target(), sql) == before);
  }
  const char* rows =
      "SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM \"Lager-1\".\"Order\" o";
  CHECK(told(server.target("shop"), rows) == told(shop().server().target("shop"), rows));
  // Once more: whoever is there is not altered.
  rows_of(server.target(), "ALTER ROLE app CONNECTION LIMIT 42");
  const auto again = backup::load_globals(repository, part, to, soon());
  REQUIRE_MESSAGE(again.has_value(), test::why(again));
  CHECK(again->made.empty());
  CHECK(told(server.target(), "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app'") == "42|");
}

// What happened to the bytes of an object.
struct Damage {
  std::string name;
  std::function<std::string(std::string)> of;
};
std::vector<Damage> damages() {
  std::vector<Damage> all;
  for (const std::size_t percent : {0, 1, 5, 50, 99})
    all.push_back({fmt::format("cut to {} %", percent), [percent](std::string bytes) {
                     bytes.resize(bytes.size() * percent / 100);
                     return bytes;
                   }});
  all.push_back({"the last 3 bytes are gone", [](std::string bytes) {
                   bytes.resize(bytes.size() - std::min<std::size_t>(3, bytes.size()));
                   return bytes;
                 }});
  for (const std::size_t percent : {2, 50, 95})
    all.push_back({fmt::format("a bit flipped at {} %", percent), [percent](std::string bytes) {
                     auto& byte = bytes[bytes.size() * percent / 100];
                     byte = static_cast<char>(byte ^ 0x10);
                     return bytes;
                   }});
  return all;
}

TEST_CASE("every object, cut or changed anywhere, is found by its sum and named") {
  const auto objects = shop().set.objects();
  REQUIRE(objects.size() >= 6);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const auto path = shop().repository().path() + "/" + objects[i].path;
    const auto whole = test::read(path);
    for (const auto& damage : damages()) {
      CAPTURE(objects[i].path);
      CAPTURE(damage.name);
      if (damage.of(whole) == whole) continue;
      test::write(path, damage.of(whole));
      const auto problem = problem_of(shop().look(shop().entry(), Level::checksum));
      CHECK_MESSAGE(problem.starts_with(fmt::format("object {}, ", i + 1)), problem);
      CHECK(problem.find(objects[i].path.substr(objects[i].path.rfind('/') + 1)) !=
            std::string::npos);
    }
    fs::remove(path);
    CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).find("is missing") !=
          std::string::npos);
    fs::create_symlink("/etc/passwd", path);
    CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).find("symbolic link") !=
          std::string::npos);
    fs::remove(path);
    test::write(path, whole);
  }
  CHECK(problem_of(shop().look(shop().entry(), Level::decode)).empty());
}

std::string sha256_of(const std::string& bytes) {
  os::Sha256 hash;
  hash.feed(bytes);
  return hash.hex();
}

// As of a writer that failed, or of somebody who changed the manifest too: the sums are right.
TEST_CASE("an object whose sum is right and whose content is not is found by decoding it") {
  const auto& set = shop().set;
  for (const bool is_rdb : {true, false}) {
    const auto& object = is_rdb ? set.redis->rdb : set.pg->databases.front().dump;
    const auto path = shop().repository().path() + "/" + object.path;
    const auto whole = test::read(path);
    for (const auto& damage : damages()) {
      CAPTURE(object.path);
      CAPTURE(damage.name);
      const auto bytes = damage.of(whole);
      test::write(path, bytes);
      auto changed = set;
      auto& named = is_rdb ? changed.redis->rdb : changed.pg->databases.front().dump;
      named.bytes = bytes.size();
      named.sha256 = sha256_of(bytes);
      CHECK(problem_of(shop().look(shop().entry_of(changed), Level::checksum)).empty());
      const auto problem = problem_of(shop().look(shop().entry_of(changed), Level::decode));
      CHECK_MESSAGE(
          problem.find(object.path.substr(object.path.rfind('/') + 1)) != std::string::npos,
          problem);
    }
    test::write(path, whole);
  }
}

TEST_CASE("a dump that is no longer whole inside its compression is found by decoding it") {
  const auto& part = shop().set.pg->databases.front();
  const auto repository = shop().repository();
  const auto dump = backup::read_object(repository, part.dump, 64u << 20);
  REQUIRE_MESSAGE(dump.has_value(), test::why(dump));
  for (const std::size_t percent : {1, 5, 50, 99}) {
    CAPTURE(percent);
    const auto path = fmt::format("sets/{}/pg/cut-{}.zst", shop().set.id, percent);
    auto writer = backup::ObjectWriter::create(repository.path() + "/" + path, path, 3);
    REQUIRE_MESSAGE(writer.has_value(), test::why(writer));
    REQUIRE(writer->write(std::string_view(*dump).substr(0, dump->size() * percent / 100)));
    auto object = writer->finish();
    REQUIRE_MESSAGE(object.has_value(), test::why(object));
    auto changed = shop().set;
    changed.pg->databases.front().dump = *object;
    CHECK(problem_of(shop().look(shop().entry_of(changed), Level::checksum)).empty());
    CHECK(problem_of(shop().look(shop().entry_of(changed), Level::decode)).find("pg_restore") !=
          std::string::npos);
    fs::remove(repository.path() + "/" + path);
  }
}

TEST_CASE("a manifest that was changed where it says what is stored is found out") {
  const auto path = shop().repository().set_path(shop().set.id) + "/manifest.json";
  const auto whole = test::read(path);
  const auto problem_with = [&](const std::string& text) {
    test::write(path, text);
    return problem_of(shop().look(shop().entry(), Level::checksum));
  };
  int changed = 0;
  for (auto at = whole.find("\"sha256\""); at != std::string::npos;
       at = whole.find("\"sha256\"", at + 1), ++changed) {
    auto text = whole;
    const auto digit = text.find_first_of("0123456789abcdef", at + 9);
    text[digit] = static_cast<char>(text[digit] ^ 1);
    CAPTURE(at);
    CHECK_FALSE(problem_with(text).empty());
  }
  CHECK(changed == static_cast<int>(shop().set.objects().size()));
  for (const std::size_t percent : {0, 1, 5, 50, 99}) {
    CAPTURE(percent);
    CHECK(
        problem_with(whole.substr(0, whole.size() * percent / 100)).starts_with("manifest.json: "));
  }
  // Numbers that say nothing of an object.
  auto other = whole;
  const auto rows = other.find("\"rows\": ");
  REQUIRE(rows != std::string::npos);
  other[rows + 8] = other[rows + 8] == '7' ? '8' : '7';
  CHECK(problem_with(other).find("SHA256SUMS") != std::string::npos);
  fs::remove(path);
  CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).starts_with("manifest.json: "));
  CHECK(problem_with(whole).empty());
}

TEST_CASE("a file of sums that was changed, or is gone, is found out") {
  const auto path = shop().repository().set_path(shop().set.id) + "/SHA256SUMS";
  const auto whole = test::read(path);
  for (std::size_t at = 0; at < whole.size(); at += 1 + whole.size() / 20) {
    auto text = whole;
    text[at] = static_cast<char>(text[at] ^ 1);
    test::write(path, text);
    CAPTURE(at);
    CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).find("SHA256SUMS") !=
          std::string::npos);
  }
  fs::remove(path);
  CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).find("SHA256SUMS") !=
        std::string::npos);
  test::write(path, whole);
  CHECK(problem_of(shop().look(shop().entry(), Level::checksum)).empty());
}

TEST_CASE("what the manifest counted otherwise is found by restoring it, and named") {
  auto changed = shop().set;
  auto& tables = changed.pg->databases.front().tables;
  const auto order = std::find_if(tables.begin(), tables.end(), [](const auto& one) {
    return one.table == "\"Lager-1\".\"Order\"";
  });
  REQUIRE(order != tables.end());
  order->rows += 1;
  CHECK(problem_of(shop().look(shop().entry_of(changed), Level::decode)).empty());
  auto problem = problem_of(shop().look(shop().entry_of(changed), Level::restore));
  CHECK_MESSAGE(
      problem.find("\"Lager-1\".\"Order\" has 2000 rows instead of 2001") != std::string::npos,
      problem);
  changed = shop().set;
  changed.redis->databases[3] += 1;
  changed.redis->keys += 1;
  problem = problem_of(shop().look(shop().entry_of(changed), Level::decode));
  CHECK_MESSAGE(problem.find("4 keys") != std::string::npos, problem);
  changed = shop().set;
  changed.pg->roles.emplace_back("nobody made me");
  problem = problem_of(shop().look(shop().entry_of(changed), Level::restore));
  CHECK_MESSAGE(problem.find("lacks the role nobody made me") != std::string::npos, problem);
  CHECK(names_in(shop().scratch()).empty());
}

TEST_CASE("the user's questions must be answered right") {
  auto config = shop().config;
  const auto asked = [&](const std::string& sql, const std::string& expect,
                         const std::string& database = "shop") {
    config.backup.checks = {{"mine", database, sql, expect}};
    return problem_of(verify(shop().repository(), shop().entry(), Level::restore, config, {}));
  };
  // By the search path of the database, in quotes.
  CHECK(asked("SELECT count(*) = 2000 FROM \"Order\"", "").empty());
  CHECK(asked("SELECT count(*) FROM 订单", "30", "Bestell-DB 中文").empty());
  CHECK(asked("SELECT count(*) FROM \"Order\"", "1999") ==
        "check mine: shop answers 2000 instead of 1999");
  CHECK(asked("SELECT false", "") == "check mine: shop answers f instead of t");
  CHECK(asked("SELECT 1 FROM kopf WHERE id < 0", "1").find("answers nothing") != std::string::npos);
  CHECK(asked("SELECT * FROM gone", "1").find("\"gone\" does not exist") != std::string::npos);
  // A set of before that database was there is not worse for it.
  CHECK(asked("SELECT 1", "1", "nosuch").empty());
}

TEST_CASE("a question that cannot be asked is no damage, and one that takes too long no answer") {
  auto config = shop().config;
  const auto start = monotonic_now();
  const auto asked = [&](const std::string& sql, Deadline until) {
    config.backup.checks = {{"mine", "shop", sql, "1"}};
    backup::VerifyOptions options;
    options.until = until;
    return verify(shop().repository(), shop().entry(), Level::restore, config, options);
  };
  auto check = asked("SELECT 1 FROM of_a_later_schema", soon());
  const auto whole = since(start);
  CHECK(problem_of(check).starts_with("check mine: shop could not be asked: relation "));
  CHECK(check->fault == backup::Fault::answers);
  CHECK(check->restore_ms.has_value());
  check = asked("SET statement_timeout = '20ms'; SELECT pg_sleep(60)", soon());
  CHECK(problem_of(check).starts_with("check mine: shop could not be asked: canceling statement"));
  CHECK(check->fault == backup::Fault::answers);
  check = asked("SELECT pg_sleep(60)", Deadline::after(whole + Millis(1'000)));
  REQUIRE_FALSE(check.has_value());
  CHECK(check.error().code == Code::timeout);
  check = asked("SELECT pg_terminate_backend(pg_backend_pid())", soon());
  REQUIRE_FALSE(check.has_value());
  CHECK(check.error().code == Code::shutting_down);

  // Damage stays damage, whatever is asked of a database that is not there.
  auto changed = shop().entry();
  changed.set->pg->databases.front().tables.front().rows += 1;
  changed.set->pg->databases.back().tables.front().rows += 1;
  config.backup.checks = {{"mine", "shop", "SELECT 1", "1"}};
  check = verify(shop().repository(), changed, Level::restore, config, {});
  CHECK(problem_of(check).find("rows instead of") != std::string::npos);
  CHECK(check->fault == backup::Fault::damage);
  CHECK(names_in(shop().scratch()).empty());
}

// As the kernel does when memory runs out.
TEST_CASE("a private server whose backend is killed is told as that, and is no damage") {
  std::atomic<bool> is_over{false}, was_killed{false};
  std::thread killer([&] {
    while (!is_over && !was_killed) {
      for (const auto& name : names_in(shop().scratch())) {
        const auto found = os::processes_in(shop().scratch() + "/" + name + "/data");
        if (!found) continue;
        for (const auto& one : *found) {
          const auto line = os::read_file(fmt::format("/proc/{}/cmdline", one.pid));
          if (line && line->find("zx_throwaway shop [local]") != std::string::npos)
            was_killed = ::kill(one.pid, SIGKILL) == 0 || was_killed;
        }
      }
      pause_for(Millis(1));
    }
  });
  const auto check = shop().look(shop().entry(), Level::restore);
  is_over = true;
  killer.join();
  REQUIRE(was_killed);
  REQUIRE_FALSE(check.has_value());
  CHECK(check.error().code == Code::server);
  CHECK_MESSAGE(check.error().message.find("was terminated by signal 9") != std::string::npos,
                check.error().message);
  CHECK(check.error().hint.find("too little memory") != std::string::npos);
  CHECK(names_in(shop().scratch()).empty());
}

TEST_CASE("a deadline ends a look in the middle of an object") {
  const test::Directory directory;
  test::write(directory / "tree/large", std::string(8u << 20, 'x') + std::string(1, '\0'));
  auto config = shop().config;
  config.pg.clear();
  config.redis.clear();
  config.backup.repository = directory / "repository";
  config.backup.files.front().path = directory / "tree";
  const auto ran = backup::run_backup(config, {});
  REQUIRE_MESSAGE(ran.has_value(), test::why(ran));
  const auto entry = Shop::opened(config.backup.repository).set(ran->set.id);
  REQUIRE_MESSAGE(entry.has_value(), test::why(entry));
  for (const auto level : {Level::checksum, Level::decode}) {
    CAPTURE(backup::name_of(level));
    backup::VerifyOptions options;
    options.until = Deadline::after(Millis(1'000));
    bool was_asked = false;
    options.progress = [&](const std::string&) {
      was_asked = true;
      CHECK(test::eventually([&] { return options.until.passed(); }));
    };
    const auto check =
        verify(Shop::opened(config.backup.repository), *entry, level, config, options);
    CHECK(was_asked);
    REQUIRE_FALSE(check.has_value());
    CHECK(check.error().code == Code::timeout);
  }
}

TEST_CASE("what this host lacks says nothing against the set") {
  auto changed = shop().set;
  changed.pg->databases.front().extensions.emplace_back("postgis_of_another_host");
  const auto no_extension = shop().look(shop().entry_of(changed), Level::restore);
  REQUIRE_FALSE(no_extension.has_value());
  CHECK(no_extension.error().code == Code::config);
  CHECK(no_extension.error().message.find("postgis_of_another_host") != std::string::npos);

  auto config = shop().config;
  config.pg.front().bin_dir = "/nonexistent";
  for (const auto level : {Level::decode, Level::restore}) {
    const auto no_program = verify(shop().repository(), shop().entry(), level, config, {});
    REQUIRE_FALSE(no_program.has_value());
    CHECK(no_program.error().code == Code::not_found);
  }
  changed = shop().set;
  changed.pg->databases.front().size = 1ULL << 60;
  const auto no_space = shop().look(shop().entry_of(changed), Level::restore);
  REQUIRE_FALSE(no_space.has_value());
  CHECK(no_space.error().code == Code::disk_full);

  auto newer = shop().entry();
  newer.set = fail(Code::refused, "format 2");
  CHECK(shop().look(newer, Level::checksum).error().code == Code::refused);
  auto broken = shop().entry();
  broken.set = fail(Code::failed, "it has no id");
  CHECK(problem_of(shop().look(broken, Level::checksum)) == "manifest.json: it has no id");
  CHECK(names_in(shop().scratch()).empty());
}

TEST_CASE("a dump of globals is no script: whatever else is in it is not obeyed") {
  using About = backup::GlobalStatement::About;
  const auto all = backup::statements_of(
      "--\n-- it's; a comment\n\\restrict abc\nSET x = 'a;b';\nCREATE ROLE \"a;\"\"b\";\n"
      "ALTER ROLE \"a;\"\"b\" WITH PASSWORD E'\\\\\\';';\nGRANT App TO \"中\" GRANTED BY chef;\n"
      "GRANT SET ON PARAMETER work_mem TO app;\nCREATE TABLESPACE t OWNER a LOCATION '/x';\n"
      "DROP ROLE app;\n\\unrestrict abc\n");
  REQUIRE_MESSAGE(all.has_value(), test::why(all));
  REQUIRE(all->size() == 7);
  CHECK(all->at(0).about == About::session);
  CHECK(all->at(0).sql == "SET x = 'a;b'");
  CHECK(all->at(1).makes_role);
  CHECK(all->at(1).roles == std::vector<std::string>{"a;\"b"});
  CHECK(all->at(2).roles == std::vector<std::string>{"a;\"b"});
  CHECK(all->at(2).sql == "ALTER ROLE \"a;\"\"b\" WITH PASSWORD E'\\\\\\';'");
  CHECK(all->at(3).about == About::membership);
  CHECK(all->at(3).roles == std::vector<std::string>{"app", "中"});
  CHECK(all->at(4).about == About::privilege);
  CHECK(all->at(4).roles == std::vector<std::string>{"app"});
  CHECK(all->at(5).about == About::tablespace);
  CHECK(all->at(6).about == About::other);
  for (const char* bad :
       {"\\! touch /tmp/x\n", "SET a = 1;\n\\copy x from y\n", "SET a = 1 \\g | sh\n",
        "CREATE ROLE x", "CREATE ROLE \"x;", "SET a = 'x;"}) {
    CAPTURE(bad);
    const auto refused = backup::statements_of(bad);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Code::failed);
  }
}

TEST_CASE("names and values of a manifest cannot become SQL") {
  backup::DatabasePart part;
  part.name = "x";
  part.owner = "o\"; DROP DATABASE y; --";
  part.encoding = "UTF8'; DROP DATABASE y; --";
  part.provider = "icu";
  part.icu_locale = "de-DE";
  const auto made = backup::create_database_sql(part, "Bestell-\"DB\" 中文", 150'000);
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  CHECK(*made ==
        "CREATE DATABASE \"Bestell-\"\"DB\"\" 中文\" TEMPLATE template0 "
        "ENCODING 'UTF8''; DROP DATABASE y; --' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' "
        "OWNER \"o\"\"; DROP DATABASE y; --\"");
  part.settings = {{"", "search_path", "\"$user\", \"a\"\"b, c\", public"},
                   {"r\"", "my.var", "it's, one"}};
  const auto statements = backup::properties_sql(part, "d");
  REQUIRE(statements.has_value());
  CHECK(statements->at(1) ==
        "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'a\"b, c', 'public'");
  CHECK(statements->at(2) ==
        "ALTER ROLE \"r\"\"\" IN DATABASE \"d\" SET \"my.var\" TO 'it''s, one'");
  part.acl = {{"app", "CONNECT ON DATABASE x TO evil; --", false}};
  CHECK_FALSE(backup::properties_sql(part, "d").has_value());
}

TEST_CASE("the provider of a database's locale is said where it can be, and known") {
  backup::DatabasePart part;
  part.name = "shop";
  const auto sql = [&](const char* provider, int version) {
    part.provider = provider;
    const auto made = backup::create_database_sql(part, "d", version);
    return made ? made->substr(made->find("template0") + 9)
                : std::string(info(made.error().code).name) + ": " + made.error().message;
  };
  CHECK(sql("libc", 150'000) == " LOCALE_PROVIDER libc");
  CHECK(sql("", 170'000) == " LOCALE_PROVIDER libc");
  CHECK(sql("libc", 140'010) == "");
  CHECK(sql("icu", 160'000) == " LOCALE_PROVIDER icu");
  CHECK(sql("icu", 140'010).starts_with("config: the database shop has its locale of ICU"));
  CHECK(sql("builtin", 170'000).find("refused: the database shop") == 0);
  CHECK(sql("builtin", 170'000).find("provider builtin") != std::string::npos);
}

TEST_CASE("sets are looked at in turn") {
  const auto entry = [](const std::string& id, std::vector<std::pair<Level, int>> checks) {
    backup::Entry one;
    one.id = id;
    for (const auto& [level, hour] : checks) {
      one.checks.emplace_back();
      one.checks.back().level = level;
      one.checks.back().at = Wall(std::chrono::hours(hour));
      one.checks.back().ok = true;
    }
    return one;
  };
  CHECK(backup::longest_unchecked({}, Level::decode) == nullptr);
  const std::vector<backup::Entry> entries{entry("d", {{Level::restore, 9}}),
                                           entry("c", {{Level::checksum, 8}}), entry("b", {}),
                                           entry("a", {{Level::decode, 5}, {Level::decode, 7}})};
  CHECK(backup::longest_unchecked(entries, Level::checksum)->id == "b");
  CHECK(backup::longest_unchecked(entries, Level::decode)->id == "c");
  CHECK(backup::longest_unchecked({entries[0], entries[3]}, Level::decode)->id == "a");
  CHECK(backup::longest_unchecked({entries[0], entries[3]}, Level::restore)->id == "a");
  // One of a newer format would be its turn for ever.
  auto newer = entry("e", {});
  newer.set = fail(Code::refused, "format 2");
  CHECK(backup::longest_unchecked({newer}, Level::decode) == nullptr);
  CHECK(backup::longest_unchecked({newer, entries[0]}, Level::decode)->id == "d");
}

// Servers and tools of a rehearsal that still run: the directory is in what they were started with.
int at_work_in(const std::string& scratch) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    for (const char* file : {"/cmdline", "/environ"})
      if (const auto text = os::read_file("/proc/" + name + file);
          text && text->find(scratch) != std::string::npos) {
        ++count;
        break;
      }
  }
  for (const auto& name : names_in(scratch))
    if (const auto found = os::processes_in(scratch + "/" + name + "/data"))
      count += static_cast<int>(found->size());
  return count;
}

TEST_CASE("kill -9 in the middle of a rehearsal leaves no process, and the next clears away") {
  const auto start = monotonic_now();
  CHECK(problem_of(shop().look(shop().entry(), Level::restore)).empty());
  const auto whole = since(start).count();
  const auto seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937 random(seed);
  int killed = 0;
  for (int i = 0; i < 12; ++i) {
    const auto child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      (void)shop().look(shop().entry(), Level::restore);
      _exit(0);
    }
    pause_for(Millis(std::uniform_int_distribution<std::int64_t>(0, whole)(random)));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    killed += WIFSIGNALED(status) ? 1 : 0;
    CHECK(test::eventually([&] { return at_work_in(shop().scratch()) == 0; }));
  }
  CHECK(killed > 0);
  CHECK(problem_of(shop().look(shop().entry(), Level::restore)).empty());
  CHECK(join(names_in(shop().scratch()), " ") == "");
}

TEST_CASE("zx backup verify says it, remembers it, and exits by it") {
  const auto config = shop().beside("zx.toml");
  test::write(config, test::two_nodes(shop().beside("state")) +
                          fmt::format("\n[backup]\nrepository = \"{}\"\nscratch = \"{}\"\n",
                                      shop().repository().path(), shop().scratch()));
  const auto zx = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"-c", config, "backup", "verify"});
    os::ProcessOptions options;
    options.deadline = test::kPatience;
    return test::run_zx(words, options);
  };
  auto said = zx({"--level", "restore", "-o", "json"});
  CHECK_MESSAGE(said.exit == 0, (said.out + said.err));
  const auto good = test::json_of(said);
  CHECK(good["ok"] == true);
  CHECK(good["restore_ms"].get<std::int64_t>() > 0);
  CHECK(good["within_rto"] == true);
  CHECK(good["recorded"] == true);
  CHECK(good["parts"].size() > 8);
  auto entry = shop().entry();
  REQUIRE(entry.checks.size() == 1);
  CHECK(backup::believed(*entry.set, entry.checks).trust == backup::Trust::restored);

  said = zx({});
  CHECK(said.exit == 0);
  CHECK(said.out.find("is good (checksum)") != std::string::npos);
  CHECK(said.out.find("next: zx -c") != std::string::npos);

  const auto dump = shop().repository().path() + "/" + shop().set.pg->databases.front().dump.path;
  const auto whole = test::read(dump);
  auto flipped = whole;
  flipped[flipped.size() / 2] = static_cast<char>(flipped[flipped.size() / 2] ^ 1);
  test::write(dump, flipped);
  said = zx({shop().set.id, "--level", "restore"});
  CHECK(said.exit == 10);
  CHECK_MESSAGE(said.out.find("is damaged (restore): object ") != std::string::npos, said.out);
  test::write(dump, whole);
  entry = shop().entry();
  CHECK(backup::believed(*entry.set, entry.checks).trust == backup::Trust::corrupt);
  CHECK(zx({"--rotate", "--level", "restore"}).exit == 0);
  entry = shop().entry();
  CHECK(backup::believed(*entry.set, entry.checks).trust == backup::Trust::restored);
  CHECK(zx({"nosuch"}).exit != 0);
  CHECK(zx({"--rotate", shop().set.id}).exit == 2);
}

}  // namespace
}  // namespace zx
