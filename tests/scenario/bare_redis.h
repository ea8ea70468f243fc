// A Redis deployment of real servers and Sentinels on this host, and zx.toml for it.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "lib/run/journal.h"
#include "tests/scenario/redis_server.h"

namespace zx::test {

struct BareSetup {
  int nodes = 3;  // the first is the master
  int sentinels = 0;
  std::string settings;  // lines of every node's redis.conf
};

class BareRedis {
 public:
  explicit BareRedis(const BareSetup& setup = {}) {
    for (int i = 0; i < setup.nodes; ++i) nodes_.emplace_back(setup.settings);
    for (int i = 1; i < setup.nodes; ++i) {
      nodes_[i].follow(nodes_[0]);
      // A restart keeps it.
      REQUIRE(nodes_[i].says({"CONFIG", "REWRITE"}) == "OK");
    }
    for (int i = 0; i < setup.sentinels; ++i) start_sentinel(i);
    write_config();
    if (setup.sentinels > 0) REQUIRE(eventually([&] { return sentinels_content(); }));
  }

  [[nodiscard]] RedisServer& node(std::size_t index) { return nodes_.at(index); }
  [[nodiscard]] static std::string name(std::size_t index) {
    return "redis-" + std::string(1, static_cast<char>('a' + index));
  }
  [[nodiscard]] std::size_t size() const { return nodes_.size(); }
  [[nodiscard]] std::string state_dir() const { return directory_ / "state"; }
  [[nodiscard]] std::string operator/(const std::string& file) const { return directory_ / file; }

  [[nodiscard]] os::ProcessResult zx(std::vector<std::string> words,
                                     const os::ProcessOptions& options = {}) const {
    words.insert(words.begin(), {"-c", directory_ / "zx.toml"});
    return run_zx(words, options);
  }
  // With -o json; the exit status must be `exit`.
  Json zx_json(std::vector<std::string> words, int exit = 0) const {
    words.insert(words.end(), {"-o", "json"});
    os::ProcessOptions options;
    options.deadline = Millis(120'000);
    const auto result = zx(words, options);
    REQUIRE_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    return json_of(result);
  }

  // Every Sentinel sees this master, its replicas and the other Sentinels, and nothing else.
  [[nodiscard]] bool sentinels_content(std::size_t master = 0) const {
    for (std::size_t i = 0; i < sentinel_ports_.size(); ++i) {
      const auto fields = sentinel(i, {"SENTINEL", "MASTER", "cache"});
      if (fields.size() < 2) return false;
      const auto value = [&](const std::string& field) {
        for (std::size_t at = 0; at + 1 < fields.size(); at += 2)
          if (fields[at] == field) return fields[at + 1];
        return std::string();
      };
      if (value("port") != std::to_string(nodes_[master].port()) || value("flags") != "master" ||
          value("num-slaves") != std::to_string(nodes_.size() - 1) ||
          value("num-other-sentinels") != std::to_string(sentinel_ports_.size() - 1) ||
          value("down-after-milliseconds") != "5000")
        return false;
    }
    return true;
  }
  [[nodiscard]] std::vector<std::string> sentinel(std::size_t index,
                                                  std::vector<std::string> words) const {
    words.insert(words.begin(),
                 {"/usr/bin/redis-cli", "-p", std::to_string(sentinel_ports_[index])});
    return lines_of(run_program(words).out);
  }

  [[nodiscard]] run::Record newest_run() const {
    const auto runs = run::list_runs(state_dir(), 1);
    REQUIRE(runs.has_value());
    REQUIRE_FALSE(runs->runs.empty());
    return runs->runs.front();
  }

 private:
  void start_sentinel(int index) {
    const auto port = unused_port();
    const auto home = fmt::format("{}/sentinel-{}", directory_.path(), index);
    write(home + "/sentinel.conf", fmt::format("port {}\nbind 127.0.0.1\ndir {}\nlogfile \"\"\n"
                                               "sentinel monitor cache 127.0.0.1 {} 2\n"
                                               "sentinel down-after-milliseconds cache 5000\n"
                                               "sentinel failover-timeout cache 10000\n",
                                               port, home, nodes_[0].port()));
    auto child = os::Child::start({"/usr/bin/redis-server", home + "/sentinel.conf", "--sentinel"},
                                  {}, home + "/log");
    REQUIRE_MESSAGE(child.has_value(), why(child));
    sentinels_.push_back(*std::move(child));
    sentinel_ports_.push_back(port);
  }
  void write_config() const {
    auto text = fmt::format(
        "[platform]\nname = \"shop\"\nstate_dir = \"{}\"\n\n"
        "[hosts.here]\naddress = \"127.0.0.1\"\nremote = []\n\n[redis.cache]\n\n",
        state_dir());
    for (std::size_t i = 0; i < nodes_.size(); ++i)
      text += fmt::format(
          "[redis.cache.nodes.{}]\nhost = \"here\"\nport = {}\ndata_dir = \"{}\"\n"
          "config_file = \"{}/redis.conf\"\n\n",
          name(i), nodes_[i].port(), nodes_[i].path(), nodes_[i].path());
    if (!sentinel_ports_.empty()) {
      std::vector<std::string> places;
      for (const int port : sentinel_ports_)
        places.push_back(fmt::format("\"127.0.0.1:{}\"", port));
      text +=
          fmt::format("[redis.cache.sentinel]\nmaster_name = \"cache\"\nquorum = 2\nnodes = [{}]\n",
                      join(places, ", "));
    }
    write(directory_ / "zx.toml", text);
  }

  Directory directory_;
  std::deque<RedisServer> nodes_;
  std::vector<os::Child> sentinels_;
  std::vector<int> sentinel_ports_;
};

}  // namespace zx::test
