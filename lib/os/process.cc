#include "lib/os/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <sstream>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/process_start.h"

namespace zx::os {
namespace {

void drain(Descriptor& from, std::string& to, std::size_t limit) {
  std::array<char, 65536> buffer;
  const auto got = read(from.get(), buffer.data(), buffer.size());
  if (got > 0) {
    const auto room = limit > to.size() ? limit - to.size() : 0;
    to.append(buffer.data(), std::min(room, static_cast<std::size_t>(got)));
  } else if (got == 0 || (errno != EINTR && errno != EAGAIN)) {
    from.close();
  }
}

// What a child reads: a text, and then a file piece by piece.
class Input {
 public:
  static Result<Input> of(const ProcessOptions& options) {
    Descriptor file;
    if (!options.input_file.empty()) {
      file = Descriptor(open(options.input_file.c_str(), O_RDONLY | O_CLOEXEC));
      if (!file)
        return fail(errno_error(errno == ENOENT ? Code::not_found : Code::io,
                                "cannot read " + options.input_file, errno));
    }
    return Input(options.input, std::move(file));
  }
  // Nothing is left; the next piece is read when it is asked for.
  [[nodiscard]] bool has_ended() {
    if (written_ < text_.size()) return false;
    while (file_) {
      constexpr std::size_t kPiece = 1u << 18;
      text_.resize(kPiece);
      written_ = 0;
      const auto got = read(file_.get(), text_.data(), text_.size());
      text_.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
      if (got > 0) return false;
      if (got < 0 && errno == EINTR) continue;
      problem_ = got < 0 ? errno : 0;
      file_.close();
    }
    return true;
  }
  void feed(Descriptor& to) {
    const auto put = write(to.get(), text_.data() + written_, text_.size() - written_);
    if (put > 0) written_ += static_cast<std::size_t>(put);
    const bool gone = put < 0 && errno != EINTR && errno != EAGAIN;
    if (gone || has_ended()) to.close();
  }
  [[nodiscard]] int problem() const { return problem_; }  // errno of the file; 0: none

 private:
  Input(std::string text, Descriptor file) : text_(std::move(text)), file_(std::move(file)) {}
  std::string text_;
  Descriptor file_;
  std::size_t written_ = 0;
  int problem_ = 0;
};

}  // namespace

Result<User> user_named(const std::string& name) {
  errno = 0;
  if (const passwd* entry = getpwnam(name.c_str())) return User{name, entry->pw_uid, entry->pw_gid};
  return fail(Code::not_found, "no user named " + name + " on this host");
}

Result<User> user_of_uid(uid_t uid) {
  errno = 0;
  if (const passwd* entry = getpwuid(uid))
    return User{entry->pw_name, entry->pw_uid, entry->pw_gid};
  return fail(Code::not_found, fmt::format("no user with uid {} on this host", uid));
}

Result<ProcessResult> run(const Argv& argv, const ProcessOptions& options) {
  const auto deadline = Deadline::after(options.deadline);
  ZX_ASSIGN(auto input, Input::of(options));
  ZX_ASSIGN(auto child, start_piped(argv, options));
  fcntl(child.in.get(), F_SETFL, O_NONBLOCK);
  ProcessResult result;
  if (input.has_ended()) child.in.close();

  const auto kill_group = [&] {
    kill(-child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
  };
  // The child may close its output and live on, or die and leave its output to a grandchild:
  // the end is the child's exit, after which what is already in the pipes is read.
  bool exited = false;
  int status = 0;
  while (true) {
    if (!exited) {
      const pid_t reaped = waitpid(child.pid, &status, WNOHANG);
      exited = reaped == child.pid || (reaped < 0 && errno != EINTR);
    }
    if (deadline.passed()) {
      if (!exited) kill_group();
      if (!exited)
        return fail(Code::timeout, fmt::format("{} did not end within {}", argv.front(),
                                               format_duration(options.deadline)));
      break;
    }
    if (options.cancelled && options.cancelled()) {
      if (!exited) kill_group();
      return fail(Code::interrupted, argv.front() + " was interrupted");
    }
    std::array<pollfd, 3> watched{};
    nfds_t count = 0;
    const auto watch = [&](const Descriptor& d, short events) {
      if (d) watched[count++] = pollfd{d.get(), events, 0};
    };
    watch(child.out, POLLIN);
    watch(child.err, POLLIN);
    watch(child.in, POLLOUT);
    if (exited && !child.out && !child.err) break;
    // Both outputs end when the child does; the short wait is for a child that closed them early.
    const int wait = exited ? 0 : (child.out || child.err) ? 50 : 2;
    const int ready =
        poll(watched.data(), count, std::min<int>(wait, static_cast<int>(deadline.left().count())));
    if (exited && ready == 0) break;
    for (nfds_t i = 0; i < count; ++i) {
      if (watched[i].revents == 0) continue;
      if (watched[i].fd == child.in.get())
        input.feed(child.in);
      else if (watched[i].fd == child.out.get())
        drain(child.out, result.out, options.output_limit);
      else
        drain(child.err, result.err, options.output_limit);
    }
  }
  if (input.problem() != 0)
    return fail(errno_error(Code::io, "cannot read " + options.input_file, input.problem()));
  if (WIFEXITED(status)) result.exit = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  return result;
}

Result<ProcessResult> run_ok(const Argv& argv, const ProcessOptions& options) {
  ZX_ASSIGN(auto result, run(argv, options));
  if (result.ok()) return result;
  auto words = std::string(trim(result.err.empty() ? result.out : result.err));
  if (const auto newline = words.rfind('\n'); newline != std::string::npos)
    words = words.substr(newline + 1);
  const auto how = result.signal != 0 ? fmt::format("was killed by signal {}", result.signal)
                                      : fmt::format("ended with status {}", result.exit);
  return fail(Code::failed, fmt::format("{} {}{}{}", argv.front(), how, words.empty() ? "" : ": ",
                                        clean_utf8(words)));
}

Result<pid_t> spawn_detached(const Argv& argv, const ProcessOptions& options,
                             const std::string& log) {
  ZX_ASSIGN(auto prepared, prepare(argv, options));
  // A caller's $PGPASSWORD would win over the passfile that a standby follows with.
  std::erase_if(prepared.environment, [](const char* variable) {
    return variable != nullptr && std::string_view(variable).starts_with("PG");
  });
  ZX_ASSIGN(auto report, make_pipe());
  const Descriptor output(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!output) return fail(errno_error(Code::io, "cannot open " + log, errno));
  const Descriptor input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ZX_ASSIGN(auto number, make_pipe());
  const pid_t between = fork();
  if (between < 0) return fail(errno_error(Code::io, "cannot fork", errno));
  if (between == 0) {
    // Not a child of zx: a long-lived zx would keep it as a zombie once it is killed.
    const pid_t pid = fork();
    if (pid < 0) child_fails(report.write.get(), StartStep::fork);
    if (pid > 0) {
      (void)!write(number.write.get(), &pid, sizeof pid);
      _exit(0);
    }
    setsid();
    dup2(input.get(), 0);
    dup2(output.get(), 1);
    dup2(output.get(), 2);
    become(prepared, options, argv, report.write.get(), 0);
  }
  report.write.close();
  number.write.close();
  while (waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (const auto failure = read_report(report.read.get()))
    return fail(start_error(argv.front(), options, failure));
  pid_t pid = 0;
  if (read(number.read.get(), &pid, sizeof pid) != sizeof pid)
    return fail(Code::internal, "the process between zx and " + argv.front() + " was lost");
  return pid;
}

std::string self_path() {
  std::array<char, PATH_MAX> buffer{};
  const auto length = readlink("/proc/self/exe", buffer.data(), buffer.size());
  return length > 0 ? std::string(buffer.data(), static_cast<std::size_t>(length)) : "zx";
}

namespace {

struct Stat {
  std::string command;
  char state;
  unsigned long flags;
};
// The command is in parentheses and may itself hold any character.
std::optional<Stat> read_stat(const std::string& pid) {
  const auto text = read_file("/proc/" + pid + "/stat", 4096);
  if (!text) return std::nullopt;
  const auto open = text->find('(');
  const auto close = text->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 2 >= text->size())
    return std::nullopt;
  Stat stat{text->substr(open + 1, close - open - 1), '?', 0};
  std::istringstream rest(text->substr(close + 1));
  long parent, group, session, terminal, foreground;
  rest >> stat.state >> parent >> group >> session >> terminal >> foreground >> stat.flags;
  if (!rest) return std::nullopt;
  return stat;
}

}  // namespace

std::optional<char> process_state(pid_t pid) {
  const auto stat = read_stat(std::to_string(pid));
  if (!stat) return std::nullopt;
  return stat->state;
}

bool is_exiting(pid_t pid) {
  constexpr unsigned long kExiting = 0x4;  // PF_EXITING of the kernel's sched.h
  const auto stat = read_stat(std::to_string(pid));
  return stat && stat->state != 'Z' && (stat->flags & kExiting) != 0;
}

bool is_running(pid_t pid) {
  const auto state = process_state(pid);
  return state && *state != 'Z';
}

Result<std::vector<FoundProcess>> processes_in(const std::string& path) {
  struct stat wanted {};
  if (stat(path.c_str(), &wanted) != 0)
    return fail(errno_error(Code::io, "cannot look at " + path, errno));
  DIR* proc = opendir("/proc");
  if (proc == nullptr) return fail(errno_error(Code::io, "cannot list /proc", errno));
  std::vector<FoundProcess> found;
  while (const dirent* entry = readdir(proc)) {
    const std::string name = entry->d_name;
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    struct stat cwd {};
    if (stat(("/proc/" + name + "/cwd").c_str(), &cwd) != 0) continue;  // gone, or not ours to see
    if (cwd.st_dev != wanted.st_dev || cwd.st_ino != wanted.st_ino) continue;
    FoundProcess process;
    process.pid = static_cast<pid_t>(std::stol(name));
    if (auto stat = read_stat(name)) {
      process.command = std::move(stat->command);
      process.state = stat->state;
    }
    if (process.state != 'Z') found.push_back(process);  // a zombie holds nothing any more
  }
  closedir(proc);
  return found;
}

}  // namespace zx::os
