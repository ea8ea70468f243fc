// Real redis-servers for tests, on ports of their own, in directories that are gone at the end.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lib/os/child.h"
#include "lib/redis/connection.h"
#include "tests/scenario/eventually.h"
#include "tests/support.h"

namespace zx::test {

// Nobody listens there now.
inline int unused_port() {
  const os::Descriptor socket(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

class RedisServer {
 public:
  // `settings`: lines of redis.conf on top.
  explicit RedisServer(const std::string& settings = {}, std::string password = {})
      : port_(unused_port()), password_(std::move(password)) {
    write(directory_ / "redis.conf",
          fmt::format("port {}\nbind 127.0.0.1\ndir {}\nlogfile \"\"\nsave \"\"\n"
                      "enable-debug-command local\nrepl-diskless-sync-delay 0\n{}\n",
                      port_, directory_.path(),
                      settings + (password_.empty() ? ""
                                                    : "\nrequirepass " + password_ +
                                                          "\nmasterauth " + password_)));
    start();
  }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;
  ~RedisServer() {
    // One that zx has started is no child of this process.
    if (!child_) static_cast<void>(says({"SHUTDOWN", "NOSAVE", "NOW", "FORCE"}));
  }
  void start() {
    auto child = os::Child::start({"/usr/bin/redis-server", directory_ / "redis.conf"}, {},
                                  directory_ / "log");
    REQUIRE_MESSAGE(child.has_value(), why(child));
    child_ = *std::move(child);
    REQUIRE_MESSAGE(eventually([&] { return says({"PING"}) == "PONG"; }), log());
  }
  // SIGKILL.
  void kill() { child_.reset(); }
  // SIGTERM, and its end.
  void shut_down() {
    ::kill(child_->pid(), SIGTERM);
    REQUIRE(eventually([&] { return child_->ended().has_value(); }));
    child_.reset();
  }
  void signal(int number) const { ::kill(child_->pid(), number); }

  // As redis-cli prints it when it writes to no terminal.
  [[nodiscard]] std::string says(std::vector<std::string> words,
                                 const std::string& input = {}) const {
    words.insert(words.begin(), {"/usr/bin/redis-cli", "-p", std::to_string(port_)});
    os::ProcessOptions options;
    options.input = input;
    if (!password_.empty()) options.environment = {{"REDISCLI_AUTH", password_}};
    return std::string(trim(run_program(words, options).out));
  }
  // Lines of commands, as redis-cli reads them.
  void take(const std::string& commands) const {
    const auto out = says({}, commands);
    REQUIRE_MESSAGE(out.find("ERR") == std::string::npos, out);
  }
  [[nodiscard]] std::string info(const std::string& field) const {
    for (const auto& line : lines_of(says({"INFO", "everything"})))
      if (line.starts_with(field + ":")) return std::string(trim(line.substr(field.size() + 1)));
    return {};
  }
  void follow(const RedisServer& master) const {
    CHECK(says({"REPLICAOF", "127.0.0.1", std::to_string(master.port())}) == "OK");
    REQUIRE(eventually([&] { return info("master_link_status") == "up"; }));
  }
  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] const std::string& path() const { return directory_.path(); }
  [[nodiscard]] std::string log() const { return read(directory_ / "log"); }
  [[nodiscard]] redis::Target target(const std::string& password = {}) const {
    redis::Target target;
    target.name = "the server";
    target.address = "127.0.0.1";
    target.port = port_;
    target.password = password;
    return target;
  }

 private:
  Directory directory_;
  int port_;
  std::string password_;
  std::optional<os::Child> child_;
};

// Commands that make something of every type, in three databases.
inline std::string every_type() {
  std::string commands =
      "SET short v\nSET tiny 7\nSET small 1234\nSET number 123456789\nSET big 12345678901234\n"
      "SET 商品:1001 \"智选 保温杯\"\nSETEX session 100000 x\nPEXPIRE tiny 90000000\n"
      "SADD ints 1 2 3\nSADD words a b c\nRPUSH queue a b c\nHSET cart item 3 name 杯\n"
      "ZADD ranks 1.5 a -inf b inf c\nXADD orders 1-1 item cup n 2\nXADD orders 2-1 item pot n 1\n"
      "XGROUP CREATE orders workers 0\nXREADGROUP GROUP workers w1 COUNT 1 STREAMS orders >\n"
      "XADD orders 3-1 item jug n 1\nXDEL orders 2-1\nPFADD seen a b c\nGEOADD shops 121.47 31.23 "
      "上海\n"
      "SETBIT bits 100 1\n"
      "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 1 end)\"\n";
  commands += "SET long \"" + std::string(5000, 'z') + "\"\n";
  for (int i = 0; i < 300; ++i)
    commands +=
        fmt::format("HSET wide f{} {}\nZADD many {} m{}\nRPUSH long-list {}-{}\nSADD set-of {}x\n",
                    i, i, i, i, i, std::string(40, 'e'), i);
  commands += "SELECT 5\nSET in-five 1\nSELECT 15\nSET in-fifteen 1\n";
  return commands;
}
inline void fill_with_every_type(const RedisServer& server) { server.take(every_type()); }

}  // namespace zx::test
