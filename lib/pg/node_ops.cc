#include "lib/pg/node_ops.h"

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/os/file_lock.h"
#include "lib/os/process.h"
#include "lib/os/signals.h"
#include "lib/pg/crash_recovery.h"
#include "lib/pg/observe.h"
#include "lib/pg/rejoin_dir.h"

namespace zx::pg {
namespace {

Deadline deadline_of(const Json& request) {
  return Deadline::after(
      Millis(std::max<std::int64_t>(1, get_int(request, "deadline_ms", 30'000))));
}

Result<DataDir> dir_of(const Json& request) {
  return data_dir_from_json(get_object(request, "dir"));
}

Result<Lsn> lsn_of(const Json& request, const char* key) {
  const auto lsn = parse_lsn(get_string(request, key));
  if (!lsn) return fail(Code::usage, fmt::format("the request has no position \"{}\"", key));
  return *lsn;
}

Source source_of(const Json& request) {
  const auto& source = get_object(request, "source");
  return {get_string(source, "conninfo"), get_string(source, "password")};
}

Result<Json> nothing_more(const Status& status) {
  if (!status) return fail(status.error());
  return Json::object();
}

Result<Json> op_inspect(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return to_json(inspect(dir, parse_lsn(get_string(request, "wal_from"))));
}

Result<Json> op_fence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto report, fence(dir, get_string(request, "run"), deadline_of(request)));
  return Json{{"ended", report.ended},
              {"killed", report.killed},
              {"was_fenced", report.was_fenced},
              {"control_mark", report.control_mark}};
}

Result<Json> op_unfence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(unfence(dir, get_string(request, "run")));
}

Result<Json> op_forget_fence(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(forget_fence(dir));
}

Result<Json> op_stop_clean(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto report, stop_clean(dir, get_string(request, "run"), deadline_of(request)));
  return Json{{"control_state", report.control_state},
              {"checkpoint", to_string(report.checkpoint)}};
}

Result<Json> op_stop_now(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(stop_now(dir, deadline_of(request)));
}

Result<Json> op_start(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(start(dir, deadline_of(request)));
}

Result<Json> op_keep_wal(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto from, lsn_of(request, "from"));
  ZX_ASSIGN(const auto kept,
            keep_wal(dir, static_cast<std::uint32_t>(get_int(request, "timeline")), from,
                     static_cast<std::uint64_t>(get_int(request, "segment_size", 16 << 20)),
                     get_string(request, "run")));
  return Json{{"from", to_string(kept.from)},
              {"end", to_string(kept.end)},
              {"bytes", kept.bytes},
              {"commits", kept.commits},
              {"directory", kept.directory}};
}

Result<Json> op_settle(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(settle(dir, deadline_of(request)));
}

// Two that write the same directory would ruin it: the zx that asked for the first may be gone
// while that one still works on another host.
Result<os::FileLock> alone_in(const DataDir& dir, const char* what) {
  return os::FileLock::take(dir.path + ".zx-lock", fmt::format("{} of {}", what, dir.node));
}

Result<Json> op_rewind(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto lock, alone_in(dir, "the rewind"));
  ZX_ASSIGN(const auto words, rewind(dir, source_of(request), deadline_of(request)));
  return Json{{"said", words}};
}

Result<Json> op_rebuild(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto lock, alone_in(dir, "the rebuild"));
  return nothing_more(
      rebuild(dir, source_of(request), get_string(request, "run"), deadline_of(request)));
}

Result<Json> op_undo_rebuild(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  // The one that was interrupted may still be at work on this host; its tool is ended first.
  const auto patience = deadline_of(request).at_most(Millis(10'000));
  while (true) {
    const auto lock = alone_in(dir, "taking back the rebuild");
    if (lock || patience.passed()) {
      if (!lock) return fail(lock.error());
      return nothing_more(undo_rebuild(dir, get_string(request, "run"), deadline_of(request)));
    }
    pause_for(Millis(50));
  }
}

Result<Json> op_drop_old(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(drop_leavings(dir));
}

Result<Json> op_own_upstream(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto own, own_upstream(dir));
  return Json{{"conninfo", own.conninfo}, {"had_password", own.had_password}};
}

Result<Json> op_configure_standby(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  return nothing_more(configure_standby(dir, get_string(request, "conninfo"),
                                        get_string(request, "slot"),
                                        get_string(request, "password")));
}

Result<Json> op_write_passfile(const Json& request) {
  ZX_ASSIGN(const auto dir, dir_of(request));
  ZX_ASSIGN(const auto path,
            write_passfile(dir, get_string(request, "user"), get_string(request, "password")));
  return Json{{"path", path}};
}

// Looks at another node from this host: the second opinion on a primary that the first cannot
// reach.
Result<Json> op_probe(const Json& request) {
  Target target;
  target.name = get_string(request, "name");
  target.address = get_string(request, "address");
  target.port = static_cast<int>(get_int(request, "port"));
  target.user = get_string(request, "user");
  target.password = get_string(request, "password");
  target.database = get_string(request, "database", "postgres");
  target.sslmode = get_string(request, "sslmode", "prefer");
  target.sslrootcert = get_string(request, "sslrootcert");
  if (target.address.empty() || target.port < 1 || target.port > 65535)
    return fail(Code::usage, "the request names no address and port");
  const auto snapshot = observe({target}, deadline_of(request).left());
  const auto& facts = snapshot.nodes.front();
  return Json{{"failure", name_of(facts.failure)},
              {"role", name_of(facts.role)},
              {"error", facts.error.message}};
}

}  // namespace

const std::vector<NodeOp>& node_ops() {
  static const std::vector<NodeOp> ops{
      {"pg-inspect", "what the data directory says", op_inspect},
      {"pg-probe", "looks at another node from this host", op_probe},
      {"pg-fence", "stops the server at once and keeps it from being a primary again", op_fence},
      {"pg-unfence", "takes back the files of a fence", op_unfence},
      {"pg-forget-fence", "removes the record of a fence", op_forget_fence},
      {"pg-stop-clean", "stops the server cleanly, to return as a standby", op_stop_clean},
      {"pg-stop", "stops whatever runs in the data directory", op_stop_now},
      {"pg-start", "starts the server and waits until it answers", op_start},
      {"pg-keep-wal", "keeps the WAL that is given up", op_keep_wal},
      {"pg-settle", "makes the files of a crashed server consistent", op_settle},
      {"pg-rewind", "runs pg_rewind", op_rewind},
      {"pg-rebuild", "makes the data directory anew with pg_basebackup", op_rebuild},
      {"pg-undo-rebuild", "puts back the directory that a rebuild replaced", op_undo_rebuild},
      {"pg-drop-old", "removes the directory that a rebuild kept", op_drop_old},
      {"pg-own-upstream", "the connection string it follows with", op_own_upstream},
      {"pg-write-passfile", "keeps the password that it follows with", op_write_passfile},
      {"pg-configure-standby", "makes the stopped server a standby", op_configure_standby},
  };
  return ops;
}

Result<Json> run_node_op(const std::string& name, const Json& request) {
  for (const auto& op : node_ops())
    if (op.name == name) return op.run(request);
  return fail(Code::usage, "this zx knows no node operation " + name,
              "use the same version of zx on every host");
}

std::string answer_line(const Result<Json>& result) {
  if (result) return dump_line(Json{{"ok", true}, {"result", *result}});
  return dump_line(Json{{"ok", false}, {"error", to_json(result.error())}});
}

std::vector<std::string> remote_argv(const config::Host& host, const std::string& op) {
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

namespace {

Result<Json> ask_host(const config::Host& host, const std::string& op, const Json& request,
                      Millis deadline) {
  if (!host.remote)
    return fail(Code::config,
                fmt::format("host {} has no \"remote\": zx can do nothing there", host.name),
                fmt::format("set remote of [hosts.{}]: [] when it is this host, else for example "
                            "[\"ssh\", \"-oBatchMode=yes\", \"{{address}}\"]",
                            host.name));
  Json full = request;
  full["deadline_ms"] = deadline.count();
  if (host.remote->empty()) return run_node_op(op, full);
  os::ProcessOptions options;
  options.input = dump_line(full) + "\n";
  // They may take hours, or minutes of a host that is out of sight meanwhile.
  if (op == "pg-rebuild" || op == "pg-keep-wal") options.cancelled = os::interrupted;
  // The other side keeps the deadline; this is for a lost host. A question is asked again or done
  // without, what was begun is worth waiting for.
  const bool is_question = op == "pg-inspect" || op == "pg-probe";
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

Result<Json> on_host(const config::Host& host, const std::string& op, const Json& request,
                     Millis deadline) {
  const auto began = monotonic_now();
  auto answer = ask_host(host, op, request, deadline);
  log::debug(fmt::format("{} on {}: {} after {}", op, host.name,
                         answer ? "done" : answer.error().message, format_duration(since(began))));
  return answer;
}

DataDir data_dir_of(const config::PgCluster& cluster, const config::PgNode& node) {
  DataDir dir;
  dir.node = node.name;
  dir.path = node.data_dir;
  dir.bin_dir = cluster.bin_dir;
  dir.port = node.port;
  dir.config_file = node.config_file;
  dir.service = node.service;
  dir.start = node.start;
  dir.stop = node.stop;
  return dir;
}

}  // namespace zx::pg
