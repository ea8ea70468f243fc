#include "lib/backup/row_counts.h"

#include <map>

#include <fmt/format.h>

namespace zx::backup {
namespace {

// Tables of extensions are made by these, and not dumped.
constexpr const char* kTables = R"(
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 3)";

}  // namespace

pg::Outcome<std::vector<TableName>> list_tables(pg::Client& client, Deadline deadline) {
  auto rows = client.query(kTables, deadline);
  if (!rows) return tl::unexpected(rows.error());
  std::vector<TableName> tables;
  for (const auto& row : *rows)
    tables.push_back({row.at(0).value_or(""), row.at(1).value_or(""), row.at(2).value_or("")});
  return tables;
}

pg::Outcome<std::vector<TableRows>> count_rows(pg::Client& client, Deadline deadline) {
  // A policy would hide rows from the count and not from the dump.
  if (auto done = client.query("SET row_security = off", deadline); !done)
    return tl::unexpected(done.error());
  auto tables = list_tables(client, deadline);
  if (!tables) return tl::unexpected(tables.error());
  std::vector<TableRows> counted;
  for (const auto& table : *tables) {
    auto count = client.query("SELECT count(*) FROM ONLY " + table.quoted, deadline);
    if (!count) return tl::unexpected(count.error());
    counted.push_back({table.quoted, std::stoull(count->at(0).at(0).value_or("0"))});
  }
  return counted;
}

std::vector<std::string> rows_differ(const std::vector<TableRows>& expected,
                                     const std::vector<TableRows>& found) {
  std::map<std::string, std::uint64_t> there;
  for (const auto& one : found) there[one.table] = one.rows;
  std::vector<std::string> words;
  for (const auto& one : expected) {
    const auto at = there.find(one.table);
    if (at == there.end())
      words.push_back(one.table + " is missing");
    else if (at->second != one.rows)
      words.push_back(fmt::format("{} has {} rows instead of {}", one.table, at->second, one.rows));
    if (at != there.end()) there.erase(at);
  }
  for (const auto& [table, rows] : there)
    words.push_back(fmt::format("{} with {} rows is too much", table, rows));
  return words;
}

}  // namespace zx::backup
