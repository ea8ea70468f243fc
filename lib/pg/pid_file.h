// DATA/postmaster.pid (src/include/utils/pidfile.h). It survives a crash: its process need not
// exist, or be another by now.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace zx::pg {

struct PidFile {
  pid_t pid = 0;  // negative: no postmaster, a single server process such as initdb's
  std::string data_dir;
  std::int64_t started = 0;  // seconds since the epoch
  int port = 0;              // 0: not there yet
  std::string listen;        // the first address that it listens on, "*", or empty
  unsigned long shared_memory_key = 0;
  int shared_memory_id = -1;
  bool is_ready = false;  // accepts connections, or would if hot_standby were on
};
// Lines that are not written yet leave their defaults. Absent: without a number of a process.
[[nodiscard]] std::optional<PidFile> parse_pid_file(std::string_view text);
[[nodiscard]] std::optional<PidFile> read_pid_file(const std::string& data_dir);

// The segment that a killed server left, when it is still that server's and nobody is attached. A
// start of the same data directory would do it too, but the directory may be about to go.
void release_shared_memory(const PidFile& file);

// A killed postmaster has its number until it has exited, and where init is slow to reap, or a
// container has none, as a zombie; PostgreSQL takes the number in postmaster.pid for a running
// server. Waits for the first, a moment. Only for a directory without processes.
[[nodiscard]] Status drop_pid_file_of_zombie(const std::string& data_dir);

}  // namespace zx::pg
