#include "lib/config/on_host.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/os/process.h"
#include "lib/os/signals.h"

namespace zx::config {
namespace {

Result<Json> ask_host(const Host& host, const NodeOps& ops, const std::string& op,
                      const Json& request, Millis deadline) {
  if (!host.remote)
    return fail(Code::config,
                fmt::format("host {} has no \"remote\": zx can do nothing there", host.name),
                fmt::format("set remote of [hosts.{}]: [] when it is this host, else for example "
                            "[\"ssh\", \"-oBatchMode=yes\", \"{{address}}\"]",
                            host.name));
  Json full = request;
  full["deadline_ms"] = deadline.count();
  if (host.remote->empty()) return run_node_op(ops, op, full);
  const auto* known = find_op(ops, op);
  const auto kind = known != nullptr ? known->kind : NodeOp::Kind::act;
  os::ProcessOptions options;
  if (known != nullptr && !known->carries.empty()) {
    options.input_file = get_string(request, known->carries.c_str());
    struct stat found {};
    if (stat(options.input_file.c_str(), &found) != 0)
      return fail(errno_error(errno == ENOENT ? Code::not_found : Code::io,
                              "cannot read " + options.input_file, errno));
    full["carried_bytes"] = found.st_size;
  }
  options.input = dump_line(full) + "\n";
  // They may take hours, or minutes of a host that is out of sight meanwhile.
  if (kind == NodeOp::Kind::long_work) options.cancelled = os::interrupted;
  // The other side keeps the deadline; this is for a lost host. A question is asked again or done
  // without, what was begun is worth waiting for.
  const bool is_question = kind == NodeOp::Kind::question;
  options.deadline = deadline + (is_question ? std::min(deadline, Millis(1000)) : Millis(1000));
  auto result = os::run(remote_argv(host, op), options);
  if (!result) {
    auto error = result.error();
    error.message = fmt::format("host {}: {}", host.name, error.message);
    return fail_while(std::move(error), "asking for " + op);
  }
  const auto answer = parse_json(trim(result->out), "the answer");
  if (!answer || !get_object(*answer, "ok").is_boolean()) {
    const auto words = first_line(result->err.empty() ? result->out : result->err);
    return fail(Code::unreachable,
                fmt::format("host {} gave no answer to {}: {}", host.name, op,
                            words.empty() ? fmt::format("status {}", result->exit) : words),
                fmt::format("try it: {} --version", [&] {
                  auto argv = remote_argv(host, op);
                  argv.resize(argv.size() - 2);
                  return join(argv, " ");
                }()));
  }
  if (!get_bool(*answer, "ok")) return fail(error_from_json(get_object(*answer, "error")));
  return get_object(*answer, "result");
}

}  // namespace

const NodeOp* find_op(const NodeOps& ops, const std::string& name) {
  for (const auto& op : ops)
    if (op.name == name) return &op;
  return nullptr;
}

Result<Json> run_node_op(const NodeOps& ops, const std::string& name, const Json& request) {
  if (const auto* op = find_op(ops, name)) return op->run(request);
  return fail(Code::usage, "this zx knows no node operation " + name,
              "use the same version of zx on every host");
}

std::string answer_line(const Result<Json>& result) {
  if (result) return dump_line(Json{{"ok", true}, {"result", *result}});
  return dump_line(Json{{"ok", false}, {"error", to_json(result.error())}});
}

std::vector<std::string> remote_argv(const Host& host, const std::string& op) {
  std::vector<std::string> argv;
  for (auto word : *host.remote) {
    for (const auto& [name, value] :
         {std::pair<std::string, std::string>{"{address}", host.address}, {"{name}", host.name}})
      for (auto at = word.find(name); at != std::string::npos;
           at = word.find(name, at + value.size()))
        word.replace(at, name.size(), value);
    argv.push_back(std::move(word));
  }
  argv.insert(argv.end(), {host.program, "node", op});
  return argv;
}

Result<Json> on_host(const Host& host, const NodeOps& ops, const std::string& op,
                     const Json& request, Millis deadline) {
  const auto began = monotonic_now();
  auto answer = ask_host(host, ops, op, request, deadline);
  log::debug(fmt::format("{} on {}: {} after {}", op, host.name,
                         answer ? "done" : answer.error().message, format_duration(since(began))));
  return answer;
}

}  // namespace zx::config
