// Runs a plan: journals, checks each guard at the last moment, acts, undoes what it can, and can be
// taken up again after it was killed anywhere.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/run/journal.h"
#include "lib/run/plan.h"

namespace zx::run {

// What an action may know and say while it works.
class StepContext {
 public:
  virtual ~StepContext() = default;
  [[nodiscard]] virtual const Plan& plan() const = 0;
  [[nodiscard]] virtual const Step& step() const = 0;
  [[nodiscard]] virtual const std::string& run_id() const = 0;
  [[nodiscard]] virtual Deadline deadline() const = 0;
  [[nodiscard]] virtual bool resumed() const = 0;  // this run was taken up again
  // What an earlier step's act returned; null when it did not run.
  [[nodiscard]] virtual const Json& seen(const std::string& step) const = 0;
  // Journalled before it returns; read back by a resumed act and by undo.
  virtual Status note(const std::string& key, const Json& data) = 0;
  [[nodiscard]] virtual const Json& noted(const std::string& key) const = 0;
  // What the act of another step noted: for an undo that depends on how far that one came.
  [[nodiscard]] virtual const Json& noted_by(const std::string& step,
                                             const std::string& key) const = 0;
  // From here on the run only goes forward: journalled before it returns. Call right before the
  // first effect that cannot be taken back, and have that effect only when it is no Error: the lock
  // or lease is asked for once more.
  virtual Status no_return() = 0;
};

struct Action {
  // Is it (still) safe? An Error stops the run before this step. May be empty.
  std::function<Status(StepContext&)> guard;
  // Does it and reads the effect back. Must be right when repeated. An object with "skipped": WHY
  // says that there was nothing to do.
  std::function<Result<Json>(StepContext&)> act;
  // For a step that was begun when zx died: the effect, if it is in place. May be empty: act again.
  std::function<Result<std::optional<Json>>(StepContext&)> verify;
  // Takes it back, whether it was begun, failed or done. Must be right when repeated. May be empty.
  // One that finds that the run must go forward says no_return() and fails: nothing more is undone.
  std::function<Status(StepContext&)> undo;
};
using Actions = std::map<std::string, Action>;

enum class Ending { done, refused, failed, partial, aborted };
[[nodiscard]] const char* name_of(Ending ending);

struct StepReport {
  std::string run, name, subject;
  StepState state = StepState::pending;
  std::int64_t ms = 0;
  Json seen;
  std::string why_skipped;
  std::optional<Error> error;
};

struct RunReport {
  std::string id;
  Plan plan;
  Ending ending = Ending::failed;
  std::vector<StepReport> steps;
  std::optional<Error> error;
  Millis took{0};
  // False: its end could not be written, it changed nothing, and its journal is gone.
  bool has_journal = true;
  [[nodiscard]] const StepReport* step(const std::string& name) const;
};

struct Hooks {
  // Before anything is done, journalled or undone again; an Error: nothing was begun.
  std::function<Status(const Record&)> enter;
  std::function<void(const Step&)> on_start;
  // What must be so before this step is looked at or done; an Error stops the run as a guard does.
  std::function<Status(const Step&)> before;
  std::function<void(const StepReport&)> on_end;
  std::function<void(const Step&, const Status&)> on_undo;
  // Asked before each step and each undo: do we still hold the lock, or lease?
  std::function<Status()> still_ours;
  // After every line of the journal, once it is synced: where a simulation ends or stops the run.
  std::function<void()> on_line;
  // Why the run goes on with the lock of this host only, on a person's word; journalled.
  std::string alone_because;
  // The error of a signal that came. Before the point of no return it undoes; after it is ignored.
  std::function<std::optional<Error>()> interruption;
};

// The caller holds the lock of `plan.lock`. An Error: nothing was begun.
[[nodiscard]] Result<RunReport> execute(const Plan& plan, const Actions& actions,
                                        const std::string& state_dir, const Hooks& hooks);
[[nodiscard]] Result<RunReport> resume(const std::string& run, const Actions& actions,
                                       const std::string& state_dir, const Hooks& hooks);
// Undoes an unfinished run. Code::refused past its point of no return.
[[nodiscard]] Result<RunReport> abort(const std::string& run, const Actions& actions,
                                      const std::string& state_dir, const Hooks& hooks);

}  // namespace zx::run
