// What may be asked of a host about Redis, by name, with JSON in and out. Every request has "dir",
// a ServerDir.
#pragma once

#include <string>

#include "lib/base/json.h"
#include "lib/config/config.h"
#include "lib/config/on_host.h"
#include "lib/redis/server_dir.h"

namespace zx::redis {

[[nodiscard]] const config::NodeOps& node_ops();
// One of node_ops(), see lib/config/on_host.h.
[[nodiscard]] Result<Json> on_host(const config::Host& host, const std::string& op,
                                   const Json& request, Millis deadline);

// What the operations read of their requests.
[[nodiscard]] Deadline deadline_of(const Json& request);
[[nodiscard]] Result<ServerDir> dir_of(const Json& request);

}  // namespace zx::redis
