#include "lib/os/file_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "lib/base/text.h"

namespace zx::os {
namespace {

// Of the open file, not of the process (F_OFD_*): it ends when the last descriptor is closed, and
// whether it is held can be asked without taking it.
struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

Error held(const std::string& path) {
  const auto holder = read_file(path, 4096);
  const auto who = holder ? first_line(*holder) : std::string();
  return Error{Code::locked,
               "another run is at work" + (who.empty() ? "" : ": " + who),
               "wait for it to end, or look at it: zx runs list",
               {},
               false};
}

Error open_error(const std::string& path, int number) {
  return errno_error(number == EACCES ? Code::auth : Code::io, "cannot open the lock " + path,
                     number);
}

}  // namespace

Status FileLock::is_free(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return errno == ENOENT ? Status{} : fail(open_error(path, errno));
  auto lock = whole_file();
  if (fcntl(file.get(), F_OFD_GETLK, &lock) != 0)
    return fail(errno_error(Code::io, "cannot look at the lock " + path, errno));
  if (lock.l_type != F_UNLCK) return fail(held(path));
  return {};
}

Result<FileLock> FileLock::take(const std::string& path, const std::string& about_me) {
  // O_CLOEXEC: a child that outlives zx (a started server) must not keep the lock.
  Descriptor file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail(open_error(path, errno));
  auto lock = whole_file();
  if (fcntl(file.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno != EAGAIN && errno != EACCES)
      return fail(errno_error(Code::io, "cannot lock " + path, errno));
    return fail(held(path));
  }
  // For people and for the other process's message only.
  const auto text = about_me + "\n";
  if (ftruncate(file.get(), 0) != 0 ||
      pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail(errno_error(errno == ENOSPC ? Code::disk_full : Code::io,
                            "cannot write the lock " + path, errno));
  return FileLock(std::move(file));
}

}  // namespace zx::os
