// Bare TCP connection attempts that are waited for, each on a loop of its own.
#pragma once

#include <string>

#include "lib/net/loop.h"

namespace zx::net {

// One attempt; `address` may be a name. Tcp::unreachable also when that cannot be looked up.
[[nodiscard]] Tcp try_tcp(const std::string& address, int port, Deadline deadline);
// Every one of `tries` attempts, `apart` from each other and each within `span`, is refused: for
// "refused" to be more than one unlucky moment. The first that is not ends it.
[[nodiscard]] bool refuses_tcp(const std::string& address, int port, int tries, Millis apart,
                               Millis span);

}  // namespace zx::net
