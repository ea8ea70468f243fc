#include "lib/ha/redis_world.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "lib/ha/redis_last_seen.h"
#include "lib/ha/redis_mark.h"
#include "lib/net/tcp.h"
#include "lib/redis/node_ops.h"
#include "lib/redis/observe.h"

namespace zx::ha {
namespace {

class RealRedisWorld final : public RedisWorld {
 public:
  RealRedisWorld(const config::Config& config, const config::RedisDeployment& deployment,
                 coord::Shared* shared)
      : config_(config), deployment_(deployment), shared_(shared) {}
  const config::Config& config() const override { return config_; }
  const config::RedisDeployment& deployment() const override { return deployment_; }
  coord::Shared* shared() override { return shared_; }

  redis::Snapshot observe(const std::vector<std::string>& nodes, Millis deadline) override {
    auto audience = redis::audience_of(config_, deployment_);
    // A password that cannot be read is found when the configuration is checked before the chain
    // begins; nothing is known without it.
    if (!audience) return {};
    if (!nodes.empty()) {
      audience->sentinels.clear();
      std::erase_if(audience->nodes, [&](const redis::Target& target) {
        return std::find(nodes.begin(), nodes.end(), target.name) == nodes.end();
      });
    }
    auto snapshot = redis::observe(*audience, deadline);
    redis::name_hosts(snapshot, config_, deployment_);
    return snapshot;
  }

  std::vector<redis::SentinelFacts> observe_sentinels(Millis deadline) override {
    auto audience = redis::audience_of(config_, deployment_);
    if (!audience) return {};
    audience->nodes.clear();
    return redis::observe(*audience, deadline).sentinels;
  }

  Result<Json> on_host_of(const std::string& name, const std::string& op, Json request,
                          Millis deadline) override {
    const auto* node = deployment_.node(name);
    if (node == nullptr) return fail(Code::not_found, "no node named " + name);
    const auto* host = config_.host(node->host);
    if (host == nullptr) return fail(Code::config, "no host named " + node->host);
    auto dir = redis::server_dir_of(config_, deployment_, *node);
    if (dir.path.empty() || dir.config_file.empty())
      if (const auto last = read_redis_last_seen(config_.platform.state_dir, deployment_.name))
        if (const auto place = last->places.find(name); place != last->places.end()) {
          if (dir.path.empty()) dir.path = place->second.dir;
          if (dir.config_file.empty()) dir.config_file = place->second.config_file;
        }
    request["dir"] = redis::to_json(dir);
    return redis::on_host(*host, op, request, deadline);
  }

  std::vector<redis::Testimony> ask_around(const std::string& name, Millis deadline) override {
    const auto target = redis::target_of(config_, deployment_, name);
    if (!target) return {};
    const Json request{{"name", name},
                       {"address", target->address},
                       {"port", target->port},
                       {"user", target->user},
                       {"password", target->password}};
    std::vector<std::string> hosts;
    for (const auto& node : deployment_.nodes) {
      const auto* host = config_.host(node.host);
      // Its own host is asked too: only the way from here to its port may be cut.
      if (host == nullptr || !host->remote || host->remote->empty()) continue;
      if (std::find(hosts.begin(), hosts.end(), host->name) == hosts.end())
        hosts.push_back(host->name);
    }
    return all_at_once<redis::Testimony>(hosts, [&](const std::string& host) {
      const auto answer = redis::on_host(*config_.host(host), "redis-probe", request, deadline);
      if (!answer) return redis::Testimony{host, false, answer.error().message};
      const auto failure = redis::failure_named(get_string(*answer, "failure"));
      return redis::Testimony{host, redis::proves_life(failure),
                              failure == redis::Failure::none ? "answers" : redis::says(failure)};
    });
  }

  bool refuses(const std::string& name, int tries, Millis apart, Millis deadline) override {
    const auto target = redis::target_of(config_, deployment_, name);
    return target && net::refuses_tcp(target->address, target->port, tries, apart, deadline);
  }

  Result<std::unique_ptr<coord::Lease>> mark(const std::string& run, const std::string& command,
                                             const std::vector<std::string>& except) override {
    ZX_ASSIGN(auto targets, redis::targets_of(config_, deployment_));
    std::erase_if(targets, [&](const redis::Target& target) {
      return std::find(except.begin(), except.end(), target.name) != except.end();
    });
    constexpr Millis kMost{500};
    return mark_servers(std::move(targets), run, command,
                        Deadline::after(std::min(deployment_.policy.probe_deadline, kMost)));
  }

  redis::Outcome<redis::Reply> command(const std::string& name, const redis::Command& argv,
                                       Deadline deadline) override {
    auto target = redis::target_of(config_, deployment_, name);
    if (!target) return tl::unexpected(redis::Failed{redis::Failure::error, target.error(), {}});
    return ask("node " + name, *target, argv, deadline);
  }

  redis::Outcome<redis::Reply> ask_sentinel(std::size_t index, const redis::Command& argv,
                                            Deadline deadline) override {
    const auto targets = redis::sentinel_targets_of(config_, deployment_);
    if (!targets || index >= targets->size())
      return tl::unexpected(redis::Failed{
          redis::Failure::error,
          targets ? Error{Code::not_found, "no such Sentinel", {}, {}, false} : targets.error(),
          {}});
    return ask(std::to_string(index), (*targets)[index], argv, deadline);
  }

 private:
  // A run asks the same server again and again: its connection is kept, each for one thread at a
  // time. One that has ended meanwhile is made anew, once: a command that may have been done
  // already is not repeated, as its connection broke only after it was sent.
  struct Held {
    std::mutex mutex;
    std::optional<redis::Client> client;
  };
  Held& held(const std::string& whose) {
    const std::lock_guard guard(mutex_);
    return held_[whose];
  }

  redis::Outcome<redis::Reply> ask(const std::string& whose, const redis::Target& target,
                                   const redis::Command& argv, Deadline deadline) {
    auto& one = held(whose);
    const std::lock_guard guard(one.mutex);
    if (one.client) {
      // Servers end idle clients, and a failover ends all of them.
      const auto alive = one.client->command({"PING"}, deadline);
      if (!alive && alive.error().reply.empty()) one.client.reset();
    }
    if (!one.client) {
      auto opened = redis::Client::open(target, deadline);
      if (!opened) return tl::unexpected(named(target, opened.error()));
      one.client = *std::move(opened);
    }
    auto reply = one.client->command(argv, deadline);
    if (reply) return reply;
    if (reply.error().reply.empty()) one.client.reset();
    return tl::unexpected(named(target, reply.error()));
  }

  static redis::Failed named(const redis::Target& target, redis::Failed failed) {
    failed.error = redis::error_of(target, failed);
    return failed;
  }

  const config::Config& config_;
  const config::RedisDeployment& deployment_;
  coord::Shared* shared_;
  std::mutex mutex_;
  std::map<std::string, Held> held_;
};

}  // namespace

std::unique_ptr<RedisWorld> real_redis_world(const config::Config& config,
                                             const config::RedisDeployment& deployment,
                                             coord::Shared* shared) {
  return std::make_unique<RealRedisWorld>(config, deployment, shared);
}

Place place_of(const RedisWorld& world, const std::string& name) {
  const auto* node = world.deployment().node(name);
  if (node == nullptr) return {};
  const auto* host = world.config().host(node->host);
  return {host != nullptr ? host->address : node->host, node->port};
}

Result<redis::Reply> tell(RedisWorld& world, const std::string& node, const redis::Command& argv,
                          Deadline deadline) {
  auto reply = world.command(node, argv, deadline);
  if (!reply) return fail(reply.error().error);
  return *std::move(reply);
}

}  // namespace zx::ha
