#include "lib/run/executor.h"

#include <unistd.h>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/os/host_name.h"

namespace zx::run {
namespace {

// A step whose act begins later than this after its lease was asked for, asks again.
constexpr Millis kStoodStill{100};

class Run final {
 public:
  Run(Record record, Journal journal, const Actions& actions, const Hooks& hooks, bool resumed)
      : record_(std::move(record)),
        journal_(std::move(journal)),
        actions_(actions),
        hooks_(hooks),
        resumed_(resumed),
        began_(monotonic_now()) {}

  RunReport forward();
  RunReport backward(Error cause, Ending ending);
  Record& record() { return record_; }

 private:
  class Context;
  const Action& action_of(const Step& step) const { return actions_.at(step.action); }
  Status write(const Json& line) {
    ZX_TRY(journal_.append(line));
    if (hooks_.on_line) hooks_.on_line();
    return {};
  }
  StepReport report_of(const Step& step) const;
  // Asked between the announcement of an act and the act.
  Status ours_still(Monotonic asked) const {
    return hooks_.still_ours && since(asked) > kStoodStill ? hooks_.still_ours() : Status{};
  }
  RunReport lost(Error error) {
    error.hint = "zx runs resume " + record_.id;
    return finish(Ending::partial, std::move(error));
  }
  // A hint that ends with the way on; one that names the run already tells its own.
  std::string then(const std::string& hint, const char* what) const {
    if (hint.find(record_.id) != std::string::npos) return hint;
    return fmt::format("{}{}zx runs {} {}", hint, hint.empty() ? "" : "; then ", what, record_.id);
  }
  RunReport finish(Ending ending, std::optional<Error> error);
  RunReport report(Ending ending, std::optional<Error> error);
  RunReport without_end(Ending ending, std::optional<Error> error, const Error& why);
  RunReport stopped(const Step& step, Error error, Ending before_no_return);
  // done, skipped or failed; an Error is one of the journal itself.
  Status do_step(const Step& step);
  Status settle(const Step& step, Result<Json> result, Monotonic started);

  Record record_;
  Journal journal_;
  const Actions& actions_;
  const Hooks& hooks_;
  bool resumed_;
  Monotonic began_;
  bool is_lost_ = false;   // the lease, as a step found that had announced itself
  bool has_done_ = false;  // a step in this process
};

class Run::Context final : public StepContext {
 public:
  Context(Run& run, const Step& step)
      : run_(run), step_(step), deadline_(Deadline::after(step.deadline)) {}
  const Plan& plan() const override { return run_.record_.plan; }
  const Step& step() const override { return step_; }
  const std::string& run_id() const override { return run_.record_.id; }
  Deadline deadline() const override { return deadline_; }
  bool resumed() const override { return run_.resumed_; }
  const Json& seen(const std::string& step) const override {
    const auto found = run_.record_.steps.find(step);
    return found == run_.record_.steps.end() ? null_ : found->second.seen;
  }
  Status note(const std::string& key, const Json& data) override {
    ZX_TRY(run_.write({{"event", "note"}, {"step", step_.name}, {"key", key}, {"data", data}}));
    run_.record_.steps[step_.name].notes[key] = data;
    return {};
  }
  const Json& noted(const std::string& key) const override { return noted_by(step_.name, key); }
  const Json& noted_by(const std::string& step, const std::string& key) const override {
    const auto record = run_.record_.steps.find(step);
    if (record == run_.record_.steps.end()) return null_;
    const auto found = record->second.notes.find(key);
    return found == record->second.notes.end() ? null_ : found->second;
  }
  Status no_return() override {
    if (!run_.record_.no_return) {
      ZX_TRY(run_.write({{"event", "no-return"}, {"step", step_.name}}));
      run_.record_.no_return = true;
    }
    // This process may have stood still since the step began.
    return run_.hooks_.still_ours ? run_.hooks_.still_ours() : Status{};
  }

 private:
  Run& run_;
  const Step& step_;
  Deadline deadline_;
  Json null_;
};

StepReport Run::report_of(const Step& step) const {
  StepReport report;
  report.run = record_.id;
  report.name = step.name;
  report.subject = step.subject;
  if (const auto found = record_.steps.find(step.name); found != record_.steps.end()) {
    const auto& record = found->second;
    report.state = record.state;
    report.ms = record.ms;
    report.seen = record.seen;
    report.why_skipped = record.why_skipped;
    report.error = record.error;
  }
  return report;
}

RunReport Run::finish(Ending ending, std::optional<Error> error) {
  // A run that ended in part stays open: it can be resumed.
  if (ending == Ending::partial) return report(ending, std::move(error));
  Json line{{"event", "end"}, {"outcome", name_of(ending)}};
  if (error) line["error"] = to_json(*error);
  if (const auto ended = write(line); !ended)
    return without_end(ending, std::move(error), ended.error());
  return report(ending, std::move(error));
}

// The journal cannot take the end of the run.
RunReport Run::without_end(Ending ending, std::optional<Error> error, const Error& why) {
  if (ending == Ending::done || ending == Ending::aborted) {
    auto open = why;
    open.hint = then(why.hint, ending == Ending::done ? "resume" : "abort");
    return report(Ending::partial, std::move(open));
  }
  // All is as it was before. A run that never did a step would only stand in the way of the next.
  if (!resumed_ && !has_done_) {
    journal_.discard();
    auto ended = report(ending, std::move(error));
    ended.has_journal = false;
    return ended;
  }
  if (error->message != why.message)
    error->trail.push_back("and its end could not be journalled: " + why.message);
  if (error->hint != why.hint && !why.hint.empty())
    error->hint += (error->hint.empty() ? "" : "; ") + why.hint;
  error->hint = then(error->hint, "abort");
  return report(ending, std::move(error));
}

RunReport Run::report(Ending ending, std::optional<Error> error) {
  RunReport report;
  report.id = record_.id;
  report.plan = record_.plan;
  report.ending = ending;
  report.error = std::move(error);
  for (const auto& step : record_.plan.steps) report.steps.push_back(report_of(step));
  report.took = since(began_);
  return report;
}

Status Run::settle(const Step& step, Result<Json> result, Monotonic started) {
  auto& record = record_.steps[step.name];
  record.ms = since(started).count();
  if (!result) {
    record.state = StepState::failed;
    record.error = result.error();
    return write({{"event", "step-failed"},
                  {"step", step.name},
                  {"ms", record.ms},
                  {"error", to_json(*record.error)}});
  }
  record.error.reset();
  if (const auto why = get_string(*result, "skipped"); !why.empty()) {
    record.state = StepState::skipped;
    record.why_skipped = why;
    return write({{"event", "step-skipped"}, {"step", step.name}, {"why", why}});
  }
  has_done_ = true;
  record.state = StepState::done;
  record.seen = *result;
  auto written =
      write({{"event", "step-done"}, {"step", step.name}, {"ms", record.ms}, {"seen", *result}});
  if (!written) record.state = StepState::unknown;  // as it is read back
  return written;
}

Status Run::do_step(const Step& step) {
  const auto& action = action_of(step);
  Context context(*this, step);
  const auto started = monotonic_now();
  const auto stop = [&](const Error& error) {
    // Nothing of this step was done now: its state stays, so that undo passes over it.
    record_.steps[step.name].error = error;
    return write({{"event", "guard-failed"},
                  {"step", step.name},
                  {"ms", since(started).count()},
                  {"error", to_json(error)}});
  };
  if (hooks_.before)
    if (const auto may = hooks_.before(step); !may) return stop(may.error());
  // One that failed may have had its effect all the same, such as a promotion without an answer.
  const auto before = record_.steps[step.name].state;
  const bool was_begun = before == StepState::unknown || (resumed_ && before == StepState::failed);
  if (was_begun && action.verify) {
    auto found = action.verify(context);
    if (!found) return settle(step, fail(found.error()), started);
    if (*found) return settle(step, **found, started);
  }
  if (action.guard)
    if (const auto safe = action.guard(context); !safe) return stop(safe.error());
  ZX_TRY(write({{"event", "step-start"}, {"step", step.name}}));
  record_.steps[step.name].state = StepState::unknown;
  if (auto ours = ours_still(started); !ours) {
    is_lost_ = true;
    return ours;
  }
  return settle(step, action.act(context), started);
}

RunReport Run::stopped(const Step& step, Error error, Ending before_no_return) {
  if (!record_.no_return) return backward(std::move(error), before_no_return);
  auto told = error;
  told.trail.push_back("while doing step " + step.name);
  told.code = Code::partial;
  told.message = error.message;
  told.hint = then(error.hint, "resume");
  return finish(Ending::partial, told);
}

RunReport Run::forward() {
  std::optional<Error> lasting;
  for (const auto& step : record_.plan.steps) {
    const auto state = record_.steps[step.name].state;
    if (state == StepState::done || state == StepState::skipped) continue;
    if (hooks_.still_ours)
      if (auto ours = hooks_.still_ours(); !ours) return lost(ours.error());
    if (hooks_.interruption && !record_.no_return)
      if (auto signal = hooks_.interruption()) return backward(*signal, Ending::failed);
    if (hooks_.on_start) hooks_.on_start(step);
    auto journalled = do_step(step);
    if (is_lost_) return lost(journalled.error());
    if (!journalled)
      return stopped(step, journalled.error(),
                     journalled.error().code == Code::disk_full ? Ending::refused : Ending::failed);
    const auto report = report_of(step);
    if (hooks_.on_end) hooks_.on_end(report);
    if (!record_.steps[step.name].error) continue;
    const auto error = *record_.steps[step.name].error;
    if (!step.optional)
      return stopped(step, error, error.code == Code::refused ? Ending::refused : Ending::failed);
    lasting = error;
  }
  if (!lasting) return finish(Ending::done, std::nullopt);
  lasting->code = Code::partial;
  lasting->hint = then(lasting->hint, "resume");
  return finish(Ending::partial, lasting);
}

RunReport Run::backward(Error cause, Ending ending) {
  const auto& steps = record_.plan.steps;
  std::optional<Error> stuck;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const auto state = record_.steps[step->name].state;
    const bool begun =
        state == StepState::done || state == StepState::unknown || state == StepState::failed;
    const auto& action = action_of(*step);
    if (!begun || !action.undo) continue;
    // Whoever has the lock now may be relying on what would be undone here.
    if (hooks_.still_ours)
      if (auto ours = hooks_.still_ours(); !ours) {
        stuck = ours.error();
        break;
      }
    Context context(*this, *step);
    const auto asked = monotonic_now();
    Status undone = write({{"event", "undo-start"}, {"step", step->name}});
    const bool is_announced = undone.has_value();
    if (is_announced) record_.undoing = true;
    // Whoever resumes the run begins a step anew that the journal does not have as done: it can be
    // taken back unannounced.
    if (!is_announced && state != StepState::done) undone = {};
    if (undone) undone = ours_still(asked);
    if (undone) undone = action.undo(context);
    if (hooks_.on_undo) hooks_.on_undo(*step, undone);
    if (undone && is_announced) undone = write({{"event", "undo-done"}, {"step", step->name}});
    if (undone) {
      record_.steps[step->name].state = StepState::undone;
    } else {
      stuck = undone.error();
      static_cast<void>(
          write({{"event", "undo-failed"}, {"step", step->name}, {"error", to_json(*stuck)}}));
      if (record_.no_return) break;
    }
  }
  if (!stuck) return finish(ending, cause);
  // One full disk can be the cause of both.
  const bool is_same = stuck->message == cause.message;
  cause.trail.push_back(is_same ? "and it could not be undone"
                                : "and it could not be undone: " + stuck->message);
  cause.code = Code::partial;
  // What stands in the way of the undo comes before trying it again.
  if (stuck->hint.empty())
    cause.hint += (cause.hint.empty() ? "take it back once more: zx runs abort "
                                      : "; or take it back once more: zx runs abort ") +
                  record_.id;
  else if (stuck->hint != cause.hint)
    cause.hint += (cause.hint.empty() ? "" : "; or ") + stuck->hint;
  cause.hint = then(cause.hint, record_.no_return ? "resume" : "abort");
  return finish(Ending::partial, cause);
}

// Before anything is done by it.
Status note_alone(Journal& journal, const Hooks& hooks) {
  if (hooks.alone_because.empty()) return {};
  return journal.append({{"event", "alone"}, {"why", hooks.alone_because}});
}

Status know_all(const Plan& plan, const Actions& actions) {
  for (const auto& step : plan.steps)
    if (!actions.contains(step.action))
      return fail(Code::io, fmt::format("this zx cannot do step {} ({})", step.name, step.action),
                  "resume it with the version of zx that began it");
  return {};
}

}  // namespace

const char* name_of(Ending ending) {
  switch (ending) {
    case Ending::done: return "done";
    case Ending::refused: return "refused";
    case Ending::failed: return "failed";
    case Ending::partial: return "partial";
    case Ending::aborted: return "aborted";
  }
  return "failed";
}

const StepReport* RunReport::step(const std::string& name) const {
  for (const auto& report : steps)
    if (report.name == name) return &report;
  return nullptr;
}

Result<RunReport> execute(const Plan& plan, const Actions& actions, const std::string& state_dir,
                          const Hooks& hooks) {
  ZX_TRY(know_all(plan, actions));
  Record record;
  record.id = make_run_id(wall_now());
  record.plan = plan;
  ZX_ASSIGN(auto journal, Journal::create(state_dir, record.id));
  auto begun = journal.append({{"event", "begin"},
                               {"run", record.id},
                               {"plan", to_json(plan)},
                               {"host", os::host_name()},
                               {"pid", getpid()}});
  if (begun) begun = note_alone(journal, hooks);
  if (begun && hooks.enter) begun = hooks.enter(record);
  if (!begun) {
    journal.discard();
    return fail(begun.error());
  }
  if (hooks.on_line) hooks.on_line();
  return Run(std::move(record), std::move(journal), actions, hooks, false).forward();
}

Result<RunReport> resume(const std::string& id, const Actions& actions,
                         const std::string& state_dir, const Hooks& hooks) {
  ZX_ASSIGN(auto record, read_run(state_dir, id));
  if (record.outcome)
    return fail(Code::refused, fmt::format("run {} has ended: {}", id, *record.outcome),
                "there is nothing to resume");
  ZX_TRY(know_all(record.plan, actions));
  if (hooks.enter) ZX_TRY(hooks.enter(record));
  ZX_ASSIGN(auto journal, Journal::reopen(state_dir, id));
  ZX_TRY(note_alone(journal, hooks));
  const bool undoing = record.undoing && !record.no_return;
  Run run(std::move(record), std::move(journal), actions, hooks, true);
  if (!undoing) return run.forward();
  return run.backward(
      Error{Code::failed, "the run was being undone when it was interrupted", {}, {}, false},
      Ending::failed);
}

Result<RunReport> abort(const std::string& id, const Actions& actions, const std::string& state_dir,
                        const Hooks& hooks) {
  ZX_ASSIGN(auto record, read_run(state_dir, id));
  if (record.outcome)
    return fail(Code::refused, fmt::format("run {} has ended: {}", id, *record.outcome),
                "there is nothing to abort");
  if (record.no_return)
    return fail(Code::refused, fmt::format("run {} is past the point where it could be undone", id),
                fmt::format("finish it: zx runs resume {0}; or end it as it is: zx runs abort {0} "
                            "--as-is",
                            id));
  ZX_TRY(know_all(record.plan, actions));
  if (hooks.enter) ZX_TRY(hooks.enter(record));
  ZX_ASSIGN(auto journal, Journal::reopen(state_dir, id));
  ZX_TRY(note_alone(journal, hooks));
  Run run(std::move(record), std::move(journal), actions, hooks, true);
  return run.backward(Error{Code::failed, "aborted by the operator", {}, {}, false},
                      Ending::aborted);
}

}  // namespace zx::run
