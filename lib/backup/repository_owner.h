// Who owns what is made in a repository. As root in a repository of another, what is made is given
// to its owner, who could neither read nor delete it otherwise. Names there may come from an enemy:
// no link is followed, and a file that has another name elsewhere is not given away.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/os/files.h"

namespace zx::backup {

// To whom; nothing unless zx is root and the directory is another's.
[[nodiscard]] Result<std::optional<os::Owner>> heir_of(const std::string& repository);

// `path`, relative to the repository, and all below it. Durable.
[[nodiscard]] Status give_away(const std::string& repository, const std::string& path,
                               const os::Owner& owner);

// What is in an open directory, sorted; its path is for the words of an error.
[[nodiscard]] Result<std::vector<std::string>> names_of(const os::Descriptor& directory,
                                                        const std::string& path);

}  // namespace zx::backup
