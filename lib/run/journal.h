// state_dir/runs/<id>.jsonl: one JSON object a line, synced before the act that it announces.
//
//   begin        run, plan, version, pid, host
//   step-start   step                      before anything is done
//   note         step, data                what undo or resume will need, before it is needed
//   no-return    step                      from here on only forward
//   step-done    step, ms, seen
//   step-skipped step, why
//   guard-failed step, ms, error        the step was not begun
//   step-failed  step, ms, error
//   undo-start / undo-done / undo-failed   step
//   end          outcome, error
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/os/files.h"
#include "lib/run/plan.h"

namespace zx::run {

enum class StepState { pending, unknown, done, skipped, failed, undone };
[[nodiscard]] const char* name_of(StepState state);

struct StepRecord {
  StepState state = StepState::pending;  // unknown: started, and zx died
  Json seen;                             // what act or verify returned
  std::map<std::string, Json> notes;
  std::optional<Error> error;
  std::int64_t ms = 0;
  std::string why_skipped;
  Wall ended{};  // done, skipped or failed
};

// A journal read back.
struct Record {
  std::string id;
  Wall begun{};
  std::string host;
  std::int64_t pid = 0;
  Plan plan;
  std::map<std::string, StepRecord> steps;
  bool no_return = false;
  bool undoing = false;
  // Why it went on with the lock of its host only, on a person's word that nobody else was at work.
  std::string alone_because;
  std::optional<std::string> outcome;  // absent: unfinished
  std::optional<Error> error;
  Wall ended{};
};

[[nodiscard]] std::string runs_directory(const std::string& state_dir);
[[nodiscard]] Result<Record> read_run(const std::string& state_dir, const std::string& id);
// Pure. A last line without newline is one that a crash cut short: it was never acted on.
[[nodiscard]] Result<Record> parse_run(std::string_view text, const std::string& id);
// A journal that cannot be understood.
struct BrokenRun {
  std::string id;
  Error error;
  std::string lock;    // empty: not known
  bool ended = false;  // its last line is an end all the same
  // May it be an unfinished run on that lock?
  [[nodiscard]] bool may_hold(const std::string& wanted) const {
    return !ended && (lock.empty() || lock == wanted);
  }
};
struct Runs {
  std::vector<Record> runs;  // newest first
  std::vector<BrokenRun> broken;
};
// The newest `most` of them, and every broken one. None when there is no directory yet; an Error
// when the directory or a journal may not be read.
[[nodiscard]] Result<Runs> list_runs(const std::string& state_dir, std::size_t most);
// The newest run on that lock that has no end; nothing else may begin before it is resumed or
// aborted. An Error when a broken journal may be such a run.
[[nodiscard]] Result<std::optional<Record>> unfinished_run(const std::string& state_dir,
                                                           const std::string& lock);
// Ends an unfinished run without doing anything: what it did stays. The caller holds its lock.
[[nodiscard]] Status close_run(const std::string& state_dir, const std::string& id,
                               const std::string& outcome, const std::string& why);

// What the journal of a run reserves at its start. Longer than any run's; a plan of three nodes
// takes about 6 KiB in all.
inline constexpr std::uint64_t kJournalRoom = std::uint64_t{256} * 1024;

class Journal {
 public:
  // Makes the file and reserves room for the whole run, so that a full disk is found before
  // anything is done (Code::disk_full).
  [[nodiscard]] static Result<Journal> create(const std::string& state_dir, const std::string& id);
  // Opens it again behind its last whole line.
  [[nodiscard]] static Result<Journal> reopen(const std::string& state_dir, const std::string& id);
  // Adds "at" in front, writes the line and syncs it. After an Error nothing of it is there.
  [[nodiscard]] Status append(const Json& line);
  // Removes the file: of a run whose beginning could not be written.
  void discard();

 private:
  explicit Journal(os::Descriptor file, std::string path)
      : file_(std::move(file)), path_(std::move(path)) {}
  os::Descriptor file_;
  std::string path_;
};

}  // namespace zx::run
