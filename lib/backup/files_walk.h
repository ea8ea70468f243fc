// A look at a tree of files: every entry in the order of the index, what is new or changed read
// ahead on a thread of its own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/backup/files_entry.h"
#include "lib/backup/files_index.h"
#include "lib/base/clock.h"
#include "lib/config/config.h"
#include "lib/os/files.h"

namespace zx::backup {

// A larger file is not read ahead: who takes it reads it.
inline constexpr std::uint64_t kReadAhead = 1 << 20;
// So often a file is read that changes meanwhile; then it is taken as it was read last.
inline constexpr int kReads = 3;

// Some entries, one after the other, that are as the set before has them.
struct Unchanged {
  std::string lines;  // of the index
  struct Names {
    std::string set, names;  // the paths whose archive is that set's, each with a NUL behind it
  };
  std::vector<Names> names;
  std::uint64_t files = 0, bytes = 0;
};

// Unchanged ones, or one that is new or changed, or a warning alone.
struct Found {
  std::unique_ptr<Unchanged> unchanged;
  std::unique_ptr<IndexEntry> entry;  // new or changed; without `set`
  std::vector<Attribute> attributes;
  std::string content;  // of a small file; its SHA-256 is in the entry
  os::Descriptor file;  // of a large one, at its beginning; without SHA-256
  std::string warning;
};

// A directory by whatever path it is found: behind links, bind mounts.
struct DirectoryId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const DirectoryId&) const = default;
};

struct WalkJob {
  const config::BackupFiles& what;
  // The index of the set before; none: everything is new. Its errors end its use with a warning.
  IndexReader::More earlier;
  // Is there still what that set's entries refer to?
  std::function<bool(const std::string& set)> has_archive;
  // zx's own directories: they are left out, with a warning.
  std::vector<DirectoryId> own = {};
};

class FilesWalk {
 public:
  // Code::not_found when the tree is none, config when it is one of zx's own directories.
  [[nodiscard]] static Result<FilesWalk> start(WalkJob job);
  FilesWalk(FilesWalk&&) noexcept;
  FilesWalk& operator=(FilesWalk&&) = delete;
  ~FilesWalk();  // ends the thread
  // The next ones; none: the end. Code::auth when something may not be read: a set without it
  // would not be whole. Code::io when its file system goes away meanwhile. Interrupted when zx is;
  // timeout.
  [[nodiscard]] Result<std::vector<Found>> next(Deadline until);
  // By the clock of the kernel, which file systems go by.
  [[nodiscard]] std::int64_t begun_ns() const;

 private:
  struct Impl;
  explicit FilesWalk(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::backup
