// What this binary is made of. The only file of the program that includes libpq.
#pragma once

#include <string_view>

#include "lib/base/json.h"

namespace zx::cli {

[[nodiscard]] std::string_view version();
// {"version", "commit", "compiler", "libraries": {name: version}}
[[nodiscard]] Json version_json();
[[nodiscard]] std::string version_text();

}  // namespace zx::cli
