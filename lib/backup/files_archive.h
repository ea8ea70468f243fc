// An archive of files: a tar, in zstd. What the ustar format cannot hold has a header of pax, where
// names are bytes (hdrcharset=BINARY), so that they come through whole whatever they are and in
// whatever locale. Fractions of a second are there only; zx has them from the index.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/backup/files_index.h"
#include "lib/backup/object.h"

namespace zx::backup {

// An extended attribute, ACLs and capabilities among them.
struct Attribute {
  std::string name, value;
  bool operator==(const Attribute&) const = default;
};

// Where a sparse file has content.
struct Extent {
  std::int64_t offset = 0, size = 0;
};

// "archives/SET-NAME.tar.zst".
[[nodiscard]] std::string archive_path(const std::string& set, const std::string& tree);
// The set that wrote the archive of `tree`; empty when it is none of that tree.
[[nodiscard]] std::string set_of_archive(const std::string& path, const std::string& tree);

class ArchiveWriter {
 public:
  // As ObjectWriter::create().
  [[nodiscard]] static Result<ArchiveWriter> create(const std::string& file,
                                                    const std::string& path, int level);
  ArchiveWriter(ArchiveWriter&&) noexcept;
  ArchiveWriter& operator=(ArchiveWriter&&) = delete;
  ~ArchiveWriter();
  // Begins a member; one of the same path takes the place of the one before. Of a sparse file
  // `extents` says where it has content, which for one without any is an empty one at its end.
  [[nodiscard]] Status begin(const IndexEntry& entry, const std::vector<Attribute>& attributes,
                             const std::vector<Extent>& extents = {});
  // Its content: entry.size bytes in all before the next begin(), holes as zeros.
  [[nodiscard]] Status write(std::string_view bytes);
  [[nodiscard]] Result<Object> finish();

 private:
  struct Impl;
  explicit ArchiveWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct Member {
  char type = 'f';  // as in the index
  std::string path;
  std::string target;
  std::uint64_t size = 0;
};

// Reads members in their order. An archive is never trusted: a path that leads out of the tree, a
// hard link, a device or whatever else zx does not write is Code::failed.
class ArchiveReader {
 public:
  [[nodiscard]] static Result<ArchiveReader> open(const Repository& repository,
                                                  const Object& object);
  ArchiveReader(ArchiveReader&&) noexcept;
  ArchiveReader& operator=(ArchiveReader&&) = delete;
  ~ArchiveReader();
  // False: the end, and all of the object was read and is what was written. What is left of the
  // member before is skipped.
  [[nodiscard]] Result<bool> next(Member& member);
  // Of the member that next() gave.
  [[nodiscard]] std::vector<Attribute> attributes() const;
  // Gives its content in order, holes left out: offset and bytes.
  using Take = std::function<Status(std::uint64_t offset, std::string_view bytes)>;
  [[nodiscard]] Status read(const Take& take);

 private:
  struct Impl;
  explicit ArchiveReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::backup
