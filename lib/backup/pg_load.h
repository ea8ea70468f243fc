// Dumps of a set on their way into a server: roles, databases, what belongs to a database beside
// its dump. For a private server (verify) and a live one (restore) alike.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/backup/set.h"
#include "lib/os/process.h"
#include "lib/pg/connection.h"

namespace zx::backup {

struct PgServer {
  pg::Target target;    // a superuser, or who may make databases and roles; its database is asked
  std::string bin_dir;  // of PostgreSQL's programs on this host
};

struct LoadedGlobals {
  std::vector<std::string> made;  // names of roles
  std::string warning;            // that the server's log may show their passwords, hashed
};
// Makes the roles of the set that the server lacks, with all that the set tells of them:
// attributes, passwords, settings, memberships. All of them or, killed or refused, none. Roles that
// are there are not altered. Tablespaces are left out: they are places on a host. Nothing of it is
// written to the server's log where zx may keep it out.
[[nodiscard]] Result<LoadedGlobals> load_globals(const Repository& repository, const PgPart& part,
                                                 const PgServer& server, Deadline until);

// An empty one, with encoding, locale and owner as they were, in the default tablespace or, when
// the server has it, in its own.
[[nodiscard]] Status create_database(const PgServer& server, const DatabasePart& part,
                                     const std::string& as_name, Deadline until,
                                     bool in_own_tablespace = false);

struct LoadOptions {
  // All or nothing, and without WAL where wal_level is minimal. Takes a lock of each table and
  // index at once: max_locks_per_transaction of the server must allow it.
  bool in_one_transaction = false;
  bool no_tablespaces = false;  // all of it in the tablespace of its database
  os::Argv more;                // further arguments of pg_restore
  // That copy the rows of one table: a backend that copies has one processor at most. With 1
  // pg_restore does it all; in_one_transaction wants that.
  int copies = 1;
  std::function<void(std::uint64_t)> progress;  // bytes since the last call
  Deadline until = Deadline::after(Millis(24 * 3'600'000));
};
struct Loaded {
  std::uint64_t bytes = 0;  // of the dump, decompressed
  // Of every table, as the server counted them while it copied; empty where pg_restore did it all.
  std::vector<TableRows> counted;
  // That were left out: restored, one would be disabled and start anew what it receives.
  std::vector<std::string> subscriptions;
  Millis took{0};
};
// Into a database that is there and empty. Code::failed when the dump is damaged, although
// pg_restore may have been content with it, or cannot be loaded; config, disk_full when it is this
// host or server that cannot take it, see is_of_the_host(). What was loaded by then stays.
[[nodiscard]] Result<Loaded> load_database(const Repository& repository, const DatabasePart& part,
                                           const PgServer& server, const std::string& into,
                                           const LoadOptions& options);
// Reads all of a dump through pg_restore, which writes it to nowhere: pg_restore --list is no
// verification. The same errors.
[[nodiscard]] Status decode_dump(const Repository& repository, const DatabasePart& part,
                                 const std::string& bin_dir,
                                 const std::function<void(std::uint64_t)>& progress,
                                 Deadline until);

// What pg_dump does not write of a database that is restored under any name: ACL, settings,
// connection limit, owner.
[[nodiscard]] Status apply_properties(const PgServer& server, const DatabasePart& part,
                                      const std::string& database, Deadline until);

// --- pure ----------------------------------------------------------------------------------

[[nodiscard]] std::string quote_name(std::string_view name);  // "Bestell-DB", always quoted
// Code::refused for one that a server would cut, perhaps to the name of another.
[[nodiscard]] Status fits_as_name(const std::string& name);
// For a server of that version (150018). Code::refused for a locale provider that zx does not know,
// config for one that the server does not have.
[[nodiscard]] Result<std::string> create_database_sql(const DatabasePart& part,
                                                      const std::string& as_name, int version);
// Code::failed for a privilege that databases do not have: manifests may be hostile.
[[nodiscard]] Result<std::vector<std::string>> properties_sql(const DatabasePart& part,
                                                              const std::string& database);
// "without the subscriptions a, b"; empty: nothing was left out.
[[nodiscard]] std::string left_out(const std::vector<std::string>& subscriptions);
// English words of a server or of pg_restore: is it that this host or server lacks something (an
// extension, space, a locale, a newer version), and the dump may well be good?
[[nodiscard]] bool is_of_the_host(std::string_view words);

}  // namespace zx::backup
