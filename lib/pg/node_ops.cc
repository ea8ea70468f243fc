#include "lib/pg/node_ops.h"

#include <fmt/format.h>

#include "lib/base/units.h"
#include "lib/os/file_lock.h"
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

const config::NodeOps& node_ops() {
  using enum config::NodeOp::Kind;
  static const config::NodeOps ops{
      {"pg-inspect", "what the data directory says", op_inspect, question},
      {"pg-probe", "looks at another node from this host", op_probe, question},
      {"pg-fence", "stops the server at once and keeps it from being a primary again", op_fence},
      {"pg-unfence", "takes back the files of a fence", op_unfence},
      {"pg-forget-fence", "removes the record of a fence", op_forget_fence},
      {"pg-stop-clean", "stops the server cleanly, to return as a standby", op_stop_clean},
      {"pg-stop", "stops whatever runs in the data directory", op_stop_now},
      {"pg-start", "starts the server and waits until it answers", op_start},
      {"pg-keep-wal", "keeps the WAL that is given up", op_keep_wal, long_work},
      {"pg-settle", "makes the files of a crashed server consistent", op_settle},
      {"pg-rewind", "runs pg_rewind", op_rewind},
      {"pg-rebuild", "makes the data directory anew with pg_basebackup", op_rebuild, long_work},
      {"pg-undo-rebuild", "puts back the directory that a rebuild replaced", op_undo_rebuild},
      {"pg-drop-old", "removes the directory that a rebuild kept", op_drop_old},
      {"pg-own-upstream", "the connection string it follows with", op_own_upstream},
      {"pg-write-passfile", "keeps the password that it follows with", op_write_passfile},
      {"pg-configure-standby", "makes the stopped server a standby", op_configure_standby},
  };
  return ops;
}

Result<Json> run_node_op(const std::string& name, const Json& request) {
  return config::run_node_op(node_ops(), name, request);
}

Result<Json> on_host(const config::Host& host, const std::string& op, const Json& request,
                     Millis deadline) {
  return config::on_host(host, node_ops(), op, request, deadline);
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
