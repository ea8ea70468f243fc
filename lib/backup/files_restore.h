// A tree of files of a set, brought back into a directory, or only looked through.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"

namespace zx::backup {

// Of entries and bytes of content that are done since the last call.
using FilesProgress = std::function<void(std::uint64_t files, std::uint64_t bytes)>;

struct FilesRestore {
  std::string into;  // a directory that is empty, or does not exist and whose parent does
  // Patterns as in backup.files.*.include; a directory's stand for all that is in it. None: all.
  // Directories that only lead to what is chosen come without their extended attributes.
  std::vector<std::string> only = {};
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  FilesProgress progress = {};
};

struct FilesRestored {
  std::uint64_t files = 0;  // and directories and links
  std::uint64_t bytes = 0;
  std::vector<std::string> warnings;
  std::int64_t took_ms = 0;
};

// Content, owners (as root), modes, times and extended attributes; `into` becomes the tree itself.
// Nothing of an archive is followed or trusted: only what the index names is written, below `into`,
// where nothing was before, and each file has the size and the SHA-256 that the index tells. An
// owner or attribute that this user or file system cannot have is a warning; without its owner a
// file gets no setuid and setgid.
// Code::failed for a damage, naming archive and file; not_found when no name matches `only`;
// refused when `into` holds something, disk_full, timeout, or interrupted when zx is. What was
// written so far stays, for the caller to remove. Durable when it returns.
[[nodiscard]] Result<FilesRestored> restore_files(const Repository& repository,
                                                  const FilesPart& part,
                                                  const FilesRestore& restore);

// The same without writing: the index and every archive, decompressed whole, and the SHA-256 of
// every file that the index names.
[[nodiscard]] Status decode_files(const Repository& repository, const FilesPart& part,
                                  const FilesProgress& progress = {},
                                  Deadline until = Deadline::after(Millis(1000LL * 3'600'000)));

}  // namespace zx::backup
