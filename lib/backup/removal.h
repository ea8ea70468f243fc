// Removes for good, by open directories: whoever renames one meanwhile, or puts a link in its
// place, leads it nowhere else.
#pragma once

#include <functional>
#include <string>

#include "lib/base/error.h"
#include "lib/os/files.h"

namespace zx::backup {

// The error of a path that could not be removed, with errno.
using CannotRemove = std::function<Error(const std::string& path, int number)>;

// What `name` is in an open directory, and all below it. Not an error when it is gone. Nothing is
// followed, and nothing of another file system than that of the tree is removed: Code::refused.
// `path` is for messages.
[[nodiscard]] Status remove_in(const os::Descriptor& parent, const std::string& name,
                               const std::string& path, const CannotRemove& cannot);

}  // namespace zx::backup
