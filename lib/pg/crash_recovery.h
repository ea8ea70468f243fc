// Making the files of a crashed server consistent, without a moment in which it could serve. Runs
// on the node's host, on a stopped and fenced server.
#pragma once

#include "lib/pg/data_dir.h"

namespace zx::pg {

// Makes a crashed server's files consistent: replays its own WAL to the end as a standby that
// nobody can reach, and stops it. Nothing to do when it was shut down cleanly. pg_rewind's own way
// (single-user mode) refuses to run beside standby.signal, which must stay.
[[nodiscard]] Status settle(const DataDir& dir, Deadline deadline);

// Replays its WAL to the end of its timeline as the primary that it was, and ends with a checkpoint
// there: what pg_rewind before version 16 needs to see that the server has left its old timeline.
// Only for a directory that is to be rewound, as the line that was given up gets one record more.
// Single-user mode would refuse to run beside standby.signal, so it runs in a directory of links
// beside it, `path`.zx-recovery, without that file; the directory itself is closed meanwhile, see
// closed_dir.h. Code::failed with what the server said; the directory is then as it was.
[[nodiscard]] Status recover_as_primary(const DataDir& dir, Deadline deadline);
// Removes what a recovery that was cut short has left beside the directory.
[[nodiscard]] Status drop_recovery(const DataDir& dir);

}  // namespace zx::pg
