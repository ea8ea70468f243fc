// Single tables of a set: what is looked at before, the steps, and what is kept of it.
#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/pg_swap.h"
#include "lib/backup/pg_table.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/row_counts.h"
#include "lib/backup/table_swap.h"
#include "lib/base/count.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

using run::StepContext;

constexpr std::size_t kLongestName = 63;  // bytes

std::string text(StepContext& context, const char* key) {
  return get_string(context.plan().context, key);
}

Result<pg::Client> connect(const pg::Target& target, Deadline deadline) {
  auto client = pg::Client::open(target, deadline);
  if (!client) return fail(pg::error_of(target, client.error()));
  // The settings of the role, the database and the server count for whoever connects; an incident
  // may have frozen writes by them.
  if (auto done = client->query(
          "SET statement_timeout = 0; SET row_security = off; SET default_transaction_read_only = "
          "off",
          deadline);
      !done)
    return fail(pg::error_of(target, done.error()));
  return *std::move(client);
}

Result<pg::Rows> ask(pg::Client& client, const pg::Target& target, const std::string& sql,
                     Deadline deadline) {
  auto rows = client.query(sql, deadline);
  if (!rows) return fail(pg::error_of(target, rows.error()));
  return *std::move(rows);
}

pg::Target in_database(pg::Target target, const std::string& name) {
  target.database = name;
  target.statement_timeout = Millis(0);
  return target;
}

// What the steps work on.
struct Work {
  PgServer server;  // its target's database is the one that the server is asked in
  DatabasePart part;
  TableSwap swap;
  TableSource source;
};

TableSwap swap_of(const std::string& run, PgServer server, const Json& context) {
  server.target = in_database(server.target, get_string(context, "table_database"));
  return {run, std::move(server), get_strings(context, "tables"),
          get_strings(context, "had_table")};
}

Result<Work> work_of(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  Work work;
  ZX_ASSIGN(work.server, primary_server(world, text(context, "cluster")));
  work.swap = swap_of(context.run_id(), work.server, context.plan().context);
  const auto name = text(context, "table_database");
  if (set.pg)
    for (const auto& part : set.pg->databases)
      if (part.name == name) work.part = part;
  if (work.part.name.empty())
    return fail(Code::failed, fmt::format("set {} has no database {}", set.id, name));
  work.source = {aside_name(name), work.part.encoding == "SQL_ASCII" ? "SQL_ASCII" : "UTF8", {}};
  for (const auto& table : work.part.tables)
    if (contains(work.swap.tables, table.table)) work.source.rows.push_back(table);
  return work;
}

// --- load ------------------------------------------------------------------------------------

// pg_restore takes names one by one: what has the same name in another schema comes with it.
Result<os::Argv> wanted_data(pg::Client& client, const pg::Target& target,
                             const std::vector<TableId>& tables, Deadline until) {
  os::Argv words{"--data-only"};
  for (const auto& table : tables) {
    words.push_back("--schema=" + table.schema);
    words.push_back("--table=" + table.name);
    ZX_ASSIGN(const auto sequences,
              ask(client, target,
                  fmt::format("SELECT n.nspname, c.relname FROM pg_depend d JOIN pg_class c ON"
                              " c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace"
                              " WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND"
                              " d.deptype IN ('a', 'i') AND d.refobjid = {}::regclass",
                              pg::quote_literal(sql_name(table))),
                  until));
    for (const auto& row : sequences) {
      words.push_back("--schema=" + row.at(0).value_or(""));
      words.push_back("--table=" + row.at(1).value_or(""));
    }
  }
  return words;
}

// Foreign keys of these tables would not hold without the rows of others, and no trigger is to act.
// --disable-triggers would leave those switched on that always act.
Result<Loaded> load_rows(RestoreWorld& world, const Work& work, Deadline until) {
  const auto target = in_database(work.server.target, work.source.database);
  ZX_ASSIGN(auto client, connect(target, until));
  std::vector<TableId> tables;
  for (const auto& name : work.swap.tables) {
    ZX_ASSIGN(auto table, table_id(name));
    tables.push_back(std::move(table));
  }
  ZX_TRY(ask(client, target,
             fmt::format("ALTER DATABASE {} SET session_replication_role = 'replica'",
                         quote_name(work.source.database)),
             until));
  ZX_ASSIGN(const auto acting, ask(client, target, always_acting_sql(tables), until));
  for (const auto& row : acting) ZX_TRY(ask(client, target, row.at(0).value_or(""), until));
  LoadOptions options;
  options.until = until;
  options.progress = world.progress;
  ZX_ASSIGN(options.more, wanted_data(client, target, tables, until));
  ZX_ASSIGN(auto loaded, load_database(*world.repository, work.part, work.server,
                                       work.source.database, options));
  for (const auto& row : acting) ZX_TRY(ask(client, target, row.at(1).value_or(""), until));
  return loaded;
}

// All of the database but its rows, then the rows of these tables.
Result<Json> load(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto work, work_of(world, context));
  const auto until = context.deadline();
  const auto& name = work.source.database;
  ZX_ASSIGN(auto seen, look_at_primary(work.server.target, until));
  // Of an attempt that was killed.
  ZX_TRY(drop_database(work.server.target, name, until));
  ZX_TRY(create_database(work.server, work.part, name, until));
  LoadOptions options;
  options.until = until;
  options.no_tablespaces = get_bool(context.plan().context, "no_tablespaces");
  options.more = {"--schema-only"};
  ZX_TRY(load_database(*world.repository, work.part, work.server, name, options));
  ZX_ASSIGN(const auto loaded, load_rows(world, work, until));
  ZX_ASSIGN(const auto names, look_at_names(work.server.target, {work.part.name}, until));
  seen["words"] = fmt::format("{} of {} read", format_bytes(loaded.bytes), work.part.name);
  seen["bytes"] = loaded.bytes;
  seen["oids"] = Oids{{work.part.name, names.at(work.part.name).new_oid}};
  return seen;
}

// Is DB_zxnew the one that was loaded? That it is not there says that it is not; before it is
// loaded any is.
Result<bool> is_loaded(const pg::Target& target, const StepContext& context) {
  const auto name = get_string(context.plan().context, "table_database");
  const auto loaded = loaded_oids(context);
  if (!loaded.contains(name)) return true;
  ZX_ASSIGN(const auto names, look_at_names(target, {name}, context.deadline()));
  return names.at(name).new_oid == loaded.at(name);
}

// The primary is the same too.
Status all_is_as_loaded(const Work& work, const StepContext& context) {
  ZX_TRY(is_as_loaded(work.server.target, context));
  ZX_ASSIGN(const bool is_same, is_loaded(work.server.target, context));
  if (is_same) return {};
  return fail(Code::refused, work.source.database + " is not what was loaded",
              "somebody has changed it: take the run back, then restore again");
}

// False: DB_zxnew is not there, or is somebody else's and stays.
Result<bool> forget(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  ZX_ASSIGN(const bool is_ours, is_loaded(target, context));
  if (!is_ours) return false;
  ZX_TRY(drop_database(target, aside_name(text(context, "table_database")), context.deadline()));
  return true;
}

Result<Json> check(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto work, work_of(world, context));
  ZX_TRY(all_is_as_loaded(work, context));
  const auto target = in_database(work.server.target, work.source.database);
  ZX_ASSIGN(auto client, connect(target, context.deadline()));
  std::uint64_t rows = 0;
  std::vector<TableRows> found;
  for (const auto& name : work.swap.tables) {
    ZX_ASSIGN(const auto table, table_id(name));
    ZX_ASSIGN(const auto count, ask(client, target, "SELECT count(*) FROM ONLY " + sql_name(table),
                                    context.deadline()));
    found.push_back({name, std::stoull(count.at(0).at(0).value_or("0"))});
    rows += found.back().rows;
  }
  const auto differ = rows_differ(work.source.rows, found);
  if (!differ.empty())
    return fail(Code::failed,
                fmt::format("{} is not what was backed up: {}", work.part.name, join(differ, ", ")),
                "verify the set: zx backup verify " + text(context, "set") + " --level restore");
  return Json{{"words", count_of(static_cast<std::int64_t>(rows), "row") + ", as in the set"},
              {"rows", rows}};
}

// --- swap ------------------------------------------------------------------------------------

Result<Json> swap(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto work, work_of(world, context));
  ZX_TRY(all_is_as_loaded(work, context));
  ZX_ASSIGN(const bool is_new, swap_tables_in(work.swap, work.source, context.deadline()));
  std::vector<std::string> warnings;
  auto words = join(work.swap.tables, ", ");
  if (!is_new) words += ", before the run was taken up again";
  // The rows are in place by now.
  const auto lost = lost_referrers(work.swap, work.source, context.deadline());
  if (!lost) {
    warnings.push_back("which foreign keys are gone could not be looked up: " +
                       lost.error().message);
  } else if (!lost->empty()) {
    for (const auto& sql : *lost)
      warnings.push_back("a foreign key is not there any more; to make it again: " + sql);
    words += "; gone: " + count_of(static_cast<std::int64_t>(lost->size()), "foreign key");
  }
  return Json{{"words", words}, {"warnings", warnings}};
}

Status swap_back(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(auto server, primary_server(world, text(context, "cluster")));
  ZX_TRY(swap_tables_back(swap_of(context.run_id(), std::move(server), context.plan().context), {},
                          context.deadline()));
  return {};
}

Result<Json> clear(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const bool is_removed, forget(world, context));
  return Json{{"words", is_removed ? "removed" : "it is not there any more, or another"}};
}

Result<Json> undo(RestoreWorld& world, StepContext& context) {
  constexpr const char* kCommitting = "committing";
  ZX_ASSIGN(auto server, primary_server(world, text(context, "cluster")));
  const auto way_back = swap_of(text(context, "run"), std::move(server), context.plan().context);
  const auto before_commit = [&]() -> Status {
    ZX_TRY(context.note(kCommitting, true));
    return context.no_return();
  };
  ZX_ASSIGN(const bool is_back, swap_tables_back(way_back, before_commit, context.deadline()));
  if (!is_back && context.noted(kCommitting).is_null())
    return fail(Code::refused,
                "TABLE_zxold of the restore is not there: " + join(way_back.tables, ", "),
                "somebody has dropped it; zx restore commit ends the restore");
  return Json{{"words", join(way_back.tables, ", ")}};
}

// --- before ----------------------------------------------------------------------------------

Status can_be_kept(const TableId& table, const TableNow& now) {
  const auto kept = kept_table(table);
  if (now.kind != 0 && now.kind != 'r')
    return fail(Code::refused, shown(table) + " is no ordinary table any more",
                "restore the database beside it and take the rows from there: zx-repository(7)");
  if (kept.name.size() > kLongestName)
    return fail(Code::refused,
                fmt::format("{} has no room for _zxold behind it: a name has {} bytes",
                            shown(table), kLongestName));
  if (now.has_kept)
    return fail(Code::refused, shown(kept) + " is there",
                "an earlier restore is kept there: zx restore commit, or zx restore undo; else "
                "drop it");
  return {};
}

Status may_replace(pg::Client& client, const pg::Target& target, const std::vector<TableId>& tables,
                   Deadline deadline) {
  ZX_ASSIGN(
      const auto super,
      ask(client, target, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", deadline));
  if (super.empty() || super.at(0).at(0) != "t")
    return fail(Code::refused,
                fmt::format("{} is no superuser on {}: no other can keep triggers and foreign keys "
                            "from acting",
                            target.user, target.name),
                "name a superuser in zx.toml: pg.CLUSTER.user");
  for (const auto& table : tables) {
    ZX_ASSIGN(const auto held,
              ask(client, target,
                  fmt::format("SELECT 1 FROM pg_locks WHERE pid IS NULL AND locktype = 'relation'"
                              " AND relation = to_regclass({})::oid AND database ="
                              " (SELECT oid FROM pg_database WHERE datname = current_database())",
                              pg::quote_literal(sql_name(table))),
                  deadline));
    if (!held.empty())
      return fail(Code::refused, "a prepared transaction holds " + shown(table),
                  "end it: SELECT gid FROM pg_prepared_xacts; COMMIT PREPARED or ROLLBACK "
                  "PREPARED");
  }
  return {};
}

// About: a manifest has the size of the database only.
std::uint64_t size_of(const DatabasePart& part, const DatabasePart& all) {
  std::uint64_t rows = 0, of = 0;
  for (const auto& table : part.tables) rows += table.rows;
  for (const auto& table : all.tables) of += table.rows;
  const auto share =
      static_cast<double>(rows) / static_cast<double>(std::max<std::uint64_t>(of, 1));
  return static_cast<std::uint64_t>(static_cast<double>(all.size) * share);
}

}  // namespace

Status keep_wanted_tables(const RestoreWish& wish, PgPart& part) {
  std::vector<DatabasePart> having;
  std::optional<Error> lacking;
  for (const auto& database : part.databases) {
    std::vector<TableRows> tables;
    std::optional<Error> wrong;
    for (const auto& name : wish.tables) {
      const auto found = find_table(database.tables, name);
      if (!found && !wrong) wrong = found.error();
      if (found && std::find(tables.begin(), tables.end(), *found) == tables.end())
        tables.push_back(*found);
    }
    if (wrong && wrong->code != Code::not_found) return fail(*wrong);
    if (wrong && (!lacking || !wrong->hint.empty())) {
      lacking = *wrong;
      lacking->message = fmt::format("the set has {} in {}", wrong->message, database.name);
    }
    if (wrong) continue;
    having.push_back(database);
    having.back().tables = std::move(tables);
  }
  if (having.empty() && lacking)
    lacking->hint += (lacking->hint.empty() ? "" : " ") +
                     std::string("of a partitioned table name the partitions, which have its rows");
  if (having.empty() && lacking && part.databases.size() > 1) {
    std::vector<std::string> names;
    for (const auto& name : wish.tables) names.push_back(clean_utf8(first_line(name)));
    lacking->message = "the set has no database with " + join(names, " and ");
  }
  if (having.empty())
    return fail(lacking.value_or(Error{Code::not_found, "the set has no database", {}, {}, false}));
  if (having.size() > 1) {
    std::vector<std::string> names;
    for (const auto& database : having) names.push_back(database.name);
    return fail(Code::usage, "more than one database has it: " + join(names, ", "),
                "name the database: --db NAME");
  }
  part.databases = std::move(having);
  return {};
}

Result<TablesSeen> look_at_tables(const PgServer& server, const DatabasePart& part, const Set& set,
                                  Deadline deadline) {
  if (const auto fits = fits_as_name(aside_name(part.name)); !fits)
    return fail_while(fits.error(),
                      "making room for what is in the set as " + part.name + "_zxnew");
  ZX_ASSIGN(const auto names, look_at_names(server.target, {part.name}, deadline));
  const auto& now = names.at(part.name);
  if (!now.is_there)
    return fail(Code::refused, fmt::format("database {} is not there", part.name),
                "restore all of it: leave --table out");
  if (now.has_new)
    return fail(Code::refused, fmt::format("{} is there", aside_name(part.name)),
                "it is of a restore that did not end: zx runs list; else drop it");
  const auto target = in_database(server.target, part.name);
  ZX_ASSIGN(auto client, connect(target, deadline));
  TablesSeen seen;
  std::vector<TableId> ids;
  for (const auto& rows : part.tables) {
    ZX_ASSIGN(auto table, table_id(rows.table));
    ZX_ASSIGN(const auto row, ask(client, target, look_sql(table), deadline));
    const auto here = now_of(row.at(0));
    ZX_TRY(can_be_kept(table, here));
    seen.tables.push_back(rows.table);
    if (here.kind != 0) seen.had.push_back(rows.table);
    seen.replaces.push_back(fmt::format("table {}.{}, {} in the set{}", part.name, shown(table),
                                        count_of(static_cast<std::int64_t>(rows.rows), "row"),
                                        here.kind == 0 ? "; it is not there" : ""));
    ZX_ASSIGN(const auto size,
              ask(client, target,
                  fmt::format("SELECT coalesce(pg_total_relation_size(to_regclass({})), 0)",
                              pg::quote_literal(sql_name(table))),
                  deadline));
    seen.bytes += std::stoull(size.at(0).at(0).value_or("0"));  // its old rows
    ids.push_back(std::move(table));
  }
  ZX_TRY(may_replace(client, target, ids, deadline));
  ZX_ASSIGN(const auto publications,
            ask(client, target, "SELECT pubname FROM pg_publication WHERE puballtables", deadline));
  for (const auto& row : publications)
    seen.warnings.push_back(fmt::format(
        "publication {} has every table: a subscriber stops at TABLE_zxold until it has that too",
        row.at(0).value_or("")));
  for (const auto& all : set.pg->databases)
    if (all.name == part.name) seen.bytes += 2 * size_of(part, all);  // aside, and in its place
  return seen;
}

Result<std::vector<std::string>> commit_tables(const RestoreWorld& world, const Kept& kept,
                                               Deadline deadline) {
  ZX_ASSIGN(auto server, primary_server(world, kept.cluster));
  ZX_ASSIGN(const auto names, look_at_names(server.target, {kept.table_database}, deadline));
  const auto& now = names.at(kept.table_database);
  std::vector<std::string> removed;
  if (now.is_there) {
    ZX_ASSIGN(const auto tables,
              drop_kept_tables(swap_of(kept.run, server, to_json(kept)), deadline));
    for (const auto& table : tables)
      removed.push_back(fmt::format("table {}.{}", kept.table_database, table));
  }
  if (now.has_new) {
    ZX_TRY(drop_database(server.target, aside_name(kept.table_database), deadline));
    removed.push_back("database " + aside_name(kept.table_database));
  }
  return removed;
}

void add_table_actions(RestoreWorld& world, run::Actions& actions) {
  actions["restore.table-load"] = {{},
                                   [&world](StepContext& context) { return load(world, context); },
                                   {},
                                   [&world](StepContext& context) -> Status {
                                     ZX_TRY(forget(world, context));
                                     return {};
                                   }};
  actions["restore.table-check"].act = [&world](StepContext& context) {
    return check(world, context);
  };
  actions["restore.table-swap"] = {
      {},
      [&world](StepContext& context) { return swap(world, context); },
      {},
      [&world](StepContext& context) { return swap_back(world, context); }};
  actions["restore.table-clear"].act = [&world](StepContext& context) {
    return clear(world, context);
  };
  actions["restore.undo-tables"].act = [&world](StepContext& context) {
    return undo(world, context);
  };
}

}  // namespace zx::backup
