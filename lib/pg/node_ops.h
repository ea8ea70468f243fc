// What may be asked of a host, by name, with JSON in and out: the one protocol of `zx node …`.
#pragma once

#include <string>
#include <vector>

#include "lib/base/json.h"
#include "lib/config/config.h"
#include "lib/pg/data_dir.h"

namespace zx::pg {

struct NodeOp {
  std::string name;  // "pg-fence"
  std::string summary;
  Result<Json> (*run)(const Json& request);
};
[[nodiscard]] const std::vector<NodeOp>& node_ops();
[[nodiscard]] Result<Json> run_node_op(const std::string& name, const Json& request);

// The answer as one line of JSON: {"ok": true, "result": …} or {"ok": false, "error": {…}}.
[[nodiscard]] std::string answer_line(const Result<Json>& result);

// Does `op` on the host: in this process when its `remote` is [], else through `remote` as
// `PREFIX… PROGRAM node OP` with the request on stdin, so that no password and no path passes
// a remote shell. Code::unreachable when the host gives no answer of this form; Code::config when
// the host has no `remote`.
[[nodiscard]] Result<Json> on_host(const config::Host& host, const std::string& op,
                                   const Json& request, Millis deadline);
[[nodiscard]] std::vector<std::string> remote_argv(const config::Host& host, const std::string& op);

[[nodiscard]] DataDir data_dir_of(const config::PgCluster& cluster, const config::PgNode& node);

}  // namespace zx::pg
