// PostgreSQL's own tools, asked about a data directory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/lsn.h"
#include "lib/pg/data_dir.h"

namespace zx::pg {

// The effective value of a setting of a server, running or not (`postgres -C`).
[[nodiscard]] Result<std::string> setting_of(const DataDir& dir, const std::string& name);

// The end of the last valid record of `timeline` at or after `from`, of a stopped server.
// `from` itself when there is none (pg_waldump).
[[nodiscard]] Result<Lsn> wal_end(const DataDir& dir, std::uint32_t timeline, Lsn from);

// Pure: what pg_waldump --quiet's last words say of the end of WAL. Absent when they do not say.
[[nodiscard]] std::optional<Lsn> end_in_words(std::string_view words, Lsn from);

// Commits among the records of `timeline` from `from` on.
[[nodiscard]] Result<std::uint64_t> commits_after(const DataDir& dir, std::uint32_t timeline,
                                                  Lsn from);

}  // namespace zx::pg
