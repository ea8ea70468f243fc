// Work that several threads take turns at.
#pragma once

#include <cstddef>
#include <functional>

#include "lib/base/error.h"

namespace zx::os {

// Runs work(0) … work(count - 1), at most `jobs` of them at once, and returns when all that began
// have ended: the first error that came, after which none begins. They are interrupted when the
// caller is. An error that others cause by it comes after it: `failed`, which may be empty, is
// called between the two.
[[nodiscard]] Status in_turns(std::size_t count, int jobs,
                              const std::function<Status(std::size_t)>& work,
                              const std::function<void()>& failed = {});

}  // namespace zx::os
