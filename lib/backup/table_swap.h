// Rows of tables of a set take the place of those that are there, and give it back, each in one
// transaction: zx killed anywhere, all have the old rows or all the new ones. TABLE_zxold keeps
// what was there. The tables are locked meanwhile: whoever reads or writes them waits.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/backup/pg_load.h"
#include "lib/backup/pg_table.h"

namespace zx::backup {

struct TableSwap {
  std::string run;                  // that the markers name
  PgServer server;                  // its target's database is the live one
  std::vector<std::string> tables;  // as a manifest has them
  std::vector<std::string> had;     // of these, there before
};
// Where the new rows come from.
struct TableSource {
  std::string database;         // on the same server
  std::string encoding;         // in which rows go over the wire: UTF8, but for SQL_ASCII
  std::vector<TableRows> rows;  // how many each must have
};

// Code::refused, with nothing changed: a column that is not as in the set, a foreign key that would
// lead nowhere. Code::timeout: whoever uses a table did not let go of it. False: it is done
// already.
[[nodiscard]] Result<bool> swap_tables_in(const TableSwap& swap, const TableSource& source,
                                          Deadline deadline);
// The same errors. `before_commit` is asked last. False: nothing of the run is there.
[[nodiscard]] Result<bool> swap_tables_back(const TableSwap& swap,
                                            const std::function<Status()>& before_commit,
                                            Deadline deadline);
// For good: TABLE_zxold of this run. Returns those that were there.
[[nodiscard]] Result<std::vector<std::string>> drop_kept_tables(const TableSwap& swap,
                                                                Deadline deadline);
// Foreign keys that other tables had to those which were not there, by the set's database, and
// which the live one lacks: "public.lines: ADD CONSTRAINT …".
[[nodiscard]] Result<std::vector<std::string>> lost_referrers(const TableSwap& swap,
                                                              const TableSource& source,
                                                              Deadline deadline);

}  // namespace zx::backup
