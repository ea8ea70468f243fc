// Private to this room: what the steps of a restore share.
#pragma once

#include <functional>
#include <string>

#include "lib/backup/pg_load.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore.h"

namespace zx::backup {

// The primary of the cluster, as the role that zx connects as. Code::unreachable without one.
[[nodiscard]] Result<pg::Target> primary_target(const RestoreWorld& world,
                                                const std::string& cluster);
[[nodiscard]] Result<PgServer> primary_server(const RestoreWorld& world,
                                              const std::string& cluster);
// The same, before anything is changed: also what world.is_right_primary says against it.
[[nodiscard]] Result<PgServer> right_primary(const RestoreWorld& world, const std::string& cluster);
// Of a plan's context.
[[nodiscard]] Result<Set> set_of(const RestoreWorld& world, const run::StepContext& context);

// What the step "load" returns of the primary: "node", "system_id", "timeline".
[[nodiscard]] Result<Json> look_at_primary(const pg::Target& target, Deadline until);
// Code::refused when it is no longer the one that "load" was on, or was promoted since.
[[nodiscard]] Status is_as_loaded(const pg::Target& target, const run::StepContext& context);
// Of the DB_zxnew of each database, as "load" noted them.
[[nodiscard]] Oids loaded_oids(const run::StepContext& context);

// Of wish.tables. Leaves of `part` the one database that has them all, with only these tables.
// Code::usage when several may be meant, not_found when none has them.
[[nodiscard]] Status keep_wanted_tables(const RestoreWish& wish, PgPart& part);
// What the live database has of the tables of `part`. Code::refused with the reason and the way
// out.
struct TablesSeen {
  std::vector<std::string> tables, had;
  std::vector<std::string> replaces, warnings;  // in words
  std::uint64_t bytes = 0;                      // about
};
[[nodiscard]] Result<TablesSeen> look_at_tables(const PgServer& server, const DatabasePart& part,
                                                const Set& set, Deadline deadline);
// TABLE_zxold of a restore that is kept, and DB_zxnew. In words, what it removed.
[[nodiscard]] Result<std::vector<std::string>> commit_tables(const RestoreWorld& world,
                                                             const Kept& kept, Deadline deadline);

// Of the steps of a restore: what they returned and noted.
struct Traces {
  const run::Plan& plan;
  const std::string& run;
  std::function<const Json&(const std::string& step)> seen;
  std::function<const Json&(const std::string& step, const std::string& key)> noted;
};
inline constexpr const char* kHad = "had";  // noted right before renames: what was there then
// As `noted`; else, under `key` of a plan's context, what was there at first.
[[nodiscard]] std::vector<std::string> had_of(const Json& noted, const Json& context,
                                              const char* key);
// What the steps have put in the place of something.
[[nodiscard]] Kept kept_of(const Traces& traces);

// Is TABLE_zxold of each of the run there?
[[nodiscard]] Result<bool> are_tables_kept(const RestoreWorld& world, const Kept& kept,
                                           Deadline deadline);

void add_table_actions(RestoreWorld& world, run::Actions& actions);
void add_load_actions(RestoreWorld& world, run::Actions& actions);
void add_swap_actions(RestoreWorld& world, run::Actions& actions);
void add_undo_actions(RestoreWorld& world, run::Actions& actions);

}  // namespace zx::backup
