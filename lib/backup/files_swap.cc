#include "lib/backup/files_swap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "lib/backup/removal.h"
#include "lib/base/text.h"
#include "lib/os/files.h"

namespace zx::backup {
namespace {

Status rename(const std::string& from, const std::string& to) {
  ZX_TRY(os::rename_new(from, to));
  return os::sync_directory(os::parent_of(to));
}

// "/app/old\\040media": blanks, line ends and backslashes are written as octal numbers.
std::string unescaped(std::string_view word) {
  std::string text;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return i + at < word.size() && word[i + at] >= '0' && word[i + at] <= '7';
    };
    if (word[i] == '\\' && digit(1) && digit(2) && digit(3)) {
      text += static_cast<char>((word[i + 1] - '0') * 64 + (word[i + 2] - '0') * 8 +
                                (word[i + 3] - '0'));
      i += 3;
    } else {
      text += word[i];
    }
  }
  return text;
}

// As mountinfo has it: without symbolic links on the way.
Result<std::string> real_path(const std::string& path) {
  std::error_code wrong;
  const auto above = std::filesystem::canonical(os::parent_of(path), wrong);
  if (wrong)
    return fail(Code::io,
                fmt::format("cannot look at {}: {}", os::parent_of(path), wrong.message()));
  return (above / std::filesystem::path(path).filename()).string();
}

Error cannot_remove(const std::string& path, int number) {
  const bool may_not = number == EACCES || number == EPERM;
  return Error{may_not ? Code::auth : Code::io,
               fmt::format("cannot remove {}: {}", path, std::strerror(number)),
               {},
               {},
               false};
}

}  // namespace

bool is_there(const std::string& path) {
  struct stat found {};
  return lstat(path.c_str(), &found) == 0;
}

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
    ZX_TRY(holds_no_mount(path));
  }
  if (is_there(kept_path(path)))
    return fail(Code::refused, kept_path(path) + " is there",
                "an earlier restore is kept there: zx restore commit, or zx restore undo");
  if (is_there(aside_path(path)))
    return fail(Code::refused, aside_path(path) + " is there",
                "it is of a restore that did not end: zx runs list; else move it away");
  return {};
}

std::optional<std::string> mount_within(std::string_view mountinfo, const std::string& path) {
  constexpr std::size_t kMountPoint = 4;
  for (const auto& line : split(mountinfo, '\n')) {
    const auto words = split(line, ' ');
    if (words.size() <= kMountPoint) continue;
    auto at = unescaped(words[kMountPoint]);
    if (at == path || at.starts_with(path + "/")) return at;
  }
  return std::nullopt;
}

Status holds_no_mount(const std::string& path) {
  if (!is_there(path)) return {};
  ZX_ASSIGN(const auto real, real_path(path));
  ZX_ASSIGN(const auto mounts, os::read_file("/proc/self/mountinfo"));
  const auto found = mount_within(mounts, real);
  if (!found) return {};
  return fail(Code::refused,
              *found == real ? path + " is a mount point"
                             : fmt::format("{} is mounted in {}", *found, path),
              "unmount it first; a restore may also go aside: zx restore files --into DIRECTORY");
}

Result<std::uint64_t> inode_of(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0) return static_cast<std::uint64_t>(found.st_ino);
  return fail(errno == ENOENT ? Code::not_found : Code::io,
              fmt::format("cannot look at {}: {}", path, std::strerror(errno)));
}

bool had_tree(const std::string& path) {
  return is_there(kept_path(path)) || (is_there(aside_path(path)) && is_there(path));
}

Status can_swap_tree_in(const std::string& path, std::uint64_t loaded) {
  const auto fresh = aside_path(path);
  const bool has_new = is_there(fresh);
  if (!has_new && !is_there(path) && !is_there(kept_path(path)))
    return fail(Code::refused, fmt::format("neither {} nor {} is there", path, fresh));
  const auto found = inode_of(has_new ? fresh : path);
  if (found && loaded != 0 && *found != loaded)
    return fail(Code::refused,
                fmt::format("{} is not what was loaded{}", has_new ? fresh : path,
                            has_new ? "" : fmt::format(", and {} is not there", fresh)),
                "somebody has changed it: take the run back, then restore again");
  if (!has_new && (!found || (loaded == 0 && !is_there(kept_path(path)))))
    return fail(Code::refused, fmt::format("{} is not there any more", fresh),
                "somebody has moved it away: take the run back, then restore again");
  return holds_no_mount(path);
}

Status swap_tree_in(const std::string& path, std::uint64_t loaded) {
  ZX_TRY(can_swap_tree_in(path, loaded));
  if (!is_there(aside_path(path))) return {};
  if (is_there(path)) ZX_TRY(rename(path, kept_path(path)));
  return rename(aside_path(path), path);
}

Status swap_tree_back(const std::string& path, bool had_old) {
  if (had_old && !is_there(kept_path(path))) return {};
  if (!had_old && (is_there(aside_path(path)) || !is_there(path))) return {};
  ZX_TRY(holds_no_mount(path));
  if (is_there(path)) ZX_TRY(rename(path, aside_path(path)));
  if (had_old) return rename(kept_path(path), path);
  return {};
}

Status remove_tree(const std::string& path) {
  ZX_TRY(holds_no_mount(path));
  const auto above = os::parent_of(path);
  const os::Descriptor parent(open(above.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent) return errno == ENOENT ? Status{} : fail(cannot_remove(path, errno));
  return remove_in(parent, std::filesystem::path(path).filename(), path, cannot_remove);
}

}  // namespace zx::backup
