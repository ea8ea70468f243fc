// Private to this room: how a child gets from fork to exec.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "lib/os/files.h"
#include "lib/os/process.h"

namespace zx::os {

struct Pipe {
  Descriptor read, write;
};
[[nodiscard]] Result<Pipe> make_pipe();

// Everything the child needs is prepared before fork: between fork and exec only
// async-signal-safe calls are allowed, as other threads may hold locks.
struct Prepared {
  std::vector<char*> argv;
  std::vector<std::string> environment_text;
  std::vector<char*> environment;
  std::vector<gid_t> groups;
};
[[nodiscard]] Result<Prepared> prepare(const Argv& argv, const ProcessOptions& options);

// How far the child came.
enum class StartStep : int { none, fork, user, directory, program };
struct StartFailure {
  int number = 0;  // errno
  StartStep step = StartStep::none;
  explicit operator bool() const { return step != StartStep::none; }
};

// In the child. Tells errno to `report`, a pipe that closes at exec.
[[noreturn]] void child_fails(int report, StartStep step);
// `parent`: the child ends with it; 0: it outlives zx.
[[noreturn]] void become(const Prepared& prepared, const ProcessOptions& options, const Argv& argv,
                         int report, pid_t parent);

// A child of zx, in a process group of its own, that ends with the thread that called this.
struct PipedChild {
  pid_t pid;
  Descriptor in, out, err;
};
[[nodiscard]] Result<PipedChild> start_piped(const Argv& argv, const ProcessOptions& options);

[[nodiscard]] Error start_error(const std::string& program, const ProcessOptions& options,
                                const StartFailure& failure);
// Nothing when the child reached exec.
[[nodiscard]] StartFailure read_report(int descriptor);

}  // namespace zx::os
