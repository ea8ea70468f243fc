// The names that a set needs of each archive, kept aside until it is known which archives it needs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/backup/object.h"
#include "lib/os/files.h"

namespace zx::backup {

// However many there are, they take a few MiB of memory and one descriptor, of a file without a
// name.
class NameLists {
 public:
  // A path beside which that file may lie.
  explicit NameLists(std::string beside) : beside_(std::move(beside)) {}
  // Names of the archive of `set`, each with a NUL behind it.
  [[nodiscard]] Status add(const std::string& set, std::string_view names);
  [[nodiscard]] bool has(const std::string& set) const { return lists_.count(set) != 0; }
  [[nodiscard]] std::size_t size() const { return lists_.size(); }
  // All of one, as the object `path`, written as `file`.
  [[nodiscard]] Result<Object> store(const std::string& set, const std::string& file,
                                     const std::string& path, int level);

 private:
  struct Piece {
    off_t at = 0;
    std::size_t size = 0;
  };
  struct List {
    std::vector<Piece> pieces;  // of the file, before what is in the buffer
    std::string buffer;
  };
  [[nodiscard]] Status flush();
  [[nodiscard]] Status put(std::string_view bytes);

  std::string beside_;
  os::Descriptor file_;  // none while all is in memory
  off_t end_ = 0;
  std::map<std::string, List> lists_;
  std::pair<const std::string, List>* last_ = nullptr;
  std::size_t buffered_ = 0;
};

}  // namespace zx::backup
