// zx agent and a Redis deployment: who acts when the master is gone, and what load balancers are
// told.
#include <algorithm>

#include "lib/net/http_client.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

using test::Counter;
using test::RedisDeployment;

class RedisAgent {
 public:
  // `more`: variables of its environment.
  explicit RedisAgent(const RedisDeployment& servers, std::vector<std::string> more = {})
      : port_(test::free_ports(1).front()) {
    const auto text = test::read(servers.config());
    if (text.find("[agent]") == std::string::npos)
      test::write(servers.config(), text + "\n[agent]\n");
    more.insert(more.end(), {"HOME=/nonexistent", "ZX__AGENT__LISTEN=" + address()});
    program_ = std::make_unique<test::Background>(
        os::Argv{"/usr/bin/setpriv", "--pdeathsig", "KILL", ZX_BINARY, "-c", servers.config(),
                 "agent", "run"},
        std::move(more));
    if (test::eventually([&] { return status_of("/readyz") == 200; })) return;
    program_->signal(SIGKILL);
    (void)program_->finish();
    FAIL(program_->output());
  }
  [[nodiscard]] std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  int status_of(const std::string& path) {
    const auto answer = fetch(path);
    return answer ? answer->status : 0;
  }
  Json json_of(const std::string& path) {
    const auto answer = fetch(path);
    if (!answer) return {};
    const auto json = parse_json(answer->body, path);
    return json ? *json : Json();
  }
  std::string page(const std::string& path) {
    const auto answer = fetch(path);
    return answer ? answer->body : std::string();
  }
  std::string master() { return get_string(json_of("/redis/master"), "node"); }
  Json redis() { return json_of("/status")["redis"][0]; }
  bool becomes_healthy() {
    return test::eventually([&] { return redis()["verdict"] == "healthy"; });
  }
  bool waits_because(const std::string& words) {
    return test::eventually(
        [&] { return get_string(redis(), "waits_because").find(words) != std::string::npos; });
  }
  void stop() {
    program_->signal(SIGTERM);
    const int exit = program_->finish();
    CHECK_MESSAGE(exit == 0, program_->output());
  }

 private:
  Result<net::HttpFetched> fetch(const std::string& path) {
    net::HttpFetch request;
    request.method = "GET";
    request.url = "http://" + address() + path;
    return client_.fetch(request);
  }
  int port_;
  net::HttpClient client_;
  std::unique_ptr<test::Background> program_;
};

TEST_CASE("an agent replaces a killed master, tells load balancers, and lets it return") {
  RedisDeployment servers;
  RedisAgent agent(servers);
  CHECK(agent.master() == "redis-a");
  CHECK(agent.status_of("/redis/redis-a/master") == 200);
  CHECK(agent.status_of("/redis/redis-b/master") == 503);
  CHECK(agent.status_of("/redis/redis-b/replica") == 200);
  CHECK(agent.status_of("/redis/redis-x/replica") == 404);
  CHECK(agent.status_of("/redis//replica") == 404);
  Counter counter(servers);
  servers.kill("redis-a");
  CHECK(counter.goes_on());
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(test::eventually([&] { return agent.master() == master; }));
  CHECK(agent.status_of("/redis/redis-a/master") == 503);

  servers.start("redis-a");
  CHECK(servers.in_line_with(master));
  CHECK(agent.becomes_healthy());
  const auto run = run::list_runs(servers.state_dir(), 10)->runs;
  REQUIRE(run.size() == 1);
  CHECK(run.front().outcome == "done");
  CHECK(agent.page("/metrics")
            .find(fmt::format("zx_redis_master{{deployment=\"cache\",node=\"{}\"}} 1", master)) !=
        std::string::npos);

  const auto shown = servers.zx({"agent", "status"}).out;
  for (const auto& words :
       {"Last failover: redis-a to " + master, "run " + run.front().id + ", by agent ",
        std::string("not acknowledged: until "), std::string("failover ack --cluster redis.cache")})
    CHECK_MESSAGE(shown.find(words) != std::string::npos, shown);

  // Beside the new one, whoever made it a master again, it is given up once more.
  CHECK(servers.ask("redis-a", {"REPLICAOF", "NO", "ONE"}) == "OK");
  CHECK(servers.in_line_with(master));
  CHECK(agent.becomes_healthy());
  CHECK(servers.the_master() == master);

  // A second one so soon waits for a person.
  servers.kill(master);
  CHECK(test::eventually([&] { return agent.redis()["blocked"] == true; }));
  CHECK(servers.masters().empty());
  CHECK(servers.zx_json({"failover", "ack"})["acknowledged"].size() == 1);
  CHECK(test::eventually([&] { return servers.masters().size() == 1; }));
  agent.stop();
}

TEST_CASE("a paused agent leaves a dead master to a person until the pause is ended") {
  RedisDeployment servers;
  RedisAgent agent(servers);
  CHECK(servers.zx_json({"agent", "pause", "--for", "10m"})["clusters"][0] == "redis.cache");
  servers.kill("redis-a");
  CHECK(test::eventually([&] { return agent.redis()["blocked"] == true; }));
  CHECK(get_string(agent.redis(), "waits_because").starts_with("paused for"));
  CHECK(servers.masters().empty());
  CHECK(servers.zx_json({"agent", "resume"})["clusters"][0] == "redis.cache");
  CHECK(test::eventually([&] { return servers.masters().size() == 1; }));
  agent.stop();
}

TEST_CASE("an agent replaces a frozen master, and ends it first") {
  RedisDeployment servers({.policy = "probe_deadline = \"500ms\""});
  RedisAgent agent(servers);
  Counter counter(servers);
  servers.kill("redis-a", SIGSTOP);
  CHECK(test::eventually([&] { return servers.masters().size() == 1; }));
  CHECK(servers.the_master() != "redis-a");
  CHECK(counter.goes_on());
  CHECK(servers.role("redis-a").empty());
  agent.stop();
}

TEST_CASE("an agent gives a frozen master out of reach up once that refuses writes by itself") {
  RedisDeployment servers({.settings = "min-replicas-to-write 1\nmin-replicas-max-lag 1",
                           .policy = "probe_deadline = \"500ms\""});
  servers.edit_config("remote = []\n\n[hosts.lab-b]", "\n[hosts.lab-b]");
  RedisAgent agent(servers);
  const auto pid = static_cast<pid_t>(std::atoi(servers.info("redis-a", "process_id").c_str()));
  REQUIRE(pid > 0);
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  CHECK(test::eventually([&] { return servers.masters().size() == 1; }));
  const auto master = servers.the_master();
  CHECK(master != "redis-a");
  CHECK(test::eventually([&] { return servers.ask(master, {"SET", "key", "new"}) == "OK"; }));
  // It comes back beside the new one, and follows it again.
  REQUIRE(::kill(pid, SIGCONT) == 0);
  CHECK(test::eventually([&] { return servers.role("redis-a") == "slave"; }));
  CHECK(servers.in_line_with(master));
  CHECK(servers.ask("redis-a", {"GET", "key"}) == "new");
  agent.stop();
}

TEST_CASE("bringing a replica back gives way when the master dies meanwhile") {
  RedisDeployment servers({.policy = "flap_window = \"1ms\""});
  RedisAgent agent(servers);
  servers.kill("redis-a");
  REQUIRE(test::eventually([&] { return servers.masters().size() == 1; }));
  const auto second = servers.the_master();
  servers.start("redis-a");
  REQUIRE(servers.in_line_with(second));
  // Beside the new master again, with a write of its own: the full resync that it needs is not
  // begun for ten minutes, which the run about it waits for.
  REQUIRE(servers.ask(second, {"CONFIG", "SET", "repl-diskless-sync-delay", "600"}) == "OK");
  REQUIRE(servers.ask("redis-a", {"REPLICAOF", "NO", "ONE"}) == "OK");
  REQUIRE(servers.ask("redis-a", {"SET", "own", "1"}) == "OK");
  REQUIRE(test::eventually([&] {
    const auto newest = run::list_runs(servers.state_dir(), 1)->runs.front();
    return newest.plan.command == "redis sync" && !newest.outcome &&
           servers.role("redis-a") == "slave";
  }));
  servers.kill(second);
  // Long before those ten minutes are over.
  CHECK_MESSAGE(test::eventually([&] { return servers.masters().size() == 1; }),
                agent.redis().dump());
  CHECK(servers.the_master() != second);
  agent.stop();
}

std::vector<std::string> events_about(const RedisDeployment& servers, const std::string& node) {
  std::vector<std::string> kinds;
  const auto all = servers.zx_json({"agent", "events", "--most", "1000"});
  for (const auto& event : all["events"])
    if (event["node"] == node) kinds.push_back(get_string(event, "event"));
  return kinds;
}

TEST_CASE("a master that works on a long script is alive, and goes on when it has ended") {
  RedisDeployment servers;
  RedisAgent agent(servers);
  // Longer than silent_after, shorter than what makes the server itself say BUSY. Replicas that are
  // written to have heard of it just before.
  CHECK(servers.ask("redis-a", {"SET", "before", "1"}) == "OK");
  const redis::Command script{
      "EVAL",
      "local t = redis.call('TIME') local e = t[1] * 1000000 + t[2] + 3500000 "
      "repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > e return 'ended'",
      "0"};
  const auto reply = servers.command("redis-a", script, Millis(60'000));
  REQUIRE_MESSAGE(reply.has_value(), (reply ? "" : reply.error().error.message));
  CHECK(reply->text == "ended");
  CHECK(servers.the_master() == "redis-a");
  CHECK(agent.becomes_healthy());
  const auto events = events_about(servers, "redis-a");
  CHECK_MESSAGE(std::find(events.begin(), events.end(), "waits") != events.end(),
                join(events, " "));
  CHECK(std::find(events.begin(), events.end(), "failed") == events.end());
  agent.stop();
}

TEST_CASE("with automatic off an agent watches, and says that a person is needed") {
  RedisDeployment servers({.policy = "automatic = false"});
  RedisAgent agent(servers);
  servers.kill("redis-a");
  CHECK(test::eventually([&] { return agent.redis()["blocked"] == true; }));
  CHECK(agent.redis()["verdict"] == "master_dead");
  const auto shown = servers.zx({"agent", "status"});
  for (const auto* words :
       {"Redis cache   master dead, no master for certain", "connection refused",
        "Blocked: automatic is off", "failover redis --dry-run"})
    CHECK_MESSAGE(shown.out.find(words) != std::string::npos, shown.out);
  CHECK(servers.masters().empty());
  CHECK(servers.zx_json({"failover", "redis", "--yes"})["outcome"] == "done");
  CHECK(test::eventually([&] { return agent.master() == servers.the_master(); }));
  const auto second = servers.the_master();
  const auto shows = [&](const std::string& words) {
    const auto out = servers.zx({"agent", "status"}).out;
    return out.find(words) != std::string::npos &&
           out.find("begun by a person") != std::string::npos &&
           out.find("not acknowledged") == std::string::npos;
  };
  CHECK(test::eventually([&] { return shows("Last failover: redis-a to " + second); }));
  servers.start("redis-a");
  REQUIRE(servers.in_line_with(second));
  CHECK(servers.zx_json(
            {"failover", "redis", "--planned", "--to", "redis-a", "--yes"})["outcome"] == "done");
  CHECK(test::eventually(
      [&] { return shows(fmt::format("Last planned move: {} to redis-a", second)); }));
  agent.stop();
}

TEST_CASE("a replica that strays is brought back, but not in a pause, nor over keys of its own") {
  const RedisDeployment servers;
  RedisAgent agent(servers);
  servers.zx_json({"agent", "pause", "--for", "10m"});
  CHECK(servers.ask("redis-c", {"REPLICAOF", "127.0.0.1", "1"}) == "OK");
  CHECK(agent.waits_because("redis-c does not follow redis-a"));
  CHECK(agent.waits_because("paused for"));
  CHECK(servers.info("redis-c", "master_port") == "1");
  servers.zx_json({"agent", "resume"});
  CHECK(servers.in_line_with("redis-a"));
  CHECK(agent.becomes_healthy());
  const auto events = events_about(servers, "redis-c");
  for (const auto* kind : {"decided", "rejoined"})
    CHECK_MESSAGE(std::find(events.begin(), events.end(), kind) != events.end(), join(events, " "));

  CHECK(servers.ask("redis-b", {"REPLICAOF", "NO", "ONE"}) == "OK");
  CHECK(servers.ask("redis-b", {"SET", "自己的", "1"}) == "OK");
  CHECK(agent.waits_because("redis-b has 1 key of another line"));
  CHECK(agent.redis()["blocked"] == true);
  CHECK(servers.ask("redis-b", {"GET", "自己的"}) == "1");
  CHECK(servers.zx_json({"redis", "sync", "redis-b", "--confirm", "redis-b"})["outcome"] == "done");
  CHECK(agent.becomes_healthy());
  agent.stop();
}

// Of the connections to a server that zx has given its name.
std::vector<std::string> connections(const RedisDeployment& servers, const std::string& name) {
  std::vector<std::string> ids;
  for (const auto& line : test::lines_of(servers.ask(name, {"CLIENT", "LIST"})))
    if (line.find(" name=zx ") != std::string::npos &&
        line.find(" cmd=client|list ") == std::string::npos)
      ids.push_back(line.substr(0, line.find(' ')));
  return ids;
}

TEST_CASE("a reload disturbs neither held connections nor load balancers") {
  const RedisDeployment servers({.servers = 2, .policy = "max_lag = \"1 MiB\""});
  RedisAgent agent(servers);
  const auto held = connections(servers, "redis-a");
  REQUIRE(held.size() == 1);
  for (int i = 1; i <= 20; ++i) {
    servers.edit_config(fmt::format("max_lag = \"{} MiB\"", i),
                        fmt::format("max_lag = \"{} MiB\"", i + 1));
    CHECK(servers.zx({"agent", "reload"}).ok());
    CHECK(agent.status_of("/redis/redis-a/master") == 200);
    CHECK(agent.status_of("/redis/redis-b/replica") == 200);
    CHECK(agent.status_of("/healthz") == 200);
  }
  CHECK(agent.json_of("/status")["reloads"] == 20);
  CHECK(test::eventually([&] { return connections(servers, "redis-a") == held; }));
  // Whoever took over acts.
  servers.kill("redis-a");
  CHECK(test::eventually([&] { return agent.master() == "redis-b"; }));
  agent.stop();
}

TEST_CASE("what a person did from another host is known to the agent") {
  const test::EtcdServers etcd;
  const RedisDeployment servers;
  test::write(
      servers.config(),
      test::read(servers.config()) +
          fmt::format("\n[agent]\ncoordination = \"etcd\"\nlease = \"2s\"\netcd = [\"{}\"]\n",
                      etcd.endpoint(0)));
  RedisAgent agent(servers, {"ZX__AGENT__NAME=one"});
  REQUIRE(test::eventually([&] { return agent.json_of("/status")["role"] == "leader"; }));
  os::ProcessOptions elsewhere;
  elsewhere.environment = {{"ZX__PLATFORM__STATE_DIR", servers.beside("state-of-the-person")}};
  const auto moved =
      servers.zx({"failover", "redis", "--planned", "--to", "redis-b", "--yes"}, elsewhere);
  REQUIRE_MESSAGE(moved.ok(), moved.err);
  REQUIRE(servers.in_line_with("redis-b"));
  REQUIRE(test::eventually([&] { return agent.redis()["last_failover"]["to"] == "redis-b"; }));
  os::ProcessOptions here;
  here.environment = {{"ZX__AGENT__NAME", "one"}};
  const auto shown = servers.zx({"agent", "status"}, here);
  for (const auto* words :
       {"Last move by hand: redis-a to redis-b", "begun by a person; its journal is on another"})
    CHECK_MESSAGE(shown.out.find(words) != std::string::npos, (shown.out + shown.err));
  CHECK_MESSAGE(shown.out.find("not acknowledged") == std::string::npos, shown.out);

  // Whom the person gave up is not left beside the new one.
  CHECK(servers.ask("redis-a", {"REPLICAOF", "NO", "ONE"}) == "OK");
  CHECK(servers.ask("redis-a", {"SET", "late", "1"}) == "OK");
  CHECK(servers.in_line_with("redis-b"));
  CHECK(servers.the_master() == "redis-b");
  // And it is no reason to hold the next failover back.
  servers.kill("redis-b");
  CHECK(test::eventually([&] { return servers.masters().size() == 1; }));
  CHECK(agent.redis()["blocked"] == false);
  agent.stop();
}

}  // namespace
}  // namespace zx
