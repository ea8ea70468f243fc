#include "lib/os/new_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <vector>

#include "lib/base/ids.h"
#include "lib/base/text.h"

namespace zx::os {
namespace {

constexpr const char* kPart = ".zx-part-";
constexpr int kRandomBytes = 4;

Error cannot(const std::string& what, const std::string& path, int number) {
  const auto code = number == ENOSPC || number == EDQUOT  ? Code::disk_full
                    : number == EACCES || number == EPERM ? Code::auth
                    : number == ENOENT                    ? Code::not_found
                                                          : Code::io;
  auto error = errno_error(code, "cannot " + what + " " + path, number);
  if (code == Code::disk_full && error.hint.empty())
    error.hint = "make room there, or name a file elsewhere";
  return error;
}

Error taken(const std::string& path) {
  return Error{
      Code::refused, path + " exists", "nothing is ever overwritten: name another file", {}, false};
}

// Is what has that name still the file that is open? It may have been swept in between.
bool is_named(int file, const std::string& name) {
  struct stat open {
  }, named{};
  return fstat(file, &open) == 0 && stat(name.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

bool is_part(std::string_view name) {
  const auto at = name.rfind(kPart);
  if (at == 0 || at == std::string_view::npos) return false;
  const auto end = name.substr(at + std::string_view(kPart).size());
  return end.size() == 2 * kRandomBytes &&
         end.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Whoever writes a part has it locked; what nobody has locked was left behind. Of whichever file:
// the next one may never have that name again.
void sweep(const std::string& directory) {
  std::vector<std::string> names;
  if (DIR* listing = opendir(directory.c_str()); listing != nullptr) {
    while (const dirent* entry = readdir(listing))
      if (is_part(entry->d_name)) names.emplace_back(entry->d_name);
    closedir(listing);
  }
  for (const auto& name : names) {
    const auto part = directory + "/" + name;
    const Descriptor file(open(part.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat found {};
    if (!file || fstat(file.get(), &found) != 0 || !S_ISREG(found.st_mode)) continue;
    if (flock(file.get(), LOCK_EX | LOCK_NB) == 0) unlink(part.c_str());
  }
}

}  // namespace

Result<NewFile> NewFile::create(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) == 0) return fail(taken(path));
  sweep(parent_of(path));
  while (true) {
    const auto part = path + kPart + random_hex(kRandomBytes);
    Descriptor file(open(part.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file && errno == EEXIST) continue;
    if (!file) return fail(cannot("write", path, errno));
    if (fchmod(file.get(), 0600) != 0) {
      const int number = errno;
      unlink(part.c_str());
      return fail(cannot("write", path, number));
    }
    const bool is_locked = flock(file.get(), LOCK_EX | LOCK_NB) == 0;
    if (!is_locked && errno != EWOULDBLOCK) {
      const int number = errno;
      unlink(part.c_str());
      return fail(cannot("lock", part, number));
    }
    // Another's sweep may have come between.
    if (is_locked && is_named(file.get(), part)) return NewFile(path, part, std::move(file));
  }
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      part_(std::exchange(other.part_, {})),
      file_(std::move(other.file_)) {}

NewFile::~NewFile() {
  if (!part_.empty()) unlink(part_.c_str());
}

Status NewFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto put = ::write(file_.get(), bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(cannot("write", path_, errno));
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Status NewFile::publish() {
  if (fsync(file_.get()) != 0) return fail(cannot("write", path_, errno));
  // A rename would replace what another has put there meanwhile.
  if (link(part_.c_str(), path_.c_str()) != 0)
    return fail(errno == EEXIST ? taken(path_) : cannot("publish", path_, errno));
  unlink(part_.c_str());
  part_.clear();
  return sync_directory(parent_of(path_));
}

}  // namespace zx::os
