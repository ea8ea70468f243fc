// A restored database takes the place of the one that is there, by name, and gives it back.
// DB_zxnew is what was loaded, DB_zxold what was there before.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/base/lsn.h"
#include "lib/pg/connection.h"

namespace zx::backup {

[[nodiscard]] std::string aside_name(const std::string& database);  // DB_zxnew
[[nodiscard]] std::string kept_name(const std::string& database);   // DB_zxold

// A connection to a database that nobody renames or drops: postgres, else template1, else the
// target's own, but for the `names`. No timeout of the server ends its statements.
[[nodiscard]] Result<pg::Client> connect_beside(const pg::Target& target,
                                                const std::vector<std::string>& names,
                                                Deadline deadline);
// The same, as a target.
[[nodiscard]] Result<pg::Target> target_beside(const pg::Target& target,
                                               const std::vector<std::string>& names,
                                               Deadline deadline);

using Oids = std::map<std::string, std::uint32_t>;  // of databases
struct SwapNames {
  bool is_there = false, has_new = false, has_old = false;
  std::uint32_t oid = 0, new_oid = 0;  // of DB and DB_zxnew
};
[[nodiscard]] Result<std::map<std::string, SwapNames>> look_at_names(
    const pg::Target& target, const std::vector<std::string>& databases, Deadline deadline);

// In one transaction: DB becomes DB_zxold, DB_zxnew becomes DB; whoever is connected to one of them
// is ended, and nobody is let in until then. `loaded` says which was loaded for each: a database
// that is it has been swapped already, and Code::refused when neither DB nor DB_zxnew is.
// Killed anywhere, all have their old names or all the new ones.
[[nodiscard]] Status swap_in(const pg::Target& target,
                             const std::map<std::string, SwapNames>& names, const Oids& loaded,
                             Deadline deadline);
// The way back: DB becomes DB_zxnew, DB_zxold becomes DB. A database that had none before (not in
// `had_old`) only loses its name, and only when it is the one of `loaded`, where that is known.
// `before_commit` may be empty; its Error takes all of it back.
[[nodiscard]] Status swap_back(const pg::Target& target, const std::vector<std::string>& databases,
                               const std::vector<std::string>& had_old, const Oids& loaded,
                               const std::function<Status()>& before_commit, Deadline deadline);
// Of a primary, flushed.
[[nodiscard]] Result<Lsn> written_by(const pg::Target& target, Deadline deadline);
// Ends who is connected to one of the databases.
[[nodiscard]] Status end_sessions(const pg::Target& target, const std::vector<std::string>& names,
                                  Deadline deadline);
// Whoever is connected is ended, and its subscriptions are dropped; their slots stay where they
// are, as they may be those of another database's too. Not an error when it is gone.
[[nodiscard]] Status drop_database(const pg::Target& target, const std::string& name,
                                   Deadline deadline);

// Pure: the statements of a swap, in their order. `renames` are pairs of the name now and then.
struct Rename {
  std::string from, to;
  bool operator==(const Rename&) const = default;
};
[[nodiscard]] Result<std::vector<Rename>> renames_in(const std::map<std::string, SwapNames>& names,
                                                     const Oids& loaded);
[[nodiscard]] Result<std::vector<Rename>> renames_back(
    const std::map<std::string, SwapNames>& names, const std::vector<std::string>& had_old,
    const Oids& loaded = {});

}  // namespace zx::backup
