#include "lib/backup/row_counts.h"

#include <map>

#include <fmt/format.h>

namespace zx::backup {
namespace {

// Tables of extensions are made by these, and not dumped.
constexpr const char* kTables = R"(
SELECT format('%I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1)";

}  // namespace

pg::Outcome<std::vector<TableRows>> count_rows(pg::Client& client, Hold hold, Deadline deadline) {
  // A policy would hide rows from the count and not from the dump.
  if (auto done = client.query("SET row_security = off", deadline); !done)
    return tl::unexpected(done.error());
  auto tables = client.query(kTables, deadline);
  if (!tables) return tl::unexpected(tables.error());
  if (hold == Hold::all_tables && !tables->empty()) {
    std::string sql = "LOCK TABLE ONLY ";
    for (const auto& row : *tables)
      sql += (&row == &tables->front() ? "" : ", ONLY ") + row.at(0).value_or("");
    sql += " IN ACCESS SHARE MODE";
    if (auto done = client.query(sql, deadline); !done) return tl::unexpected(done.error());
  }
  std::vector<TableRows> counted;
  for (const auto& row : *tables) {
    const auto name = row.at(0).value_or("");
    auto count = client.query("SELECT count(*) FROM ONLY " + name, deadline);
    if (!count) return tl::unexpected(count.error());
    counted.push_back({name, std::stoull(count->at(0).at(0).value_or("0"))});
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
