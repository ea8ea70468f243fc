// One backup run: Redis, PostgreSQL and files into one set.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

enum class Source { redis, pg, files };
[[nodiscard]] const char* name_of(Source source);  // "pg"

// Which cluster and deployment zx.toml backs up; null: there is none.
[[nodiscard]] const config::PgCluster* cluster_of(const config::Config& config);
[[nodiscard]] const config::RedisDeployment* deployment_of(const config::Config& config);
// What a run has to do, in its order: whoever refers to others before these, so that what a copy
// refers to is in the set. Code::config when nothing is left of `only` (empty: all).
[[nodiscard]] Result<std::vector<Source>> sources_of(const config::Config& config,
                                                     const std::vector<Source>& only);

// All members may be empty. on_bytes comes from several threads.
struct RunEvents {
  // `expected`: bytes, as the last set had them; 0: not known.
  std::function<void(Source, std::uint64_t expected)> on_start;
  std::function<void(Source, std::uint64_t more)> on_bytes;
  std::function<void(Source, const Set&)> on_end;  // the part is in the set now
  std::function<void(const std::string&)> on_warning;
  std::function<void(const std::string&)> on_note;  // what is no fault
};

struct RunOptions {
  std::vector<Source> only;
  std::string label;
  std::optional<int> jobs;
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
  LockWait wait = {};  // for another backup or prune
  // Of a repository that must be made, or is another than before.
  bool accepts_new_repository = false;
  // Of a tree that had files and has nothing now.
  bool accepts_empty = false;
  std::string zx_version;
  RunEvents events;
};

struct Ran {
  Set set;
  Millis took{0};
  bool has_new_repository = false;   // it was made
  std::optional<Error> post_failed;  // backup.post; the set is there all the same
};
// Takes the repository's lock, clears away what killed runs left, and makes a set: it is whole, or
// it is not there. Code::disk_full before anything is begun when the last set's size would not
// leave backup.spare free; refused when another repository was there before, or a tree is empty (a
// mount is missing); locked when the lock was lost meanwhile.
[[nodiscard]] Result<Ran> run_backup(const config::Config& config, const RunOptions& options);

// Is what is in the place of backup.repository what was there before? `found`: its id. Else
// Code::refused.
[[nodiscard]] Status is_expected_repository(const config::Config& config,
                                            const std::optional<std::string>& found);

// Of an empty directory a good set would be made, and a prune would delete those that have the
// files. Code::refused when a tree of zx.toml has nothing and had files in the newest set with it.
[[nodiscard]] Status has_what_it_had(const std::vector<Entry>& sets, const config::Config& config,
                                     const std::vector<Source>& sources);

// Whether run_backup() would make a set beside those that are there; null: of a repository that is
// made first. What it would take. Code::refused for sets of another platform, or a tree that has
// nothing; disk_full without room for it beside backup.spare.
[[nodiscard]] Result<std::uint64_t> may_be_made(const std::vector<Entry>& sets,
                                                const Repository* repository,
                                                const config::Config& config,
                                                const std::vector<Source>& sources,
                                                bool accepts_empty);

// What a run would take, by the last set that has these parts. Pure.
[[nodiscard]] std::uint64_t expected_bytes(const std::vector<Entry>& sets,
                                           const std::vector<Source>& sources);

// For private servers: state_dir/scratch when the file names none. Made, 0700.
[[nodiscard]] Result<std::string> scratch_of(const config::Config& config);

}  // namespace zx::backup
