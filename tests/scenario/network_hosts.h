// Each server, an agent and etcd on a host of its own: a network namespace on a bridge. Tests and
// clients are at the bridge itself, which no cut concerns.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/scenario/agent.h"

namespace zx::test {

class Network {
 public:
  // The first three are the servers'.
  static constexpr const char* kHosts[] = {"pg-a", "pg-b", "pg-c", "agent", "etcd"};

  Network() {
    if (geteuid() != 0 || !os::exists(kIp)) return;
    // The bridge's name is the claim to its addresses: of two tests one makes it.
    for (int tries = 0; tries < kNets && name_.empty(); ++tries) {
      const int net = (getpid() + tries) % kNets;
      const auto name = fmt::format("zx{}", net);
      if (!ip("link add " + name + " type bridge")) continue;
      name_ = name;
      net_ = fmt::format("10.215.{}", net);
    }
    made_ = !name_.empty() && ip("addr add " + net_ + ".254/24 dev " + name_) &&
            ip("link set " + name_ + " up");
    for (const auto* host : kHosts) made_ = made_ && add(host);
  }
  ~Network() {
    if (name_.empty()) return;
    for (const auto* host : kHosts) {
      (void)ip("link del " + space(host));
      (void)ip("netns del " + space(host));
    }
    (void)ip("link del " + name_);
  }
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  [[nodiscard]] bool is_there() const { return made_; }
  [[nodiscard]] const std::string& bridge() const { return name_; }
  [[nodiscard]] std::string space(const std::string& host) const { return name_ + "-" + host; }
  [[nodiscard]] std::string address(const std::string& host) const {
    const auto at = std::find(std::begin(kHosts), std::end(kHosts), host) - std::begin(kHosts);
    return fmt::format("{}.{}", net_, at + 1);
  }
  [[nodiscard]] os::Argv on(const std::string& host, const os::Argv& words) const {
    os::Argv argv{kIp, "netns", "exec", space(host), "/usr/bin/setpriv", "--pdeathsig", "KILL"};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  }
  static bool ip(const std::string& words) {
    return run_program(split(std::string(kIp) + " " + words, ' ')).ok();
  }

  // What `from` sends to `to` goes to a machine that is not there; nobody is told.
  void cut(const std::string& from, const std::string& to) const {
    REQUIRE(ip(fmt::format("-n {} neigh replace {} lladdr 02:00:00:00:00:01 nud permanent dev eth0",
                           space(from), address(to))));
  }
  void mend(const std::string& from, const std::string& to) const {
    REQUIRE(ip(fmt::format("-n {} neigh del {} dev eth0", space(from), address(to))));
  }

 private:
  static constexpr const char* kIp = "/usr/sbin/ip";
  static constexpr int kNets = 250;
  [[nodiscard]] bool add(const std::string& host) const {
    const auto inner = space(host);
    return ip("netns add " + inner) &&
           ip(fmt::format("link add {0} type veth peer name eth0 netns {0}", inner)) &&
           ip(fmt::format("link set {} master {} up", inner, name_)) &&
           ip("-n " + inner + " link set lo up") &&
           ip(fmt::format("-n {} addr add {}/24 dev eth0", inner, address(host))) &&
           ip("-n " + inner + " link set eth0 up");
  }

  std::string name_, net_;
  bool made_ = false;
};

// Three servers with synchronous standbys, one agent that decides, a guard beside each server.
class Hosts {
 public:
  explicit Hosts(const Network& network)
      : network_(network), addresses_(network), cluster_(addresses_.list) {
    // Built where all three addresses are; from now on each server is on its own host.
    REQUIRE(lab::down(cluster_.lab().dir(), false).has_value());
    addresses_.away();
    for (const auto& name : servers()) {
      const auto started = run_program(
          network_.on(name, {ZX_BINARY, "lab", "start", name, "--dir", cluster_.lab().dir()}));
      REQUIRE_MESSAGE(started.ok(), (started.out + started.err));
    }
    start_etcd();
    write_reach();
    for (const auto& name : servers()) start(name, config_of(name));
    write(cluster_.config(), config_of("agent"));
    start("agent", read(cluster_.config()));
    REQUIRE(eventually([&] { return get(server("agent") + "/readyz").status == 200; }));
    cluster_.sql("pg-a", "CREATE TABLE zx_witness (node int, n bigint)", kDatabase);
    make_synchronous();
  }

  [[nodiscard]] const Cluster& cluster() const { return cluster_; }
  [[nodiscard]] static std::vector<std::string> servers() { return {"pg-a", "pg-b", "pg-c"}; }
  [[nodiscard]] static std::vector<std::string> others_than(const std::string& name) {
    auto names = servers();
    std::erase(names, name);
    return names;
  }

  // By the word of the agent on that host, asked from the bridge; null: no answer.
  [[nodiscard]] Json status(const std::string& host = "agent") const {
    const auto json = parse_json(get(server(host) + "/status").body, "/status");
    return json ? *json : Json();
  }
  [[nodiscard]] std::string primary() const {
    const auto json = status();
    if (json.is_null() || !json["pg"][0]["primary"].is_string()) return {};
    return json["pg"][0]["primary"].get<std::string>();
  }
  // One primary, both others stream from it and are synchronous, nothing is left to do.
  [[nodiscard]] bool becomes_whole() const {
    return eventually([&] {
      const auto json = status();
      if (json.is_null()) return false;
      const auto& pg = json["pg"][0];
      if (pg["verdict"] != "healthy" || !pg["primary"].is_string() || !pg["owed"].empty() ||
          !pg["at_work"].is_null() || json["role"] != "leader")
        return false;
      // The agent has seen it: what it knew last of a primary that is cut off is what it goes by.
      for (const auto& node : pg["nodes"])
        if (node["name"] == pg["primary"] &&
            std::count_if(node["replication"].begin(), node["replication"].end(),
                          [](const auto& one) { return one["sync_state"] == "quorum"; }) != 2)
          return false;
      const auto result = psql(cluster_.lab(), pg["primary"].get<std::string>(),
                               "SELECT count(*) FROM pg_stat_replication"
                               " WHERE state = 'streaming' AND sync_state = 'quorum'");
      return result.ok() && trim(result.out) == "2";
    });
  }
  // A client of each server that commits all the time: two that acknowledge end it.
  [[nodiscard]] std::unique_ptr<Background> witness() const {
    os::Argv argv{ZX_WITNESS};
    for (const auto& name : servers())
      argv.push_back(cluster_.lab().conninfo(name, kDatabase) + " tcp_user_timeout=2000");
    auto program = std::make_unique<Background>(argv);
    program->wait_for("watching\n");
    return program;
  }
  static void check(Background& witness) {
    witness.signal(SIGTERM);
    const int exit = witness.finish();
    CHECK_MESSAGE(exit == 0, witness.output());
    CHECK(witness.output().find("\"writes\": 0,") == std::string::npos);
  }
  // A client leaves a server that says nothing.
  [[nodiscard]] std::unique_ptr<Writer> writer() const {
    return std::make_unique<Writer>(cluster_.dsn() + " tcp_user_timeout=1000", 5);
  }

 private:
  static constexpr const char* kDatabase = "zhi_xuan_inventory";

  // All of them on the bridge, as long as the lab is built.
  struct Addresses {
    explicit Addresses(const Network& network) : bridge(network.bridge()) {
      for (const auto& name : servers()) {
        list.push_back(network.address(name));
        REQUIRE(Network::ip(fmt::format("addr add {}/32 dev {}", list.back(), bridge)));
      }
    }
    void away() const {
      for (const auto& one : list)
        REQUIRE(Network::ip(fmt::format("addr del {}/32 dev {}", one, bridge)));
    }
    std::string bridge;
    std::vector<std::string> list;
  };

  [[nodiscard]] std::string server(const std::string& host) const {
    return "http://" + network_.address(host) + ":9180";
  }
  static net::HttpFetched get(const std::string& url) {
    net::HttpFetch request;
    request.url = url;
    const auto answer = net::HttpClient().fetch(request);
    return answer ? *answer : net::HttpFetched{};
  }
  void start_etcd() {
    const auto client = "http://" + network_.address("etcd") + ":2379";
    const auto peer = "http://" + network_.address("etcd") + ":2380";
    etcd_ = std::make_unique<Background>(network_.on("etcd", {"/usr/bin/etcd",
                                                              "--name",
                                                              "m",
                                                              "--data-dir",
                                                              cluster_.beside("etcd"),
                                                              "--log-level",
                                                              "error",
                                                              "--listen-client-urls",
                                                              client,
                                                              "--advertise-client-urls",
                                                              client,
                                                              "--listen-peer-urls",
                                                              peer,
                                                              "--initial-advertise-peer-urls",
                                                              peer,
                                                              "--initial-cluster",
                                                              "m=" + peer,
                                                              "--heartbeat-interval",
                                                              "50",
                                                              "--election-timeout",
                                                              "500"}));
    REQUIRE(
        eventually([&] { return get(client + "/health").body.find("true") != std::string::npos; }));
  }
  // As ssh is: nothing comes to a host that cannot be reached, and it takes as long to know.
  void write_reach() const {
    const auto path = cluster_.beside("reach");
    write(path, R"(#!/usr/bin/env bash
words=$({ exec 3<> "/dev/tcp/$2/22"; } 2>&1) || [[ $words == *refused* ]] || { echo "$words" >&2; exit 255; }
exec /usr/sbin/ip netns exec "$1" "${@:3}"
)");
    REQUIRE(chmod(path.c_str(), 0755) == 0);
  }
  // As zx.toml is on that host.
  [[nodiscard]] std::string config_of(const std::string& host) {
    if (lab_config_.empty()) lab_config_ = read(cluster_.config());
    std::string text;
    std::string table;
    for (const auto& line : lines_of(lab_config_)) {
      if (line.starts_with('[')) table = line;
      if (line.starts_with("state_dir"))
        text +=
            fmt::format("state_dir = \"{}\"\n",
                        host == "agent" ? cluster_.state_dir() : cluster_.beside("state-" + host));
      else if (line == "remote = []")
        text += remote_of("pg-" + table.substr(table.size() - 2, 1), host);
      else
        text += line + "\n";
    }
    const bool decides = host == "agent";
    text += fmt::format(R"(
[pg.main.policy]
automatic = {}
probe_interval = "200ms"
probe_deadline = "500ms"
silent_after = "700ms"
fence_deadline = "2s"
rejoin = "rewind"
flap_window = "1ms"

[agent]
name = "{}"
listen = "{}:9180"
coordination = "etcd"
lease = "2s"
etcd = ["http://{}:2379"]
)",
                        decides, host, network_.address(host), network_.address("etcd"));
    if (!decides) text += fmt::format("guard = [\"{}\"]\n", host);
    return text;
  }
  [[nodiscard]] std::string remote_of(const std::string& node, const std::string& host) const {
    const auto program = fmt::format("program = \"{}\"\n", ZX_BINARY);
    if (node == host) return "remote = []\n" + program;
    return fmt::format("remote = [\"{}\", \"{}\", \"{{address}}\"]\n", cluster_.beside("reach"),
                       network_.space(node)) +
           program;
  }
  void start(const std::string& host, const std::string& config) {
    const auto path = cluster_.beside(host + ".toml");
    write(path, config);
    agents_[host] =
        std::make_unique<Background>(network_.on(host, {ZX_BINARY, "-c", path, "agent", "run"}),
                                     std::vector<std::string>{"HOME=/nonexistent"});
  }
  void make_synchronous() const {
    REQUIRE(eventually([&] { return primary() == "pg-a"; }));
    cluster_.sql("pg-a",
                 "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (\"pg-b\",\"pg-c\")'");
    cluster_.sql("pg-a", "SELECT pg_reload_conf()");
  }

  const Network& network_;
  Addresses addresses_;
  Cluster cluster_;
  std::string lab_config_;
  std::unique_ptr<Background> etcd_;
  std::map<std::string, std::unique_ptr<Background>> agents_;
};

}  // namespace zx::test
