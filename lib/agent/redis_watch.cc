#include "lib/agent/redis_watch.h"

#include "lib/agent/watching.h"
#include "lib/redis/monitor.h"
#include "lib/redis/observe.h"

namespace zx::agent {
namespace {

struct RedisKind {
  using Monitor = redis::Monitor;
  using Target = redis::Target;
  using World = ha::RedisWorld;
  using Keeper = ha::RedisKeeper;
  using Inquiry = ha::RedisInquiry;
  using Known = RedisKnown;
  using Means = RedisWatch::Means;
  using Group = config::RedisDeployment;
  static constexpr Millis kStepMargin{10'000};
  static const std::string& leader(const ha::RedisVerdict& verdict) { return verdict.master; }
  static bool is_silent(const redis::NodeFacts& facts) {
    return facts.failure == redis::Failure::silent || facts.failure == redis::Failure::no_answer;
  }
};

}  // namespace

struct RedisWatch::Impl : Watching<RedisKind> {
  using Watching::known;
  using Watching::Watching;

  void inherit_more(Watching& before) override {
    known.snapshot.sentinels = static_cast<Impl&>(before).known.snapshot.sentinels;
  }
  void looked_at(const redis::Monitor& /*monitor*/) override {}
  void judged(const ha::RedisKeeper::Tick& tick) override {
    known.snapshot.sentinels = tick.view.snapshot.sentinels;
  }
  void tell_more(ha::RedisKeeper::Told& /*told*/) const override {}
  // The Sentinels of a deployment are asked by a look of its own.
  [[nodiscard]] bool uses_monitors() const override { return group->sentinel.master_name.empty(); }
  [[nodiscard]] std::function<ha::RedisInquiry()> inquiry_into(const std::string& node) override {
    return [this, node] { return ha::inquire(*world, node, group->policy.probe_deadline * 2 / 5); };
  }
};

RedisWatch::RedisWatch(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<RedisWatch>> RedisWatch::start(net::Loop& loop, Means means,
                                                      RedisWatch* before) {
  auto impl = std::make_shared<Impl>(loop, std::move(means));
  const auto& config = *impl->means.config;
  const auto* deployment = config.deployment(impl->means.deployment);
  impl->group = deployment;
  impl->known.config = impl->means.config;
  impl->known.deployment = deployment;
  ZX_ASSIGN(const auto targets, redis::targets_of(config, *deployment));
  if (!deployment->sentinel.master_name.empty())
    ZX_TRY(config::sentinel_password_of(config, *deployment));
  impl->world = ha::real_redis_world(config, *deployment, &impl->means.coordinator);
  impl->keeper = std::make_unique<ha::RedisKeeper>(*impl->world, impl->means.coordinator,
                                                   impl->means.self, impl->hooks());
  impl->start(targets, before == nullptr ? nullptr : before->impl_.get());
  return std::unique_ptr<RedisWatch>(new RedisWatch(std::move(impl)));
}

RedisWatch::~RedisWatch() { impl_->end(); }

RedisKnown RedisWatch::known() const { return impl_->what_is_known(); }

const std::string& RedisWatch::name() const { return impl_->means.deployment; }

bool RedisWatch::is_well() const { return impl_->is_well(); }

void RedisWatch::ask_to_stop() { impl_->ask_to_stop(); }

bool RedisWatch::has_stopped() const { return impl_->has_ended(); }

}  // namespace zx::agent
