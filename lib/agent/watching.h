// Private to lib/agent: what the watch of a cluster and that of a deployment have in common. A
// monitor for each node on the loop, the keeper that decides and acts on a thread of its own, and
// what both know, under one mutex.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lib/agent/inquirer.h"
#include "lib/base/clock.h"
#include "lib/net/loop.h"
#include "lib/run/executor.h"

namespace zx::agent {

// Kind names the types of one of them: Monitor, Target, World, Keeper, Inquiry, Known, Means, and
//   Group             its configuration: nodes and policy
//   kStepMargin       how much longer than its deadline a step may take before the keeper is stuck
//   leader(Verdict)   the node that takes the writes, or took them
//   is_silent(Facts)  nothing came of a look, not even a refusal
// Made by make_shared. Loop: on the loop's thread. Keeper: on the keeper's thread.
template <class Kind>
class Watching : public std::enable_shared_from_this<Watching<Kind>> {
 public:
  using Monitor = typename Kind::Monitor;
  using Settings = typename Monitor::Settings;
  using Keeper = typename Kind::Keeper;
  using Tick = typename Keeper::Tick;
  using Told = typename Keeper::Told;
  using Hooks = typename Keeper::Hooks;
  using Inquiry = typename Kind::Inquiry;
  using Known = typename Kind::Known;
  using Means = typename Kind::Means;

  Watching(net::Loop& loop, Means m) : means(std::move(m)), loop_(loop) {}
  // end() has been called.
  virtual ~Watching() = default;

  // Once `group`, `world` and `keeper` are set. Goes on with what `before`, whose thread has ended,
  // knows of the nodes that are the same.
  void start(const std::vector<typename Kind::Target>& targets, Watching* before) {
    last_tick_ = system_clock().now();
    start_monitors(targets, before);
    thread_ = std::thread([this] { keep(); });
  }
  void ask_to_stop() {
    const std::lock_guard lock(mutex);
    must_stop_ = true;
    wake_.notify_one();
  }
  // Waits for the threads. On the loop's thread.
  void end() {
    ask_to_stop();
    if (thread_.joinable()) thread_.join();
    inquirer_.end();
    monitors_.clear();  // those that no other watch has taken
  }

  [[nodiscard]] Known what_is_known() const {
    const std::lock_guard lock(mutex);
    return known;
  }
  [[nodiscard]] bool has_ended() const {
    const std::lock_guard lock(mutex);
    return has_ended_;
  }
  // Monitors and keeper have made progress lately.
  [[nodiscard]] bool is_well() const {
    const std::lock_guard lock(mutex);
    const auto now = system_clock().now();
    const auto& policy = group->policy;
    const auto most = std::max<Millis>(
        kStuckAfter, 4 * (policy.probe_interval + policy.probe_deadline) + policy.silent_after);
    const bool monitors_go_on = std::all_of(last_looks_.begin(), last_looks_.end(),
                                            [&](Monotonic at) { return now - at < most; });
    return monitors_go_on && (step_until_ ? now < *step_until_ : now - last_tick_ < most);
  }

  // A look at every node now. From any thread.
  void look_soon() {
    loop_.post([weak = this->weak_from_this()] {
      if (const auto self = weak.lock())
        for (const auto& monitor : self->monitors_) monitor->look_now();
    });
  }

  [[nodiscard]] Hooks hooks() {
    Hooks hooks;
    hooks.event = means.event;
    hooks.hurry = [this](const std::string& leader) { return must_hurry(leader); };
    hooks.inquiry = [this](const std::string& node) { return inquiry_about(node); };
    hooks.judged = [this](const Tick& tick) {
      const std::lock_guard lock(mutex);
      take_verdict(tick);
    };
    hooks.run.on_start = [this](const run::Step& step) {
      const std::lock_guard lock(mutex);
      known.run = step.name + " " + step.subject;
      step_until_ = system_clock().now() + step.deadline + Kind::kStepMargin;
    };
    hooks.run.on_end = [this](const run::StepReport& step) {
      // Load balancers must not send writes to the old one, and soon to the new one.
      if (step.name == "promote" || step.name == "fence" || step.name == "check") look_soon();
    };
    return hooks;
  }

  Means means;
  const typename Kind::Group* group = nullptr;
  std::unique_ptr<typename Kind::World> world;
  std::unique_ptr<Keeper> keeper;

 protected:
  // What the kinds know beyond this; the mutex is held.
  virtual void inherit_more(Watching& before) = 0;
  virtual void looked_at(const Monitor& monitor) = 0;
  virtual void judged(const Tick& tick) = 0;
  virtual void ticked() {}  // a round of the keeper has ended
  virtual void tell_more(Told& told) const = 0;
  // Does the keeper want the monitors' answers, and those of the hosts? It looks by itself else.
  [[nodiscard]] virtual bool uses_monitors() const { return true; }
  [[nodiscard]] virtual std::function<Inquiry()> inquiry_into(const std::string& node) = 0;

  mutable std::mutex mutex;
  Known known;

 private:
  // A monitor that has not ended a look for so long, or a keeper, is stuck.
  static constexpr Millis kStuckAfter{15'000};
  // What a node must be silent for, as a part of silent_after, before a run about another gives
  // way.
  static constexpr int kUneasy = 2;

  // --- on the loop ---

  void start_monitors(const std::vector<typename Kind::Target>& targets, Watching* before) {
    const auto& policy = group->policy;
    if (before != nullptr) inherit(*before);
    known.snapshot.nodes.resize(targets.size());
    known.answered.resize(targets.size());
    last_looks_.assign(targets.size(), system_clock().now());
    has_looked_.assign(targets.size(), false);
    known.snapshot.deadline = policy.probe_deadline;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      Settings settings;
      settings.target = targets[i];
      settings.host = group->nodes[i].host;
      settings.interval = policy.probe_interval;
      settings.deadline = policy.probe_deadline;
      settings.overdue = [this, i] { overdue(i); };
      const auto changed = [this, i](bool urgent) { looked(i, urgent); };
      known.snapshot.nodes[i].name = targets[i].name;
      monitors_.emplace_back();
      if (before != nullptr) take_node(*before, i, settings, changed);
      if (!monitors_[i]) monitors_[i] = std::make_unique<Monitor>(loop_, settings, changed);
    }
    known.has_looked = has_all_looks(known);
  }

  void inherit(Watching& before) {
    const auto& old = before.known;
    const auto& policy = before.group->policy;
    known.snapshot.at = old.snapshot.at;
    known.has_judged = old.has_judged;
    known.verdict = old.verdict;
    known.decision = old.decision;
    known.record = old.record;
    known.error = old.error;
    known.looks = old.looks;
    known.runs_done = old.runs_done;
    known.runs_failed = old.runs_failed;
    known.trust = std::max<Millis>(old.trust, policy.probe_interval + policy.probe_deadline);
    inherit_more(before);
  }

  void take_node(Watching& before, std::size_t i, const Settings& settings,
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
      if (before.monitors_[k] && before.monitors_[k]->adopt(settings, changed))
        monitors_[i] = std::move(before.monitors_[k]);
    }
  }

  void looked(std::size_t i, bool urgent) {
    const auto& monitor = *monitors_[i];
    const std::lock_guard lock(mutex);
    known.snapshot.nodes[i] = monitor.facts();
    known.snapshot.at = system_clock().wall();
    known.answered[i] = monitor.answered_at();
    known.looks += 1;
    known.has_looked = has_all_looks(known);
    last_looks_[i] = system_clock().now();
    has_looked_[i] = true;
    if (std::all_of(has_looked_.begin(), has_looked_.end(), [](bool has) { return has; }))
      known.trust = Millis(0);
    looked_at(monitor);
    if (!urgent) return;
    is_urgent_ = true;
    wake_.notify_one();
  }

  // Whoever will have to decide about a silent leader finds the answers of the hosts there.
  void overdue(std::size_t i) {
    const std::lock_guard lock(mutex);
    const auto& node = known.snapshot.nodes[i].name;
    if (must_stop_ || !group->policy.automatic || !uses_monitors() ||
        Kind::leader(known.verdict) != node)
      return;
    inquirer_.begin(node, inquiry_into(node));
  }

  // --- on the keeper's thread ---

  std::optional<Inquiry> inquiry_about(const std::string& node) {
    auto inquiry = inquirer_.about(node);
    const std::lock_guard lock(mutex);
    if (inquiry && has_answered_since(known, node, inquiry->began)) inquiry.reset();
    return inquiry;
  }

  Told told() const {
    Told out;
    tell_more(out);
    if (!has_all_looks(known) || !uses_monitors()) return out;
    out.snapshot = known.snapshot;
    for (std::size_t i = 0; i < known.answered.size(); ++i)
      if (known.answered[i]) out.answered[known.snapshot.nodes[i].name] = *known.answered[i];
    for (const auto& facts : known.snapshot.nodes)
      if (Kind::is_silent(facts)) out.silent.push_back(facts.name);
    return out;
  }

  // Asked while another node is being brought back.
  bool must_hurry(const std::string& leader) {
    const std::lock_guard lock(mutex);
    if (must_stop_) return true;
    for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
      if (known.snapshot.nodes[i].name != leader || known.snapshot.nodes[i].answered()) continue;
      const auto silent =
          known.answered[i] ? system_clock().now() - *known.answered[i] : Monotonic::duration(0);
      if (silent >= group->policy.silent_after / kUneasy) return true;
    }
    return false;
  }

  void keep() {
    std::unique_lock lock(mutex);
    auto next = system_clock().now();
    // The monitors are about to find what the first look would.
    wake_.wait_until(lock, next + group->policy.probe_deadline,
                     [&] { return must_stop_ || has_all_looks(known); });
    while (!must_stop_) {
      wake_.wait_until(lock, next, [&] { return must_stop_ || is_urgent_; });
      if (must_stop_) break;
      is_urgent_ = false;
      const auto now_told = told();
      lock.unlock();
      const auto tick = keeper->tick(now_told);
      lock.lock();
      next = system_clock().now() + tick.again;
      take(tick);
    }
    has_ended_ = true;
  }

  void take_verdict(const Tick& tick) {
    known.has_judged = true;
    known.verdict = tick.view.verdict;
    known.decision = tick.decision;
    known.record = keeper->record();
    last_tick_ = system_clock().now();
    judged(tick);
  }

  void take(const Tick& tick) {
    take_verdict(tick);
    known.run.reset();
    step_until_.reset();
    ticked();
    if (tick.error)
      known.error = tick.error->message;
    else if (tick.report || tick.was_calm)
      known.error.clear();
    if (!tick.report) return;
    (tick.report->ending == run::Ending::done ? known.runs_done : known.runs_failed) += 1;
    look_soon();
  }

  net::Loop& loop_;
  std::vector<std::unique_ptr<Monitor>> monitors_;  // on the loop
  std::thread thread_;
  Inquirer<Inquiry> inquirer_;
  std::condition_variable wake_;
  bool is_urgent_ = false, must_stop_ = false, has_ended_ = false;
  Monotonic last_tick_{};
  std::optional<Monotonic> step_until_;  // a run is at work, its step must end by then
  std::vector<Monotonic> last_looks_;
  std::vector<bool> has_looked_;  // under this configuration
};

}  // namespace zx::agent
