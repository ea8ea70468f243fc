// Redis servers and Sentinels of a test's own, zx on them, and clients that write to them.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "lib/os/files.h"
#include "lib/redis/connection.h"
#include "lib/run/journal.h"
#include "tests/scenario/eventually.h"
#include "tests/support.h"

namespace zx::test {

// Ports that were free a moment ago, none of them twice.
inline std::vector<int> redis_ports(int count) {
  std::vector<os::Descriptor> held;
  std::vector<int> ports;
  for (int i = 0; i < count; ++i) {
    held.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(bind(held.back().get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(getsockname(held.back().get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    ports.push_back(ntohs(address.sin_port));
  }
  return ports;
}

struct RedisSetup {
  int servers = 3;
  int sentinels = 0;
  int down_after_ms = 60'000;  // of the Sentinels: long, so that they leave it to zx
  std::string settings = {};   // more lines of every redis.conf
  std::string policy = {};     // lines of [redis.cache.policy]
};

// redis-a is the master, the others are its replicas. All ask for a password.
class RedisServers {
 public:
  static constexpr const char* kPassword = "a-password-of-the-test";

  explicit RedisServers(RedisSetup setup = {}) : setup_(std::move(setup)), directory_(base()) {
    ports_ = redis_ports(setup_.servers + setup_.sentinels);
    for (int i = 0; i < setup_.servers; ++i) {
      write_server(i);
      start(name_of(i));
    }
    REQUIRE(eventually([&] { return all_linked(name_of(0)); }));
    for (int i = 0; i < setup_.sentinels; ++i) {
      write_sentinel(i);
      start_sentinel(i);
    }
    write_config();
    if (setup_.sentinels > 0) REQUIRE(eventually([&] { return sentinels_are_ready(); }));
  }
  ~RedisServers() {
    for (const auto& one : processes()) ::kill(one, SIGKILL);
  }
  RedisServers(const RedisServers&) = delete;
  RedisServers& operator=(const RedisServers&) = delete;

  static std::string name_of(int index) {
    return std::string("redis-") + static_cast<char>('a' + index);
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (int i = 0; i < setup_.servers; ++i) all.push_back(name_of(i));
    return all;
  }
  [[nodiscard]] int port_of(const std::string& name) const { return ports_[index_of(name)]; }
  [[nodiscard]] int sentinel_port(int index) const {
    return ports_[static_cast<std::size_t>(setup_.servers + index)];
  }
  [[nodiscard]] std::string config() const { return directory_ / "zx.toml"; }
  [[nodiscard]] std::string state_dir() const { return directory_ / "state"; }
  [[nodiscard]] std::string data_dir(const std::string& name) const { return directory_ / name; }
  [[nodiscard]] std::string conf_of(const std::string& name) const {
    return directory_ / (name + ".conf");
  }

  os::ProcessResult zx(std::vector<std::string> words, os::ProcessOptions options = {}) const {
    words.insert(words.begin(), {"-c", config()});
    return run_zx(std::move(words), std::move(options));
  }
  Json zx_json(std::vector<std::string> words, int exit = 0) const {
    words.insert(words.end(), {"-o", "json"});
    const auto result = zx(words);
    CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    return json_of(result);
  }

  // One command on a connection of its own; the text of an error reply too.
  std::string ask(const std::string& name, const redis::Command& argv) const {
    return ask_port(port_of(name), argv, kPassword);
  }
  std::string ask_sentinel(int index, const redis::Command& argv) const {
    return ask_port(sentinel_port(index), argv, {});
  }
  // A line of INFO; empty when it is not there or the server does not answer.
  [[nodiscard]] std::string info(const std::string& name, const std::string& field) const {
    for (const auto& line : split(ask(name, {"INFO"}), '\n'))
      if (line.starts_with(field + ":")) return std::string(trim(line.substr(field.size() + 1)));
    return {};
  }
  [[nodiscard]] std::string role(const std::string& name) const { return info(name, "role"); }
  [[nodiscard]] std::vector<std::string> masters() const {
    std::vector<std::string> all;
    for (const auto& name : names())
      if (role(name) == "master") all.push_back(name);
    return all;
  }
  [[nodiscard]] std::string the_master() const {
    const auto all = masters();
    REQUIRE_MESSAGE(all.size() == 1, (std::to_string(all.size()) + " masters: " + join(all, " ")));
    return all.front();
  }
  // Every other server that runs is linked to it, and has what it has.
  [[nodiscard]] bool all_linked(const std::string& master) const {
    for (const auto& name : names()) {
      if (name == master || role(name).empty()) continue;
      if (info(name, "master_port") != std::to_string(port_of(master)) ||
          info(name, "master_link_status") != "up")
        return false;
    }
    return true;
  }
  [[nodiscard]] bool in_line_with(const std::string& master) const {
    return eventually([&] {
      if (!all_linked(master)) return false;
      const auto offset = std::atoll(info(master, "master_repl_offset").c_str());
      for (const auto& name : names())
        if (name != master && !role(name).empty() &&
            std::atoll(info(name, "slave_repl_offset").c_str()) < offset)
          return false;
      return true;
    });
  }

  // By its own word, whoever started it.
  void kill(const std::string& name, int signal = SIGKILL) const {
    const auto pid = static_cast<pid_t>(std::atoi(info(name, "process_id").c_str()));
    REQUIRE(pid > 0);
    REQUIRE(::kill(pid, signal) == 0);
    if (signal == SIGKILL) REQUIRE(eventually([&] { return !os::is_running(pid); }));
  }
  // As a supervisor would, with its configuration file as it is.
  void start(const std::string& name) {
    run_server({"/usr/bin/redis-server", conf_of(name), "--daemonize", "no"}, name);
    REQUIRE(eventually([&] { return !role(name).empty(); }));
  }
  void start_sentinel(int index) {
    const auto name = fmt::format("sentinel-{}", index);
    run_server({"/usr/bin/redis-server", conf_of(name), "--sentinel", "--daemonize", "no"}, name);
    REQUIRE(eventually([&] { return ask_sentinel(index, {"PING"}) == "PONG"; }));
  }
  void kill_sentinel(int index) const {
    const auto text = ask_sentinel(index, {"INFO", "server"});
    for (const auto& line : split(text, '\n'))
      if (line.starts_with("process_id:")) {
        const auto pid = static_cast<pid_t>(std::atoi(line.substr(11).c_str()));
        REQUIRE(::kill(pid, SIGKILL) == 0);
        REQUIRE(eventually([&] { return !os::is_running(pid); }));
        return;
      }
    FAIL("Sentinel " << index << " does not answer");
  }
  [[nodiscard]] std::string sentinel_master(int index) const {
    const auto port = ask_sentinel(index, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"});
    for (const auto& name : names())
      if (port.ends_with(" " + std::to_string(port_of(name)))) return name;
    return port;
  }

  void edit_config(const std::string& from, const std::string& to) const {
    auto text = read(config());
    const auto at = text.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, (from + "\nis not in\n" + text));
    text.replace(at, from.size(), to);
    write(config(), text);
  }

 private:
  static std::filesystem::path base() {
    const char* named = std::getenv("ZX_LAB_BASE");
    return named != nullptr ? std::filesystem::path(named) : std::filesystem::temp_directory_path();
  }
  [[nodiscard]] std::size_t index_of(const std::string& name) const {
    return static_cast<std::size_t>(name.back() - 'a');
  }

  static std::string text_of(const redis::Reply& reply) {
    if (reply.kind == redis::Reply::Kind::integer) return std::to_string(reply.number);
    if (reply.kind != redis::Reply::Kind::array) return reply.text;
    std::vector<std::string> parts;
    for (const auto& item : reply.items) parts.push_back(text_of(item));
    return join(parts, " ");
  }
  static std::string ask_port(int port, const redis::Command& argv, const std::string& password) {
    redis::Target target;
    target.name = "a server";
    target.address = "127.0.0.1";
    target.port = port;
    target.password = password;
    auto client = redis::Client::open(target, Deadline::after(Millis(2000)));
    if (!client) return client.error().reply;
    const auto reply = client->command(argv, Deadline::after(Millis(5000)));
    return reply ? text_of(*reply) : reply.error().reply;
  }

  void write_server(int index) {
    const auto name = name_of(index);
    std::filesystem::create_directories(data_dir(name));
    auto text = fmt::format(
        "port {}\nbind 127.0.0.1\ndir {}\nsave \"\"\nlogfile {}.log\nrequirepass {}\n"
        "masterauth {}\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n"
        "shutdown-timeout 0\n{}\n",
        ports_[static_cast<std::size_t>(index)], data_dir(name), directory_ / name, kPassword,
        kPassword, setup_.settings);
    if (index > 0) text += fmt::format("replicaof 127.0.0.1 {}\n", ports_[0]);
    write(conf_of(name), text);
  }
  void write_sentinel(int index) {
    const auto name = fmt::format("sentinel-{}", index);
    std::filesystem::create_directories(directory_ / name);
    write(conf_of(name),
          fmt::format("port {}\nbind 127.0.0.1\ndir {}\nlogfile {}.log\n"
                      "sentinel monitor shop 127.0.0.1 {} 2\nsentinel auth-pass shop {}\n"
                      "sentinel down-after-milliseconds shop {}\n"
                      "sentinel failover-timeout shop 10000\n",
                      sentinel_port(index), directory_ / name, directory_ / name, ports_[0],
                      kPassword, setup_.down_after_ms));
  }
  void write_config() const {
    write(directory_ / "password", std::string(kPassword) + "\n");
    REQUIRE(chmod((directory_ / "password").c_str(), 0600) == 0);
    std::string text = fmt::format(
        "[platform]\nname = \"shop\"\nstate_dir = \"{}\"\n\n[hosts.here]\naddress = \"127.0.0.1\"\n"
        "remote = []\n\n[redis.cache]\npassword_file = \"{}\"\n",
        state_dir(), directory_ / "password");
    for (const auto& name : names())
      text += fmt::format(
          "[redis.cache.nodes.{}]\nhost = \"here\"\nport = {}\ndata_dir = \"{}\"\n"
          "config_file = \"{}\"\n",
          name, port_of(name), data_dir(name), conf_of(name));
    if (setup_.sentinels > 0) {
      std::vector<std::string> places;
      for (int i = 0; i < setup_.sentinels; ++i)
        places.push_back(fmt::format("\"here:{}\"", sentinel_port(i)));
      text += fmt::format("[redis.cache.sentinel]\nmaster_name = \"shop\"\nnodes = [{}]\n",
                          join(places, ", "));
    }
    text += "[redis.cache.policy]\n" + setup_.policy + "\n";
    write(config(), text);
  }
  bool sentinels_are_ready() const {
    for (int i = 0; i < setup_.sentinels; ++i) {
      const auto ready = ask_sentinel(i, {"SENTINEL", "CKQUORUM", "shop"});
      if (ready.find(fmt::format("{} usable", setup_.sentinels)) == std::string::npos) return false;
      const auto replicas = ask_sentinel(i, {"SENTINEL", "REPLICAS", "shop"});
      for (int r = 1; r < setup_.servers; ++r)
        if (replicas.find(std::to_string(ports_[static_cast<std::size_t>(r)])) == std::string::npos)
          return false;
    }
    return true;
  }

  void run_server(const os::Argv& argv, const std::string& name) const {
    const auto pid = os::spawn_detached(argv, {}, directory_ / (name + "-start.log"));
    REQUIRE_MESSAGE(pid.has_value(), why(pid));
  }
  // Of every server that has its directory in ours, whoever started it.
  [[nodiscard]] std::vector<pid_t> processes() const {
    std::vector<pid_t> all;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      if (!entry.is_directory()) continue;
      if (const auto found = os::processes_in(entry.path().string()))
        for (const auto& process : *found) all.push_back(process.pid);
    }
    return all;
  }

  RedisSetup setup_;
  Directory directory_;
  std::vector<int> ports_;
};

// kill -9 of zx right after it has written line `line` of its journal: nothing but the journal
// calls fdatasync. A result without signal: it ended before that.
inline os::ProcessResult zx_killed_at(const RedisServers& servers, int line,
                                      const std::vector<std::string>& words) {
  os::ProcessOptions options;
  const char* given = getenv("ASAN_OPTIONS");
  const auto kept = given != nullptr ? std::string(given) + ":" : std::string();
  options.environment = {{"ASAN_OPTIONS", kept + "detect_leaks=0"}, {"HOME", "/nonexistent"}};
  options.directory = "/";
  os::Argv argv{"strace",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "signal=none",
                fmt::format("--inject=fdatasync:signal=SIGKILL:when={}", line),
                ZX_BINARY,
                "-c",
                servers.config()};
  argv.insert(argv.end(), words.begin(), words.end());
  return run_program(argv, options);
}

// A client that counts in one key, on whichever server is the master, and knows what it was
// answered.
class Counter {
 public:
  explicit Counter(const RedisServers& servers, std::string key = "zx-test-计数")
      : servers_(servers), key_(std::move(key)) {
    thread_ = std::thread([this] { count(); });
    REQUIRE(eventually([&] { return acknowledged_ > 20; }));
  }
  ~Counter() { end(); }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  [[nodiscard]] long acknowledged() const { return acknowledged_; }
  // Increments without an answer may have been done or not.
  [[nodiscard]] long unanswered() const { return unanswered_; }
  // Waits for more answers, which only a master gives.
  [[nodiscard]] bool goes_on() const {
    const long before = acknowledged_;
    return eventually([&] { return acknowledged_ > before + 20; });
  }
  void end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] long value_on(const std::string& name) const {
    return std::atol(servers_.ask(name, {"GET", key_}).c_str());
  }

 private:
  void count() {
    std::size_t at = 0;
    const auto names = servers_.names();
    while (!ended_) {
      redis::Target target;
      target.name = names[at % names.size()];
      target.address = "127.0.0.1";
      target.port = servers_.port_of(target.name);
      target.password = RedisServers::kPassword;
      auto client = redis::Client::open(target, Deadline::after(Millis(300)));
      while (client && !ended_) {
        const auto reply = client->command({"INCR", key_}, Deadline::after(Millis(20'000)));
        if (reply) {
          ++acknowledged_;
          continue;
        }
        // An error reply says that it was not done; anything else leaves it open.
        if (reply.error().reply.empty()) ++unanswered_;
        break;
      }
      ++at;
      pause_for(Millis(2));
    }
  }

  const RedisServers& servers_;
  std::string key_;
  std::atomic<long> acknowledged_{0}, unanswered_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace zx::test
