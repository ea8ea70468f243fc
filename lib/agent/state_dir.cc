#include "lib/agent/state_dir.h"

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "lib/base/units.h"
#include "lib/coord/lock.h"
#include "lib/os/files.h"
#include "lib/run/journal.h"

namespace zx::agent {

Room room_in(const std::string& directory) {
  Room room;
  struct statvfs found {};
  if (statvfs(directory.c_str(), &found) != 0) {
    room.warning = errno_error(Code::io, "cannot look at the disk of " + directory, errno).message;
    return room;
  }
  // Some blocks are kept for root.
  const auto blocks = geteuid() == 0 ? found.f_bfree : found.f_bavail;
  room.free = std::uint64_t{blocks} * found.f_frsize;
  if (*room.free < run::kJournalRoom)
    room.warning = fmt::format(
        "the disk of {} is full: {} are free, the journal of a failover takes {}; free space there",
        directory, format_bytes(*room.free), format_bytes(run::kJournalRoom));
  return room;
}

Lost what_is_lost(const std::string& state_dir, const std::string& socket, bool by_files,
                  const coord::Standing& standing, std::optional<LockFile>& held) {
  Lost lost;
  lost.has_socket = os::exists(socket);
  if (!by_files) return lost;
  lost.has_coordination =
      os::is_directory(state_dir + "/locks") && os::is_directory(state_dir + "/shared");
  if (standing.role != coord::Standing::Role::leader) {
    held.reset();
    return lost;
  }
  // Who leads and finds the lock free, or another file in its place, does not hold it any more.
  struct stat file {};
  const auto path = state_dir + "/locks/agent.lock";
  const bool is_there = stat(path.c_str(), &file) == 0;
  const LockFile found{file.st_dev, file.st_ino};
  if (!is_there || (held && *held != found) || coord::is_free(state_dir, "agent"))
    lost.has_coordination = false;
  else
    held = found;
  return lost;
}

}  // namespace zx::agent
