#include "lib/os/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "lib/base/ids.h"

namespace zx::os {
namespace {

Code code_of(int number) {
  switch (number) {
    case ENOENT: return Code::not_found;
    case EACCES:
    case EPERM: return Code::auth;
    case ENOSPC:
    case EDQUOT: return Code::disk_full;
    default: return Code::io;
  }
}

}  // namespace

void Descriptor::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<std::string> read_file(const std::string& path, std::size_t limit) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(errno_error(code_of(errno), "cannot read " + path, errno));
  return read_file(file, path, limit);
}

Result<std::string> read_file(const Descriptor& file, const std::string& path, std::size_t limit) {
  std::string content;
  std::array<char, 65536> buffer;
  while (true) {
    const auto got = read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(errno_error(code_of(errno), "cannot read " + path, errno));
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > limit)
      return fail(Code::io, fmt::format("{} is larger than {} bytes", path, limit));
  }
}

Status write_file(const std::string& path, std::string_view content, const WriteOptions& options) {
  const auto beside = path + ".tmp-" + random_hex(4);
  const auto give_up = [&](int number) -> Status {
    unlink(beside.c_str());
    return fail(errno_error(code_of(number), "cannot write " + path, number));
  };
  Descriptor file(
      open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, options.mode));
  if (!file) return fail(errno_error(code_of(errno), "cannot write " + path, errno));
  if (fchmod(file.get(), options.mode) != 0) return give_up(errno);
  if (options.owner && geteuid() == 0 &&
      fchown(file.get(), options.owner->uid, options.owner->gid) != 0)
    return give_up(errno);
  while (!content.empty()) {
    const auto put = write(file.get(), content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return give_up(errno);
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  if (options.durable && fsync(file.get()) != 0) return give_up(errno);
  file.close();
  if (rename(beside.c_str(), path.c_str()) != 0) return give_up(errno);
  if (options.durable) return sync_directory(parent_of(path));
  return {};
}

Status rename_new(const std::string& from, const std::string& to) {
  const auto cannot = [&](int number) -> Status {
    return fail(
        errno_error(code_of(number), fmt::format("cannot rename {} to {}", from, to), number));
  };
  if (renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return {};
  if (errno != EINVAL && errno != ENOSYS) return cannot(errno);
  struct stat found {};
  if (lstat(to.c_str(), &found) == 0) return cannot(EEXIST);
  if (errno != ENOENT) return cannot(errno);
  if (::rename(from.c_str(), to.c_str()) != 0) return cannot(errno);
  return {};
}

Status make_directories(const std::string& path, mode_t mode) {
  if (is_directory(path)) return {};
  const auto parent = parent_of(path);
  if (parent != path) ZX_TRY(make_directories(parent, mode));
  const bool is_made = mkdir(path.c_str(), mode) == 0;
  if (!is_made && errno != EEXIST)
    return fail(errno_error(errno == ENOENT ? Code::io : code_of(errno),
                            "cannot make the directory " + path, errno));
  if (is_made) return sync_directory(parent);
  if (!is_directory(path)) return fail(Code::io, path + " exists and is not a directory");
  return {};
}

Status remove_file(const std::string& path) {
  if (unlink(path.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return fail(errno_error(code_of(errno), "cannot remove " + path, errno));
  }
  return sync_directory(parent_of(path));
}

Status sync_directory(const std::string& path) {
  const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) != 0)
    return fail(errno_error(code_of(errno), "cannot sync the directory " + path, errno));
  return {};
}

std::optional<std::vector<std::string>> names_in(const Descriptor& directory) {
  Descriptor listed(openat(directory.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* const listing = listed ? fdopendir(listed.get()) : nullptr;
  if (listing == nullptr) return std::nullopt;
  (void)listed.release();  // it is the listing's now
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(listing)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  const int number = errno;
  closedir(listing);
  errno = number;
  if (number != 0) return std::nullopt;
  return names;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

bool is_directory(const std::string& path) {
  struct stat found {};
  return stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

std::string parent_of(const std::string& path) {
  const auto parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Result<Owner> owner_of(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0)
    return fail(errno_error(code_of(errno), "cannot look at " + path, errno));
  return Owner{found.st_uid, found.st_gid};
}

Result<std::uint64_t> free_space(const std::string& path) {
  struct statvfs found {};
  if (statvfs(path.c_str(), &found) != 0)
    return fail(errno_error(code_of(errno), "cannot look at the file system of " + path, errno));
  return static_cast<std::uint64_t>(found.f_bavail) * found.f_frsize;
}

}  // namespace zx::os
