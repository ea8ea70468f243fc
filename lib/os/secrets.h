// Where passwords come from. Never from a flag, never into a log.
#pragma once

#include <string>

#include "lib/base/error.h"

namespace zx::os {

// The first line of a regular file that only its owner can read (mode 0600 or 0400), else
// Code::config; Code::auth when this user may not read it.
// A relative name is looked up in $CREDENTIALS_DIRECTORY (systemd) when that is set, else in the
// directory `base`.
[[nodiscard]] Result<std::string> read_secret_file(const std::string& path,
                                                   const std::string& base);

// "${NAME}" as a whole becomes the value of that environment variable; Code::config when it is not
// set. Any other text is returned as it is.
[[nodiscard]] Result<std::string> expand_environment(const std::string& text);

}  // namespace zx::os
