#include "lib/os/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "lib/base/text.h"

namespace zx::os {

Result<FileLock> FileLock::take(const std::string& path, const std::string& about_me) {
  // O_CLOEXEC: a child that outlives zx (a started server) must not keep the lock.
  Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file)
    return fail(errno_error(errno == EACCES ? Code::auth : Code::io, "cannot open the lock " + path,
                            errno));
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(errno_error(Code::io, "cannot lock " + path, errno));
    const auto holder = read_file(path, 4096);
    const auto who = holder ? first_line(*holder) : std::string();
    return fail(Code::locked, "another run is at work" + (who.empty() ? "" : ": " + who),
                "wait for it to end, or look at it: zx runs list");
  }
  // For people and for the other process's message only; the lock is the flock.
  const auto text = about_me + "\n";
  if (ftruncate(file.get(), 0) != 0 ||
      pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail(errno_error(errno == ENOSPC ? Code::disk_full : Code::io,
                            "cannot write the lock " + path, errno));
  return FileLock(std::move(file));
}

}  // namespace zx::os
