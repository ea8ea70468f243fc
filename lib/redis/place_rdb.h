// A copy where a stopped server finds it when it starts. On the host of the server.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
#include "lib/redis/backup.h"
#include "lib/redis/server_dir.h"

namespace zx::redis {

// What a configuration file says of where the data are. Of several lines the last counts. Pure.
struct DataFiles {
  bool aof = false;
  std::string dbfilename = "dump.rdb";
  std::string appenddirname = "appendonlydir";
  std::string appendfilename = "appendonly.aof";
};
[[nodiscard]] DataFiles data_files_in(std::string_view config);

// With the append-only file on, a server that finds none starts empty, whatever the RDB beside it
// says, and overwrites that at its end: then the copy becomes the base of a new one.
// It is written in the data directory first, mode 0600, and looked at: only a whole one costs
// anything its place. What was there is kept beside it, with `.zx-before-RUN` behind its name.
// Right when repeated. Code::refused when the server runs, config when its configuration file is
// not known, disk_full, failed when what `source` gives is not the file of `sha256`.
struct Placed {
  bool aof = false;
  std::string path;               // of the copy, as the server will read it
  std::vector<std::string> kept;  // what was there
};
[[nodiscard]] Result<Placed> place_rdb(const ServerDir& dir, const RdbSource& source,
                                       const std::string& sha256, const std::string& run);
// The next `bytes` of a descriptor, as a source: a copy that another host sends. Code::failed when
// it ends before, timeout.
[[nodiscard]] RdbSource carried_file(int descriptor, std::uint64_t bytes, Deadline deadline);
// Puts back what place_rdb() of that run kept. Code::refused when the server runs.
[[nodiscard]] Status unplace_rdb(const ServerDir& dir, const std::string& run);
// Removes what it kept, for good, also while the server runs. Returns what it removed.
[[nodiscard]] Result<std::vector<std::string>> forget_placed(const ServerDir& dir,
                                                             const std::string& run);

}  // namespace zx::redis
