// A lab of Redis servers and Sentinels, zx on it, and commands to its servers: what the scenarios
// of Redis are made of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/redis/connection.h"
#include "tests/scenario/cluster.h"

namespace zx::test {

class RedisDeployment {
 public:
  explicit RedisDeployment(int servers = 3, int sentinels = 0) : lab_(make(servers, sentinels)) {}

  [[nodiscard]] const lab::Lab& lab() const { return lab_; }
  [[nodiscard]] std::string config() const { return lab_.config_path(); }
  [[nodiscard]] std::string beside(const std::string& name) const {
    return directory_.beside(name);
  }
  [[nodiscard]] lab::Node node(const std::string& name) const {
    const auto found = lab_.node(name);
    REQUIRE_MESSAGE(found.has_value(), why(found));
    return *found;
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
  [[nodiscard]] Json status() const { return zx_json({"redis", "status"}); }
  // One node of `zx redis status -o json`.
  [[nodiscard]] static Json node_in(const Json& status, const std::string& name) {
    for (const auto& one : status["nodes"])
      if (one["name"] == name) return one;
    FAIL("no node " << name);
    return {};
  }

  // Of a server, or of a Sentinel by its name.
  [[nodiscard]] redis::Target target(const std::string& name) const {
    const auto found = node(name);
    redis::Target target;
    target.name = name;
    target.address = found.host;
    target.port = found.port;
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
  // The answer as text; an error reply fails the test.
  std::string ask(const std::string& name, const redis::Command& argv) const {
    const auto reply = command(name, argv);
    REQUIRE_MESSAGE(reply.has_value(), (reply ? std::string() : reply.error().error.message));
    return reply->kind == redis::Reply::Kind::integer ? std::to_string(reply->number) : reply->text;
  }
  // A field of INFO; empty when it does not answer.
  std::string info(const std::string& name, const std::string& field) const {
    const auto reply = command(name, {"INFO"});
    if (!reply) return {};
    for (const auto& line : lines_of(reply->text))
      if (line.starts_with(field + ":")) return std::string(trim(line.substr(field.size() + 1)));
    return {};
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

 private:
  lab::Lab make(int servers, int sentinels) {
    lab::Options options;
    options.dir = directory_.path();
    options.pg = 0;
    options.redis = servers;
    options.sentinel = sentinels;
    options.deadline = kPatience;
    auto up = lab::up(options);
    REQUIRE_MESSAGE(up.has_value(), why(up));
    return up->lab;
  }

  LabDirectory directory_;
  lab::Lab lab_;
};

}  // namespace zx::test
