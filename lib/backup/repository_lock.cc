#include "lib/backup/repository_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

using Byte = RepositoryLock::Byte;

Code code_of(int number) {
  if (number == ENOSPC || number == EDQUOT) return Code::disk_full;
  if (number == EACCES || number == EPERM || number == EROFS) return Code::auth;
  return number == ENOENT ? Code::not_found : Code::io;
}

Result<os::Descriptor> open_to_lock(const RepositoryLock::Wish& wish) {
  constexpr int kSafely = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  os::Descriptor file(open(wish.path.c_str(), O_RDWR | O_CREAT | kSafely, 0600));
  // Who only reads may share it all the same.
  if (!file && wish.is_shared && (errno == EROFS || errno == EACCES))
    file = os::Descriptor(open(wish.path.c_str(), O_RDONLY | kSafely));
  if (!file) return fail(repository_error("open", wish.path, errno));
  struct stat found {};
  if (fstat(file.get(), &found) != 0) return fail(repository_error("look at", wish.path, errno));
  // It is given away and written: another name of it would be some other file.
  if (!S_ISREG(found.st_mode) || found.st_nlink != 1)
    return fail(Code::refused, wish.path + " is no plain file of this repository alone",
                "see who put it there, and remove it while no zx is at work in the repository");
  if (wish.owner && found.st_uid == 0 && fchown(file.get(), wish.owner->uid, wish.owner->gid) != 0)
    return fail(repository_error("give to its owner", wish.path, errno));
  return file;
}

Error held_by_another(const os::Descriptor& file, const RepositoryLock::Wish& wish) {
  std::array<char, 4096> holder;
  const auto got = pread(file.get(), holder.data(), holder.size(), 0);
  const auto who = got > 0
                       ? first_line(std::string_view(holder.data(), static_cast<std::size_t>(got)))
                       : std::string();
  const auto message = [&]() -> std::string {
    switch (wish.byte) {
      case Byte::writers:
        return "another backup or prune is at work in " + os::parent_of(wish.path) +
               (who.empty() ? "" : ": " + who);
      case Byte::readers:
        return wish.is_shared ? "sets are being deleted: " + who
                              : "a verification or a restore reads the repository";
      case Byte::checks: return "another verification writes what it found";
    }
    return {};
  };
  return Error{Code::locked, message(), "wait for it to end", {}, false};
}

// It is for people: a disk that is full must not keep a prune from making room.
void say(const os::Descriptor& file, const RepositoryLock::Wish& wish) {
  const auto text = wish.about + "\n";
  if (ftruncate(file.get(), 0) != 0 ||
      pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    log::warning(fmt::format("{} does not say who holds it: {}", wish.path, strerror(errno)));
}

}  // namespace

Error repository_error(const std::string& what, const std::string& path, int number) {
  auto error = errno_error(code_of(number), "cannot " + what + " " + path, number);
  if (error.code == Code::disk_full) error.hint = "make room in the repository: zx backup prune";
  if (error.code == Code::auth)
    error.hint = number == EROFS ? "mount the file system of the repository for writing"
                                 : "run zx as the user that owns the repository";
  return error;
}

Result<RepositoryLock> RepositoryLock::take(const Wish& wish) {
  ZX_ASSIGN(auto file, open_to_lock(wish));
  // Of the open file (F_OFD_*): the kernel, or the server of an NFS 4 file system, ends it with us.
  struct flock wanted {};
  wanted.l_type = static_cast<short>(wish.is_shared ? F_RDLCK : F_WRLCK);
  wanted.l_whence = SEEK_SET;
  wanted.l_start = static_cast<off_t>(wish.byte);
  wanted.l_len = 1;
  if (fcntl(file.get(), F_OFD_SETLK, &wanted) != 0) {
    if (errno != EAGAIN && errno != EACCES) return fail(repository_error("lock", wish.path, errno));
    return fail(held_by_another(file, wish));
  }
  if (!wish.about.empty()) say(file, wish);
  return RepositoryLock(wish.path, std::move(file));
}

Status RepositoryLock::is_held() const {
  const auto lost = [&](const std::string& why) -> Status {
    return fail(Code::locked, fmt::format("the lock {} was lost: {}", path_, why),
                "another zx may be at work in the repository; run it again");
  };
  struct stat ours {
  }, named{};
  char byte = 0;
  // From the server, not from what this host remembers of the file.
  (void)posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  if (fstat(file_.get(), &ours) != 0 || pread(file_.get(), &byte, 1, 0) < 0)
    return lost(strerror(errno));
  if (lstat(path_.c_str(), &named) != 0)
    return lost(errno == ENOENT ? "somebody removed it" : strerror(errno));
  if (ours.st_dev != named.st_dev || ours.st_ino != named.st_ino)
    return lost("somebody replaced it");
  return {};
}

}  // namespace zx::backup
