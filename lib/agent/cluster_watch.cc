#include "lib/agent/cluster_watch.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "lib/agent/inquirer.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/pg/observe.h"

namespace zx::agent {
namespace {

// A monitor that has not ended a look for so long, or a keeper, is stuck.
constexpr Millis kStuckAfter{15'000};
constexpr Millis kStepMargin{30'000};
// What a monitor must be silent for, as a part of silent_after, before a standby's run gives way.
constexpr int kUneasy = 2;

bool is_told(pg::Ending ending) {
  return ending == pg::Ending::stopped_fast || ending == pg::Ending::stopped_immediately;
}

}  // namespace

// What the loop's thread learns and the keeper's thread decides, under one mutex.
struct ClusterWatch::Impl : std::enable_shared_from_this<ClusterWatch::Impl> {
  Impl(net::Loop& l, Means m) : loop(l), means(std::move(m)) {}

  net::Loop& loop;
  Means means;
  const config::PgCluster* cluster = nullptr;
  std::vector<std::unique_ptr<pg::Monitor>> monitors;  // the loop's thread only
  std::unique_ptr<ha::PgWorld> world;
  std::unique_ptr<ha::PgKeeper> keeper;
  std::thread thread;
  Inquirer<ha::Inquiry> inquirer;

  mutable std::mutex mutex;
  std::condition_variable wake;
  Known known;
  bool is_urgent = false;
  bool must_stop = false;
  bool has_ended = false;
  bool commits_hang = false;
  std::optional<ha::PlannedStop> planned;
  std::optional<Wall> noticed;
  std::optional<ha::LastSeen> last;
  Monotonic last_tick{};
  std::optional<Monotonic> step_until;  // a run is at work, its step must end by then
  std::vector<Monotonic> last_looks;
  std::vector<bool> has_looked;

  // --- on the loop ---

  void start_monitors(const std::vector<pg::Target>& targets, Impl* before) {
    const auto& policy = cluster->policy;
    if (before != nullptr) inherit(*before);
    known.snapshot.nodes.resize(targets.size());
    known.answered.resize(targets.size());
    last_looks.assign(targets.size(), system_clock().now());
    has_looked.assign(targets.size(), false);
    for (std::size_t i = 0; i < targets.size(); ++i) {
      pg::Monitor::Settings settings;
      settings.target = targets[i];
      settings.host = cluster->nodes[i].host;
      settings.interval = policy.probe_interval;
      settings.deadline = policy.probe_deadline;
      settings.overdue = [this, i] { overdue(i); };
      const auto changed = [this, i](bool urgent) { looked(i, urgent); };
      known.snapshot.nodes[i].name = targets[i].name;
      monitors.emplace_back();
      if (before != nullptr) take_node(*before, i, targets[i], settings, changed);
      if (!monitors[i]) monitors[i] = std::make_unique<pg::Monitor>(loop, settings, changed);
    }
    known.snapshot.deadline = policy.probe_deadline;
    known.has_looked = has_all_looks(known);
  }

  // Its threads have ended.
  void inherit(Impl& before) {
    const auto& old = before.known;
    known.snapshot.at = old.snapshot.at;
    known.commit = old.commit;
    known.is_commit_pending = old.is_commit_pending;
    known.has_judged = old.has_judged;
    known.verdict = old.verdict;
    known.decision = old.decision;
    known.error = old.error;
    known.record = old.record;
    known.retries = old.retries;
    known.judged_at = old.judged_at;
    known.looks = old.looks;
    known.ticks = old.ticks;
    known.runs_done = old.runs_done;
    known.runs_failed = old.runs_failed;
    known.trust = std::max<Millis>(
        old.trust, before.cluster->policy.probe_interval + before.cluster->policy.probe_deadline);
    commits_hang = before.commits_hang;
    planned = before.planned;
    noticed = before.noticed;
    last = before.last;
  }

  void take_node(Impl& before, std::size_t i, const pg::Target& target,
                 const pg::Monitor::Settings& settings, const std::function<void(bool)>& changed) {
    auto& nodes = before.known.snapshot.nodes;
    for (std::size_t k = 0; k < nodes.size(); ++k) {
      if (nodes[k].name != target.name) continue;
      if (nodes[k].host != settings.host || nodes[k].address != target.address ||
          nodes[k].port != target.port)
        return;
      known.snapshot.nodes[i] = nodes[k];
      known.answered[i] = before.known.answered[k];
      if (before.monitors[k] && before.monitors[k]->adopt(settings, changed))
        monitors[i] = std::move(before.monitors[k]);
    }
  }

  void looked(std::size_t i, bool urgent) {
    const auto& monitor = *monitors[i];
    const std::lock_guard lock(mutex);
    known.snapshot.nodes[i] = monitor.facts();
    known.snapshot.at = system_clock().wall();
    known.answered[i] = monitor.answered_at();
    known.looks += 1;
    known.has_looked = has_all_looks(known);
    last_looks[i] = system_clock().now();
    has_looked[i] = true;
    if (std::all_of(has_looked.begin(), has_looked.end(), [](bool has) { return has; }))
      known.trust = Millis(0);
    if (monitor.facts().role == pg::Role::primary)
      if (auto seen = ha::last_seen_of(known.snapshot)) last = std::move(seen);
    if (monitor.facts().role == pg::Role::primary)
      if (const auto commit = monitor.commit()) {
        known.commit = commit->took;
        known.is_commit_pending = commit->is_pending;
        note_commits(monitor.facts().name, commit->took);
      }
    if (const auto& end = monitor.end(); end && is_told(end->ending))
      planned =
          ha::PlannedStop{monitor.facts().name,
                          end->ending == pg::Ending::stopped_fast ? "fast" : "immediate", end->at};
    else if (planned && planned->node == monitor.facts().name && monitor.facts().answered())
      planned.reset();
    if (!monitor.facts().answered() && !noticed && monitor.facts().name == known.verdict.primary)
      noticed = monitor.end() ? monitor.end()->wall : system_clock().wall();
    if (!urgent) return;
    is_urgent = true;
    wake.notify_one();
  }

  // It answers, and its clients wait: no reason for a failover, and one to tell a person.
  void note_commits(const std::string& node, Millis took) {
    const bool hang = took >= cluster->policy.probe_deadline;
    if (hang == commits_hang) return;
    commits_hang = hang;
    say(hang ? "commits_hang" : "commits_flow", node,
        hang ? fmt::format("{} answers, and a small commit has taken {}: its disk, or the "
                           "synchronous standbys that it waits for",
                           node, format_duration(took))
             : fmt::format("a commit on {} took {}", node, format_duration(took)));
  }

  void say(const char* kind, const std::string& node, std::string text) const {
    means.event({system_clock().wall(), cluster->name, kind, node, {}, std::move(text), {}});
  }

  // Whoever will have to decide about a silent primary finds the answers of the hosts there.
  void overdue(std::size_t i) {
    const std::lock_guard lock(mutex);
    const auto& node = known.snapshot.nodes[i].name;
    if (must_stop || !cluster->policy.automatic || known.verdict.primary != node) return;
    inquirer.begin(node, [this, node, snapshot = known.snapshot] {
      return ha::inquire(*world, snapshot, node, cluster->policy.probe_deadline * 2 / 5);
    });
  }

  // --- on the keeper's thread ---

  std::optional<ha::Inquiry> inquiry_about(const std::string& node) {
    auto inquiry = inquirer.about(node);
    const std::lock_guard lock(mutex);
    if (inquiry && has_answered_since(known, node, inquiry->began)) inquiry.reset();
    return inquiry;
  }

  ha::PgKeeper::Told told() {
    ha::PgKeeper::Told out;
    out.planned = planned;
    out.last = last;
    out.noticed = noticed;
    if (!has_all_looks(known)) return out;
    out.snapshot = known.snapshot;
    for (std::size_t i = 0; i < known.answered.size(); ++i)
      if (known.answered[i]) out.answered[known.snapshot.nodes[i].name] = *known.answered[i];
    for (const auto& facts : known.snapshot.nodes)
      if (facts.failure == pg::Failure::silent || facts.failure == pg::Failure::no_answer)
        out.silent.push_back(facts.name);
    return out;
  }

  // Asked while a standby is being brought back.
  bool must_hurry(const std::string& primary) {
    const std::lock_guard lock(mutex);
    if (must_stop) return true;
    for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
      if (known.snapshot.nodes[i].name != primary || known.snapshot.nodes[i].answered()) continue;
      const auto silent =
          known.answered[i] ? system_clock().now() - *known.answered[i] : Monotonic::duration(0);
      if (silent >= cluster->policy.silent_after / kUneasy) return true;
    }
    return false;
  }

  void keep() {
    std::unique_lock lock(mutex);
    auto next = system_clock().now();
    // The monitors are about to find what the first look would.
    wake.wait_until(lock, next + cluster->policy.probe_deadline,
                    [&] { return must_stop || has_all_looks(known); });
    while (!must_stop) {
      wake.wait_until(lock, next, [&] { return must_stop || is_urgent; });
      if (must_stop) break;
      is_urgent = false;
      auto now_told = told();
      lock.unlock();
      const auto tick = keeper->tick(now_told);
      lock.lock();
      next = system_clock().now() + tick.again;
      take(tick);
    }
    has_ended = true;
  }

  void take_verdict(const ha::PgKeeper::Tick& tick) {
    known.has_judged = true;
    known.verdict = tick.view.verdict;
    known.decision = tick.decision;
    known.record = keeper->record();
    known.retries = keeper->retries();
    known.judged_at = last_tick = system_clock().now();
  }

  void take(const ha::PgKeeper::Tick& tick) {
    take_verdict(tick);
    known.ticks += 1;
    known.run.reset();
    step_until.reset();
    if (ha::has_live_primary(known.verdict.state)) noticed.reset();
    if (tick.error)
      known.error = tick.error->message;
    else if (tick.report || tick.was_calm)
      known.error.clear();
    if (tick.report && tick.report->ending == run::Ending::done)
      known.runs_done += 1;
    else if (tick.report)
      known.runs_failed += 1;
    if (tick.report) post_look();
  }

  void post_look() {
    loop.post([weak = weak_from_this()] {
      if (const auto self = weak.lock())
        for (const auto& monitor : self->monitors) monitor->look_now();
    });
  }

  ha::PgKeeper::Hooks hooks() {
    ha::PgKeeper::Hooks hooks;
    hooks.event = means.event;
    hooks.hurry = [this](const std::string& primary) { return must_hurry(primary); };
    hooks.inquiry = [this](const std::string& node) { return inquiry_about(node); };
    hooks.judged = [this](const ha::PgKeeper::Tick& tick) {
      const std::lock_guard lock(mutex);
      take_verdict(tick);
    };
    hooks.run.on_start = [this](const run::Step& step) {
      const std::lock_guard lock(mutex);
      known.run = step.name + " " + step.subject;
      step_until = system_clock().now() + step.deadline + kStepMargin;
    };
    hooks.run.on_end = [this](const run::StepReport& step) {
      // Load balancers must not send writes to the old one, and soon to the new one.
      if (step.name == "promote" || step.name == "fence" || step.name == "check") post_look();
    };
    return hooks;
  }

  [[nodiscard]] bool is_well() const {
    const std::lock_guard lock(mutex);
    const auto now = system_clock().now();
    const auto& policy = cluster->policy;
    const auto most = std::max<Millis>(
        kStuckAfter, 4 * (policy.probe_interval + policy.probe_deadline) + policy.silent_after);
    const bool monitors_go_on = std::all_of(last_looks.begin(), last_looks.end(),
                                            [&](Monotonic at) { return now - at < most; });
    if (step_until) return monitors_go_on && now < *step_until;
    return monitors_go_on && now - last_tick < most;
  }
};

ClusterWatch::ClusterWatch(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ClusterWatch>> ClusterWatch::start(net::Loop& loop, Means means,
                                                          ClusterWatch* before) {
  auto impl = std::make_shared<Impl>(loop, std::move(means));
  const auto& config = *impl->means.config;
  impl->cluster = config.cluster(impl->means.cluster);
  impl->known.config = impl->means.config;
  impl->known.cluster = impl->cluster;
  ZX_ASSIGN(const auto targets, pg::targets_of(config, *impl->cluster));
  impl->world =
      ha::real_world(config, *impl->cluster, &impl->means.coordinator, ha::Looking::holds);
  impl->keeper = std::make_unique<ha::PgKeeper>(
      *impl->world, impl->means.coordinator, impl->means.self, config.agent.region, impl->hooks());
  impl->last_tick = system_clock().now();
  impl->start_monitors(targets, before == nullptr ? nullptr : before->impl_.get());
  impl->thread = std::thread([raw = impl.get()] { raw->keep(); });
  return std::unique_ptr<ClusterWatch>(new ClusterWatch(std::move(impl)));
}

ClusterWatch::~ClusterWatch() {
  ask_to_stop();
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->monitors.clear();  // those that no other watch has taken
  impl_->inquirer.end();
}

Known ClusterWatch::known() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->known;
}

const std::string& ClusterWatch::name() const { return impl_->means.cluster; }

void ClusterWatch::look_now() { impl_->post_look(); }

bool ClusterWatch::is_well() const { return impl_->is_well(); }

void ClusterWatch::ask_to_stop() {
  const std::lock_guard lock(impl_->mutex);
  impl_->must_stop = true;
  impl_->wake.notify_one();
}

bool ClusterWatch::has_stopped() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->has_ended;
}

namespace {

bool answered_lately(const Known& known, std::size_t i, Monotonic now) {
  const auto& policy = known.cluster->policy;
  return known.snapshot.nodes[i].answered() && known.answered[i] &&
         now - *known.answered[i] <
             std::max(known.trust, policy.probe_interval + policy.probe_deadline);
}

}  // namespace

std::string writable_node(const Known& known, Monotonic now) {
  std::string found;
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
    const auto& facts = known.snapshot.nodes[i];
    if (facts.role != pg::Role::primary || !answered_lately(known, i, now)) continue;
    // One that a failover gave up is not it, whatever it says.
    if (known.record.owes(facts.name) != nullptr) continue;
    if (!found.empty()) return {};
    found = facts.name;
  }
  return found;
}

bool is_readable(const Known& known, const std::string& node, std::uint64_t lag, Monotonic now) {
  const pg::NodeFacts* standby = nullptr;
  Lsn furthest;
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
    const auto& facts = known.snapshot.nodes[i];
    if (!answered_lately(known, i, now)) continue;
    if (facts.role == pg::Role::primary) furthest = std::max(furthest, facts.flushed);
    if (facts.receiver) furthest = std::max(furthest, facts.receiver->latest_end);
    if (facts.name == node && facts.role == pg::Role::standby) standby = &facts;
  }
  return standby != nullptr && standby->receives() && standby->replayed &&
         bytes_ahead(furthest, *standby->replayed) <= lag;
}

}  // namespace zx::agent
