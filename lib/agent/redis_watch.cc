#include "lib/agent/redis_watch.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <fmt/format.h>

#include "lib/agent/inquirer.h"
#include "lib/base/log.h"
#include "lib/base/units.h"
#include "lib/redis/monitor.h"
#include "lib/redis/observe.h"

namespace zx::agent {
namespace {

constexpr Millis kStuckAfter{15'000};
constexpr Millis kStepMargin{10'000};
// What the master must be silent for, as a part of silent_after, before a replica's run gives way.
constexpr int kUneasy = 2;

}  // namespace

struct RedisWatch::Impl : std::enable_shared_from_this<RedisWatch::Impl> {
  Impl(net::Loop& l, Means m) : loop(l), means(std::move(m)) {}

  net::Loop& loop;
  Means means;
  const config::RedisDeployment* deployment = nullptr;
  std::unique_ptr<ha::RedisWorld> world;
  std::unique_ptr<ha::RedisKeeper> keeper;
  std::vector<std::unique_ptr<redis::Monitor>> monitors;  // on the loop
  std::thread thread;
  Inquirer<ha::RedisInquiry> inquirer;

  mutable std::mutex mutex;
  std::condition_variable wake;
  RedisKnown known;
  bool is_urgent = false, must_stop = false, has_ended = false;
  Monotonic last_tick{};
  std::optional<Monotonic> step_until;  // a run is at work, its step must end by then
  std::vector<Monotonic> last_looks;
  std::vector<bool> has_looked;  // under this configuration

  // --- on the loop ---

  void start_monitors(const std::vector<redis::Target>& targets, Impl* before) {
    const auto& policy = deployment->policy;
    if (before != nullptr) inherit(*before);
    known.snapshot.nodes.resize(targets.size());
    known.answered.resize(targets.size());
    last_looks.assign(targets.size(), system_clock().now());
    has_looked.assign(targets.size(), false);
    known.snapshot.deadline = policy.probe_deadline;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      redis::Monitor::Settings settings;
      settings.target = targets[i];
      settings.host = deployment->nodes[i].host;
      settings.interval = policy.probe_interval;
      settings.deadline = policy.probe_deadline;
      settings.overdue = [this, i] { overdue(i); };
      const auto changed = [this, i](bool urgent) { looked(i, urgent); };
      known.snapshot.nodes[i].name = targets[i].name;
      monitors.emplace_back();
      if (before != nullptr) take_node(*before, i, settings, changed);
      if (!monitors[i]) monitors[i] = std::make_unique<redis::Monitor>(loop, settings, changed);
    }
    known.has_looked = has_all_looks(known);
  }

  // Its thread has ended.
  void inherit(Impl& before) {
    const auto& old = before.known;
    const auto& policy = before.deployment->policy;
    known.snapshot.at = old.snapshot.at;
    known.snapshot.sentinels = old.snapshot.sentinels;
    known.has_judged = old.has_judged;
    known.verdict = old.verdict;
    known.decision = old.decision;
    known.record = old.record;
    known.error = old.error;
    known.looks = old.looks;
    known.runs_done = old.runs_done;
    known.runs_failed = old.runs_failed;
    known.trust = std::max<Millis>(old.trust, policy.probe_interval + policy.probe_deadline);
  }

  void take_node(Impl& before, std::size_t i, const redis::Monitor::Settings& settings,
                 const std::function<void(bool)>& changed) {
    const auto& target = settings.target;
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
    if (!urgent) return;
    is_urgent = true;
    wake.notify_one();
  }

  void post_look() {
    loop.post([weak = weak_from_this()] {
      if (const auto self = weak.lock())
        for (const auto& monitor : self->monitors) monitor->look_now();
    });
  }

  // Whoever will have to decide about a silent master finds the answers of the hosts there.
  void overdue(std::size_t i) {
    const std::lock_guard lock(mutex);
    const auto& node = known.snapshot.nodes[i].name;
    if (must_stop || !deployment->policy.automatic || !deployment->sentinel.master_name.empty() ||
        known.verdict.master != node)
      return;
    inquirer.begin(node, [this, node] {
      return ha::inquire(*world, node, deployment->policy.probe_deadline * 2 / 5);
    });
  }

  // --- on the keeper's thread ---

  std::optional<ha::RedisInquiry> inquiry_about(const std::string& node) {
    auto inquiry = inquirer.about(node);
    const std::lock_guard lock(mutex);
    if (inquiry && has_answered_since(known, node, inquiry->began)) inquiry.reset();
    return inquiry;
  }

  ha::RedisKeeper::Told told() const {
    ha::RedisKeeper::Told out;
    // The Sentinels of a deployment are asked by a look of its own.
    if (!has_all_looks(known) || !deployment->sentinel.master_name.empty()) return out;
    out.snapshot = known.snapshot;
    for (std::size_t i = 0; i < known.answered.size(); ++i)
      if (known.answered[i]) out.answered[known.snapshot.nodes[i].name] = *known.answered[i];
    for (const auto& facts : known.snapshot.nodes)
      if (facts.failure == redis::Failure::silent || facts.failure == redis::Failure::no_answer)
        out.silent.push_back(facts.name);
    return out;
  }

  // Asked while a replica is being brought back.
  bool must_hurry(const std::string& master) {
    const std::lock_guard lock(mutex);
    if (must_stop) return true;
    for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
      if (known.snapshot.nodes[i].name != master || known.snapshot.nodes[i].answered()) continue;
      const auto silent =
          known.answered[i] ? system_clock().now() - *known.answered[i] : Monotonic::duration(0);
      if (silent >= deployment->policy.silent_after / kUneasy) return true;
    }
    return false;
  }

  void keep() {
    std::unique_lock lock(mutex);
    auto next = system_clock().now();
    // The monitors are about to find what the first look would.
    wake.wait_until(lock, next + deployment->policy.probe_deadline,
                    [&] { return must_stop || has_all_looks(known); });
    while (!must_stop) {
      wake.wait_until(lock, next, [&] { return must_stop || is_urgent; });
      if (must_stop) break;
      is_urgent = false;
      const auto now_told = told();
      lock.unlock();
      const auto tick = keeper->tick(now_told);
      lock.lock();
      next = system_clock().now() + tick.again;
      take(tick);
    }
    has_ended = true;
  }

  void take_verdict(const ha::RedisKeeper::Tick& tick) {
    known.has_judged = true;
    known.verdict = tick.view.verdict;
    known.snapshot.sentinels = tick.view.snapshot.sentinels;
    known.decision = tick.decision;
    known.record = keeper->record();
    last_tick = system_clock().now();
  }

  void take(const ha::RedisKeeper::Tick& tick) {
    take_verdict(tick);
    known.run.reset();
    step_until.reset();
    if (tick.error)
      known.error = tick.error->message;
    else if (tick.report || tick.was_calm)
      known.error.clear();
    if (!tick.report) return;
    (tick.report->ending == run::Ending::done ? known.runs_done : known.runs_failed) += 1;
    post_look();
  }

  ha::RedisKeeper::Hooks hooks() {
    ha::RedisKeeper::Hooks hooks;
    hooks.event = means.event;
    hooks.hurry = [this](const std::string& master) { return must_hurry(master); };
    hooks.inquiry = [this](const std::string& node) { return inquiry_about(node); };
    hooks.judged = [this](const ha::RedisKeeper::Tick& tick) {
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
    const auto& policy = deployment->policy;
    const auto most = std::max<Millis>(
        kStuckAfter, 4 * (policy.probe_interval + policy.probe_deadline) + policy.silent_after);
    const bool monitors_go_on = std::all_of(last_looks.begin(), last_looks.end(),
                                            [&](Monotonic at) { return now - at < most; });
    return monitors_go_on && (step_until ? now < *step_until : now - last_tick < most);
  }
};

RedisWatch::RedisWatch(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<RedisWatch>> RedisWatch::start(net::Loop& loop, Means means,
                                                      RedisWatch* before) {
  auto impl = std::make_shared<Impl>(loop, std::move(means));
  const auto& config = *impl->means.config;
  impl->deployment = config.deployment(impl->means.deployment);
  impl->known.config = impl->means.config;
  impl->known.deployment = impl->deployment;
  ZX_ASSIGN(const auto targets, redis::targets_of(config, *impl->deployment));
  if (!impl->deployment->sentinel.master_name.empty())
    ZX_TRY(config::sentinel_password_of(config, *impl->deployment));
  impl->world = ha::real_redis_world(config, *impl->deployment, &impl->means.coordinator);
  impl->keeper = std::make_unique<ha::RedisKeeper>(*impl->world, impl->means.coordinator,
                                                   impl->means.self, impl->hooks());
  impl->last_tick = system_clock().now();
  impl->start_monitors(targets, before == nullptr ? nullptr : before->impl_.get());
  impl->thread = std::thread([raw = impl.get()] { raw->keep(); });
  return std::unique_ptr<RedisWatch>(new RedisWatch(std::move(impl)));
}

RedisWatch::~RedisWatch() {
  ask_to_stop();
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->inquirer.end();
  impl_->monitors.clear();  // those that no other watch has taken
}

RedisKnown RedisWatch::known() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->known;
}

const std::string& RedisWatch::name() const { return impl_->means.deployment; }

bool RedisWatch::is_well() const { return impl_->is_well(); }

void RedisWatch::ask_to_stop() {
  const std::lock_guard lock(impl_->mutex);
  impl_->must_stop = true;
  impl_->wake.notify_one();
}

bool RedisWatch::has_stopped() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->has_ended;
}

}  // namespace zx::agent
