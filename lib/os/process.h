// Child processes: an argument vector, never a shell string.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"

namespace zx::os {

using Argv = std::vector<std::string>;

// Who a child runs as. Supplementary groups become those of `name`.
struct User {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
};
[[nodiscard]] Result<User> user_named(const std::string& name);
[[nodiscard]] Result<User> user_of_uid(uid_t uid);

struct ProcessOptions {
  std::string input;       // written to stdin, then closed
  std::string input_file;  // empty, or a file whose bytes follow `input`
  // On top of zx's own, of which the name "PG*" takes away all that begin with PG.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string directory;                 // working directory; empty: unchanged
  std::optional<User> user;              // drop to this user; needs root
  Millis deadline{30'000};               // then the child's process group is killed (SIGKILL)
  std::size_t output_limit = 16u << 20;  // bytes kept of stdout and of stderr each
  std::function<bool()> cancelled;       // asked every 50 ms; true kills the child
};

struct ProcessResult {
  int exit = -1;   // exit status; -1 when a signal ended it
  int signal = 0;  // the signal that ended it, or 0
  std::string out;
  std::string err;
  [[nodiscard]] bool ok() const { return exit == 0; }
};

// Runs to the end; killed when zx is. An Error when it could not be started (not_found, auth),
// passed its deadline (timeout) or was cancelled (interrupted); a child that ran and failed is a
// ProcessResult.
[[nodiscard]] Result<ProcessResult> run(const Argv& argv, const ProcessOptions& options);

// The same, but a child that fails is an Error with its last words.
[[nodiscard]] Result<ProcessResult> run_ok(const Argv& argv, const ProcessOptions& options);

// Starts a process of its own session, no child of zx, that outlives zx; stdin is /dev/null, stdout
// and stderr are appended to `log`. Returns its pid.
[[nodiscard]] Result<pid_t> spawn_detached(const Argv& argv, const ProcessOptions& options,
                                           const std::string& log);

// This program's own file.
[[nodiscard]] std::string self_path();

// The state letter of /proc/PID/stat: R S D T Z …; absent when there is no such process.
[[nodiscard]] std::optional<char> process_state(pid_t pid);
// Killed, or at its end by itself, and not yet a zombie: it has given back its memory, files and
// directory, or is about to.
[[nodiscard]] bool is_exiting(pid_t pid);
// There, and not a zombie.
[[nodiscard]] bool is_running(pid_t pid);

// Processes whose working directory is the directory `path` (compared by device and inode, so that
// links do not matter). PostgreSQL's postmaster and all its children stay in the data directory.
struct FoundProcess {
  pid_t pid = 0;
  char state = '?';  // of /proc/PID/stat: R S D T Z …
  std::string command;
};
[[nodiscard]] Result<std::vector<FoundProcess>> processes_in(const std::string& path);

}  // namespace zx::os
