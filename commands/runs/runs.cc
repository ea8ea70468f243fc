// zx runs: what was begun, what became of it, and how to end it.
#include "commands/runs/runs.h"

#include <memory>

#include <fmt/format.h>

#include "commands/fit.h"
#include "commands/pg_cluster.h"
#include "commands/redis_hand.h"
#include "commands/restore/restore.h"
#include "commands/run_report.h"
#include "lib/base/text.h"
#include "lib/ha/pg_steps.h"
#include "lib/ha/pg_told.h"
#include "lib/os/signals.h"
#include "lib/run/journal.h"

namespace zx::commands {
namespace {

constexpr std::size_t kMostRuns = 10'000;

struct Options {
  std::string run;
  int most = 20;
  bool dry_run = false, as_is = false, assume_alone = false;
  Consent consent;
};
using Given = std::shared_ptr<Options>;

// Some run on its lock is going on: when it has no end, it is this one.
bool is_at_work(const config::Config& config, const run::Record& record) {
  if (record.outcome) return false;
  const auto free = coord::is_free(config.platform.state_dir, record.plan.lock);
  return !free && free.error().code == Code::locked;
}

std::string outcome_of(const config::Config& config, const run::Record& record) {
  if (record.outcome) return *record.outcome;
  return is_at_work(config, record) ? "at work" : "unfinished";
}

Tone tone_of(const std::string& outcome) {
  if (outcome == "done") return Tone::good;
  return outcome == "unfinished" || outcome == "failed" ? Tone::bad : Tone::warn;
}

run::StepReport report_of(const run::Step& step, const run::Record& record) {
  run::StepReport report;
  report.name = step.name;
  report.subject = step.subject;
  if (const auto found = record.steps.find(step.name); found != record.steps.end()) {
    report.state = found->second.state;
    report.ms = found->second.ms;
    report.seen = found->second.seen;
    report.why_skipped = found->second.why_skipped;
    report.error = found->second.error;
  }
  return report;
}

}  // namespace

Json run_json(const config::Config& config, const run::Record& record) {
  auto steps = Json::array();
  for (const auto& step : record.plan.steps) {
    const auto report = report_of(step, record);
    Json json{{"name", report.name},
              {"subject", report.subject},
              {"state", name_of(report.state)},
              {"ms", report.ms},
              {"words", words_of(report)},
              {"error", report.error ? zx::to_json(*report.error) : Json()}};
    if (!report.seen.is_null()) json["seen"] = report.seen;
    steps.push_back(std::move(json));
  }
  return Json{{"run", record.id},
              {"command", record.plan.command},
              {"summary", record.plan.summary},
              {"outcome", record.outcome.value_or("unfinished")},
              {"at_work", is_at_work(config, record)},
              {"finished", record.outcome.has_value()},
              {"no_return", record.no_return},
              {"begun", format_utc(record.begun)},
              {"ended", record.outcome ? Json(format_utc(record.ended)) : Json()},
              {"host", record.host},
              {"pid", record.pid},
              {"assumed_alone", record.alone_because.empty() ? Json() : Json(record.alone_because)},
              {"steps", std::move(steps)},
              {"error", record.error ? zx::to_json(*record.error) : Json()}};
}

void show_rest(Env& env, const run::Record& record, const char* what) {
  env.screen.line(fmt::format("Would {} run {} ({}):", what, record.id, record.plan.command));
  Table table;
  for (const auto& step : record.plan.steps) {
    const auto report = report_of(step, record);
    table.rows.push_back({step.name, name_of(report.state), step.subject, step.why});
  }
  fit_steps(table);
  env.screen.table(table);
}

Result<int> end_as_it_is(Env& env, const config::Config& config, const std::string& id,
                         const std::string& command) {
  ZX_TRY(run::close_run(config.platform.state_dir, id, "abandoned", "by the operator, as it is"));
  env.screen.line(fmt::format("Run {} is ended; what it did stays as it is.", id));
  env.screen.line("next: " + env.typed("status"), Tone::dim);
  env.screen.json(Json{{"run", id}, {"command", command}, {"outcome", "abandoned"}});
  return 0;
}

namespace {

Result<int> run_list(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto found,
            run::list_runs(config->platform.state_dir, static_cast<std::size_t>(given.most)));
  const auto& records = found.runs;
  const auto now = std::chrono::system_clock::now();
  Table table;
  table.head = {"RUN", "BEGAN", "COMMAND", "OUTCOME", "WHAT"};
  auto list = Json::array();
  std::string unfinished;
  for (const auto& record : records) {
    const auto outcome = outcome_of(*config, record);
    table.rows.push_back({record.id, format_local(record.begun, now), record.plan.command,
                          Cell(outcome, tone_of(outcome)), record.plan.summary});
    list.push_back(run_json(*config, record));
    if (outcome == "unfinished" && unfinished.empty()) unfinished = record.id;
  }
  if (records.empty())
    env.screen.line("no runs in " + run::runs_directory(config->platform.state_dir));
  constexpr std::size_t kWhat = 4;
  fit(table, kWhat);
  if (!records.empty()) env.screen.table(table);
  auto broken = Json::array();
  std::string unclear;
  for (const auto& one : found.broken) {
    env.screen.note(fmt::format("{}: {}", one.id, one.error.message));
    broken.push_back({{"run", one.id}, {"ended", one.ended}, {"error", zx::to_json(one.error)}});
    if (!one.ended && unclear.empty()) unclear = one.id;
  }
  if (!unfinished.empty())
    env.screen.line("next: " + env.typed("runs resume " + unfinished));
  else if (!unclear.empty())
    env.screen.line(fmt::format("next: read {}/{}.jsonl, then {}",
                                run::runs_directory(config->platform.state_dir), unclear,
                                env.typed("runs abort " + unclear + " --as-is")));
  env.screen.json(Json{{"runs", std::move(list)}, {"broken", std::move(broken)}});
  return 0;
}

Result<int> run_show(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto record, run::read_run(config->platform.state_dir, given.run));
  const auto now = std::chrono::system_clock::now();
  const auto outcome = outcome_of(*config, record);
  env.screen.line(
      fmt::format("{}  {}  {}: {}", record.id, outcome, record.plan.command, record.plan.summary),
      tone_of(outcome));
  env.screen.line(fmt::format("began {} on {}{}", format_local(record.begun, now), record.host,
                              record.outcome ? ", ended " + format_local(record.ended, now) : ""));
  if (!record.alone_because.empty())
    env.screen.line("by --assume-alone: " + record.alone_because, Tone::warn);
  env.screen.line("");
  Table table;
  for (const auto& step : record.plan.steps) {
    const auto report = report_of(step, record);
    const auto tone =
        report.state == run::StepState::done ? Tone::good
        : report.state == run::StepState::failed || report.state == run::StepState::unknown
            ? Tone::bad
            : Tone::dim;
    const bool timed =
        report.state == run::StepState::done || report.state == run::StepState::failed;
    table.rows.push_back({step.name, Cell(name_of(report.state), tone), words_of(report),
                          timed ? format_duration(Millis(report.ms)) : ""});
  }
  constexpr std::size_t kWords = 2;
  fit(table, kWords);
  env.screen.table(table);
  if (record.error)
    env.screen.line(fmt::format("{}: {}", info(record.error->code).name, record.error->message),
                    Tone::bad);
  env.screen.line("");
  env.screen.line(
      "journal: " + run::runs_directory(config->platform.state_dir) + "/" + record.id + ".jsonl",
      Tone::dim);
  if (outcome == "unfinished")
    env.screen.line("next: " + env.typed("runs resume " + record.id) +
                    (record.no_return ? "" : ", or " + env.typed("runs abort " + record.id)));
  env.screen.json(run_json(*config, record));
  return 0;
}

// The run that is named, or the only one that is unfinished.
Result<run::Record> pick_run(const config::Config& config, const std::string& id) {
  if (!id.empty()) return run::read_run(config.platform.state_dir, id);
  ZX_ASSIGN(auto found, run::list_runs(config.platform.state_dir, kMostRuns));
  std::vector<run::Record> open;
  for (auto& record : found.runs)
    if (!record.outcome) open.push_back(std::move(record));
  if (open.size() == 1) return open.front();
  for (const auto& broken : found.broken)
    if (open.empty() && !broken.ended)
      return fail(
          Code::refused,
          fmt::format("run {} may be unfinished: {}", broken.id, broken.error.message),
          fmt::format("read its journal; then end it: zx runs abort {} --as-is", broken.id));
  if (open.empty())
    return fail(Code::not_found, "no run is unfinished", "zx runs list shows all of them");
  std::vector<std::string> ids;
  for (const auto& record : open) ids.push_back(record.id);
  return fail(Code::usage, "several runs are unfinished: " + join(ids, ", "), "name one of them");
}

Result<const config::PgCluster*> cluster_of(const config::Config& config,
                                            const run::Record& record) {
  const auto name = get_string(record.plan.context, "cluster");
  if (const auto* found = config.cluster(name)) return found;
  return fail(Code::config,
              fmt::format("run {} is about the cluster \"{}\", which {} has not", record.id,
                          first_line(name), config.path),
              "use the zx.toml that it was begun with: -c FILE");
}

// What would refuse it, asked before anything is done. Before its promotion nobody else may lead:
// it would be taken back, and what it did must stay.
Status not_overtaken(Hand& hand, ha::ToldByHand& told, const run::Record& record, bool is_resumed) {
  ZX_TRY(told.may_resume(record));
  const auto old = get_string(record.plan.context, "old_primary");
  if (record.outcome || record.no_return || old.empty()) return {};
  const auto promote = record.steps.find("promote");
  const bool may_have_promoted =
      promote != record.steps.end() && promote->second.state != run::StepState::pending;
  // A failover goes on with a candidate that is a primary already; a switchover does not.
  const bool may_find_it = may_have_promoted || record.plan.command != "switchover pg";
  if (is_resumed && !record.undoing && may_find_it) return {};
  return ha::none_took_over_from(*hand.world, old, record.id);
}

using Ending = Result<run::RunReport> (*)(ha::PgWorld&, const std::string&, coord::Lease&,
                                          run::Hooks);

// A journal that cannot be understood can still be ended, while nothing else is at work.
Result<int> end_broken_run(Env& env, const config::Config& config, const run::BrokenRun& broken,
                           bool dry_run, bool assume_alone) {
  if (broken.ended)
    return fail(Code::refused, fmt::format("run {} has ended, and its journal is damaged: {}",
                                           broken.id, broken.error.message));
  if (dry_run) {
    env.screen.line(fmt::format("Would end run {}, whose journal is damaged: {}", broken.id,
                                broken.error.message));
    env.screen.json(Json{{"run", broken.id}, {"outcome", "planned"}});
    return 0;
  }
  std::vector<Hand> hands;
  std::vector<std::unique_ptr<coord::Lease>> leases;
  for (const auto& cluster : config.pg) {
    if (!broken.may_hold(ha::lock_of(cluster))) continue;
    ZX_ASSIGN(hands.emplace_back(), hand_on(config, cluster));
    ZX_ASSIGN(leases.emplace_back(), ha::take_lock(*hands.back().world, hands.back().shared.get(),
                                                   {"runs abort " + broken.id, {}, assume_alone}));
  }
  std::vector<RedisHand> redis_hands;
  for (const auto& deployment : config.redis) {
    if (!broken.may_hold(ha::lock_of(deployment))) continue;
    ZX_ASSIGN(redis_hands.emplace_back(), hand_on(config, deployment));
    ZX_ASSIGN(leases.emplace_back(), ha::take_lock(redis_hands.back().ground(),
                                                   {"runs abort " + broken.id, {}, assume_alone}));
  }
  return end_as_it_is(env, config, broken.id, "");
}

Result<int> end_run(Env& env, const Options& given, const char* what, Ending ending,
                    bool is_resumed) {
  ZX_ASSIGN(const auto* config, env.config());
  if (given.as_is && !given.run.empty()) {
    ZX_ASSIGN(const auto found, run::list_runs(config->platform.state_dir, 0));
    for (const auto& broken : found.broken)
      if (broken.id == given.run)
        return end_broken_run(env, *config, broken, given.dry_run, given.assume_alone);
  }
  ZX_ASSIGN(const auto record, pick_run(*config, given.run));
  if (is_about_redis(record))
    return end_redis_run(env, *config, record,
                         {record.id, what, given.dry_run, given.as_is, given.assume_alone});
  if (is_about_a_restore(record))
    return end_restore_run(env, *config, record,
                           {record.id, what, given.dry_run, given.as_is, given.assume_alone});
  ZX_ASSIGN(const auto* cluster, cluster_of(*config, record));
  ZX_ASSIGN(auto hand, hand_on(*config, *cluster));
  const ha::TurnWish wish{fmt::format("runs {} {}", what, record.id), {}, given.assume_alone};
  if (given.dry_run) {
    show_rest(env, record, what);
    env.screen.json(run_json(*config, record));
    ZX_TRY(ha::may_take_lock(*hand.world, hand.shared.get(), wish));
    if (given.as_is) return 0;
    const bool alone =
        given.assume_alone && hand.shared && !hand.shared->is_turn_free(ha::lock_of(*cluster));
    ha::ToldByHand told(hand.shared.get(), cluster->name, alone);
    ZX_TRY(not_overtaken(hand, told, record, is_resumed));
    return 0;
  }
  ZX_TRY(config::password_of(*config, *cluster));
  ZX_ASSIGN(const auto lease, ha::take_lock(*hand.world, hand.shared.get(), wish));
  if (given.as_is) {
    if (record.outcome)
      return fail(Code::refused, fmt::format("run {} has ended: {}", record.id, *record.outcome));
    return end_as_it_is(env, *config, record.id, record.plan.command);
  }
  const auto alone = lease->alone_because();
  if (!alone.empty())
    env.screen.note("going on with the lock of this host only, on your word: " + alone);
  ha::ToldByHand told(hand.shared.get(), cluster->name, !alone.empty());
  ZX_TRY(not_overtaken(hand, told, record, is_resumed));
  ZX_TRY(told.resume(record, is_resumed));
  const os::InterruptibleBy gives_way(
      [&] { return ha::is_about_a_standby(record) && lease->is_wanted(); });
  const auto report =
      ending(*hand.world, record.id, *lease, told.with(live_lines(env, record.plan), record.plan));
  if (!report) return fail(report.error());
  note_given_way(env, *lease, *report);
  note_untold(env, tell_agents(hand, told, *report));
  return conclude(env, *report);
}

Result<int> run_resume(Env& env, const Options& given) {
  return end_run(env, given, "resume", ha::take_up, true);
}
Result<int> run_abort(Env& env, const Options& given) {
  return end_run(env, given, "abort", ha::take_back, false);
}

CLI::App* add(Tree& tree, const char* name, const char* summary, LeafDoc doc, const Given& given,
              Result<int> (*run)(Env&, const Options&)) {
  return tree.leaf(tree.group("runs", "what was begun, and what became of it"), name, summary,
                   std::move(doc), [given, run](Env& env) { return run(env, *given); });
}

void add_end_flags(Tree& tree, CLI::App* leaf, const Given& given) {
  tree.complete(
      leaf->add_option("RUN", given->run, "the run; the only unfinished one when left out"),
      Complete::unfinished_run);
  leaf->add_flag("--dry-run", given->dry_run, "say where the run stands and change nothing");
  leaf->add_flag("-y,--yes", given->consent.yes,
                 "accepted for scripts; the run was agreed to when it began");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace

void add_runs(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* list = add(
      tree, "list", "list the runs, newest first",
      {.description = "Every command that changes something is a run with a journal in "
                      "state_dir/runs. Lists them with what became of each.",
       .examples = {{"zx runs list", "the last 20"}, {"zx runs list --most 200", "more of them"}},
       .exits = {Code::config}},
      given, run_list);
  list->add_option("--most", given->most, "how many (20)")
      ->check(CLI::Range(1, static_cast<int>(kMostRuns)))
      ->option_text("N");
  auto* show =
      add(tree, "show", "show one run, step by step",
          {.description =
               "Shows what each step of a run did, how long it took, and what to do when it is "
               "unfinished.",
           .examples = {{"zx runs show 20261124T031243-a1f3", "one run"}},
           .exits = {Code::config}},
          given, run_show);
  tree.complete(show->add_option("RUN", given->run, "the run")->required(), Complete::run_id);
  auto* resume = add(
      tree, "resume", "finish a run that was interrupted",
      {.description = "Takes an unfinished run up where it stopped. A step that was begun is first "
                      "looked at: when its effect is in place it is not done again. A run that was "
                      "being taken back goes on being taken back.",
       .examples = {{"zx runs resume", "the only unfinished run"},
                    {"zx runs resume 20261124T031243-a1f3", "this one"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable}},
      given, run_resume);
  add_end_flags(tree, resume, given);
  auto* abort =
      add(tree, "abort", "take back a run that was interrupted",
          {.description =
               "Undoes what an unfinished run did, last step first. Refused when the run is past "
               "the point where it could be undone, such as a promotion: finish it instead. "
               "With --as-is the run is ended and what it did stays; of a restore of Redis the "
               "data stay, "
               "and what it had set on the server and its Sentinels is put back, or named.",
           .examples = {{"zx runs abort 20261124T031243-a1f3", "take it back"},
                        {"zx runs abort 20261124T031243-a1f3 --as-is",
                         "the rest was done by hand: only end it"}},
           .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config}},
          given, run_abort);
  add_end_flags(tree, abort, given);
  abort->add_flag("--as-is", given->as_is, "only end the run: what it did stays");
}

}  // namespace zx::commands
