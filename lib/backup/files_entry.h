// What the kernel says of a file, as an index wants it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lib/backup/files_archive.h"
#include "lib/backup/files_index.h"

namespace zx::backup {

// What the kernel says of an open or looked-at file, as an entry without path, sum and set.
[[nodiscard]] IndexEntry entry_of(const struct stat& found);
// Did nobody touch it between the two?
[[nodiscard]] bool is_same(const struct stat& before, const struct stat& after);
// May what `earlier` says be taken for `now`, without reading it? Not when it was changed so
// shortly before that look, which began at `begun_ns`, that a change after it could have left the
// same times. Pure.
[[nodiscard]] bool is_unchanged(const IndexEntry& earlier, const IndexEntry& now,
                                std::int64_t begun_ns);

// Code::auth when this user may not, not_found when it is not there any more, else io. `path` as a
// person knows it.
[[nodiscard]] Error cannot_read(const std::string& what, const std::string& path, int number);
// Of an open file or directory; none where the file system has none.
[[nodiscard]] Result<std::vector<Attribute>> attributes_of(int file, const std::string& path);

// Names one after the other: a directory may have millions.
class Names {
 public:
  // Of an open directory, in the order of their bytes. Code::not_found when it was removed.
  [[nodiscard]] Status read(int directory, const std::string& path);
  [[nodiscard]] std::size_t size() const { return begins_.size(); }
  [[nodiscard]] const char* operator[](std::size_t at) const { return text_.data() + begins_[at]; }

 private:
  std::string text_;
  std::vector<std::size_t> begins_;
};

}  // namespace zx::backup
