#include "lib/os/process_start.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

namespace zx::os {

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0)
    return fail(errno_error(Code::io, "cannot make a pipe", errno));
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

namespace {

bool is_pattern(std::string_view name) { return name.ends_with('*'); }

bool is_replaced(const ProcessOptions& options, std::string_view name) {
  return std::any_of(options.environment.begin(), options.environment.end(), [&](const auto& one) {
    const std::string_view key = one.first;
    return is_pattern(key) ? name.starts_with(key.substr(0, key.size() - 1)) : key == name;
  });
}

}  // namespace

Result<Prepared> prepare(const Argv& argv, const ProcessOptions& options) {
  if (argv.empty() || argv.front().empty()) return fail(Code::config, "an empty command");
  Prepared prepared;
  for (const auto& word : argv) prepared.argv.push_back(const_cast<char*>(word.c_str()));
  prepared.argv.push_back(nullptr);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!is_replaced(options, text.substr(0, text.find('='))))
      prepared.environment_text.emplace_back(text);
  }
  for (const auto& [key, value] : options.environment)
    if (!is_pattern(key)) prepared.environment_text.push_back(key + "=" + value);
  for (auto& text : prepared.environment_text) prepared.environment.push_back(text.data());
  prepared.environment.push_back(nullptr);
  if (options.user) {
    int count = 64;
    prepared.groups.resize(static_cast<std::size_t>(count));
    if (getgrouplist(options.user->name.c_str(), options.user->gid, prepared.groups.data(),
                     &count) < 0)
      return fail(Code::auth, "cannot list the groups of user " + options.user->name);
    prepared.groups.resize(static_cast<std::size_t>(count));
  }
  return prepared;
}

void child_fails(int report, StartStep step) {
  const StartFailure failure{errno, step};
  (void)!write(report, &failure, sizeof failure);
  _exit(127);
}

void become(const Prepared& prepared, const ProcessOptions& options, const Argv& argv, int report,
            pid_t parent) {
  if (options.user && geteuid() == 0) {
    if (setgroups(prepared.groups.size(), prepared.groups.data()) != 0 ||
        setgid(options.user->gid) != 0 || setuid(options.user->uid) != 0)
      child_fails(report, StartStep::user);
  }
  // After the change of user, which would take it back. A pg_rewind whose zx was killed must not go
  // on writing into what a resume or a rebuild makes of the directory.
  if (parent != 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
    child_fails(report, StartStep::fork);
  // What outlives zx must not hold the locks and pipes of whoever called it.
  if (parent == 0 && close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0)
    child_fails(report, StartStep::fork);
  if (!options.directory.empty() && chdir(options.directory.c_str()) != 0)
    child_fails(report, StartStep::directory);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGQUIT}) signal(number, SIG_DFL);
  execvpe(argv.front().c_str(), prepared.argv.data(), prepared.environment.data());
  child_fails(report, StartStep::program);
}

Error start_error(const std::string& program, const ProcessOptions& options,
                  const StartFailure& failure) {
  auto what = "cannot run " + program;
  if (failure.step == StartStep::program && failure.number == ENOENT)
    return Error{Code::not_found, what + ": no such program", {}, {}, false};
  if (failure.step == StartStep::user) what += " as " + options.user->name;
  if (failure.step == StartStep::directory) {
    what += " in " + options.directory;
    if (options.user) what += " as " + options.user->name;
  }
  const bool denied = failure.number == EACCES || failure.number == EPERM;
  return errno_error(denied ? Code::auth : Code::io, what, failure.number);
}

StartFailure read_report(int descriptor) {
  StartFailure failure;
  ssize_t got = 0;
  do {
    got = read(descriptor, &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  return got == sizeof failure ? failure : StartFailure{};
}

Result<PipedChild> start_piped(const Argv& argv, const ProcessOptions& options) {
  ZX_ASSIGN(auto prepared, prepare(argv, options));
  ZX_ASSIGN(auto in, make_pipe());
  ZX_ASSIGN(auto out, make_pipe());
  ZX_ASSIGN(auto err, make_pipe());
  ZX_ASSIGN(auto report, make_pipe());
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return fail(errno_error(Code::io, "cannot fork", errno));
  if (pid == 0) {
    setpgid(0, 0);
    dup2(in.read.get(), 0);
    dup2(out.write.get(), 1);
    dup2(err.write.get(), 2);
    become(prepared, options, argv, report.write.get(), parent);
  }
  report.write.close();
  if (const auto failure = read_report(report.read.get())) {
    waitpid(pid, nullptr, 0);
    return fail(start_error(argv.front(), options, failure));
  }
  return PipedChild{pid, std::move(in.write), std::move(out.read), std::move(err.read)};
}

}  // namespace zx::os
