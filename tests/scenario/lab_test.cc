#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/lab/lab.h"
#include "lib/os/files.h"
#include "tests/scenario/cluster.h"

namespace zx {
namespace {

using test::ask;
using test::eventually;
using test::kPatience;
using test::LabDirectory;
using test::psql;
using test::why;

lab::Options options_for(const LabDirectory& dir, int servers) {
  lab::Options options;
  options.dir = dir.path();
  options.pg = servers;
  options.redis = 0;
  options.deadline = kPatience;
  return options;
}

lab::Up must_up(const lab::Options& options) {
  auto up = lab::up(options);
  REQUIRE_MESSAGE(up.has_value(), why(up));
  return *std::move(up);
}

lab::Node node_of(const lab::Lab& lab, const std::string& name) {
  const auto node = lab.node(name);
  REQUIRE_MESSAGE(node.has_value(), why(node));
  return *node;
}

// PostgreSQL processes whose working directory is in the lab, however deep: by another way than
// the lab's own.
int processes_below(const std::string& dir) {
  int count = 0;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", code)) {
    const auto cwd = std::filesystem::read_symlink(entry.path() / "cwd", code).string();
    if (!code && cwd.starts_with(dir + "/")) ++count;
  }
  return count;
}

mode_t mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE_MESSAGE(stat(path.c_str(), &found) == 0, path);
  return found.st_mode & 07777;
}

// `up` in a process of its own, so that it can be killed.
class Upper {
 public:
  explicit Upper(const lab::Options& options) : pid_(fork()) {
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) _exit(lab::up(options) ? 0 : 1);
  }
  ~Upper() { kill(); }
  Upper(const Upper&) = delete;
  Upper& operator=(const Upper&) = delete;
  void pause() const { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_;
};

TEST_CASE("a lab has a primary with five databases, and standbys that stream from it") {
  const LabDirectory dir;
  std::vector<std::string> said;
  auto up = lab::up(options_for(dir, 3), [&](const std::string& text) { said.push_back(text); });
  REQUIRE_MESSAGE(up.has_value(), why(up));
  CHECK(up->was_built);
  CHECK(up->started == std::vector<std::string>{"pg-a", "pg-b", "pg-c"});
  CHECK(!said.empty());
  const auto& lab = up->lab;

  const auto nodes = lab.nodes();
  REQUIRE(nodes.has_value());
  REQUIRE(nodes->size() == 3);
  for (const auto& node : *nodes) {
    CAPTURE(node.name);
    CHECK(node.is_running());
    CHECK(node.role == (node.name == "pg-a" ? "primary" : "standby"));
    CHECK(ask(lab, node.name, "SHOW cluster_name") == node.name);
    CHECK(ask(lab, node.name, "SHOW data_directory") == node.data_dir);
    CHECK(ask(lab, node.name, "SHOW data_checksums") == "on");
    CHECK(ask(lab, node.name, "SHOW wal_log_hints") == "on");
    CHECK(ask(lab, node.name, "SHOW fsync") == "on");
    CHECK(os::exists(node.log));
  }
  CHECK(ask(lab, "pg-a",
            "SELECT string_agg(r.application_name || ' ' || s.slot_name, ',' ORDER BY s.slot_name)"
            " FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid"
            " WHERE r.state = 'streaming' AND r.usename = 'replicator'") == "pg-b pg_b,pg-c pg_c");

  CHECK(psql(lab, "pg-a",
             "INSERT INTO users (name, city, phone, registered_at)"
             " VALUES ('欧阳娜娜', '西安', '13900000000', now())",
             "zhi_xuan_user")
            .ok());
  for (const char* standby : {"pg-b", "pg-c"})
    CHECK(eventually([&] {
      return ask(lab, standby, "SELECT city FROM users WHERE name = '欧阳娜娜'", "zhi_xuan_user") ==
             "西安";
    }));

  SUBCASE("its zx.toml is right and leads to the servers") {
    const auto config = config::load(lab.config_path());
    REQUIRE_MESSAGE(config.has_value(), why(config));
    const auto* cluster = config->cluster("main");
    REQUIRE(cluster != nullptr);
    CHECK(config->platform.name == "lab");
    CHECK(config->regions.size() == 3);
    REQUIRE(cluster->nodes.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(cluster->nodes[i].name == (*nodes)[i].name);
      CHECK(cluster->nodes[i].port == (*nodes)[i].port);
      CHECK(cluster->nodes[i].data_dir == (*nodes)[i].data_dir);
      const auto* host = config->host(cluster->nodes[i].host);
      REQUIRE(host != nullptr);
      CHECK(host->address == (*nodes)[i].host);
      CHECK((host->remote && host->remote->empty()));
    }
    const auto password = config::password_of(*config, *cluster);
    REQUIRE_MESSAGE(password.has_value(), why(password));
    for (const auto& database : cluster->databases) {
      CAPTURE(database);
      const auto table = ask(lab, "pg-a", "SELECT relname FROM pg_stat_user_tables", database);
      CHECK(std::stoi(ask(lab, "pg-a", "SELECT count(*) FROM " + table, database)) >= 200);
    }
  }

  SUBCASE("passwords stand in files of their owner only") {
    const auto password = std::string(trim(test::read(dir.path() + "/secrets/zx.pass")));
    const auto other = std::string(trim(test::read(dir.path() + "/secrets/replicator.pass")));
    CHECK(mode_of(dir.path() + "/secrets") == 0700);
    for (const char* name : {"/secrets/zx.pass", "/secrets/replicator.pass", "/secrets/zx.pgpass",
                             "/pg-b/replicator.pgpass"})
      CHECK(mode_of(dir.path() + name) == 0600);
    for (const auto& file : {lab.config_path(), dir.path() + "/lab.json", node_of(lab, "pg-a").log,
                             node_of(lab, "pg-b").data_dir + "/postgresql.auto.conf"}) {
      CAPTURE(file);
      const auto text = test::read(file);
      CHECK(text.find(password) == std::string::npos);
      CHECK(text.find(other) == std::string::npos);
    }
    CHECK(lab.conninfo("pg-a").find(password) == std::string::npos);
  }
}

TEST_CASE("up on a lab starts only what does not run and keeps the data") {
  const LabDirectory dir;
  const auto lab = must_up(options_for(dir, 2)).lab;
  CHECK(ask(lab, "pg-a", "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").empty());
  const auto before = node_of(lab, "pg-a").pid;

  const auto again = must_up(options_for(dir, 2));
  CHECK(!again.was_built);
  CHECK(again.started.empty());
  CHECK(again.were_running == std::vector<std::string>{"pg-a", "pg-b"});

  REQUIRE(lab.kill("pg-b").has_value());
  const auto after_crash = must_up(options_for(dir, 2));
  CHECK(after_crash.started == std::vector<std::string>{"pg-b"});
  CHECK(after_crash.were_running == std::vector<std::string>{"pg-a"});
  CHECK(node_of(lab, "pg-a").pid == before);

  auto larger = options_for(dir, 5);
  const auto refused = lab::up(larger);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().code == Code::refused);
  CHECK(refused.error().hint.find("down --delete") != std::string::npos);

  REQUIRE(lab::down(dir.path(), false).has_value());
  CHECK(processes_below(dir.path()) == 0);
  lab::Options as_it_is;
  as_it_is.dir = dir.path();
  const auto after_down = must_up(as_it_is);
  CHECK(after_down.started == std::vector<std::string>{"pg-a", "pg-b"});
  CHECK(ask(after_down.lab, "pg-a", "SELECT id FROM kept") == "7");
}

TEST_CASE("a server can be crashed, paused, stopped and started again as it was") {
  const LabDirectory dir;
  const auto lab = must_up(options_for(dir, 1)).lab;
  CHECK(ask(lab, "pg-a", "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").empty());
  const auto first = node_of(lab, "pg-a");

  const auto killed = lab.kill("pg-a");
  REQUIRE_MESSAGE(killed.has_value(), why(killed));
  CHECK(*killed > 1);
  CHECK(!node_of(lab, "pg-a").is_running());
  CHECK(processes_below(dir.path()) == 0);
  CHECK(!psql(lab, "pg-a", "SELECT 1").ok());
  const auto nothing = lab.kill("pg-a");
  CHECK((nothing && *nothing == 0));

  const auto started = lab.start("pg-a");
  REQUIRE_MESSAGE(started.has_value(), why(started));
  CHECK(*started);
  CHECK(ask(lab, "pg-a", "SELECT id FROM kept") == "7");
  CHECK(node_of(lab, "pg-a").pid != first.pid);
  const auto again = lab.start("pg-a");
  CHECK((again && !*again));

  REQUIRE(lab.kill("pg-a", SIGSTOP).has_value());
  CHECK(node_of(lab, "pg-a").is_paused);
  const auto paused = lab.start("pg-a");
  REQUIRE(!paused.has_value());
  CHECK(paused.error().code == Code::refused);
  REQUIRE(lab.kill("pg-a", SIGCONT).has_value());
  CHECK(!node_of(lab, "pg-a").is_paused);
  CHECK(ask(lab, "pg-a", "SELECT id FROM kept") == "7");

  const auto asked = lab.kill("pg-a", SIGINT);
  CHECK((asked && *asked == 1));
  CHECK(eventually([&] { return processes_below(dir.path()) == 0; }));
  REQUIRE(lab.start("pg-a").has_value());
  REQUIRE(lab.kill("pg-a", SIGSTOP).has_value());
  const auto down = lab::down(dir.path(), false);
  REQUIRE_MESSAGE(down.has_value(), why(down));
  CHECK(processes_below(dir.path()) == 0);

  const auto unknown = lab.start("pg-x");
  REQUIRE(!unknown.has_value());
  CHECK(unknown.error().code == Code::not_found);
}

TEST_CASE("a server that cannot start says why") {
  const LabDirectory dir;
  const auto lab = must_up(options_for(dir, 1)).lab;
  REQUIRE(lab.kill("pg-a").has_value());
  const auto settings = node_of(lab, "pg-a").data_dir + "/postgresql.conf";
  test::write(settings, test::read(settings) + "no_such_setting = 1\n");
  const auto started = lab.start("pg-a");
  REQUIRE(!started.has_value());
  CHECK(started.error().code == Code::failed);
  CHECK_MESSAGE(started.error().message.find("postgresql.conf") != std::string::npos, why(started));
}

TEST_CASE("a directory that is not a lab is refused and not touched") {
  const LabDirectory dir;
  test::write(dir.path() + "/thesis.txt", "years of work");
  for (const auto& result : {lab::up(options_for(dir, 1)).map([](const auto&) {}),
                             lab::down(dir.path(), true).map([](const auto&) {}),
                             lab::open(dir.path()).map([](const auto&) {})}) {
    REQUIRE(!result.has_value());
    CHECK(result.error().code == Code::refused);
    CHECK(!result.error().hint.empty());
  }
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    names.push_back(entry.path().filename());
  CHECK(names == std::vector<std::string>{"thesis.txt"});
  CHECK(test::read(dir.path() + "/thesis.txt") == "years of work");
  std::filesystem::remove_all(dir.path());
}

TEST_CASE("down without a lab has nothing to do") {
  const LabDirectory dir;
  const auto down = lab::down(dir.path(), true);
  REQUIRE(down.has_value());
  CHECK(!down->was_there);
  CHECK(!os::exists(dir.path()));
}

TEST_CASE("a directory that the servers cannot reach is named before anything is made") {
  if (geteuid() != 0) return;  // servers run as oneself
  const LabDirectory dir;
  const auto parent = os::parent_of(dir.path());
  REQUIRE(chmod(parent.c_str(), 0700) == 0);
  const auto up = lab::up(options_for(dir, 1));
  REQUIRE(!up.has_value());
  CHECK(up.error().code == Code::auth);
  CHECK_MESSAGE(up.error().message.find(parent + " (mode 0700)") != std::string::npos, why(up));
  CHECK(up.error().hint.find("chmod o+x " + parent) != std::string::npos);
  CHECK(!os::exists(dir.path()));
}

TEST_CASE(
    "while one up is at work another is told, and when it is killed the next makes the lab anew") {
  const LabDirectory dir;
  {
    Upper upper(options_for(dir, 1));
    REQUIRE(eventually([&] { return os::exists(dir.path() + "/logs/pg-a-start.log"); }));
    upper.pause();
    const auto second = lab::up(options_for(dir, 1));
    REQUIRE(!second.has_value());
    CHECK(second.error().code == Code::locked);
    CHECK_MESSAGE(second.error().message.find("zx lab up") != std::string::npos, why(second));
    upper.kill();
  }
  const auto unfinished = lab::open(dir.path());
  REQUIRE(!unfinished.has_value());
  CHECK(unfinished.error().code == Code::not_found);

  const auto up = must_up(options_for(dir, 2));
  CHECK(up.was_built);
  CHECK(ask(up.lab, "pg-a", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
        "1");
  CHECK(node_of(up.lab, "pg-a").pid != 0);
}

TEST_CASE("down ends what an up that was killed has left, at any of its steps") {
  for (const char* sign :
       {"/secrets", "/pg-a/data/PG_VERSION", "/logs/pg-a-start.log", "/pg-b/data"}) {
    CAPTURE(sign);
    const LabDirectory dir;
    Upper upper(options_for(dir, 2));
    REQUIRE(eventually([&] { return os::exists(dir.path() + sign); }));
    upper.kill();
    const auto down = lab::down(dir.path(), true);
    REQUIRE_MESSAGE(down.has_value(), why(down));
    CHECK(down->was_there);
    CHECK(down->is_removed);
    CHECK(processes_below(dir.path()) == 0);
    CHECK(!os::exists(dir.path()));
  }
}

TEST_CASE("down leaves no process, and removes the lab but nothing else") {
  const LabDirectory dir;
  const auto lab = must_up(options_for(dir, 2)).lab;
  // The most broken lab: a crash, a pause, a wrong process number, and no record of what there was.
  REQUIRE(lab.kill("pg-a").has_value());
  REQUIRE(lab.kill("pg-b", SIGSTOP).has_value());
  REQUIRE(os::remove_file(dir.path() + "/lab.json").has_value());
  const auto pid_file = node_of(lab, "pg-b").data_dir + "/postmaster.pid";
  const auto lines = test::read(pid_file);
  test::write(pid_file, "999999" + lines.substr(lines.find('\n')));
  test::write(dir.path() + "/notes.txt", "mine");
  const auto down = lab::down(dir.path(), true);
  REQUIRE_MESSAGE(down.has_value(), why(down));
  CHECK(down->ended > 1);
  CHECK(!down->is_removed);
  CHECK(down->kept == std::vector<std::string>{"notes.txt"});
  CHECK(processes_below(dir.path()) == 0);
  CHECK(test::read(dir.path() + "/notes.txt") == "mine");
  CHECK(!os::exists(dir.path() + "/pg-a"));

  std::filesystem::remove(dir.path() + "/notes.txt");
  const auto rest = lab::down(dir.path(), true);
  REQUIRE_MESSAGE(rest.has_value(), why(rest));
  CHECK(rest->is_removed);
  CHECK(!os::exists(dir.path()));
}

TEST_CASE("every server can have an address of its own") {
  const LabDirectory dir;
  auto options = options_for(dir, 2);
  options.pg.reset();
  options.listen = {"127.0.0.2", "127.0.0.3"};
  const auto lab = must_up(options).lab;
  CHECK(node_of(lab, "pg-b").host == "127.0.0.3");
  CHECK(ask(lab, "pg-b", "SHOW listen_addresses") == "127.0.0.3");
  CHECK(ask(lab, "pg-a", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") ==
        "1");

  options.listen = {"127.0.0.2", "127.0.0.4"};
  const auto other = lab::up(options);
  REQUIRE(!other.has_value());
  CHECK(other.error().code == Code::refused);
}

TEST_CASE("an address of another host is a mistake of usage") {
  for (const char* address : {"192.0.2.1", "localhost"}) {
    const LabDirectory dir;
    auto options = options_for(dir, 1);
    options.listen = {address};
    const auto up = lab::up(options);
    REQUIRE(!up.has_value());
    CHECK(up.error().code == Code::usage);
  }
}

#ifdef ZX_BINARY
TEST_CASE("zx lab works from the command line and does not hold its caller") {
  const LabDirectory dir;
  // A server that had inherited the pipes of stdout and stderr would keep this from its end.
  const auto up =
      test::run_zx({"lab", "up", "--dir", dir.path(), "--pg", "2", "--redis", "0", "-o", "json"});
  REQUIRE_MESSAGE(up.ok(), up.err);
  const auto json = test::json_of(up);
  CHECK(get_string(json, "config") == dir.path() + "/zx.toml");
  REQUIRE(json["nodes"].size() == 2);
  CHECK(get_bool(json["nodes"][0], "running"));

  const auto kill = test::run_zx({"lab", "kill", "pg-a", "--dir", dir.path()});
  CHECK_MESSAGE(kill.ok(), kill.err);
  const auto status = test::run_zx({"lab", "status", "--dir", dir.path()});
  REQUIRE_MESSAGE(status.ok(), status.err);
  CHECK(status.out.starts_with("1 of 2 servers run"));
  const auto start = test::run_zx({"lab", "start", "pg-a", "--dir", dir.path()});
  CHECK_MESSAGE(start.ok(), start.err);
  const auto again = test::run_zx({"lab", "up", "--dir", dir.path()});
  REQUIRE_MESSAGE(again.ok(), again.err);
  CHECK(again.out.find("nothing to start") != std::string::npos);
  CHECK(again.out.find("zx -c " + dir.path() + "/zx.toml status") != std::string::npos);
  const auto down = test::run_zx({"lab", "down", "--delete", "--dir", dir.path()});
  REQUIRE_MESSAGE(down.ok(), down.err);
  CHECK(!os::exists(dir.path()));
  CHECK(processes_below(dir.path()) == 0);
}
#endif

}  // namespace
}  // namespace zx
