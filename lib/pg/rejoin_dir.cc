#include "lib/pg/rejoin_dir.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/signals.h"
#include "lib/pg/closed_dir.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/crash_recovery.h"
#include "lib/pg/wal_tools.h"

namespace zx::pg {
namespace {

namespace fs = std::filesystem;

// Files that belong to the node and not to the cluster; pg_rewind and pg_basebackup bring the
// primary's.
constexpr std::array kNodeFiles{"postgresql.conf", "postgresql.auto.conf", "pg_hba.conf",
                                "pg_ident.conf"};

Error fs_error(const std::string& what, const std::error_code& code) {
  const bool full = code == std::errc::no_space_on_device;
  return Error{full ? Code::disk_full : Code::io, what + ": " + code.message(), {}, {}, false};
}

os::WriteOptions owned_by(const os::User& user, mode_t mode = 0600) {
  os::WriteOptions options;
  options.mode = mode;
  options.owner = os::Owner{user.uid, user.gid};
  return options;
}

using Saved = std::map<std::string, std::string>;

Result<Saved> read_node_files(const std::string& directory) {
  Saved saved;
  for (const char* name : kNodeFiles) {
    auto text = os::read_file(directory + "/" + name);
    if (text)
      saved[name] = *std::move(text);
    else if (text.error().code != Code::not_found)
      return fail(text.error());
  }
  return saved;
}

Status write_node_files(const std::string& directory, const Saved& saved, const os::User& user) {
  for (const char* name : kNodeFiles) {
    const auto path = directory + "/" + name;
    const auto found = saved.find(name);
    if (found != saved.end())
      ZX_TRY(os::write_file(path, found->second, owned_by(user)));
    else  // Debian keeps them in /etc: a copy of the primary's would be read instead
      ZX_TRY(os::remove_file(path));
  }
  return {};
}

// pg_rewind brings the primary's: a rebuild after one that was cut short finds this node's here.
std::string set_aside_path(const DataDir& dir) { return dir.path + ".zx-settings"; }

Status set_aside(const DataDir& dir, const Saved& saved, const os::User& user) {
  std::error_code code;
  fs::remove_all(set_aside_path(dir), code);
  if (code) return fail(fs_error("cannot remove " + set_aside_path(dir), code));
  ZX_TRY(os::make_directories(set_aside_path(dir)));
  return write_node_files(set_aside_path(dir), saved, user);
}

Status drop_marker(const DataDir& dir) {
  ZX_TRY(os::remove_file(marker_path(dir)));
  std::error_code code;
  fs::remove_all(set_aside_path(dir), code);
  if (code) return fail(fs_error("cannot remove " + set_aside_path(dir), code));
  return {};
}

// pg_rewind leaves segments of the timeline that was given up; whoever asks the directory for its
// timeline would take the node for one that is still on it. keep_wal() has a copy.
Status drop_abandoned_segments(const DataDir& dir) {
  ZX_ASSIGN(auto control, control_data(dir));
  const auto tli = [&](const char* name) {
    return std::strtoul(control[name].c_str(), nullptr, 10);
  };
  const auto own =
      std::max(tli("Latest checkpoint's TimeLineID"), tli("Min recovery ending loc's timeline"));
  if (own == 0) return fail(Code::failed, dir.node + ": its control file names no timeline");
  std::vector<std::string> abandoned;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(dir.path + "/pg_wal", code)) {
    const auto name = entry.path().filename().string();
    if (name.size() < 16 || name.find_first_not_of("0123456789ABCDEF") < 8) continue;
    if (std::strtoul(name.substr(0, 8).c_str(), nullptr, 16) > own)
      abandoned.push_back(entry.path().string());
  }
  if (code) return fail(fs_error("cannot look at the WAL of " + dir.node, code));
  for (const auto& path : abandoned) ZX_TRY(os::remove_file(path));
  return {};
}

// A PostgreSQL program as the server's owner. The password is in its environment, which only that
// user and root can read: a file would be left behind by a kill.
os::ProcessOptions tool_with(const os::User& user, const Source& source, Deadline deadline) {
  os::ProcessOptions options;
  options.user = user;
  options.directory = "/";
  options.deadline = std::max(deadline.left(), Millis(1));
  options.environment = {{"LC_ALL", "C"}};
  if (!source.password.empty()) options.environment.emplace_back("PGPASSWORD", source.password);
  return options;
}

std::string new_path(const DataDir& dir) { return dir.path + ".zx-new"; }

// Ends what is still filling it, and removes it.
Status drop_new(const DataDir& dir) {
  const auto fresh = new_path(dir);
  if (!os::exists(fresh)) return {};
  const auto patience = Deadline::after(Millis(5000));
  while (true) {
    ZX_ASSIGN(auto left, os::processes_in(fresh));
    std::erase_if(left, [](const auto& process) { return process.command != "pg_basebackup"; });
    if (left.empty()) break;
    for (const auto& process : left) kill(process.pid, SIGKILL);
    if (patience.passed())
      return fail(Code::timeout,
                  fmt::format("process {} does not leave {}", left.front().pid, fresh));
    pause_for(Millis(3));
  }
  std::error_code code;
  fs::remove_all(fresh, code);
  if (code) return fail(fs_error("cannot remove " + fresh, code));
  return {};
}

// The line that says why; the last ones are of how it cleaned up.
std::string why_failed(const os::ProcessResult& result) {
  for (const auto& line : split(result.err, '\n'))
    if (const auto at = line.find("error: "); at != std::string::npos)
      return clean_utf8(line.substr(at + 7));
  const auto lines = split(trim(result.err), '\n');
  return fmt::format("ended with status {}: {}", result.exit, clean_utf8(lines.back()));
}

std::string last_line(const os::ProcessResult& result) {
  const auto lines = split(trim(result.err.empty() ? result.out : result.err), '\n');
  return lines.empty() ? std::string() : clean_utf8(lines.back());
}

bool says_no_need(const os::ProcessResult& result) {
  return result.err.find("no rewind required") != std::string::npos;
}

Status rename_path(const std::string& from, const std::string& to) {
  std::error_code code;
  fs::rename(from, to, code);
  if (code) return fail(fs_error(fmt::format("cannot rename {} to {}", from, to), code));
  return os::sync_directory(os::parent_of(to));
}

}  // namespace

std::string passfile_line(const std::string& user, const std::string& password) {
  const auto escaped = [](const std::string& text) {
    std::string out;
    for (const char c : text) {
      if (c == ':' || c == '\\') out += '\\';
      out += c;
    }
    return out;
  };
  return fmt::format("*:*:*:{}:{}\n", escaped(user), escaped(password));
}

std::string with_settings(std::string_view auto_conf,
                          const std::map<std::string, std::string>& settings) {
  std::string out;
  for (const auto& line : split(auto_conf, '\n')) {
    const auto text = trim(line);
    const auto name =
        lower(trim(text.substr(0, std::min(text.find_first_of("= \t"), text.size()))));
    if (settings.contains(name)) continue;
    if (text.empty() && !out.empty() && out.ends_with("\n\n")) continue;
    if (!text.empty() || !out.empty()) out += line + "\n";
  }
  while (out.ends_with("\n\n")) out.pop_back();
  for (const auto& [name, value] : settings) {
    std::string quoted;
    for (const char c : value) {
      // The lexer of settings files takes no line break inside quotes (guc-file.l).
      if (c == '\n' || c == '\r') {
        quoted += c == '\n' ? "\\n" : "\\r";
        continue;
      }
      if (c == '\'' || c == '\\') quoted += c;
      quoted += c;
    }
    out += fmt::format("{} = '{}'\n", name, quoted);
  }
  return out;
}

Result<Kept> keep_wal(const DataDir& dir, std::uint32_t timeline, Lsn from,
                      std::uint64_t segment_size, const std::string& run) {
  Kept kept;
  kept.from = from;
  ZX_ASSIGN(kept.end, wal_end(dir, timeline, from));
  kept.bytes = bytes_ahead(kept.end, from);
  if (kept.bytes == 0) return kept;
  ZX_ASSIGN(kept.commits, commits_after(dir, timeline, from));
  const auto base = dir.path + ".zx-abandoned";
  kept.directory = base + "/" + run;
  ZX_TRY(os::make_directories(kept.directory));
  ZX_ASSIGN(const auto space, os::free_space(kept.directory));
  const auto needed = kept.bytes + 2 * segment_size;
  if (space < needed)
    return fail(Code::disk_full,
                fmt::format("{}: no room to keep the abandoned WAL: {} needed, {} free in {}",
                            dir.node, format_bytes(needed), format_bytes(space), base));
  for (Lsn at{from.value - from.value % segment_size}; at < kept.end; at.value += segment_size) {
    const auto name = segment_name(timeline, at, segment_size);
    std::error_code code;
    fs::copy_file(dir.path + "/pg_wal/" + name, kept.directory + "/" + name,
                  fs::copy_options::overwrite_existing, code);
    if (code) return fail(fs_error("cannot keep the WAL segment " + name, code));
  }
  const Json receipt{{"node", dir.node},
                     {"run", run},
                     {"timeline", timeline},
                     {"from", to_string(kept.from)},
                     {"end", to_string(kept.end)},
                     {"bytes", kept.bytes},
                     {"commits", kept.commits},
                     {"read_with", fmt::format("pg_waldump --timeline {} --start {} --path .",
                                               timeline, to_string(from))}};
  ZX_TRY(os::write_file(kept.directory + "/receipt.json", dump_pretty(receipt) + "\n"));
  return kept;
}

namespace {

bool says_not_clean(const os::ProcessResult& result) {
  return result.err.find("must be shut down cleanly") != std::string::npos;
}

// Code::locked when somebody else has started the server.
Status try_rewind(const DataDir& dir, const std::vector<std::string>& argv,
                  const os::ProcessOptions& tool, Deadline deadline) {
  // A trial changes nothing: what it refuses (no checksums, no common ancestor, no password) leaves
  // the directory as it is.
  auto trial = argv;
  trial.emplace_back("--dry-run");
  ZX_ASSIGN(auto tried, os::run(trial, tool));
  // Before version 16 it compares the timelines of the last checkpoints only: one that crashed
  // between its promotion and the end of its first checkpoint looks as if it had never parted.
  if (says_no_need(tried)) {
    ZX_TRY(recover_as_primary(dir, deadline));
    ZX_ASSIGN(tried, os::run(trial, tool));
  }
  if (says_no_need(tried))
    return fail(
        Code::failed,
        fmt::format("pg_rewind does not see that {} has left the primary's timeline", dir.node),
        fmt::format("make it anew: zx rejoin pg {} --rebuild --confirm {}", dir.node, dir.node));
  if (says_not_clean(tried))
    return fail(Code::locked, dir.node + " was started by somebody else meanwhile");
  if (!tried.ok())
    return fail(
        Code::failed, fmt::format("pg_rewind cannot rewind {}: {}", dir.node, last_line(tried)),
        fmt::format("a fresh copy needs no common past: zx rejoin pg {} --rebuild --confirm {}",
                    dir.node, dir.node));
  return {};
}

// Again when a supervisor was quicker. A trial takes long enough for that; so that between the end
// of a server and the closed directory there is next to nothing, it is not repeated once it went
// well.
Result<std::string> begin_rewind(const DataDir& dir, const std::vector<std::string>& argv,
                                 const os::ProcessOptions& tool, Deadline deadline) {
  constexpr int kTries = 5;
  bool is_tried = false;
  for (int tries = 1;; ++tries) {
    const auto tried = is_tried ? Status{} : try_rewind(dir, argv, tool, deadline);
    is_tried = tried.has_value();
    auto closed = tried ? close_dir(dir) : fail(tried.error());
    if (closed || closed.error().code != Code::locked || tries == kTries) return closed;
    ZX_TRY(settle(dir, deadline));
  }
}

}  // namespace

Result<std::string> rewind(const DataDir& dir, const Source& source, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN(const auto user, owner_of(dir));
  const auto tool = tool_with(user, source, deadline);
  ZX_ASSIGN(const auto saved, read_node_files(dir.path));
  std::vector<std::string> argv{
      program(dir, "pg_rewind"), "--target-pgdata", dir.path,
      "--source-server",         source.conninfo,   "--no-ensure-shutdown"};
  if (!dir.config_file.empty()) argv.push_back("--config-file=" + dir.config_file);
  if (const auto restore = setting_of(dir, "restore_command"); restore && !restore->empty())
    argv.emplace_back("--restore-target-wal");

  ZX_TRY(set_aside(dir, saved, user));
  const auto version = begin_rewind(dir, argv, tool, deadline);
  if (!version) {
    ZX_TRY(drop_marker(dir));
    return fail(version.error());
  }
  ZX_ASSIGN(const auto result, os::run(argv, tool));
  if (!result.ok() && says_not_clean(result)) {  // before it changed anything
    ZX_TRY(open_dir(dir, *version));
    ZX_TRY(drop_marker(dir));
    return fail(Code::locked, dir.node + " was started by somebody else meanwhile");
  }
  if (!result.ok())
    return fail(
        Code::partial, fmt::format("pg_rewind of {} broke off: {}", dir.node, last_line(result)),
        fmt::format("the directory must be made anew: zx rejoin pg {} --rebuild --confirm {}",
                    dir.node, dir.node));
  ZX_TRY(drop_abandoned_segments(dir));
  ZX_TRY(write_node_files(dir.path, saved, user));
  ZX_TRY(os::write_file(dir.path + "/standby.signal", "", owned_by(user)));
  ZX_TRY(open_dir(dir, *version));
  ZX_TRY(drop_marker(dir));
  return last_line(result);
}

// The settings that a fresh copy gets when there are none of this node: the source's, but where its
// configuration lies elsewhere (Debian keeps it in /etc), where none may be in the directory.
Status adopt_settings(const DataDir& dir, const std::string& fresh, const os::User& user) {
  if (!dir.config_file.empty()) return write_node_files(fresh, {}, user);
  const auto path = fresh + "/postgresql.auto.conf";
  ZX_ASSIGN(const auto text, os::read_file(path));
  return os::write_file(path, with_settings(text, {{"port", std::to_string(dir.port)}}),
                        owned_by(user));
}

Status drop_old(const DataDir& dir) {
  const auto old = old_path(dir);
  std::error_code code;
  fs::remove_all(old, code);
  if (code) return fail(fs_error("cannot remove " + old, code));
  return {};
}

// In a copy that has taken the directory's place: which run put it there, until drop_leavings().
std::string rebuilt_path(const DataDir& dir) { return dir.path + "/zx-rebuilt"; }
bool was_rebuilt_by(const DataDir& dir, const std::string& run) {
  const auto text = os::read_file(rebuilt_path(dir), 4096);
  return text && *text == run;
}

Status rebuild(const DataDir& dir, const Source& source, const std::string& run,
               Deadline deadline) {
  if (was_rebuilt_by(dir, run)) return drop_marker(dir);  // killed before it could say so
  const auto fresh = new_path(dir);
  const auto old = old_path(dir);
  // An earlier call may have been killed between its two renames.
  if (!os::exists(dir.path) && os::exists(old)) ZX_TRY(rename_path(old, dir.path));
  ZX_ASSIGN(const auto user, owner_of(dir));
  std::error_code code;
  const bool half_rewound = os::exists(marker_path(dir)) && os::is_directory(set_aside_path(dir));
  ZX_ASSIGN(auto saved, read_node_files(half_rewound ? set_aside_path(dir) : dir.path));
  ZX_TRY(drop_new(dir));
  ZX_TRY(os::make_directories(fresh));
  if (geteuid() == 0 && chown(fresh.c_str(), user.uid, user.gid) != 0)
    return fail(errno_error(Code::io, "cannot give " + fresh + " to its owner", errno));
  auto tool = tool_with(user, source, deadline);
  // In the directory that it fills, so that drop_new() finds what a killed one left running: the
  // process that receives WAL outlives the one that zx takes along.
  tool.directory = fresh;
  tool.cancelled = os::interrupted;
  const auto copied =
      os::run({program(dir, "pg_basebackup"), "--pgdata", fresh, "--dbname", source.conninfo,
               "--checkpoint=fast", "--wal-method=stream", "--no-password"},
              tool);
  if (!copied || !copied->ok()) {
    auto error = copied
                     ? Error{Code::failed, "pg_basebackup: " + why_failed(*copied), {}, {}, false}
                     : copied.error();
    if (const auto dropped = drop_new(dir); !dropped)
      error.trail.push_back(dropped.error().message);
    return fail_while(std::move(error), "copying the primary for " + dir.node);
  }
  if (fs::is_empty(dir.path, code))
    ZX_TRY(adopt_settings(dir, fresh, user));
  else
    ZX_TRY(write_node_files(fresh, saved, user));
  ZX_TRY(os::write_file(fresh + "/standby.signal", "", owned_by(user)));
  ZX_TRY(os::write_file(fresh + "/zx-rebuilt", run, owned_by(user)));
  ZX_TRY(drop_old(dir));
  ZX_TRY(rename_path(dir.path, old));
  // A supervisor may have started it during the copy.
  auto replaced = dir;
  replaced.path = old;
  ZX_TRY(stop_now(replaced, deadline));
  ZX_TRY(rename_path(fresh, dir.path));
  return drop_marker(dir);
}

Status undo_rebuild(const DataDir& dir, const std::string& run, Deadline deadline) {
  const auto old = old_path(dir);
  if (!os::exists(dir.path)) {  // killed between the two renames
    ZX_TRY(rename_path(old, dir.path));
    return drop_new(dir);
  }
  ZX_TRY(drop_new(dir));
  // Another run's leavings are not what this one replaced.
  if (!was_rebuilt_by(dir, run)) return {};
  // Half removed already, or one that could not be started: the copy is what there is.
  if (!os::exists(old + "/PG_VERSION")) return drop_leavings(dir);
  ZX_TRY(stop_now(dir, deadline));
  ZX_TRY(rename_path(dir.path, new_path(dir)));
  ZX_TRY(rename_path(old, dir.path));
  return drop_new(dir);
}

Status drop_leavings(const DataDir& dir) {
  ZX_TRY(drop_new(dir));
  ZX_TRY(drop_old(dir));
  ZX_TRY(drop_recovery(dir));
  return os::remove_file(rebuilt_path(dir));
}

Result<std::string> write_passfile(const DataDir& dir, const std::string& user,
                                   const std::string& password) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN(const auto owner, owner_of(dir));
  auto path = dir.path + "/zx.passfile";
  ZX_TRY(os::write_file(path, passfile_line(user, password), owned_by(owner)));
  return path;
}

Status configure_standby(const DataDir& dir, const std::string& text, const std::string& slot,
                         const std::string& password) {
  ZX_TRY(check_data_dir(dir));
  ZX_ASSIGN(const auto user, owner_of(dir));
  ZX_ASSIGN(auto conninfo, parse_conninfo(text));
  if (!password.empty()) {
    ZX_ASSIGN(const auto path, write_passfile(dir, value_of(conninfo, "user"), password));
    set_value(conninfo, "passfile", path);
  }
  const auto path = dir.path + "/postgresql.auto.conf";
  auto current = os::read_file(path);
  if (!current && current.error().code != Code::not_found) return fail(current.error());
  ZX_TRY(os::write_file(
      path,
      with_settings(current.value_or(""),
                    {{"primary_conninfo", to_string(conninfo)}, {"primary_slot_name", slot}}),
      owned_by(user)));
  if (os::exists(dir.path + "/standby.signal")) return {};
  return os::write_file(dir.path + "/standby.signal", "", owned_by(user));
}

Result<OwnUpstream> own_upstream(const DataDir& dir) {
  ZX_ASSIGN(const auto text, setting_of(dir, "primary_conninfo"));
  OwnUpstream own;
  if (text.empty()) return own;
  ZX_ASSIGN(auto conninfo, parse_conninfo(text));
  own.had_password = !value_of(conninfo, "password").empty();
  remove_value(conninfo, "password");
  own.conninfo = to_string(conninfo);
  return own;
}

}  // namespace zx::pg
