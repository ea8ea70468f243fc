// How many rows of each table are in a dump of pg_dump -Fc -Z0, counted as it comes: nothing is
// asked of the server for it. The format is that of pg_backup_custom.c and pg_backup_archiver.c.
// Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "lib/base/error.h"

namespace zx::backup {

class DumpRows {
 public:
  // Schema and name, as they are and not quoted.
  using Rows = std::map<std::pair<std::string, std::string>, std::uint64_t>;

  void feed(std::string_view piece);
  // Of every table whose rows were to be dumped. Code::failed when it ended in the middle, refused
  // when it is of a format that is not known here: somebody else must count then.
  [[nodiscard]] Result<Rows> finish() const;

 private:
  enum class At { head, block, piece, rows, blobs, end };
  struct Table {
    std::string schema, name;
    std::uint64_t newlines = 0;
  };
  [[nodiscard]] bool read_head();
  [[nodiscard]] bool read_block();
  void give_up(std::string why);

  At at_ = At::head;
  std::string held_;          // of what is not read yet: the head, or a number
  std::size_t int_size_ = 4;  // bytes of a number
  std::map<std::int64_t, Table> tables_;
  Table* table_ = nullptr;  // whose rows these are
  bool in_blob_ = false;
  std::uint64_t left_ = 0;  // bytes of this piece
  std::string problem_;
};

}  // namespace zx::backup
