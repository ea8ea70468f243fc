// Agents of several hosts that agree by real etcd: one that stood still while another one took
// over, and etcd that was started again or is full.
#include "tests/scenario/agent.h"

namespace zx {
namespace {

using test::Agent;
using test::Cluster;
using test::EtcdServers;
using test::eventually;
using test::HostAgent;
using test::Writer;

// `leader` is stopped after line `line` of a failover's journal, which ends with `words`; `other`
// takes over, and nothing that it made may change when the first one goes on.
void check_stopped(const Cluster& cluster, HostAgent& leader, HostAgent& other, int line,
                   const std::string& words) {
  CAPTURE(words);
  REQUIRE(leader.leads());
  REQUIRE(leader->becomes_healthy());
  REQUIRE(other->becomes_healthy());
  const auto from = test::the_primary(cluster);
  const auto runs = leader.failovers().size();
  test::Sampler sampler(cluster);
  test::Background strace({"/usr/bin/strace", "-f", "-o", "/dev/null", "-e", "signal=none",
                           fmt::format("--inject=fdatasync:signal=SIGSTOP:when={}", line), "-p",
                           std::to_string(leader->pid())});
  strace.wait_for("attached");
  cluster.kill(from);
  // The signal comes before the call ends, so the line is there.
  REQUIRE(eventually([&] {
    return leader.failovers().size() > runs &&
           std::ssize(test::lines_of(leader.newest_journal())) >= line;
  }));
  REQUIRE_MESSAGE(test::lines_of(leader.newest_journal()).back().find(words) != std::string::npos,
                  leader.newest_journal());
  REQUIRE(eventually([&] { return os::process_state(leader->pid()) == 't'; }));
  strace.signal(SIGTERM);
  (void)strace.finish();
  REQUIRE(other.leads());
  REQUIRE(eventually([&] { return !other->primary().empty() && other->primary() != from; }));
  REQUIRE(other->becomes_healthy());
  const auto primary = other->primary();
  CHECK(other.failovers().size() > 0);
  test::check_served(cluster, primary);
  const auto before = test::roles_on_disk(cluster);
  const auto held = test::receivers(cluster);
  const auto timeline = test::timeline_of(cluster, primary);

  leader->signal(SIGCONT);
  REQUIRE(eventually([&] {
    const auto status = leader->status();
    return status["role"] == "follower" && status["pg"][0]["at_work"].is_null();
  }));
  const auto looks = leader->looks();
  REQUIRE(eventually([&] { return leader->looks() > looks + 10; }));
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(test::receivers(cluster) == held);
  CHECK(test::timeline_of(cluster, primary) == timeline);
  CHECK(other->status()["role"] == "leader");
  REQUIRE(other->becomes_healthy());
  test::check_served(cluster, primary);
  CHECK(sampler.finish().empty());
}

TEST_CASE("a leader that was stopped in a failover does nothing more when another one has led") {
  const EtcdServers etcd;
  const Cluster cluster;
  test::coordinate_by(cluster, etcd);
  HostAgent first(cluster, "first");
  REQUIRE(first.leads());
  HostAgent second(cluster, "second");
  if (!getenv("ZXDBG"))
    check_stopped(cluster, first, second, 2, "\"step-start\",\"step\":\"freeze\"");
  if (!getenv("ZXDBG"))
    check_stopped(cluster, second, first, 7, "\"step-start\",\"step\":\"fence\"");
  check_stopped(cluster, first, second, 10, "\"no-return\"");
  // What they left unfinished is in nobody's way.
  REQUIRE(first->becomes_healthy());
  second->stop();
  REQUIRE(first.leads());
  const auto from = first->primary();
  cluster.kill(from);
  REQUIRE(eventually([&] { return !first->primary().empty() && first->primary() != from; }));
  REQUIRE(first->becomes_healthy());
  test::check_served(cluster, first->primary());
  first->stop();
}

// Of a primary that is dead, as long as it cannot act on that.
void check_idle(const Cluster& cluster, Agent& agent, const std::string& why) {
  REQUIRE(agent.waits_because(why));
  REQUIRE(eventually([&] { return agent.pg()["verdict"] == "primary_dead"; }));
  const auto before = test::roles_on_disk(cluster);
  const auto looks = agent.looks();
  REQUIRE(eventually([&] { return agent.looks() > looks + 10; }));
  CHECK(agent.pg()["decision"] == "none");
  CHECK(agent.status()["role"] == "cut_off");
  CHECK(agent.status_of("/healthz") == 200);
  CHECK(test::roles_on_disk(cluster) == before);
  CHECK(cluster.writable().empty());
  CHECK(test::failovers(cluster).empty());
}

// Until etcd raises its alarm.
void fill(const EtcdServers& etcd) {
  const auto ballast = coord::to_base64(std::string(100'000, 'x'));
  const Json body{{"key", coord::to_base64("/ballast")}, {"value", ballast}};
  net::HttpFetch put;
  put.method = "POST";
  put.url = etcd.endpoint(0) + "/v3/kv/put";
  put.body = dump_line(body);
  int status = 200;
  for (int i = 0; i < 100 && status == 200; ++i) {
    const auto answer = net::HttpClient().fetch(put);
    REQUIRE_MESSAGE(answer.has_value(), test::why(answer));
    status = answer->status;
    if (status != 200) CHECK_MESSAGE(test::says(answer->body, "space"), answer->body);
  }
  REQUIRE(status != 200);
}

// What a person does then.
void make_room(const EtcdServers& etcd) {
  const auto gone = etcd.call("kv/deleterange", {{"key", coord::to_base64("/ballast")}});
  etcd.call("kv/compaction", {{"revision", gone["header"]["revision"]}, {"physical", true}});
  etcd.call("maintenance/defragment", Json::object());
  const auto alarms = etcd.call("maintenance/alarm", {{"action", "GET"}});
  for (auto alarm : alarms["alarms"]) {
    alarm["action"] = "DEACTIVATE";
    etcd.call("maintenance/alarm", alarm);
  }
}

TEST_CASE("etcd that is started again or full leaves the servers alone, and only that long") {
  EtcdServers etcd({.quota_bytes = 1u << 20});
  const Cluster cluster;
  test::coordinate_by(cluster, etcd);
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto becomes = [&](const char* role) {
    return eventually([&] { return agent.status()["role"] == role; });
  };
  {
    const Writer writer(cluster);
    etcd.kill(0);
    CHECK(becomes("cut_off"));
    CHECK(cluster.writable() == test::only("pg-a"));
    etcd.start(0);
    CHECK(becomes("leader"));
    CHECK(agent.becomes_healthy());
  }
  Writer writer(cluster);
  fill(etcd);
  CHECK(becomes("cut_off"));
  CHECK(test::says(agent.status()["cut_off_because"], "NOSPACE"));
  const auto written = writer.finish();
  CHECK(written.errors == 0);
  CHECK(written.lost == 0);
  CHECK(cluster.writable() == test::only("pg-a"));

  cluster.kill("pg-a");
  check_idle(cluster, agent, "NOSPACE");
  const auto told = cluster.zx({"agent", "status"}).out;
  CHECK_MESSAGE(told.find("cut off from the coordinator, does nothing") != std::string::npos, told);
  CHECK_MESSAGE(told.ends_with("\nnext: zx -c " + cluster.config() + " failover pg --dry-run\n"),
                told);
  make_room(etcd);
  CHECK(becomes("leader"));
  REQUIRE(eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, agent.primary());
  CHECK(test::failovers(cluster).size() == 1);
  CHECK(test::has_event(cluster, "cut_off"));
  agent.stop();
}

}  // namespace
}  // namespace zx
