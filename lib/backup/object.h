// The bytes of an object: compressed and summed as they come, checked and decompressed as they go.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "lib/backup/repository.h"
#include "lib/backup/set.h"

namespace zx::backup {

// A new file, mode 0600, in zstd. It compresses on a thread of its own, so that whoever makes the
// bytes need not wait. Nothing stays behind of one that is not finished.
class ObjectWriter {
 public:
  // `file` is where it is written now, `path` where it will be found in the repository.
  [[nodiscard]] static Result<ObjectWriter> create(const std::string& file, const std::string& path,
                                                   int level);
  ObjectWriter(ObjectWriter&&) noexcept;
  ObjectWriter& operator=(ObjectWriter&&) = delete;
  ~ObjectWriter();
  // Code::disk_full, io.
  [[nodiscard]] Status write(std::string_view bytes);
  // Synced.
  [[nodiscard]] Result<Object> finish();
  [[nodiscard]] std::uint64_t raw() const;  // bytes that came so far

 private:
  struct Impl;
  explicit ObjectWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The sum and the size of a file that somebody else wrote, as the object `path`. Synced.
[[nodiscard]] Result<Object> object_of_file(const std::string& file, const std::string& path);

// Reads an object that zx compressed. Everything that it gave is right once it has given the empty
// piece; a damage may be noticed only then: Code::failed.
class ObjectReader {
 public:
  [[nodiscard]] static Result<ObjectReader> open(const Repository& repository,
                                                 const Object& object);
  ObjectReader(ObjectReader&&) noexcept;
  ObjectReader& operator=(ObjectReader&&) = delete;
  ~ObjectReader();
  // Decompressed; good until the next call; empty: the end.
  [[nodiscard]] Result<std::string_view> next();

 private:
  struct Impl;
  explicit ObjectReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Does errno say that the disk, or the file system on it, cannot give any more what was written?
[[nodiscard]] bool says_damage(int number);
// Why an object could not be read, of errno. What says_damage() is damage of the object:
// Code::failed.
[[nodiscard]] Error unreadable(const Object& object, int number);

// Reads all of it as it is stored and compares size and SHA-256. Code::failed names the object.
[[nodiscard]] Status check_sum(const Repository& repository, const Object& object,
                               const std::function<void(std::uint64_t)>& progress = {});
// Code::timeout and interrupted, too.
[[nodiscard]] Status check_sum(const Repository& repository, const Object& object,
                               const std::function<void(std::uint64_t)>& progress, Deadline until);
// All of it, decompressed, of at most `limit` bytes.
[[nodiscard]] Result<std::string> read_object(const Repository& repository, const Object& object,
                                              std::size_t limit);

}  // namespace zx::backup
