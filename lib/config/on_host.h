// The way to a host: `zx node OP` there, with JSON in and out. What may be asked is each room's own
// table of operations.
#pragma once

#include <string>
#include <vector>

#include "lib/base/json.h"
#include "lib/config/config.h"

namespace zx::config {

struct NodeOp {
  enum class Kind {
    act,       // once begun it is worth waiting for
    question,  // asked again or done without: no longer than its deadline, or a little
    long_work  // may take hours: a signal ends it
  };
  std::string name;  // "pg-fence"
  std::string summary;
  Result<Json> (*run)(const Json& request);
  Kind kind = Kind::act;
  // A field of the request that names a file of the host that asks. On another host its bytes
  // follow the line of the request, and "carried_bytes" says how many; else it is read by its name.
  std::string carries = {};
};
using NodeOps = std::vector<NodeOp>;
[[nodiscard]] const NodeOp* find_op(const NodeOps& ops, const std::string& name);
// In this process. Code::usage for a name that is none of `ops`.
[[nodiscard]] Result<Json> run_node_op(const NodeOps& ops, const std::string& name,
                                       const Json& request);

// The answer as one line of JSON: {"ok": true, "result": …} or {"ok": false, "error": {…}}.
[[nodiscard]] std::string answer_line(const Result<Json>& result);

// Does `op`, one of `ops`, on the host: in this process when its `remote` is [], else through
// `remote` as `PREFIX… PROGRAM node OP` with the request on stdin, so that no password and no path
// passes a remote shell; "deadline_ms" is added. Code::unreachable when the host gives no answer of
// this form; Code::config when the host has no `remote`.
[[nodiscard]] Result<Json> on_host(const Host& host, const NodeOps& ops, const std::string& op,
                                   const Json& request, Millis deadline);
[[nodiscard]] std::vector<std::string> remote_argv(const Host& host, const std::string& op);

}  // namespace zx::config
