// A copy where a stopped server finds it when it starts. On the host of the server.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
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
// What was there is kept beside it, with `.zx-before-RUN` behind its name. Right when repeated.
// Code::refused when the server runs, config when its configuration file is not known, failed when
// the file is not the one of `sha256`.
struct Placed {
  bool aof = false;
  std::string path;               // of the copy, as the server will read it
  std::vector<std::string> kept;  // what was there
};
[[nodiscard]] Result<Placed> place_rdb(const ServerDir& dir, const std::string& file,
                                       const std::string& sha256, const std::string& run);
// Puts back what place_rdb() of that run kept. Code::refused when the server runs.
[[nodiscard]] Status unplace_rdb(const ServerDir& dir, const std::string& run);

}  // namespace zx::redis
