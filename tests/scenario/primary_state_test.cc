// What a primary can be besides alive and dead, and what zx makes of it.
#include <thread>

#include "lib/pg/observe.h"
#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::Background;
using test::Cluster;
using test::done;
using test::eventually;
using test::only;
using test::receivers;
using test::refused;
using test::roles_on_disk;
using test::says;
using test::step_of;
using test::Writer;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

TEST_CASE("a frozen primary is silent: failed over, ended by force, no primary when it thaws") {
  const Cluster cluster;
  Writer writer(cluster);
  cluster.kill("pg-a", SIGSTOP);
  const auto report = done(cluster, kFailover);
  const auto promoted = report["promoted"].get<std::string>();
  CHECK(promoted != "pg-a");
  const auto fence = step_of(report, "fence");
  CHECK(fence["state"] == "done");
  CHECK(fence["seen"]["killed"] == true);  // it does not hear anything milder

  const auto thawed = cluster.lab().kill("pg-a", SIGCONT);
  REQUIRE(thawed.has_value());
  CHECK(*thawed == 0);
  CHECK(cluster.writable() == only(promoted));
  CHECK(cluster.start("pg-a"));
  CHECK(cluster.writable() == only(promoted));

  const auto written = writer.finish();
  CHECK(written.acknowledged > 10);
  if (report["lost_bytes"] == 0) CHECK(written.lost == 0);
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a primary that was frozen for a moment is alive") {
  const Cluster cluster;
  cluster.kill("pg-a", SIGSTOP);

  SUBCASE("before zx looked") {
    cluster.kill("pg-a", SIGCONT);
    const auto before = receivers(cluster);
    CHECK(says(refused(cluster, kFailover)["error"], "pg-a is alive"));
    CHECK(receivers(cluster) == before);
  }
  SUBCASE("while zx looks") {
    // Silence this long is not waited for here: the primary speaks before.
    test::set_policy(cluster, "silent_after", "\"50s\"");
    const auto before = roles_on_disk(cluster);
    Background failover({ZX_BINARY, "-c", cluster.config(), "failover", "pg", "--yes"});
    // Each look takes the whole probe deadline now: when this one is over, one of the other is too.
    CHECK(cluster.verdict() == "primary_unreachable");
    cluster.kill("pg-a", SIGCONT);
    CHECK(failover.finish() == 3);
    CHECK_MESSAGE(failover.output().find("pg-a is alive") != std::string::npos, failover.output());
    CHECK(roles_on_disk(cluster) == before);
  }
  CHECK(cluster.writable() == only("pg-a"));
  CHECK(eventually([&] { return cluster.verdict() == "healthy"; }));
}

TEST_CASE("a primary that was shut down cleanly is failed over without loss") {
  const Cluster cluster;
  Writer writer(cluster);
  cluster.kill("pg-a", SIGINT);
  REQUIRE(test::is_down(cluster, "pg-a"));
  const auto report = done(cluster, kFailover);
  CHECK(report["lost_bytes"] == 0);
  CHECK(step_of(report, "receipt")["seen"]["exact"] == true);
  const auto promoted = report["promoted"].get<std::string>();
  CHECK(cluster.writable() == only(promoted));
  CHECK(cluster.start("pg-a"));
  CHECK(cluster.writable() == only(promoted));
  const auto written = writer.finish();
  CHECK(written.acknowledged > 10);
  CHECK(written.lost == 0);
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a primary without a free connection is overloaded, not dead") {
  const Cluster cluster;
  const auto before = receivers(cluster);
  const auto config = config::load(cluster.config());
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  const auto target = pg::target_of(*config, config->pg.front(), "pg-a");
  REQUIRE(target.has_value());
  std::vector<pg::Client> clients;
  const auto full = [&] {
    auto client = pg::Client::open(*target, Deadline::after(test::kPatience));
    if (client) clients.push_back(std::move(*client));
    return !client && client.error().why == pg::Failure::too_many_connections;
  };
  REQUIRE(eventually(full));

  CHECK(cluster.verdict() == "primary_overloaded");
  CHECK(cluster.node("pg-a")["state"] == "overloaded");
  const auto report = refused(cluster, kFailover);
  CHECK(report["verdict"]["state"] == "primary_overloaded");
  CHECK(says(report["error"]["hint"], "max_connections"));
  CHECK(receivers(cluster) == before);

  clients.clear();
  CHECK(eventually([&] { return cluster.writable() == only("pg-a"); }));
  CHECK(eventually([&] { return cluster.verdict() == "healthy"; }));
}

TEST_CASE("with a wrong password nothing is known, and the primary is not called dead") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  const auto before = receivers(cluster);
  const auto file = cluster.lab().dir() + "/secrets/zx.pass";
  const auto password = test::read(file);
  test::write(file, "wrong\n");

  CHECK(cluster.verdict() == "unknown");
  CHECK(says(cluster.node("pg-a")["note"], "authentication failed"));
  const auto report = refused(cluster, kFailover);
  CHECK(report["verdict"]["state"] == "unknown");
  CHECK(says(report["error"]["hint"], "password_file"));
  CHECK(receivers(cluster) == before);
  CHECK(cluster.writable() == only("pg-a"));

  // The standbys cannot be asked either: this host may be the one that is cut off.
  cluster.kill("pg-a");
  CHECK(refused(cluster, kFailover)["verdict"]["state"] == "unknown");
  test::write(file, password);
  done(cluster, kFailover);
}

TEST_CASE("a password that cannot be read is said so, and nobody is asked") {
  const Cluster cluster;
  const auto file = cluster.lab().dir() + "/secrets/zx.pass";
  std::string words;
  SUBCASE("missing") {
    REQUIRE(unlink(file.c_str()) == 0);
    words = "No such file";
  }
  SUBCASE("readable by others") {
    REQUIRE(chmod(file.c_str(), 0644) == 0);
    words = "chmod 600";
  }
  SUBCASE("empty") {
    test::write(file, "");
    words = "is empty";
  }
  SUBCASE("a pipe, which would be waited for") {
    REQUIRE(unlink(file.c_str()) == 0);
    REQUIRE(mkfifo(file.c_str(), 0600) == 0);
    words = "not a regular file";
  }
  const auto before = roles_on_disk(cluster);
  for (const auto& command : {std::vector<std::string>{"status"}, kFailover}) {
    const auto result = cluster.zx(command);
    CAPTURE(result.err);
    CHECK(result.exit == 6);
    CHECK(result.err.find(file) != std::string::npos);
    CHECK(result.err.find(words) != std::string::npos);
  }
  CHECK(roles_on_disk(cluster) == before);
}

TEST_CASE("an idle primary's standbys are eligible, however long ago they heard from it") {
  const Cluster cluster;
  test::add_row(cluster, "pg-a", 1);
  const auto age =
      "SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time) > 4"
      " FROM pg_stat_wal_receiver WHERE status = 'streaming'";
  for (const char* standby : {"pg-b", "pg-c"})
    REQUIRE(eventually([&] { return cluster.sql(standby, age) == "t"; }));
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["verdict"] == "healthy");
  CHECK(status["pg"]["forecast"]["lost_bytes"] == 0);
  CHECK(!status["pg"]["forecast"]["promote"].is_null());
  for (const char* standby : {"pg-b", "pg-c"}) CHECK(cluster.node(standby)["lag_bytes"] == 0);

  cluster.kill("pg-a");
  const auto report = done(cluster, kFailover);
  CHECK(report["lost_bytes"] == 0);
  CHECK(test::rows(cluster, report["promoted"].get<std::string>()) == "1");
}

// pg-a was given up unheard and starts again when pg-b, which took over, is down; pg-c has what was
// committed meanwhile.
void bring_back_alone(const Cluster& cluster) {
  for (const auto& member : cluster.lab().members()) {
    cluster.sql(member.name, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
    cluster.sql(member.name, "SELECT pg_reload_conf()");
  }
  CHECK(cluster.verdict() == "healthy");
  const auto before = test::read(cluster.config());
  cluster.edit_config("remote = []", "remote = [\"/bin/false\"]");  // of the first, lab-a
  cluster.kill("pg-a");
  done(cluster, {"failover", "pg", "--to", "pg-b", "--yes", "--assume-fenced"});
  test::add_row(cluster, "pg-b", 1);
  REQUIRE(test::has_all_of(cluster, "pg-c", "pg-b"));
  cluster.kill("pg-b");
  test::write(cluster.config(), before);
  REQUIRE(cluster.start("pg-a"));
  REQUIRE(cluster.writable() == only("pg-a"));
}

TEST_CASE("a primary that was given up and is back alone is not believed by the commands") {
  const Cluster cluster;
  bring_back_alone(cluster);
  const auto status = cluster.zx_json({"status"})["pg"];
  CHECK_MESSAGE(says(status["problems"], "pg-c is on timeline 2"), status.dump());
  CHECK_MESSAGE(says(status["problems"], "pg-a was given up in run "), status.dump());
  CHECK(status["forecast"].is_null());
  CHECK(cluster.node("pg-c")["lag_bytes"].is_null());
  const auto shown = cluster.zx({"status"}).out;
  CHECK_MESSAGE(says(shown, "restart its server there"), shown);
  CHECK_MESSAGE(!says(shown, "0 bytes lost"), shown);

  for (const char* node : {"pg-b", "pg-c"}) {
    const auto report = refused(cluster, {"rejoin", "pg", node, "--yes"});
    CHECK_MESSAGE(says(report["error"], "later than timeline 1 of pg-a"), report.dump());
    CHECK_MESSAGE(says(report["error"], "was given up in run "), report.dump());
    CHECK(says(report["error"]["hint"], "zx failover pg"));
    CHECK(cluster.zx_json({"rejoin", "pg", node, "--dry-run"})["gives_up_newer"] == true);
  }
  const auto report = refused(cluster, kFailover);
  CHECK_MESSAGE(says(report["error"], "pg-a is alive"), report.dump());
  CHECK_MESSAGE(says(report["error"]["hint"], "restart its server there"), report.dump());

  SUBCASE("as a standby it gives way to what was committed after it") {
    const auto signal = test::data_dir(cluster, "pg-a") + "/standby.signal";
    CHECK_MESSAGE(says(report["error"]["hint"], "touch " + signal), report.dump());
    test::write(signal, "");
    cluster.kill("pg-a", SIGINT);
    REQUIRE(test::is_down(cluster, "pg-a"));
    REQUIRE(cluster.start("pg-a"));
    CHECK(done(cluster, kFailover)["promoted"] == "pg-c");
    CHECK(test::rows(cluster, "pg-c") == "1");
    done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
    CHECK(eventually([&] { return test::rows(cluster, "pg-a") == "1"; }));
  }
  SUBCASE("a person may give up what was committed after it") {
    done(cluster, {"rejoin", "pg", "pg-c", "--confirm", "pg-c"});
    CHECK(cluster.writable() == only("pg-a"));
    CHECK(cluster.streams("pg-c"));
  }
}

// The startup process among the children of a postmaster, by its title.
pid_t startup_of(const std::string& postmaster) {
  const auto task = "/proc/" + postmaster + "/task/" + postmaster + "/children";
  for (const auto& child : split(os::read_file(task).value_or(""), ' ')) {
    const auto words = os::read_file("/proc/" + child + "/cmdline", 4096);
    if (words && words->find("startup") != std::string::npos) return std::stoi(child);
  }
  return 0;
}

// Starts the killed pg-a and stops its crash recovery in the middle. Returns the stopped process.
pid_t start_halfway(const Cluster& cluster) {
  const auto pid_file = test::data_dir(cluster, "pg-a") + "/postmaster.pid";
  const auto try_once = [&]() -> pid_t {
    // The killed one's file says that it is ready, and stays until the next one's.
    const auto stale = os::read_file(pid_file).value_or("");
    // Does not wait until it is ready: it never will be.
    std::thread starter([&] { (void)cluster.lab().start("pg-a", Millis(1)); });
    const auto deadline = Deadline::after(Millis(5'000));
    pid_t startup = 0;
    bool ready = false;
    while (startup == 0 && !ready && !deadline.passed()) {
      const auto text = os::read_file(pid_file).value_or("");
      ready = text != stale && text.find("ready") != std::string::npos;
      startup = startup_of(text.substr(0, text.find('\n')));
    }
    if (startup > 0 && ::kill(startup, SIGSTOP) != 0) startup = 0;
    starter.join();
    return startup;
  };
  pid_t startup = 0;
  REQUIRE(eventually([&] {
    startup = try_once();
    const auto words = test::psql(cluster.lab(), "pg-a", "SELECT 1").err;
    if (startup > 0 && words.find("starting up") != std::string::npos) return true;
    (void)cluster.lab().kill("pg-a");  // it was faster
    return false;
  }));
  return startup;
}

TEST_CASE("a primary that is starting up is waited for, and is not dead") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  test::add_row(cluster, "pg-a", 1);
  test::write_wal(cluster, "pg-a", 60);  // something to recover
  cluster.kill("pg-a");
  const auto startup = start_halfway(cluster);
  CHECK(cluster.verdict() == "primary_starting");
  CHECK(cluster.node("pg-a")["state"] == "starting");

  SUBCASE("it comes back within the grace") {
    test::set_policy(cluster, "planned_restart_grace", "\"60s\"");
    const auto before = roles_on_disk(cluster);
    const auto log = cluster.lab().node("pg-a")->log;
    const auto asked = [&] {
      const auto text = test::read(log);
      int count = 0;
      for (const auto& line : test::lines_of(text))
        if (line.find("zx@postgres FATAL:  the database system is starting") != std::string::npos)
          ++count;
      return count;
    };
    const auto already = asked();
    Background failover({ZX_BINARY, "-c", cluster.config(), "failover", "pg", "--yes"});
    CHECK(eventually([&] { return asked() >= already + 3; }));
    CHECK(cluster.writable().empty());
    REQUIRE(::kill(startup, SIGCONT) == 0);
    CHECK(failover.finish() == 3);
    CHECK_MESSAGE(failover.output().find("pg-a is alive") != std::string::npos, failover.output());
    CHECK(roles_on_disk(cluster) == before);
    CHECK(eventually([&] { return cluster.verdict() == "healthy"; }));
    CHECK(test::rows(cluster, "pg-a") == "1");
  }
  SUBCASE("it does not: it accepts no writes, and is fenced before anything else") {
    test::set_policy(cluster, "planned_restart_grace", "\"1s\"");
    const auto report = done(cluster, kFailover);
    const auto promoted = report["promoted"].get<std::string>();
    (void)cluster.lab().kill("pg-a", SIGCONT);
    CHECK(cluster.start("pg-a"));
    CHECK(cluster.writable() == only(promoted));
    CHECK(test::rows(cluster, promoted) == "1");
  }
}

}  // namespace
}  // namespace zx
