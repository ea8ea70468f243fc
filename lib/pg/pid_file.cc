#include "lib/pg/pid_file.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <sstream>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/process.h"

namespace zx::pg {
std::optional<PidFile> read_pid_file(const std::string& data_dir) {
  const auto text = os::read_file(data_dir + "/postmaster.pid", 65536);
  if (!text) return std::nullopt;
  // pid, data directory, start time, port, socket directory, address, "key id", state
  const auto lines = split(*text, '\n');
  PidFile file;
  std::istringstream(lines[0]) >> file.pid;
  if (file.pid == 0) return std::nullopt;
  if (lines.size() > 3) std::istringstream(lines[3]) >> file.port;
  if (lines.size() > 6)
    std::istringstream(lines[6]) >> file.shared_memory_key >> file.shared_memory_id;
  const auto state = lines.size() > 7 ? trim(lines[7]) : std::string_view();
  file.is_ready = state == "ready" || state == "standby";
  return file;
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
  if (!file || os::process_state(file->pid) != 'Z') return {};
  release_shared_memory(*file);
  return os::remove_file(data_dir + "/postmaster.pid");
}

}  // namespace zx::pg
