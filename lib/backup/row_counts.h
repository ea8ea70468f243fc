// How many rows a database's tables have.
#pragma once

#include <vector>

#include "lib/backup/set.h"
#include "lib/pg/connection.h"

namespace zx::backup {

// Every ordinary table that pg_dump dumps the rows of.
struct TableName {
  std::string schema, name;
  std::string quoted;  // as in TableRows
};
[[nodiscard]] pg::Outcome<std::vector<TableName>> list_tables(pg::Client& client,
                                                              Deadline deadline);
// Counted in the transaction that `client` is in, if it is in one. Takes a scan of each.
[[nodiscard]] pg::Outcome<std::vector<TableRows>> count_rows(pg::Client& client, Deadline deadline);

// What differs, in words: "public.orders has 3 rows instead of 4". Pure.
[[nodiscard]] std::vector<std::string> rows_differ(const std::vector<TableRows>& expected,
                                                   const std::vector<TableRows>& found);

}  // namespace zx::backup
