#include "lib/backup/removal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>

namespace zx::backup {
namespace {

// One tree on one file system.
class Remover {
 public:
  explicit Remover(const CannotRemove& cannot) : cannot_(cannot) {}

  Status remove(int parent, const std::string& name, const std::string& path) {
    os::Descriptor directory(
        openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory && (errno == ENOTDIR || errno == ELOOP)) return unlink_in(parent, name, 0, path);
    if (!directory) return errno == ENOENT ? Status{} : fail(cannot_(path, errno));
    ZX_ASSIGN(const auto place, place_of(directory.get(), path));
    if (!place_) place_ = place;
    if (*place_ != place)
      return fail(Code::refused, path + " is another file system, of which nothing is removed",
                  "unmount it, or move it away");
    const auto names = os::names_in(directory);
    if (!names) return fail(cannot_(path, errno));
    for (const auto& one : *names) ZX_TRY(remove(directory.get(), one, path + "/" + one));
    return unlink_in(parent, name, AT_REMOVEDIR, path);
  }

 private:
  struct Place {
    dev_t device;
    std::uint64_t mount;
    bool operator==(const Place&) const = default;
  };

  [[nodiscard]] Result<Place> place_of(int fd, const std::string& path) const {
    struct stat found {};
    struct statx more {};
    if (fstat(fd, &found) != 0 || statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &more) != 0)
      return fail(cannot_(path, errno));
    // Kernels before 5.8 do not know the mount.
    return Place{found.st_dev, (more.stx_mask & STATX_MNT_ID) != 0 ? more.stx_mnt_id : 0};
  }

  [[nodiscard]] Status unlink_in(int parent, const std::string& name, int flags,
                                 const std::string& path) const {
    if (unlinkat(parent, name.c_str(), flags) == 0 || errno == ENOENT) return {};
    return fail(cannot_(path, errno));
  }

  const CannotRemove& cannot_;
  std::optional<Place> place_;  // of the tree itself
};

}  // namespace

Status remove_in(const os::Descriptor& parent, const std::string& name, const std::string& path,
                 const CannotRemove& cannot) {
  return Remover(cannot).remove(parent.get(), name, path);
}

}  // namespace zx::backup
