// Connection strings, settings files, password files, slot names: what zx writes for PostgreSQL.
#include <doctest/doctest.h>

#include <set>

#include "lib/base/text.h"
#include "lib/pg/admin.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/rejoin_dir.h"

namespace zx::pg {
namespace {

TEST_CASE("a connection string is taken apart as libpq does it") {
  const auto conninfo =
      parse_conninfo(R"(host=10.0.0.1 port = 5433 user='a b' password='it\'s \\ x' options='')");
  REQUIRE(conninfo.has_value());
  CHECK(value_of(*conninfo, "host") == "10.0.0.1");
  CHECK(value_of(*conninfo, "port") == "5433");
  CHECK(value_of(*conninfo, "user") == "a b");
  CHECK(value_of(*conninfo, "password") == "it's \\ x");
  CHECK(value_of(*conninfo, "sslmode").empty());
  const auto uri =
      parse_conninfo("postgresql://us%20er:p%40ss@db.example:5433/shop?sslmode=require");
  REQUIRE(uri.has_value());
  CHECK(value_of(*uri, "user") == "us er");
  CHECK(value_of(*uri, "password") == "p@ss");
  CHECK(value_of(*uri, "dbname") == "shop");
  CHECK(parse_conninfo("")->empty());
}

TEST_CASE("a string that is none is refused without quoting it") {
  for (const std::string text :
       {"secretpassword", "host", "host=", "= x", "password='secret", "no=1",
        "postgresql://u:secret@h:port:5/", "password=secret\\' host='x"}) {
    CAPTURE(text);
    const auto conninfo = parse_conninfo(text);
    if (conninfo) continue;  // libpq takes some of them; what it refuses must not leak
    CHECK(conninfo.error().code == Code::config);
    CHECK(conninfo.error().message.find("secret") == std::string::npos);
    CHECK(conninfo.error().hint.find("secret") == std::string::npos);
  }
  CHECK_FALSE(parse_conninfo("password='secret").has_value());
  CHECK_FALSE(parse_conninfo("no=1").has_value());
}

void check_survives(const std::string& value) {
  CAPTURE(value);
  Conninfo conninfo{{"host", "10.0.0.1"}, {"application_name", value}, {"user", "zx"}};
  const auto text = to_string(conninfo);
  CAPTURE(text);
  const auto back = parse_conninfo(text);
  REQUIRE(back.has_value());
  CHECK(value_of(*back, "application_name") == value);
  CHECK(value_of(*back, "host") == "10.0.0.1");
  CHECK(value_of(*back, "user") == "zx");
  CHECK(back->size() == 3);
}

TEST_CASE("any value survives being put together and taken apart") {
  for (const std::string value : {"plain",
                                  "",
                                  " ",
                                  "two words",
                                  "it's",
                                  "'",
                                  "''",
                                  "\\",
                                  "\\\\",
                                  "end\\",
                                  "\\'",
                                  "tab\there",
                                  "line\nbreak",
                                  "a=b",
                                  "=",
                                  "host=evil.example",
                                  "x host=evil.example",
                                  "x' host='evil.example",
                                  "x\\' host=evil.example",
                                  "\xE4\xB8\xBB\xE5\xBA\x93",
                                  "%20",
                                  "\"",
                                  "postgresql://u@evil/x"})
    check_survives(value);
}

TEST_CASE("whatever libpq takes for the end of a value survives as well") {
  for (const std::string value : {"a\rb", "a\vb", "a\fb"}) check_survives(value);
}

TEST_CASE("values are set and removed by their exact key") {
  Conninfo conninfo{{"host", "a"}, {"hostaddr", "1"}, {"password", "p"}};
  set_value(conninfo, "host", "b");
  set_value(conninfo, "port", "5433");
  remove_value(conninfo, "password");
  remove_value(conninfo, "absent");
  CHECK(conninfo == Conninfo{{"host", "b"}, {"hostaddr", "1"}, {"port", "5433"}});
  CHECK(to_string(conninfo) == "host=b hostaddr=1 port=5433");
  CHECK(value_of(conninfo, "password").empty());
  CHECK(to_string(Conninfo{}).empty());
}

TEST_CASE("the upstream is the first host of a connection string") {
  const struct {
    std::string text;
    const char* host;
    int port;
  } rows[] = {
      {"host=10.0.0.1 port=5433", "10.0.0.1", 5433},
      {"host=db-1", "db-1", 5432},
      {"host=db-1,db-2 port=5433,5434", "db-1", 5433},
      {"host=db-1,db-2 port=5433", "db-1", 5433},
      {"host=db-1 hostaddr=10.0.0.9", "10.0.0.9", 5432},
      {"postgresql://u@[::1]:5433/x", "::1", 5433},
      {"host=/run/postgresql port=5433", "/run/postgresql", 5433},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto upstream = upstream_of(row.text);
    REQUIRE(upstream.has_value());
    CHECK(upstream->host == row.host);
    CHECK(upstream->port == row.port);
  }
  for (const std::string text : {"", "user=x", "port=5433", "nonsense", "host=''"}) {
    CAPTURE(text);
    CHECK_FALSE(upstream_of(text).has_value());
  }
}

TEST_CASE("an empty port of a list is the default one, as for libpq") {
  CHECK(upstream_of("host=db-1,db-2 port=,5434")->port == 5432);
}

TEST_CASE("settings are replaced, everything else stays") {
  const std::map<std::string, std::string> settings{{"primary_conninfo", "host=b"},
                                                    {"primary_slot_name", ""}};
  const std::string tail = "primary_conninfo = 'host=b'\nprimary_slot_name = ''\n";
  const struct {
    std::string before;
    std::string after;
  } rows[] = {
      {"", tail},
      {"\n\n", tail},
      {"work_mem = '4MB'\n", "work_mem = '4MB'\n" + tail},
      {"work_mem = '4MB'", "work_mem = '4MB'\n" + tail},
      {"primary_conninfo = 'host=a'\n", tail},
      {"primary_conninfo='host=a'\nwork_mem=1\nPRIMARY_SLOT_NAME 'x'\n", "work_mem=1\n" + tail},
      {"  primary_conninfo\t= 'host=a'\n", tail},
      {"primary_conninfo = 'a'\nprimary_conninfo = 'b'\n", tail},
      {"primary_conninfo_x = 1\n", "primary_conninfo_x = 1\n" + tail},
      {"# primary_conninfo = 'host=a'\n", "# primary_conninfo = 'host=a'\n" + tail},
      {"#primary_conninfo = 1\n\nwork_mem = 1\n", "#primary_conninfo = 1\n\nwork_mem = 1\n" + tail},
      {"primary_conninfo = 'a'\r\nwork_mem = 1\r\n", "work_mem = 1\r\n" + tail},
  };
  for (const auto& row : rows) {
    CAPTURE(row.before);
    const auto after = with_settings(row.before, settings);
    CHECK(after == row.after);
    CHECK(with_settings(after, settings) == after);
  }
  CHECK(with_settings("a = 1\n", {}) == "a = 1\n");
}

TEST_CASE("a hostile value cannot leave its quotes in a settings file") {
  const auto text = with_settings("", {{"primary_conninfo", "x' \\' port=1 \\ '"}});
  CHECK(text == "primary_conninfo = 'x'' \\\\'' port=1 \\\\ '''\n");
}

// The lexer of settings files takes no line break inside quotes: the server would not start.
TEST_CASE("a line break in a value is written as an escape") {
  const auto text = with_settings("", {{"primary_conninfo", "a\nb"}});
  CHECK(lower(text) == "primary_conninfo = 'a\\nb'\n");
}

TEST_CASE("a line of a password file has its separators escaped") {
  CHECK(passfile_line("replicator", "secret") == "*:*:*:replicator:secret\n");
  CHECK(passfile_line("a:b", "c\\d:e") == "*:*:*:a\\:b:c\\\\d\\:e\n");
  CHECK(passfile_line("u", "") == "*:*:*:u:\n");
  CHECK(passfile_line("u", "#p ' \" 密码") == "*:*:*:u:#p ' \" 密码\n");
}

TEST_CASE("a slot name is one that PostgreSQL takes, and of one node only") {
  CHECK(slot_name_of("pg_a1") == "pg_a1");
  CHECK(slot_name_of("pg-a-1") == "pg_a_1");
  CHECK(slot_name_of(std::string(63, 'x')) == std::string(63, 'x'));
  std::set<std::string> slots;
  const std::vector<std::string> nodes{"主库",
                                       "备库",
                                       "pg a",
                                       "pg.a",
                                       "pg\na",
                                       "pg'a",
                                       "PG-A",
                                       "pg-a",
                                       "é",
                                       "è",
                                       std::string(64, 'x'),
                                       std::string(65, 'x'),
                                       std::string(64, 'x') + "y",
                                       std::string(300, '\xFF')};
  for (const auto& node : nodes) {
    CAPTURE(node);
    const auto slot = slot_name_of(node);
    CHECK(slot.size() <= 63);
    CHECK_FALSE(slot.empty());
    CHECK(slot.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos);
    CHECK(slots.insert(slot).second);
    CHECK(slot_name_of(node) == slot);
  }
}

}  // namespace
}  // namespace zx::pg
