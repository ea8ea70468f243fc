// `zx agent run` beside a test: its HTTP, its status, its end.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/net/http_client.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/execution.h"

namespace zx::test {

// Listens on a free port of loopback. The first one of a cluster also writes the [agent] table, for
// commands that speak with an agent.
class Agent {
 public:
  // `name`: empty for what zx.toml says, or the host's. `more`: variables of its environment;
  // `inside`: the command in front of it.
  explicit Agent(const Cluster& cluster, std::string name = {},
                 const std::vector<std::string>& more = {}, const os::Argv& inside = {})
      : cluster_(cluster),
        name_(std::move(name)),
        port_(free_ports(1).front()),
        mark_(fmt::format("ZX_TEST_AGENT={}-{}", getpid(), port_)) {
    if (read(cluster.config()).find("[agent]") == std::string::npos)
      write(cluster.config(),
            read(cluster.config()) + "\n[agent]\nlisten = \"" + address() + "\"\n");
    os::Argv argv{"/usr/bin/setpriv", "--pdeathsig", "KILL"};
    argv.insert(argv.end(), inside.begin(), inside.end());
    for (const auto& word : argv_of(cluster, {"agent", "run"})) argv.push_back(word);
    auto variables = name_variables();
    variables.insert(variables.end(),
                     {mark_, "HOME=/nonexistent", "ZX__AGENT__LISTEN=" + address()});
    variables.insert(variables.end(), more.begin(), more.end());
    program_ = std::make_unique<Background>(argv, variables);
    if (eventually([&] { return status_of("/readyz") == 200; })) return;
    program_->signal(SIGKILL);
    (void)program_->finish();
    FAIL(program_->output());
  }

  [[nodiscard]] std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] pid_t pid() const { return program_->pid(); }
  void signal(int number) const { program_->signal(number); }

  Result<net::HttpFetched> fetch(const std::string& path, const std::string& method = "GET") {
    net::HttpFetch request;
    request.method = method;
    request.url = "http://" + address() + path;
    return client_.fetch(request);
  }
  // 0: no answer.
  int status_of(const std::string& path) {
    const auto answer = fetch(path);
    return answer ? answer->status : 0;
  }
  std::string text(const std::string& path) {
    const auto answer = fetch(path);
    REQUIRE_MESSAGE(answer.has_value(), why(answer));
    return answer->body;
  }
  Json status() {
    const auto json = parse_json(text("/status"), "/status");
    REQUIRE(json.has_value());
    return *json;
  }
  // The only cluster of it.
  Json pg() { return status()["pg"][0]; }
  std::string primary() {
    const auto json = pg();
    return json["primary"].is_string() ? json["primary"].get<std::string>() : std::string();
  }
  // How often it has looked at a server.
  long looks() {
    for (const auto& line : lines_of(text("/metrics")))
      if (line.starts_with("zx_pg_looks_total")) return std::stol(line.substr(line.find(' ')));
    FAIL("no zx_pg_looks_total");
    return 0;
  }
  // Everything is as it should be, and nothing is left to do.
  bool becomes_healthy() {
    return eventually([&] {
      const auto json = pg();
      return json["verdict"] == "healthy" && json["primary"].is_string() && json["owed"].empty() &&
             json["at_work"].is_null();
    });
  }
  bool waits_because(const std::string& words) {
    return eventually([&] { return says(pg()["waits_because"], words); });
  }
  // zx -c LAB/zx.toml agent WORDS… to this agent.
  os::ProcessResult ask(std::vector<std::string> words) const {
    os::ProcessOptions options;
    if (!name_.empty()) options.environment.emplace_back("ZX__AGENT__NAME", name_);
    return cluster_.zx(std::move(words), options);
  }

  // SIGTERM: it must end well and leave nobody behind.
  void stop() {
    signal(SIGTERM);
    const int exit = finish();
    CHECK_MESSAGE(exit == 0, log());
    CHECK(left_behind().empty());
  }
  int finish() { return program_->finish(); }
  // What it logged; after its end.
  [[nodiscard]] const std::string& log() const { return program_->output(); }

 private:
  std::vector<std::string> name_variables() const {
    if (name_.empty()) return {};
    return {"ZX__AGENT__NAME=" + name_};
  }
  // Processes with its environment, but for the servers that it started.
  std::string left_behind() const {
    namespace fs = std::filesystem;
    std::string found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::ifstream file(entry.path() / "environ", std::ios::binary);
      std::ostringstream environment;
      environment << file.rdbuf();
      if (environment.str().find(mark_) == std::string::npos) continue;
      std::error_code gone;
      const auto program = fs::read_symlink(entry.path() / "exe", gone).filename().string();
      if (!gone && program != "postgres") found += entry.path().string() + " " + program + " ";
    }
    return found;
  }

  const Cluster& cluster_;
  std::string name_;
  int port_;
  std::string mark_;
  net::HttpClient client_;
  std::unique_ptr<Background> program_;
};

inline std::vector<Json> events_of(const Cluster& cluster, const std::string& kind = {}) {
  std::vector<Json> found;
  const auto all = cluster.zx_json({"agent", "events", "--most", "10000"});
  for (const auto& event : all["events"])
    if (kind.empty() || event["event"] == kind) found.push_back(event);
  return found;
}
inline bool has_event(const Cluster& cluster, const std::string& kind) {
  return !events_of(cluster, kind).empty();
}

inline std::vector<run::Record> failovers_in(const std::string& state_dir) {
  std::vector<run::Record> found;
  const auto runs = run::list_runs(state_dir, 1000);
  REQUIRE_MESSAGE(runs.has_value(), why(runs));
  for (const auto& run : runs->runs)
    if (run.plan.command == "failover pg") found.push_back(run);
  return found;
}
inline std::vector<run::Record> failovers(const Cluster& cluster) {
  return failovers_in(cluster.state_dir());
}

inline void coordinate_by(const Cluster& cluster, const EtcdServers& etcd) {
  set_policy(cluster, "flap_window", "\"1ms\"");
  set_policy(cluster, "probe_interval", "\"200ms\"");
  write(cluster.config(),
        read(cluster.config()) +
            fmt::format("\n[agent]\ncoordination = \"etcd\"\nlease = \"2s\"\netcd = [\"{}\"]\n",
                        etcd.endpoint(0)));
}

// An agent whose host has a state directory of its own.
class HostAgent {
 public:
  HostAgent(const Cluster& cluster, std::string name)
      : name_(std::move(name)),
        state_dir_(cluster.beside("state-" + name_)),
        cluster_(cluster),
        agent_(cluster, name_, {"ZX__PLATFORM__STATE_DIR=" + state_dir_}) {}
  [[nodiscard]] const std::string& name() const { return name_; }
  Agent* operator->() { return &agent_; }
  // zx -c LAB/zx.toml agent WORDS… on its host.
  os::ProcessResult ask(std::vector<std::string> words) const {
    os::ProcessOptions options;
    options.environment = {{"ZX__AGENT__NAME", name_}, {"ZX__PLATFORM__STATE_DIR", state_dir_}};
    return cluster_.zx(std::move(words), options);
  }
  bool leads() {
    return eventually([&] { return agent_.status()["role"] == "leader"; });
  }
  [[nodiscard]] std::vector<run::Record> failovers() const { return failovers_in(state_dir_); }
  [[nodiscard]] std::string newest_journal() const {
    const auto runs = failovers();
    if (runs.empty()) return {};
    return read(run::runs_directory(state_dir_) + "/" + runs.front().id + ".jsonl");
  }

 private:
  std::string name_, state_dir_;
  const Cluster& cluster_;
  Agent agent_;
};

// One node is writable, and the others stream from it again.
inline void check_served(const Cluster& cluster, const std::string& primary) {
  CHECK(cluster.writable() == only(primary));
  CHECK(all_stream_from(cluster, primary));
  CHECK(cluster.verdict() == "healthy");
}

}  // namespace zx::test
