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
#include "lib/redis/observe.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "redis restore";
constexpr const char* kWithin = "within";  // of a plan's context: the run that it belongs to
constexpr std::size_t kMostRuns = 10'000;
constexpr Millis kEmpty{60'000};

class Means {
 public:
  Means(Env& env, const config::Config& config) : env_(env), config_(config) {}

  Result<std::string> target() {
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    const auto view = ha::look(*hand.world, deployment().policy.probe_deadline, true);
    if (!view.verdict.master.empty()) return view.verdict.master;
    if (view.last && !view.last->master.empty()) return view.last->master;
    return fail(Code::refused,
                fmt::format("it is not known who the master of {} is: {}", deployment().name,
                            view.verdict.summary),
                "zx redis status says more");
  }

  Result<Json> restore(const std::string& file, const std::string& target,
                       const std::string& within) {
    const auto record = run_within(within);
    if (record && record->outcome && *record->outcome == "done")
      return Json{{"words", target + ", run " + record->id}, {"run", record->id}};
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    const ha::TurnWish wish{kCommand, ha::is_about_a_replica};
    if (record && !record->outcome) {
      ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), wish));
      const auto report = ha::take_up(*hand.world, record->id, *lease, hooks());
      if (!report) return fail(report.error());
      return outcome(*report);
    }
    ZX_ASSIGN(const auto lease, begin_turn(hand, wish, false));
    ZX_ASSIGN(auto prepared, ha::prepare_redis_restore(*hand.world, file, target));
    prepared.plan.context[kWithin] = within;
    ZX_TRY(ha::supersede(hand.ground(), kCommand));
    const ha::RedisToldByHand told(hand.shared.get(), hand.world->deployment(), false);
    ZX_TRY(told.begin(prepared.plan));
    const auto report =
        ha::carry_out(*hand.world, prepared.plan, *lease, told.with(hooks(), prepared.plan));
    if (!report) return fail(report.error());
    if (const auto known = told.end(*report); !known)
      env_.screen.note("the agents could not be told: " + known.error().message);
    return outcome(*report);
  }

  Status take_back(const std::string& within, const std::string& by) {
    const auto record = run_within(within);
    if (!record) return {};  // it had not begun
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    if (!record->outcome) {
      ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), {kCommand, {}}));
      const auto report = record->no_return
                              ? ha::take_up(*hand.world, record->id, *lease, hooks())
                              : ha::take_back(*hand.world, record->id, *lease, hooks());
      if (!report) return fail(report.error());
      if (report->ending == run::Ending::aborted || report->ending == run::Ending::refused ||
          report->ending == run::Ending::failed)
        return {};
      if (report->ending != run::Ending::done)
        return fail(Code::partial,
                    fmt::format("run {} of Redis could not be taken back", record->id),
                    "zx runs show " + record->id);
    } else if (*record->outcome != "done" && *record->outcome != "partial") {
      return {};  // it changed nothing, or was taken back
    }
    const auto copy = safety_copy(within);
    ZX_ASSIGN(const auto to, target());
    if (copy.empty()) return empty(to);  // as it was
    if (!os::exists(copy))
      return fail(Code::failed, fmt::format("the safety copy {} is gone", copy),
                  "Redis cannot be brought back to what it was");
    ZX_ASSIGN(const auto seen, restore(copy, to, by));
    return {};
  }

  std::string safety_copy(const std::string& within) {
    const auto record = run_within(within);
    if (!record) return {};
    const auto step = record->steps.find("safety copy");
    return step == record->steps.end() ? std::string() : get_string(step->second.seen, "file");
  }

 private:
  [[nodiscard]] const config::RedisDeployment& deployment() const {
    return *backup::deployment_of(config_);
  }
  // The newest that was begun for another run.
  [[nodiscard]] std::optional<run::Record> run_within(const std::string& within) const {
    const auto found = run::list_runs(config_.platform.state_dir, kMostRuns);
    if (!found) return std::nullopt;
    for (const auto& record : found->runs)
      if (get_string(record.plan.context, kWithin) == within) return record;
    return std::nullopt;
  }
  // Its steps are told as details of the one step that it is here.
  [[nodiscard]] static run::Hooks hooks() {
    run::Hooks hooks;
    hooks.on_end = [](const run::StepReport& step) {
      log::info(fmt::format("redis: {} {}", step.name, run::name_of(step.state)));
    };
    return hooks;
  }
  [[nodiscard]] Status empty(const std::string& node) const {
    ZX_ASSIGN(const auto at, redis::target_of(config_, deployment(), node));
    const auto deadline = Deadline::after(kEmpty);
    auto client = redis::Client::open(at, deadline);
    if (!client) return fail(redis::error_of(at, client.error()));
    const auto reply = client->command({"FLUSHALL"}, deadline);
    if (!reply) return fail(redis::error_of(at, reply.error()));
    return {};
  }
  static Result<Json> outcome(const run::RunReport& report) {
    if (report.ending == run::Ending::done)
      return Json{{"words",
                   fmt::format("{}, run {}", get_string(report.plan.context, "target"), report.id)},
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
  all.restore = [means](const std::string& file, const std::string& target,
                        const std::string& within) { return means->restore(file, target, within); };
  all.take_back = [means](const std::string& within, const std::string& by) {
    return means->take_back(within, by);
  };
  all.safety_copy = [means](const std::string& within) { return means->safety_copy(within); };
  return all;
}

}  // namespace zx::commands
