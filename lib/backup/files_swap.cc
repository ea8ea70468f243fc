#include "lib/backup/files_swap.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "lib/os/files.h"

namespace zx::backup {
namespace {

bool is_there(const std::string& path) {
  struct stat found {};
  return lstat(path.c_str(), &found) == 0;
}

Status rename(const std::string& from, const std::string& to) {
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0)
    return fail(errno_error(errno == EACCES || errno == EPERM ? Code::auth : Code::io,
                            fmt::format("cannot rename {} to {}", from, to), errno));
  return os::sync_directory(os::parent_of(to));
}

}  // namespace

std::string aside_path(const std::string& path) { return path + ".zxnew"; }
std::string kept_path(const std::string& path) { return path + ".zxold"; }

Status can_be_swapped(const std::string& path) {
  struct stat found {
  }, parent{};
  const auto above = os::parent_of(path);
  if (stat(above.c_str(), &parent) != 0)
    return fail(Code::refused,
                fmt::format("{} is not there, so {} cannot be restored", above, path),
                "make it, with the owner and mode that it should have");
  if (lstat(path.c_str(), &found) == 0) {
    if (S_ISLNK(found.st_mode))
      return fail(Code::refused, path + " is a symbolic link",
                  "name what it leads to in backup.files of zx.toml");
    if (found.st_dev != parent.st_dev)
      return fail(Code::refused, path + " is a mount point, which cannot be renamed",
                  "restore it aside: zx restore files --into DIRECTORY");
  }
  if (is_there(kept_path(path)))
    return fail(Code::refused, kept_path(path) + " is there",
                "an earlier restore is kept there: zx restore commit, or zx restore undo");
  if (is_there(aside_path(path)))
    return fail(Code::refused, aside_path(path) + " is there",
                "it is of a restore that did not end: zx runs list; else move it away");
  return {};
}

Status swap_tree_in(const std::string& path) {
  if (!is_there(aside_path(path))) {
    if (is_there(path)) return {};
    return fail(Code::failed, fmt::format("neither {} nor {} is there", path, aside_path(path)));
  }
  if (is_there(path)) ZX_TRY(rename(path, kept_path(path)));
  return rename(aside_path(path), path);
}

Status swap_tree_back(const std::string& path, bool had_old) {
  if (had_old && !is_there(kept_path(path))) return {};
  if (!had_old && (is_there(aside_path(path)) || !is_there(path))) return {};
  if (is_there(path)) ZX_TRY(rename(path, aside_path(path)));
  if (had_old) return rename(kept_path(path), path);
  return {};
}

Status remove_tree(const std::string& path) {
  std::error_code wrong;
  std::filesystem::remove_all(path, wrong);
  if (!wrong) return {};
  return fail(wrong == std::errc::permission_denied ? Code::auth : Code::io,
              fmt::format("cannot remove {}: {}", path, wrong.message()));
}

}  // namespace zx::backup
