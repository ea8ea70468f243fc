// A data directory in which nothing can be started while its files are changed under it.
#pragma once

#include <string>

#include "lib/pg/data_dir.h"

namespace zx::pg {

// Takes PG_VERSION away, without which no server starts, and puts a marker beside the directory,
// which says for good that its files may be of no use: when zx is killed, both stay. Returns what
// open_dir() needs. Code::locked, and nothing is changed, when a server runs there: a supervisor
// was quicker.
[[nodiscard]] Result<std::string> close_dir(const DataDir& dir);
[[nodiscard]] Status open_dir(const DataDir& dir, const std::string& version);

}  // namespace zx::pg
