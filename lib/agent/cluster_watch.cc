#include "lib/agent/cluster_watch.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/agent/watching.h"
#include "lib/base/text.h"
#include "lib/pg/observe.h"

namespace zx::agent {
namespace {

struct PgKind {
  using Monitor = pg::Monitor;
  using Target = pg::Target;
  using World = ha::PgWorld;
  using Keeper = ha::PgKeeper;
  using Inquiry = ha::Inquiry;
  using Known = agent::Known;
  using Means = ClusterWatch::Means;
  using Group = config::PgCluster;
  static constexpr Millis kStepMargin{30'000};
  static const std::string& leader(const ha::PgVerdict& verdict) { return verdict.primary; }
  static bool is_silent(const pg::NodeFacts& facts) {
    return facts.failure == pg::Failure::silent || facts.failure == pg::Failure::no_answer;
  }
};

bool is_told(pg::Ending ending) {
  return ending == pg::Ending::stopped_fast || ending == pg::Ending::stopped_immediately;
}

}  // namespace

struct ClusterWatch::Impl : Watching<PgKind> {
  using Watching::known;
  using Watching::Watching;

  void inherit_more(Watching& watch) override {
    const auto& before = static_cast<Impl&>(watch);
    known.commit = before.known.commit;
    known.is_commit_pending = before.known.is_commit_pending;
    known.retries = before.known.retries;
    known.judged_at = before.known.judged_at;
    known.ticks = before.known.ticks;
    commits_hang_ = before.commits_hang_;
    planned_ = before.planned_;
    noticed_ = before.noticed_;
    last_ = before.last_;
  }

  void looked_at(const pg::Monitor& monitor) override {
    const auto& facts = monitor.facts();
    if (facts.role == pg::Role::primary) {
      if (auto seen = ha::last_seen_of(known.snapshot)) last_ = std::move(seen);
      if (const auto commit = monitor.commit()) {
        known.commit = commit->took;
        known.is_commit_pending = commit->is_pending;
        note_commits(facts.name, commit->took);
      }
    }
    if (const auto& end = monitor.end(); end && is_told(end->ending))
      planned_ = ha::PlannedStop{
          facts.name, end->ending == pg::Ending::stopped_fast ? "fast" : "immediate", end->at};
    else if (planned_ && planned_->node == facts.name && facts.answered())
      planned_.reset();
    if (!facts.answered() && !noticed_ && facts.name == known.verdict.primary)
      noticed_ = monitor.end() ? monitor.end()->wall : system_clock().wall();
  }

  void judged(const ha::PgKeeper::Tick& /*tick*/) override {
    known.retries = keeper->retries();
    known.judged_at = system_clock().now();
  }
  void ticked() override {
    known.ticks += 1;
    if (ha::has_live_primary(known.verdict.state)) noticed_.reset();
  }
  void tell_more(ha::PgKeeper::Told& told) const override {
    told.planned = planned_;
    told.last = last_;
    told.noticed = noticed_;
  }
  [[nodiscard]] std::function<ha::Inquiry()> inquiry_into(const std::string& node) override {
    return [this, node, snapshot = known.snapshot] {
      return ha::inquire(*world, snapshot, node, group->policy.probe_deadline * 2 / 5);
    };
  }

 private:
  // It answers, and its clients wait: no reason for a failover, and one to tell a person.
  void note_commits(const std::string& node, Millis took) {
    const bool hang = took >= group->policy.probe_deadline;
    if (hang == commits_hang_) return;
    commits_hang_ = hang;
    say(hang ? "commits_hang" : "commits_flow", node,
        hang ? fmt::format("{} answers, and a small commit has taken {}: its disk, or the "
                           "synchronous standbys that it waits for",
                           node, format_duration(took))
             : fmt::format("a commit on {} took {}", node, format_duration(took)));
  }

  void say(const char* kind, const std::string& node, std::string text) const {
    means.event({system_clock().wall(), group->name, kind, node, {}, std::move(text), {}});
  }

  bool commits_hang_ = false;
  std::optional<ha::PlannedStop> planned_;
  std::optional<Wall> noticed_;
  std::optional<ha::LastSeen> last_;
};

ClusterWatch::ClusterWatch(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ClusterWatch>> ClusterWatch::start(net::Loop& loop, Means means,
                                                          ClusterWatch* before) {
  auto impl = std::make_shared<Impl>(loop, std::move(means));
  const auto& config = *impl->means.config;
  const auto* cluster = config.cluster(impl->means.cluster);
  impl->group = cluster;
  impl->known.config = impl->means.config;
  impl->known.cluster = cluster;
  ZX_ASSIGN(const auto targets, pg::targets_of(config, *cluster));
  impl->world = ha::real_world(config, *cluster, &impl->means.coordinator, ha::Looking::holds);
  impl->keeper = std::make_unique<ha::PgKeeper>(
      *impl->world, impl->means.coordinator, impl->means.self, config.agent.region, impl->hooks());
  impl->start(targets, before == nullptr ? nullptr : before->impl_.get());
  return std::unique_ptr<ClusterWatch>(new ClusterWatch(std::move(impl)));
}

ClusterWatch::~ClusterWatch() { impl_->end(); }

Known ClusterWatch::known() const { return impl_->what_is_known(); }

const std::string& ClusterWatch::name() const { return impl_->means.cluster; }

void ClusterWatch::look_now() { impl_->look_soon(); }

bool ClusterWatch::is_well() const { return impl_->is_well(); }

void ClusterWatch::ask_to_stop() { impl_->ask_to_stop(); }

bool ClusterWatch::has_stopped() const { return impl_->has_ended(); }

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
