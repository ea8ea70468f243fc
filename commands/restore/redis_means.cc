// How a restore has Redis restored: by the same run as zx redis restore, inside its own.
#include <fmt/format.h>

#include "commands/redis_hand.h"
#include "commands/restore/restore.h"
#include "lib/backup/run.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/redis_chain.h"
#include "lib/ha/redis_restore.h"
#include "lib/ha/redis_told.h"
#include "lib/os/files.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "redis restore";

class Means {
 public:
  Means(Env& env, const config::Config& config) : env_(env), config_(config) {}

  Result<std::string> target() {
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    const auto view =
        ha::look(*hand.world, deployment().policy.probe_deadline, true);
    if (!view.verdict.master.empty()) return view.verdict.master;
    if (view.last && !view.last->master.empty()) return view.last->master;
    return fail(Code::refused,
                fmt::format("it is not known who the master of {} is: {}", deployment().name,
                            view.verdict.summary),
                "zx redis status says more");
  }

  Result<Json> restore(const std::string& file, const std::string& target, const std::string& run,
                       const std::function<Status(const std::string&)>& begun) {
    const auto record = run.empty() ? std::nullopt : record_of(run);
    if (record && record->outcome && *record->outcome == "done") return seen_of(*record);
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    const ha::TurnWish wish{kCommand, ha::is_about_a_replica};
    if (record && !record->outcome) {
      ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), wish));
      const auto report = ha::take_up(*hand.world, run, *lease, hooks(record->plan));
      if (!report) return fail(report.error());
      return outcome(*report);
    }
    ZX_ASSIGN(const auto lease, begin_turn(hand, wish, false));
    ZX_ASSIGN(auto prepared, ha::prepare_redis_restore(*hand.world, file, target));
    ZX_TRY(ha::supersede(hand.ground(), kCommand));
    const ha::RedisToldByHand told(hand.shared.get(), hand.world->deployment(), false);
    ZX_TRY(told.begin(prepared.plan));
    auto all = hooks(prepared.plan);
    all.enter = [&](const run::Record& made) { return begun(made.id); };
    const auto report =
        ha::carry_out(*hand.world, prepared.plan, *lease, told.with(std::move(all), prepared.plan));
    if (!report) return fail(report.error());
    if (const auto known = told.end(*report); !known)
      env_.screen.note("the agents could not be told: " + known.error().message);
    return outcome(*report);
  }

  Status take_back(const std::string& run) {
    const auto record = record_of(run);
    if (!record) return {};  // it had not begun
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    if (!record->outcome) {
      ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), {kCommand, {}}));
      const auto report = record->no_return
                              ? ha::take_up(*hand.world, run, *lease, hooks(record->plan))
                              : ha::take_back(*hand.world, run, *lease, hooks(record->plan));
      if (!report) return fail(report.error());
      if (report->ending == run::Ending::aborted || report->ending == run::Ending::refused ||
          report->ending == run::Ending::failed)
        return {};
      if (report->ending != run::Ending::done)
        return fail(Code::partial, fmt::format("run {} of Redis could not be taken back", run),
                    "zx runs show " + run);
    } else if (*record->outcome != "done" && *record->outcome != "partial") {
      return {};  // it changed nothing, or was taken back
    }
    const auto copy = safety_copy(run);
    if (copy.empty()) {
      env_.screen.note("Redis had no keys before the restore; what it has now stays");
      return {};
    }
    if (!os::exists(copy))
      return fail(Code::failed, fmt::format("the safety copy {} is gone", copy),
                  "Redis cannot be brought back to what it was");
    ZX_ASSIGN(const auto to, target());
    ZX_ASSIGN(const auto seen, restore(copy, to, "", [](const std::string&) { return Status{}; }));
    return {};
  }

  std::string safety_copy(const std::string& run) {
    const auto record = record_of(run);
    if (!record) return {};
    const auto step = record->steps.find("safety copy");
    return step == record->steps.end() ? std::string() : get_string(step->second.seen, "file");
  }

 private:
  [[nodiscard]] const config::RedisDeployment& deployment() const {
    return *backup::deployment_of(config_);
  }
  [[nodiscard]] std::optional<run::Record> record_of(const std::string& run) const {
    auto record = run::read_run(config_.platform.state_dir, run);
    if (!record) return std::nullopt;
    return *std::move(record);
  }
  // Its steps are told as details of the one step that it is here.
  [[nodiscard]] run::Hooks hooks(const run::Plan&) const {
    run::Hooks hooks;
    hooks.on_end = [](const run::StepReport& step) {
      log::info(fmt::format("redis: {} {}", step.name, run::name_of(step.state)));
    };
    return hooks;
  }
  static Json seen_of(const run::Record& record) {
    return Json{{"words", fmt::format("run {}", record.id)}, {"run", record.id}};
  }
  static Result<Json> outcome(const run::RunReport& report) {
    if (report.ending == run::Ending::done)
      return Json{{"words", fmt::format("{}, run {}", report.plan.summary, report.id)},
                  {"run", report.id}};
    auto error = report.error.value_or(Error{Code::failed, "it did not end well", {}, {}, false});
    return fail_while(std::move(error), fmt::format("restoring Redis, run {}", report.id));
  }

  Env& env_;
  const config::Config& config_;
};

}  // namespace

backup::RedisMeans redis_means(Env& env, const config::Config& config) {
  const auto means = std::make_shared<Means>(env, config);
  backup::RedisMeans all;
  all.target = [means] { return means->target(); };
  all.restore = [means](const std::string& file, const std::string& target, const std::string& run,
                        const std::function<Status(const std::string&)>& begun) {
    return means->restore(file, target, run, begun);
  };
  all.take_back = [means](const std::string& run) { return means->take_back(run); };
  all.safety_copy = [means](const std::string& run) { return means->safety_copy(run); };
  return all;
}

}  // namespace zx::commands
