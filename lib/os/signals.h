// SIGINT and SIGTERM as a question that a loop asks.
#pragma once

#include <optional>

#include "lib/base/error.h"

namespace zx::os {

// Call once in main. The first signal is noted; a second SIGINT ends the process at once.
// SIGPIPE is ignored.
void catch_signals();
[[nodiscard]] bool interrupted();
// The error of the signal that came, if one came.
[[nodiscard]] std::optional<Error> interruption();

}  // namespace zx::os
