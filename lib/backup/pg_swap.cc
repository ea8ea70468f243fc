#include "lib/backup/pg_swap.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/pg_load.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kConnect{10'000};
constexpr Millis kLook{50};

Result<pg::Client> connect(const pg::Target& target, Deadline deadline) {
  auto client = pg::Client::open(target, deadline.at_most(kConnect));
  if (!client) return fail(pg::error_of(target, client.error()));
  return *std::move(client);
}

Result<pg::Rows> ask(pg::Client& client, const pg::Target& target, const std::string& sql,
                     Deadline deadline) {
  auto rows = client.query(sql, deadline);
  if (!rows) return fail(pg::error_of(target, rows.error()));
  return *std::move(rows);
}

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const auto& name : names) quoted.push_back(pg::quote_literal(name));
  return join(quoted, ", ");
}

// Ends whoever is connected to one of the databases, again and again, until it is destroyed.
class Kicker {
 public:
  Kicker(pg::Client client, const std::vector<std::string>& names)
      : client_(std::move(client)),
        sql_(fmt::format("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                         " WHERE datname IN ({}) AND pid <> pg_backend_pid()",
                         list_of(names))),
        thread_([this] {
          // It is no more than help: what it cannot do, the rename says.
          while (!is_over_ && client_.query(sql_, Deadline::after(kConnect))) pause_for(kLook);
        }) {}
  ~Kicker() {
    is_over_ = true;
    thread_.join();
  }
  Kicker(const Kicker&) = delete;
  Kicker& operator=(const Kicker&) = delete;

 private:
  pg::Client client_;
  std::string sql_;
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

// ALTER DATABASE … RENAME lets nobody in any more, and waits some seconds for who is there to go.
// When zx is killed, its transaction ends and all is as before.
Status rename_all(const pg::Target& target, const std::vector<Rename>& renames, Deadline deadline) {
  if (renames.empty()) return {};
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN(auto other, connect(target, deadline));
  std::vector<std::string> names;
  std::string change = "BEGIN; ";
  for (const auto& [from, to] : renames) {
    names.push_back(from);
    change += fmt::format("ALTER DATABASE {} RENAME TO {}; ", quote_name(from), quote_name(to));
  }
  change += "COMMIT";
  const Kicker kicker(std::move(other), names);
  while (true) {
    auto done = client.query(change, deadline);
    if (done) return {};
    const bool is_used = done.error().error.message.find("being accessed") != std::string::npos;
    if (!is_used || deadline.passed()) return fail(pg::error_of(target, done.error()));
    ZX_ASSIGN(const auto ended, ask(client, target, "ROLLBACK", deadline));
  }
}

Error both(const std::string& database, const std::string& other) {
  return Error{Code::refused,
               fmt::format("there are both {} and {}", database, other),
               "an earlier restore is kept there: zx restore commit, or zx restore undo",
               {},
               false};
}

}  // namespace

std::string aside_name(const std::string& database) { return database + "_zxnew"; }
std::string kept_name(const std::string& database) { return database + "_zxold"; }

Result<std::vector<Rename>> renames_in(const std::map<std::string, SwapNames>& names) {
  std::vector<Rename> all;
  for (const auto& [database, now] : names) {
    if (!now.has_new) {
      if (now.is_there) continue;
      return fail(Code::failed,
                  fmt::format("neither {} nor {} is there", database, aside_name(database)));
    }
    if (now.is_there && now.has_old) return fail(both(database, kept_name(database)));
    if (now.is_there) all.push_back({database, kept_name(database)});
    all.push_back({aside_name(database), database});
  }
  return all;
}

Result<std::vector<Rename>> renames_back(const std::map<std::string, SwapNames>& names,
                                         const std::vector<std::string>& had_old) {
  std::vector<Rename> all;
  for (const auto& [database, now] : names) {
    const bool had = std::find(had_old.begin(), had_old.end(), database) != had_old.end();
    // Not swapped, or swapped back already.
    if (had && !now.has_old) continue;
    if (!had && (now.has_new || !now.is_there)) continue;
    if (now.is_there && now.has_new) return fail(both(database, aside_name(database)));
    if (now.is_there) all.push_back({database, aside_name(database)});
    if (had) all.push_back({kept_name(database), database});
  }
  return all;
}

Result<std::map<std::string, SwapNames>> look_at_names(const pg::Target& target,
                                                       const std::vector<std::string>& databases,
                                                       Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT datname FROM pg_database", deadline));
  std::vector<std::string> there;
  for (const auto& row : rows) there.push_back(row.at(0).value_or(""));
  const auto has = [&](const std::string& name) {
    return std::find(there.begin(), there.end(), name) != there.end();
  };
  std::map<std::string, SwapNames> names;
  for (const auto& database : databases)
    names[database] = {has(database), has(aside_name(database)), has(kept_name(database))};
  return names;
}

Status swap_in(const pg::Target& target, const std::vector<std::string>& databases,
               Deadline deadline) {
  ZX_ASSIGN(const auto names, look_at_names(target, databases, deadline));
  ZX_ASSIGN(const auto renames, renames_in(names));
  return rename_all(target, renames, deadline);
}

Status swap_back(const pg::Target& target, const std::vector<std::string>& databases,
                 const std::vector<std::string>& had_old, Deadline deadline) {
  ZX_ASSIGN(const auto names, look_at_names(target, databases, deadline));
  ZX_ASSIGN(const auto renames, renames_back(names, had_old));
  return rename_all(target, renames, deadline);
}

Status drop_database(const pg::Target& target, const std::string& name, Deadline deadline) {
  ZX_ASSIGN(auto client, connect(target, deadline));
  ZX_ASSIGN(
      const auto done,
      ask(client, target, fmt::format("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_name(name)),
          deadline));
  return {};
}

}  // namespace zx::backup
