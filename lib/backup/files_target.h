// Where a restore writes: a new tree, in which no symbolic link is followed, whoever put it there.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/backup/files_archive.h"
#include "lib/backup/files_index.h"
#include "lib/os/files.h"

namespace zx::backup {

class FilesTarget {
 public:
  // As FilesRestore::into says.
  [[nodiscard]] static Result<FilesTarget> create(const std::string& path);

  // Private until finish_directory(). "." is there already.
  [[nodiscard]] Status make_directory(const IndexEntry& entry);
  // Kept until finish_directory(): what is made in a directory with a default ACL would inherit it.
  void keep_attributes(const IndexEntry& entry, std::vector<Attribute> attributes);
  [[nodiscard]] Status make_link(const IndexEntry& entry);
  // A new file; when it is the one that was begun last, that one anew.
  [[nodiscard]] Status begin_file(const IndexEntry& entry);
  [[nodiscard]] Status write(std::uint64_t offset, std::string_view bytes);
  // The size, the owner, the attributes, the mode and the times of it.
  [[nodiscard]] Status end_file(const IndexEntry& entry, const std::vector<Attribute>& attributes);
  // Once all that is in it is finished.
  [[nodiscard]] Status finish_directory(const IndexEntry& entry);
  // Everything is on the disk.
  [[nodiscard]] Status sync();

  [[nodiscard]] std::vector<std::string> warnings() const;

 private:
  struct Open {
    std::string name;
    os::Descriptor file;
  };
  FilesTarget(std::string path, os::Descriptor root);
  void warn(std::string what);
  [[nodiscard]] Error cannot(const std::string& what, const std::string& path, int number) const;
  // The directory that `path` lies in, and its name there.
  [[nodiscard]] Result<int> parent_of(const std::string& path, std::string& name);
  [[nodiscard]] Status dress(int file, const IndexEntry& entry,
                             const std::vector<Attribute>& attributes);
  [[nodiscard]] Result<bool> give_owner(int file, const IndexEntry& entry);

  std::string path_;
  os::Descriptor root_;
  std::vector<Open> open_;  // the way to the directory that was used last
  os::Descriptor file_;
  std::string file_path_;
  std::map<std::string, std::vector<Attribute>> attributes_;
  std::vector<std::string> warnings_;
  std::size_t more_warnings_ = 0, other_owners_ = 0;
};

}  // namespace zx::backup
