#include "lib/backup/pg_swap.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/pg_load.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kConnect{10'000};
constexpr Millis kLook{50};

// May another database of the server let zx in all the same?
bool is_of_one_database(pg::Failure why) {
  return why == pg::Failure::no_database || why == pg::Failure::permission ||
         why == pg::Failure::auth || why == pg::Failure::too_many_connections ||
         why == pg::Failure::other;
}

// The name too: it was the first of those that let zx in.
struct Beside {
  pg::Target target;
  pg::Client client;
};
Result<Beside> open_beside(pg::Target target, const std::vector<std::string>& names,
                           Deadline deadline) {
  std::vector<std::string> candidates{"postgres", "template1", target.database};
  std::erase_if(candidates, [&](const std::string& name) { return contains(names, name); });
  target.statement_timeout = Millis(0);
  std::optional<Error> closed;  // one that is there and lets nobody in
  for (const auto& name : candidates) {
    target.database = name;
    auto client = pg::Client::open(target, deadline.at_most(kConnect));
    if (!client) {
      const auto error = pg::error_of(target, client.error());
      if (!is_of_one_database(client.error().why)) return fail(error);
      if (!closed && client.error().why != pg::Failure::no_database) closed = error;
      continue;
    }
    // The settings of the role, the database and the server count for whoever connects; an incident
    // may have frozen writes by them.
    if (const auto done = client->query(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET default_transaction_read_only = "
            "off",
            deadline);
        !done)
      return fail(pg::error_of(target, done.error()));
    return Beside{std::move(target), *std::move(client)};
  }
  if (closed) return fail(*std::move(closed));
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

Result<std::map<std::string, SwapNames>> names_by(pg::Client& client, const pg::Target& target,
                                                  const std::vector<std::string>& databases,
                                                  Deadline deadline) {
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

// One transaction that renames, statement by statement: when zx is killed before it says COMMIT,
// nothing was renamed. One that a killed zx left at work, or at its COMMIT, which may wait for a
// standby, is waited for.
class Renaming {
 public:
  using Decide =
      std::function<Result<std::vector<Rename>>(const std::map<std::string, SwapNames>&)>;

  Renaming(const pg::Target& target, const std::vector<std::string>& databases, Deadline deadline)
      : target_(target), databases_(databases), deadline_(deadline) {}

  // What `decide` makes of the names as they are; `before_commit` may be empty.
  Status run(const Decide& decide, const std::function<Status()>& before_commit) {
    const auto names = all_names(databases_);
    ZX_ASSIGN(client_, connect_beside(target_, names, deadline_));
    while (true) {
      ZX_TRY(begin());
      ZX_ASSIGN(const auto now, names_by(*client_, target_, databases_, deadline_));
      ZX_ASSIGN(const auto renames, decide(now));
      if (renames.empty()) return {};
      if (!kicker_) {
        ZX_ASSIGN(auto other, connect_beside(target_, names, deadline_));
        kicker_.emplace(std::move(other), names);
      }
      ZX_ASSIGN(const bool is_done, rename(renames));
      if (!is_done) continue;
      if (before_commit) ZX_TRY(before_commit());
      ZX_TRY(ask(*client_, target_, "COMMIT", deadline_));
      return {};
    }
  }

 private:
  Status begin() {
    ZX_TRY(ask(*client_, target_, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", deadline_));
    const auto wait = std::max(Millis(1), deadline_.left() - kToSay);
    ZX_TRY(ask(*client_, target_, fmt::format("SET LOCAL lock_timeout = {}", wait.count()),
               deadline_));
    const auto locked =
        client_->query("SELECT pg_advisory_xact_lock(hashtext('zx restore'))", deadline_);
    if (!locked) {
      auto error = pg::error_of(target_, locked.error());
      error.hint =
          "an earlier swap is still at its COMMIT, perhaps waiting for a synchronous "
          "standby: zx status";
      return fail(std::move(error));
    }
    ZX_TRY(ask(*client_, target_, "SET LOCAL lock_timeout = 0", deadline_));
    return {};
  }
  // ALTER DATABASE … RENAME lets nobody in any more, and waits some seconds for who is there to go.
  // False: somebody did not go in time, and the transaction has ended.
  Result<bool> rename(const std::vector<Rename>& renames) {
    for (const auto& [from, to] : renames) {
      ZX_TRY(fits_as_name(to));
      const auto done = client_->query(
          fmt::format("ALTER DATABASE {} RENAME TO {}", quote_name(from), quote_name(to)),
          deadline_);
      if (done) continue;
      if (done.error().why != pg::Failure::in_use || deadline_.passed())
        return fail(pg::error_of(target_, done.error()));
      ZX_TRY(ask(*client_, target_, "ROLLBACK", deadline_));
      return false;
    }
    return true;
  }

  static constexpr Millis kToSay{1'000};  // before the deadline
  const pg::Target& target_;
  const std::vector<std::string>& databases_;
  Deadline deadline_;
  std::optional<pg::Client> client_;
  std::optional<Kicker> kicker_;
};

// Those that decide() names are those that were seen before; else none are left to be renamed.
Result<std::vector<Rename>> as_expected(Result<std::vector<Rename>> now,
                                        const std::vector<Rename>& expected) {
  if (!now || now->empty() || *now == expected) return now;
  return fail(Code::refused, "somebody renames databases at the same time",
              "take the run back, then restore again");
}

Error both(const std::string& database, const std::string& other) {
  return Error{Code::refused,
               fmt::format("there are both {} and {}", database, other),
               "an earlier restore is kept there: zx restore commit, or zx restore undo",
               {},
               false};
}

// A zx that was killed leaves the server at making a database, which nobody sees until it is there.
Status end_making(pg::Client& client, const pg::Target& target, const std::string& name,
                  Deadline deadline) {
  const auto words = pg::quote_literal("CREATE DATABASE " + quote_name(name) + " ");
  const auto sql = fmt::format(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND pid"
      " <> pg_backend_pid() AND left(query, length({0})) = {0}",
      words);
  while (true) {
    ZX_ASSIGN(const auto rows, ask(client, target, sql, deadline));
    if (rows.at(0).at(0) == "0") return {};
    if (deadline.passed())
      return fail(Code::timeout, fmt::format("{} is still being made on {}", name, target.name));
    pause_for(kLook);
  }
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
    const bool had = contains(had_old, database);
    // Not swapped, or swapped back already.
    if (had && !now.has_old) continue;
    if (!had && (now.has_new || !now.is_there)) continue;
    const bool is_loaded = !loaded.contains(database) || loaded.at(database) == now.oid;
    // Of somebody who came after.
    if (!had && !is_loaded) continue;
    if (now.is_there && !is_loaded)
      return fail(
          Code::refused,
          fmt::format("{} is not what was restored: somebody has made it since", database),
          fmt::format("rename or drop it; what was there before is {}", kept_name(database)));
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
  return names_by(client, target, databases, deadline);
}

Status swap_in(const pg::Target& target, const std::map<std::string, SwapNames>& names,
               const Oids& loaded, Deadline deadline) {
  ZX_ASSIGN(const auto expected, renames_in(names, loaded));
  std::vector<std::string> databases;
  for (const auto& [database, now] : names) databases.push_back(database);
  return Renaming(target, databases, deadline)
      .run([&](const auto& now) { return as_expected(renames_in(now, loaded), expected); }, {});
}

Status swap_back(const pg::Target& target, const std::vector<std::string>& databases,
                 const std::vector<std::string>& had_old, const Oids& loaded,
                 const std::function<Status()>& before_commit, Deadline deadline) {
  return Renaming(target, databases, deadline)
      .run([&](const auto& now) { return renames_back(now, had_old, loaded); }, before_commit);
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
  ZX_TRY(fits_as_name(name));
  ZX_ASSIGN(auto client, connect_beside(target, {name}, deadline));
  ZX_TRY(end_making(client, target, name, deadline));
  ZX_TRY(drop_subscriptions(client, target, name, deadline));
  ZX_ASSIGN(
      const auto done,
      ask(client, target, fmt::format("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_name(name)),
          deadline));
  return {};
}

}  // namespace zx::backup
