// The list of every file of a tree in a set, one line each, readable with `zstd -dc … | less`.
// Pure.
//
//   zx-files TAB 1 TAB when the look at the tree began
//   type TAB mode TAB uid TAB gid TAB size TAB mtime TAB ctime TAB inode TAB SHA-256 TAB set TAB
//   path [TAB target]
//
// Times are nanoseconds since 1970, mode is octal. The type is f (file), d (directory) or l
// (symbolic link, which alone has a target). Only files have a size and a SHA-256, "-" stands for
// none. `set` is the id of the set whose archive holds the member. In path and target a tab, a
// newline and a backslash are \t, \n and \\; all other bytes are as they are, UTF-8 or not.
// The lines come in the order of comes_before(), the directory "." first, a directory before what
// is in it; an archive has its members in the same order.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"

namespace zx::backup {

inline constexpr int kIndexFormat = 1;

struct IndexEntry {
  char type = 'f';
  std::uint32_t mode = 0;  // the permission bits, 07777 at most
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0, ctime = 0;  // ns
  std::uint64_t inode = 0;
  std::string sha256;
  std::string set;
  std::string path;  // relative to the tree; the tree itself is "."
  std::string target;
  bool operator==(const IndexEntry&) const = default;
};

[[nodiscard]] std::string index_head(std::int64_t begun_ns);
// Code::refused for a newer format, failed for anything else.
[[nodiscard]] Result<std::int64_t> read_index_head(std::string_view line);
// One line with its newline.
void append_line(std::string& text, const IndexEntry& entry);
// A line without its newline. `entry` keeps its memory from line to line.
[[nodiscard]] Status read_line(std::string_view line, IndexEntry& entry);

// Component by component: what is in a directory comes right after it.
[[nodiscard]] bool comes_before(std::string_view path, std::string_view other);
// "." or a relative path without empty, "." and ".." components and without NUL.
[[nodiscard]] bool is_tree_path(std::string_view path);
// As a message shows it: one line of UTF-8.
[[nodiscard]] std::string shown(std::string_view path);

// Reads an index piece by piece and holds it to its order: every path once, in a directory that
// the index has. What a hostile index says can therefore not lead through a link.
class IndexReader {
 public:
  // The next piece, good until the next call; empty: the end.
  using More = std::function<Result<std::string_view>()>;
  explicit IndexReader(More more) : more_(std::move(more)) {}
  // False: the end. Code::failed for what is no index; errors of `more`.
  [[nodiscard]] Result<bool> next(IndexEntry& entry);
  // The line of that entry with its newline, good until the next call.
  [[nodiscard]] std::string_view line() const { return text_; }
  // When the look began; known once next() has been called.
  [[nodiscard]] std::int64_t begun_ns() const { return begun_ns_; }

 private:
  [[nodiscard]] Result<bool> next_line(std::string_view& line);
  [[nodiscard]] Status in_order(const IndexEntry& entry);
  More more_;
  std::string rest_;        // a line that ends in a later piece
  std::string_view piece_;  // what is not yet read of the present one
  std::string_view text_;
  std::string directory_;  // the last one that was listed
  std::string last_;
  std::int64_t begun_ns_ = 0;
  std::uint64_t line_ = 0;
};

// Which names of a tree are meant, by patterns of fnmatch(3) in which "*" also stands for "/". One
// without "/" is compared with the last part of a path, another with all of it.
class Patterns {
 public:
  explicit Patterns(const std::vector<std::string>& patterns);
  [[nodiscard]] bool empty() const { return names_.empty() && paths_.empty(); }
  [[nodiscard]] bool match(const std::string& path) const;

 private:
  std::vector<std::string> names_, paths_;
};

}  // namespace zx::backup
