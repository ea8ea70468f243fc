// Which repository was last used at a path, so that a mount that is missing does not become a new,
// empty one. It is in state_dir/repository.json.
#pragma once

#include <optional>
#include <string>

#include "lib/base/error.h"

namespace zx::backup {

// Its id; nothing when none was used there.
[[nodiscard]] Result<std::optional<std::string>> known_repository(const std::string& state_dir,
                                                                  const std::string& path);
// Where a file that could not be understood is now, with what it knew of other paths; empty: it
// could.
[[nodiscard]] Result<std::string> know_repository(const std::string& state_dir,
                                                  const std::string& path, const std::string& id);

// May a backup go to what is `found` at `path` (an id; nothing: no repository)? Code::refused where
// another is known. Pure.
[[nodiscard]] Status is_expected(const std::string& path, const std::optional<std::string>& known,
                                 const std::optional<std::string>& found);

}  // namespace zx::backup
