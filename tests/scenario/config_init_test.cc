#include <chrono>

#include "lib/os/files.h"
#include "tests/scenario/cluster.h"

namespace zx {
namespace {

using test::Cluster;

const std::vector<std::string> kNames{"pg-a", "pg-b", "pg-c"};

os::ProcessResult init(const Cluster& cluster, const std::string& dsn,
                       std::vector<std::string> words = {}) {
  words.insert(words.begin(), {"config", "init", "--dsn", dsn});
  os::ProcessOptions options;
  options.environment = {{"PGPASSFILE", cluster.lab().passfile()}};
  return test::run_zx(std::move(words), options);
}

// What zx config check and zx status say of a file.
void check_works(const Cluster& cluster, const std::string& file) {
  const auto check = test::run_zx({"config", "check", "-c", file});
  CHECK_MESSAGE(check.exit == 0, check.err);
  os::ProcessOptions options;
  options.environment = {{"PGPASSFILE", cluster.lab().passfile()}};
  const auto status = test::run_zx({"status", "-c", file, "-o", "json"}, options);
  CHECK_MESSAGE(status.exit == 0, status.err);
  CHECK(test::json_of(status)["pg"]["verdict"] == "healthy");
}

// All nodes of the lab are in the file, as they are.
void check_nodes(const Cluster& cluster, const std::string& file) {
  const auto config = config::load(file);
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  const auto* found = config->cluster("main");
  REQUIRE(found != nullptr);
  const auto nodes = cluster.lab().nodes();
  REQUIRE(nodes.has_value());
  REQUIRE(found->nodes.size() == nodes->size());
  for (const auto& node : *nodes) {
    CAPTURE(node.name);
    const auto* one = found->node(node.name);
    REQUIRE(one != nullptr);
    CHECK(one->port == node.port);
    CHECK(one->data_dir == node.data_dir);
    const auto* host = config->host(one->host);
    REQUIRE(host != nullptr);
    CHECK(host->address == node.host);
    CHECK(host->remote == os::Argv());
  }
  CHECK(found->user == "zx");
  CHECK(found->replication_user == "replicator");
  CHECK(found->databases.size() == 5);
}

// Restarts the server with settings that ALTER SYSTEM would refuse.
void add_settings(const Cluster& cluster, const std::string& node,
                  const std::vector<std::pair<std::string, std::string>>& settings) {
  const auto file = cluster.lab().dir() + "/" + node + "/data/postgresql.auto.conf";
  auto text = test::read(file);
  for (const auto& [name, value] : settings) {
    text += name + " = '";
    for (const char c : value)
      text += c == '\n' ? "\\n" : std::string(c == '\'' || c == '\\' ? 2 : 1, c);
    text += "'\n";
  }
  cluster.kill(node);
  test::write(file, text);
  cluster.start(node);
  CHECK(cluster.streams(node));
}

std::string hostile_conninfo(const Cluster& cluster, const std::string& node) {
  auto conninfo = pg::parse_conninfo(cluster.sql(node, "SHOW primary_conninfo"));
  REQUIRE(conninfo.has_value());
  pg::set_value(*conninfo, "application_name", "e\"v'\\\n[il]\n主库");
  return pg::to_string(*conninfo);
}

TEST_CASE("the whole cluster is found from any of its servers") {
  const Cluster cluster;
  const auto primary = cluster.lab().members().front();
  std::vector<std::pair<std::string, std::string>> dsns{
      {"uri", "postgresql://zx@" + primary.host + ":" + std::to_string(primary.port)},
      {"all", cluster.dsn("postgres")}};
  for (const auto& name : kNames) dsns.emplace_back(name, cluster.lab().conninfo(name));
  for (const auto& one : dsns) {
    const auto& name = one.first;
    const auto& dsn = one.second;
    CAPTURE(name);
    const auto file = cluster.beside(name + ".toml");
    const auto result = init(cluster, dsn, {"--write", file});
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    CHECK(result.out.find("next: zx -c " + file + " status") != std::string::npos);
    CHECK(result.err.find("no password is in the file") != std::string::npos);
    check_nodes(cluster, file);
    check_works(cluster, file);

    const auto again = init(cluster, dsn, {"--write", file});
    CHECK(again.exit == 3);
    CHECK(again.err.find("exists already") != std::string::npos);
  }

  SUBCASE("to stdout, with the file that holds the password") {
    const auto password = test::read(cluster.lab().dir() + "/secrets/zx.pass");
    const auto result = test::run_zx({"config", "init", "--dsn", dsns[0].second, "--password-file",
                                      cluster.lab().dir() + "/secrets/zx.pass"});
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    CHECK(result.err.empty());
    CHECK(result.out.find(std::string(trim(password))) == std::string::npos);
    const auto file = cluster.beside("stdout.toml");
    test::write(file, result.out);
    check_nodes(cluster, file);
    const auto status = test::run_zx({"status", "-c", file, "-o", "json"});
    CHECK(test::json_of(status)["pg"]["verdict"] == "healthy");
  }

  SUBCASE("as JSON") {
    const auto result = init(cluster, dsns[0].second, {"-o", "json"});
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    const auto json = test::json_of(result);
    CHECK(json["config"].is_null());
    REQUIRE(json["nodes"].size() == 3);
    CHECK(json["nodes"][0]["role"] == "primary");
    CHECK(json["nodes"][1]["name"] == "pg-b");
    CHECK(json["unverified"].empty());
    CHECK(config::load_text(json["toml"], "/x/zx.toml").has_value());
  }

  SUBCASE("by a role that may see little") {
    cluster.sql("pg-a", "CREATE ROLE plain LOGIN PASSWORD 'plain'");
    os::ProcessOptions options;
    options.environment = {{"PGPASSWORD", "plain"}};
    const auto result =
        test::run_zx({"config", "init", "--dsn",
                      fmt::format("host={} port={} user=plain", primary.host, primary.port)},
                     options);
    REQUIRE_MESSAGE(result.exit == 0, result.err);
    CHECK(result.err.find("GRANT pg_monitor TO plain") != std::string::npos);
    CHECK(result.out.find("[pg.main.nodes.pg-a]") != std::string::npos);
  }
}

TEST_CASE("a server that does not answer is named, and delays the others only a little") {
  const Cluster cluster;
  cluster.kill("pg-c", SIGSTOP);
  const auto file = cluster.beside("found.toml");
  const auto result =
      init(cluster, cluster.lab().conninfo("pg-b"), {"--write", file, "--timeout", "4s"});
  REQUIRE_MESSAGE(result.exit == 0, result.err);
  CHECK(result.err.find("not verified, in the file as a comment: pg-c") != std::string::npos);
  const auto config = config::load(file);
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  CHECK(config->pg[0].nodes.size() == 2);
  const auto text = test::read(file);
  CHECK(text.find("\n# [pg.main.nodes.pg-c]\n") != std::string::npos);
  if (geteuid() != 0) return;  // others do not see whose process it is
  const auto silent = cluster.lab().members()[2];
  CHECK_MESSAGE(text.find(fmt::format("\n# port = {}\n# data_dir = \"{}/pg-c/data\"", silent.port,
                                      cluster.lab().dir())) != std::string::npos,
                text);
}

TEST_CASE("a standby whose primary is dead leads nowhere, and the primary is named") {
  const Cluster cluster(2);
  cluster.kill("pg-a");
  const auto result = init(cluster, cluster.lab().conninfo("pg-b"));
  CHECK(result.exit == 7);
  const auto port = std::to_string(cluster.lab().members().front().port);
  CHECK_MESSAGE(result.err.find(":" + port + ": connection refused") != std::string::npos,
                result.err);
  CHECK(result.out.empty());
}

TEST_CASE("text of servers comes through as text") {
  const Cluster cluster;
  // pg-b keeps its cluster_name, pg-c has nothing left to be called by.
  add_settings(cluster, "pg-b", {{"primary_conninfo", hostile_conninfo(cluster, "pg-b")}});
  add_settings(cluster, "pg-c",
               {{"primary_conninfo", hostile_conninfo(cluster, "pg-c")},
                {"cluster_name", "c\"]\n[evil]\n主"}});
  CHECK(test::eventually([&] {
    return cluster.sql("pg-a",
                       "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
                       " AND application_name LIKE 'e\"v%il%'") == "2";
  }));
  cluster.sql("pg-a", "CREATE DATABASE \"引 ' \"\"号 [x]\"");
  cluster.sql("pg-a", "CREATE DATABASE \"two\nlines\"");

  const auto port = std::to_string(cluster.lab().members()[2].port);
  const auto file = cluster.beside("found.toml");
  const auto result = init(cluster, cluster.lab().conninfo("pg-a"), {"--write", file});
  REQUIRE_MESSAGE(result.exit == 0, result.err);
  CHECK(result.err.find("1 database with control characters") != std::string::npos);
  const auto config = config::load(file);
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  const auto& found = config->pg[0];
  REQUIRE(found.nodes.size() == 3);
  CHECK(found.node("pg-b") != nullptr);
  CHECK(found.node("pg-" + port) != nullptr);
  CHECK(std::find(found.databases.begin(), found.databases.end(), "引 ' \"号 [x]") !=
        found.databases.end());
  const auto text = test::read(file);
  CHECK(text.find("# It streams as \"e\\\"v") != std::string::npos);
  CHECK(text.find("\n[evil]") == std::string::npos);
  check_works(cluster, file);

  const auto json = init(cluster, cluster.lab().conninfo("pg-b"), {"-o", "json"});
  CHECK(test::json_of(json)["nodes"].size() == 3);
}

TEST_CASE("mistakes are told by their exit status") {
  const auto zx = [](const std::string& dsn) {
    return test::run_zx({"config", "init", "--dsn", dsn, "--timeout", "2s"});
  };
  for (const char* dsn : {"postgresql://zx:geheim@127.0.0.1:1/postgres",
                          "host=127.0.0.1 port=1 user=zx password=geheim"}) {
    CAPTURE(dsn);
    const auto result = zx(dsn);
    CHECK(result.exit == 2);
    CHECK(result.err.find("password") != std::string::npos);
    CHECK(result.err.find("PGPASSFILE") != std::string::npos);
    CHECK((result.out + result.err).find("geheim") == std::string::npos);
  }
  CHECK(zx("host=/var/run/postgresql").exit == 2);
  CHECK(zx("nonsense").exit == 2);
  CHECK(test::run_zx({"config", "init"}).exit == 2);

  const auto refused = zx("host=127.0.0.1 port=1 user=zx");
  CHECK(refused.exit == 7);
  CHECK(refused.err.find("hint: ") != std::string::npos);
  CHECK(zx("host=127.0.0.1,127.0.0.1 port=1,2").exit == 7);

  const Cluster cluster(1);
  const auto member = cluster.lab().members().front();
  const auto dsn = fmt::format("host={} port={} user=zx", member.host, member.port);
  const auto without = zx(dsn);
  CHECK(without.exit == 8);
  CHECK(without.err.find("hint: ") != std::string::npos);
  os::ProcessOptions wrong;
  wrong.environment = {{"PGPASSWORD", "geheim"}};
  const auto denied = test::run_zx({"config", "init", "--dsn", dsn}, wrong);
  CHECK(denied.exit == 8);
  CHECK(denied.err.find("geheim") == std::string::npos);
}

}  // namespace
}  // namespace zx
