#include "lib/os/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "lib/os/process_start.h"

namespace zx::os {

Result<Child> Child::start(const Argv& argv, const ProcessOptions& options,
                           const std::string& log) {
  ZX_ASSIGN(auto prepared, prepare(argv, options));
  ZX_ASSIGN(auto report, make_pipe());
  const Descriptor output(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!output) return fail(errno_error(Code::io, "cannot open " + log, errno));
  const Descriptor input(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!input) return fail(errno_error(Code::io, "cannot open /dev/null", errno));
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return fail(errno_error(Code::io, "cannot fork", errno));
  if (pid == 0) {
    setpgid(0, 0);
    dup2(input.get(), 0);
    dup2(output.get(), 1);
    dup2(output.get(), 2);
    become(prepared, options, argv, report.write.get(), parent);
  }
  report.write.close();
  if (const auto failure = read_report(report.read.get())) {
    waitpid(pid, nullptr, 0);
    return fail(start_error(argv.front(), options, failure));
  }
  return Child(pid);
}

std::optional<ProcessResult> Child::ended() {
  if (ended_ || pid_ == 0) return ended_;
  int status = 0;
  const pid_t reaped = waitpid(pid_, &status, WNOHANG);
  if (reaped == 0 || (reaped < 0 && errno == EINTR)) return std::nullopt;
  ProcessResult result;
  if (reaped == pid_ && WIFEXITED(status)) result.exit = WEXITSTATUS(status);
  if (reaped == pid_ && WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  ended_ = std::move(result);
  return ended_;
}

void Child::end() {
  if (pid_ == 0) return;
  if (!ended()) {
    kill(-pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  pid_ = 0;
}

}  // namespace zx::os
