// The files' part of a set: a tree, of which only what is new or changed is stored again.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

struct FilesJob {
  const config::BackupFiles& what;
  std::string set_id;
  // What its part of the same name and path has unchanged is referred to; nullptr: none.
  const Set* previous = nullptr;
  int level = 3;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  // Directories that zx itself works in, besides the repository: they are left out of the tree.
  std::vector<std::string> own = {};
  // Of entries and bytes of content that were looked at since the last call.
  std::function<void(std::uint64_t files, std::uint64_t bytes)> progress = {};
};

// Into incoming/ID/files, the repository being locked to write:
//   NAME.index.zst      every file, see files_index.h
//   NAME.N.list.zst     of archive N: the members that this set needs, each with a NUL behind it
//   NAME.restore        for people: a line for each archive, "ARCHIVE TAB LIST", in their order
// and what is new or changed into archives/ID-NAME.tar.zst, if anything is; also what of archives
// is needed that are given up, see files_rebase.h.
//
// Symbolic links are held, never followed; other file systems in the tree are held, with a warning;
// sockets, FIFOs and devices are left out, with a warning. A file that changes while it is read is
// read again, at last taken as it is, with a warning. What may not be read fails the whole:
// Code::auth. Code::not_found without the tree, disk_full, timeout, or interrupted when zx is. A
// part that failed leaves an archive to Repository::sweep().
[[nodiscard]] Result<FilesPart> back_up_files(const Repository& repository, const FilesJob& job);

}  // namespace zx::backup
