// What zx does to a PostgreSQL data directory on the host that has it. Runs there, as root or as
// the directory's owner: from `zx node …`, or in this process when the host is this one.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/os/process.h"
#include "lib/pg/facts.h"

namespace zx::pg {

// Which server, and how it is started. From the configuration, sent along with every request.
struct DataDir {
  std::string node;
  std::string path;
  std::string bin_dir;
  int port = 0;                    // that zx.toml says
  std::string config_file;         // empty: postgresql.conf in `path`
  std::string service;             // systemd unit, or
  std::vector<std::string> start;  // argv, or neither: zx starts `postgres` itself
  std::vector<std::string> stop;
};
[[nodiscard]] Json to_json(const DataDir& dir);
[[nodiscard]] Result<DataDir> data_dir_from_json(const Json& json);

// PG_VERSION and global/pg_control are there, and the version is one that zx knows.
[[nodiscard]] Status check_data_dir(const DataDir& dir);

// Never fails: what could not be had is named in LocalFacts::problem. With `wal_from` the end of
// the WAL is read from there on (pg_waldump), which only a stopped server has.
[[nodiscard]] LocalFacts inspect(const DataDir& dir, const std::optional<Lsn>& wal_from);

// Fence: from here on nothing can bring this server back as a primary by starting it, and no
// process of it is left. Order matters: standby.signal is made durable first, then every process
// with the directory as its working directory is ended. A postmaster enters the directory before
// it looks for standby.signal, so one that is not seen after that will find the file.
struct FenceReport {
  int ended = 0;            // processes that were there
  bool killed = false;      // SIGKILL was needed
  bool was_fenced = false;  // by an earlier call
  std::string control_mark;
};
// Of the control file, which a server writes as it starts and before it writes any WAL: as it was
// before, no server has written there since. Empty: it cannot be read.
[[nodiscard]] std::string control_mark(const DataDir& dir);
[[nodiscard]] Result<FenceReport> fence(const DataDir& dir, const std::string& run,
                                        Deadline deadline);
// Takes back what fence() of `run` did to the files: standby.signal goes only when that fence made
// it. Does not start the server.
[[nodiscard]] Status unfence(const DataDir& dir, const std::string& run);
// The fence record goes, standby.signal stays: the server is a standby again for good.
[[nodiscard]] Status forget_fence(const DataDir& dir);

// A clean stop (fast mode) with standby.signal in place before, so that a restart is a standby's.
struct StopReport {
  std::string control_state;  // "shut down"
  Lsn checkpoint;             // of the shutdown
};
[[nodiscard]] Result<StopReport> stop_clean(const DataDir& dir, const std::string& run,
                                            Deadline deadline);
// Ends whatever runs there: the configured stop first, then as fence() does. No file is touched.
[[nodiscard]] Status stop_now(const DataDir& dir, Deadline deadline);
// Starts it as configured and waits until it accepts connections. An Error has the end of its log.
[[nodiscard]] Status start(const DataDir& dir, Deadline deadline);

// --- shared with rejoin.cc --------------------------------------------------------------------

[[nodiscard]] Result<os::User> owner_of(const DataDir& dir);
[[nodiscard]] std::string program(const DataDir& dir, const std::string& name);
[[nodiscard]] Result<std::vector<os::FoundProcess>> server_processes(const DataDir& dir);
// Runs `postgres` in the directory with extra settings and waits for "ready" in postmaster.pid.
[[nodiscard]] Status run_server(const DataDir& dir, const std::vector<std::string>& settings,
                                Deadline deadline);
[[nodiscard]] Status end_server(const DataDir& dir, int signal, Deadline deadline);
[[nodiscard]] Result<std::map<std::string, std::string>> control_data(const DataDir& dir);
// What a server that zx started said on its stderr.
[[nodiscard]] std::string start_log_path(const DataDir& dir);
// The line with which it ended itself, else the last ones.
[[nodiscard]] std::string last_words(const DataDir& dir);
[[nodiscard]] std::string marker_path(
    const DataDir& dir);  // of an unfinished rewind, beside the directory
[[nodiscard]] std::string old_path(
    const DataDir& dir);  // where a rebuild keeps what it replaces until the copy streams

}  // namespace zx::pg
