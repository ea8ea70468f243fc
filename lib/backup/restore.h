// Restoring a set: everything is looked at first, then files and databases are loaded aside, then
// they take the place of what is there, which is kept until a person says otherwise.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/run.h"
#include "lib/run/executor.h"

namespace zx::backup {

inline constexpr const char* kRestoreLock = "restore";
inline constexpr const char* kRestoreFull = "restore full";

// Redis is restored by a run of its own, which knows about replicas and Sentinels.
struct RedisMeans {
  // Which node has the data now, or had them last.
  std::function<Result<std::string>()> target;
  // Whether restore() would be refused now; else what it warns of. Changes nothing.
  std::function<Result<std::vector<std::string>>(const std::string& file,
                                                 const std::string& target)>
      look;
  // Makes FILE the data of `target`, for the run `within`. One that it has begun is finished
  // instead, and nothing is done when that ended well.
  std::function<Result<Json>(const std::string& file, const std::string& target,
                             const std::string& within)>
      restore;
  // Of what was begun for the run `within`: takes it back, or brings back, for `by`, what was there
  // before its data were replaced, however it ended.
  std::function<Status(const std::string& within, const std::string& by)> take_back;
  // Whether take_back() would find what it needs, and may act now. Changes nothing.
  std::function<Status(const std::string& within)> can_take_back;
  // Removes what take_back() would need. Returns what it removed.
  std::function<Result<std::vector<std::string>>(const std::string& within)> forget;
};

// On what the steps act. All but `progress` must outlive them.
struct RestoreWorld {
  const config::Config& config;
  const Repository* repository;  // null: of a way back, which does not read it
  RedisMeans redis;
  int jobs = 2;
  std::function<void(std::uint64_t)> progress;  // bytes that were loaded since the last call
  // Refuses when something speaks against `primary` of `cluster`, the only one that answers as
  // such.
  std::function<Status(const std::string& cluster, const std::string& primary)> is_right_primary;
};
[[nodiscard]] run::Actions restore_actions(RestoreWorld& world);

// --- what is to be restored ----------------------------------------------------------------

struct RestoreWish {
  std::vector<Source> sources;         // of the set; none: all that it has
  std::vector<std::string> databases;  // of the set; none: all
  std::vector<std::string> tables;     // of one database, [SCHEMA.]TABLE; none: all of it
  std::vector<std::string> files;      // names or paths of trees; none: all
  std::string set;                     // empty: the newest good one
  std::optional<Wall> at;              // the newest of that time or before
  bool with_services = false;          // stop and start them
  bool one_tree = false;               // of files; Code::usage when it may be several
  std::function<void(const std::string&)> progress;
};

struct Chosen {
  Entry entry;
  // Newer sets that were passed over, and why: "20261124T020000-7c51: pg/shop.dump.zst is missing".
  std::vector<std::string> passed_over;
  std::vector<std::string> warnings;
};
// The set of the wish, once the size and the SHA-256 of every object that is wanted of it were
// compared. Without a name the newest that is whole is taken; what was found wrong with newer ones
// is remembered with them. Code::failed when the named one is damaged.
[[nodiscard]] Result<Chosen> choose_set(const Repository& repository, const RestoreWish& wish);

struct PreparedRestore {
  Chosen chosen;
  run::Plan plan;
  std::vector<std::string> warnings;
  std::uint64_t bytes = 0;                  // of what is loaded
  std::uint64_t stored = 0;                 // of it, in the repository
  std::vector<std::string> replaces;        // "database shop, 1.2 GiB"
  std::optional<std::int64_t> expected_ms;  // by the last rehearsal of any set
};
// Looks at everything and changes nothing: roles, extensions, versions, space, names that are
// taken, prepared transactions, services. Code::refused with the reason and the way out.
[[nodiscard]] Result<PreparedRestore> prepare_restore(RestoreWorld& world, const RestoreWish& wish);

// --- what is kept ----------------------------------------------------------------------------

// What the last restore replaced, in state_dir/restored.json until it is committed or undone.
struct Kept {
  std::string run, set;
  Wall at{};
  std::string cluster;
  std::vector<std::string> databases, had_database;  // replaced; of these, there before
  std::string table_database;
  std::vector<std::string> tables, had_table;   // of it, as a manifest has them
  std::vector<std::string> trees, had_tree;     // paths
  std::map<std::string, std::uint64_t> oids;    // of what took the place of each database
  std::map<std::string, std::uint64_t> inodes;  // and of each tree
  std::string redis_deployment;                 // empty: not restored
  bool with_services = false;
  bool committing = false;  // some of it may be removed already
};
[[nodiscard]] Json to_json(const Kept& kept);
// What a restore has replaced that is ended as it is, wherever it stands; empty: nothing. Asks the
// server what became of its databases, and Code::unreachable when that is not to be had.
[[nodiscard]] Result<std::optional<Kept>> left_by(RestoreWorld& world, const run::Record& record);
[[nodiscard]] Result<std::optional<Kept>> read_kept(const std::string& state_dir);
[[nodiscard]] Status write_kept(const std::string& state_dir, const Kept& kept);
[[nodiscard]] Status forget_kept(const std::string& state_dir);

// Removes what was kept. May be repeated after it was killed. Returns what it removed, in words.
[[nodiscard]] Result<std::vector<std::string>> commit_restore(RestoreWorld& world,
                                                              const Kept& kept);
// The way back, as a run that only goes forward.
[[nodiscard]] run::Plan plan_undo(const Kept& kept);
// Whether all that it needs is there. Code::refused names what is not; nothing is changed.
[[nodiscard]] Status prepare_undo(RestoreWorld& world, const Kept& kept);

// --- pure ------------------------------------------------------------------------------------

struct RestoreFacts {
  std::string set;
  std::string cluster, primary;
  std::vector<std::string> databases, had_database;
  std::string table_database;
  std::vector<std::string> tables, had_table;
  std::vector<std::string> missing_roles;
  std::vector<std::string> trees, had_tree;  // paths
  std::string redis_deployment, redis_target, redis_file;
  bool with_services = false;
  bool no_tablespaces = false;  // the server lacks one: all goes to that of its database
  std::vector<std::string> services;
  std::int64_t point_ms = 0;  // when the set was taken, ms since 1970
};
[[nodiscard]] run::Plan plan_restore(const std::string& command, const RestoreFacts& facts);

}  // namespace zx::backup
