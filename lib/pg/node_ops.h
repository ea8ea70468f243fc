// What may be asked of a host about PostgreSQL, by name, with JSON in and out.
#pragma once

#include <string>

#include "lib/base/json.h"
#include "lib/config/config.h"
#include "lib/config/on_host.h"
#include "lib/pg/data_dir.h"

namespace zx::pg {

[[nodiscard]] const config::NodeOps& node_ops();
[[nodiscard]] Result<Json> run_node_op(const std::string& name, const Json& request);
// One of node_ops(), see lib/config/on_host.h.
[[nodiscard]] Result<Json> on_host(const config::Host& host, const std::string& op,
                                   const Json& request, Millis deadline);

[[nodiscard]] DataDir data_dir_of(const config::PgCluster& cluster, const config::PgNode& node);

}  // namespace zx::pg
