// Rows of single tables on their way back: which table is meant, and the statements that put rows
// of a set in the place of those that are there. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/set.h"

namespace zx::backup {

struct TableId {
  std::string schema, name;
  auto operator<=>(const TableId&) const = default;
};
// Of a name as a manifest has it: public."Order". Code::failed for anything else.
[[nodiscard]] Result<TableId> table_id(const std::string& quoted);
[[nodiscard]] std::string sql_name(const TableId& table);         // "public"."Order", always quoted
[[nodiscard]] std::string shown(const TableId& table);            // public.Order, for people
[[nodiscard]] TableId kept_table(const TableId& table);           // TABLE_zxold, of the same schema
[[nodiscard]] std::string kept_shown(const std::string& quoted);  // the same, for people

// Which of `tables` a person means by [SCHEMA.]TABLE, with or without SQL's quotes: spelled like
// this, else in lower case; without a schema public's, else the only one of that name. Code::usage
// when several may be meant, not_found, with the nearest name as a hint.
[[nodiscard]] Result<TableRows> find_table(const std::vector<TableRows>& tables,
                                           const std::string& wish);

// Rows that refer to nothing, by foreign key: "public.lines lines_order_id_fkey".
using Orphans = std::map<std::string, std::int64_t>;

// A comment on TABLE_zxold says which run keeps it: what was committed is told by it, whatever the
// journal has of it. `before`: what did not hold then, and need not hold on the way back.
[[nodiscard]] std::string marker(const std::string& run, bool had_table,
                                 const Orphans& before = {});
[[nodiscard]] std::string run_of_marker(const std::string& comment);  // empty: it is none
[[nodiscard]] Orphans orphans_of_marker(const std::string& comment);

// What a database has of a table's name and of TABLE_zxold.
struct TableNow {
  char kind = 0;  // of pg_class; 0: there is none
  bool has_kept = false;
  std::string kept_by;  // the run that its marker names
  Orphans orphans;
};
[[nodiscard]] std::string look_sql(const TableId& table);
[[nodiscard]] TableNow now_of(const std::vector<std::optional<std::string>>& row);

struct Column {
  std::string name, type;
  bool is_generated = false;
  bool operator==(const Column&) const = default;
};
[[nodiscard]] std::string columns_sql(const TableId& table);
// What the server has and `other` has not, or not like this, in words; the order does not matter.
[[nodiscard]] std::vector<std::string> columns_differ(const std::vector<Column>& server,
                                                      const std::vector<Column>& other,
                                                      const std::string& name_of_other);

[[nodiscard]] std::string lock_sql(const std::vector<TableId>& tables);
// The rows go into TABLE_zxold, and out of the table.
[[nodiscard]] std::string keep_sql(const TableId& table, const std::string& run,
                                   const Orphans& before);
// There is no table: an empty TABLE_zxold is only the marker.
[[nodiscard]] std::string keep_none_sql(const TableId& table, const std::string& run);
[[nodiscard]] std::string copy_out_sql(const TableId& table, const std::vector<Column>& columns);
[[nodiscard]] std::string copy_in_sql(const TableId& table, const std::vector<Column>& columns);
// The way back: what TABLE_zxold has becomes the rows of the table.
[[nodiscard]] std::string bring_back_sql(const TableId& table, const std::vector<Column>& columns);

// A foreign key that the server has checked before: the names are SQL.
struct ForeignKey {
  struct Pair {
    std::string of, to;  // columns
    std::string equals;  // OPERATOR(pg_catalog.=), of the key
  };
  std::string name, of, to;
  bool of_partitions = false, to_partitions = false;
  bool is_full = false;  // MATCH FULL
  std::vector<Pair> pairs;
  bool of_asked = false;              // `of` is one of the tables that were asked for
  std::vector<std::size_t> to_asked;  // which of those `to` is, or has as partitions
};
[[nodiscard]] std::string id_of(const ForeignKey& key);  // as in Orphans
// Of and to these tables, through partitioned tables too.
[[nodiscard]] std::string foreign_keys_sql(const std::vector<TableId>& tables);
// Of the rows of foreign_keys_sql().
[[nodiscard]] std::vector<ForeignKey> foreign_keys_of(
    const std::vector<std::vector<std::optional<std::string>>>& rows);
// Counts the rows that refer to none; with `kept` only those that do so since the rows in there,
// that they referred to, are gone.
[[nodiscard]] std::string orphans_sql(const ForeignKey& key, const std::vector<TableId>& kept = {});

// What would act on rows also under session_replication_role = replica: pairs of statements that
// switch it off and on.
[[nodiscard]] std::string always_acting_sql(const std::vector<TableId>& tables);
// Statements that set sequences of the tables' columns forward, never back.
[[nodiscard]] std::string sequences_sql(const std::vector<TableId>& tables);
// Foreign keys that other tables have to these: table, name, definition.
[[nodiscard]] std::string referrers_sql(const std::vector<TableId>& tables);

}  // namespace zx::backup
