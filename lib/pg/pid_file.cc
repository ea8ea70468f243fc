#include "lib/pg/pid_file.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <sstream>

#include "lib/base/clock.h"
#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/process.h"

namespace zx::pg {
std::optional<PidFile> parse_pid_file(std::string_view text) {
  // pid, data directory, start time, port, socket directory, address, "key id", state
  auto lines = split(text, '\n');
  lines.resize(8);
  const auto read = [&](std::size_t line, auto&... to) {
    std::istringstream in(lines[line]);
    (in >> ... >> to);
  };
  PidFile file;
  read(0, file.pid);
  if (file.pid == 0) return std::nullopt;
  file.data_dir = lines[1];
  read(2, file.started);
  read(3, file.port);
  file.listen = trim(lines[5]);
  if (!trim(lines[6]).empty()) read(6, file.shared_memory_key, file.shared_memory_id);
  const auto state = trim(lines[7]);
  file.is_ready = state == "ready" || state == "standby";
  return file;
}

std::optional<PidFile> read_pid_file(const std::string& data_dir) {
  const auto text = os::read_file(data_dir + "/postmaster.pid", 65536);
  return text ? parse_pid_file(*text) : std::nullopt;
}

void release_shared_memory(const PidFile& file) {
  if (file.shared_memory_id < 0 || file.shared_memory_key == 0) return;
  shmid_ds found{};
  if (shmctl(file.shared_memory_id, IPC_STAT, &found) != 0) return;
  const bool is_same = found.shm_perm.__key == static_cast<key_t>(file.shared_memory_key);
  if (is_same && found.shm_nattch == 0) shmctl(file.shared_memory_id, IPC_RMID, nullptr);
}

Status drop_pid_file_of_zombie(const std::string& data_dir) {
  const auto file = read_pid_file(data_dir);
  // It has left its directory already, and has its number still.
  constexpr Millis kExit{2'000};
  const auto deadline = Deadline::after(kExit);
  while (file && os::is_exiting(file->pid) && !deadline.passed()) pause_for(Millis(1));
  if (!file || os::process_state(file->pid) != 'Z') return {};
  release_shared_memory(*file);
  return os::remove_file(data_dir + "/postmaster.pid");
}

}  // namespace zx::pg
