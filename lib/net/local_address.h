// Which of this host's addresses another host sees.
#pragma once

#include <string>

#include "lib/base/error.h"

namespace zx::net {

// The numeric address from which this host reaches `address`, which is numeric too. Nothing is
// sent. Code::unreachable when there is no way there.
[[nodiscard]] Result<std::string> local_address_towards(const std::string& address);

}  // namespace zx::net
