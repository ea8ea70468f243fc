// Directories are listed, and what is in them is looked at, ahead of whoever walks through a tree:
// a look at a hundred thousand files is a hundred thousand calls of the kernel, which two
// processors do in half the time.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>
#include <vector>

#include "lib/backup/files_entry.h"
#include "lib/base/error.h"
#include "lib/os/files.h"

namespace zx::backup {

struct Listing {
  os::Descriptor directory;
  struct stat found {};  // of the directory itself
  Names names;
  // Of each name, and errno of one that could not be looked at; both empty for a directory that has
  // so many that they would take much memory.
  std::vector<struct stat> looks;
  std::vector<int> failures;
};

class Lister {
 public:
  class Ticket {
   public:
    Ticket() = default;

   private:
    friend class Lister;
    struct Task;
    std::shared_ptr<Task> task_;
  };

  Lister();
  ~Lister();
  Lister(const Lister&) = delete;
  Lister& operator=(const Lister&) = delete;

  // Is there room to list another one ahead? Each has a descriptor.
  [[nodiscard]] bool has_room() const;
  // Lists `name` in the open directory `parent`, which stays open until take(); no link is
  // followed. `path` is for messages.
  [[nodiscard]] Ticket list(int parent, std::string name, std::string path);
  // Waits for it, or does it at once when nobody has begun. Code::not_found when it vanished or is
  // no directory any more, auth, io.
  [[nodiscard]] Result<Listing> take(Ticket ticket);
  // The same at once, of a directory that is open.
  [[nodiscard]] static Result<Listing> list_open(os::Descriptor directory, const std::string& path);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::backup
