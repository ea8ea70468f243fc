// A restored tree of files takes the place of the one that is there, and gives it back. PATH.zxnew
// is what was restored, PATH.zxold what was there before.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace zx::backup {

[[nodiscard]] bool is_there(const std::string& path);           // also a link that leads nowhere
[[nodiscard]] std::string aside_path(const std::string& path);  // PATH.zxnew
[[nodiscard]] std::string kept_path(const std::string& path);   // PATH.zxold

// Can the tree be replaced by renaming? Code::refused for a symbolic link, a mount point, one below
// it, a parent that is not there, or when one of the two names is taken.
[[nodiscard]] Status can_be_swapped(const std::string& path);

// The inode of a directory, which a rename does not change. Code::not_found when there is none.
[[nodiscard]] Result<std::uint64_t> inode_of(const std::string& path);
// Is there a tree that goes to PATH.zxold, or that has gone there?
[[nodiscard]] bool had_tree(const std::string& path);
// Code::refused unless PATH.zxnew is the directory that was loaded, or PATH is, swapped already.
// `loaded` is its inode; 0: not known.
[[nodiscard]] Status can_swap_tree_in(const std::string& path, std::uint64_t loaded);
// By two renames; right when repeated after zx was killed between them.
[[nodiscard]] Status swap_tree_in(const std::string& path, std::uint64_t loaded);
// `had_old`: there was a tree before.
[[nodiscard]] Status swap_tree_back(const std::string& path, bool had_old);

// Code::refused when something is mounted at `path` or below it.
[[nodiscard]] Status holds_no_mount(const std::string& path);
// Not an error when it is gone. Nothing is followed, and nothing of another file system is removed:
// Code::refused, before anything is, where one is mounted in it.
[[nodiscard]] Status remove_tree(const std::string& path);

// Pure: of the text of /proc/self/mountinfo the first mount point that is `path` or lies below it.
[[nodiscard]] std::optional<std::string> mount_within(std::string_view mountinfo,
                                                      const std::string& path);

}  // namespace zx::backup
