// One PostgreSQL cluster under an agent's eyes: a monitor for each node on the loop, and the keeper
// that decides and acts on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lib/config/config.h"
#include "lib/coord/coordinator.h"
#include "lib/ha/pg_keeper.h"
#include "lib/net/loop.h"
#include "lib/pg/monitor.h"

namespace zx::agent {

// What is known of a cluster now, for the endpoints.
struct Known {
  std::shared_ptr<const config::Config> config;  // has the cluster
  const config::PgCluster* cluster = nullptr;
  pg::Snapshot snapshot;  // of the monitors: the newest look at each node
  // When each node of the snapshot answered last; absent: never.
  std::vector<std::optional<Monotonic>> answered;
  std::optional<Millis> commit;  // how long a small commit on the primary took, or takes so far
  bool is_commit_pending = false;
  // Of the keeper's last look; `has_judged` is false before the first.
  bool has_judged = false;
  bool has_looked = false;  // the monitors, at every node
  [[nodiscard]] bool is_complete() const { return has_judged && has_looked; }
  ha::PgVerdict verdict;
  ha::Decision decision;
  std::string error;  // why the last attempt at something failed, until one succeeds or all is well
  ha::WatchRecord record;
  Monotonic judged_at{};
  std::vector<ha::PgKeeper::Retry> retries;
  std::optional<std::string> run;  // at work now: "failover", "rejoin pg-a"
  std::uint64_t looks = 0, ticks = 0, runs_done = 0, runs_failed = 0;
  // An answer counts so long at least, until every node was looked at under this configuration: it
  // may have been asked for under one with a longer interval.
  Millis trust{0};
};

class ClusterWatch {
 public:
  struct Means {
    std::shared_ptr<const config::Config> config;
    std::string cluster;
    coord::Coordinator& coordinator;
    std::string self;
    std::function<void(const store::Event&)> event;  // from any thread
  };
  // Goes on where `before`, a watch of the same cluster that has stopped, ended: with what that
  // knows of the nodes that are the same, and with its connections to them. Null: anew.
  // Code::config, auth: a password that cannot be read; `before` is as it was then.
  [[nodiscard]] static Result<std::unique_ptr<ClusterWatch>> start(net::Loop& loop, Means means,
                                                                   ClusterWatch* before);
  // Waits for the end of the keeper's thread: ask it to stop first.
  ~ClusterWatch();

  [[nodiscard]] Known known() const;
  [[nodiscard]] const std::string& name() const;
  // A look at every node now.
  void look_now();
  // Monitors and keeper have made progress lately.
  [[nodiscard]] bool is_well() const;

  // Begins no run any more; one about a standby gives way, a failover is finished.
  void ask_to_stop();
  [[nodiscard]] bool has_stopped() const;

 private:
  struct Impl;
  explicit ClusterWatch(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// The node that clients may write to, as load balancers want to know: it answered lately, and no
// second primary is in sight. Empty: there is none for certain.
[[nodiscard]] std::string writable_node(const Known& known, Monotonic now);
// Does the standby `node` answer lately and have all but `lag` bytes of what the primary has?
[[nodiscard]] bool is_readable(const Known& known, const std::string& node, std::uint64_t lag,
                               Monotonic now);

}  // namespace zx::agent
