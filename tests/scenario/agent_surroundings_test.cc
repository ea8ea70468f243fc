// What an agent's own host may do to it: a resolver that hangs, a clock that jumps.
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "tests/scenario/agent.h"

namespace zx {
namespace {

using test::Agent;
using test::Cluster;
using test::eventually;

// The files by which a process resolves names, in a mount namespace of its own. The name server
// never answers.
class Resolver {
 public:
  explicit Resolver(const Cluster& cluster)
      : hosts_(cluster.beside("hosts")), conf_(cluster.beside("resolv.conf")) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(53);
    REQUIRE(inet_pton(AF_INET, kServer, &address.sin_addr) == 1);
    server_ = os::Descriptor(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    is_there_ = geteuid() == 0 &&
                bind(server_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    answers();
    test::write(conf_, std::string("nameserver ") + kServer + "\noptions timeout:30 attempts:5\n");
    is_there_ = is_there_ && test::run_program(in_front_of({"/bin/true"})).ok();
  }
  [[nodiscard]] bool is_there() const { return is_there_; }
  [[nodiscard]] os::Argv in_front_of(const os::Argv& words) const {
    os::Argv argv{"/usr/bin/unshare",
                  "--mount",
                  "/bin/sh",
                  "-c",
                  "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && "
                  "shift 2 && exec \"$@\"",
                  "sh",
                  hosts_,
                  conf_};
    argv.insert(argv.end(), words.begin(), words.end());
    return argv;
  }
  void answers() const { test::write(hosts_, "127.0.0.1 localhost\n"); }
  void hangs() const { test::write(hosts_, "\n"); }

 private:
  static constexpr const char* kServer = "127.0.0.153";
  std::string hosts_, conf_;
  os::Descriptor server_;
  bool is_there_ = false;
};

long threads_of(pid_t pid) {
  const auto tasks = std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid));
  return std::distance(begin(tasks), end(tasks));
}

TEST_CASE("a resolver that hangs keeps nobody from noticing and replacing a dead primary") {
  const Cluster cluster;
  const Resolver resolver(cluster);
  if (!resolver.is_there()) {
    MESSAGE("skipped: a resolver of its own needs root");
    return;
  }
  auto text = test::read(cluster.config());
  const std::string numeric = "address = \"127.0.0.1\"";
  for (auto at = text.find(numeric); at != std::string::npos; at = text.find(numeric))
    text.replace(at, numeric.size(), "address = \"localhost\"");
  test::write(cluster.config(), text);
  // Programs that it starts have no last known address: they wait for the resolver.
  test::set_policy(cluster, "rejoin", "\"manual\"");
  REQUIRE(text.find("localhost") != std::string::npos);
  Agent agent(cluster, {}, {}, resolver.in_front_of({}));
  REQUIRE(agent.becomes_healthy());
  const auto threads = threads_of(agent.pid());
  resolver.hangs();
  test::Sampler sampler(cluster);
  test::Writer writer(cluster);
  cluster.kill("pg-a");
  REQUIRE(eventually([&] { return test::has_event(cluster, "first_write"); }));
  const auto promoted = test::the_primary(cluster);
  REQUIRE(eventually([&] { return agent.primary() == promoted; }));
  CHECK(promoted != "pg-a");
  CHECK(test::failovers(cluster).size() == 1);
  // Each look is a lookup again, as long as the old primary is gone; one of a name waits at most.
  const auto looks = agent.looks();
  REQUIRE(eventually([&] { return agent.looks() > looks + 20; }));
  CHECK(threads_of(agent.pid()) <= threads + 4);
  resolver.answers();
  cluster.edit_config("rejoin = \"manual\"", "rejoin = \"rewind\"");
  CHECK(cluster.zx({"agent", "reload"}).ok());
  REQUIRE(eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, promoted);
  CHECK(writer.finish().acknowledged > 10);
  CHECK(sampler.finish().empty());
  agent.stop();
}

// The wall clock of all that is started while it lives, and a library of the tests that shifts it.
class WallClock {
 public:
  WallClock(const test::Directory& directory, const std::string& name) : path_(directory / name) {
    set(std::chrono::hours(0));
  }
  void set(std::chrono::hours by) const {
    const std::int64_t seconds = std::chrono::seconds(by).count();
    const os::Descriptor file(open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(pwrite(file.get(), &seconds, sizeof seconds, 0) == sizeof seconds);
  }
  // Beside the other programs of the tests.
  static std::string library() {
    return std::filesystem::path(ZX_WRITER).parent_path() / "libshifted_clock.so";
  }
  [[nodiscard]] std::string variable() const { return "ZX_TEST_CLOCK=" + path_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST_CASE("clocks that jump by an hour fail nothing over, end no pause and open no window") {
  const test::Directory directory;
  REQUIRE(chmod(directory.path().c_str(), 0711) == 0);
  const WallClock servers(directory, "servers"), agents(directory, "agent");
  setenv("LD_PRELOAD", WallClock::library().c_str(), 1);
  setenv("ZX_TEST_CLOCK", servers.path().c_str(), 1);
  const Cluster cluster;
  unsetenv("LD_PRELOAD");
  unsetenv("ZX_TEST_CLOCK");
  Agent agent(cluster, {},
              {"LD_PRELOAD=" + WallClock::library(), agents.variable(),
               "ASAN_OPTIONS=verify_asan_link_order=0"});
  REQUIRE(agent.becomes_healthy());
  test::Writer writer(cluster);
  const auto changes_nothing = [&] {
    const auto looks = agent.looks();
    REQUIRE(eventually([&] { return agent.looks() > looks + 10; }));
    REQUIRE(agent.becomes_healthy());
    CHECK(agent.status_of("/pg/pg-a/primary") == 200);
    CHECK(test::all_stream_from(cluster, "pg-a"));
    CHECK(test::failovers(cluster).empty());
  };
  for (const auto by : {1, -1, 0}) {
    CAPTURE(by);
    agents.set(std::chrono::hours(by));
    changes_nothing();
    servers.set(std::chrono::hours(by));
    changes_nothing();
  }
  const auto written = writer.finish();
  CHECK(written.errors == 0);
  CHECK(written.lost == 0);
  CHECK(test::timeline_of(cluster, "pg-a") == 1);

  // A pause of ten minutes is not over, nor is it longer.
  CHECK(cluster.zx({"agent", "pause", "--for", "10m"}).ok());
  REQUIRE(eventually([&] {
    return agent.text("/metrics").find("zx_pg_paused{cluster=\"main\"} 1") != std::string::npos;
  }));
  agents.set(std::chrono::hours(1));
  cluster.kill("pg-a");
  REQUIRE(eventually([&] { return agent.pg()["verdict"] == "primary_dead"; }));
  CHECK(agent.waits_because("paused for 9"));
  agents.set(std::chrono::hours(-1));
  const auto looks = agent.looks();
  REQUIRE(eventually([&] { return agent.looks() > looks + 10; }));
  CHECK(agent.waits_because("paused for 9"));
  CHECK(cluster.writable().empty());
  CHECK(cluster.zx({"agent", "resume"}).ok());
  REQUIRE(eventually([&] { return test::has_event(cluster, "rejoined"); }));
  REQUIRE(agent.becomes_healthy());

  // The window of an hour after that failover.
  agents.set(std::chrono::hours(1));
  const auto second = agent.primary();
  cluster.kill(second);
  CHECK(agent.waits_because("is too recent"));
  agents.set(std::chrono::hours(-1));
  CHECK(agent.waits_because("is too recent"));
  CHECK(test::failovers(cluster).size() == 1);
  CHECK(cluster.zx({"failover", "ack"}).ok());
  REQUIRE(eventually([&] { return !agent.primary().empty() && agent.primary() != second; }));
  REQUIRE(agent.becomes_healthy());
  test::check_served(cluster, agent.primary());
  CHECK(test::failovers(cluster).size() == 2);
  agent.stop();
}

}  // namespace
}  // namespace zx
