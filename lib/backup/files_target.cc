#include "lib/backup/files_target.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include <fmt/format.h>

namespace zx::backup {
namespace {

constexpr std::size_t kMostWarnings = 20;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

timespec time_of(std::int64_t ns) {
  const auto rest = (ns % kSecond + kSecond) % kSecond;
  return {static_cast<time_t>((ns - rest) / kSecond), static_cast<long>(rest)};
}

Result<bool> is_empty(int directory, const std::string& path) {
  const int listed = dup(directory);
  DIR* const listing = listed < 0 ? nullptr : fdopendir(listed);
  if (listing == nullptr) {
    const int number = errno;
    if (listed >= 0) ::close(listed);
    return fail(errno_error(Code::io, "cannot list " + path, number));
  }
  bool is_bare = true;
  while (const dirent* entry = readdir(listing)) {
    const std::string_view name = entry->d_name;
    is_bare = is_bare && (name == "." || name == "..");
  }
  closedir(listing);
  return is_bare;
}

}  // namespace

FilesTarget::FilesTarget(std::string path, os::Descriptor root)
    : path_(std::move(path)), root_(std::move(root)) {}

Result<FilesTarget> FilesTarget::create(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(errno_error(errno == EACCES || errno == EPERM ? Code::auth
                            : errno == ENOSPC                 ? Code::disk_full
                                                              : Code::io,
                            "cannot make the directory " + shown(path), errno));
  os::Descriptor root(open(path.c_str(), kDirectory));
  if (!root && (errno == ELOOP || errno == ENOTDIR))
    return fail(Code::refused, shown(path) + " is no directory",
                "name a directory that is empty or does not exist");
  if (!root) return fail(errno_error(Code::io, "cannot open " + shown(path), errno));
  ZX_ASSIGN(const bool is_bare, is_empty(root.get(), shown(path)));
  if (!is_bare)
    return fail(Code::refused, shown(path) + " is not empty",
                "name a directory that is empty or does not exist");
  return FilesTarget(path, std::move(root));
}

void FilesTarget::warn(std::string what) {
  if (warnings_.size() < kMostWarnings)
    warnings_.push_back(std::move(what));
  else
    ++more_warnings_;
}

std::vector<std::string> FilesTarget::warnings() const {
  auto all = warnings_;
  if (other_owners_ > 0)
    all.push_back(fmt::format("{} files and directories have another owner than they had{}",
                              other_owners_, geteuid() == 0 ? "" : ", which only root can give"));
  if (more_warnings_ > 0) all.push_back(fmt::format("and {} more", more_warnings_));
  return all;
}

Error FilesTarget::cannot(const std::string& what, const std::string& path, int number) const {
  const auto code = number == ENOSPC || number == EDQUOT                       ? Code::disk_full
                    : number == EACCES || number == EPERM                      ? Code::auth
                    : number == EEXIST || number == ELOOP || number == ENOTDIR ? Code::refused
                                                                               : Code::io;
  auto error =
      errno_error(code, fmt::format("cannot {} {}", what, shown(path_ + "/" + path)), number);
  if (code == Code::refused) error.hint = "somebody else writes there: restore into another place";
  if (code == Code::disk_full) error.hint = "make room there, or restore into another place";
  return error;
}

Result<int> FilesTarget::parent_of(const std::string& path, std::string& name) {
  std::string_view rest = path;
  std::size_t depth = 0;
  for (auto slash = rest.find('/'); slash != std::string_view::npos; slash = rest.find('/')) {
    const auto part = rest.substr(0, slash);
    rest.remove_prefix(slash + 1);
    if (depth == open_.size() || open_[depth].name != part) {
      open_.resize(depth);
      const int at = depth == 0 ? root_.get() : open_.back().file.get();
      os::Descriptor next(openat(at, std::string(part).c_str(), kDirectory));
      if (!next) return fail(cannot("open the directory of", path, errno));
      open_.push_back({std::string(part), std::move(next)});
    }
    ++depth;
  }
  open_.resize(depth);
  name = rest;
  return depth == 0 ? root_.get() : open_.back().file.get();
}

Status FilesTarget::make_directory(const IndexEntry& entry) {
  if (entry.path == ".") return {};
  std::string name;
  ZX_ASSIGN(const int at, parent_of(entry.path, name));
  if (mkdirat(at, name.c_str(), 0700) != 0)
    return fail(cannot("make the directory", entry.path, errno));
  return {};
}

void FilesTarget::keep_attributes(const IndexEntry& entry, std::vector<Attribute> attributes) {
  if (!attributes.empty()) attributes_[entry.path] = std::move(attributes);
}

Status FilesTarget::make_link(const IndexEntry& entry) {
  std::string name;
  ZX_ASSIGN(const int at, parent_of(entry.path, name));
  if (symlinkat(entry.target.c_str(), at, name.c_str()) != 0)
    return fail(cannot("make the link", entry.path, errno));
  const bool is_own = entry.uid == geteuid() && entry.gid == getegid();
  if (!is_own && (geteuid() != 0 ||
                  fchownat(at, name.c_str(), entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) != 0))
    ++other_owners_;
  const timespec times[] = {time_of(entry.mtime), time_of(entry.mtime)};
  if (utimensat(at, name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
    return fail(cannot("set the time of", entry.path, errno));
  return {};
}

Status FilesTarget::begin_file(const IndexEntry& entry) {
  if (file_ && file_path_ == entry.path) {
    if (ftruncate(file_.get(), 0) != 0) return fail(cannot("write", entry.path, errno));
    return {};
  }
  std::string name;
  ZX_ASSIGN(const int at, parent_of(entry.path, name));
  file_ = os::Descriptor(
      openat(at, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file_) return fail(cannot("write", entry.path, errno));
  file_path_ = entry.path;
  return {};
}

Status FilesTarget::write(std::uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto put = pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(cannot("write", file_path_, errno));
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

Status FilesTarget::end_file(const IndexEntry& entry, const std::vector<Attribute>& attributes) {
  struct stat found {};
  if (fstat(file_.get(), &found) != 0) return fail(cannot("look at", entry.path, errno));
  // Its last bytes may be a hole.
  const auto size = static_cast<off_t>(entry.size);
  if (found.st_size != size && ftruncate(file_.get(), size) != 0)
    return fail(cannot("write", entry.path, errno));
  return dress(file_.get(), entry, attributes);
}

Status FilesTarget::finish_directory(const IndexEntry& entry) {
  std::string name;
  os::Descriptor file;
  int directory = root_.get();
  if (entry.path != ".") {
    ZX_ASSIGN(const int at, parent_of(entry.path, name));
    file = os::Descriptor(openat(at, name.c_str(), kDirectory));
    if (!file) return fail(cannot("open", entry.path, errno));
    directory = file.get();
  }
  const auto kept = attributes_.find(entry.path);
  return dress(directory, entry,
               kept == attributes_.end() ? std::vector<Attribute>() : kept->second);
}

// False: it has not the owner that it had.
Result<bool> FilesTarget::give_owner(int file, const IndexEntry& entry) {
  struct stat found {};
  if (fstat(file, &found) != 0) return fail(cannot("look at", entry.path, errno));
  if (found.st_uid == entry.uid && found.st_gid == entry.gid) return true;
  if (geteuid() == 0 && fchown(file, entry.uid, entry.gid) == 0) return true;
  ++other_owners_;
  return false;
}

Status FilesTarget::dress(int file, const IndexEntry& entry,
                          const std::vector<Attribute>& attributes) {
  ZX_ASSIGN(const bool has_owner, give_owner(file, entry));
  // After the owner, whose change takes capabilities away; before the mode, which may forbid it.
  for (const auto& [name, value] : attributes) {
    if (fsetxattr(file, name.c_str(), value.data(), value.size(), 0) == 0) continue;
    const int number = errno;
    if (number != ENOTSUP && number != EPERM && number != EACCES)
      return fail(cannot("set the attribute " + shown(name) + " of", entry.path, number));
    warn(fmt::format("{} has no {}: {}", shown(entry.path), shown(name),
                     number == ENOTSUP ? "the file system has none" : "not permitted"));
  }
  auto mode = entry.mode;
  if (!has_owner && entry.type == 'f' && (mode & 06000u) != 0) {
    mode &= ~06000u;
    warn(shown(entry.path) + " has not its owner, and so no setuid or setgid");
  }
  if (fchmod(file, mode) != 0) return fail(cannot("set the mode of", entry.path, errno));
  const timespec times[] = {time_of(entry.mtime), time_of(entry.mtime)};
  if (futimens(file, times) != 0) return fail(cannot("set the time of", entry.path, errno));
  return {};
}

Status FilesTarget::sync() {
  if (syncfs(root_.get()) != 0) return fail(cannot("sync", ".", errno));
  return os::sync_directory(os::parent_of(path_));
}

}  // namespace zx::backup
