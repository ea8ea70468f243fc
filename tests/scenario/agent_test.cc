// An agent that decides by itself: when it fails over, and when it must not.
#include <set>

#include "tests/scenario/agent.h"

namespace zx {
namespace {

using test::Agent;
using test::Cluster;
using test::Writer;

// By the receipt of a failover: at most policy.max_lag, or it would not have been made.
long lost_bytes(const Cluster& cluster, const std::string& run) {
  for (const auto& line : test::journal(cluster, run))
    if (line["event"] == "step-done" && line["step"] == "receipt")
      return get_int(line["seen"], "bytes");
  FAIL("no receipt in " << run);
  return 0;
}

TEST_CASE("a killed primary is failed over and brought back without a person") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() == "pg-a");
  CHECK(agent.status_of("/pg/pg-a/primary") == 200);
  CHECK(agent.status_of("/pg/pg-b/primary") == 503);
  test::Sampler sampler(cluster);
  Writer writer(cluster);
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  const auto promoted = agent.primary();
  CHECK(promoted != "pg-a");
  CHECK(cluster.streams("pg-a"));
  test::check_served(cluster, promoted);
  CHECK(agent.status_of("/pg/" + promoted + "/primary") == 200);
  CHECK(agent.status_of("/pg/pg-a/primary") == 503);
  const auto report = writer.finish();
  CHECK(report.acknowledged > 10);
  CHECK(sampler.finish().empty());

  const auto runs = test::failovers(cluster);
  REQUIRE(runs.size() == 1);
  const auto last = agent.pg()["last_failover"];
  CHECK(last["from"] == "pg-a");
  CHECK(last["to"] == promoted);
  CHECK(last["run"] == runs.front().id);
  // Asynchronous replication: what it may lose is what zx says that it lost.
  const auto lost = lost_bytes(cluster, runs.front().id);
  CHECK(lost <= 16 << 20);
  if (lost == 0) CHECK(report.lost == 0);
  for (const char* kind : {"detected", "confirmed", "decided"}) {
    CAPTURE(kind);
    CHECK(test::events_of(cluster, kind).size() == 1);
  }
  for (const char* kind : {"frozen", "fenced", "promoted", "first_write", "repointed"}) {
    CAPTURE(kind);
    const auto events = test::events_of(cluster, kind);
    REQUIRE(!events.empty());
    CHECK(events.front()["run"] == runs.front().id);
  }
  CHECK(test::events_of(cluster, "failed").empty());
  agent.stop();
}

TEST_CASE("what is told during a failover is what it goes by") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  cluster.kill("pg-a");
  // The steps take some 10 ms each: asked without a pause.
  const auto deadline = Deadline::after(Millis(30'000));
  std::string at_work;
  while (!at_work.starts_with("freeze") && !at_work.starts_with("promote")) {
    REQUIRE_FALSE(deadline.passed());
    const auto pg = agent.pg();
    at_work = pg["at_work"].is_string() ? pg["at_work"].get<std::string>() : std::string();
    if (at_work.empty()) continue;
    CAPTURE(pg.dump());
    CHECK(pg["verdict"] == "primary_dead");
    CHECK(pg["decision"] == "failover");
    CHECK(test::says(pg["summary"], "pg-a is dead"));
  }
  REQUIRE(agent.becomes_healthy());
  agent.stop();
}

TEST_CASE("a restart by a person is waited for") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  cluster.kill("pg-a", SIGINT);  // what pg_ctl restart -m fast sends
  REQUIRE(agent.waits_because("pg-a was told to stop (fast)"));
  CHECK(agent.pg()["decision"] == "none");
  CHECK(test::is_down(cluster, "pg-a"));
  CHECK(cluster.start("pg-a"));
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() == "pg-a");
  CHECK(test::timeline_of(cluster, "pg-a") == 1);
  CHECK(test::failovers(cluster).empty());
  test::check_served(cluster, "pg-a");
  agent.stop();
}

TEST_CASE(
    "commits that hang on a primary that answers are told, and are no reason for a failover") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto wait_for = [&](const std::string& names) {
    cluster.sql("pg-a", "ALTER SYSTEM SET synchronous_standby_names = '" + names + "'");
    cluster.sql("pg-a", "SELECT pg_reload_conf()");
  };
  wait_for("nobody");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "commits_hang"); }));
  CHECK(test::events_of(cluster, "commits_hang").front()["node"] == "pg-a");
  CHECK(agent.pg()["commit_ms"] >= 900);
  wait_for("");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "commits_flow"); }));
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() == "pg-a");
  CHECK(test::failovers(cluster).empty());
  agent.stop();
}

TEST_CASE("a primary that was stopped and does not come back is failed over after the grace") {
  Cluster cluster;
  test::set_policy(cluster, "planned_restart_grace", "\"1s\"");
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  cluster.kill("pg-a", SIGINT);
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "first_write"); }));
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() != "pg-a");
  CHECK(test::failovers(cluster).size() == 1);
  test::check_served(cluster, agent.primary());
  agent.stop();
}

// What zx agent status and events say to a person when `gone`, who took over from pg-a, is dead
// too.
void check_told(const Cluster& cluster, const std::string& gone) {
  const auto told = cluster.zx({"agent", "status"});
  CAPTURE(told.out);
  const auto says = [&](const std::string& words) {
    return told.out.find(words) != std::string::npos;
  };
  const auto failover = test::failovers(cluster).front();
  CHECK(says("PostgreSQL main   primary dead, no primary for certain\n"));
  CHECK(says(" ago  connection refused\n"));
  CHECK(says("\n" + gone + " is dead: connection refused"));
  CHECK(says("\nBlocked: the last failover"));
  CHECK(says("\nLast failover: pg-a to " + gone + ", 20"));
  CHECK(says("\n  run " + failover.id + ", by agent "));
  CHECK(says("after the first sign of trouble, first write after "));
  CHECK(says("lost\n"));
  CHECK(says("\n  not acknowledged: until 20"));
  CHECK(told.out.ends_with("\nnext: zx -c " + cluster.config() + " failover ack\n"));
  const auto status = cluster.zx_json({"agent", "status"})["pg"][0];
  CHECK(status["next"] == "zx -c " + cluster.config() + " failover ack");
  const auto move = status["last_move"];
  CHECK(move["run"] == failover.id);
  CHECK(move["from"] == "pg-a");
  CHECK(move["to"] == gone);
  CHECK(move["until_promoted_ms"] > 0);
  CHECK(move["until_first_write_ms"] >= move["until_promoted_ms"]);
  CHECK(move["lost_bytes"].is_number());
  CHECK(status["unfinished_run"].is_null());

  const auto events = test::lines_of(cluster.zx({"agent", "events"}).out);
  REQUIRE(events.size() > 2);
  CHECK(parse_utc(events[0] + "T00:00:00.000Z") != Wall{});
  CHECK(events[1].starts_with("  AT        EVENT"));
  for (const auto& line : events) CHECK_MESSAGE(display_width(line) <= 80, line);
}

TEST_CASE("a run that a person has left unfinished is told, with what ends it") {
  Cluster cluster;
  test::set_policy(cluster, "catchup_deadline", "\"1ms\"");
  test::set_policy(cluster, "automatic", "false");
  cluster.kill("pg-a");
  const auto partial = cluster.zx_json({"failover", "pg", "--to", "pg-b", "--yes"}, 4);
  const auto run = partial["run"].get<std::string>();
  Agent agent(cluster);
  const auto told = cluster.zx({"agent", "status"});
  CAPTURE(told.out);
  const auto says = [&](const std::string& words) {
    return told.out.find(words) != std::string::npos;
  };
  CHECK(says("\nUnfinished: run " + run + " (failover pg), begun by a person"));
  CHECK(says("left: repoint pg-c"));
  CHECK(says("\nAutomatic is off: "));
  CHECK(says("; the agent does not take"));
  CHECK(says("\nLast failover: pg-a to pg-b, 20"));
  CHECK(says(", begun by a person\n"));
  CHECK(told.out.ends_with("\nnext: zx -c " + cluster.config() + " runs resume " + run + "\n"));
  const auto status = cluster.zx_json({"agent", "status"})["pg"][0];
  CHECK(status["unfinished_run"]["run"] == run);
  CHECK(status["unfinished_run"]["only_optional_left"] == true);
  CHECK(status["unfinished_run"]["by_agent"] == false);
  agent.stop();
}

TEST_CASE("what a failover has cost is told, to the commits that were given up") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  for (const std::string node : {"pg-b", "pg-c"}) {
    cluster.sql(node, "ALTER SYSTEM SET primary_conninfo = ''");
    cluster.sql(node, "SELECT pg_reload_conf()");
    REQUIRE(test::eventually(
        [&] { return cluster.sql(node, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"; }));
  }
  for (int i = 0; i < 3; ++i) cluster.sql("pg-a", fmt::format("CREATE TABLE abandoned{} ()", i));
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  const auto move = cluster.zx_json({"agent", "status"})["pg"][0]["last_move"];
  CAPTURE(move.dump());
  CHECK(move["from"] == "pg-a");
  CHECK(move["lost_bytes"] > 0);
  CHECK(move["lost_is_exact"] == true);
  CHECK(move["lost_commits"] >= 3);
  CHECK(std::filesystem::is_directory(move["kept_in"].get<std::string>()));
  const auto told = cluster.zx({"agent", "status"}).out;
  CHECK_MESSAGE(told.find(" given up with ") != std::string::npos, told);
  CHECK_MESSAGE(told.find(move["kept_in"].get<std::string>()) != std::string::npos, told);
  agent.stop();
}

TEST_CASE("a node that is silent is told with how long") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  cluster.kill("pg-c", SIGSTOP);
  CHECK(test::eventually([&] {
    return cluster.zx({"agent", "status"}).out.find("  no answer for ") != std::string::npos;
  }));
  cluster.kill("pg-c", SIGCONT);
  REQUIRE(agent.becomes_healthy());
  // Its host answers, so a person can bring it back; nobody failed over from it, so the agent does
  // not.
  cluster.kill("pg-c");
  const auto rejoin = "\nnext: zx -c " + cluster.config() + " rejoin pg pg-c\n";
  CHECK(test::eventually([&] { return cluster.zx({"agent", "status"}).out.ends_with(rejoin); }));
  CHECK(cluster.zx({"rejoin", "pg", "pg-c", "--yes"}).ok());
  REQUIRE(agent.becomes_healthy());
  CHECK(cluster.zx_json({"agent", "status"})["pg"][0]["next"].is_null());
  agent.stop();
}

TEST_CASE("a second failover within flap_window waits for a person") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  CHECK(cluster.zx({"failover", "ack"}).out.find("there is no failover") != std::string::npos);
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  const auto second = agent.primary();
  cluster.kill(second);
  REQUIRE(test::eventually([&] { return agent.pg()["blocked"] == true; }));
  CHECK(agent.waits_because("is too recent"));
  const auto blocked = agent.pg();
  CHECK(blocked["decision"] == "none");
  CHECK(blocked["verdict"] == "primary_dead");
  CHECK(blocked["primary"].is_null());
  CHECK(agent.text("/metrics").find("zx_pg_blocked{cluster=\"main\"} 1") != std::string::npos);
  CHECK(test::eventually([&] { return test::has_event(cluster, "blocked"); }));
  CHECK(test::failovers(cluster).size() == 1);
  CHECK(cluster.writable().empty());
  check_told(cluster, second);

  const auto acknowledged = cluster.zx_json({"failover", "ack"})["acknowledged"];
  REQUIRE(acknowledged.size() == 1);
  CHECK(acknowledged[0]["run"] == test::failovers(cluster).front().id);
  REQUIRE(test::eventually([&] { return test::events_of(cluster, "rejoined").size() == 2; }));
  REQUIRE(agent.becomes_healthy());
  CHECK(agent.primary() != second);
  CHECK(test::failovers(cluster).size() == 2);
  const auto detected = test::events_of(cluster, "detected");
  REQUIRE(detected.size() == 2);
  const auto move = cluster.zx_json({"agent", "status"})["pg"][0]["last_move"];
  const auto waited =
      parse_utc(move["at"].get<std::string>()) - parse_utc(detected[1]["at"].get<std::string>());
  CHECK(move["until_promoted_ms"] == std::chrono::duration_cast<Millis>(waited).count());
  CHECK(agent.text("/metrics").find("zx_pg_blocked{cluster=\"main\"} 0") != std::string::npos);
  test::check_served(cluster, agent.primary());
  agent.stop();
  CHECK_MESSAGE(agent.log().find(" warning blocked: pg.main") != std::string::npos, agent.log());
  CHECK_MESSAGE(agent.log().find(" info promoted: pg.main") != std::string::npos, agent.log());
}

TEST_CASE("a pause whose time is over is not shown any more") {
  Cluster cluster;
  Agent agent(cluster);
  CHECK(cluster.zx({"agent", "pause", "--for", "1s", "--why", "two\nlines"}).exit == 2);
  CHECK(cluster.zx({"agent", "pause", "--for", "3s"}).ok());
  REQUIRE(test::eventually([&] { return agent.pg()["pause"].is_object(); }));
  CHECK(test::eventually([&] { return agent.pg()["pause"].is_null(); }));
  CHECK(cluster.zx({"agent", "status"}).out.find("\nPaused") == std::string::npos);
  CHECK(agent.text("/metrics").find("zx_pg_paused{cluster=\"main\"} 0") != std::string::npos);
  CHECK(cluster.zx_json({"agent", "resume"})["clusters"].empty());
  agent.stop();
}

TEST_CASE("a command that finds no agent says why") {
  Cluster cluster;
  Agent agent(cluster, "old");
  const auto other = cluster.zx({"agent", "status"});
  CHECK(other.exit == info(Code::unreachable).exit);
  CHECK_MESSAGE(other.err.find("one named old does") != std::string::npos, other.err);
  agent.stop();
  const auto none = cluster.zx({"agent", "status"});
  CHECK_MESSAGE(none.err.find("start it: zx agent run") != std::string::npos, none.err);
}

TEST_CASE("a rejoin that failed is told with why and when it is tried again") {
  Cluster cluster;
  test::without_program(cluster, "pg_rewind");
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  cluster.sql("pg-b", "ALTER SYSTEM SET primary_conninfo = ''");
  cluster.sql("pg-c", "ALTER SYSTEM SET primary_conninfo = ''");
  for (const std::string node : {"pg-b", "pg-c"}) {
    cluster.sql(node, "SELECT pg_reload_conf()");
    REQUIRE(test::eventually(
        [&] { return cluster.sql(node, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"; }));
  }
  cluster.sql("pg-a", "CREATE TABLE abandoned ()");
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] {
    const auto owed = agent.pg()["owed"];
    return !owed.empty() && owed[0].contains("failed");
  }));
  const auto told = cluster.zx({"agent", "status"}).out;
  CHECK_MESSAGE(told.find("rejoin failed") != std::string::npos, told);
  CHECK_MESSAGE(told.find("again in ") != std::string::npos, told);
  agent.stop();
}

TEST_CASE("a paused agent watches and does nothing") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  CHECK(cluster.zx({"agent", "pause", "--for", "0s"}).exit == 2);
  CHECK(cluster.zx_json({"agent", "pause", "--for", "1h", "--why", "kernel update"})["clusters"] ==
        Json{"main"});
  cluster.kill("pg-a");
  REQUIRE(test::eventually([&] { return agent.pg()["verdict"] == "primary_dead"; }));
  CHECK(agent.waits_because("kernel update"));
  const auto paused = agent.pg();
  CHECK(test::says(paused["waits_because"], "paused for "));
  CHECK(paused["decision"] == "none");
  CHECK(paused["blocked"] == true);
  const auto told = cluster.zx({"agent", "status"}).out;
  CHECK_MESSAGE(told.find("\nPaused 20") != std::string::npos, told);
  CHECK_MESSAGE(told.ends_with("\nnext: zx -c " + cluster.config() + " agent resume\n"), told);
  CHECK(agent.text("/metrics").find("zx_pg_paused{cluster=\"main\"} 1") != std::string::npos);
  CHECK(test::failovers(cluster).empty());
  CHECK(cluster.writable().empty());

  CHECK(cluster.zx_json({"agent", "resume"})["clusters"] == Json{"main"});
  REQUIRE(test::eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, agent.primary());
  CHECK(test::failovers(cluster).size() == 1);
  CHECK(cluster.zx_json({"agent", "resume"})["clusters"].empty());
  agent.stop();
}

// Each line of Prometheus' text is a comment, or a name, labels and a number; each name is told of
// before its first value, once.
void check_form(const std::string& text) {
  CHECK(text.ends_with("\n"));
  std::set<std::string> told;
  for (const auto& line : test::lines_of(text)) {
    CAPTURE(line);
    const auto words = split(line, ' ');
    if (line.starts_with("# TYPE ")) {
      CHECK(told.insert(words[2]).second);
      CHECK((words[3] == "gauge" || words[3] == "counter"));
      CHECK((words[3] == "counter") == words[2].ends_with("_total"));
    } else if (!line.starts_with("# HELP ")) {
      CHECK(line.starts_with("zx_"));
      CHECK(told.contains(line.substr(0, line.find_first_of(" {"))));
      std::size_t used = 0;
      const auto value = line.substr(line.rfind(' ') + 1);
      static_cast<void>(std::stod(value, &used));
      CHECK(used == value.size());
    }
  }
  CHECK(told.contains("zx_pg_up"));
}

TEST_CASE("another user of the host may not speak with the agent") {
  if (geteuid() != 0) return;
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  const auto program = cluster.beside("zx");
  std::filesystem::copy_file(ZX_BINARY, program);
  std::filesystem::permissions(program, std::filesystem::perms(0755));
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"status"}, {"pause", "--for", "1m"}, {"resume"}, {"reload"}}) {
    CAPTURE(join(words, " "));
    os::Argv argv{"/usr/bin/setpriv", "--reuid=nobody", "--regid=nogroup",
                  "--clear-groups",   program,          "-c",
                  cluster.config(),   "agent"};
    argv.insert(argv.end(), words.begin(), words.end());
    const auto result = test::run_program(argv);
    CHECK(result.exit == 8);
    CHECK_MESSAGE(test::says(result.err, "no permission to speak with the agent"), result.err);
  }
  CHECK(agent.pg()["pause"].is_null());
  agent.stop();
}

TEST_CASE("anybody may read, and nobody may change anything, over TCP") {
  Cluster cluster;
  Agent agent(cluster);
  REQUIRE(agent.becomes_healthy());
  for (const char* path : {"/reload", "/pause", "/resume", "/ack", "/status", "/nothing"}) {
    CAPTURE(path);
    const auto answer = agent.fetch(path, "POST");
    REQUIRE(answer.has_value());
    CHECK(answer->status == 405);
    CHECK(answer->header("allow") == "GET, HEAD");
  }
  CHECK(agent.status_of("/events") == 404);
  CHECK(agent.status_of("/pg/pg-z/primary") == 404);
  CHECK(agent.status_of("/pg/replica?lag=much") == 400);
  CHECK(agent.status_of("/pg/pg-b/replica?lag=16MiB") == 200);
  CHECK(agent.pg()["pause"].is_null());

  const auto sockets = cluster.state_dir() + "/agents";
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(sockets)) {
    if (!entry.is_socket()) continue;
    struct stat about {};
    REQUIRE(stat(entry.path().c_str(), &about) == 0);
    CHECK((about.st_mode & 07777) == 0600);
    ++found;
  }
  CHECK(found == 1);

  const auto text = agent.text("/metrics");
  check_form(text);
  const char* promtool = "/usr/bin/promtool";
  if (os::exists(promtool)) {
    os::ProcessOptions options;
    options.input = text;
    const auto checked = test::run_program({promtool, "check", "metrics"}, options);
    CHECK_MESSAGE(checked.ok(), (checked.out + checked.err));
    CHECK(checked.err.empty());
  } else {
    MESSAGE("promtool is not here: only the form of the text was checked");
  }
  agent.stop();
  CHECK(std::filesystem::is_empty(sockets));
}

}  // namespace
}  // namespace zx
