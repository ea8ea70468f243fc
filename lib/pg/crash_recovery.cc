#include "lib/pg/crash_recovery.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/pg/closed_dir.h"

namespace zx::pg {
namespace {

namespace fs = std::filesystem;

// A directory of the server's owner, removed at the end of its life.
class OwnedDirectory {
 public:
  static Result<OwnedDirectory> make(const os::User& owner) {
    std::string path = (fs::temp_directory_path() / "zx-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr)
      return fail(errno_error(Code::io, "cannot make a temporary directory", errno));
    OwnedDirectory directory(path);
    if (geteuid() == 0 && chown(path.c_str(), owner.uid, owner.gid) != 0)
      return fail(errno_error(Code::io, "cannot give away " + path, errno));
    return directory;
  }
  OwnedDirectory(OwnedDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  OwnedDirectory& operator=(OwnedDirectory&&) = delete;
  ~OwnedDirectory() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  explicit OwnedDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// A standby is consistent, and ready, before it has replayed all that it received: until then
// pg_rewind does not know how far it came. PostgreSQL 15 says when it is through; earlier ones do
// not, and are through when they were primaries.
Status wait_all_replayed(const DataDir& dir, Deadline deadline) {
  const auto version = os::read_file(dir.path + "/PG_VERSION", 100);
  if (version && std::atoi(version->c_str()) < 15) return {};
  while (true) {
    const auto log = os::read_file(start_log_path(dir));
    if (log && log->find("waiting for WAL to become available at") != std::string::npos) return {};
    ZX_ASSIGN(const auto processes, server_processes(dir));
    if (processes.empty())
      return fail(
          Code::failed,
          fmt::format("{} ended while it replayed its own WAL: {}", dir.node, last_words(dir)),
          start_log_path(dir) + " on its host has all of it");
    if (deadline.passed()) return fail(Code::timeout, dir.node + " still replays its own WAL");
    pause_for(Millis(5));
  }
}

std::string recovery_path(const DataDir& dir) { return dir.path + ".zx-recovery"; }

// What a server makes for itself, or what says how it starts.
constexpr std::array kNotLinked{"PG_VERSION", "standby.signal", "recovery.signal", "postmaster.pid",
                                "postmaster.opts"};

Status make_links(const DataDir& dir, const std::string& version, const os::User& user) {
  const auto links = recovery_path(dir);
  ZX_TRY(os::make_directories(links));
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(dir.path, code)) {
    const auto name = entry.path().filename().string();
    if (std::find(kNotLinked.begin(), kNotLinked.end(), name) != kNotLinked.end()) continue;
    fs::create_symlink(entry.path(), links + "/" + name, code);
    if (code) break;
  }
  if (code)
    return fail(Code::io, fmt::format("cannot link the files of {} into {}: {}", dir.path, links,
                                      code.message()));
  os::WriteOptions options;
  options.mode = 0600;
  options.owner = os::Owner{user.uid, user.gid};
  ZX_TRY(os::write_file(links + "/PG_VERSION", version, options));
  // PostgreSQL wants the directory to be its own and nobody else's.
  if (chmod(links.c_str(), 0700) != 0 ||
      (geteuid() == 0 && chown(links.c_str(), user.uid, user.gid) != 0))
    return fail(errno_error(Code::io, "cannot give " + links + " to its owner", errno));
  return {};
}

Status run_single_user(const DataDir& dir, const os::User& user, Deadline deadline) {
  const auto links = recovery_path(dir);
  os::ProcessOptions options;
  options.user = user;
  options.directory = "/";
  options.deadline = std::max(deadline.left(), Millis(1));
  options.environment = {{"LC_ALL", "C"}};
  // A data_directory in its settings would lead it back to where standby.signal is.
  std::vector<std::string> argv{program(dir, "postgres"),
                                "--single",
                                "-D",
                                links,
                                "-c",
                                "data_directory=" + links,
                                "-c",
                                "archive_mode=off",
                                "-c",
                                "log_destination=stderr",
                                "-c",
                                "lc_messages=C"};
  if (!dir.config_file.empty()) argv.insert(argv.end(), {"-c", "config_file=" + dir.config_file});
  argv.emplace_back("template1");
  ZX_ASSIGN(const auto result, os::run(argv, options));
  if (result.ok()) return {};
  const auto lines = split(trim(result.err), '\n');
  return fail(
      Code::failed,
      fmt::format("{} cannot recover by itself: {}", dir.node,
                  clean_utf8(lines.empty() ? "" : lines.back())),
      fmt::format("make it anew: zx rejoin pg {} --rebuild --confirm {}", dir.node, dir.node));
}

}  // namespace

Status settle(const DataDir& dir, Deadline deadline) {
  // An earlier call may have been killed before it ended the server that it had started.
  ZX_TRY(stop_now(dir, deadline));
  ZX_ASSIGN(auto control, control_data(dir));
  const auto& state = control["Database cluster state"];
  if (state == "shut down") return {};
  if (!os::exists(dir.path + "/standby.signal"))
    return fail(Code::internal, dir.node + " has no standby.signal: it would start as a primary");
  ZX_ASSIGN(const auto user, owner_of(dir));
  ZX_ASSIGN(const auto sockets, OwnedDirectory::make(user));
  const std::vector<std::string> alone{
      "listen_addresses=",          "unix_socket_directories=" + sockets.path(),
      "primary_conninfo=",          "restore_command=",
      "archive_mode=off",           "hot_standby=on",
      "synchronous_standby_names=", "lc_messages=C",
      "log_destination=stderr",     "logging_collector=off",
      "log_min_messages=log"};
  auto status = run_server(dir, alone, deadline);
  if (status) status = wait_all_replayed(dir, deadline);
  if (!status) return fail_while(status.error(), "replaying the WAL of " + dir.node);
  return end_server(dir, SIGINT, deadline);
}

Status recover_as_primary(const DataDir& dir, Deadline deadline) {
  ZX_TRY(check_data_dir(dir));
  if (os::exists(dir.path + "/backup_label"))
    return fail(Code::refused, dir.node + " is a copy whose recovery has not begun");
  ZX_ASSIGN(const auto user, owner_of(dir));
  ZX_TRY(drop_recovery(dir));
  ZX_ASSIGN(const auto version, close_dir(dir));
  auto done = make_links(dir, version, user);
  if (done) done = run_single_user(dir, user, deadline);
  ZX_TRY(open_dir(dir, version));
  ZX_TRY(drop_recovery(dir));
  return done;
}

Status drop_recovery(const DataDir& dir) {
  const auto links = recovery_path(dir);
  if (!os::exists(links)) return {};
  const auto patience = Deadline::after(Millis(5000));
  while (true) {
    ZX_ASSIGN(auto left, os::processes_in(links));
    std::erase_if(left, [](const auto& process) { return process.command != "postgres"; });
    if (left.empty()) break;
    for (const auto& process : left) kill(process.pid, SIGKILL);
    if (patience.passed())
      return fail(Code::timeout,
                  fmt::format("process {} does not leave {}", left.front().pid, links));
    pause_for(Millis(3));
  }
  std::error_code code;
  fs::remove_all(links, code);
  if (code) return fail(Code::io, "cannot remove " + links + ": " + code.message());
  return {};
}

}  // namespace zx::pg
