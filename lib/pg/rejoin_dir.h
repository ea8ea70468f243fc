// Bringing the data directory of a node that is not the primary back behind the primary. Runs on
// the node's host, on a stopped and fenced server.
#pragma once

#include <map>
#include <string>

#include "lib/pg/data_dir.h"

namespace zx::pg {

// The new primary, as this host reaches it.
struct Source {
  std::string conninfo;  // host, port, user, dbname, sslmode: no password
  std::string password;  // for a .pgpass file that lives as long as the tool runs
};

// The WAL that the cluster has given up: every segment of `timeline` that has bytes after `from` is
// copied to `to`/<run>/, with receipt.json beside (range, bytes, commits).
struct Kept {
  Lsn from, end;
  std::uint64_t bytes = 0, commits = 0;
  std::string directory;  // empty when nothing was abandoned
};
[[nodiscard]] Result<Kept> keep_wal(const DataDir& dir, std::uint32_t timeline, Lsn from,
                                    std::uint64_t segment_size, const std::string& run);

// pg_rewind. While it works the directory has no PG_VERSION, so that nothing can start it; a marker
// beside the directory says so for good when it is interrupted. Settings files of this node are put
// back as they were. Returns pg_rewind's last line. For a server that has parted from the source:
// when pg_rewind does not see that, it is recovered as a primary first, see crash_recovery.h.
[[nodiscard]] Result<std::string> rewind(const DataDir& dir, const Source& source,
                                         Deadline deadline);

// pg_basebackup into `path`.zx-new, then in place of the directory, which is kept as `path`.zx-old
// until drop_leavings(). Settings files of this node are put back as they were; in place of an
// empty directory they are the source's, with the port of this node. A signal to zx ends it
// (Code::interrupted).
[[nodiscard]] Status rebuild(const DataDir& dir, const Source& source, const std::string& run,
                             Deadline deadline);
// Removes what `run` copied, and puts back the directory that it replaced, if that could be
// started.
[[nodiscard]] Status undo_rebuild(const DataDir& dir, const std::string& run, Deadline deadline);
// Removes what rebuilds have left beside the directory.
[[nodiscard]] Status drop_leavings(const DataDir& dir);

// In the data directory, for the `user` that it follows as. Returns its path. A password in
// primary_conninfo would stand in the server's log whenever it changes.
[[nodiscard]] Result<std::string> write_passfile(const DataDir& dir, const std::string& user,
                                                 const std::string& password);
// standby.signal and the settings with which it follows; an empty slot name resets it. A password
// goes into a passfile inside the directory, never into a settings file.
[[nodiscard]] Status configure_standby(const DataDir& dir, const std::string& conninfo,
                                       const std::string& slot, const std::string& password);
// The primary_conninfo it has now, without a password; empty when it has none.
struct OwnUpstream {
  std::string conninfo;
  bool had_password = false;
};
[[nodiscard]] Result<OwnUpstream> own_upstream(const DataDir& dir);

// postgresql.auto.conf with `settings` in place of what it said of them. Pure.
[[nodiscard]] std::string with_settings(std::string_view auto_conf,
                                        const std::map<std::string, std::string>& settings);
// A line of a .pgpass file: ':' and '\' escaped. Pure.
[[nodiscard]] std::string passfile_line(const std::string& user, const std::string& password);

}  // namespace zx::pg
