// Who is at work on a deployment, written where everybody looks: on its servers. A run holds one
// connection to each server that answers, named zx:RUN:HOST:COMMAND, which CLIENT LIST shows. It
// keeps runs apart that share neither a state_dir nor a coordinator, it is no data, and it ends
// with the process.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/coord/lock.h"
#include "lib/redis/connection.h"
#include "lib/run/journal.h"

namespace zx::ha {

class RedisWorld;

struct RunMark {
  std::string run, host, command;
  std::int64_t client = 0;  // its id on that server
  std::int64_t idle_s = 0;  // since it said something: a run at work does every second
};
// The name of the connection: printable ASCII whatever the host is called.
[[nodiscard]] std::string mark_name(const std::string& run, const std::string& host,
                                    const std::string& command);
// Of the text of CLIENT LIST, the longest there first. Pure.
[[nodiscard]] std::vector<RunMark> marks_in(std::string_view client_list);
// The one that keeps `run` out: of another run, at work, and not one about a replica where this is
// a failover. Pure.
[[nodiscard]] std::optional<RunMark> keeps_out(const std::vector<RunMark>& marks,
                                               const std::string& run, const std::string& command);
// Of a run that has been still for so long that another may pass it by, and end its connection.
[[nodiscard]] std::vector<RunMark> stale(const std::vector<RunMark>& marks);

// Marks every one of `servers` that answers by the deadline, in an order that is the same for all.
// It is marked anew where the connection ends, as Sentinels and failovers end them, until the lease
// is destroyed. Code::locked when another run has the mark, now or, by check(), later: nothing is
// marked then. A server whose ACL forbids it is passed over, with a warning.
[[nodiscard]] Result<std::unique_ptr<coord::Lease>> mark_servers(std::vector<redis::Target> servers,
                                                                 const std::string& run,
                                                                 const std::string& command,
                                                                 Deadline deadline);

// The error that a run of `command` would get now: Code::locked, with the run at work and its host.
// Marks nothing. What does not answer at once says nothing.
[[nodiscard]] Status nobody_at_work(RedisWorld& world, const std::string& command);

}  // namespace zx::ha
