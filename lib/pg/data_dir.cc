#include "lib/pg/data_dir.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/pg/pid_file.h"
#include "lib/pg/wal_tools.h"

namespace zx::pg {
namespace {

constexpr const char* kFenceFile = "zx-fence.json";

std::string signal_path(const DataDir& dir) { return dir.path + "/standby.signal"; }
std::string fence_path(const DataDir& dir) { return dir.path + "/" + kFenceFile; }

Result<os::WriteOptions> as_owner(const DataDir& dir) {
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  os::WriteOptions options;
  options.owner = owner;
  return options;
}

bool is_ready(const DataDir& dir) {
  const auto file = read_pid_file(dir.path);
  return file && file->is_ready;
}

pid_t postmaster_of(const DataDir& dir) {
  const auto file = read_pid_file(dir.path);
  return file ? file->pid : 0;
}

// Puts standby.signal and the record of who did it; what was there before is kept in the record.
Result<bool> put_fence(const DataDir& dir, const std::string& run) {
  ZX_ASSIGN(const auto options, as_owner(dir));
  const bool had_signal = os::exists(signal_path(dir));
  const bool had_record = os::exists(fence_path(dir));
  if (!had_record) {
    const Json record{{"run", run},
                      {"at", format_utc(wall_now())},
                      {"made_standby_signal", !had_signal},
                      {"what", "zx fenced this server; it starts as a standby until zx rejoin"}};
    ZX_TRY(os::write_file(fence_path(dir), dump_line(record) + "\n", options));
  }
  if (!had_signal) ZX_TRY(os::write_file(signal_path(dir), "", options));
  return had_record;
}

Status wait_gone(const DataDir& dir, Deadline deadline, const char* what) {
  while (true) {
    ZX_ASSIGN(const auto left, server_processes(dir));
    if (left.empty()) return {};
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{}: {} PostgreSQL processes are still in {} ({})", dir.node,
                              left.size(), dir.path, what),
                  fmt::format("look at process {} (state {}) on its host", left.front().pid,
                              left.front().state));
    pause_for(Millis(3));
  }
}

Status run_configured(const DataDir& dir, const std::vector<std::string>& argv, Deadline deadline) {
  os::ProcessOptions options;
  options.deadline = std::max(deadline.left(), Millis(1));
  auto result = os::run_ok(argv, options);
  if (!result) return fail_while(result.error(), "running " + argv.front() + " for " + dir.node);
  return {};
}

}  // namespace

Json to_json(const DataDir& d) {
  return {{"node", d.node},       {"path", d.path},
          {"bin_dir", d.bin_dir}, {"config_file", d.config_file},
          {"service", d.service}, {"start", d.start},
          {"stop", d.stop},       {"port", d.port}};
}

Result<DataDir> data_dir_from_json(const Json& json) {
  DataDir dir;
  dir.node = get_string(json, "node");
  dir.path = get_string(json, "path");
  dir.bin_dir = get_string(json, "bin_dir");
  dir.config_file = get_string(json, "config_file");
  dir.service = get_string(json, "service");
  dir.start = get_strings(json, "start");
  dir.stop = get_strings(json, "stop");
  dir.port = static_cast<int>(get_int(json, "port"));
  if (!dir.path.starts_with('/') || !dir.bin_dir.starts_with('/'))
    return fail(Code::usage, "the request has no absolute data directory and program directory");
  return dir;
}

std::string program(const DataDir& dir, const std::string& name) {
  return dir.bin_dir + "/" + name;
}
std::string start_log_path(const DataDir& dir) { return dir.path + "/zx-start.log"; }
// The file that the logging collector writes now (src/include/postmaster/syslogger.h), its end.
// Only one of the server's own: zx may be root, and the name comes from the server's user.
std::optional<std::string> collected_log(const DataDir& dir) {
  const auto current = os::read_file(dir.path + "/current_logfiles", 65536);
  const auto owner = os::owner_of(dir.path);
  if (!current || !owner) return std::nullopt;
  for (const auto& line : split(*current, '\n')) {
    if (!line.starts_with("stderr ")) continue;
    const auto named = line.substr(7);
    const auto path = named.starts_with('/') ? named : dir.path + "/" + named;
    const os::Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat found {};
    if (!file || fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode) ||
        found.st_uid != owner->uid)
      return std::nullopt;
    std::string text(65536, '\0');
    const auto got = pread(file.get(), text.data(), text.size(),
                           std::max<off_t>(0, found.st_size - static_cast<off_t>(text.size())));
    if (got < 0) return std::nullopt;
    text.resize(static_cast<std::size_t>(got));
    return text;
  }
  return std::nullopt;
}

std::string last_words(const DataDir& dir) {
  auto text = os::read_file(start_log_path(dir));
  if (!text) return {};
  if (text->find("logging collector") != std::string::npos)
    if (auto collected = collected_log(dir)) text = *std::move(collected);
  auto lines = split(trim(*text), '\n');
  // What ended it; the last lines are of those that it took along.
  for (auto line = lines.rbegin(); line != lines.rend(); ++line)
    if (line->find("FATAL:") != std::string::npos || line->find("PANIC:") != std::string::npos)
      return clean_utf8(*line);
  if (lines.size() > 4) lines.erase(lines.begin(), lines.end() - 4);
  return clean_utf8(join(lines, "\n"));
}
std::string marker_path(const DataDir& dir) { return dir.path + ".zx-rewind"; }
std::string old_path(const DataDir& dir) { return dir.path + ".zx-old"; }

Result<os::User> owner_of(const DataDir& dir) {
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  if (owner.uid == 0)
    return fail(Code::not_a_data_directory, dir.path + " belongs to root, PostgreSQL's never does");
  return os::user_of_uid(owner.uid);
}

Status check_data_dir(const DataDir& dir) {
  const auto wrong = [&](const std::string& why) {
    return fail(
        Code::not_a_data_directory,
        fmt::format("{}: {} is not a PostgreSQL data directory: {}", dir.node, dir.path, why),
        "set data_dir of the node to what SHOW data_directory says there");
  };
  const auto denied = [&](Error error) {
    error.hint = "run zx there as root or as the directory's owner";
    return fail(std::move(error));
  };
  if (const auto owner = os::owner_of(dir.path); !owner && owner.error().code == Code::auth)
    return denied(owner.error());
  if (!os::is_directory(dir.path)) return wrong("it does not exist or is not a directory");
  if (os::exists(marker_path(dir)))
    return fail(
        Code::partial,
        fmt::format("{}: a rewind of {} was interrupted; it must never be started", dir.node,
                    dir.path),
        fmt::format("make it anew: zx rejoin pg {} --rebuild --confirm {}", dir.node, dir.node));
  const auto version = os::read_file(dir.path + "/PG_VERSION", 100);
  if (!version && version.error().code == Code::auth) return denied(version.error());
  if (!version) return wrong("no PG_VERSION");
  if (!os::exists(dir.path + "/global/pg_control")) return wrong("no global/pg_control");
  const int number = std::atoi(version->c_str());
  if (number < 13) return wrong(fmt::format("version {} is older than 13", trim(*version)));
  return {};
}

Result<std::vector<os::FoundProcess>> server_processes(const DataDir& dir) {
  ZX_ASSIGN(auto found, os::processes_in(dir.path));
  // A shell that stands in the directory is none of ours to end.
  std::erase_if(found, [](const os::FoundProcess& p) {
    return p.command != "postgres" && p.command != "postmaster";
  });
  return found;
}

// What pg_basebackup into another directory would not bring back as it is.
std::string why_no_rebuild(const DataDir& dir) {
  namespace fs = std::filesystem;
  std::error_code code;
  if (fs::is_symlink(dir.path + "/pg_wal", code))
    return "its pg_wal is a link: a fresh copy would have its WAL in the data directory";
  if (fs::exists(dir.path + "/pg_tblspc", code) && !fs::is_empty(dir.path + "/pg_tblspc", code))
    return "it has tablespaces, whose directories a fresh copy would collide with";
  return {};
}

// As the query of observe.cc reads them from a server that runs.
std::optional<std::string> marks_of(const DataDir& dir, const Lineage& lineage,
                                    std::uint64_t segment_size) {
  std::vector<std::string> marks;
  const auto& history = *lineage.history;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const auto timeline = i + 1 < history.size() ? history[i + 1].timeline : lineage.timeline;
    const auto begun = history[i].until;
    const auto path = dir.path + "/pg_wal/" + segment_name(timeline, begun, segment_size);
    const os::Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    std::array<unsigned char, kMarkBytes> bytes{};
    if (!file ||
        pread(file.get(), bytes.data(), bytes.size(),
              static_cast<off_t>(begun.value % segment_size)) != static_cast<ssize_t>(bytes.size()))
      continue;
    auto mark = fmt::format("{}:", timeline);
    for (const auto byte : bytes) mark += fmt::format("{:02x}", byte);
    marks.push_back(std::move(mark));
  }
  if (marks.empty()) return std::nullopt;
  return join(marks, ",");
}

LocalFacts inspect(const DataDir& dir, const std::optional<Lsn>& wal_from) {
  LocalFacts facts;
  const bool half_replaced = !os::exists(dir.path) && os::exists(old_path(dir));
  facts.interrupted_rewind = os::exists(marker_path(dir)) || half_replaced;
  if (const auto processes = server_processes(dir)) {
    facts.processes = !processes->empty();
    if (const auto file = read_pid_file(dir.path); file && facts.processes) facts.port = file->port;
    facts.stopped = facts.processes && std::all_of(processes->begin(), processes->end(),
                                                   [](const auto& p) { return p.state == 'T'; });
  }
  if (const auto status = check_data_dir(dir); !status) {
    facts.problem = status.error().message;
    facts.denied = status.error().code == Code::auth;
    std::error_code code;
    facts.is_empty = owner_of(dir) && std::filesystem::is_empty(dir.path, code) && !code;
    return facts;
  }
  facts.is_data_directory = true;
  facts.control_mark = control_mark(dir);  // before its WAL is read
  for (const char* name :
       {"postgres", "pg_controldata", "pg_waldump", "pg_rewind", "pg_basebackup"})
    if (access(program(dir, name).c_str(), X_OK) != 0) facts.missing_programs.emplace_back(name);
  facts.no_rebuild = why_no_rebuild(dir);
  facts.standby_signal = os::exists(signal_path(dir));
  if (const auto text = os::read_file(fence_path(dir), 65536)) {
    facts.fenced = true;
    if (const auto json = parse_json(*text, kFenceFile)) facts.fence_run = get_string(*json, "run");
  }
  const auto control = control_data(dir);
  if (!control) {
    facts.problem = control.error().message;
    return facts;
  }
  const auto field = [&](const char* name) {
    const auto found = control->find(name);
    return found == control->end() ? std::string() : found->second;
  };
  facts.control_state = field("Database cluster state");
  facts.checkpoint = parse_lsn(field("Latest checkpoint location")).value_or(Lsn{});
  facts.lineage.system_id = field("Database system identifier");
  const auto tli = [&](const char* name) {
    return static_cast<std::uint32_t>(std::atoi(field(name).c_str()));
  };
  const auto sealed = tli("Latest checkpoint's TimeLineID");
  facts.lineage.timeline = std::max(sealed, tli("Min recovery ending loc's timeline"));
  // The control file learns of a new timeline at its first checkpoint; segment files are named by
  // it from its first record on.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path + "/pg_wal", ignored)) {
    const auto name = entry.path().filename().string();
    if (name.size() != 24 || name.find_first_not_of("0123456789ABCDEF") != std::string::npos)
      continue;
    facts.lineage.timeline =
        std::max(facts.lineage.timeline,
                 static_cast<std::uint32_t>(std::stoul(name.substr(0, 8), nullptr, 16)));
  }
  facts.unsealed = sealed < facts.lineage.timeline;
  if (facts.lineage.timeline <= 1) {
    facts.lineage.history.emplace();
  } else if (const auto text = os::read_file(
                 fmt::format("{}/pg_wal/{:08X}.history", dir.path, facts.lineage.timeline),
                 1 << 20)) {
    if (auto history = parse_history(*text)) facts.lineage.history = *std::move(history);
  }
  if (const auto size = std::strtoull(field("Bytes per WAL segment").c_str(), nullptr, 10);
      size > 0 && facts.lineage.history)
    facts.lineage.mark = marks_of(dir, facts.lineage, size);
  if (const auto names = setting_of(dir, "synchronous_standby_names")) {
    facts.sync_names_known = true;
    facts.sync_names = *names;
  }
  if (wal_from && !facts.processes) {
    if (const auto end = wal_end(dir, facts.lineage.timeline, std::max(*wal_from, Lsn{1})))
      facts.wal_end = *end;
    else
      facts.problem = end.error().message;
  }
  return facts;
}

std::string control_mark(const DataDir& dir) {
  const auto bytes = os::read_file(dir.path + "/global/pg_control", 1 << 16);
  if (!bytes) return {};
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const unsigned char byte : *bytes) hash = (hash ^ byte) * 0x100000001b3ULL;
  return fmt::format("{:016x}", hash);
}

namespace {

Status end_processes(const DataDir& dir, FenceReport& report, Deadline deadline) {
  ZX_ASSIGN(const auto processes, server_processes(dir));
  report.ended = static_cast<int>(processes.size());
  if (processes.empty()) return {};

  // SIGQUIT is PostgreSQL's immediate shutdown. A stopped or hanging server does not hear it;
  // SIGKILL reaches both, and no shared memory is left by it that a start would trust.
  const auto postmaster = postmaster_of(dir);
  const bool orderly = std::any_of(processes.begin(), processes.end(), [&](const auto& p) {
    return p.pid == postmaster && p.state != 'T';
  });
  if (orderly) {
    kill(postmaster, SIGQUIT);
    const auto patience = deadline.at_most(std::max(Millis(500), deadline.left() / 3));
    if (wait_gone(dir, patience, "after an immediate shutdown")) return {};
  }
  report.killed = true;
  while (true) {
    ZX_ASSIGN(const auto left, server_processes(dir));
    if (left.empty()) return {};
    for (const auto& process : left) kill(process.pid, SIGKILL);
    if (deadline.passed()) break;
    pause_for(Millis(3));
  }
  return wait_gone(dir, deadline, "after SIGKILL");
}

}  // namespace

Result<FenceReport> fence(const DataDir& dir, const std::string& run, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  FenceReport report;
  ZX_ASSIGN(report.was_fenced, put_fence(dir, run));
  ZX_TRY(end_processes(dir, report, deadline));
  report.control_mark = control_mark(dir);
  return report;
}

Status unfence(const DataDir& dir, const std::string& run) {
  const auto text = os::read_file(fence_path(dir), 65536);
  if (!text) return text.error().code == Code::not_found ? Status{} : fail(text.error());
  ZX_ASSIGN(const auto record, parse_json(*text, fence_path(dir)));
  if (get_string(record, "run") != run) return {};  // another run's fence stays
  if (get_bool(record, "made_standby_signal")) ZX_TRY(os::remove_file(signal_path(dir)));
  return os::remove_file(fence_path(dir));
}

Status forget_fence(const DataDir& dir) { return os::remove_file(fence_path(dir)); }

Result<StopReport> stop_clean(const DataDir& dir, const std::string& run, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN([[maybe_unused]] const bool was_fenced, put_fence(dir, run));
  if (!dir.stop.empty() || !dir.service.empty()) {
    const auto argv =
        !dir.stop.empty() ? dir.stop : std::vector<std::string>{"systemctl", "stop", dir.service};
    ZX_TRY(run_configured(dir, argv, deadline));
  } else {
    ZX_ASSIGN(const auto processes, server_processes(dir));
    if (!processes.empty()) ZX_TRY(end_server(dir, SIGINT, deadline));
  }
  ZX_TRY(wait_gone(dir, deadline, "after a fast shutdown"));
  ZX_ASSIGN(auto control, control_data(dir));
  StopReport report;
  report.control_state = control["Database cluster state"];
  report.checkpoint = parse_lsn(control["Latest checkpoint location"]).value_or(Lsn{});
  return report;
}

Status stop_now(const DataDir& dir, Deadline deadline) {
  // Through the supervisor first, or it would start the server again.
  if (!dir.stop.empty())
    ZX_TRY(run_configured(dir, dir.stop, deadline));
  else if (!dir.service.empty())
    ZX_TRY(run_configured(dir, {"systemctl", "stop", dir.service}, deadline));
  ZX_ASSIGN(const auto processes, server_processes(dir));
  if (processes.empty()) return {};
  if (end_server(dir, SIGINT, deadline.at_most(std::max(Millis(500), deadline.left() / 2))))
    return {};
  while (true) {
    ZX_ASSIGN(const auto left, server_processes(dir));
    if (left.empty()) return {};
    for (const auto& process : left) kill(process.pid, SIGKILL);
    if (deadline.passed()) return wait_gone(dir, deadline, "after SIGKILL");
    pause_for(Millis(3));
  }
}

Status end_server(const DataDir& dir, int signal_number, Deadline deadline) {
  const auto postmaster = postmaster_of(dir);
  ZX_ASSIGN(const auto processes, server_processes(dir));
  const bool there = std::any_of(processes.begin(), processes.end(),
                                 [&](const auto& p) { return p.pid == postmaster; });
  if (there && kill(postmaster, signal_number) != 0)
    return fail(errno_error(
        Code::auth, fmt::format("cannot signal process {} of {}", postmaster, dir.node), errno));
  return wait_gone(dir, deadline, "after a shutdown request");
}

Status run_server(const DataDir& dir, const std::vector<std::string>& settings, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN(const auto user, owner_of(dir));
  std::vector<std::string> argv{program(dir, "postgres"), "-D", dir.path};
  const auto add = [&](const std::string& setting) {
    argv.emplace_back("-c");
    argv.push_back(setting);
  };
  if (!dir.config_file.empty()) add("config_file=" + dir.config_file);
  for (const auto& setting : settings) add(setting);
  os::ProcessOptions options;
  options.user = user;
  options.directory = "/";
  const auto log = start_log_path(dir);
  ZX_TRY(os::remove_file(log));
  ZX_TRY(drop_pid_file_of_zombie(dir.path));
  ZX_ASSIGN(const auto pid, os::spawn_detached(argv, options, log));
  ZX_ASSIGN(const auto owner, os::owner_of(dir.path));
  if (geteuid() == 0 && chown(log.c_str(), owner.uid, owner.gid) != 0)
    return fail(errno_error(Code::io, "cannot give " + log + " to its owner", errno));
  while (!(postmaster_of(dir) == pid && is_ready(dir))) {
    if (!os::is_running(pid))
      return fail(Code::failed, fmt::format("{} did not start: {}", dir.node, last_words(dir)),
                  "its own log on its host says more");
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} does not accept connections yet: {}", dir.node, last_words(dir)),
                  "it goes on starting; look again with zx status");
    pause_for(Millis(5));
  }
  return {};
}

Status start(const DataDir& dir, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN(const auto before, server_processes(dir));
  if (!dir.start.empty() || !dir.service.empty()) {
    const auto argv = !dir.start.empty()
                          ? dir.start
                          : std::vector<std::string>{"systemctl", "start", dir.service};
    ZX_TRY(run_configured(dir, argv, deadline));
  } else if (before.empty()) {
    return run_server(dir, {}, deadline);
  }
  while (!is_ready(dir)) {
    if (deadline.passed())
      return fail(Code::timeout, dir.node + " was started but does not accept connections yet",
                  "look at its log on its host, then: zx status");
    pause_for(Millis(10));
  }
  // A supervisor was quicker: that server may have read its settings before they were changed.
  const auto postmaster = postmaster_of(dir);
  if (!before.empty() && postmaster > 0 && kill(postmaster, SIGHUP) != 0 && errno != ESRCH)
    return fail(errno_error(Code::auth, "cannot make " + dir.node + " read its settings", errno));
  return {};
}

}  // namespace zx::pg
