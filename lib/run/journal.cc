#include "lib/run/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"

namespace zx::run {
namespace {

std::string path_of(const std::string& state_dir, const std::string& id) {
  return runs_directory(state_dir) + "/" + id + ".jsonl";
}

Error write_error(const std::string& path, int number) {
  auto error = errno_error(number == ENOSPC || number == EDQUOT ? Code::disk_full : Code::io,
                           "cannot write the journal " + path, number);
  if (error.code == Code::disk_full)
    error.hint = "free space there, or set platform.state_dir to another disk";
  return error;
}

// Read line by line, each for itself: what can still be said of a journal that is damaged.
BrokenRun broken_run(const std::string& state_dir, const std::string& id, const Error& error) {
  BrokenRun broken{id, error, {}, false};
  const auto text = os::read_file(path_of(state_dir, id));
  if (!text) return broken;
  for (const auto& line : split(*text, '\n')) {
    const auto json = parse_json(line, "a line");
    if (!json) continue;
    const auto event = get_string(*json, "event");
    if (event == "begin") broken.lock = get_string(get_object(*json, "plan"), "lock");
    if (!event.empty()) broken.ended = event == "end";
  }
  return broken;
}

// Its last line says so; the others need not be read.
bool has_end(std::string_view text) {
  if (!text.ends_with('\n')) return false;
  text.remove_suffix(1);
  const auto json = parse_json(text.substr(text.rfind('\n') + 1), "the last line");
  return json && get_string(*json, "event") == "end";
}

void apply_event(Record& record, const Json& line) {
  const auto event = get_string(line, "event");
  const auto at = parse_utc(get_string(line, "at"));
  auto& step = record.steps[get_string(line, "step")];
  if (event.starts_with("step-") && event != "step-start") step.ended = at;
  if (event == "step-start") {
    step.state = StepState::unknown;
    step.error.reset();
  } else if (event == "note") {
    step.notes[get_string(line, "key")] = get_object(line, "data");
  } else if (event == "alone") {
    record.alone_because = get_string(line, "why");
  } else if (event == "no-return") {
    record.no_return = true;
  } else if (event == "step-done") {
    step.state = StepState::done;
    step.error.reset();
    step.seen = get_object(line, "seen");
    step.ms = get_int(line, "ms");
  } else if (event == "step-skipped") {
    step.state = StepState::skipped;
    step.error.reset();
    step.why_skipped = get_string(line, "why");
  } else if (event == "step-failed") {
    step.state = StepState::failed;
    step.ms = get_int(line, "ms");
    step.error = error_from_json(get_object(line, "error"));
  } else if (event == "guard-failed") {
    step.error = error_from_json(get_object(line, "error"));
  } else if (event == "undo-start") {
    record.undoing = true;
  } else if (event == "undo-done") {
    step.state = StepState::undone;
  } else if (event == "end") {
    record.outcome = get_string(line, "outcome");
    record.ended = at;
    if (get_object(line, "error").is_object())
      record.error = error_from_json(get_object(line, "error"));
  }
}

}  // namespace

const char* name_of(StepState state) {
  switch (state) {
    case StepState::pending: return "pending";
    case StepState::unknown: return "unknown";
    case StepState::done: return "done";
    case StepState::skipped: return "skipped";
    case StepState::failed: return "failed";
    case StepState::undone: return "undone";
  }
  return "unknown";
}

std::string runs_directory(const std::string& state_dir) { return state_dir + "/runs"; }

Result<Record> parse_run(std::string_view text, const std::string& id) {
  Record record;
  record.id = id;
  int number = 0;
  while (true) {
    const auto newline = text.find('\n');
    if (newline == std::string_view::npos) break;
    ++number;
    const auto line = text.substr(0, newline);
    text.remove_prefix(newline + 1);
    auto json = parse_json(line, fmt::format("line {} of run {}", number, id));
    if (!json) return fail(json.error());
    if (number == 1) {
      if (get_string(*json, "event") != "begin")
        return fail(Code::io, fmt::format("line 1 of run {} is not its beginning", id));
      record.begun = parse_utc(get_string(*json, "at"));
      record.host = get_string(*json, "host");
      record.pid = get_int(*json, "pid");
      ZX_ASSIGN(record.plan, plan_from_json(get_object(*json, "plan")));
    } else {
      apply_event(record, *json);
    }
  }
  record.steps.erase("");
  if (number == 0) return fail(Code::not_found, fmt::format("run {} was never begun", id));
  return record;
}

Result<Record> read_run(const std::string& state_dir, const std::string& id) {
  if (!is_run_id(id))
    return fail(Code::usage, fmt::format("\"{}\" is not a run id", first_line(id)),
                "zx runs list shows them");
  const auto text = os::read_file(path_of(state_dir, id));
  if (!text && text.error().code == Code::not_found)
    return fail(Code::not_found, "no run " + id + " in " + runs_directory(state_dir),
                "zx runs list shows them");
  if (!text) return fail(text.error());
  return parse_run(*text, id);
}

namespace {

Result<Runs> collect(const std::string& state_dir, bool with_ended) {
  const auto directory = runs_directory(state_dir);
  Runs found;
  std::error_code code;
  for (std::filesystem::directory_iterator entry(directory, code), end; !code && entry != end;
       entry.increment(code)) {
    const auto name = entry->path().filename().string();
    if (!name.ends_with(".jsonl")) continue;
    const auto id = name.substr(0, name.size() - 6);
    if (!is_run_id(id)) continue;
    if (!with_ended) {
      const auto text = os::read_file(entry->path().string());
      if (text && has_end(*text)) continue;
    }
    auto record = read_run(state_dir, id);
    if (record)
      found.runs.push_back(*std::move(record));
    else if (record.error().code == Code::auth)
      return fail(record.error());
    else if (record.error().code != Code::not_found)
      found.broken.push_back(broken_run(state_dir, id, record.error()));
  }
  if (code && code != std::errc::no_such_file_or_directory) {
    const bool denied = code == std::errc::permission_denied;
    return fail(denied ? Code::auth : Code::io,
                fmt::format("cannot read the runs in {}: {}", directory, code.message()),
                denied ? "run zx as the user that owns platform.state_dir" : "");
  }
  // By the millisecond: two runs of one second differ only in random digits.
  std::stable_sort(found.runs.begin(), found.runs.end(),
                   [](const Record& a, const Record& b) { return a.begun > b.begun; });
  return found;
}

}  // namespace

Result<Runs> list_runs(const std::string& state_dir, std::size_t most) {
  ZX_ASSIGN(auto found, collect(state_dir, true));
  if (found.runs.size() > most) found.runs.resize(most);
  return found;
}

Result<std::optional<Record>> unfinished_run(const std::string& state_dir,
                                             const std::string& lock) {
  // An agent asks twice a second, of hundreds of runs that have ended.
  ZX_ASSIGN(auto found, collect(state_dir, false));
  for (auto& record : found.runs)
    if (record.plan.lock == lock && !record.outcome) return std::optional(std::move(record));
  for (const auto& broken : found.broken)
    if (broken.may_hold(lock))
      return fail(Code::refused,
                  fmt::format("run {} may be unfinished: {}", broken.id, broken.error.message),
                  fmt::format("read {} and look at the servers; then end it: zx runs abort {} "
                              "--as-is",
                              path_of(state_dir, broken.id), broken.id));
  return std::optional<Record>();
}

Result<Journal> Journal::create(const std::string& state_dir, const std::string& id) {
  ZX_TRY(os::make_directories(runs_directory(state_dir)));
  const auto path = path_of(state_dir, id);
  os::Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
  if (!file) return fail(write_error(path, errno));
  // KEEP_SIZE: the room is ours, the file still ends where its text does.
  if (fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, off_t{kJournalRoom}) != 0 &&
      errno != EOPNOTSUPP) {
    const int number = errno;
    unlink(path.c_str());
    return fail(write_error(path, number));
  }
  ZX_TRY(os::sync_directory(runs_directory(state_dir)));
  return Journal(std::move(file), path);
}

Result<Journal> Journal::reopen(const std::string& state_dir, const std::string& id) {
  const auto path = path_of(state_dir, id);
  ZX_ASSIGN(const auto text, os::read_file(path));
  os::Descriptor file(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!file) return fail(write_error(path, errno));
  const auto whole = text.rfind('\n');
  const auto length = whole == std::string::npos ? 0 : whole + 1;
  if (length != text.size() && ftruncate(file.get(), static_cast<off_t>(length)) != 0)
    return fail(write_error(path, errno));
  return Journal(std::move(file), path);
}

Status Journal::append(const Json& line) {
  Json full{{"at", format_utc(wall_now())}};
  full.update(line);
  const auto text = dump_line(full) + "\n";
  const off_t end = lseek(file_.get(), 0, SEEK_END);
  if (end < 0) return fail(write_error(path_, errno));
  // What does not fit whole is taken back: a later line behind a part of one could not be read.
  const auto give_up = [&](int number) -> Status {
    [[maybe_unused]] const int ignored = ftruncate(file_.get(), end);
    return fail(write_error(path_, number));
  };
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto put = write(file_.get(), rest.data(), rest.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return give_up(errno);
    rest.remove_prefix(static_cast<std::size_t>(put));
  }
  if (fdatasync(file_.get()) != 0) return give_up(errno);
  return {};
}

void Journal::discard() {
  file_.close();
  unlink(path_.c_str());
}

Status close_run(const std::string& state_dir, const std::string& id, const std::string& outcome,
                 const std::string& why) {
  ZX_ASSIGN(auto journal, Journal::reopen(state_dir, id));
  return journal.append({{"event", "end"}, {"outcome", outcome}, {"why", why}});
}

}  // namespace zx::run
