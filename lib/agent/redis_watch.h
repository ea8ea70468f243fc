// One Redis deployment under an agent's eyes: a monitor for each node on the loop, and the keeper
// that decides and acts on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/ha/redis_keeper.h"
#include "lib/net/http_server.h"
#include "lib/net/loop.h"

namespace zx::agent {

// What is known of a deployment now, for the endpoints.
struct RedisKnown {
  std::shared_ptr<const config::Config> config;  // has the deployment
  const config::RedisDeployment* deployment = nullptr;
  redis::Snapshot snapshot;                        // of the monitors: the newest look at each node
  std::vector<std::optional<Monotonic>> answered;  // when each of them answered last
  bool has_judged = false;                         // the keeper, at least once
  bool has_looked = false;                         // the monitors, at every node
  [[nodiscard]] bool is_complete() const { return has_judged && has_looked; }
  ha::RedisVerdict verdict;
  ha::Decision decision;
  ha::WatchRecord record;
  std::string error;               // why the last attempt at something failed
  std::optional<std::string> run;  // the step that is at work now
  std::uint64_t looks = 0, runs_done = 0, runs_failed = 0;
  // An answer counts so long at least, until every node was looked at under this configuration: it
  // may have been asked for under one with a longer interval.
  Millis trust{0};
};

class RedisWatch {
 public:
  struct Means {
    std::shared_ptr<const config::Config> config;
    std::string deployment;
    coord::Coordinator& coordinator;
    std::string self;
    std::function<void(const store::Event&)> event;  // from any thread
  };
  // Goes on where `before`, a watch of the same deployment that has stopped, ended: with what that
  // knows of the nodes that are the same, and with its connections to them. Null: anew.
  // Code::config, auth: a password that cannot be read; `before` is as it was then.
  [[nodiscard]] static Result<std::unique_ptr<RedisWatch>> start(net::Loop& loop, Means means,
                                                                 RedisWatch* before);
  // Waits for the end of the keeper's thread: ask it to stop first.
  ~RedisWatch();

  [[nodiscard]] RedisKnown known() const;
  [[nodiscard]] const std::string& name() const;
  // Monitors and keeper have made progress lately.
  [[nodiscard]] bool is_well() const;
  // Begins no run any more; a failover is finished.
  void ask_to_stop();
  [[nodiscard]] bool has_stopped() const;

 private:
  struct Impl;
  explicit RedisWatch(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// The node that clients may write to: answered lately as a master, and no second one in sight;
// empty when there is none for certain.
[[nodiscard]] std::string writable_node(const RedisKnown& known, Monotonic now);
// Is `node` a replica that answered lately, is linked and at most `lag` bytes behind?
[[nodiscard]] bool is_readable(const RedisKnown& known, const std::string& node, std::uint64_t lag,
                               Monotonic now);

[[nodiscard]] Json deployment_json(const RedisKnown& known, Monotonic now);
// /redis/master, /redis/replica, /redis/NODE/master, /redis/NODE/replica.
[[nodiscard]] net::HttpResponse about_redis(const net::HttpRequest& request,
                                            const std::vector<RedisKnown>& deployments,
                                            Monotonic now);

}  // namespace zx::agent
