#include "lib/lab/place.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include <fmt/format.h>

#include "lib/base/json.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/lab/server.h"
#include "lib/os/files.h"
#include "lib/pg/pid_file.h"

namespace zx::lab {
namespace {

namespace fs = std::filesystem;

Error fs_error(const std::string& what, const std::error_code& code) {
  const bool denied = code == std::errc::permission_denied;
  return Error{denied ? Code::auth : Code::io, what + ": " + code.message(), {}, {}, false};
}

bool is_ours(const std::string& name) {
  static const std::set<std::string> names{"lab.json", "zx.toml", "secrets", "state",
                                           "logs",     "backups", "app"};
  // What os::write_file was writing when it was killed.
  const auto whole = name.substr(0, name.find(".tmp-"));
  return names.contains(whole) || is_node_name(name);
}

Result<std::vector<std::string>> names_in(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator entry(dir, code), end; !code && entry != end; entry.increment(code))
    names.push_back(entry->path().filename().string());
  if (code) return fail(fs_error("cannot list " + dir, code));
  std::sort(names.begin(), names.end());
  return names;
}

std::string hint_for_foreign(const Place& place) {
  return "name an empty or a new directory: zx lab up --dir " + place.dir + "/lab";
}

bool can_enter(const std::string& dir, const os::User& user) {
  os::ProcessOptions options;
  options.user = user;
  options.directory = dir;
  return os::run_ok({"/bin/true"}, options).has_value();
}

// Servers keep their data directory as working directory; tools are started in the node's home, or
// begin there. `data.zx-new` and the like lie beside the data directory.
Result<std::vector<os::FoundProcess>> processes_of(const Place& place) {
  std::vector<os::FoundProcess> all;
  ZX_ASSIGN(const auto names, names_in(place.dir));
  for (const auto& name : names) {
    const auto home = place.home(name);
    if (!is_node_name(name) || !os::is_directory(home)) continue;
    std::vector<std::string> places{home};
    ZX_ASSIGN(const auto inner, names_in(home));
    for (const auto& one : inner)
      if (os::is_directory(home + "/" + one)) places.push_back(home + "/" + one);
    for (const auto& one : places) {
      auto found = os::processes_in(one);
      if (!found) continue;  // gone since it was listed
      for (auto& process : *found)
        if (is_server_or_tool(process)) all.push_back(std::move(process));
    }
  }
  return all;
}

std::vector<pid_t> postmasters_of(const Place& place) {
  std::vector<pid_t> pids;
  for (int i = 0; i < kMostNodes; ++i)
    if (const auto file = pg::read_pid_file(place.data(node_name(Server::postgresql, i))))
      pids.push_back(file->pid);
  return pids;
}

void release_all_shared_memory(const Place& place) {
  for (int i = 0; i < kMostNodes; ++i)
    if (const auto file = pg::read_pid_file(place.data(node_name(Server::postgresql, i))))
      pg::release_shared_memory(*file);
}

}  // namespace

pg::DataDir Place::data_dir(const std::string& node) const {
  pg::DataDir out;
  out.node = node;
  out.path = data(node);
  out.bin_dir = bin_dir();
  return out;
}

Server server_of(const std::string& name) {
  if (name.starts_with("redis-")) return Server::redis;
  return name.starts_with("sentinel-") ? Server::sentinel : Server::postgresql;
}

std::string node_name(Server kind, int index) {
  const std::string prefix = kind == Server::redis      ? "redis-"
                             : kind == Server::sentinel ? "sentinel-"
                                                        : "pg-";
  return prefix + static_cast<char>('a' + index);
}

bool is_node_name(const std::string& name) {
  for (int i = 0; i < kMostNodes; ++i)
    if (name == node_name(server_of(name), i)) return true;
  return false;
}

std::string bin_dir() { return config::PgCluster{}.bin_dir; }

std::string default_dir() {
  std::error_code code;
  auto temporary = fs::temp_directory_path(code);
  if (code) temporary = "/tmp";
  return (temporary / fmt::format("zx-lab-{}", geteuid())).string();
}

Result<Place> place_of(const std::string& dir) {
  const auto given = dir.empty() ? default_dir() : dir;
  for (const char c : given)
    if (static_cast<unsigned char>(c) < 0x20)
      return fail(Code::usage, "the lab's directory has a control character in its name");
  std::error_code code;
  const auto absolute = fs::absolute(given, code);
  // A link there could have been put by anybody who may write to the temporary directory.
  if (!code && fs::is_symlink(absolute, code))
    return fail(Code::refused, given + " is a symbolic link", "name the directory itself");
  auto path = fs::weakly_canonical(absolute, code).string();
  if (code) return fail(fs_error("cannot look at " + given, code));
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return Place{path};
}

Result<Kind> look(const Place& place) {
  struct stat found {};
  if (lstat(place.dir.c_str(), &found) != 0) {
    if (errno == ENOENT) return Kind::absent;
    return fail(
        errno_error(errno == EACCES ? Code::auth : Code::io, "cannot look at " + place.dir, errno));
  }
  if (!S_ISDIR(found.st_mode))
    return fail(Code::refused, place.dir + " is not a directory", "name another one with --dir");
  if (found.st_uid != geteuid())
    return fail(Code::refused, place.dir + " belongs to another user",
                "a lab is worked by the user that made it; name another directory with --dir");
  if (os::exists(place.marker())) return Kind::ours;
  ZX_ASSIGN(const auto names, names_in(place.dir));
  if (names.empty()) return Kind::empty;
  return fail(Code::refused,
              fmt::format("{} is not a lab: it holds {}{}", place.dir, clean_utf8(names.front()),
                          names.size() > 1 ? " and more" : ""),
              hint_for_foreign(place));
}

Result<os::FileLock> take(const Place& place, const std::string& what) {
  const auto about = fmt::format("{} (process {}, {})", what, getpid(),
                                 format_utc(std::chrono::system_clock::now()));
  // A killed run's last child has its lock until it becomes another program: worth a moment.
  const auto deadline = Deadline::after(Millis(500));
  while (true) {
    if (!os::exists(place.dir)) {
      ZX_TRY(os::make_directories(place.dir, 0755));
      // umask may have taken away what the servers' user needs.
      if (chmod(place.dir.c_str(), 0755) != 0)
        return fail(errno_error(Code::io, "cannot set the mode of " + place.dir, errno));
    }
    auto lock = os::FileLock::take(place.marker(), about);
    // Whoever removes the lab unlinks the marker last, while it holds the lock: a lock on a file
    // that is gone guards nothing.
    if (lock && os::exists(place.marker())) return lock;
    if (!lock && lock.error().code != Code::locked && os::exists(place.dir))
      return fail(lock.error());
    if (!lock && lock.error().code == Code::locked && deadline.passed()) {
      auto error = lock.error();
      error.message = place.dir + ": " + error.message;
      error.hint = "wait for it to end, then try again";
      error.retryable = true;
      return fail(std::move(error));
    }
    if (deadline.passed()) break;
    pause_for(Millis(20));
  }
  return fail(Code::locked, place.dir + " is being removed", "try again");
}

Result<std::optional<os::User>> server_user() {
  if (geteuid() != 0) return std::optional<os::User>();
  if (auto user = os::user_named("postgres")) return std::optional<os::User>(*std::move(user));
  ZX_ASSIGN(auto user, os::user_named("nobody"));
  return std::optional<os::User>(std::move(user));
}

Status check_reachable(const std::string& dir, const std::optional<os::User>& user) {
  if (!user) return {};
  // Down to the last parent that exists; what is made below it gets a fitting mode.
  std::string path;
  for (const auto& part : fs::path(dir)) {
    path = path.empty() ? part.string() : (fs::path(path) / part).string();
    struct stat found {};
    if (stat(path.c_str(), &found) != 0) break;
    if (can_enter(path, *user)) continue;
    return fail(Code::auth,
                fmt::format("the servers run as {}, who cannot enter {} (mode {:04o})", user->name,
                            path, found.st_mode & 07777),
                fmt::format("chmod o+x {}, or name another directory with --dir", path));
  }
  return {};
}

Result<std::vector<Lab::Member>> read_record(const Place& place) {
  auto text = os::read_file(place.record(), 1 << 20);
  if (!text && text.error().code == Code::not_found)
    return fail(Code::not_found, "there is no finished lab in " + place.dir,
                "make one: zx lab up --dir " + place.dir);
  if (!text) return fail(text.error());
  ZX_ASSIGN(const auto json, parse_json(*text, place.record()));
  std::vector<Lab::Member> members;
  const auto& nodes = get_object(json, "nodes");
  if (nodes.is_array())
    for (const auto& node : nodes)
      members.push_back({get_string(node, "name"), get_string(node, "host"),
                         static_cast<int>(get_int(node, "port"))});
  const bool is_sound =
      !members.empty() && std::all_of(members.begin(), members.end(), [](const auto& m) {
        return is_node_name(m.name) && !m.host.empty() && m.port > 0;
      });
  if (!is_sound)
    return fail(Code::failed, place.record() + " does not describe a lab",
                fmt::format("zx lab down --delete --dir {0}, then zx lab up --dir {0}", place.dir));
  return members;
}

Status write_record(const Place& place, const std::vector<Lab::Member>& members) {
  auto nodes = Json::array();
  for (const auto& member : members)
    nodes.push_back({{"name", member.name}, {"host", member.host}, {"port", member.port}});
  const Json record{{"schema", 1},
                    {"made_at", format_utc(std::chrono::system_clock::now())},
                    {"nodes", std::move(nodes)}};
  os::WriteOptions options;
  options.mode = 0644;
  return os::write_file(place.record(), dump_pretty(record) + "\n", options);
}

Result<int> stop_everything(const Place& place, Deadline deadline) {
  // An immediate shutdown lets the postmaster give back its shared memory; who does not hear it
  // within this time is killed.
  const auto patience = deadline.at_most(Millis(3'000));
  // A server that was just started has not written yet that it is a postmaster, nor where its
  // shared memory is.
  const auto first_moments = deadline.at_most(Millis(1'000));
  std::set<pid_t> seen;
  std::set<pid_t> asked;
  // Looked at twice: a tool in the middle of exec has no command line for an instant.
  for (int quiet = 0; quiet < 2;) {
    ZX_ASSIGN(const auto found, processes_of(place));
    quiet = found.empty() ? quiet + 1 : 0;
    const auto postmasters = postmasters_of(place);
    const auto is_postmaster = [&](const os::FoundProcess& process) {
      return std::find(postmasters.begin(), postmasters.end(), process.pid) != postmasters.end();
    };
    const bool is_one_to_ask = std::any_of(found.begin(), found.end(), is_postmaster);
    for (const auto& process : found) {
      seen.insert(process.pid);
      const bool is_server = process.command == "postgres";
      if (is_redis(process)) {
        // It saves what it has not written to its AOF yet.
        if (patience.passed())
          ::kill(process.pid, SIGKILL);
        else if (asked.insert(process.pid).second)
          ::kill(process.pid, SIGTERM);
      } else if (!is_server || (!is_one_to_ask && first_moments.passed()) || patience.passed()) {
        ::kill(process.pid, SIGKILL);
      } else if (is_postmaster(process) && asked.insert(process.pid).second) {
        ::kill(process.pid, SIGQUIT);
      }
      if (process.state == 'T') ::kill(process.pid, SIGCONT);  // a paused process hears nothing
    }
    if (deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} processes of the lab do not end, one is {} (state {})",
                              found.size(), found.front().pid, found.front().state));
    pause_for(Millis(10));
  }
  release_all_shared_memory(place);
  return static_cast<int>(seen.size());
}

Result<std::vector<std::string>> remove_contents(const Place& place) {
  std::vector<std::string> kept;
  ZX_ASSIGN(auto names, names_in(place.dir));
  // The record first: a lab that is half removed is an unfinished one.
  std::stable_partition(names.begin(), names.end(),
                        [](const auto& name) { return name == "lab.json"; });
  for (const auto& name : names) {
    const auto path = place.dir + "/" + name;
    if (path == place.marker()) continue;
    if (!is_ours(name)) {
      kept.push_back(name);
      continue;
    }
    std::error_code code;
    fs::remove_all(path, code);
    if (code) return fail(fs_error("cannot remove " + path, code));
  }
  return kept;
}

}  // namespace zx::lab
