#include "lib/pg/throwaway.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <vector>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/child.h"
#include "lib/os/file_lock.h"
#include "lib/os/files.h"
#include "lib/os/signals.h"
#include "lib/pg/pid_file.h"

namespace zx::pg {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "pg-throwaway-";
constexpr std::size_t kLongestSocket = 107;
constexpr int kPort = 5432;  // of the socket's name only
constexpr Millis kLook{5};
constexpr Millis kGoodbye{3'000};
constexpr std::time_t kAbandoned = 3'600;  // s: a directory that never came to have a lock

// Of a configuration file, or of a list in it.
std::string in_quotes(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

std::string config_of(const ThrowawayOptions& options, const std::string& sockets) {
  // unix_socket_directories is a list: its items are quoted as identifiers.
  std::string item = "\"";
  for (const char c : sockets) item += c == '"' ? std::string("\"\"") : std::string(1, c);
  item += '"';
  return fmt::format(
      "listen_addresses = ''\n"
      "port = {}\n"
      "unix_socket_directories = {}\n"
      "unix_socket_permissions = 0700\n"
      "max_connections = {}\n"
      "superuser_reserved_connections = 0\n"
      "shared_buffers = {}kB\n"
      "maintenance_work_mem = {}kB\n"
      // A load in one transaction locks every table and index of a database.
      "max_locks_per_transaction = 2048\n"
      // Nothing of these two stays behind when it is killed.
      "shared_memory_type = mmap\n"
      "dynamic_shared_memory_type = mmap\n"
      "fsync = off\n"
      "full_page_writes = off\n"
      "synchronous_commit = off\n"
      "wal_level = minimal\n"
      "max_wal_senders = 0\n"
      "max_wal_size = 4GB\n"
      "checkpoint_timeout = 1d\n"
      "bgwriter_lru_maxpages = 0\n"
      "autovacuum = off\n"
      "jit = off\n"
      // A backend at work on a long statement notices that zx was killed.
      "client_connection_check_interval = 500ms\n"
      "restart_after_crash = off\n"
      "logging_collector = off\n"
      "log_destination = stderr\n"
      "log_line_prefix = ''\n"
      "log_checkpoints = off\n"
      "lc_messages = 'C'\n",
      kPort, in_quotes(item), options.connections, options.shared_buffers >> 10,
      options.maintenance_work_mem >> 10);
}

// "server process (PID 4711) was terminated by signal 9: Killed", of its last crash.
std::string crash_in(const std::string& text) {
  const auto at = text.rfind(" was terminated by signal ");
  if (at == std::string::npos) return {};
  const auto line = first_line(std::string_view(text).substr(text.rfind('\n', at) + 1));
  return line.starts_with("LOG:") ? std::string(trim(line.substr(4))) : std::string();
}

// What it said last that is a complaint.
std::string last_complaint(const std::string& text) {
  std::vector<std::string> words;
  for (const auto& line : split(text, '\n'))
    for (const char* level : {"FATAL:", "PANIC:", "ERROR:", "initdb: error:", "postgres: "})
      if (line.starts_with(level)) {
        words.push_back(first_line(line));
        break;
      }
  if (words.size() > 2) words.erase(words.begin(), words.end() - 2);
  return join(words, "; ");
}
std::string last_words(const std::string& log) {
  const auto text = os::read_file(log);
  if (!text) return {};
  // It ends with its backend; whatever was said before is of other things.
  auto crash = crash_in(*text);
  return crash.empty() ? last_complaint(*text) : crash;
}

// Processes whose server or whose zx was killed. The directory is private: only servers stand in
// it, and perhaps a person's shell.
void kill_servers_in(const std::string& data) {
  const auto soon = Deadline::after(kGoodbye);
  while (true) {
    const auto found = os::processes_in(data);
    if (!found) return;
    int servers = 0;
    for (const auto& one : *found) {
      if (one.command != "postgres" && one.command != "initdb") continue;
      ++servers;
      kill(one.pid, SIGKILL);
    }
    if (servers == 0 || soon.passed()) return;
    pause_for(kLook);
  }
}

void remove_all_of(const std::string& directory) {
  const auto data = directory + "/data";
  kill_servers_in(data);
  // A killed server leaves a segment of a few bytes, whatever its shared memory is made of.
  if (const auto file = read_pid_file(data)) release_shared_memory(*file);
  // Whoever was ended just now may still have written. The lock goes last: without it nobody would
  // know, later, that what is left may be removed.
  const auto is_cleared = [&] {
    std::error_code failed;
    bool is_empty = true;
    for (const auto& entry : fs::directory_iterator(directory, failed)) {
      if (entry.path().filename() == "lock") continue;
      fs::remove_all(entry.path(), failed);
      is_empty = is_empty && !failed;
    }
    return is_empty;
  };
  const auto soon = Deadline::after(kGoodbye);
  while (!is_cleared()) {
    if (soon.passed()) return;
    pause_for(kLook);
    kill_servers_in(data);
  }
  std::error_code ignored;
  fs::remove_all(directory, ignored);
}

// Of oneself and no link: in /var/tmp anybody can make anything.
bool is_own_directory(const std::string& path, struct stat& found) {
  return lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

Status give(const std::string& path, const std::optional<os::User>& user) {
  if (mkdir(path.c_str(), 0700) != 0)
    return fail(errno_error(Code::io, "cannot make the directory " + path, errno));
  if (user && chown(path.c_str(), user->uid, user->gid) != 0)
    return fail(errno_error(Code::io, "cannot give away " + path, errno));
  return {};
}

bool can_enter(const std::string& path, const std::optional<os::User>& user) {
  os::ProcessOptions options;
  options.user = user;
  options.directory = path;
  return os::run_ok({"/bin/true"}, options).has_value();
}

}  // namespace

Result<std::optional<os::User>> server_user() {
  if (geteuid() != 0) return std::optional<os::User>();
  if (auto user = os::user_named("postgres")) return std::optional<os::User>(*std::move(user));
  ZX_ASSIGN(auto user, os::user_named("nobody"));
  return std::optional<os::User>(std::move(user));
}

Status check_enterable(const std::string& path, const std::optional<os::User>& user) {
  if (!user || can_enter(path, user)) return {};
  std::string at;
  for (const auto& part : fs::absolute(path)) {
    at = at.empty() ? part.string() : (fs::path(at) / part).string();
    struct stat found {};
    if (stat(at.c_str(), &found) != 0)
      return fail(errno_error(Code::io, "cannot look at " + at, errno));
    if (!can_enter(at, user))
      return fail(Code::auth,
                  fmt::format("a private server runs as {}, who cannot enter {} (mode {:04o})",
                              user->name, at, found.st_mode & 07777),
                  fmt::format("chmod o+x {}, or name another directory: backup.scratch", at));
  }
  return {};
}

void sweep_throwaways(const std::string& base) {
  std::error_code failed;
  std::vector<std::string> found;
  for (fs::directory_iterator entry(base, failed), end; !failed && entry != end;
       entry.increment(failed))
    if (entry->path().filename().string().starts_with(kPrefix))
      found.push_back(entry->path().string());
  for (const auto& path : found) {
    struct stat at {};
    if (!is_own_directory(path, at)) continue;
    if (!os::exists(path + "/lock")) {  // another is just making it, or was killed then
      if (std::time(nullptr) - at.st_mtime > kAbandoned) (void)rmdir(path.c_str());
      continue;
    }
    if (const auto lock = os::FileLock::take(path + "/lock", "sweep")) remove_all_of(path);
  }
}

struct Throwaway::Impl {
  ThrowawayOptions options;
  std::optional<os::User> user;
  std::string directory;
  std::optional<os::FileLock> lock;
  std::optional<os::Child> child;

  ~Impl() {
    end();
    if (!directory.empty()) remove_all_of(directory);
  }
  [[nodiscard]] std::string data() const { return directory + "/data"; }
  [[nodiscard]] std::string sockets() const { return directory + "/run"; }
  [[nodiscard]] std::string log() const { return directory + "/log"; }

  // Its children are in sessions of their own: it ends them itself when it is asked to, at once.
  void end() {
    if (!child) return;
    if (!child->ended()) kill(child->pid(), SIGQUIT);
    const auto soon = Deadline::after(kGoodbye);
    while (!child->ended() && !soon.passed()) pause_for(kLook);
    child.reset();
  }

  Status make_directory() {
    const auto& base = options.base;
    ZX_TRY(os::make_directories(base, 0711));
    ZX_TRY(check_enterable(base, user));
    sweep_throwaways(base);
    std::string pattern = base + "/" + kPrefix + "XXXXXX";
    if (pattern.size() + std::string_view("/run/.s.PGSQL.5432").size() > kLongestSocket)
      return fail(Code::config, "the path of " + base + " is too long for a Unix socket in it",
                  "name a directory with a shorter path: backup.scratch");
    if (mkdtemp(pattern.data()) == nullptr)  // mode 0700
      return fail(errno_error(Code::io, "cannot make a directory in " + base, errno));
    directory = pattern;
    ZX_ASSIGN(lock, os::FileLock::take(directory + "/lock", "a throwaway PostgreSQL server"));
    if (user && chmod(directory.c_str(), 0711) != 0)
      return fail(errno_error(Code::io, "cannot set the mode of " + directory, errno));
    ZX_TRY(give(data(), user));
    return give(sockets(), user);
  }

  // The server's programs; a caller's $PGPORT and the like are not for them.
  os::ProcessOptions in_data() const {
    os::ProcessOptions running;
    running.environment = {{"PG*", ""}};
    running.user = user;
    running.directory = data();
    return running;
  }

  Status make_cluster(Deadline deadline) const {
    auto running = in_data();
    running.deadline = deadline.left();
    running.cancelled = [] { return os::interrupted(); };
    const auto made =
        os::run({options.bin_dir + "/initdb", "-D", data(), "-U", options.superuser, "-A", "trust",
                 "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"},
                running);
    if (!made) {
      auto error = made.error();
      if (const auto signal = os::interruption()) return fail(*signal);
      if (error.code == Code::not_found)
        error.hint =
            "a restore for a look needs PostgreSQL's server on this host; bin_dir of the "
            "cluster says where it is";
      return fail(std::move(error));
    }
    if (!made->ok()) {
      const auto words = last_complaint(made->err);
      return fail(Code::failed, fmt::format("{}/initdb: {}", options.bin_dir,
                                            words.empty() ? first_line(made->err) : words));
    }
    os::WriteOptions writing;
    writing.durable = false;
    if (user) writing.owner = os::Owner{user->uid, user->gid};
    return os::write_file(data() + "/postgresql.conf", config_of(options, sockets()), writing);
  }

  Status alive() {
    const auto ended = child->ended();
    if (!ended) return {};
    const auto words = last_words(log());
    const auto how = ended->signal != 0 ? fmt::format("it was killed by signal {}", ended->signal)
                                        : fmt::format("it ended with status {}", ended->exit);
    return fail(Code::failed,
                "the private PostgreSQL server is gone: " + (words.empty() ? how : words),
                ended->signal == SIGKILL || words.find("by signal 9") != std::string::npos
                    ? "this host has too little memory, perhaps"
                    : "");
  }
  Status alive_until(Deadline deadline) {
    while (true) {
      ZX_TRY(alive());
      if (deadline.passed() || os::interruption()) return {};
      pause_for(kLook);
    }
  }

  Status wait_ready(const Target& target, Deadline deadline) {
    while (true) {
      ZX_TRY(alive());
      if (const auto signal = os::interruption()) return fail(*signal);
      auto client = Client::open(target, deadline.at_most(Millis(1000)));
      if (client && client->query("SELECT 1", deadline.at_most(Millis(1000)))) return {};
      if (deadline.passed()) {
        const auto words = last_words(log());
        return fail(Code::timeout, "the private PostgreSQL server did not come up in time" +
                                       (words.empty() ? "" : ": " + words));
      }
      pause_for(kLook);
    }
  }
};

Throwaway::Throwaway(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Throwaway::Throwaway(Throwaway&&) noexcept = default;
Throwaway::~Throwaway() = default;

Result<Throwaway> Throwaway::start(const ThrowawayOptions& options, Deadline deadline) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  ZX_ASSIGN(impl->user, server_user());
  ZX_TRY(impl->make_directory());
  ZX_TRY(impl->make_cluster(deadline));
  const auto running = impl->in_data();
  ZX_ASSIGN(impl->child, os::Child::start({options.bin_dir + "/postgres", "-D", impl->data()},
                                          running, impl->log()));
  Throwaway started(std::move(impl));
  ZX_TRY(started.impl_->wait_ready(started.target(), deadline));
  return started;
}

Target Throwaway::target(const std::string& database) const {
  Target target;
  target.name = "the private PostgreSQL server";
  target.address = impl_->sockets();
  target.port = kPort;
  target.user = impl_->options.superuser;
  target.database = database;
  target.sslmode = "disable";
  return target;
}

Status Throwaway::alive() { return impl_->alive(); }
Status Throwaway::alive_until(Deadline deadline) { return impl_->alive_until(deadline); }
const std::string& Throwaway::directory() const { return impl_->directory; }
pid_t Throwaway::pid() const { return impl_->child->pid(); }

}  // namespace zx::pg
