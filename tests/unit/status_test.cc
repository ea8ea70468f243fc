// What an agent tells load balancers, Prometheus and people, from what it knows.
#include "lib/agent/status.h"

#include <doctest/doctest.h>

#include <deque>
#include <set>

#include "tests/support.h"

namespace zx::agent {
namespace {

using pg::Failure;
using pg::Role;

constexpr Monotonic kNow{std::chrono::hours(100)};
constexpr Lsn kAt{0x5000000};

// Cluster "main" of pg-a, pg-b, pg-c, all of which answered 100 ms ago: a primary, two standbys.
struct Scene {
  std::deque<config::PgCluster> clusters;
  AgentState state;

  Scene() {
    state.name = "left";
    state.version = "1.2.3";
    state.coordination = "file";
    state.standing.role = coord::Standing::Role::leader;
    state.now = kNow;
    add("main", {"pg-a", "pg-b", "pg-c"});
  }
  Known& add(const std::string& name, const std::vector<std::string>& nodes) {
    auto& cluster = clusters.emplace_back();
    cluster.name = name;
    Known known;
    known.cluster = &cluster;
    known.has_judged = known.has_looked = true;
    known.verdict.state = ha::PgState::healthy;
    known.verdict.summary = "all is well";
    for (const auto& each : nodes) {
      config::PgNode node;
      node.name = each;
      cluster.nodes.push_back(node);
      pg::NodeFacts facts;
      facts.name = each;
      facts.address = "10.0.0.1";
      facts.port = 5432;
      facts.failure = Failure::none;
      facts.role = each == nodes.front() ? Role::primary : Role::standby;
      facts.flushed = kAt;
      facts.received = facts.replayed = kAt;
      if (facts.role == Role::standby)
        facts.receiver = pg::Receiver{"streaming", "10.0.0.1", 5432, "", kAt, 1, Millis(1)};
      known.snapshot.nodes.push_back(facts);
      known.answered.push_back(kNow - Millis(100));
    }
    return state.clusters.emplace_back(std::move(known));
  }
  Known& main() { return state.clusters.front(); }
  pg::NodeFacts& node(std::size_t number) { return main().snapshot.nodes[number]; }
  [[nodiscard]] std::string writable() const {
    return writable_node(state.clusters.front(), state.now);
  }
  [[nodiscard]] net::HttpResponse get(const std::string& path, const net::QueryList& query = {},
                                      const std::string& method = "GET") const {
    net::HttpRequest request;
    request.method = method;
    request.path = path;
    request.query = query;
    return answer(request, state);
  }
  [[nodiscard]] Json json(const std::string& path, const net::QueryList& query = {}) const {
    const auto response = get(path, query);
    CHECK(response.type == "application/json");
    const auto json = parse_json(response.body, path);
    REQUIRE(json.has_value());
    return *json;
  }
};

// Answered so long ago that it does not count any more.
Monotonic long_ago(const Known& known) {
  const auto& policy = known.cluster->policy;
  return kNow - policy.probe_interval - policy.probe_deadline;
}

TEST_CASE("the writable node is the one primary that answered lately") {
  Scene scene;
  CHECK(scene.writable() == "pg-a");
  scene.main().answered[0] = long_ago(scene.main()) + Millis(1);
  CHECK(scene.writable() == "pg-a");
  scene.main().answered[0] = long_ago(scene.main());
  CHECK(scene.writable().empty());
  scene.main().answered[0].reset();
  CHECK(scene.writable().empty());
}

TEST_CASE("an agent that something keeps from acting is not ready, and says why") {
  Scene scene;
  CHECK(scene.get("/readyz").status == 200);
  CHECK(scene.json("/status")["warnings"].empty());
  scene.state.state_dir_free = 1000;
  scene.state.warnings = {"the disk is full"};
  const auto ready = scene.get("/readyz");
  CHECK(ready.status == 503);
  CHECK(ready.body == "the disk is full\n");
  CHECK(scene.get("/pg/primary").status == 200);
  CHECK(scene.json("/status")["warnings"] == Json{"the disk is full"});
  CHECK(scene.json("/status")["state_dir_free_bytes"] == 1000);
  const auto metrics = scene.get("/metrics").body;
  CHECK(metrics.find("\nzx_agent_state_dir_free_bytes 1000\n") != std::string::npos);
  CHECK(metrics.find("\nzx_agent_ready 0\n") != std::string::npos);
}

TEST_CASE("an answer from before a reload counts as long as it did then") {
  Scene scene;
  scene.main().answered[0] = long_ago(scene.main());
  const auto age = std::chrono::duration_cast<Millis>(kNow - *scene.main().answered[0]);
  scene.main().trust = age + Millis(1);
  CHECK(scene.writable() == "pg-a");
  scene.main().trust -= Millis(1);
  CHECK(scene.writable().empty());
}

TEST_CASE("a primary that does not answer now is not writable, however lately it did") {
  Scene scene;
  scene.node(0).failure = Failure::refused;
  CHECK(scene.writable().empty());
}

TEST_CASE("of two primaries none is writable, unless one of them was given up or is long silent") {
  Scene scene;
  scene.node(1).role = Role::primary;
  CHECK(scene.writable().empty());
  CHECK(scene.get("/pg/primary").status == 503);
  CHECK(scene.get("/pg/pg-a/primary").status == 503);
  CHECK(scene.get("/pg/pg-b/primary").status == 503);
  scene.main().record.owed.push_back({"pg-a", "r1", "", {}});
  CHECK(scene.writable() == "pg-b");
  scene.main().record.owed.clear();
  scene.main().answered[0] = long_ago(scene.main());
  CHECK(scene.writable() == "pg-b");
}

TEST_CASE("a primary that a failover gave up is not writable, even when it is the only one") {
  Scene scene;
  scene.main().record.owed.push_back({"pg-a", "r1", "quorum", {}});
  CHECK(scene.writable().empty());
  CHECK(scene.get("/pg/pg-a/primary").status == 503);
}

TEST_CASE("a standby is readable while it streams, answers and is not too far behind") {
  Scene scene;
  const auto readable = [&](std::uint64_t lag = 0) {
    return is_readable(scene.main(), "pg-b", lag, kNow);
  };
  CHECK(readable());
  CHECK_FALSE(is_readable(scene.main(), "pg-a", 1u << 30, kNow));
  CHECK_FALSE(is_readable(scene.main(), "pg-x", 1u << 30, kNow));
  scene.node(0).flushed = Lsn{kAt.value + 100};
  CHECK_FALSE(readable(99));
  CHECK(readable(100));
  // What its sender said last counts as well when the primary itself says nothing.
  scene.node(0).failure = Failure::silent;
  scene.main().answered[0].reset();
  CHECK(readable(0));
  scene.node(2).receiver->latest_end = Lsn{kAt.value + 50};
  CHECK_FALSE(readable(49));
  CHECK(readable(50));
  scene.node(1).receiver->status = "starting";
  CHECK_FALSE(readable(1000));
  scene.node(1).receiver->status = "streaming";
  scene.node(1).replayed.reset();
  CHECK_FALSE(readable(1000));
  scene.node(1).replayed = kAt;
  scene.main().answered[1] = long_ago(scene.main());
  CHECK_FALSE(readable(1000));
}

TEST_CASE("load balancers are told where the primary is, and 503 by everything else") {
  Scene scene;
  const auto where = scene.json("/pg/primary");
  CHECK(get_string(where, "node") == "pg-a");
  CHECK(get_string(where, "cluster") == "main");
  CHECK(get_int(where, "port") == 5432);
  CHECK(scene.get("/pg/pg-a/primary").status == 200);
  CHECK(scene.get("/pg/pg-b/primary").status == 503);
  CHECK(scene.get("/pg/pg-b/primary").body.find("the primary is pg-a") != std::string::npos);
  CHECK(scene.get("/pg/pg-x/primary").status == 404);
  CHECK(scene.get("/pg/pg-a/primary", {}, "HEAD").status == 200);
}

TEST_CASE("load balancers are told which standbys may be read, within the lag that they want") {
  Scene scene;
  CHECK(get_object(scene.json("/pg/replica"), "replicas").size() == 2);
  CHECK(scene.get("/pg/pg-b/replica").status == 200);
  CHECK(scene.get("/pg/pg-a/replica").status == 503);
  CHECK(scene.get("/pg/pg-x/replica").status == 404);
  scene.node(1).replayed = Lsn{kAt.value - 2048};
  CHECK(scene.get("/pg/pg-b/replica").status == 200);  // within the policy's max_lag
  CHECK(scene.get("/pg/pg-b/replica", {{"lag", "1KiB"}}).status == 503);
  CHECK(scene.get("/pg/pg-b/replica", {{"lag", "2KiB"}}).status == 200);
  CHECK(scene.get("/pg/pg-b/replica", {{"lag", "much"}}).status == 400);
  CHECK(get_object(scene.json("/pg/replica", {{"lag", "0"}}), "replicas").size() == 1);
  scene.node(1).failure = scene.node(2).failure = Failure::refused;
  CHECK(scene.get("/pg/replica").status == 503);
}

TEST_CASE("a name that several clusters have needs the cluster beside it") {
  Scene scene;
  scene.add("other", {"pg-b", "pg-d"});
  CHECK(scene.get("/pg/primary").status == 400);
  CHECK(get_string(scene.json("/pg/primary", {{"cluster", "other"}}), "node") == "pg-b");
  CHECK(scene.get("/pg/primary", {{"cluster", "none"}}).status == 404);
  CHECK(scene.get("/pg/pg-b/primary").status == 400);
  CHECK(scene.get("/pg/pg-b/primary", {{"cluster", "main"}}).status == 503);
  CHECK(scene.get("/pg/pg-b/primary", {{"cluster", "other"}}).status == 200);
  CHECK(scene.get("/pg/pg-a/primary", {{"cluster", "other"}}).status == 404);
  // What only one of them has needs nothing.
  CHECK(scene.get("/pg/pg-a/primary").status == 200);
}

TEST_CASE("without clusters there is no primary, and the agent is ready") {
  Scene scene;
  scene.state.clusters.clear();
  CHECK(scene.get("/pg/primary").status == 404);
  CHECK(scene.get("/readyz").status == 200);
}

TEST_CASE("what is not there is 404, and what does not read is 405 with what does") {
  const Scene scene;
  for (const std::string path :
       {"/", "", "/pg", "/pg/", "/pg/pg-a", "/pg/pg-a/master", "/pg/pg-a/primary/x", "/statusx",
        "/pg//primary", "/../healthz", "/events"}) {
    CAPTURE(path);
    CHECK(scene.get(path).status == 404);
  }
  for (const std::string method : {"POST", "PUT", "DELETE", "get", ""}) {
    const auto response = scene.get("/healthz", {}, method);
    CHECK(response.status == 405);
    REQUIRE(response.headers.size() == 1);
    CHECK(response.headers.front() == std::pair<std::string, std::string>("Allow", "GET, HEAD"));
  }
}

TEST_CASE("healthy is who makes progress, ready who has looked at every cluster and stays") {
  Scene scene;
  CHECK(scene.get("/healthz").status == 200);
  CHECK(scene.get("/readyz").status == 200);
  scene.main().has_judged = false;
  CHECK(scene.get("/healthz").status == 200);
  CHECK(scene.get("/readyz").status == 503);
  scene.main().has_judged = true;
  scene.state.is_stopping = true;
  CHECK(scene.get("/healthz").status == 200);
  CHECK(scene.get("/readyz").status == 503);
  scene.state.is_stopping = false;
  scene.state.is_well = false;
  CHECK(scene.get("/healthz").status == 503);
  CHECK(scene.get("/readyz").status == 503);
}

TEST_CASE("the status says who acts, what is the case and what is waited for") {
  Scene scene;
  scene.main().decision = {ha::Act::none, "", "too recent", true};
  scene.main().error = "no candidate";
  scene.main().record.last = ha::WatchRecord::Failover{Wall{}, "r1", "pg-b", "pg-a", false};
  scene.main().answered[2].reset();
  const auto status = scene.json("/status");
  CHECK(get_int(status, "schema") == 1);
  CHECK(get_string(status, "role") == "leader");
  const auto& cluster = get_object(status, "pg").at(0);
  CHECK(get_string(cluster, "verdict") == "healthy");
  CHECK(get_string(cluster, "primary") == "pg-a");
  CHECK(get_string(cluster, "waits_because") == "too recent");
  CHECK(get_string(cluster, "error") == "no candidate");
  CHECK(get_bool(cluster, "blocked"));
  CHECK(get_string(get_object(cluster, "last_failover"), "run") == "r1");
  const auto& nodes = get_object(cluster, "nodes");
  REQUIRE(nodes.size() == 3);
  CHECK(get_int(nodes.at(0), "answered_ago_ms") == 100);
  CHECK(get_object(nodes.at(2), "answered_ago_ms").is_null());
  scene.main().has_judged = false;
  CHECK(get_object(scene.json("/status")["pg"].at(0), "verdict").is_null());
}

TEST_CASE("a pause is told until its time is over") {
  Scene scene;
  scene.main().record.pause = ha::WatchRecord::Pause{"p1", Wall{}, Millis(3000), "kernel"};
  const auto metric = [&] {
    return metrics_text(scene.state).find("zx_pg_paused{cluster=\"main\"} 1") != std::string::npos;
  };
  scene.state.wall = Wall(Millis(2999));
  CHECK(get_object(scene.json("/status")["pg"].at(0), "pause").is_object());
  CHECK(metric());
  scene.state.wall = Wall(Millis(3000));
  CHECK(get_object(scene.json("/status")["pg"].at(0), "pause").is_null());
  CHECK_FALSE(metric());
}

TEST_CASE("of a node that is owed a return, why the last try failed is told until the next one") {
  Scene scene;
  scene.main().record.owed.push_back({"pg-c", "r1", "", Wall{}});
  CHECK_FALSE(scene.json("/status")["pg"].at(0)["owed"][0].contains("failed"));
  scene.main().retries.push_back({"pg-c", "rejoin", "no pg_rewind", 2, kNow + Millis(1500)});
  const auto failed = scene.json("/status")["pg"].at(0)["owed"][0]["failed"];
  CHECK(failed["what"] == "rejoin");
  CHECK(failed["error"] == "no pg_rewind");
  CHECK(failed["times"] == 2);
  CHECK(failed["again_in_ms"] == 1500);
  scene.main().retries.back().next = kNow;
  CHECK_FALSE(scene.json("/status")["pg"].at(0)["owed"][0].contains("failed"));
}

TEST_CASE("metrics are in Prometheus' form, each series once and each family in one piece") {
  Scene scene;
  scene.add("o\"th\\er\n", {"pg-d"});
  scene.main().record.last = ha::WatchRecord::Failover{Wall(Millis(1500)), "r1", "", "", false};
  scene.main().commit = Millis(12);
  scene.main().runs_failed = 3;
  scene.state.guards.push_back({"pg-a", Millis(1500), false, false, "it lasts"});
  scene.state.http.requests = {0, 0, 7, 0, 2, 1};
  const auto text = metrics_text(scene.state);
  std::set<std::string> series, families;
  std::string family;
  for (const auto& line : test::lines_of(text)) {
    CAPTURE(line);
    if (line.starts_with("# HELP ")) {
      family = split(line, ' ')[2];
      CHECK(families.insert(family).second);
    } else if (!line.starts_with("#")) {
      CHECK(line.starts_with(family));
      CHECK(series.insert(line.substr(0, line.rfind(' '))).second);
    }
  }
  for (const std::string line :
       {"zx_pg_has_primary{cluster=\"main\"} 1", "zx_pg_up{cluster=\"main\",node=\"pg-b\"} 1",
        "zx_pg_primary{cluster=\"main\",node=\"pg-b\"} 0",
        "zx_pg_streaming{cluster=\"main\",node=\"pg-b\"} 1",
        "zx_pg_replay_lag_bytes{cluster=\"main\",node=\"pg-b\"} 0",
        "zx_pg_commit_seconds{cluster=\"main\"} 0.012",
        "zx_pg_runs_total{cluster=\"main\",outcome=\"failed\"} 3",
        "zx_pg_last_failover_timestamp_seconds{cluster=\"main\"} 1.5",
        "zx_pg_answered_age_seconds{cluster=\"main\",node=\"pg-a\"} 0.1",
        "zx_guard_lease_seconds{node=\"pg-a\"} 1.5", "zx_http_requests_total{code=\"2xx\"} 7",
        "zx_http_requests_total{code=\"5xx\"} 1", "zx_build_info{version=\"1.2.3\"} 1",
        "zx_agent_leader 1", "zx_pg_has_primary{cluster=\"o\\\"th\\\\er\\n\"} 1"}) {
    CAPTURE(line);
    CHECK(("\n" + text).find("\n" + line + "\n") != std::string::npos);
  }
  CHECK(scene.get("/metrics").type.starts_with("text/plain; version=0.0.4"));
}

TEST_CASE("metrics of two primaries say that there is none for certain, and no lag of anybody") {
  Scene scene;
  scene.node(1).role = Role::primary;
  const auto text = metrics_text(scene.state);
  CHECK(text.find("zx_pg_has_primary{cluster=\"main\"} 0\n") != std::string::npos);
  CHECK(text.find("zx_pg_replay_lag_bytes") == std::string::npos);
}

}  // namespace
}  // namespace zx::agent
