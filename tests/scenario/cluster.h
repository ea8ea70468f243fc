// A lab, zx on it, and a client that writes to it: what the scenarios are made of.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/lab/lab.h"
#include "lib/pg/conninfo.h"
#include "tests/scenario/eventually.h"
#include "tests/support.h"

namespace zx::test {

// A place that the servers' user can enter; whatever runs in it is ended.
class LabDirectory {
 public:
  LabDirectory() : parent_(base()) { REQUIRE(chmod(parent_.path().c_str(), 0711) == 0); }
  ~LabDirectory() { (void)lab::down(path(), true); }
  LabDirectory(const LabDirectory&) = delete;
  LabDirectory& operator=(const LabDirectory&) = delete;
  [[nodiscard]] std::string path() const { return parent_ / "lab"; }
  [[nodiscard]] std::string beside(const std::string& name) const { return parent_ / name; }

 private:
  // scripts/dev names memory, if there is enough: labs are written once and thrown away.
  static std::filesystem::path base() {
    const char* named = std::getenv("ZX_LAB_BASE");
    return named != nullptr ? std::filesystem::path(named) : std::filesystem::temp_directory_path();
  }
  Directory parent_;
};

inline os::ProcessResult psql(const lab::Lab& lab, const std::string& node, const std::string& sql,
                              const std::string& database = "postgres") {
  const auto program = config::PgCluster{}.bin_dir + "/psql";
  return run_program(
      {program, "-XAtq", "-d", lab.conninfo(node, database) + " connect_timeout=3", "-c", sql});
}

inline std::string ask(const lab::Lab& lab, const std::string& node, const std::string& sql,
                       const std::string& database = "postgres") {
  const auto result = psql(lab, node, sql, database);
  REQUIRE_MESSAGE(result.ok(), result.err);
  return std::string(trim(result.out));
}

class Cluster {
 public:
  explicit Cluster(int servers = 3) : lab_(make(servers, {})) {}
  // One server an address.
  explicit Cluster(const std::vector<std::string>& listen)
      : lab_(make(static_cast<int>(listen.size()), listen)) {}

  [[nodiscard]] const lab::Lab& lab() const { return lab_; }
  [[nodiscard]] std::string config() const { return lab_.config_path(); }
  [[nodiscard]] std::string state_dir() const { return lab_.dir() + "/state"; }
  [[nodiscard]] std::string beside(const std::string& name) const {
    return directory_.beside(name);
  }

  // zx -c LAB/zx.toml WORDS…
  os::ProcessResult zx(std::vector<std::string> words, os::ProcessOptions options = {}) const {
    words.insert(words.begin(), {"-c", config()});
    return run_zx(std::move(words), std::move(options));
  }
  // The same with -o json; `exit` is what it must exit with.
  Json zx_json(std::vector<std::string> words, int exit = 0) const {
    words.insert(words.end(), {"-o", "json"});
    const auto result = zx(words);
    CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    return json_of(result);
  }

  // The facts of one node in `zx status -o json`.
  Json node(const std::string& name) const {
    const auto status = zx_json({"status"});
    for (const auto& one : status["pg"]["nodes"])
      if (one["name"] == name) return one;
    FAIL("no node " << name);
    return {};
  }
  std::string verdict() const { return zx_json({"status"})["pg"]["verdict"].get<std::string>(); }

  void kill(const std::string& name, int signal = SIGKILL) const {
    const auto sent = lab_.kill(name, signal);
    REQUIRE_MESSAGE(sent.has_value(), why(sent));
    REQUIRE(*sent > 0);
  }
  // As a supervisor would, whatever zx has made of the data directory.
  bool start(const std::string& name) const {
    const auto started = lab_.start(name);
    REQUIRE_MESSAGE(started.has_value(), why(started));
    return *started;
  }
  std::string sql(const std::string& name, const std::string& text,
                  const std::string& database = "postgres") const {
    return ask(lab_, name, text, database);
  }
  // Nodes that answer and are not in recovery.
  std::vector<std::string> writable() const {
    std::vector<std::string> names;
    for (const auto& member : lab_.members()) {
      const auto result = psql(lab_, member.name, "SELECT pg_is_in_recovery()");
      if (result.ok() && trim(result.out) == "f") names.push_back(member.name);
    }
    return names;
  }
  // Waits until `name` streams, by its own word.
  bool streams(const std::string& name) const {
    return eventually([&] {
      const auto result =
          psql(lab_, name, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'");
      return result.ok() && trim(result.out) == "1";
    });
  }

  // In zx.toml.
  void edit_config(const std::string& from, const std::string& to) const {
    edit(config(), from, to);
  }

  // Every node, for a client that finds the primary itself.
  std::string dsn(const std::string& database = "zhi_xuan_inventory") const {
    std::vector<std::string> hosts, ports;
    for (const auto& member : lab_.members()) {
      hosts.push_back(member.host);
      ports.push_back(std::to_string(member.port));
    }
    auto conninfo = pg::parse_conninfo(lab_.conninfo(lab_.members().front().name, database));
    REQUIRE(conninfo.has_value());
    pg::set_value(*conninfo, "host", join(hosts, ","));
    pg::set_value(*conninfo, "port", join(ports, ","));
    return pg::to_string(*conninfo);
  }

 private:
  lab::Lab make(int servers, const std::vector<std::string>& listen) {
    lab::Options options;
    options.redis = 0;
    options.dir = directory_.path();
    options.pg = servers;
    options.listen = listen;
    options.deadline = kPatience;
    auto up = lab::up(options);
    REQUIRE_MESSAGE(up.has_value(), why(up));
    return up->lab;
  }

  LabDirectory directory_;
  lab::Lab lab_;
};

// A program that runs beside the test; its output is read at its end.
class Background {
 public:
  Background(const os::Argv& argv, std::vector<std::string> variables = {}) {
    REQUIRE(pipe2(in_.data(), O_CLOEXEC) == 0);
    REQUIRE(pipe2(out_.data(), O_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in_[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out_[1], 1);
    posix_spawn_file_actions_adddup2(&actions, out_[1], 2);
    std::vector<char*> words;
    for (const auto& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    std::vector<char*> environment;
    for (auto& variable : variables) environment.push_back(variable.data());
    for (char** old = environ; *old != nullptr; ++old) environment.push_back(*old);
    environment.push_back(nullptr);
    REQUIRE(posix_spawn(&pid_, words[0], &actions, nullptr, words.data(), environment.data()) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in_[0]);
    close(out_[1]);
  }
  ~Background() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    if (in_[1] >= 0) close(in_[1]);
    close(out_[0]);
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const { REQUIRE(::kill(pid_, number) == 0); }
  // Reads until `text` was printed.
  void wait_for(const std::string& text) {
    while (output_.find(text) == std::string::npos)
      REQUIRE_MESSAGE(read_some(), ("ended before \"" + text + "\": " + output_));
  }
  // Closes its stdin, waits for its end. The exit status, or minus the signal.
  int finish() {
    if (in_[1] >= 0) close(in_[1]);
    in_[1] = -1;
    while (read_some()) {
    }
    int status = 0;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  [[nodiscard]] const std::string& output() const { return output_; }

 private:
  bool read_some() {
    std::array<char, 4096> buffer{};
    ssize_t count = 0;
    do {
      count = ::read(out_[0], buffer.data(), buffer.size());
    } while (count < 0 && errno == EINTR);
    if (count > 0) output_.append(buffer.data(), static_cast<std::size_t>(count));
    return count > 0;
  }
  std::array<int, 2> in_{-1, -1}, out_{-1, -1};
  pid_t pid_ = 0;
  std::string output_;
};

// A client that commits row after row through the DSN of all nodes.
class Writer {
 public:
  explicit Writer(const Cluster& cluster, int every_ms = 2) : Writer(cluster.dsn(), every_ms) {}
  explicit Writer(const std::string& dsn, int every_ms = 2)
      : program_({ZX_WRITER, dsn, std::to_string(every_ms)}) {
    program_.wait_for("writing\n");
  }
  struct Report {
    long acknowledged = 0, lost = 0, errors = 0;
    double longest_gap_ms = 0;
  };
  Report finish() {
    const int exit = program_.finish();
    REQUIRE_MESSAGE(exit == 0, program_.output());
    const auto lines = lines_of(program_.output());
    const auto json = parse_json(lines.back(), "the writer's report");
    REQUIRE_MESSAGE(json.has_value(), program_.output());
    return {get_int(*json, "acknowledged"), get_int(*json, "lost"), get_int(*json, "errors"),
            (*json)["longest_gap_ms"].get<double>()};
  }

 private:
  Background program_;
};

}  // namespace zx::test
