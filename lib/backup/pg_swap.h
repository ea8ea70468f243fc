// A restored database takes the place of the one that is there, by name, and gives it back.
// DB_zxnew is what was loaded, DB_zxold what was there before.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/pg/connection.h"

namespace zx::backup {

[[nodiscard]] std::string aside_name(const std::string& database);  // DB_zxnew
[[nodiscard]] std::string kept_name(const std::string& database);   // DB_zxold

struct SwapNames {
  bool is_there = false, has_new = false, has_old = false;
};
[[nodiscard]] Result<std::map<std::string, SwapNames>> look_at_names(
    const pg::Target& target, const std::vector<std::string>& databases, Deadline deadline);

// In one transaction: DB becomes DB_zxold, DB_zxnew becomes DB; whoever is connected to one of them
// is ended, and nobody is let in until then. A database without DB_zxnew has been swapped already.
// Killed anywhere, all have their old names or all the new ones.
[[nodiscard]] Status swap_in(const pg::Target& target, const std::vector<std::string>& databases,
                             Deadline deadline);
// The way back: DB becomes DB_zxnew, DB_zxold becomes DB. A database that had none before (not in
// `had_old`) only loses its name.
[[nodiscard]] Status swap_back(const pg::Target& target, const std::vector<std::string>& databases,
                               const std::vector<std::string>& had_old, Deadline deadline);
// Whoever is connected is ended. Not an error when it is gone.
[[nodiscard]] Status drop_database(const pg::Target& target, const std::string& name,
                                   Deadline deadline);

// Pure: the statements of a swap, in their order. `renames` are pairs of the name now and then.
struct Rename {
  std::string from, to;
};
[[nodiscard]] Result<std::vector<Rename>> renames_in(const std::map<std::string, SwapNames>& names);
[[nodiscard]] Result<std::vector<Rename>> renames_back(
    const std::map<std::string, SwapNames>& names, const std::vector<std::string>& had_old);

}  // namespace zx::backup
