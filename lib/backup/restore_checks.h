// Private to this room: what prepare_restore() and prepare_undo() look at, thing by thing. Nothing
// is changed by it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/backup/pg_load.h"
#include "lib/backup/repository.h"
#include "lib/pg/connection.h"

namespace zx::backup {

// Of a restore that is kept, or did not end: NAME_zxold, NAME_zxnew.
[[nodiscard]] bool is_leaving(const std::string& database);

// --- room ----------------------------------------------------------------------------------

// Bytes that something takes on the file system of a path.
struct Need {
  std::uint64_t device = 0;
  std::string path;
  std::uint64_t bytes = 0;
  std::string what;
};
[[nodiscard]] Result<Need> need_at(const std::string& path, std::uint64_t bytes,
                                   const std::string& what);
// Stays free on every file system that is written to.
inline constexpr std::uint64_t kReserve = 64ULL << 20;
// All that one file system is to take, summed. Code::disk_full. `free` tells bytes.
[[nodiscard]] Status has_room(const std::vector<Need>& needs,
                              const std::function<Result<std::uint64_t>(const std::string&)>& free);
// Of a server with this data directory: databases of `size`, and their WAL.
[[nodiscard]] Result<std::vector<Need>> needs_of_server(const std::string& node,
                                                        const std::string& data_dir,
                                                        std::uint64_t size,
                                                        const std::string& what);

// --- server --------------------------------------------------------------------------------

// Code::refused: every database that one could be connected to meanwhile is to be renamed.
[[nodiscard]] Status leaves_one_to_connect(pg::Client& client, const pg::Target& target,
                                           const std::vector<std::string>& databases,
                                           Deadline deadline);
// Code::refused: one has prepared transactions.
[[nodiscard]] Status can_be_renamed(pg::Client& client, const pg::Target& target,
                                    const std::vector<std::string>& databases, Deadline deadline);
// Tablespaces of the globals that the server lacks.
[[nodiscard]] Result<std::vector<std::string>> missing_tablespaces(const Repository& repository,
                                                                   const PgPart& part,
                                                                   pg::Client& client,
                                                                   const pg::Target& target,
                                                                   Deadline deadline);
// Subscriptions and logical slots of databases that are replaced, in words.
[[nodiscard]] Result<std::vector<std::string>> replication_warnings(
    pg::Client& client, const pg::Target& target, const std::vector<std::string>& databases,
    Deadline deadline);
// Of CREATE TABLESPACE; empty: it is another statement. Pure.
[[nodiscard]] std::string tablespace_made_by(std::string_view sql);

// --- files ---------------------------------------------------------------------------------

// Has the tree something that `uid` cannot give its owner or group back? `groups` are its own.
[[nodiscard]] Result<bool> has_other_owners(const Repository& repository, const FilesPart& part,
                                            uid_t uid, const std::vector<gid_t>& groups);

}  // namespace zx::backup
