#include "lib/backup/files_entry.h"

#include <dirent.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace zx::backup {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// The kernel's clock of files goes in ticks of up to 10 ms; that of some file systems in seconds.
constexpr std::int64_t kRacy = 100'000'000;
constexpr std::int64_t kRacySeconds = 2 * kSecond;

std::int64_t ns_of(const timespec& time) {
  return static_cast<std::int64_t>(time.tv_sec) * kSecond + time.tv_nsec;
}

}  // namespace

IndexEntry entry_of(const struct stat& found) {
  IndexEntry entry;
  entry.type = S_ISDIR(found.st_mode) ? 'd' : S_ISLNK(found.st_mode) ? 'l' : 'f';
  entry.mode = found.st_mode & 07777;
  entry.uid = found.st_uid;
  entry.gid = found.st_gid;
  entry.size = S_ISREG(found.st_mode) ? static_cast<std::uint64_t>(found.st_size) : 0;
  entry.mtime = ns_of(found.st_mtim);
  entry.ctime = ns_of(found.st_ctim);
  entry.inode = found.st_ino;
  return entry;
}

bool is_same(const struct stat& before, const struct stat& after) {
  return before.st_size == after.st_size && ns_of(before.st_mtim) == ns_of(after.st_mtim) &&
         ns_of(before.st_ctim) == ns_of(after.st_ctim);
}

bool is_unchanged(const IndexEntry& earlier, const IndexEntry& now, std::int64_t begun_ns) {
  const bool is_equal =
      earlier.type == now.type && earlier.mode == now.mode && earlier.uid == now.uid &&
      earlier.gid == now.gid && earlier.size == now.size && earlier.mtime == now.mtime &&
      earlier.ctime == now.ctime && earlier.inode == now.inode && earlier.target == now.target;
  const auto margin = earlier.ctime % kSecond == 0 ? kRacySeconds : kRacy;
  return is_equal && earlier.ctime < begun_ns - margin;
}

Error cannot_read(const std::string& what, const std::string& path, int number) {
  // ESTALE: of a file system of the network, whose server has removed it.
  if (number == ENOENT || number == ESTALE)
    return errno_error(Code::not_found, "cannot " + what + " " + shown(path), number);
  const bool is_denied = number == EACCES || number == EPERM;
  auto error =
      errno_error(is_denied ? Code::auth : Code::io, "cannot " + what + " " + shown(path), number);
  error.hint = is_denied ? "let the user that runs zx read it, or exclude it in backup.files"
                         : "see what is wrong with it, or exclude it in backup.files";
  return error;
}

Status Names::read(int directory, const std::string& path) {
  alignas(dirent64) std::array<char, 64 << 10> buffer;
  while (true) {
    const auto got = getdents64(directory, buffer.data(), buffer.size());
    if (got < 0) return fail(cannot_read("list", path, errno));
    if (got == 0) break;
    for (ssize_t at = 0; at < got;) {
      const auto* const entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += entry->d_reclen;
      const std::string_view name(entry->d_name);
      if (name == "." || name == "..") continue;
      begins_.push_back(text_.size());
      text_.append(name).push_back('\0');
    }
  }
  std::sort(begins_.begin(), begins_.end(), [this](std::size_t a, std::size_t b) {
    return std::strcmp(text_.data() + a, text_.data() + b) < 0;
  });
  return {};
}

Result<std::vector<Attribute>> attributes_of(int file, const std::string& path) {
  std::vector<Attribute> found;
  std::string names(512, '\0');
  ssize_t size = 0;
  while ((size = flistxattr(file, names.data(), names.size())) < 0 && errno == ERANGE)
    names.resize(names.size() * 8);
  if (size < 0 && (errno == ENOTSUP || errno == ENOSYS)) return found;
  if (size < 0) return fail(cannot_read("read the attributes of", path, errno));
  for (const char* name = names.data(); name < names.data() + size; name += std::strlen(name) + 1) {
    std::string value(256, '\0');
    ssize_t got = 0;
    while ((got = fgetxattr(file, name, value.data(), value.size())) < 0 && errno == ERANGE)
      value.resize(value.size() * 16);
    if (got < 0 && errno == ENODATA) continue;  // gone meanwhile
    if (got < 0) return fail(cannot_read("read the attributes of", path, errno));
    value.resize(static_cast<std::size_t>(got));
    found.push_back({name, std::move(value)});
  }
  return found;
}

}  // namespace zx::backup
