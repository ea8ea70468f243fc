// Files that are whole or absent, with the mode they were meant to have.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/error.h"

namespace zx::os {

// An owned file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { close(); }
  void close();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }  // to another owner
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Refuses files over `limit` bytes. Code::not_found when it does not exist, auth when it may not
// be read, io else.
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t limit = 64u << 20);
// The same of an open file, from where it stands; `path` is for the error.
[[nodiscard]] Result<std::string> read_file(const Descriptor& file, const std::string& path,
                                            std::size_t limit);

struct Owner {
  uid_t uid;
  gid_t gid;
};

struct WriteOptions {
  mode_t mode = 0600;
  bool durable = true;         // fsync the file and its directory
  std::optional<Owner> owner;  // chown before it becomes visible
};
// Writes beside the target and renames: readers see the old content or the new one, never a part.
[[nodiscard]] Status write_file(const std::string& path, std::string_view content,
                                const WriteOptions& options = {});

// Renames to a name that nothing has yet; what has it is never replaced. Where the file system
// cannot do that in one step (NFS, some of FUSE) it looks first, and the caller must keep others
// away.
[[nodiscard]] Status rename_new(const std::string& from, const std::string& to);

// The directory and its parents, `mode` for those it makes. Durable.
[[nodiscard]] Status make_directories(const std::string& path, mode_t mode = 0700);
// Of a file or directory; not an error when it is already gone. Durable.
[[nodiscard]] Status remove_file(const std::string& path);
[[nodiscard]] Status sync_directory(const std::string& path);

// What is in an open directory, in no order; absent: errno says why.
[[nodiscard]] std::optional<std::vector<std::string>> names_in(const Descriptor& directory);

[[nodiscard]] bool exists(const std::string& path);
[[nodiscard]] bool is_directory(const std::string& path);
[[nodiscard]] std::string parent_of(const std::string& path);
[[nodiscard]] Result<Owner> owner_of(const std::string& path);
// Bytes an ordinary user may still write on the file system of `path`.
[[nodiscard]] Result<std::uint64_t> free_space(const std::string& path);

}  // namespace zx::os
