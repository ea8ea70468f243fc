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
constexpr Millis kHost{30'000};
constexpr Millis kStop{120'000};

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
    ZX_ASSIGN(const auto record, run_within(within));
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

  // Looks as restore() does before it begins, and changes nothing.
  Result<std::vector<std::string>> look(const std::string& file, const std::string& to) {
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    ZX_TRY(ha::may_take_turn(hand.ground(), {kCommand, ha::is_about_a_replica}));
    ZX_ASSIGN(const auto prepared, ha::prepare_redis_restore(*hand.world, file, to));
    return prepared.warnings;
  }

  Status take_back(const std::string& within, const std::string& by) {
    ZX_TRY(is_configured());
    ZX_TRY(end_unfinished(within));
    ZX_ASSIGN(const auto record, first_that_replaced(within));
    if (!record) return {};
    const auto before = redis_before(*record);
    switch (before.kind) {
      case Kind::same: return {};
      case Kind::unknown: return not_known(*record);
      case Kind::placed: return unplace(*record);
      case Kind::empty: {
        ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
        ZX_ASSIGN(const auto lease, begin_turn(hand, {kCommand, ha::is_about_a_replica}, false));
        ZX_ASSIGN(const auto to, target());
        return empty(to);
      }
      case Kind::copy: break;
    }
    if (!os::exists(before.file)) return gone(before.file);
    ZX_ASSIGN(const auto to, target());
    ZX_ASSIGN(const auto seen, restore(before.file, to, by));
    return {};
  }

  Status can_take_back(const std::string& within) {
    ZX_TRY(is_configured());
    ZX_ASSIGN(const auto record, first_that_replaced(within));
    if (!record) return {};
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    ZX_TRY(ha::may_take_turn(hand.ground(), {kCommand, ha::is_about_a_replica}));
    const auto before = redis_before(*record);
    if (before.kind == Kind::unknown) return not_known(*record);
    if (before.kind == Kind::placed) return can_unplace(hand, *record);
    ZX_ASSIGN(const auto to, target());
    if (before.kind == Kind::copy) {
      if (!os::exists(before.file)) return gone(before.file);
      ZX_ASSIGN(const auto seen, look(before.file, to));
      return {};
    }
    const auto snapshot = hand.world->observe({to}, deployment().policy.probe_deadline);
    const auto* facts = snapshot.node(to);
    if (facts == nullptr || !facts->answered())
      return fail(Code::refused, fmt::format("{} does not answer{}", to,
                                             facts == nullptr ? "" : ": " + facts->error.message));
    return {};
  }

  Result<std::vector<std::string>> forget(const std::string& within) {
    std::vector<std::string> removed;
    ZX_ASSIGN(const auto records, runs_within(within));
    for (const auto& record : records) {
      for (const auto& file : safety_copies(record)) {
        if (!os::exists(file)) continue;
        ZX_TRY(os::remove_file(file));
        ZX_TRY(os::remove_file(redis::record_path(file)));
        removed.push_back(file);
      }
      if (!has_begun(record, "place")) continue;
      ZX_TRY(is_configured());
      ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
      ZX_ASSIGN(const auto answer,
                hand.world->on_host_of(get_string(record.plan.context, "target"),
                                       "redis-forget-placed", Json{{"run", record.id}}, kHost));
      for (const auto& file : get_strings(answer, "removed")) removed.push_back(file);
    }
    return removed;
  }

 private:
  using Kind = RedisBefore::Kind;
  [[nodiscard]] const config::RedisDeployment& deployment() const {
    return *backup::deployment_of(config_);
  }

  // What is kept may be of a zx.toml that had one.
  [[nodiscard]] Status is_configured() const {
    if (backup::deployment_of(config_) != nullptr) return {};
    return fail(Code::config, config_.path + " names no Redis deployment");
  }
  static Status gone(const std::string& file) {
    return fail(Code::failed, fmt::format("the safety copy {} is gone", file),
                "Redis cannot be brought back to what it was");
  }
  [[nodiscard]] std::string copies() const { return config_.platform.state_dir + "/backups/redis"; }
  [[nodiscard]] Status not_known(const run::Record& record) const {
    return fail(Code::failed,
                fmt::format("run {} of Redis does not say where what it replaced is", record.id),
                fmt::format("look for a copy in {}; zx runs show {}", copies(), record.id));
  }

  static bool has_begun(const run::Record& record, const char* name) {
    const auto step = record.steps.find(name);
    return step != record.steps.end() && step->second.state != run::StepState::pending;
  }
  static std::vector<std::string> safety_copies(const run::Record& record) {
    std::vector<std::string> files;
    const auto step = record.steps.find("safety copy");
    if (step != record.steps.end())
      if (auto file = get_string(step->second.seen, "file"); !file.empty()) files.push_back(file);
    // Of a server that restarted meanwhile.
    for (const auto& [name, other] : record.steps)
      if (const auto note = other.notes.find("kept"); note != other.notes.end())
        if (auto file = get_string(note->second, "file"); !file.empty()) files.push_back(file);
    return files;
  }

  Status end_unfinished(const std::string& within) {
    ZX_ASSIGN(const auto records, runs_within(within));
    for (const auto& record : records) {
      if (record.outcome) continue;
      ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
      ZX_ASSIGN(const auto lease, ha::take_lock(hand.ground(), {kCommand, {}}));
      const auto report = end_of(hand, record, *lease);
      if (!report) return fail(report.error());
      if (report->ending == run::Ending::partial)
        return fail(Code::partial,
                    fmt::format("run {} of Redis could not be taken back", record.id),
                    "zx runs show " + record.id);
    }
    return {};
  }
  // Taken back; finished where it only goes forward, which the way back may be the first to find.
  Result<run::RunReport> end_of(RedisHand& hand, const run::Record& record, coord::Lease& lease) {
    if (!record.no_return) {
      auto report = ha::take_back(*hand.world, record.id, lease, hooks());
      if (!report || report->ending != run::Ending::partial) return report;
      ZX_ASSIGN(const auto now, run::read_run(config_.platform.state_dir, record.id));
      if (!now.no_return) return report;
    }
    return ha::take_up(*hand.world, record.id, lease, hooks());
  }

  // What a copy replaced that a stopped server found when it started. Only that node has it, and no
  // other may take over while it is stopped.
  [[nodiscard]] Status can_unplace(const RedisHand& hand, const run::Record& record) {
    const auto node = get_string(record.plan.context, "target");
    const auto step = record.steps.find("place");
    const auto kept = step == record.steps.end() ? std::vector<std::string>()
                                                 : get_strings(step->second.seen, "kept");
    const auto where = fmt::format("what {} had is in {} on its host", node,
                                   kept.empty() ? "PATH.zx-before-" + record.id : join(kept, ", "));
    ZX_ASSIGN(const auto now, target());
    if (now != node)
      return fail(Code::refused, fmt::format("{} is the master now; {}", now, where),
                  "zx redis restore FILE puts a copy there");
    if (!deployment().sentinel.master_name.empty())
      return fail(Code::refused,
                  fmt::format("{}, and to bring it back {} must be stopped, which the Sentinels "
                              "would take for its end",
                              where, node),
                  "copy it from there and restore that: zx redis restore FILE --target " +
                      shell_word(node));
    ZX_TRY(hand.world->on_host_of(node, "redis-inspect", Json::object(), kHost));
    return {};
  }
  Status unplace(const run::Record& record) {
    ZX_ASSIGN(auto hand, hand_on(config_, deployment()));
    ZX_TRY(can_unplace(hand, record));
    ZX_ASSIGN(const auto lease, begin_turn(hand, {kCommand, ha::is_about_a_replica}, false));
    const auto node = get_string(record.plan.context, "target");
    ZX_TRY(hand.world->on_host_of(node, "redis-stop", Json::object(), kStop));
    ZX_TRY(hand.world->on_host_of(node, "redis-unplace", Json{{"run", record.id}}, kHost));
    if (!has_begun(record, "start")) return {};
    ZX_TRY(hand.world->on_host_of(node, "redis-start", Json::object(), kStop));
    // Another line and other keys than a moment ago are as they should be.
    return ha::accept_reborn(*hand.world,
                             ha::look(*hand.world, deployment().policy.probe_deadline, false));
  }

  // The runs that were begun for another, newest first.
  [[nodiscard]] Result<std::vector<run::Record>> runs_within(const std::string& within) const {
    constexpr std::size_t kTime = 15;  // of an id
    ZX_ASSIGN(auto found, run::list_runs(config_.platform.state_dir, kMostRuns));
    const auto* known = backup::deployment_of(config_);
    for (const auto& broken : found.broken)
      if ((broken.lock.empty() || known == nullptr || broken.lock == ha::lock_of(*known)) &&
          broken.id.substr(0, kTime) >= within.substr(0, kTime))
        return fail(
            Code::failed,
            fmt::format("the journal of run {} cannot be read, and it may be that of Redis: {}",
                        broken.id, broken.error.message),
            "zx runs show " + broken.id);
    std::vector<run::Record> all;
    for (auto& record : found.runs)
      if (get_string(record.plan.context, kWithin) == within) all.push_back(std::move(record));
    return all;
  }
  [[nodiscard]] Result<std::optional<run::Record>> run_within(const std::string& within) const {
    ZX_ASSIGN(auto all, runs_within(within));
    if (all.empty()) return std::optional<run::Record>();
    return std::optional<run::Record>(std::move(all.front()));
  }
  // The one that replaced what was there before any of them. Code::failed when there was one for
  // certain and its journal is away.
  [[nodiscard]] Result<std::optional<run::Record>> first_that_replaced(
      const std::string& within) const {
    ZX_ASSIGN(auto all, runs_within(within));
    if (all.empty()) {
      ZX_ASSIGN(const auto outer, run::read_run(config_.platform.state_dir, within));
      const auto step = outer.steps.find("redis");
      if (step != outer.steps.end() && step->second.state == run::StepState::done)
        return fail(Code::failed,
                    fmt::format("the journal of run {} of Redis, which says where what it replaced "
                                "is, is away",
                                get_string(step->second.seen, "run")),
                    "look for a copy in " + copies());
    }
    for (auto record = all.rbegin(); record != all.rend(); ++record)
      if (redis_before(*record).kind != Kind::same)
        return std::optional<run::Record>(std::move(*record));
    return std::optional<run::Record>();
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

RedisBefore redis_before(const run::Record& record) {
  using Kind = RedisBefore::Kind;
  using run::StepState;
  const auto state = [&](const char* name) {
    const auto step = record.steps.find(name);
    return step == record.steps.end() ? StepState::pending : step->second.state;
  };
  const auto replaces = [&](const char* name) {
    const auto now = state(name);
    return now != StepState::pending && now != StepState::skipped && now != StepState::undone;
  };
  const bool is_live = get_string(record.plan.context, "mode") == "live";
  if (!replaces(is_live ? "load" : "place")) return {};
  if (state("safety copy") == StepState::done)
    if (auto file = get_string(record.steps.at("safety copy").seen, "file"); !file.empty())
      return {Kind::copy, std::move(file)};
  if (!is_live) return {Kind::placed, {}};
  // It says that there were no keys, and nothing else.
  return {state("safety copy") == StepState::skipped ? Kind::empty : Kind::unknown, {}};
}

backup::RedisMeans redis_means(Env& env, const config::Config& config) {
  const auto means = std::make_shared<Means>(env, config);
  backup::RedisMeans all;
  all.target = [means] { return means->target(); };
  all.restore = [means](const std::string& file, const std::string& target,
                        const std::string& within) { return means->restore(file, target, within); };
  all.take_back = [means](const std::string& within, const std::string& by) {
    return means->take_back(within, by);
  };
  all.look = [means](const std::string& file, const std::string& target) {
    return means->look(file, target);
  };
  all.can_take_back = [means](const std::string& within) { return means->can_take_back(within); };
  all.forget = [means](const std::string& within) { return means->forget(within); };
  return all;
}

}  // namespace zx::commands
