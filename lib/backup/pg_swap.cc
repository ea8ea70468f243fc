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

// The name too: it was the first of those that are there.
struct Beside {
  pg::Target target;
  pg::Client client;
};
Result<Beside> open_beside(pg::Target target, const std::vector<std::string>& names,
                           Deadline deadline) {
  std::vector<std::string> candidates{"postgres", "template1", target.database};
  std::erase_if(candidates, [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  });
  target.statement_timeout = Millis(0);
  for (const auto& name : candidates) {
    target.database = name;
    auto client = pg::Client::open(target, deadline.at_most(kConnect));
    if (!client && client.error().why == pg::Failure::no_database) continue;
    if (!client) return fail(pg::error_of(target, client.error()));
    // The role's and the database's own settings count for whoever connects.
    if (const auto done =
            client->query("SET statement_timeout = 0; SET lock_timeout = 0", deadline);
        !done)
      return fail(pg::error_of(target, done.error()));
    return Beside{std::move(target), *std::move(client)};
  }
  return fail(Code::refused,
              target.name + " has neither postgres nor template1, from where others are renamed",
              "make one: CREATE DATABASE postgres");
}

Result<pg::Rows> ask(pg::Client& client, const pg::Target& target, const std::string& sql,
                     Deadline deadline) {
  auto rows = client.query(sql, deadline);
  if (!rows) return fail(pg::error_of(target, rows.error()));
  return *std::move(rows);
}

std::vector<std::string> all_names(const std::vector<std::string>& databases) {
  auto names = databases;
  for (const auto& name : databases) {
    names.push_back(aside_name(name));
    names.push_back(kept_name(name));
  }
  return names;
}

std::string list_of(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const auto& name : names) quoted.push_back(pg::quote_literal(name));
  return join(quoted, ", ");
}

std::string ending_sessions(const std::vector<std::string>& names) {
  return fmt::format(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ({}) AND pid"
      " <> pg_backend_pid()",
      list_of(names));
}

// Ends whoever is connected to one of the databases, again and again, until it is destroyed.
class Kicker {
 public:
  Kicker(pg::Client client, const std::vector<std::string>& names)
      : client_(std::move(client)), sql_(ending_sessions(names)), thread_([this] {
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
  std::vector<std::string> names;
  std::string change = "BEGIN; ";
  for (const auto& [from, to] : renames) {
    names.push_back(from);
    change += fmt::format("ALTER DATABASE {} RENAME TO {}; ", quote_name(from), quote_name(to));
  }
  change += "COMMIT";
  ZX_ASSIGN(auto client, connect_beside(target, names, deadline));
  ZX_ASSIGN(auto other, connect_beside(target, names, deadline));
  const Kicker kicker(std::move(other), names);
  while (true) {
    auto done = client.query(change, deadline);
    if (done) return {};
    const bool is_used = done.error().why == pg::Failure::in_use;
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

Status drop_subscriptions(pg::Client& beside, const pg::Target& target, const std::string& name,
                          Deadline deadline) {
  ZX_ASSIGN(const auto rows,
            ask(beside, target,
                fmt::format("SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid ="
                            " subdbid WHERE datname = {}",
                            pg::quote_literal(name)),
                deadline));
  if (rows.empty()) return {};
  auto there = target;
  there.database = name;
  auto client = pg::Client::open(there, deadline.at_most(kConnect));
  if (!client) return fail(pg::error_of(there, client.error()));
  for (const auto& row : rows) {
    const auto subscription = quote_name(row.at(0).value_or(""));
    for (const auto* sql : {"ALTER SUBSCRIPTION {} DISABLE",
                            "ALTER SUBSCRIPTION {} SET (slot_name = NONE)", "DROP SUBSCRIPTION {}"})
      ZX_TRY(ask(*client, there, fmt::format(fmt::runtime(sql), subscription), deadline));
  }
  return {};
}

}  // namespace

Result<pg::Client> connect_beside(const pg::Target& target, const std::vector<std::string>& names,
                                  Deadline deadline) {
  ZX_ASSIGN(auto beside, open_beside(target, names, deadline));
  return std::move(beside.client);
}

Result<pg::Target> target_beside(const pg::Target& target, const std::vector<std::string>& names,
                                 Deadline deadline) {
  ZX_ASSIGN(auto beside, open_beside(target, names, deadline));
  return std::move(beside.target);
}

std::string aside_name(const std::string& database) { return database + "_zxnew"; }
std::string kept_name(const std::string& database) { return database + "_zxold"; }

Result<std::vector<Rename>> renames_in(const std::map<std::string, SwapNames>& names,
                                       const Oids& loaded) {
  constexpr const char* kHint = "somebody has changed it: take the run back, then restore again";
  std::vector<Rename> all;
  for (const auto& [database, now] : names) {
    const auto fresh = aside_name(database);
    const auto known = loaded.find(database);
    const std::uint32_t oid = known == loaded.end() ? 0 : known->second;
    if (!now.has_new) {
      if (!now.is_there)
        return fail(Code::refused, fmt::format("neither {} nor {} is there", database, fresh),
                    kHint);
      // It was swapped already: what was there before has gone aside, or it is the one itself.
      if (oid != 0 ? now.oid == oid : now.has_old) continue;
      return fail(
          Code::refused,
          fmt::format("{} is not there any more, and {} is not what was loaded", fresh, database),
          kHint);
    }
    if (oid != 0 && now.new_oid != oid)
      return fail(Code::refused, fresh + " is not what was loaded", kHint);
    if (now.is_there && now.has_old) return fail(both(database, kept_name(database)));
    if (now.is_there) all.push_back({database, kept_name(database)});
    all.push_back({aside_name(database), database});
  }
  return all;
}

Result<std::vector<Rename>> renames_back(const std::map<std::string, SwapNames>& names,
                                         const std::vector<std::string>& had_old,
                                         const Oids& loaded) {
  std::vector<Rename> all;
  for (const auto& [database, now] : names) {
    const bool had = std::find(had_old.begin(), had_old.end(), database) != had_old.end();
    // Not swapped, or swapped back already.
    if (had && !now.has_old) continue;
    if (!had && (now.has_new || !now.is_there)) continue;
    // Of somebody who came after.
    if (!had && loaded.contains(database) && loaded.at(database) != now.oid) continue;
    if (now.is_there && now.has_new) return fail(both(database, aside_name(database)));
    if (now.is_there) all.push_back({database, aside_name(database)});
    if (had) all.push_back({kept_name(database), database});
  }
  return all;
}

Result<std::map<std::string, SwapNames>> look_at_names(const pg::Target& target,
                                                       const std::vector<std::string>& databases,
                                                       Deadline deadline) {
  ZX_ASSIGN(auto client, connect_beside(target, all_names(databases), deadline));
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT datname, oid FROM pg_database", deadline));
  Oids there;
  for (const auto& row : rows)
    there[row.at(0).value_or("")] =
        static_cast<std::uint32_t>(std::stoull(row.at(1).value_or("0")));
  std::map<std::string, SwapNames> names;
  for (const auto& database : databases) {
    auto& now = names[database];
    now.is_there = there.contains(database);
    now.has_new = there.contains(aside_name(database));
    now.has_old = there.contains(kept_name(database));
    if (now.is_there) now.oid = there.at(database);
    if (now.has_new) now.new_oid = there.at(aside_name(database));
  }
  return names;
}

Status swap_in(const pg::Target& target, const std::map<std::string, SwapNames>& names,
               const Oids& loaded, Deadline deadline) {
  ZX_ASSIGN(const auto renames, renames_in(names, loaded));
  return rename_all(target, renames, deadline);
}

Status swap_back(const pg::Target& target, const std::vector<std::string>& databases,
                 const std::vector<std::string>& had_old, const Oids& loaded, Deadline deadline) {
  ZX_ASSIGN(const auto names, look_at_names(target, databases, deadline));
  ZX_ASSIGN(const auto renames, renames_back(names, had_old, loaded));
  return rename_all(target, renames, deadline);
}

Result<Lsn> written_by(const pg::Target& target, Deadline deadline) {
  ZX_ASSIGN(auto client, connect_beside(target, {}, deadline));
  ZX_ASSIGN(const auto rows, ask(client, target, "SELECT pg_current_wal_flush_lsn()", deadline));
  return parse_lsn(rows.at(0).at(0).value_or("")).value_or(Lsn{});
}

Status end_sessions(const pg::Target& target, const std::vector<std::string>& names,
                    Deadline deadline) {
  if (names.empty()) return {};
  ZX_ASSIGN(auto client, connect_beside(target, names, deadline));
  ZX_TRY(ask(client, target, ending_sessions(names), deadline));
  return {};
}

Status drop_database(const pg::Target& target, const std::string& name, Deadline deadline) {
  ZX_ASSIGN(auto client, connect_beside(target, {name}, deadline));
  ZX_TRY(drop_subscriptions(client, target, name, deadline));
  ZX_ASSIGN(
      const auto done,
      ask(client, target, fmt::format("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_name(name)),
          deadline));
  return {};
}

}  // namespace zx::backup
