// What an agent must withstand: a wrong configuration, a second agent, its own end, a full disk.
#include <sys/mount.h>

#include "tests/scenario/agent.h"
#include "tests/unit/http_client.h"

namespace zx {
namespace {

using test::Agent;
using test::Cluster;
using test::Writer;

TEST_CASE("a wrong zx.toml is refused whole and the old one goes on") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto good = test::read(cluster.config());
  const auto bad = good + "\n[pg.main.policy]\nprobe_interval = \"soon\"\n";
  const auto line = fmt::format(":{}", test::lines_of(bad).size());
  test::write(cluster.config(), bad);
  const auto refused = cluster.zx({"agent", "reload"});
  CHECK(refused.exit == 6);
  CHECK_MESSAGE(refused.err.find(line) != std::string::npos, refused.err);
  agent.signal(SIGHUP);
  REQUIRE(test::eventually([&] { return agent.status()["reload_error"] != ""; }));
  const auto error = agent.status()["reload_error"].get<std::string>();
  CHECK_MESSAGE(error.find(line) != std::string::npos, error);
  CHECK(agent.status()["reloads"] == 0);
  CHECK(agent.text("/metrics").find("zx_agent_config_reload_successful 0") != std::string::npos);

  // What others find it by is read at the start only.
  test::write(cluster.config(), good + "lease = \"7s\"\n");
  const auto agents = cluster.zx({"agent", "reload"});
  CHECK(agents.exit == 6);
  CHECK(agents.err.find("read at the start only") != std::string::npos);

  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] {
    const auto now = agent.primary();
    return !now.empty() && now != "pg-a";
  }));
  REQUIRE(agent.becomes_healthy());
  test::write(cluster.config(), good);
  for (int i = 0; i < 3; ++i) {
    const auto reloaded = cluster.zx({"agent", "reload"});
    CHECK(reloaded.exit == 0);
    CHECK(reloaded.out == "reloaded " + cluster.config() + "\n");
  }
  CHECK(agent.status()["reload_error"] == "");
  CHECK(agent.status()["reloads"] == 3);
  test::check_served(cluster, agent.primary());
  agent.stop();
}

struct Uses {
  long rss_kib = 0, files = 0;
};
Uses uses_of(pid_t pid) {
  Uses uses;
  for (const auto& line : test::lines_of(test::read(fmt::format("/proc/{}/status", pid))))
    if (line.starts_with("VmRSS:")) uses.rss_kib = std::stol(line.substr(6));
  const auto files = std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid));
  uses.files = std::distance(begin(files), end(files));
  return uses;
}

// Nobody reads what it logs meanwhile, and that is more than a pipe holds.
TEST_CASE("a thousand reloads disturb neither a client nor a load balancer, and cost nothing") {
  constexpr int kReloads = 1000, kWarm = 200, kBadEvery = 100, kLookEvery = 20;
  Cluster cluster;
  test::set_policy(cluster, "probe_interval", "\"400ms\"");
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  Writer writer(cluster);
  int refused = 0;
  Uses warm;
  for (int i = 0; i < kReloads; ++i) {
    const auto good = test::read(cluster.config());
    if (i % kBadEvery == kBadEvery / 2) {
      test::write(cluster.config(), good + "\n[pg.main\n");
      agent.signal(SIGHUP);
      REQUIRE(test::eventually([&] { return agent.status()["reload_error"] != ""; }));
      test::write(cluster.config(), good);
    }
    cluster.edit_config(i % 2 == 0 ? "400ms" : "300ms", i % 2 == 0 ? "300ms" : "400ms");
    const auto seen = agent.pg()["nodes"][0]["seen_at"];
    agent.signal(SIGHUP);
    // Each is a new look at all servers; who asks meanwhile must not be told that there is none.
    // The next one waits for a look: faster than that nobody could know who is the primary.
    const auto reloaded = [&] {
      if (agent.status_of("/pg/pg-a/primary") != 200) ++refused;
      const auto status = agent.status();
      return status["reloads"] == i + 1 &&
             (i % kLookEvery != 0 || status["pg"][0]["nodes"][0]["seen_at"] != seen);
    };
    const auto until = Deadline::after(test::kPatience);
    while (!reloaded()) {
      REQUIRE_FALSE(until.passed());
      pause_for(Millis(4));
    }
    if (i + 1 == kWarm) {
      REQUIRE(agent.becomes_healthy());
      warm = uses_of(agent.pid());
    }
  }
  CHECK(refused == 0);
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.status()["reload_error"] == "");
  const auto now = uses_of(agent.pid());
  CHECK(now.rss_kib - warm.rss_kib < 4096);
  // Looks open a connection now and then, so a few come and go.
  CHECK(now.files - warm.files <= 8);
  CHECK(agent.status_of("/readyz") == 200);
  CHECK(test::failovers(cluster).empty());
  CHECK(test::timeline_of(cluster, "pg-a") == 1);
  CHECK(test::events_of(cluster, "failed").size() == kReloads / kBadEvery);
  CHECK(test::events_of(cluster, "detected").empty());
  CHECK(test::events_of(cluster, "reloaded").size() == kReloads);
  const auto report = writer.finish();
  CHECK(report.errors == 0);
  CHECK(report.lost == 0);

  test::set_policy(cluster, "automatic", "false");
  CHECK(cluster.zx({"agent", "reload"}).exit == 0);
  REQUIRE(test::eventually([&] { return agent.pg()["automatic"] == false; }));
  cluster.kill("pg-a");
  CHECK(agent.waits_because("automatic is off"));
  CHECK(test::failovers(cluster).empty());
  agent.stop();
}

// The pid of the session that an agent has held longest.
std::string held_session(const Cluster& cluster, const std::string& node) {
  return cluster.sql(node,
                     "SELECT pid FROM pg_stat_activity WHERE application_name = 'zx' "
                     "ORDER BY backend_start LIMIT 1");
}

TEST_CASE("a reload that lets it look sooner keeps its connections, and what it knows meanwhile") {
  Cluster cluster;
  test::set_policy(cluster, "probe_interval", "\"8s\"");
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto before = held_session(cluster, "pg-b");
  CHECK_FALSE(before.empty());
  const auto old = agent.pg()["nodes"][0]["seen_at"];
  cluster.edit_config("\"8s\"", "\"200ms\"");
  agent.signal(SIGHUP);
  bool was_refused = false;
  REQUIRE(test::eventually([&] {
    was_refused = was_refused || agent.status_of("/pg/pg-a/primary") != 200 ||
                  agent.status_of("/readyz") != 200;
    const auto status = agent.status();
    return status["reloads"] == 1 && status["pg"][0]["nodes"][0]["seen_at"] != old;
  }));
  CHECK_FALSE(was_refused);
  CHECK(held_session(cluster, "pg-b") == before);
  REQUIRE(agent.becomes_healthy());
  agent.stop();
}

// As many as the agent takes connections, and more.
TEST_CASE("a load balancer is answered while slow clients hold every connection") {
  constexpr int kSlow = 700;
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  std::vector<test::HttpClient> slow;
  for (int i = 0; i < kSlow; ++i)
    slow.emplace_back(agent.port()).say("GET /status HTTP/1.1\r\nX: ");
  for (int i = 0; i < 5; ++i) CHECK(agent.status_of("/pg/pg-a/primary") == 200);
  const auto metrics = agent.text("/metrics");
  CHECK(metrics.find("\nzx_http_connections_rejected_total 0\n") != std::string::npos);
  CHECK(metrics.find("\nzx_http_connections_evicted_total 0\n") == std::string::npos);
  agent.stop();
}

// The text without the table of that name.
std::string without_table(const std::string& text, const std::string& table) {
  const auto at = text.find("[" + table + "]");
  REQUIRE_MESSAGE(at != std::string::npos, text);
  const auto next = text.find("\n[", at);
  return text.substr(0, at) + (next == std::string::npos ? "" : text.substr(next + 1));
}

TEST_CASE("a node that leaves or enters by a reload disturbs nobody who asks for the others") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto whole = test::read(cluster.config());
  const auto less = without_table(whole, "pg.main.nodes.pg-b");
  bool was_refused = false;
  const auto reload = [&](const std::string& text, std::size_t nodes) {
    test::write(cluster.config(), text);
    agent.signal(SIGHUP);
    REQUIRE(test::eventually([&] {
      was_refused = was_refused || agent.status_of("/pg/pg-a/primary") != 200;
      const auto pg = agent.pg();
      return pg["nodes"].size() == nodes && pg["nodes"].back()["role"] == "standby";
    }));
  };
  for (int i = 0; i < 3; ++i) {
    reload(less, 2);
    CHECK(agent.pg()["nodes"][1]["name"] == "pg-c");
    CHECK(agent.status_of("/pg/pg-b/replica") == 404);
    reload(whole, 3);
    REQUIRE(test::eventually([&] { return agent.status_of("/pg/pg-b/replica") == 200; }));
  }
  CHECK_FALSE(was_refused);
  CHECK(test::failovers(cluster).empty());
  agent.stop();
}

// The leader is killed after line `line` of its failover's journal.
void check_takeover(const Cluster& cluster, int line) {
  CAPTURE(line);
  const auto from = test::the_primary(cluster);
  const auto timeline = test::timeline_of(cluster, from);
  const auto before = test::failovers(cluster).size();
  Agent first(cluster, "first");
  Agent second(cluster, "second");
  REQUIRE(test::eventually([&] { return first.status()["role"] == "leader"; }));
  REQUIRE(test::eventually([&] { return second.status()["leader"] == "first"; }));
  CHECK(second.status()["role"] == "follower");
  REQUIRE(second.becomes_healthy());
  test::Sampler sampler(cluster);
  // Each thread's calls are counted from here on, and in the keeper's only the journal makes them.
  test::Background strace({"/usr/bin/strace", "-f", "-o", "/dev/null", "-e", "signal=none",
                           fmt::format("--inject=fdatasync:signal=SIGKILL:when={}", line), "-p",
                           std::to_string(first.pid())});
  strace.wait_for("attached");
  cluster.kill(from);
  CHECK(first.finish() == -SIGKILL);
  (void)strace.finish();
  REQUIRE(test::eventually([&] {
    return second.status()["role"] == "leader" && !second.primary().empty() &&
           second.primary() != from;
  }));
  REQUIRE(second.becomes_healthy());
  CHECK(second.status()["role"] == "leader");
  const auto runs = test::failovers(cluster);
  REQUIRE(runs.size() == before + 1);
  REQUIRE(runs.front().outcome.has_value());
  // What was left of it may have been optional, and another run has taken its place.
  const auto& outcome = *runs.front().outcome;
  CHECK_MESSAGE((outcome == "done" || outcome == "superseded"), outcome);
  CHECK(test::timeline_of(cluster, second.primary()) == timeline + 1);
  test::check_served(cluster, second.primary());
  CHECK(sampler.finish().empty());
  CHECK(second.ask({"failover", "ack"}).ok());
  second.stop();
}

// The walreceiver of pg-b holds the connection that it has.
void refuse_new_standbys(const Cluster& cluster, const std::string& node) {
  const auto path = test::data_dir(cluster, node) + "/pg_hba.conf";
  test::write(path, "host replication all all reject\n" + test::read(path));
  cluster.sql(node, "SELECT pg_reload_conf()");
}

TEST_CASE("a failover does not wait for a standby that is being repointed and cannot stream") {
  Cluster cluster;
  test::set_policy(cluster, "catchup_deadline", "\"120s\"");
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  refuse_new_standbys(cluster, "pg-a");
  test::stop_receiving(cluster, "pg-c");
  REQUIRE(test::eventually([&] { return agent.pg()["at_work"] == "repoint pg-c"; }));
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "first_write"); }));
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() == "pg-b");
  test::check_served(cluster, "pg-b");
  const auto gave_way = test::events_of(cluster, "gave_way");
  REQUIRE(gave_way.size() == 1);
  CHECK(gave_way.front()["node"] == "pg-c");
  const auto run = run::read_run(cluster.state_dir(), gave_way.front()["run"]);
  REQUIRE(run.has_value());
  CHECK(run->plan.command == "repoint pg");
  REQUIRE(run->error.has_value());
  CHECK(run->error->code == Code::interrupted);
  const auto& failovers = test::failovers(cluster);
  REQUIRE(failovers.size() == 1);
  CHECK(failovers.front().begun >= run->ended);
  CHECK(test::events_of(cluster, "failed").empty());
  agent.stop();
  CHECK_MESSAGE(agent.log().find(" info gave_way: pg.main") != std::string::npos, agent.log());
}

TEST_CASE("a second agent finishes the failover of a leader that was killed in it") {
  Cluster cluster;
  for (const int line : {3, 9}) check_takeover(cluster, line);
}

// What is left to do is optional; whom it has left behind must be noted all the same.
TEST_CASE(
    "a second agent finishes a failover after its first write, and brings the old primary back") {
  Cluster cluster;
  for (const int line : {15, 18}) check_takeover(cluster, line);
}

TEST_CASE("a second agent waits for a leader that was stopped, and acts when it is gone") {
  Cluster cluster;
  Agent first(cluster, "first");
  Agent second(cluster, "second");
  REQUIRE(first.becomes_healthy());
  REQUIRE(second.becomes_healthy());
  CHECK(first.status()["role"] == "leader");
  CHECK(second.status()["role"] == "follower");

  os::ProcessOptions options;
  options.environment = {
      {"ZX__AGENT__NAME", "first"},
      {"ZX__AGENT__LISTEN", fmt::format("127.0.0.1:{}", test::free_ports(1).front())}};
  const auto third = cluster.zx({"agent", "run"}, options);
  CHECK(third.exit == 5);
  CHECK_MESSAGE(third.err.find("another agent named first runs here") != std::string::npos,
                third.err);

  const auto watches = [&] {
    REQUIRE(test::eventually([&] { return second.pg()["verdict"] == "primary_dead"; }));
    CHECK(second.waits_because("first acts, this agent watches"));
    const auto looks = second.looks();
    REQUIRE(test::eventually([&] { return second.looks() > looks + 10; }));
    CHECK(second.pg()["decision"] == "none");
    CHECK(second.pg()["verdict"] == "primary_dead");
    CHECK(cluster.writable().empty());
  };
  first.signal(SIGSTOP);
  cluster.kill("pg-a");
  watches();
  CHECK(test::failovers(cluster).empty());
  first.signal(SIGCONT);
  REQUIRE(second.becomes_healthy());
  REQUIRE(test::failovers(cluster).size() == 1);
  CHECK(test::failovers(cluster).front().plan.context["agent"] == "first");
  CHECK(first.status()["role"] == "leader");

  CHECK(second.ask({"failover", "ack"}).ok());
  first.signal(SIGSTOP);
  cluster.kill(second.primary());
  watches();
  first.signal(SIGKILL);
  CHECK(first.finish() == -SIGKILL);
  REQUIRE(test::eventually([&] { return test::failovers(cluster).size() == 2; }));
  REQUIRE(second.becomes_healthy());
  CHECK(test::failovers(cluster).front().plan.context["agent"] == "second");
  test::check_served(cluster, second.primary());
  second.stop();
}

TEST_CASE("a state directory that is removed under an agent is made again, and it acts on") {
  Cluster cluster;
  Agent first(cluster, "first");
  Agent second(cluster, "second");
  REQUIRE(first.becomes_healthy());
  REQUIRE(second.becomes_healthy());
  std::filesystem::remove_all(cluster.state_dir());
  // The leader's lock was on a file that nobody finds any more: either may lead now, and one must.
  std::string leader;
  REQUIRE(test::eventually([&] {
    if (!first.ask({"agent", "status"}).ok() || !second.ask({"agent", "status"}).ok()) return false;
    const auto one = first.status(), other = second.status();
    leader = one["role"] == "leader" ? "first" : "second";
    return (one["role"] == "leader") != (other["role"] == "leader") && one["role"] != "cut_off" &&
           other["role"] != "cut_off";
  }));
  CHECK_FALSE(test::events_of(cluster, "failed").empty());
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(first.becomes_healthy());
  REQUIRE(test::failovers(cluster).size() == 1);
  CHECK(test::failovers(cluster).front().plan.context["agent"] == leader);
  test::check_served(cluster, first.primary());
  second.stop();
  first.stop();
}

TEST_CASE("a state directory that cannot be made again is told, and load balancers are answered") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  std::filesystem::remove_all(cluster.state_dir());
  test::write(cluster.state_dir(), "");
  REQUIRE(test::eventually([&] { return agent.status_of("/readyz") == 503; }));
  CHECK(agent.text("/readyz").find("cannot be made again") != std::string::npos);
  CHECK(agent.status()["warnings"].size() >= 1);
  CHECK(agent.status_of("/pg/primary") == 200);
  std::filesystem::remove(cluster.state_dir());
  REQUIRE(test::eventually([&] { return agent.status_of("/readyz") == 200; }));
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, agent.primary());
  agent.stop();
  CHECK_MESSAGE(agent.log().find(" warning failed: ") != std::string::npos, agent.log());
}

// A small file system in the place of the state directory; gone at the end.
class SmallDisk {
 public:
  explicit SmallDisk(std::string at) : at_(std::move(at)) {
    is_there_ =
        mount("tmpfs", at_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=2m,mode=0700") == 0;
  }
  ~SmallDisk() {
    if (is_there_) (void)umount2(at_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  [[nodiscard]] bool is_there() const { return is_there_; }
  void fill() const {
    std::ofstream file(at_ + "/ballast", std::ios::binary);
    const std::string block(4096, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  void free() const { std::filesystem::remove(at_ + "/ballast"); }

 private:
  std::string at_;
  bool is_there_ = false;
};

TEST_CASE("a full disk stops a failover before it begins, and only until there is room") {
  Cluster cluster;
  std::filesystem::create_directories(cluster.state_dir());
  const SmallDisk disk(cluster.state_dir());
  if (!disk.is_there()) {
    MESSAGE("skipped: a file system cannot be mounted here");
    return;
  }
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  disk.fill();
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return agent.status()["events_lost"] > 0; }));
  REQUIRE(agent.waits_because("failover failed"));
  const auto full = agent.pg();
  CHECK(full["verdict"] == "primary_dead");
  CHECK(agent.status_of("/healthz") == 200);
  CHECK(cluster.writable().empty());
  CHECK(agent.text("/metrics").find("zx_agent_events_lost_total 0") == std::string::npos);
  CHECK(test::eventually([&] { return agent.status_of("/readyz") == 503; }));
  CHECK(agent.text("/readyz").find("is full: ") != std::string::npos);
  CHECK(agent.text("/metrics").find("\nzx_agent_state_dir_free_bytes 0\n") != std::string::npos);
  CHECK(cluster.zx({"agent", "status"}).out.find("is full: ") != std::string::npos);
  disk.free();
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, agent.primary());
  CHECK(test::failovers(cluster).size() == 1);
  CHECK(test::eventually([&] { return agent.status_of("/readyz") == 200; }));
  agent.stop();
  CHECK_MESSAGE(agent.log().find("No space left on device") != std::string::npos, agent.log());
}

}  // namespace
}  // namespace zx
