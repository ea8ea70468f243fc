#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdlib>
#include <set>

#include "lib/config/config.h"
#include "lib/config/render.h"
#include "tests/support.h"

namespace zx::config {
namespace {

constexpr const char* kWhole = R"([platform]
name = "zhixuan"
environment = "production"
state_dir = "/var/lib/zx-test"

[regions.beijing]
role = "primary"
zones = ["bj-b", "bj-a"]
[regions.amsterdam]

[hosts.bj-db-1]
address = "10.1.0.11"
region = "beijing"
zone = "bj-a"
remote = ["ssh", "-oBatchMode=yes", "{address}"]
[hosts.am-db-1]
address = "10.1.0.12"
region = "amsterdam"
remote = []
[hosts.far]
address = "far.example"

[pg.main]
databases = ["orders", "carts"]
user = "ops"
password = "${ZX_TEST_PASSWORD}"
replication_password_file = "repl.pass"
[pg.main.nodes.pg-b]
host = "bj-db-1"
data_dir = "/data/b"
service = "postgresql@15-main"
[pg.main.nodes.pg-a]
host = "am-db-1"
port = 5433
data_dir = "data/a"
start = ["pg_ctl", "start"]
stop = ["pg_ctl", "stop"]
priority = 0
nofailover = true
[pg.main.policy]
max_lag = "1 GiB"
require_fence = false
silent_after = "2500ms"
)";

// The smallest right file; `more` goes behind it.
std::string small(const std::string& more = {}) {
  return "[hosts.a]\n"
         "address = \"10.0.0.1\"\n"
         "[pg.main.nodes.pg-a]\n"
         "host = \"a\"\n"
         "data_dir = \"/d\"\n" +
         more;
}

Error error_of(const std::string& text) {
  const auto config = load_text(text, "zx.toml");
  REQUIRE_FALSE(config.has_value());
  CHECK(config.error().code == Code::config);
  return config.error();
}

class Variable {
 public:
  Variable(const std::string& name, const std::string& value) : name_(name) {
    setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variable() { unsetenv(name_.c_str()); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  std::string name_;
};

Config right(const std::string& text) {
  const auto config = load_text(text, "/etc/zx/zx.toml");
  REQUIRE_MESSAGE(config.has_value(), (config ? std::string() : config.error().message));
  return *config;
}

TEST_CASE("a whole file becomes a typed Config in the order of the file") {
  const auto config = right(kWhole);
  CHECK(config.path == "/etc/zx/zx.toml");
  CHECK(config.platform.name == "zhixuan");
  CHECK(config.platform.environment == "production");
  CHECK(config.platform.state_dir == "/var/lib/zx-test");
  REQUIRE(config.regions.size() == 2);
  CHECK(config.regions[0].name == "beijing");
  CHECK(config.regions[0].zones == std::vector<std::string>{"bj-b", "bj-a"});
  CHECK(config.regions[1].name == "amsterdam");
  REQUIRE(config.hosts.size() == 3);
  CHECK(config.host("bj-db-1")->remote ==
        std::vector<std::string>{"ssh", "-oBatchMode=yes", "{address}"});
  CHECK(config.host("am-db-1")->remote == std::vector<std::string>{});
  CHECK_FALSE(config.host("far")->remote.has_value());
  CHECK(config.host("nobody") == nullptr);
  const auto* main = config.cluster("main");
  REQUIRE(main != nullptr);
  CHECK(main->databases == std::vector<std::string>{"orders", "carts"});
  CHECK(main->replication_user == "replicator");
  REQUIRE(main->nodes.size() == 2);
  CHECK(main->nodes[0].name == "pg-b");
  CHECK(main->nodes[1].name == "pg-a");
  CHECK(main->nodes[0].port == 5432);
  CHECK(main->node("pg-a")->port == 5433);
  CHECK(main->node("pg-a")->data_dir == "/etc/zx/data/a");
  CHECK(main->node("pg-a")->nofailover);
  CHECK(main->policy.max_lag == 1ULL << 30);
  CHECK(main->policy.silent_after == Millis(2500));
  CHECK(main->policy.promote_deadline == Millis(60'000));
  CHECK_FALSE(main->policy.require_fence);
}

TEST_CASE("an empty file is right and has the defaults") {
  const auto config = right("");
  CHECK(config.pg.empty());
  CHECK(config.platform.environment == "staging");
  CHECK(config.platform.state_dir.starts_with('/'));
}

TEST_CASE("a defect is named with its line, its column and the nearest known name") {
  struct Case {
    std::string more;  // behind small(), whose last line is 5
    std::string says;
  };
  const std::vector<Case> cases{
      {"prot = 1", R"(6:1: unknown key "prot" in [pg.main.nodes.pg-a]; did you mean "port"?)"},
      {"databases = []",
       R"(6:1: unknown key "databases" in [pg.main.nodes.pg-a]; it belongs in [pg.NAME])"},
      {"zzzzzzzz = 1\n",
       "6:1: unknown key \"zzzzzzzz\" in [pg.main.nodes.pg-a]; known here: host, port"},
      {"[platfrom]", R"(6:2: unknown key "platfrom" at the top; did you mean "platform"?)"},
      {"[pg.main.polcy]", R"(6:10: unknown key "polcy" in [pg.main]; did you mean "policy"?)"},
      {"port = \"5432\"",
       "6:8: pg.main.nodes.pg-a.port must be an integer from 1 to 65535, found a string"},
      {"port = 0", "6:8: pg.main.nodes.pg-a.port must be an integer from 1 to 65535, found 0"},
      {"port = 65536",
       "6:8: pg.main.nodes.pg-a.port must be an integer from 1 to 65535, found 65536"},
      {"port = 4294972728",
       "6:8: pg.main.nodes.pg-a.port must be an integer from 1 to 65535, found 4294972728"},
      {"port = 1.5", "found a number with a fraction"},
      {"priority = -1", "must be an integer from 0 to 1000, found -1"},
      {"priority = 1001", "must be an integer from 0 to 1000, found 1001"},
      {"nofailover = \"yes\"", "must be true or false, found a string"},
      {"start = \"pg_ctl start\"", "start must be a list of strings, found a string"},
      {"start = [\"pg_ctl\",\n  1]",
       "7:3: pg.main.nodes.pg-a.start must be a list of strings, found an integer in it"},
      {"start = [\"\"]", "must not hold an empty string"},
      {"service = \"x\"\nstart = [\"y\"]",
       "6:11: pg.main.nodes.pg-a.service stands beside start; keep one of them"},
      {"service = \"x\\u0000y\"", "must not hold control characters"},
      {"config_file = \"~/x\"", "must be written out, ~ is not replaced"},
      {"[pg.main.policy]\nmax_lag = \"16 MB!\"",
       "7:11: pg.main.policy.max_lag must be a size such as \"16 MiB\", found \"16 MB!\""},
      {"[pg.main.policy]\nmax_lag = -1", "must be a size such as \"16 MiB\", found -1"},
      {"[pg.main.policy]\nstop_deadline = 30",
       "7:17: pg.main.policy.stop_deadline must be a duration such as \"30s\", found an integer"},
      {"[pg.main.policy]\nstop_deadline = \"0s\"",
       "must be longer than 0 and at most 400d, found \"0s\""},
      {"[pg.main.policy]\nstop_deadline = \"9999d\"", "at most 400d"},
      {"[pg.main]\nsslmode = \"requrie\"",
       "7:11: pg.main.sslmode must be one of disable, allow, prefer, require, verify-ca, "
       "verify-full, "
       "found \"requrie\"; did you mean \"require\"?"},
      {"[pg.main]\nuser = \"\"", "7:8: pg.main.user must not be empty"},
      {"[pg.main]\ndatabases = [\"a\", \"a\"]", "7:19: pg.main.databases has \"a\" twice"},
      {"[platform]\nenvironment = \"prod\"", "found \"prod\"; did you mean \"production\"?"},
      {"[regions.x]\nrole = \"secondary\"",
       "must be one of primary, hot-standby, disaster-recovery"},
      {"[pg.spare]", "6:5: pg.spare has no nodes; add a table [pg.spare.nodes.NAME]"},
      {"[hosts.b]", "6:8: missing key \"address\" in [hosts.b]"},
      {"[pg.main.nodes.pg-b]\ndata_dir = \"/d\"",
       "6:16: missing key \"host\" in [pg.main.nodes.pg-b]"},
      {"[pg.main.nodes.pg-b]\nhost = \"a\"\nport = 1",
       "6:16: missing key \"data_dir\" in [pg.main.nodes.pg-b]"},
      {"[pg.main.nodes.pg-b]\nhost = \"b\"\ndata_dir = \"/e\"",
       "7:8: pg.main.nodes.pg-b.host names the unknown host \"b\""},
      {"[pg.main.nodes.pg-b]\nhost = \"a\"\ndata_dir = \"/e\"",
       "7:8: pg.main.nodes.pg-b has the same address and port as pg.main.nodes.pg-a: "
       "10.0.0.1:5432"},
      {"[pg.main.nodes.pg-b]\nhost = \"a\"\nport = 1\ndata_dir = \"/d\"",
       "9:12: pg.main.nodes.pg-b has the same host and data_dir as pg.main.nodes.pg-a"},
      {"[hosts.b]\naddress = \"10.0.0.1\"\n[pg.x.nodes.n]\nhost = \"b\"\ndata_dir = \"/d\"",
       "pg.x.nodes.n has the same address and port as pg.main.nodes.pg-a"},
      {"[regions.beijing]\n[hosts.b]\naddress = \"b\"\nregion = \"bejing\"",
       R"(9:10: hosts.b.region names the unknown region "bejing"; did you mean "beijing"?)"},
      {"[regions.r]\nzones = [\"z-1\"]\n[hosts.b]\naddress = \"b\"\nregion = \"r\"\nzone = \"z-l\"",
       R"(11:8: hosts.b.zone names the unknown zone "z-l" of region "r"; did you mean "z-1"?)"},
      {"[hosts.b]\naddress = \"b\"\nzone = \"z\"", "8:8: hosts.b.zone is given without a region"},
      {"[hosts.b]\naddress = \"b\"\nremote = [\"ssh\", \"{adress}\"]",
       R"(8:10: hosts.b.remote has an unknown "{adress}"; did you mean "{address}"?)"},
      {"[hosts]\nb = 3", "7:5: hosts.b must be a table, found an integer"},
      {"[[regions]]", "regions must be a table, found a list"},
      {"port.x = 1", "must be an integer from 1 to 65535, found a table"},
      {"[agent]\nlisten = \"foo\"",
       "7:10: agent.listen must be ADDRESS:PORT with a numeric address, such as "
       "\"127.0.0.1:9180\" or \"[::1]:9180\", found \"foo\""},
      {"[agent]\nname = \"a/b\"", "7:8: agent.name has a \"/\""},
      {"[pg.main.policy]\nsilent_after = \"49ms\"",
       "pg.main.policy.silent_after is 49 ms; it takes a duration of at least 50 ms"},
      {"[pg.main.policy]\nprobe_deadline = \"1ms\"",
       "pg.main.policy.probe_deadline is 1 ms; it takes a duration of at least 50 ms"},
      {"[agent]\nlisten = \"localhost:9180\"", "7:10: agent.listen must be ADDRESS:PORT"},
      {"[agent]\nlisten = \"127.0.0.1\"", "7:10: agent.listen must be ADDRESS:PORT"},
      {"[agent]\nlisten = \"127.0.0.1:65536\"", "7:10: agent.listen must be ADDRESS:PORT"},
      {"[agent]\nlisten = \"::1:9180\"", "7:10: agent.listen must be ADDRESS:PORT"},
      {"port 1", "6:6: not valid TOML: "},
      {"[hosts.a]", "not valid TOML: "},
      {"a.b.c.d.e.f.g.h.i.j.k = 1", "6:18: a key has more than 9 parts"},
  };
  for (const auto& [given, says] : cases) {
    const auto& more = given;  // clang 14 captures no structured binding
    CAPTURE(more);
    const auto error = error_of(small(more));
    CHECK_MESSAGE(error.message.find(says) != std::string::npos, error.message);
    CHECK(error.message.starts_with("zx.toml:"));
    CHECK(error.trail.empty());
  }
}

TEST_CASE("all defects are named, in the order of the file") {
  const auto error = error_of(small("prot = 1\nport = 0\n[hosts.b]\n[pg.main]\nuser = 1\n"));
  CHECK(error.message.starts_with("zx.toml:6:1: "));
  REQUIRE(error.trail.size() == 3);
  CHECK(error.trail[0].starts_with("zx.toml:7:8: "));
  CHECK(error.trail[1].starts_with("zx.toml:8:8: "));
  CHECK(error.trail[2].starts_with("zx.toml:10:8: "));
}

TEST_CASE("a flood of defects is cut with their count") {
  std::string text;
  for (int i = 0; i < 500; ++i) text += fmt::format("k{} = 1\n", i);
  const auto error = error_of(text);
  CHECK(error.trail.size() == 50);
  CHECK(error.trail.back() == "and 450 more");
}

TEST_CASE("a password in the file is refused and never repeated") {
  for (const auto* line :
       {"password = \"hunter2\"", "password = 'hunter2'", "replication_password = \"hunter2\"",
        "password = \"hunter2", "password = truhunter2", "password = [\"hunter2\"]",
        "password = \"${hunter2 x}\"", "pasword = \"hunter2\"", "password = hunter2"}) {
    CAPTURE(line);
    const auto error = error_of(small(fmt::format("[pg.main]\n{}\n", line)));
    CHECK(error.message.find("hunter2") == std::string::npos);
    CHECK(error.message.starts_with("zx.toml:"));
    CHECK(error.trail.empty());
  }
  CHECK(error_of(small("[pg.main]\npassword = \"hunter2\"")).message ==
        "zx.toml:7:12: pg.main.password must be \"${NAME}\" with the name of an environment "
        "variable; "
        "a password does not stand in the file, password_file is the other way");
  CHECK(error_of(small("[pg.main]\npassword = \"${A}\"\npassword_file = \"x\"")).message ==
        "zx.toml:7:12: pg.main.password stands beside password_file; keep one of them");
}

TEST_CASE("a name may be Chinese but not a path, a flag or invisible") {
  const auto config = right(
      "[hosts.\"主机\"]\naddress = \"10.0.0.1\"\n"
      "[pg.\"订单库\".nodes.\"北京-1\"]\nhost = \"主机\"\ndata_dir = \"/数据\"\n");
  CHECK(config.pg[0].name == "订单库");
  CHECK(config.pg[0].nodes[0].name == "北京-1");
  CHECK(right(fmt::format("[regions.\"{}\"]", std::string(63, 'x'))).regions.size() == 1);

  struct Case {
    std::string name;
    std::string says;
  };
  const std::vector<Case> cases{
      {"", "a name must not be empty"},
      {"a/b", "a name must not hold '/'"},
      {"-rf", "a name must not begin with '-'"},
      {"..", "a name must not begin with '.'"},
      {"a\\u0000b", "a name must not hold control characters"},
      {"a\\nb", "a name must not hold control characters"},
      {"a\\u001b[2Jb", "a name must not hold control characters"},
      {"a\\u0085b", "a name must not hold control characters"},
      {"a\\u202eb", "a name must not hold invisible characters"},
      {"a\\u200bb", "a name must not hold invisible characters"},
      {" a", "a name must not begin or end with a space"},
      {std::string(64, 'x'), "a name has at most 63 bytes, this one has 64"},
      {"主主主主主主主主主主主主主主主主主主主主主主",
       "a name has at most 63 bytes, this one has 66"},
  };
  for (const auto& [given, says] : cases) {
    const auto& name = given;
    CAPTURE(name);
    const auto error = error_of("\n[regions.\"" + name + "\"]\n");
    CHECK_MESSAGE(error.message.starts_with("zx.toml:2:10: " + says), error.message);
    CHECK(clean_utf8(error.message) == error.message);
  }
}

TEST_CASE("broken or hostile text is an error, not a crash") {
  CHECK(error_of("a = \xff").message.starts_with("zx.toml:1:"));
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "a.";
  CHECK(error_of(deep + "a = 1").message.find("a key has more than") != std::string::npos);
  CHECK(error_of("x = " + std::string(100'000, '[')).message.starts_with("zx.toml:1:"));
  CHECK(error_of(std::string(100'000, 'k') + " = 1").message.size() < 300);
  CHECK(right("# " + std::string(1000, '.') + "\n[regions.\"a.b.c.d.e.f.g.h.i.j.k\"]\n")
            .regions[0]
            .name == "a.b.c.d.e.f.g.h.i.j.k");
}

TEST_CASE("the environment wins over the file") {
  const Variable user("ZX__PG__MAIN__USER", "boss");
  const Variable port("zx__pg__Main__nodes__PG_A__Port", "6000");
  const Variable list("ZX__PG__MAIN__DATABASES", "one, two");
  const Variable argv("ZX__HOSTS__FAR__REMOTE", "[\"ip\", \"netns\", \"a,b\"]");
  const Variable flag("ZX__PG__MAIN__POLICY__REQUIRE_SYNC", "true");
  const Variable span("ZX__PG__MAIN__POLICY__STOP_DEADLINE", "5s");
  const Variable state("ZX__PLATFORM__STATE_DIR", "state");
  const auto config = right(kWhole);
  const auto& main = config.pg[0];
  CHECK(main.user == "boss");
  CHECK(main.node("pg-a")->port == 6000);
  CHECK(main.databases == std::vector<std::string>{"one", "two"});
  CHECK(config.host("far")->remote == std::vector<std::string>{"ip", "netns", "a,b"});
  CHECK(main.policy.require_sync);
  CHECK(main.policy.stop_deadline == Millis(5000));
  CHECK(config.platform.state_dir == "/etc/zx/state");
}

TEST_CASE("the environment supplies what the file lacks and repairs what is wrong there") {
  const Variable host("ZX__PG__MAIN__NODES__PG_B__HOST", "a");
  const Variable port("ZX__PG__MAIN__NODES__PG_B__PORT", "1");
  const Variable directory("ZX__PG__MAIN__NODES__PG_B__DATA_DIR", "/e");
  CHECK(right(small("[pg.main.nodes.pg-b]\nport = 0\n")).pg[0].nodes[1].port == 1);
}

TEST_CASE("a variable that stands for no key or holds a wrong value is an error") {
  struct Case {
    std::string name;
    std::string value;
    std::string says;
  };
  const std::vector<Case> cases{
      {"ZX__PG__MAIN__USRE", "x",
       "$ZX__PG__MAIN__USRE: stands for no key; did you mean \"ZX__PG__MAIN__USER\"?"},
      {"ZX__NOTHING", "x", "$ZX__NOTHING: stands for no key"},
      {"ZX__HOSTS__NEW__ADDRESS", "x", "$ZX__HOSTS__NEW__ADDRESS: stands for no key"},
      {"ZX__PG__MAIN__NODES__PG_A__PORT", "http",
       "$ZX__PG__MAIN__NODES__PG_A__PORT: pg.main.nodes.pg-a.port must be an integer from 1 to "
       "65535, "
       "found \"http\""},
      {"ZX__PG__MAIN__NODES__PG_A__HOST", "far-away",
       "$ZX__PG__MAIN__NODES__PG_A__HOST: pg.main.nodes.pg-a.host names the unknown host "
       "\"far-away\"; known: a"},
      {"ZX__PG__MAIN__DATABASES", "[\"a\"", "must be a list of strings"},
  };
  for (const auto& [given, value, says] : cases) {
    const auto& name = given;
    CAPTURE(name);
    const Variable variable(name, value);
    const auto error = error_of(small());
    CHECK_MESSAGE(error.message.starts_with("$" + name + ": "), error.message);
    CHECK_MESSAGE(error.message.find(says) != std::string::npos, error.message);
  }
}

TEST_CASE("a variable that could stand for two names is an error") {
  const Variable variable("ZX__HOSTS__DB_1__ADDRESS", "x");
  const auto error = error_of("[hosts.db-1]\naddress = \"a\"\n[hosts.db_1]\naddress = \"b\"\n");
  CHECK(error.message ==
        "$ZX__HOSTS__DB_1__ADDRESS: stands for hosts.db-1.address as well as hosts.db_1.address");
}

TEST_CASE("a password comes from a file that only its owner can read, or from a variable") {
  const test::Directory directory;
  const auto path = directory / "zx.toml";
  test::write(path, small("[pg.main]\npassword_file = \"pg.pass\"\nreplication_password = "
                          "\"${ZX_TEST_SECRET}\"\n"));
  test::write(directory / "pg.pass", "s3cret\n");
  chmod((directory / "pg.pass").c_str(), 0600);
  const auto config = load(path);
  REQUIRE(config.has_value());
  CHECK(password_of(*config, config->pg[0]) == "s3cret");
  CHECK_FALSE(replication_password_of(*config, config->pg[0]).has_value());
  {
    const Variable secret("ZX_TEST_SECRET", "other");
    CHECK(replication_password_of(*config, config->pg[0]) == "other");
  }
  {
    const Variable secret("ZX__PG__MAIN__PASSWORD", "from-environment");
    const auto changed = load(path);
    REQUIRE(changed.has_value());
    CHECK(password_of(*changed, changed->pg[0]) == "from-environment");
    const auto lines = show(path);
    REQUIRE(lines.has_value());
    for (const auto& line : *lines) CHECK(line.value.find("from-environment") == std::string::npos);
  }
  chmod((directory / "pg.pass").c_str(), 0644);
  CHECK(password_of(*config, config->pg[0]).error().code == Code::config);
  const auto none = right(small());
  CHECK(password_of(none, none.pg[0]) == "");
}

TEST_CASE("show lists every key with its value and where it came from") {
  const test::Directory directory;
  const auto path = directory / "zx.toml";
  test::write(path, kWhole);
  const Variable user("ZX__PG__MAIN__USER", "boss");
  const auto lines = show(path);
  REQUIRE(lines.has_value());
  const auto line = [&](const std::string& key) {
    for (const auto& one : *lines)
      if (one.key == key) return one.value + " from " + one.origin;
    return std::string("missing");
  };
  CHECK(line("platform.name") == "\"zhixuan\" from " + path + ":2");
  CHECK(line("regions.beijing.zones") == "[\"bj-b\", \"bj-a\"] from " + path + ":8");
  CHECK(line("hosts.far.remote") == "(none) from default");
  CHECK(line("hosts.am-db-1.remote") == "[] from " + path + ":19");
  CHECK(line("pg.main.user") == "\"boss\" from $ZX__PG__MAIN__USER");
  CHECK(line("pg.main.password") == "(hidden) from " + path + ":26");
  CHECK(line("pg.main.replication_password") == "\"\" from default");
  CHECK(line("pg.main.nodes.pg-b.port") == "5432 from default");
  CHECK(line("pg.main.policy.max_lag") == "\"1 GiB\" from " + path + ":41");
  CHECK(line("pg.main.policy.rebuild_deadline") == "\"6h\" from default");
}

TEST_CASE("a rendered file reads back as the same Config") {
  auto config = right(kWhole);
  CHECK(right(render(config)) == config);
  CHECK(render(config).find("rebuild_deadline") == std::string::npos);
  CHECK(render(config).find("[pg.main.nodes.pg-b]\nhost = ") ==
        std::string::npos);  // explained first

  const std::string hostile = "a\"b\\c 'd' # e = [f] \xE4\xB8\xBB";
  config.platform.name = hostile;
  config.hosts[0].name = "na\"me.of\\host 主";
  config.pg[0].nodes[0].host = config.hosts[0].name;
  config.pg[0].databases = {hostile, "b"};
  config.hosts[0].remote = {"sh", "-c", "line one\nline\ttwo", ""};
  config.pg[0].name = "订单";
  config.pg[0].policy.max_lag = ~0ULL;
  config.pg[0].policy.silent_after = Millis(90'061'001);
  CHECK(right(render(config)) == config);

  const auto empty = right("");
  CHECK(right(render(empty)) == empty);
}

TEST_CASE("a rendered file explains a key once") {
  const auto text = render(right(kWhole));
  std::set<std::string> comments;
  for (const auto& line : test::lines_of(text)) {
    if (!line.starts_with("# ")) continue;
    CHECK_MESSAGE(comments.insert(line).second, line);
    CHECK(line.size() <= 100);
  }
  CHECK(comments.size() > 10);
}

TEST_CASE("every key has a type and a sentence") {
  std::set<std::string> patterns;
  for (const auto& doc : key_docs()) {
    CAPTURE(doc.pattern);
    CHECK(patterns.insert(doc.pattern).second);
    CHECK_FALSE(doc.type.empty());
    CHECK(doc.doc.ends_with('.'));
    CHECK(doc.secret == (doc.pattern.ends_with("password")));
  }
  const auto fallback = [](const std::string& pattern) {
    for (const auto& doc : key_docs())
      if (doc.pattern == pattern) return doc.type + ": " + doc.fallback;
    return std::string();
  };
  CHECK(fallback("pg.*.nodes.*.port") == "integer from 1 to 65535: 5432");
  CHECK(fallback("pg.*.nodes.*.host") == "string: required");
  CHECK(fallback("pg.*.policy.max_lag") == "size: \"16 MiB\"");
  CHECK(fallback("pg.*.policy.probe_deadline") == "duration: \"1s\"");
  CHECK(fallback("pg.*.sslrootcert") == "path: ");
  CHECK(fallback("platform.environment") == "one of staging, production: \"staging\"");
}

TEST_CASE("the file is found by flag, then ZX_CONFIG, then the usual places") {
  const test::Directory directory;
  const auto named = directory / "named.toml";
  const auto missing = directory / "missing.toml";
  test::write(named, "");
  CHECK(find_file(named) == named);
  CHECK(find_file(missing).error().message ==
        "the file " + missing + " that --config names does not exist");
  {
    const Variable variable("ZX_CONFIG", named);
    CHECK(find_file(std::nullopt) == named);
    CHECK(find_file(missing).error().code == Code::config);
  }
  {
    const Variable variable("ZX_CONFIG", missing);
    CHECK(find_file(std::nullopt).error().message ==
          "the file " + missing + " that $ZX_CONFIG names does not exist");
  }
  const std::string old_home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  {
    const Variable home("HOME", directory.path());
    test::write(directory / ".config/zx/zx.toml", "");
    CHECK(find_file(std::nullopt) == directory / ".config/zx/zx.toml");
  }
  if (!old_home.empty()) setenv("HOME", old_home.c_str(), 1);
}

TEST_CASE("a file that cannot be read is an error of the configuration") {
  const test::Directory directory;
  CHECK(load(directory / "none.toml").error().code == Code::config);
  CHECK(load(directory.path()).error().code == Code::config);
  test::write(directory / "large.toml", std::string((1u << 20) + 1, '\n'));
  CHECK(load(directory / "large.toml").error().code == Code::config);
}

}  // namespace
}  // namespace zx::config
