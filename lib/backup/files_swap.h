// A restored tree of files takes the place of the one that is there, and gives it back. PATH.zxnew
// is what was restored, PATH.zxold what was there before.
#pragma once

#include <string>

#include "lib/base/error.h"

namespace zx::backup {

[[nodiscard]] std::string aside_path(const std::string& path);  // PATH.zxnew
[[nodiscard]] std::string kept_path(const std::string& path);   // PATH.zxold

// Can the tree be replaced by renaming? Code::refused for a symbolic link, a mount point, a parent
// that is not there, or when one of the two names is taken.
[[nodiscard]] Status can_be_swapped(const std::string& path);

// By two renames; right when repeated after zx was killed between them.
[[nodiscard]] Status swap_tree_in(const std::string& path);
// `had_old`: there was a tree before.
[[nodiscard]] Status swap_tree_back(const std::string& path, bool had_old);
// Not an error when it is gone. Nothing is followed.
[[nodiscard]] Status remove_tree(const std::string& path);

}  // namespace zx::backup
