#include "lib/backup/repository_owner.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include <cerrno>

#include "lib/backup/repository_lock.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr int kSafely = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;

Status give(const os::Descriptor& above, const std::string& name, const std::string& path,
            const os::Owner& owner) {
  const os::Descriptor file(openat(above.get(), name.c_str(), kSafely));
  struct stat found {};
  if (!file || fstat(file.get(), &found) != 0) return fail(repository_error("open", path, errno));
  const bool is_directory = S_ISDIR(found.st_mode);
  if (!is_directory && (!S_ISREG(found.st_mode) || found.st_nlink != 1))
    return fail(Code::refused, path + " is no plain file of this repository alone",
                "it is not given to the owner of the repository");
  if (is_directory) {
    ZX_ASSIGN(const auto names, names_of(file, path));
    for (const auto& below : names) ZX_TRY(give(file, below, path + "/" + below, owner));
  }
  if (found.st_uid == owner.uid && found.st_gid == owner.gid) return {};
  if (fchown(file.get(), owner.uid, owner.gid) != 0)
    return fail(repository_error("give to the owner of the repository", path, errno));
  if (fsync(file.get()) != 0) return fail(repository_error("sync", path, errno));
  return {};
}

}  // namespace

Result<std::vector<std::string>> names_of(const os::Descriptor& directory,
                                          const std::string& path) {
  auto names = os::names_in(directory);
  if (!names) return fail(repository_error("list", path, errno));
  std::sort(names->begin(), names->end());
  return *std::move(names);
}

Result<std::optional<os::Owner>> heir_of(const std::string& repository) {
  if (geteuid() != 0) return std::optional<os::Owner>();
  ZX_ASSIGN(const auto owner, os::owner_of(repository));
  return owner.uid == 0 ? std::optional<os::Owner>() : owner;
}

Status give_away(const std::string& repository, const std::string& path, const os::Owner& owner) {
  os::Descriptor at(open(repository.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!at) return fail(repository_error("open", repository, errno));
  const auto parts = split(path, '/');
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    os::Descriptor next(openat(at.get(), parts[i].c_str(), kSafely | O_DIRECTORY));
    if (!next) return fail(repository_error("open", repository + "/" + path, errno));
    at = std::move(next);
  }
  return give(at, parts.back(), repository + "/" + path, owner);
}

}  // namespace zx::backup
