#include "lib/backup/restore_checks.h"

#include <sys/stat.h>

#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/backup/files_index.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_globals.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr std::size_t kMostGlobals = 256u << 20;

Result<pg::Rows> ask(pg::Client& client, const pg::Target& target, const std::string& sql,
                     Deadline deadline) {
  auto rows = client.query(sql, deadline);
  if (!rows) return fail(pg::error_of(target, rows.error()));
  return *std::move(rows);
}

// A name as SQL has it, at the beginning of `text`.
std::string name_in(std::string_view text) {
  std::string name;
  if (!text.starts_with('"')) return std::string(text.substr(0, text.find_first_of(" ;\n")));
  for (std::size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"' && (i + 1 == text.size() || text[i + 1] != '"')) return name;
    if (text[i] == '"') ++i;
    name += text[i];
  }
  return {};
}

}  // namespace

bool is_leaving(const std::string& database) {
  return database.ends_with("_zxold") || database.ends_with("_zxnew");
}

Result<Need> need_at(const std::string& path, std::uint64_t bytes, const std::string& what) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0)
    return fail(errno_error(Code::io, "cannot look at " + path, errno));
  return Need{found.st_dev, path, bytes, what};
}

Status has_room(const std::vector<Need>& needs,
                const std::function<Result<std::uint64_t>(const std::string&)>& free) {
  std::map<std::uint64_t, std::vector<const Need*>> by_device;
  for (const auto& need : needs)
    if (need.bytes > 0) by_device[need.device].push_back(&need);
  for (const auto& [device, all] : by_device) {
    std::uint64_t sum = 0;
    std::vector<std::string> words;
    for (const auto* need : all) {
      sum += need->bytes;
      words.push_back(fmt::format("{} {}", need->what, format_bytes(need->bytes)));
    }
    const auto& path = all.front()->path;
    ZX_ASSIGN(const auto there, free(path));
    if (there >= sum + kReserve) continue;
    return fail(Code::disk_full,
                fmt::format("the file system of {} has {} free; beside what is there it must take "
                            "{}: {}",
                            path, format_bytes(there), format_bytes(sum), join(words, ", ")),
                fmt::format("make room there, with {} to spare", format_bytes(kReserve)));
  }
  return {};
}

Result<std::vector<Need>> needs_of_server(const std::string& node, const std::string& data_dir,
                                          std::uint64_t size, const std::string& what) {
  std::vector<Need> needs;
  ZX_ASSIGN(auto data, need_at(data_dir, size, fmt::format("{} on {}", what, node)));
  needs.push_back(std::move(data));
  ZX_ASSIGN(auto wal, need_at(data_dir + "/pg_wal", size, "the WAL of it on " + node));
  needs.push_back(std::move(wal));
  return needs;
}

Status leaves_one_to_connect(pg::Client& client, const pg::Target& target,
                             const std::vector<std::string>& databases, Deadline deadline) {
  ZX_ASSIGN(const auto rows,
            ask(client, target,
                "SELECT datname FROM pg_database WHERE datallowconn"
                " AND has_database_privilege(oid, 'CONNECT') AND (datname IN ('postgres',"
                " 'template1') OR datname = current_database())",
                deadline));
  for (const auto& row : rows)
    if (!contains(databases, row.at(0).value_or(""))) return {};
  return fail(Code::refused,
              fmt::format("{} has no database to connect to while {} is renamed: neither postgres "
                          "nor template1 lets one in",
                          target.name, join(databases, ", ")),
              "ALTER DATABASE template1 ALLOW_CONNECTIONS true");
}

Status can_be_renamed(pg::Client& client, const pg::Target& target,
                      const std::vector<std::string>& databases, Deadline deadline) {
  ZX_ASSIGN(
      const auto rows,
      ask(client, target, "SELECT DISTINCT database FROM pg_prepared_xacts ORDER BY 1", deadline));
  for (const auto& row : rows)
    if (const auto name = row.at(0).value_or(""); contains(databases, name))
      return fail(Code::refused,
                  fmt::format("{} has prepared transactions, so it cannot be renamed", name),
                  "end them: SELECT gid FROM pg_prepared_xacts; COMMIT PREPARED or ROLLBACK "
                  "PREPARED");
  return {};
}

std::string tablespace_made_by(std::string_view sql) {
  constexpr std::string_view kMake = "CREATE TABLESPACE ";
  if (!sql.starts_with(kMake)) return {};
  return name_in(sql.substr(kMake.size()));
}

Result<std::vector<std::string>> missing_tablespaces(const Repository& repository,
                                                     const PgPart& part, pg::Client& client,
                                                     const pg::Target& target, Deadline deadline) {
  ZX_ASSIGN(const auto text, read_object(repository, part.globals, kMostGlobals));
  ZX_ASSIGN(const auto statements, statements_of(text));
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT spcname FROM pg_tablespace", deadline));
  std::vector<std::string> there, missing;
  for (const auto& row : rows) there.push_back(row.at(0).value_or(""));
  for (const auto& statement : statements) {
    if (statement.about != GlobalStatement::About::tablespace) continue;
    const auto name = tablespace_made_by(statement.sql);
    if (!name.empty() && !contains(there, name)) missing.push_back(name);
  }
  return missing;
}

Result<std::vector<std::string>> replication_warnings(pg::Client& client, const pg::Target& target,
                                                      const std::vector<std::string>& databases,
                                                      Deadline deadline) {
  std::vector<std::string> warnings;
  ZX_ASSIGN(const auto subscriptions,
            ask(client, target,
                "SELECT d.datname, s.subname FROM pg_subscription s JOIN pg_database d"
                " ON d.oid = s.subdbid ORDER BY 1, 2",
                deadline));
  for (const auto& row : subscriptions)
    if (const auto database = row.at(0).value_or(""); contains(databases, database))
      warnings.push_back(
          fmt::format("the subscription {} stays with {}_zxold and goes on there: "
                      "{} does not receive from it",
                      row.at(1).value_or(""), database, database));
  ZX_ASSIGN(const auto slots, ask(client, target,
                                  "SELECT database, slot_name, active FROM pg_replication_slots"
                                  " WHERE slot_type = 'logical' ORDER BY 1, 2",
                                  deadline));
  for (const auto& row : slots)
    if (const auto database = row.at(0).value_or(""); contains(databases, database))
      warnings.push_back(fmt::format(
          "the logical slot {} stays with {}_zxold: whoever reads it does not get what {} is "
          "given{}",
          row.at(1).value_or(""), database, database,
          row.at(2).value_or("") == "t" ? "; it is in use, and is ended when the databases are "
                                          "renamed: stop who reads it first"
                                        : ""));
  return warnings;
}

Result<bool> has_other_owners(const Repository& repository, const FilesPart& part, uid_t uid,
                              const std::vector<gid_t>& groups) {
  const std::set<gid_t> own(groups.begin(), groups.end());
  ZX_ASSIGN(auto object, ObjectReader::open(repository, part.index));
  IndexReader reader([&object] { return object.next(); });
  IndexEntry entry;
  while (true) {
    ZX_ASSIGN(const bool is_one, reader.next(entry));
    if (!is_one) return false;
    if (entry.uid != uid || !own.contains(entry.gid)) return true;
  }
}

}  // namespace zx::backup
