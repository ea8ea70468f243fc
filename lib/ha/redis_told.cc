#include "lib/ha/redis_told.h"

#include "lib/base/log.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/redis_watch.h"

namespace zx::ha {
namespace {

// By zx itself, by Redis' own FAILOVER, or by the Sentinels.
bool makes_a_master(const std::string& step) { return step == "promote" || step == "hand over"; }

}  // namespace

void sign(run::Plan& plan, const WatchRecord& record) {
  plan.context["after"] = record.last ? record.last->run : std::string();
}

Status tell_failover(coord::Shared& shared, const config::RedisDeployment& deployment,
                     const run::Plan& plan, const run::StepReport& step) {
  const auto to = get_string(step.seen, "node");
  if (!makes_a_master(step.name) || step.state != run::StepState::done || to.empty()) return {};
  const bool by_hand = get_string(plan.context, "agent").empty();
  const WatchRecord::Failover done{
      wall_now(), step.run, get_string(plan.context, "old_master"), to, false, 0, by_hand};
  const auto after = after_of(plan);
  return change_record(shared, record_of(deployment), [&](WatchRecord& record) {
    const auto last = record.last ? record.last->run : std::string();
    if (last != done.run && (!after || *after == last)) record.last = done;
  });
}

Status RedisToldByHand::begin(run::Plan& plan) const {
  if (shared_ == nullptr || alone_) return {};
  ZX_ASSIGN(const auto record, read_record(*shared_, record_of(deployment_)));
  sign(plan, record);
  return {};
}

Status RedisToldByHand::may_resume(const run::Record& record) const {
  if (shared_ == nullptr || alone_) return {};
  ZX_ASSIGN(const auto known, read_record(*shared_, record_of(deployment_)));
  const auto why = overtaken_by(known, record);
  if (why.empty()) return {};
  return fail(Code::refused, why, "what it did stays: zx runs abort " + record.id + " --as-is");
}

run::Hooks RedisToldByHand::with(run::Hooks hooks, const run::Plan& plan) const {
  if (shared_ == nullptr || alone_) return hooks;
  hooks.on_end = [this, &plan, also = std::move(hooks.on_end)](const run::StepReport& step) {
    if (const auto told = tell_failover(*shared_, deployment_, plan, step); !told)
      log::debug("the agents are told at the end: " + told.error().message);
    if (also) also(step);
  };
  return hooks;
}

Status RedisToldByHand::end(const run::RunReport& report) const {
  if (shared_ == nullptr) return {};
  for (const auto& step : report.steps)
    ZX_TRY(tell_failover(*shared_, deployment_, report.plan, step));
  return {};
}

}  // namespace zx::ha
