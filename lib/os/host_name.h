// What this host calls itself.
#pragma once

#include <string>

namespace zx::os {

// gethostname(2), cleaned of what is no UTF-8 and of control characters.
[[nodiscard]] std::string host_name();

}  // namespace zx::os
