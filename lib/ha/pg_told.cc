#include "lib/ha/pg_told.h"

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/coord/turn.h"

namespace zx::ha {
namespace {

constexpr int kTriesOfRecord = 5;

bool is_failover(const run::Plan& plan) { return plan.command == "failover pg"; }

// What stands in for a word of its host that it was stopped.
std::string proof_of(const run::Plan& plan) {
  const auto fence = get_string(plan.context, "fence");
  return fence == "host" ? std::string() : fence;
}

}  // namespace

Result<WatchRecord> read_record(coord::Shared& shared, const std::string& cluster) {
  ZX_ASSIGN(const auto value, shared.get(watch_key(cluster)));
  return watch_record_from(value.text);
}

Status change_record(coord::Shared& shared, const std::string& cluster,
                     const std::function<void(WatchRecord&)>& change) {
  for (int i = 0;; ++i) {
    ZX_ASSIGN(const auto value, shared.get(watch_key(cluster)));
    ZX_ASSIGN(auto record, watch_record_from(value.text));
    const auto before = record;
    change(record);
    if (record == before) return {};
    const auto put = shared.put(watch_key(cluster), dump_line(to_json(record)), value.version);
    if (put || put.error().code != Code::locked || i + 1 == kTriesOfRecord) return put;
  }
}

std::optional<std::string> after_of(const run::Plan& plan) {
  if (!plan.context.contains("after")) return std::nullopt;
  return get_string(plan.context, "after");
}

std::string candidate_of(const run::Record& record) {
  const auto chosen = record.steps.find("choose");
  return chosen == record.steps.end() ? std::string()
                                      : get_string(chosen->second.seen, "candidate");
}

std::string overtaken_by(const WatchRecord& known, const run::Record& record) {
  const auto after = after_of(record.plan);
  if (const auto& last = known.last; last && after && last->run != record.id && last->run != *after)
    return fmt::format("run {} of {} to {} came after it", last->run, last->from, last->to);
  return {};
}

Status note_resumed(coord::Shared& shared, const std::string& cluster, const std::string& who,
                    const run::Record& record) {
  const auto to = candidate_of(record);
  const auto promoted = record.steps.find("promote");
  if (!is_failover(record.plan) || to.empty() ||
      (promoted != record.steps.end() && promoted->second.state == run::StepState::done))
    return {};
  return change_record(shared, cluster, [&](WatchRecord& known) {
    if (!known.begun)
      known.begun = WatchRecord::Begun{who, get_string(record.plan.context, "old_primary"), to,
                                       proof_of(record.plan), wall_now()};
  });
}

ToldByHand::ToldByHand(coord::Shared* shared, std::string cluster, bool alone)
    : shared_(shared), cluster_(std::move(cluster)), alone_(alone) {
  const auto me = coord::turn_holder({});
  who_ = me.user + "@" + me.host;
}

Status ToldByHand::begun(const run::Plan& plan, const std::string& promotes) {
  return change_record(*shared_, cluster_, [&](WatchRecord& record) {
    record.begin(
        {who_, get_string(plan.context, "old_primary"), promotes, proof_of(plan), wall_now()});
  });
}

Status ToldByHand::begin(run::Plan& plan, const std::string& promotes) {
  if (shared_ == nullptr || alone_) return {};
  ZX_ASSIGN(const auto value, shared_->get(watch_key(cluster_)));
  ZX_ASSIGN(const auto record, watch_record_from(value.text));
  plan.context["after"] = record.last ? record.last->run : std::string();
  return is_failover(plan) ? begun(plan, promotes) : Status{};
}

Status ToldByHand::resume(const run::Record& record, bool finishes) {
  ZX_TRY(may_resume(record));
  if (shared_ == nullptr || alone_ || !finishes) return {};
  return note_resumed(*shared_, cluster_, who_, record);
}

Status ToldByHand::may_resume(const run::Record& record) {
  if (shared_ == nullptr || alone_) return {};
  ZX_ASSIGN(const auto value, shared_->get(watch_key(cluster_)));
  ZX_ASSIGN(const auto known, watch_record_from(value.text));
  auto why = overtaken_by(known, record);
  const auto old = get_string(record.plan.context, "old_primary");
  if (const auto& begun = known.begun; why.empty() && begun && !record.no_return &&
                                       begun->from == old && begun->agent != who_ &&
                                       begun->agent != get_string(record.plan.context, "agent"))
    why = fmt::format("{} has begun another failover from {}", begun->agent, old);
  if (!why.empty())
    return fail(Code::refused, why,
                fmt::format("what it did stays: zx runs abort {} --as-is", record.id));
  return {};
}

run::Hooks ToldByHand::with(run::Hooks hooks, const run::Plan& plan) {
  if (shared_ == nullptr || alone_) return hooks;
  // Until here a switchover leaves nobody in doubt.
  if (plan.command == "switchover pg")
    hooks.before = [this, &plan](const run::Step& step) {
      return step.name == "promote" ? begun(plan, get_string(plan.context, "to")) : Status{};
    };
  hooks.on_end = [this, &plan, also = std::move(hooks.on_end)](const run::StepReport& step) {
    if (step.name == "promote" && step.state == run::StepState::done)
      if (const auto told = promoted(plan, step.run, step.seen); !told)
        log::debug("the agents are told at the end: " + told.error().message);
    if (also) also(step);
  };
  return hooks;
}

Status ToldByHand::promoted(const run::Plan& plan, const std::string& run, const Json& seen) {
  if (shared_ == nullptr || told_ == run) return {};
  const WatchRecord::Failover done{wall_now(),
                                   run,
                                   get_string(plan.context, "old_primary"),
                                   get_string(seen, "node"),
                                   false,
                                   static_cast<std::uint32_t>(get_int(seen, "timeline")),
                                   true};
  ZX_TRY(change_record(*shared_, cluster_, [&](WatchRecord& record) {
    record.promote(who_, done, proof_of(plan), after_of(plan));
  }));
  told_ = run;
  return {};
}

// An agent that leads would see it for itself, if there is one.
Status ToldByHand::is_back(const std::string& node) {
  const auto value = shared_->get(watch_key(cluster_));
  if (!value) return fail(value.error());
  ZX_ASSIGN(const auto record, watch_record_from(value->text));
  const auto* owed = record.owes(node);
  if (owed == nullptr) return {};
  if (owed->proof == "guard") ZX_TRY(shared_->unbar(node));
  return change_record(*shared_, cluster_, [&](WatchRecord& known) { known.forgive(node); });
}

Status ToldByHand::end(const run::RunReport& report) {
  if (shared_ == nullptr) return {};
  const auto is_done = [&](const char* name) {
    const auto* step = report.step(name);
    return step != nullptr && step->state == run::StepState::done;
  };
  const auto& plan = report.plan;
  if (plan.command == "rejoin pg")
    return is_done("start") ? is_back(get_string(plan.context, "node")) : Status{};
  if (is_done("promote")) {
    ZX_TRY(promoted(plan, report.id, report.step("promote")->seen));
    return is_done("return") ? is_back(get_string(plan.context, "old_primary")) : Status{};
  }
  if (report.ending == run::Ending::partial) return {};
  return change_record(*shared_, cluster_, [&](WatchRecord& record) {
    if (record.begun && record.begun->agent == who_) record.begun.reset();
  });
}

}  // namespace zx::ha
