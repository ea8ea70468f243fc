// A lab of Redis servers and Sentinels, zx on it, commands to its servers, and a client that writes
// to them: what the scenarios of Redis are made of.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lib/redis/connection.h"
#include "lib/run/journal.h"
#include "tests/scenario/cluster.h"
#include "tests/scenario/traced.h"

namespace zx::test {

struct RedisSetup {
  int servers = 3;
  int sentinels = 0;
  int down_after_ms = 0;      // of the Sentinels; long, so that they leave it to zx; 0: the lab's
  std::string settings = {};  // more lines of every redis.conf
  std::string policy = {};    // lines of [redis.cache.policy]
};
// A server that is killed comes back without its data.
inline constexpr const char* kForgetful = "appendonly no\nsave \"\"";

// redis-a is the master, the others are its replicas; sentinel-a, … watch "cache".
class RedisDeployment {
 public:
  explicit RedisDeployment(int servers = 3, int sentinels = 0)
      : RedisDeployment(RedisSetup{.servers = servers, .sentinels = sentinels}) {}
  explicit RedisDeployment(RedisSetup setup) : setup_(std::move(setup)), lab_(make()) {
    if (!setup_.policy.empty())
      write(config(), read(config()) + "\n[redis.cache.policy]\n" + setup_.policy + "\n");
    for (int i = 0; i < setup_.sentinels && setup_.down_after_ms > 0; ++i)
      REQUIRE(ask(sentinel_name(i),
                  {"SENTINEL", "SET", "cache", "down-after-milliseconds",
                   std::to_string(setup_.down_after_ms), "failover-timeout", "10000"}) == "OK");
  }

  [[nodiscard]] const lab::Lab& lab() const { return lab_; }
  [[nodiscard]] std::string config() const { return lab_.config_path(); }
  [[nodiscard]] std::string state_dir() const { return lab_.dir() + "/state"; }
  [[nodiscard]] std::string beside(const std::string& name) const {
    return directory_.beside(name);
  }
  [[nodiscard]] lab::Node node(const std::string& name) const {
    const auto found = lab_.node(name);
    REQUIRE_MESSAGE(found.has_value(), why(found));
    return *found;
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& member : lab_.members())
      if (lab::server_of(member.name) == lab::Server::redis) all.push_back(member.name);
    return all;
  }
  static std::string sentinel_name(int index) {
    return std::string("sentinel-") + static_cast<char>('a' + index);
  }
  [[nodiscard]] int port_of(const std::string& name) const { return node(name).port; }
  [[nodiscard]] std::string data_dir(const std::string& name) const { return node(name).data_dir; }
  [[nodiscard]] std::string conf_of(const std::string& name) const {
    return lab_.dir() + "/" + name + "/redis.conf";
  }
  [[nodiscard]] std::string password() const { return target("redis-a").password; }

  // zx -c LAB/zx.toml WORDS…
  os::ProcessResult zx(std::vector<std::string> words, os::ProcessOptions options = {}) const {
    words.insert(words.begin(), {"-c", config()});
    return run_zx(std::move(words), std::move(options));
  }
  // The same with -o json; `exit` is what it must exit with.
  Json zx_json(std::vector<std::string> words, int exit = 0) const {
    words.insert(words.end(), {"-o", "json"});
    os::ProcessOptions options;
    options.deadline = Millis(120'000);
    const auto result = zx(words, options);
    CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    return json_of(result);
  }
  // kill -9 of zx right after it has written line `line` of its journal: nothing but the journal
  // calls fdatasync. A result without signal: it ended before that.
  os::ProcessResult zx_killed_at(int line, const std::vector<std::string>& words) const {
    return zx_killed_in("fdatasync", line, words);
  }
  // In its call number `count` of `call`.
  os::ProcessResult zx_killed_in(const std::string& call, int count,
                                 const std::vector<std::string>& words) const {
    const auto inject = fmt::format("{}:signal=SIGKILL:when={}", call, count);
    auto options = traced();
    options.deadline = Millis(120'000);
    return run_program(argv_under(config(), inject, words), options);
  }
  [[nodiscard]] run::Record newest_run() const {
    const auto runs = run::list_runs(state_dir(), 1);
    REQUIRE_MESSAGE(runs.has_value(), why(runs));
    REQUIRE_FALSE(runs->runs.empty());
    return runs->runs.front();
  }
  [[nodiscard]] Json status() const { return zx_json({"redis", "status"}); }
  // One node of `zx redis status -o json`.
  [[nodiscard]] static Json node_in(const Json& status, const std::string& name) {
    for (const auto& one : status["nodes"])
      if (one["name"] == name) return one;
    FAIL("no node " << name);
    return {};
  }
  // In zx.toml.
  void edit_config(const std::string& from, const std::string& to) const {
    edit(config(), from, to);
  }

  // Of a server, or of a Sentinel by its name.
  [[nodiscard]] redis::Target target(const std::string& name) const {
    redis::Target target;
    target.name = name;
    for (const auto& member : lab_.members())
      if (member.name == name) {
        target.address = member.host;
        target.port = member.port;
      }
    REQUIRE_MESSAGE(!target.address.empty(), name);
    const bool is_sentinel = lab::server_of(name) == lab::Server::sentinel;
    target.password = std::string(
        trim(read(is_sentinel ? lab_.sentinel_password_file() : lab_.redis_password_file())));
    return target;
  }
  redis::Outcome<redis::Reply> command(const std::string& name, const redis::Command& argv,
                                       Millis span = Millis(5'000)) const {
    auto client = redis::Client::open(target(name), Deadline::after(span));
    if (!client) return tl::unexpected(client.error());
    return client->command(argv, Deadline::after(span));
  }
  // The answer as text, of an array the items, and of an error its words; empty without an answer.
  std::string ask(const std::string& name, const redis::Command& argv) const {
    const auto reply = command(name, argv);
    return reply ? text_of(*reply) : reply.error().reply;
  }
  // Lines of commands, as redis-cli reads them.
  void take(const std::string& name, const std::string& commands) const {
    const auto where = target(name);
    os::ProcessOptions options;
    options.input = commands;
    options.environment = {{"REDISCLI_AUTH", where.password}};
    const auto out =
        run_program({"/usr/bin/redis-cli", "-h", where.address, "-p", std::to_string(where.port)},
                    options)
            .out;
    REQUIRE_MESSAGE(out.find("ERR") == std::string::npos, out);
  }
  // A field of INFO; empty when it does not answer.
  [[nodiscard]] std::string info(const std::string& name, const std::string& field) const {
    for (const auto& line : lines_of(ask(name, {"INFO"})))
      if (line.starts_with(field + ":")) return std::string(trim(line.substr(field.size() + 1)));
    return {};
  }
  [[nodiscard]] std::string role(const std::string& name) const { return info(name, "role"); }
  // Of those that can answer.
  [[nodiscard]] std::vector<std::string> masters() const {
    std::vector<std::string> all;
    for (const auto& name : names())
      if (!node(name).is_paused && role(name) == "master") all.push_back(name);
    return all;
  }
  [[nodiscard]] std::string the_master() const {
    const auto all = masters();
    REQUIRE_MESSAGE(all.size() == 1, (std::to_string(all.size()) + " masters: " + join(all, " ")));
    return all.front();
  }
  // Every other server that runs is linked to it.
  [[nodiscard]] bool all_linked(const std::string& master) const {
    for (const auto& name : names()) {
      if (name == master || role(name).empty()) continue;
      if (info(name, "master_port") != std::to_string(target(master).port) ||
          info(name, "master_link_status") != "up")
        return false;
    }
    return true;
  }
  // The same, and they come to have what it has.
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
  // Every Sentinel sees this master, its replicas and the other Sentinels, and nothing else.
  [[nodiscard]] bool sentinels_content(const std::string& master = "redis-a") const {
    for (int i = 0; i < setup_.sentinels; ++i) {
      const auto reply = command(sentinel_name(i), {"SENTINEL", "MASTER", "cache"});
      if (!reply) return false;
      const auto value = [&](const std::string& field) {
        for (std::size_t at = 0; at + 1 < reply->items.size(); at += 2)
          if (reply->items[at].text == field) return reply->items[at + 1].text;
        return std::string();
      };
      if (value("port") != std::to_string(target(master).port) || value("flags") != "master" ||
          value("num-slaves") != std::to_string(setup_.servers - 1) ||
          value("num-other-sentinels") != std::to_string(setup_.sentinels - 1) ||
          value("down-after-milliseconds") != "5000")
        return false;
    }
    return true;
  }
  [[nodiscard]] std::string sentinel_master(const std::string& sentinel) const {
    const auto place = ask(sentinel, {"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cache"});
    for (const auto& name : names())
      if (place.ends_with(" " + std::to_string(target(name).port))) return name;
    return place;
  }

  void kill(const std::string& name, int signal = SIGKILL) const {
    const auto sent = lab_.kill(name, signal);
    REQUIRE_MESSAGE(sent.has_value(), why(sent));
    REQUIRE(*sent > 0);
  }
  // As a supervisor would.
  bool start(const std::string& name) const {
    const auto started = lab_.start(name);
    REQUIRE_MESSAGE(started.has_value(), why(started));
    return *started;
  }
  // In order, with what it saves.
  void stop(const std::string& name) const {
    kill(name, SIGTERM);
    REQUIRE(eventually([&] { return !node(name).is_running(); }));
  }

 private:
  static std::string text_of(const redis::Reply& reply) {
    if (reply.kind == redis::Reply::Kind::integer) return std::to_string(reply.number);
    if (reply.kind != redis::Reply::Kind::array) return reply.text;
    std::vector<std::string> parts;
    for (const auto& item : reply.items) parts.push_back(text_of(item));
    return join(parts, " ");
  }
  lab::Lab make() {
    lab::Options options;
    options.dir = directory_.path();
    options.pg = 0;
    options.redis = setup_.servers;
    options.sentinel = setup_.sentinels;
    options.redis_settings = "repl-ping-replica-period 1\nshutdown-timeout 0\n" + setup_.settings;
    options.deadline = kPatience;
    auto up = lab::up(options);
    REQUIRE_MESSAGE(up.has_value(), why(up));
    return up->lab;
  }

  RedisSetup setup_;
  LabDirectory directory_;
  lab::Lab lab_;
};

// A client that counts in one key, on whichever server is the master, and knows what it was
// answered.
class Counter {
 public:
  explicit Counter(const RedisDeployment& deployment, std::string key = "zx-test-计数")
      : deployment_(deployment), key_(std::move(key)) {
    for (const auto& name : deployment.names()) targets_.push_back(deployment.target(name));
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
    return std::atol(deployment_.ask(name, {"GET", key_}).c_str());
  }

 private:
  void count() {
    for (std::size_t at = 0; !ended_; ++at) {
      auto client =
          redis::Client::open(targets_[at % targets_.size()], Deadline::after(Millis(300)));
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
      pause_for(Millis(2));
    }
  }

  const RedisDeployment& deployment_;
  std::string key_;
  std::vector<redis::Target> targets_;
  std::atomic<long> acknowledged_{0}, unanswered_{0};
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

}  // namespace zx::test
