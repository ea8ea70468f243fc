// What stands in the way of a failover: a full disk, a supervisor that starts the old primary
// again, a candidate that does not promote.
#include <sys/mount.h>

#include <fstream>

#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Background;
using test::Cluster;
using test::done;
using test::only;
using test::roles_on_disk;
using test::says;
using test::step_of;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

void set_state_dir(const Cluster& cluster, const std::string& path) {
  cluster.edit_config("state_dir = \"" + cluster.state_dir() + "\"",
                      "state_dir = \"" + path + "\"");
}

// A file system of one mebibyte.
class TinyDisk {
 public:
  explicit TinyDisk(std::string path) : path_(std::move(path)) {
    std::filesystem::create_directories(path_);
    is_there_ = mount("tmpfs", path_.c_str(), "tmpfs", 0, "size=1m") == 0;
  }
  ~TinyDisk() {
    if (is_there_) umount2(path_.c_str(), MNT_DETACH);
  }
  TinyDisk(const TinyDisk&) = delete;
  TinyDisk& operator=(const TinyDisk&) = delete;
  [[nodiscard]] bool is_there() const { return is_there_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  // Leaves `room` bytes free.
  void fill(std::uintmax_t room) const {
    const auto free = std::filesystem::space(path_).available;
    std::ofstream(path_ + "/filler", std::ios::binary) << std::string(free - room, 'x');
  }
  void empty() const { std::filesystem::remove(path_ + "/filler"); }

 private:
  std::string path_;
  bool is_there_ = false;
};

TEST_CASE("a full disk of the journal is found before anything is done") {
  Cluster cluster;
  const TinyDisk disk(cluster.beside("tiny"));
  if (!disk.is_there()) {
    MESSAGE("skipped: a file system can only be mounted by root");
    return;
  }
  set_state_dir(cluster, disk.path());
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto before = roles_on_disk(cluster);
  for (const std::uintmax_t room : {0, 4096, 65536}) {
    CAPTURE(room);
    disk.fill(room);
    const auto refused = cluster.zx_json(kFailover, 3);
    CHECK(refused["outcome"] == "refused");
    CHECK(refused["error"]["code"] == "disk_full");
    CHECK(says(refused["error"]["hint"], "state_dir"));
    CHECK(roles_on_disk(cluster) == before);
    CHECK(cluster.writable().empty());
    // Looking goes on without a journal.
    CHECK(cluster.zx({"status"}).exit == 0);
    disk.empty();
    CHECK(cluster.zx_json({"runs", "list"})["runs"].empty());
  }
  done(cluster, kFailover);
}

TEST_CASE("a state_dir that cannot be written stops zx before anything is done") {
  Cluster cluster;
  test::write(cluster.beside("file"), "");
  set_state_dir(cluster, cluster.beside("file") + "/state");
  cluster.kill("pg-a");
  const auto before = roles_on_disk(cluster);
  const auto failed = cluster.zx(kFailover);
  CHECK(failed.exit != 0);
  CHECK(failed.exit != 4);
  CHECK_MESSAGE(failed.err.find(cluster.beside("file")) != std::string::npos, failed.err);
  CHECK(roles_on_disk(cluster) == before);
  CHECK(cluster.writable().empty());
}

TEST_CASE("a server that zx starts has nothing of its caller's") {
  Cluster cluster;
  cluster.kill("pg-b");
  const auto held = cluster.beside("held");
  const auto rejoined =
      test::run_program({"sh", "-c",
                         "exec 9> " + held + "; PGOPTIONS='-c work_mem=9MB' PGDATABASE=none " +
                             ZX_BINARY + " -c " + cluster.config() + " rejoin pg pg-b --yes"});
  REQUIRE_MESSAGE(rejoined.ok(), rejoined.err);
  const auto dir = test::data_dir(cluster, "pg-b");
  const auto process = "/proc/" + test::lines_of(test::read(dir + "/postmaster.pid")).front();
  const auto environment = test::read(process + "/environ");
  CHECK(environment.find("PGOPTIONS") == std::string::npos);
  CHECK(environment.find("PGDATABASE") == std::string::npos);
  int descriptors = 0;
  for (const auto& entry : std::filesystem::directory_iterator(process + "/fd")) {
    std::error_code gone;
    CHECK(std::filesystem::read_symlink(entry, gone) != held);
    ++descriptors;
  }
  CHECK(descriptors > 3);
  CHECK(cluster.sql("pg-b", "SHOW work_mem") == "4MB");
}

// Starts a server again as soon as it is down, whatever zx wants: systemd with Restart=always.
class Supervisor {
 public:
  Supervisor(const Cluster& cluster, std::string node, std::string only_with = {})
      : cluster_(cluster),
        node_(std::move(node)),
        flag_(std::move(only_with)),
        thread_([this] { watch(); }) {}
  ~Supervisor() { end(); }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  // How often it has started the server.
  int end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
    return started_;
  }
  [[nodiscard]] int started() const { return started_; }

 private:
  void watch() {
    while (!ended_) {
      if (flag_.empty() || std::filesystem::exists(flag_)) {
        const auto started = cluster_.lab().start(node_, Millis(5000));
        if (started && *started) ++started_;
      }
      pause_for(Millis(2));
    }
  }
  const Cluster& cluster_;
  std::string node_, flag_;
  std::atomic<bool> ended_{false};
  std::atomic<int> started_{0};
  std::thread thread_;
};

TEST_CASE("an old primary that is started again during the failover is no second primary") {
  Cluster cluster;
  test::reconnect_at_once(cluster);
  test::Ledger ledger(cluster);
  test::Sampler sampler(cluster);
  int failed_over = 0;
  // The supervisor wakes up at these lines of the journal: frozen, chosen, fenced, promoted, …
  for (const int line : {1, 4, 6, 8, 9, 11, 15}) {
    CAPTURE(line);
    const auto primary = test::the_primary(cluster);
    const auto timeline = test::timeline_of(cluster, primary);
    ledger.commit(primary);
    cluster.kill(primary);
    test::Halted zx(cluster, line, kFailover);
    Supervisor supervisor(cluster, primary);
    CHECK(test::eventually([&] { return supervisor.started() > 0; }));
    zx.go_on();
    const int exit = zx.finish();
    CAPTURE(zx.output());
    const auto now = test::the_primary(cluster);
    CHECK(ledger.complete(now));
    if (exit == 0) {
      ++failed_over;
      CHECK(now != primary);
      CHECK(test::timeline_of(cluster, now) == timeline + 1);
      CHECK(test::newest_run(cluster).outcome == "done");
      supervisor.end();
      done(cluster, {"rejoin", "pg", primary, "--yes"});
    } else {
      // It was alive again before it was fenced: nothing has changed.
      CHECK(exit == 3);
      CHECK(line < 8);
      CHECK(now == primary);
      CHECK(test::timeline_of(cluster, primary) == timeline);
      CHECK(test::newest_run(cluster).outcome == "refused");
    }
    REQUIRE(test::all_stream_from(cluster, now));
  }
  CHECK(failed_over >= 4);
  CHECK(sampler.finish().empty());
}

TEST_CASE("an old primary that is started again after the failover stays a standby") {
  Cluster cluster;
  // start and stop of the node are the supervisor's own, as with a unit of systemd.
  const auto flag = cluster.beside("wanted");
  test::write(flag, "");
  test::set_in(cluster, "pg.main.nodes.pg-a",
               "start = [\"touch\", \"" + flag + "\"]\nstop = [\"rm\", \"-f\", \"" + flag + "\"]");
  test::Sampler sampler(cluster);
  cluster.kill("pg-a");
  const auto now = done(cluster, kFailover)["promoted"].get<std::string>();
  Supervisor supervisor(cluster, "pg-a", flag);
  CHECK(test::eventually([&] { return supervisor.started() > 0; }));
  CHECK(cluster.writable() == only(now));
  CHECK(cluster.node("pg-a")["role"] == "standby");
  // Killed, it comes back the same.
  cluster.kill("pg-a");
  CHECK(test::eventually([&] { return supervisor.started() > 1; }));
  CHECK(cluster.writable() == only(now));
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(test::all_stream_from(cluster, now));
  CHECK(cluster.verdict() == "healthy");
  CHECK(sampler.finish().empty());
}

pid_t startup_process(const Cluster& cluster, const std::string& node) {
  return std::stoi(
      cluster.sql(node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"));
}

TEST_CASE("a promotion that does not come in time is waited for by resume and comes once") {
  Cluster cluster;
  test::set_policy(cluster, "promote_deadline", "\"300ms\"");
  test::Sampler sampler(cluster);
  const auto startup = startup_process(cluster, "pg-b");
  REQUIRE(kill(startup, SIGSTOP) == 0);
  cluster.kill("pg-a");
  const auto partial = cluster.zx_json({"failover", "pg", "--to", "pg-b", "--yes"}, 4);
  CHECK(partial["outcome"] == "partial");
  CHECK(partial["error"]["code"] == "partial");
  const auto run = partial["run"].get<std::string>();
  CHECK(says(partial["error"]["hint"], "zx runs resume " + run));
  CHECK(step_of(partial, "promote")["state"] == "failed");
  CHECK(cluster.writable().empty());

  // The request stands: nothing else may be promoted, and it cannot be taken back.
  CHECK(cluster.zx({"failover", "pg", "--to", "pg-c", "--yes"}).exit == 3);
  CHECK(cluster.zx({"runs", "abort", run}).exit == 3);
  CHECK(cluster.zx_json({"runs", "resume", run}, 4)["outcome"] == "partial");

  REQUIRE(kill(startup, SIGCONT) == 0);
  const auto resumed = cluster.zx_json({"runs", "resume", run});
  CHECK(resumed["outcome"] == "done");
  CHECK(resumed["promoted"] == "pg-b");
  CHECK(cluster.writable() == only("pg-b"));
  CHECK(test::timeline_of(cluster, "pg-b") == 2);
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(test::all_stream_from(cluster, "pg-b"));
  CHECK(sampler.finish().empty());
}

}  // namespace
}  // namespace zx
