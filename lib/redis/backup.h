// A copy of a server's data set in a file, and what is known of it beside it in FILE.json.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "lib/config/config.h"
#include "lib/redis/facts.h"
#include "lib/redis/rdb_check.h"
#include "lib/redis/rdb_stream.h"
#include "lib/redis/throwaway.h"

namespace zx::redis {

// What is known of a copy. All but the first four is absent where nobody told.
struct CopyRecord {
  std::string sha256;
  std::uint64_t bytes = 0;
  std::uint64_t keys = 0, expires = 0;
  std::string deployment, node;
  std::string digest;  // DEBUG DIGEST of a server that loaded it
  std::string replid;
  std::optional<std::int64_t> offset;  // of the stream of writes, where the copy was taken
  std::string server_version;
  Wall taken{};
};
[[nodiscard]] Json to_json(const CopyRecord& record);
// Code::failed when it is not of this form.
[[nodiscard]] Result<CopyRecord> record_from_json(const Json& json);
[[nodiscard]] std::string record_path(const std::string& file);  // FILE.json

struct BackupOptions {
  std::string deployment, node;  // for the record
  std::string file;
  bool load = true;     // in a throwaway server, while it still arrives
  bool digest = false;  // of what that server loaded: takes about as long again as the load
  ThrowawayOptions throwaway;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  // Bytes that came; at most some ten times a second.
  std::function<void(std::uint64_t)> progress;
};

struct Backup {
  std::string file;
  CopyRecord record;
  RdbSummary summary;
  std::optional<RdbContent> content;  // of a server that loaded it
  Millis waited{0};                   // until the first byte came
  Millis streamed{0};                 // until the last
  Millis took{0};                     // in all, with the load
};

// Where the bytes come from: the wire, or a file that the server saved. `on_length` as in
// PullOptions.
using RdbSource = std::function<Result<Pulled>(
    const std::function<Status(std::uint64_t)>& on_length, const RdbSink& sink)>;

// Checks the structure and the checksum and makes the SHA-256 in the same pass, loads it, and only
// then gives it its name, mode 0600; FILE.json after it. Code::refused when one of the two exists,
// disk_full, and what the source said. Nothing stays behind of one that failed.
[[nodiscard]] Result<Backup> take_backup(const BackupOptions& options, const RdbSource& source);

// Waits until the replica has come to `offset` of its master's stream: what was acknowledged before
// is then in a copy of it. How many bytes it lacks at the deadline; 0: none.
[[nodiscard]] Result<std::int64_t> wait_for_offset(const Target& replica, std::int64_t offset,
                                                   Deadline deadline);

// What is in a copy, of which nothing is kept but in `directory` meanwhile.
[[nodiscard]] Result<RdbContent> content_of(const ThrowawayOptions& throwaway,
                                            const std::string& directory, const RdbSource& source,
                                            Deadline until);

// The server's own file, once it has saved to it: BGSAVE, and asked until it has ended. The file
// lies on the server's host. `target` is where it listens.
[[nodiscard]] Result<std::string> save_on_server(const Target& target, Deadline deadline);
// Such a file as a source.
[[nodiscard]] RdbSource saved_file(const std::string& path);

// Reads all of a file, and compares it with its record when there is one. Code::not_found, failed.
struct CheckedFile {
  RdbSummary summary;
  std::string sha256;
  std::optional<CopyRecord> record;
};
[[nodiscard]] Result<CheckedFile> check_file(const std::string& file);

// Which node the copy is taken from: of the replicas that have come as far as any, or nearly, the
// one that is least wanted as a master. `from` names it; a master only where there are no
// Sentinels, as they take the reader for a replica, or when it saves to its own disk (`bgsave`).
// Pure.
struct BackupSource {
  std::string node;
  std::string why;
};
[[nodiscard]] Result<BackupSource> choose_source(const config::RedisDeployment& deployment,
                                                 const Snapshot& snapshot, const std::string& from,
                                                 bool bgsave);

// How many databases the server has; more than any has when it does not say.
[[nodiscard]] int databases_of(const Target& target, Deadline deadline);
// Code::refused when this host has not the memory to load a copy of that server: the kernel would
// end some process, if not the one that loads.
[[nodiscard]] Status has_room_for(const NodeFacts& source);
// Waits a moment until `node`, a replica, has what its master has acknowledged by now. What is to
// be told of one that does not come to it; empty: it has.
[[nodiscard]] Result<std::string> catch_up(const config::Config& config,
                                           const config::RedisDeployment& deployment,
                                           const Snapshot& snapshot, const std::string& node,
                                           Deadline until);
// Which master is right is not clear, in words; empty where it is.
[[nodiscard]] std::string doubt_of(const Snapshot& snapshot, const std::string& node);

}  // namespace zx::redis
