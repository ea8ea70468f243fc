// Roles and databases of a set on their way into servers that are otherwise than the one they came
// from: none of it comes by half, nothing of it lies elsewhere, and no secret of it is told.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/dump_left_out.h"
#include "lib/backup/load_session.h"
#include "lib/backup/pg_load.h"
#include "lib/backup/run.h"
#include "lib/pg/throwaway.h"
#include "tests/scenario/eventually.h"
#include "tests/support.h"

namespace zx {
namespace {

Deadline soon() { return Deadline::after(test::kPatience); }

std::string ask(const pg::Target& target, const std::string& sql) {
  auto client = pg::Client::open(target, soon());
  REQUIRE_MESSAGE(client.has_value(), (client ? "" : client.error().error.message));
  const auto rows = client->query(sql, soon());
  REQUIRE_MESSAGE(rows.has_value(), (rows ? "" : sql + ": " + rows.error().error.message));
  return rows->empty() || rows->at(0).empty() ? "" : rows->at(0).at(0).value_or("NULL");
}

// A server, and a directory that it can have tablespaces in.
class Server {
 public:
  explicit Server(const std::string& superuser) : pg_(started(directory_.path(), superuser)) {}
  [[nodiscard]] pg::Target target(const std::string& database = "postgres") const {
    return pg_.target(database);
  }
  std::string operator()(const std::string& sql, const std::string& database = "postgres") const {
    return ask(target(database), sql);
  }
  // For all sessions to come.
  void set(const std::string& name, const std::string& value) const {
    (*this)(fmt::format("ALTER SYSTEM SET {} = '{}'", name, value));
    (*this)("SELECT pg_reload_conf()");
    CHECK(test::eventually([&] {
      return (*this)(fmt::format("SELECT current_setting('{}') = '{}'", name, value)) == "t";
    }));
  }
  void make_tablespace(const std::string& name) const {
    const auto path = directory_ / name;
    REQUIRE(mkdir(path.c_str(), 0700) == 0);
    const auto user = pg::server_user();
    REQUIRE(user.has_value());
    if (*user) REQUIRE(chown(path.c_str(), (*user)->uid, (*user)->gid) == 0);
    (*this)(fmt::format("CREATE TABLESPACE {} LOCATION '{}'", name, path));
  }
  [[nodiscard]] std::string log() const { return test::read(pg_.directory() + "/log"); }
  [[nodiscard]] backup::PgServer as(const std::string& user = {}) const {
    auto to = target();
    if (!user.empty()) to.user = user;
    return {to, config::PgCluster().bin_dir};
  }

 private:
  static pg::Throwaway started(const std::string& base, const std::string& superuser) {
    REQUIRE(chmod(base.c_str(), 0711) == 0);
    pg::ThrowawayOptions options;
    options.base = base;
    options.superuser = superuser;
    options.shared_buffers = 64u << 20;
    auto server = pg::Throwaway::start(options, soon());
    REQUIRE_MESSAGE(server.has_value(), test::why(server));
    return *std::move(server);
  }
  test::Directory directory_;
  pg::Throwaway pg_;
};

// A set of two databases.
class Scene {
 public:
  Scene() : source("chef") {
    for (const char* sql :
         {"CREATE ROLE app LOGIN PASSWORD 'geheim'", "CREATE ROLE leser IN ROLE app",
          "CREATE DATABASE klein OWNER app TEMPLATE template0",
          "CREATE DATABASE lager OWNER app TEMPLATE template0"})
      source(sql);
    source.make_tablespace("platte");
    source("SET ROLE app; CREATE TABLE public.eins AS SELECT 1 AS x", "klein");
    for (const char* sql :
         {// Enough that it is worth several connections.
          "CREATE TABLE public.viel (id int PRIMARY KEY USING INDEX TABLESPACE platte, says text)"
          " TABLESPACE platte",
          "INSERT INTO public.viel SELECT i, repeat('x', 1000000) FROM generate_series(1, 40) i",
          "CREATE PUBLICATION geht_weg FOR TABLE public.viel",
          "CREATE SUBSCRIPTION \"kommt \"\"an\" CONNECTION 'host=nowhere password=streng'"
          " PUBLICATION p WITH (connect = false)",
          "COMMENT ON SUBSCRIPTION \"kommt \"\"an\" IS 'SUBSCRIPTION;'"})
      source(sql, "lager");
    config.platform.name = "lager";
    config.platform.state_dir = directory_ / "state";
    config.hosts.emplace_back();
    config.hosts.back().name = "db";
    config.hosts.back().address = source.target().address;
    config.hosts.back().remote.emplace();
    config.pg.emplace_back();
    config.pg.back().name = "main";
    config.pg.back().user = "chef";
    config.pg.back().databases = {"lager", "klein"};
    config.pg.back().nodes.emplace_back();
    config.pg.back().nodes.back().name = "pg-a";
    config.pg.back().nodes.back().host = "db";
    config.backup.repository = directory_ / "repository";
    config.backup.scratch = directory_ / "scratch";
    auto ran = backup::run_backup(config, {});
    REQUIRE_MESSAGE(ran.has_value(), test::why(ran));
    set = ran->set;
  }
  [[nodiscard]] backup::Repository repository() const {
    auto repository = backup::Repository::open(config.backup.repository);
    REQUIRE_MESSAGE(repository.has_value(), test::why(repository));
    return *std::move(repository);
  }
  [[nodiscard]] const backup::PgPart& part() const { return *set.pg; }
  [[nodiscard]] const backup::DatabasePart& database(const std::string& name) const {
    for (const auto& one : part().databases)
      if (one.name == name) return one;
    throw std::runtime_error(name);
  }

 private:
  test::Directory directory_;

 public:
  Server source;
  config::Config config;
  backup::Set set;
};
const Scene& scene() {
  static const Scene one;
  return one;
}
// Only roles are made there, or databases of other names by each test.
const Server& elsewhere() {
  static const Server one("zx_throwaway");
  return one;
}

Result<backup::LoadedGlobals> load_roles(const backup::PgServer& to) {
  return backup::load_globals(scene().repository(), scene().part(), to, soon());
}
Result<backup::Loaded> load(const backup::PgServer& to, const std::string& name,
                            const std::string& as, const backup::LoadOptions& options) {
  const auto& part = scene().database(name);
  ZX_TRY(backup::create_database(to, part, as, soon()));
  return backup::load_database(scene().repository(), part, to, as, options);
}

TEST_CASE("killed or refused in the middle, the roles of a set are all there or none is") {
  const Server server("zx_throwaway");
  const std::string roles =
      "SELECT count(*) FROM pg_roles WHERE rolname IN ('app', 'chef', 'leser')";
  // Who is no superuser may make a role, and may not say that it is none.
  server("CREATE ROLE maker LOGIN CREATEROLE");
  const auto refused = load_roles(server.as("maker"));
  REQUIRE_FALSE(refused.has_value());
  CHECK(server(roles) == "0");

  auto other = pg::Client::open(server.target(), soon());
  REQUIRE(other.has_value());
  REQUIRE(other->query("BEGIN; LOCK TABLE pg_auth_members IN ACCESS EXCLUSIVE MODE", soon()));
  const auto child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    (void)load_roles(server.as());
    _exit(0);
  }
  const auto waiting = [&] {
    return server(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'GRANT%'");
  };
  CHECK(test::eventually([&] { return !waiting().empty(); }));
  const auto backend = waiting();
  ::kill(child, SIGKILL);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(other->query("COMMIT", soon()));
  CHECK(test::eventually([&] {
    return server("SELECT count(*) FROM pg_stat_activity WHERE pid = " + backend) == "0";
  }));
  CHECK(server(roles) == "0");

  const auto made = load_roles(server.as());
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  CHECK(made->made == std::vector<std::string>{"app", "chef", "leser"});
  CHECK(server("SELECT rolcanlogin AND rolpassword LIKE 'SCRAM%' FROM pg_authid"
               " WHERE rolname = 'app'") == "t");
}

TEST_CASE("password hashes do not reach the server's log, however much it writes there") {
  const Server server("zx_throwaway");
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"log_statement", "all"},
                                                        {"log_duration", "on"},
                                                        {"log_min_duration_sample", "0"},
                                                        {"log_statement_sample_rate", "1"},
                                                        {"log_transaction_sample_rate", "1"},
                                                        {"log_min_duration_statement", "0"}})
    server.set(name, value);
  const auto made = load_roles(server.as());
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  CHECK(made->warning == "");
  // Of an error, too: it is there already.
  server("ALTER ROLE leser RENAME TO other");
  server("CREATE ROLE maker LOGIN CREATEROLE");
  const auto log = server.log();
  CHECK(log.find("RENAME TO other") != std::string::npos);
  CHECK(log.find("SCRAM-SHA-256$") == std::string::npos);

  // Who may not say so is told.
  auto session = backup::LoadSession::open(server.as("maker").target, soon());
  REQUIRE_MESSAGE(session.has_value(), test::why(session));
  server("GRANT SET ON PARAMETER log_statement, log_duration TO maker");
  const auto logged = session->keep_out_of_log(server.as("maker").target, soon());
  REQUIRE_MESSAGE(logged.has_value(), test::why(logged));
  CHECK(*logged == std::vector<std::string>{"log_min_duration_statement", "log_min_duration_sample",
                                            "log_transaction_sample_rate",
                                            "log_min_error_statement"});
}

TEST_CASE("a database of libc stays one on a server whose own are of ICU") {
  const auto& server = elsewhere();
  REQUIRE(load_roles(server.as()).has_value());
  server(
      "UPDATE pg_database SET datlocprovider = 'i', daticulocale = 'de'"
      " WHERE datname = 'template0'");
  const auto made =
      backup::create_database(server.as(), scene().database("klein"), "von_libc", soon());
  server(
      "UPDATE pg_database SET datlocprovider = 'c', daticulocale = NULL"
      " WHERE datname = 'template0'");
  REQUIRE_MESSAGE(made.has_value(), test::why(made));
  CHECK(server("SELECT datlocprovider FROM pg_database WHERE datname = 'von_libc'") == "c");
}

TEST_CASE("without tablespaces all lies in that of the database, and subscriptions are left out") {
  const auto& server = elsewhere();
  REQUIRE(load_roles(server.as()).has_value());
  server.make_tablespace("woanders");
  server.set("default_tablespace", "woanders");
  int number = 0;
  for (const int copies : {1, 2})
    for (const bool in_one_transaction : {false, true}) {
      if (in_one_transaction && copies > 1) continue;
      CAPTURE(copies);
      CAPTURE(in_one_transaction);
      backup::LoadOptions options;
      options.copies = copies;
      options.in_one_transaction = in_one_transaction;
      options.no_tablespaces = true;
      const auto name = fmt::format("lager_{}", ++number);
      const auto loaded = load(server.as(), "lager", name, options);
      REQUIRE_MESSAGE(loaded.has_value(), test::why(loaded));
      CHECK(loaded->counted.empty() == (copies == 1));
      CHECK(server("SELECT count(*) FROM public.viel", name) == "40");
      CHECK(server("SELECT spcname FROM pg_database d JOIN pg_tablespace t ON t.oid ="
                   " d.dattablespace WHERE datname = current_database()",
                   name) == "pg_default");
      CHECK(server("SELECT count(*) FROM pg_class WHERE reltablespace <> 0 AND oid >= 16384",
                   name) == "0");
      CHECK(loaded->subscriptions == std::vector<std::string>{"kommt \"an"});
      CHECK(backup::left_out(loaded->subscriptions) == "without the subscription kommt \"an");
      CHECK(server("SELECT count(*) FROM pg_subscription") == "0");
      CHECK(server("SELECT string_agg(pubname, ',') FROM pg_publication", name) == "geht_weg");
    }
  server.set("default_tablespace", "");
  CHECK(backup::left_out({}) == "");
  CHECK(backup::left_out({"a", "b"}) == "without the subscriptions a, b");
}

TEST_CASE("what a dump holds of subscriptions is told from the rest") {
  const std::string others =
      ";\n; Archive created at 2026-11-26\n\n3; 0 0 ENCODING - ENCODING \n"
      "7; 1259 16389 TABLE public SUBSCRIPTION chef\n8; 0 0 COMMENT - EXTENSION a chef\n"
      "9; 6104 16390 PUBLICATION - SUBSCRIPTION chef\nSUBSCRIPTION\n";
  const std::string subscriptions =
      "10; 6100 16391 SUBSCRIPTION - kommt an chef\n11; 0 0 COMMENT - SUBSCRIPTION x chef\n"
      "12; 0 0 SECURITY LABEL - SUBSCRIPTION x chef\n";
  const auto lines = backup::lines_of_dump(others + subscriptions);
  CHECK(lines.others == others);
  CHECK(lines.of_subscriptions == subscriptions);
}

// Deadlines of the server's own that all sessions are under.
TEST_CASE("no timeout of the server ends a load, whoever loads") {
  const auto& server = elsewhere();
  REQUIRE(load_roles(server.as()).has_value());
  server("CREATE ROLE maker LOGIN CREATEDB IN ROLE app");
  for (const char* name : {"statement_timeout", "lock_timeout", "idle_session_timeout",
                           "idle_in_transaction_session_timeout"})
    server.set(name, "700ms");
  // A connection that waits for its part of the rows is idle.
  const std::string idle =
      "SELECT coalesce(bool_and(now() - state_change > interval '1 s'), true)"
      " FROM pg_stat_activity WHERE datname = 'lager_slow' AND state = 'idle'";
  bool has_waited = false;
  backup::LoadOptions options;
  options.copies = 3;
  options.no_tablespaces = true;
  options.progress = [&](std::uint64_t) {
    if (!std::exchange(has_waited, true))
      CHECK(test::eventually([&] { return server(idle) == "t"; }));
  };
  const auto loaded = load(server.as(), "lager", "lager_slow", options);
  REQUIRE_MESSAGE(loaded.has_value(), test::why(loaded));
  CHECK(has_waited);

  // While it is locked, no database can be made.
  auto other = pg::Client::open(server.target(), soon());
  REQUIRE(other.has_value());
  REQUIRE(
      other->query("SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE pg_database"
                   " IN EXCLUSIVE MODE",
                   soon()));
  Status made;
  std::atomic<bool> has_ended{false};
  std::thread making([&] {
    made =
        backup::create_database(server.as("maker"), scene().database("klein"), "klein_2", soon());
    has_ended = true;
  });
  const std::string lasts =
      "SELECT clock_timestamp() - query_start > interval '1 s' FROM pg_stat_activity"
      " WHERE state = 'active' AND query LIKE 'CREATE DATABASE%'";
  CHECK(test::eventually([&] { return server(lasts) == "t" || has_ended; }));
  CHECK(other->query("COMMIT", soon()).has_value());
  making.join();
  REQUIRE_MESSAGE(made.has_value(), test::why(made));

  for (const char* name : {"statement_timeout", "lock_timeout", "idle_session_timeout",
                           "idle_in_transaction_session_timeout"})
    server.set(name, "0");
  // Who is no superuser cannot choose the language, and need not.
  const auto to = server.as("maker");
  const auto small =
      backup::load_database(scene().repository(), scene().database("klein"), to, "klein_2", {});
  REQUIRE_MESSAGE(small.has_value(), test::why(small));
  for (const char* user : {"", "maker"}) {
    auto session = backup::LoadSession::open(server.as(user).target, soon());
    REQUIRE_MESSAGE(session.has_value(), test::why(session));
    bool has_language = false;
    for (const auto& [name, value] : session->settings) {
      has_language = has_language || name == "lc_messages";
      const auto now = session->client.query("SHOW " + name, soon());
      REQUIRE(now.has_value());
      CHECK_MESSAGE(now->at(0).at(0) == value, name);
    }
    CHECK(has_language == std::string_view(user).empty());
  }
}

TEST_CASE("only what a server says of the statement itself speaks against what is loaded") {
  const pg::Target target;
  const auto code = [&](pg::Failure why, const std::string& words = "division by zero") {
    // As the room of PostgreSQL makes them.
    const Code own = why == pg::Failure::silent          ? Code::timeout
                     : why == pg::Failure::broken        ? Code::unreachable
                     : why == pg::Failure::shutting_down ? Code::shutting_down
                                                         : Code::server;
    const pg::Failed failed{why, Error{own, words, {}, {}, false}};
    return backup::refusal_of(target, failed, "looking").code;
  };
  CHECK(code(pg::Failure::other) == Code::failed);
  CHECK(code(pg::Failure::other, "invalid locale name: \"x\"") == Code::config);
  CHECK(code(pg::Failure::resources, "out of memory") == Code::config);
  CHECK(code(pg::Failure::resources, "could not extend file: No space left on device") ==
        Code::disk_full);
  CHECK(code(pg::Failure::cancelled) == Code::timeout);
  CHECK(code(pg::Failure::silent) == Code::timeout);
  CHECK(code(pg::Failure::broken) == Code::unreachable);
  CHECK(code(pg::Failure::shutting_down) == Code::shutting_down);
}

}  // namespace
}  // namespace zx
