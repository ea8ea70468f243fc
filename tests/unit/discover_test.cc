#include "lib/pg/discover.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/config/config.h"
#include "lib/config/render.h"
#include "tests/support.h"

namespace zx::pg {
namespace {

constexpr const char* kSystem = "7345000000000000001";

std::vector<std::string> texts(const std::vector<Endpoint>& endpoints) {
  std::vector<std::string> out;
  for (const auto& endpoint : endpoints) out.push_back(to_string(endpoint));
  return out;
}

using Texts = std::vector<std::string>;

// A server that answered at address:port. `started` makes it another one.
Sighting primary(const std::string& address, int port, std::int64_t started = 1'000) {
  Sighting s;
  s.at = {address, port, Source::given};
  s.failure = Failure::none;
  s.system_id = kSystem;
  s.started = started * 1'000'000;
  s.own_address = address;
  s.own_port = port;
  s.version = "15.18";
  s.version_number = 150018;
  s.user = "zx";
  s.is_monitor = true;
  s.data_dir = fmt::format("/data/{}", started);
  s.config_file = s.data_dir + "/postgresql.conf";
  return s;
}

Sighting standby(const std::string& address, int port, std::int64_t started,
                 const std::string& application_name, const std::string& upstream_host,
                 int upstream_port) {
  auto s = primary(address, port, started);
  s.is_standby = true;
  s.application_name = application_name;
  s.upstream_host = upstream_host;
  s.upstream_port = upstream_port;
  return s;
}

Sighting silent(const std::string& address, int port, Failure why, Source source = Source::given) {
  Sighting s;
  s.at = {address, port, source};
  s.failure = why;
  s.error.code = why == Failure::auth ? Code::auth : Code::unreachable;
  s.error.message = fmt::format(
      "connection to server at \"{}\", port {} failed: fe_sendauth: no "
      "password supplied",
      address, port);
  return s;
}

Postmaster postmaster(int port, std::int64_t started, const std::string& listen = "127.0.0.1") {
  return {fmt::format("/data/{}", started), listen, port, started, kSystem, "/opt/pg/bin", 101};
}

// An ordinary user on the host "box", who sees no postmaster.
Here here() { return {"box", {"127.0.0.1", "::1", "10.0.0.9"}, {}, false}; }

Here here_as_root(std::vector<Postmaster> postmasters) {
  auto h = here();
  h.sees_all = true;
  h.postmasters = std::move(postmasters);
  return h;
}

Discovery must_conclude(const std::vector<Sighting>& seen, const Here& h) {
  auto found = conclude(seen, h);
  REQUIRE_MESSAGE(found.has_value(), (found ? std::string() : found.error().message));
  return *std::move(found);
}

Error must_fail(const std::vector<Sighting>& seen, const Here& h) {
  const auto found = conclude(seen, h);
  REQUIRE(!found.has_value());
  return found.error();
}

Texts names(const Discovery& found) {
  Texts out;
  for (const auto& node : found.nodes) out.push_back(node.name);
  return out;
}

}  // namespace

TEST_CASE("a connection string names one server or several") {
  const auto one = read_dsn("host=db1 user=zx");
  REQUIRE(one.has_value());
  CHECK(texts(one->endpoints) == Texts{"db1:5432"});
  CHECK(one->as.user == "zx");
  CHECK(one->as.database == "postgres");

  const auto several = read_dsn("host=a,b,c port=1,,3 dbname=shop sslmode=require passfile=/p");
  REQUIRE(several.has_value());
  CHECK(texts(several->endpoints) == Texts{"a:1", "b:5432", "c:3"});
  CHECK(several->as.database == "shop");
  CHECK(several->as.sslmode == "require");
  CHECK(several->passfile == "/p");

  const auto uri = read_dsn(
      "postgresql://zx@db1:5433,[::1]:5434/shop?target_session_attrs=read-write&sslcert=/c");
  REQUIRE(uri.has_value());
  CHECK(texts(uri->endpoints) == Texts{"db1:5433", "[::1]:5434"});
  CHECK(uri->ignored == Texts{"sslcert"});
  CHECK(texts(read_dsn("host=a,b port=7")->endpoints) == Texts{"a:7", "b:7"});
  CHECK(texts(read_dsn("host=name hostaddr=10.0.0.1")->endpoints) == Texts{"10.0.0.1:5432"});
}

TEST_CASE("a connection string with a password is refused and never quoted") {
  for (const char* text : {"host=a password=geheim", "postgresql://zx:geheim@a/db",
                           "host=a sslpassword=geheim", "postgresql://zx@a/db?password=geheim",
                           "postgresql://zx:geheim@[broken", "host=a geheim"}) {
    CAPTURE(text);
    const auto dsn = read_dsn(text);
    REQUIRE(!dsn.has_value());
    CHECK(dsn.error().code == Code::usage);
    CHECK(!dsn.error().hint.empty());
    CHECK((dsn.error().message + dsn.error().hint).find("geheim") == std::string::npos);
  }
}

TEST_CASE("a connection string that leads to no address is a mistake of usage") {
  for (const char* text : {"", "user=zx", "host=/var/run/postgresql", "host=@abstract", "service=x",
                           "host=a,b port=1,2,3", "host=a port=0", "host=a port=65536",
                           "host=a port=x", "host=a, port=1,2"}) {
    CAPTURE(text);
    const auto dsn = read_dsn(text);
    REQUIRE(!dsn.has_value());
    CHECK(dsn.error().code == Code::usage);
  }
}

TEST_CASE("postmaster.pid tells directory, start, port and address") {
  const auto found =
      read_postmaster("77\n/data/a\n1700000000\n5433\n/run/pg\n*\n  1 2\nready   \n");
  REQUIRE(found.has_value());
  CHECK(found->data_dir == "/data/a");
  CHECK(found->started == 1'700'000'000);
  CHECK(found->port == 5433);
  CHECK(found->listen == "*");
  for (const char* text : {"", "77\n", "77\n/data/a\n17\nx\n\n*\n", "77\nrelative\n17\n5433\n\n*\n",
                           "77\n/a\tb\n17\n5433\n\n*\n", "77\n/data/a\n17\n99999\n\n*\n"}) {
    CAPTURE(text);
    CHECK(!read_postmaster(text).has_value());
  }
}

TEST_CASE("an answer is read, hostile text in it too") {
  Sighting s;
  s.at = {"10.0.0.2", 5432, Source::given};
  REQUIRE(read_sighting(R"({"recovery":true,"version":"15.18","version_number":150018,
      "system_id":"7","started":5000000,"address":"10.0.0.2","port":5432,"user":"zx",
      "cluster_name":"15/main","is_monitor":true,"data_directory":"/data\n/evil",
      "config_file":"/etc/x",
      "conninfo":"host=h1 port=6 application_name='e\"v\\'\nil 主库' password=geheim",
      "slot":"s","receiver":null,"peers":[{"application_name":"x\u001b[31m","client_address":null,
      "slot":null,"user":"replicator"}],"databases":["a","b\nc","引 '号\"",null]})",
                        s)
              .has_value());
  CHECK(s.is_standby);
  CHECK(s.data_dir.empty());
  CHECK(s.upstream_host == "h1");
  CHECK(s.upstream_port == 6);
  CHECK(s.application_name.starts_with("e\"v"));
  CHECK(std::all_of(s.application_name.begin(), s.application_name.end(),
                    [](char c) { return c >= 32 && c <= 126; }));
  CHECK(s.databases == Texts{"a", "引 '号\""});
  CHECK(s.hidden_databases == 2);
  REQUIRE(s.peers.size() == 1);
  CHECK(s.peers[0].client_address.empty());

  // A receiver that runs says it better than the setting.
  REQUIRE(read_sighting(R"({"recovery":true,"cluster_name":"pg-b","conninfo":"host=h1",
      "receiver":{"host":"h2","port":7}})",
                        s)
              .has_value());
  CHECK(s.upstream_host == "h2");
  CHECK(s.application_name == "pg-b");
  REQUIRE(
      read_sighting(R"({"recovery":true,"cluster_name":"","conninfo":"host=h1"})", s).has_value());
  CHECK(s.application_name == "walreceiver");
  REQUIRE(
      read_sighting(R"({"recovery":true,"cluster_name":"pg-b","conninfo":null})", s).has_value());
  CHECK(s.application_name.empty());

  for (const char* text : {"", "{}", "[]", "{\"recovery\":1}", "\xFF"}) {
    CAPTURE(text);
    CHECK(!read_sighting(text, s).has_value());
  }
}

TEST_CASE("a standby leads to its primary, the primary to its standbys at its own port") {
  const auto b = standby("10.0.0.2", 5432, 2, "pg-b", "10.0.0.1", 5433);
  CHECK(texts(next_endpoints({b}, here())) == Texts{"10.0.0.1:5433"});

  auto a = primary("10.0.0.1", 5433);
  a.peers = {{"pg-b", "10.0.0.2", "", "repl"}, {"pg-c", "10.0.0.3", "", "repl"}};
  CHECK(texts(next_endpoints({b, a}, here())) == Texts{"10.0.0.3:5433", "10.0.0.3:5432"});

  const auto c = silent("10.0.0.3", 5433, Failure::refused, Source::peer);
  const auto d = silent("10.0.0.3", 5432, Failure::refused, Source::peer);
  CHECK(next_endpoints({b, a, c, d}, here()).empty());
}

TEST_CASE("an address that is good on the standby's host only is replaced by that host's") {
  for (const char* host : {"127.0.0.1", "localhost", "/var/run/postgresql", ""}) {
    CAPTURE(host);
    const auto b = standby("10.0.0.2", 5432, 2, "pg-b", host, 5433);
    CHECK(texts(next_endpoints({b}, here())) == Texts{"10.0.0.2:5433"});
  }
  auto a = primary("10.0.0.1", 5433);
  a.peers = {{"pg-b", "127.0.0.1", "", ""}, {"pg-c", "", "", ""}};
  CHECK(next_endpoints({a}, here()).empty());  // its own port, which is known
  const auto other = standby("10.0.0.1", 5434, 2, "pg-b", "127.0.0.1", 5433);
  CHECK(next_endpoints({a, other}, here()).empty());
}

TEST_CASE("standbys of this host are found by their postmasters") {
  auto a = primary("127.0.0.1", 5433, 1'000);
  a.peers = {{"pg-b", "127.0.0.1", "", ""}};
  auto foreign = postmaster(6000, 3);
  foreign.system_id = "8";
  auto of_another_user = postmaster(6001, 4);
  of_another_user.uid = 102;
  const auto h = here_as_root({postmaster(5433, 1'000), postmaster(5434, 2'000, "*"),
                               postmaster(5435, 2'100, ""), foreign, of_another_user});
  CHECK(texts(next_endpoints({a}, h)) == Texts{"127.0.0.1:5434"});
  CHECK(next_endpoints({a}, here()).empty());

  auto far = primary("10.0.0.1", 5432);
  far.peers = {{"pg-b", "10.0.0.9", "", ""}};
  CHECK(texts(next_endpoints({far}, here_as_root({postmaster(5434, 2'000, "*")}))) ==
        Texts{"10.0.0.9:5434"});
}

TEST_CASE("a server behind a tunnel or a proxy is asked where it says it is") {
  auto a = primary("127.0.0.1", 15432);
  a.own_address = "172.17.0.2";
  a.own_port = 5432;
  CHECK(texts(next_endpoints({a}, here())) == Texts{"172.17.0.2:5432"});
  const auto alone = must_conclude({a}, here());
  CHECK(alone.nodes[0].where == FoundNode::Where::hidden);

  auto direct = primary("172.17.0.2", 5432);
  direct.at.source = Source::itself;
  const auto found = must_conclude({a, direct}, here());
  REQUIRE(found.nodes.size() == 1);
  CHECK(to_string(found.nodes[0].at) == "172.17.0.2:5432");
  CHECK(found.nodes[0].where == FoundNode::Where::elsewhere);
}

TEST_CASE("for root a server is on this host only when its postmaster is seen") {
  const auto a = primary("127.0.0.1", 5433, 1'000);
  CHECK(must_conclude({a}, here()).nodes[0].where == FoundNode::Where::here);
  CHECK(must_conclude({a}, here_as_root({})).nodes[0].where == FoundNode::Where::hidden);
  CHECK(must_conclude({a}, here_as_root({postmaster(5433, 900'000)})).nodes[0].where ==
        FoundNode::Where::hidden);
  const auto found = must_conclude({a}, here_as_root({postmaster(5433, 999)}));
  CHECK(found.nodes[0].where == FoundNode::Where::here);
  CHECK(found.nodes[0].host == "box");
  CHECK(found.bin_dir == "/opt/pg/bin");
}

TEST_CASE("when the cluster is spread a loopback address gives way to one that others know") {
  auto a = primary("localhost", 5432);
  a.own_address = "127.0.0.1";
  auto b = standby("10.0.0.2", 5432, 2, "pg-b", "10.0.0.9", 5432);
  CHECK(must_conclude({a}, here()).nodes[0].at.address == "127.0.0.1");
  CHECK(texts(next_endpoints({a, b}, here())) == Texts{"10.0.0.9:5432"});
  auto again = primary("10.0.0.9", 5432);
  const auto found = must_conclude({a, b, again}, here());
  REQUIRE(found.nodes.size() == 2);
  CHECK(to_string(found.nodes[0].at) == "10.0.0.9:5432");
  CHECK(found.nodes[0].where == FoundNode::Where::here);

  // The same for a standby that the string named by a loopback address.
  auto local = standby("127.0.0.1", 5434, 3, "pg-c", "10.0.0.1", 5432);
  auto far = primary("10.0.0.1", 5432);
  far.peers = {{"pg-c", "10.0.0.9", "", ""}};
  CHECK(texts(next_endpoints({local, far}, here())) == Texts{"10.0.0.9:5434"});
}

TEST_CASE("what a server says of its standbys is not followed without end") {
  auto a = primary("10.0.0.1", 5432);
  for (int i = 0; i < 1000; ++i)
    a.peers.push_back({"x", fmt::format("10.1.{}.{}", i / 250, i % 250), "", ""});
  std::vector<Sighting> seen{a};
  const auto next = next_endpoints(seen, here());
  CHECK(next.size() < 100);
  for (const auto& endpoint : next) {
    seen.push_back(silent(endpoint.address, endpoint.port, Failure::refused, Source::peer));
  }
  CHECK(next_endpoints(seen, here()).empty());
  const auto found = must_conclude(seen, here());
  CHECK(!found.left_out.empty());
}

TEST_CASE("nodes are named by what they call themselves, if that tells them apart") {
  auto a = primary("db-1.example", 5432, 1);
  auto b = standby("10.0.0.2", 5432, 2, "walreceiver", "db-1.example", 5432);
  auto c = standby("10.0.0.3", 5432, 3, "pg-c", "db-1.example", 5432);
  a.peers = {{"walreceiver", "10.0.0.2", "", "repl"}, {"pg-c", "10.0.0.3", "", "repl"}};
  const auto found = must_conclude({b, a, c}, here());
  CHECK(names(found) == Texts{"db-1", "pg-10-0-0-2", "pg-c"});
  CHECK(found.nodes[0].role == Role::primary);
  CHECK(found.nodes[0].host == "db-1");
  CHECK(found.nodes[1].host == "host-10-0-0-2");
  CHECK(found.replication_user == "repl");
  CHECK(found.unverified.empty());

  for (auto* s : {&a, &b, &c}) {
    s->cluster_name = "15/main";
    if (s->is_standby) s->application_name = "15/main";
  }
  CHECK(names(must_conclude({a, b, c}, here())) == Texts{"db-1", "pg-10-0-0-2", "pg-10-0-0-3"});
  for (auto* s : {&a, &b, &c}) s->cluster_name = "shop";
  CHECK(names(must_conclude({a, b, c}, here())) == Texts{"db-1", "pg-10-0-0-2", "pg-10-0-0-3"});
  b.cluster_name = "pg_c";  // its slot would be that of pg-c
  c.cluster_name = c.application_name = "pg-c";
  CHECK(names(must_conclude({a, b, c}, here())) == Texts{"shop", "pg-c-2", "pg_c"});
  c.cluster_name = c.application_name = "'; rm -rf \"主";
  CHECK(names(must_conclude({a, b, c}, here())) == Texts{"shop", "pg-10-0-0-3", "pg_c"});

  auto d = standby("127.0.0.1", 5434, 4, "", "127.0.0.1", 5433);
  auto e = primary("127.0.0.1", 5433, 5);
  CHECK(names(must_conclude({d, e}, here())) == Texts{"pg-5433", "pg-5434"});
}

TEST_CASE("a standby that was not found is named with the reason") {
  auto a = primary("10.0.0.1", 5432);
  a.peers = {
      {"pg-b", "10.0.0.2", "", ""}, {"pg-c", "10.0.0.3", "", ""}, {"x\"\n主", "10.0.0.4", "", ""}};
  const auto b = standby("10.0.0.2", 5432, 2, "pg-b", "10.0.0.1", 5432);
  const auto found = must_conclude({a, b, silent("10.0.0.3", 6000, Failure::refused),
                                    silent("10.0.0.4", 5432, Failure::auth, Source::peer)},
                                   here());
  CHECK(names(found) == Texts{"pg-10-0-0-1", "pg-b"});
  REQUIRE(found.unverified.size() == 2);
  CHECK(found.unverified[0].name == "pg-c");
  CHECK(found.unverified[0].port == 6000);  // as the person said
  CHECK(found.unverified[0].why == "10.0.0.3:6000: connection refused");
  CHECK(found.unverified[1].name == "standby");
  CHECK(found.unverified[1].port == 0);
  CHECK(found.unverified[1].why == "10.0.0.4:5432: fe_sendauth: no password supplied");

  a.peers.clear();
  const auto silent_one = must_conclude({a, silent("10.0.0.3", 6000, Failure::refused)}, here());
  REQUIRE(silent_one.unverified.size() == 1);
  CHECK(silent_one.unverified[0].name == "pg-10-0-0-3");
}

TEST_CASE("slots tell standbys apart that have one name and one address") {
  auto a = primary("127.0.0.1", 5432, 1);
  a.peers = {{"walreceiver", "127.0.0.1", "s1", ""}, {"walreceiver", "127.0.0.1", "s2", ""}};
  auto b = standby("127.0.0.1", 5433, 2, "walreceiver", "127.0.0.1", 5432);
  b.slot = "s2";
  const auto found = must_conclude({a, b}, here());
  REQUIRE(found.unverified.size() == 1);
  CHECK(found.nodes[1].is_fed);
  auto c = standby("127.0.0.1", 5434, 3, "walreceiver", "127.0.0.1", 5432);
  c.slot = "s1";
  CHECK(must_conclude({a, b, c}, here()).unverified.empty());
  auto d = standby("127.0.0.1", 5435, 4, "pg-d", "", 0);
  CHECK(!must_conclude({a, b, c, d}, here()).nodes[3].is_fed);
}

TEST_CASE("a cascade is one cluster") {
  auto a = primary("10.0.0.1", 5432, 1);
  a.peers = {{"pg-b", "10.0.0.2", "", "repl"}};
  auto b = standby("10.0.0.2", 5432, 2, "pg-b", "10.0.0.1", 5432);
  b.peers = {{"pg-c", "10.0.0.3", "", "repl"}};
  const auto c = standby("10.0.0.3", 5432, 3, "pg-c", "10.0.0.2", 5432);
  CHECK(texts(next_endpoints({c}, here())) == Texts{"10.0.0.2:5432"});
  CHECK(texts(next_endpoints({c, b}, here())) == Texts{"10.0.0.1:5432"});
  CHECK(next_endpoints({c, b, a}, here()).empty());
  const auto found = must_conclude({c, b, a}, here());
  CHECK(names(found) == Texts{"pg-10-0-0-1", "pg-b", "pg-c"});
  CHECK(found.unverified.empty());
}

TEST_CASE("what is not one cluster with one primary is refused") {
  const auto a = primary("10.0.0.1", 5432, 1);
  auto other = primary("10.0.0.2", 5432, 2);
  const auto two = must_fail({a, other}, here());
  CHECK(two.code == Code::refused);
  CHECK(two.message.find("10.0.0.2:5432") != std::string::npos);
  other.system_id = "8";
  CHECK(must_fail({a, other}, here()).code == Code::refused);

  // A copy of the cluster on this host that nobody named.
  auto copy = primary("127.0.0.1", 5444, 3);
  copy.at.source = Source::here;
  const auto found = must_conclude({a, copy}, here());
  CHECK(found.nodes.size() == 1);
  CHECK(found.left_out.size() == 1);
}

TEST_CASE("without a primary the reason is that of the server which is followed") {
  auto b = standby("10.0.0.2", 5432, 2, "pg-b", "10.0.0.1", 5432);
  const auto dead = silent("10.0.0.1", 5432, Failure::refused, Source::upstream);
  const auto error = must_fail({b, dead}, here());
  CHECK(error.code == Code::unreachable);
  CHECK(error.message ==
        "the server that 10.0.0.2:5432 follows does not answer: 10.0.0.1:5432: connection refused");
  CHECK(must_fail({b, silent("10.0.0.1", 5432, Failure::auth, Source::upstream)}, here()).code ==
        Code::auth);
  b.upstream_port = 0;
  CHECK(must_fail({b}, here()).code == Code::unreachable);
  b.is_monitor = false;
  CHECK(must_fail({b}, here()).code == Code::auth);

  const auto none = must_fail({silent("10.0.0.1", 1, Failure::auth), dead}, here());
  CHECK(none.code == Code::auth);
  CHECK(none.trail == Texts{"10.0.0.1:5432: connection refused"});
  CHECK(!none.hint.empty());
}

TEST_CASE("remarks are comments, whatever is in them") {
  config::Config config;
  config.hosts.push_back({"box", "10.0.0.9", "", "", std::nullopt, "zx"});
  config::PgCluster cluster;
  cluster.name = "main";
  cluster.nodes.push_back({"pg-a", "box", 5432, "/data", "", "", {}, {}, 100, false});
  config.pg.push_back(cluster);
  config::Remarks remarks;
  const std::string hostile = "one\n[evil]\n\nname = \"主\"\r\x1b[31m\xFF";
  remarks.head = remarks.tail = hostile;
  for (const char* key : {"hosts.box", "hosts.box.remote", "pg.main.nodes.pg-a.data_dir",
                          "platform.environment", "pg.main.password_file"})
    remarks.at[key] = hostile + key;
  const auto text = config::render(config, remarks);
  const auto read = config::load_text(text, "/x/zx.toml");
  REQUIRE_MESSAGE(read.has_value(), (read ? std::string() : read.error().message));
  CHECK(read->hosts == config.hosts);
  CHECK(read->pg == config.pg);
  CHECK(text.find("\n# [evil]\n#\n# name = \"主\"") != std::string::npos);
  CHECK(text.find("hosts.box.remote") != std::string::npos);
  CHECK(text.find("pg.main.password_file\n") < text.find("[pg.main.nodes.pg-a]"));
}

}  // namespace zx::pg
