// A private PostgreSQL server: it comes up beside whatever runs, answers, and is gone afterwards,
// however its zx ends.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "lib/pg/pid_file.h"
#include "lib/pg/throwaway.h"
#include "tests/scenario/eventually.h"
#include "tests/support.h"

namespace zx {
namespace {

Deadline soon() { return Deadline::after(test::kPatience); }

// A place that the servers' user can enter.
class Base {
 public:
  Base() { REQUIRE(chmod(directory_.path().c_str(), 0711) == 0); }
  [[nodiscard]] const std::string& path() const { return directory_.path(); }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path()))
      names.push_back(entry.path().filename());
    return names;
  }

 private:
  test::Directory directory_;
};

pg::Throwaway start(const Base& base) {
  pg::ThrowawayOptions options;
  options.base = base.path();
  options.superuser = "Größe 超级";
  auto started = pg::Throwaway::start(options, soon());
  REQUIRE_MESSAGE(started.has_value(), test::why(started));
  return *std::move(started);
}

std::string ask(const pg::Target& target, const std::string& sql) {
  auto client = pg::Client::open(target, soon());
  REQUIRE_MESSAGE(client.has_value(), (client ? "" : client.error().error.message));
  const auto rows = client->query(sql, soon());
  REQUIRE_MESSAGE(rows.has_value(), (rows ? "" : rows.error().error.message));
  return rows->empty() || rows->at(0).empty() ? "" : rows->at(0).at(0).value_or("NULL");
}

int servers_in(const std::string& directory) {
  const auto found = os::processes_in(directory + "/data");
  if (!found) return 0;
  int count = 0;
  for (const auto& one : *found) count += one.command == "postgres" ? 1 : 0;
  return count;
}

// By its number, which stands in the second column.
bool has_shared_memory(int id) {
  for (const auto& line : test::lines_of(test::read("/proc/sysvipc/shm"))) {
    std::istringstream columns(line);
    long key = 0, number = -1;
    if (columns >> key >> number && number == id) return true;
  }
  return false;
}

TEST_CASE("a private server answers its zx alone, and is gone with it") {
  const Base base;
  std::string directory;
  pid_t pid = 0;
  int memory = -1;
  {
    const auto server = start(base);
    directory = server.directory();
    pid = server.pid();
    CHECK(ask(server.target(), "SELECT current_user") == "Größe 超级");
    CHECK(ask(server.target(), "SHOW listen_addresses").empty());
    CHECK(ask(server.target(), "SHOW server_encoding") == "UTF8");
    CHECK(ask(server.target(), "SHOW fsync") == "off");
    CHECK(ask(server.target("template1"), "SELECT current_database()") == "template1");
    CHECK(os::is_running(pid));
    CHECK(servers_in(directory) > 1);
    const auto file = pg::read_pid_file(directory + "/data");
    REQUIRE(file.has_value());
    memory = file->shared_memory_id;
    CHECK(has_shared_memory(memory));
    struct stat found {};
    for (const char* inner : {"/data", "/run"}) {
      REQUIRE(stat((directory + inner).c_str(), &found) == 0);
      CHECK((found.st_mode & 0777) == 0700);
    }
    REQUIRE(stat(("/proc/" + std::to_string(pid)).c_str(), &found) == 0);
    CHECK(found.st_uid != 0);
  }
  CHECK_FALSE(os::is_running(pid));
  CHECK(base.names().empty());
  REQUIRE(memory >= 0);
  CHECK_FALSE(has_shared_memory(memory));
}

TEST_CASE("two of them at once do not touch each other") {
  const Base base;
  const auto one = start(base);
  {
    const auto other = start(base);
    CHECK(base.names().size() == 2);
    CHECK(ask(other.target(), "CREATE DATABASE here").empty());
  }
  CHECK(ask(one.target(), "SELECT count(*) FROM pg_database WHERE datname = 'here'") == "0");
}

// Starts a server in a process of its own, which is killed.
class Owner {
 public:
  explicit Owner(const Base& base) {
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      pg::ThrowawayOptions options;
      options.base = base.path();
      const auto started = pg::Throwaway::start(options, soon());
      const char said = started ? 'y' : 'n';
      (void)!write(ready[1], &said, 1);
      while (true) pause();
    }
    close(ready[1]);
    char said = 'n';
    CHECK(read(ready[0], &said, 1) == 1);
    CHECK(said == 'y');
    close(ready[0]);
  }
  ~Owner() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

TEST_CASE("kill -9 of zx ends the server, and the next one clears away its directory") {
  const Base base;
  Owner owner(base);
  REQUIRE(base.names().size() == 1);
  const auto left = base.path() + "/" + base.names().front();
  const auto file = pg::read_pid_file(left + "/data");
  REQUIRE(file.has_value());
  CHECK(servers_in(left) > 1);
  // In the middle of a statement that takes for ever, of a client that goes with zx.
  auto target = pg::Target();
  target.address = left + "/run";
  target.user = "zx_throwaway";
  const auto client = fork();
  REQUIRE(client >= 0);
  if (client == 0) {
    auto opened = pg::Client::open(target, soon());
    if (opened) (void)opened->query("SELECT count(*) FROM generate_series(1, 1e15)", soon());
    _exit(0);
  }
  CHECK(test::eventually([&] {
    auto asked = pg::Client::open(target, soon());
    if (!asked) return false;
    const auto rows = asked->query(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%1e15%' AND state = 'active'"
        " AND pid <> pg_backend_pid()",
        soon());
    return rows && rows->at(0).at(0) == "1";
  }));
  ::kill(client, SIGKILL);
  waitpid(client, nullptr, 0);
  owner.kill();
  CHECK(test::eventually([&] { return !os::is_running(file->pid) && servers_in(left) == 0; }));
  CHECK(std::filesystem::exists(left));
  pg::sweep_throwaways(base.path());
  CHECK(base.names().empty());
  CHECK_FALSE(has_shared_memory(file->shared_memory_id));
}

TEST_CASE("a server that runs on without its zx is ended by whoever clears away") {
  const Base base;
  std::string left;
  {
    // As after kill -9, with processes that have not noticed.
    Owner owner(base);
    left = base.path() + "/" + base.names().front();
    const auto found = os::processes_in(left + "/data");
    REQUIRE(found.has_value());
    for (const auto& one : *found) ::kill(one.pid, SIGSTOP);
    owner.kill();
  }
  CHECK(servers_in(left) > 0);
  pg::sweep_throwaways(base.path());
  CHECK(servers_in(left) == 0);
  CHECK(base.names().empty());
}

TEST_CASE("what only looks like a left-over is let be") {
  const Base base, elsewhere;
  test::write(elsewhere.path() + "/precious/lock", "");
  std::filesystem::create_directory_symlink(elsewhere.path() + "/precious",
                                            base.path() + "/pg-throwaway-link00");
  std::filesystem::create_directories(base.path() + "/pg-throwaway-made00");
  const auto at_work = start(base);
  pg::sweep_throwaways(base.path());
  CHECK(std::filesystem::exists(elsewhere.path() + "/precious/lock"));
  CHECK(std::filesystem::is_symlink(base.path() + "/pg-throwaway-link00"));
  CHECK(std::filesystem::exists(base.path() + "/pg-throwaway-made00"));
  CHECK(ask(at_work.target(), "SELECT 1") == "1");
}

Error refusal(const pg::ThrowawayOptions& options) {
  const auto started = pg::Throwaway::start(options, soon());
  REQUIRE_FALSE(started.has_value());
  return started.error();
}

TEST_CASE("what a shell has set for PostgreSQL's clients is not for its server") {
  const Base base;
  REQUIRE(setenv("PGPORT", "", 1) == 0);
  pg::ThrowawayOptions options;
  options.base = base.path();
  const auto started = pg::Throwaway::start(options, soon());
  REQUIRE(unsetenv("PGPORT") == 0);
  CHECK_MESSAGE(started.has_value(), (started ? "" : started.error().message));
}

TEST_CASE("where it cannot be, it says why") {
  const Base base;
  pg::ThrowawayOptions options;
  options.base = base.path();
  options.bin_dir = "/nonexistent";
  CHECK(refusal(options).code == Code::not_found);
  CHECK(refusal(options).hint.find("bin_dir") != std::string::npos);
  CHECK(base.names().empty());

  options.bin_dir = pg::ThrowawayOptions().bin_dir;
  options.superuser = "pg_mine";
  CHECK(refusal(options).message.find("superuser name \"pg_mine\" is disallowed") !=
        std::string::npos);
  CHECK(base.names().empty());
  options.superuser = pg::ThrowawayOptions().superuser;

  options.base = base.path() + "/" + std::string(80, 'x');
  CHECK(refusal(options).code == Code::config);

  if (geteuid() != 0) return;
  options.base = base.path() + "/closed/inner";
  std::filesystem::create_directories(options.base);
  REQUIRE(chmod((base.path() + "/closed").c_str(), 0700) == 0);
  CHECK(refusal(options).code == Code::auth);
  CHECK(refusal(options).message.find(base.path() + "/closed (mode 0700)") != std::string::npos);
}

}  // namespace
}  // namespace zx
