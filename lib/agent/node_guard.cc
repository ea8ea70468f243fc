#include "lib/agent/node_guard.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/coord/etcd_shared.h"
#include "lib/coord/guard_lease.h"
#include "lib/ha/pg_guard.h"
#include "lib/pg/monitor.h"
#include "lib/pg/node_ops.h"
#include "lib/pg/observe.h"

namespace zx::agent {
namespace {

constexpr Millis kTurn{100};
// Stopping takes a signal and the end of the processes; what the guard looks at is so old at most.
constexpr Millis kStopMargin{1000};
constexpr Millis kLook{200};
constexpr Millis kStuckAfter{10'000};
constexpr Millis kFenceDeadline{10'000};
// At its start a guard has no lease, as it has not asked yet, and no look at the server.
constexpr Millis kFirstLease{1000};

}  // namespace

struct NodeGuard::Impl {
  Impl(net::Loop& l, Means m) : loop(l), means(std::move(m)) {}

  net::Loop& loop;
  Means means;
  const config::PgCluster* cluster = nullptr;
  const config::PgNode* node = nullptr;
  std::unique_ptr<coord::GuardLease> lease;
  std::unique_ptr<pg::Monitor> monitor;  // the loop's thread only
  std::thread thread;

  mutable std::mutex mutex;
  std::condition_variable wake;
  bool must_stop = false;
  Millis reply_within{0};
  pg::NodeFacts facts;
  Monotonic looked{}, turned{};
  State state;

  void say(std::string kind, std::string text, std::string run = {}) const {
    means.event({system_clock().wall(),
                 cluster->name,
                 std::move(kind),
                 node->name,
                 std::move(run),
                 std::move(text),
                 {}});
  }

  Json request() const { return {{"dir", pg::to_json(pg::data_dir_of(*cluster, *node))}}; }

  // A server that does not answer the guard may still serve others.
  [[nodiscard]] pg::NodeFacts facts_now() const {
    {
      const std::lock_guard lock(mutex);
      const auto age = since(looked);
      if (facts.answered() && age < reply_within) {
        auto now = facts;
        for (auto& sender : now.senders)
          if (sender.reply_age) *sender.reply_age += age;
        return now;
      }
    }
    pg::NodeFacts found;
    found.name = node->name;
    const auto local = pg::run_node_op("pg-inspect", request());
    const bool may_serve =
        !local || (get_bool(*local, "processes") && !get_bool(*local, "standby_signal"));
    found.failure = pg::Failure::none;
    found.role = may_serve ? pg::Role::primary : pg::Role::standby;
    return found;
  }

  void turn() {
    const auto left = lease->left();
    const bool is_barred = lease->is_barred();
    const auto verdict =
        ha::guard({*cluster, facts_now(), left, kStopMargin, reply_within, is_barred});
    has_begun =
        has_begun || left.count() > 0 || is_barred || system_clock().now() - began >= kFirstLease;
    const bool must_stop_it = verdict.must_stop && has_begun;
    if (must_stop_it) stop_server(verdict.why);
    const std::lock_guard lock(mutex);
    turned = system_clock().now();
    state.lease_left = left;
    state.is_barred = is_barred;
    state.why = verdict.why;
    state.has_stopped_it = must_stop_it;
  }

  void stop_server(const std::string& why) {
    const auto run = make_run_id(system_clock().wall());
    auto asked = request();
    asked["run"] = run;
    asked["deadline_ms"] = kFenceDeadline.count();
    const auto fenced = pg::run_node_op("pg-fence", asked);
    const std::string outcome = fenced ? "self_fenced" : "failed";
    if (outcome != last_outcome || why != last_why)
      say(outcome, fenced ? why : why + "; stopping it failed: " + fenced.error().message, run);
    last_outcome = outcome;
    last_why = why;
  }
  std::string last_outcome, last_why;
  Monotonic began = system_clock().now();
  bool has_begun = false;  // what it sees and what lease it has count

  void keep() {
    std::unique_lock lock(mutex);
    while (!must_stop) {
      lock.unlock();
      turn();
      lock.lock();
      wake.wait_for(lock, kTurn, [&] { return must_stop; });
    }
  }
};

NodeGuard::NodeGuard(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<NodeGuard>> NodeGuard::start(net::Loop& loop, Means means) {
  auto impl = std::make_shared<Impl>(loop, std::move(means));
  const auto& config = *impl->means.config;
  impl->cluster = config.cluster(impl->means.cluster);
  impl->node = impl->cluster->node(impl->means.node);
  impl->state.node = impl->node->name;
  coord::GuardOptions options;
  ZX_ASSIGN(options.etcd, coord::etcd_options(config));
  options.prefix = coord::etcd_prefix(config);
  options.node = impl->node->name;
  options.owner = impl->means.owner;
  options.ttl = config.agent.lease;
  options.stop_margin = kStopMargin;
  // The longer a failover waits for the lease anyway, the more patient the guard may be.
  options.reply_within = impl->reply_within = config.agent.lease / 2;
  ZX_ASSIGN(impl->lease, coord::GuardLease::start(std::move(options)));
  pg::Monitor::Settings settings;
  ZX_ASSIGN(settings.target, pg::target_of(config, *impl->cluster, impl->node->name));
  settings.host = impl->node->host;
  settings.interval = kLook;
  settings.deadline = std::min(impl->cluster->policy.probe_deadline, impl->reply_within);
  auto* raw = impl.get();
  impl->monitor = std::make_unique<pg::Monitor>(loop, settings, [raw](bool) {
    const std::lock_guard lock(raw->mutex);
    raw->facts = raw->monitor->facts();
    raw->looked = system_clock().now();
  });
  impl->turned = system_clock().now();
  impl->thread = std::thread([raw] { raw->keep(); });
  return std::unique_ptr<NodeGuard>(new NodeGuard(std::move(impl)));
}

NodeGuard::~NodeGuard() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->must_stop = true;
    impl_->wake.notify_one();
  }
  impl_->thread.join();
}

NodeGuard::State NodeGuard::state() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->state;
}

bool NodeGuard::is_well() const {
  const std::lock_guard lock(impl_->mutex);
  return system_clock().now() - impl_->turned < kStuckAfter;
}

}  // namespace zx::agent
