// Which archives of earlier sets a set had better not refer to any more: what it needs of them is
// stored anew, so that a tree never lies in very many archives and little in them is dead. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/backup/files_index.h"

namespace zx::backup {

// A set refers to one more at most, the one that it makes itself.
inline constexpr std::size_t kMostArchives = 60;

// An archive, and what of it is needed.
struct ArchiveNeed {
  std::string set;           // that wrote it
  std::uint64_t total = 0;   // bytes in it, decompressed
  std::uint64_t needed = 0;  // of these
  bool operator==(const ArchiveNeed&) const = default;
};

// What an index needs of each archive, by the sets that wrote them: bytes that its members take
// there, about. All of the index is read.
[[nodiscard]] Result<std::map<std::string, std::uint64_t>> needed_of(IndexReader& index);

// By their totals alone, may any of them be one to give up? Of a set with so many files and bytes
// of content: reading its index costs more than it is worth in most runs. Sparse files count with
// all their size, so that in a tree of these less is found dead.
[[nodiscard]] bool may_give_up(const std::vector<ArchiveNeed>& archives, std::uint64_t files,
                               std::uint64_t bytes);

// Less than a quarter of it is needed, and it is not tiny.
[[nodiscard]] bool is_mostly_dead(const ArchiveNeed& archive);

// The sets whose archives are to be given up, at the cost of at most `room` bytes that are stored
// anew. Those that are mostly dead; and when there are kMostArchives, the smallest ones until half
// as many are left, with every one that is no larger than all before it together. So a byte is
// stored anew a few times in its life, as in a log-structured merge tree, and what is stored anew
// is what was new lately, not the large archive of the first set.
[[nodiscard]] std::vector<std::string> archives_to_give_up(std::vector<ArchiveNeed> archives,
                                                           std::uint64_t room);

}  // namespace zx::backup
