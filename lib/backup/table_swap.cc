#include "lib/backup/table_swap.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "lib/backup/dump_script.h"
#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/os/stream.h"
#include "lib/pg/client_environment.h"
#include "lib/pg/copy_in.h"

namespace zx::backup {
namespace {

// Who comes after a waiting lock waits too: it is given up, and asked for again when they are
// through. Once the tables are locked, others wait for what is waited for here.
constexpr const char* kLockTimeout = "1s";
constexpr const char* kLaterLockTimeout = "5s";
constexpr Millis kBetweenLocks{1'000};
constexpr Millis kLockPatience{60'000};
constexpr std::size_t kMostWords = 3;

using Settings = std::vector<std::pair<std::string, std::string>>;

// Rows are written and read alike, whatever the databases or roles have set.
Settings settings_of(const std::string& encoding = "UTF8") {
  return {{"statement_timeout", "0"},
          {"idle_in_transaction_session_timeout", "0"},
          {"default_transaction_read_only", "off"},
          {"row_security", "off"},
          {"search_path", ""},
          {"datestyle", "iso"},
          {"intervalstyle", "postgres"},
          {"extra_float_digits", "3"},
          {"client_encoding", encoding}};
}

std::string few(std::vector<std::string> words) {
  const auto more = words.size() > kMostWords ? words.size() - kMostWords : 0;
  words.resize(words.size() - more);
  return join(words, "; ") + (more == 0 ? "" : fmt::format("; and {} more", more));
}

Result<std::vector<TableId>> ids_of(const std::vector<std::string>& names) {
  std::vector<TableId> ids;
  for (const auto& name : names) {
    ZX_ASSIGN(auto id, table_id(name));
    ids.push_back(std::move(id));
  }
  return ids;
}

Result<std::vector<Column>> columns_of(pg::CopyIn& connection, const TableId& table) {
  ZX_ASSIGN(const auto rows, connection.ask(columns_sql(table)));
  std::vector<Column> columns;
  for (const auto& row : rows)
    columns.push_back({row.at(0).value_or(""), row.at(1).value_or(""), row.at(2) == "t"});
  return columns;
}

Result<std::int64_t> orphans_of(pg::CopyIn& connection, const ForeignKey& key,
                                const std::vector<TableId>& kept = {}) {
  ZX_ASSIGN(const auto found, connection.ask(orphans_sql(key, kept)));
  return std::strtoll(found.at(0).at(0).value_or("0").c_str(), nullptr, 10);
}

Error in_use(const TableSwap& swap, const Error& said) {
  return Error{Code::timeout,
               fmt::format("{} cannot be locked, somebody is using it: {}", join(swap.tables, ", "),
                           said.message),
               "nothing was changed; who holds it: SELECT pid, query FROM pg_stat_activity JOIN "
               "pg_locks USING (pid) WHERE relation = 'TABLE'::regclass",
               {},
               false};
}

// One transaction on the live database.
class Transaction {
 public:
  // The tables are locked only if they are to be changed: when they are kept, or are not.
  static Result<Transaction> begin(const TableSwap& swap, const std::string& encoding,
                                   bool changes_kept, Deadline deadline) {
    ZX_ASSIGN(auto connection,
              pg::CopyIn::connect(swap.server.target, settings_of(encoding), deadline));
    Transaction made(swap, std::move(connection));
    for (const auto& name : swap.tables) {
      ZX_ASSIGN(auto id, table_id(name));
      (contains(swap.had, name) ? made.had_ : made.missing_).push_back(id);
      made.tables_.push_back(std::move(id));
    }
    const auto patience = deadline.at_most(kLockPatience);
    while (true) {
      const auto locked = made.lock(changes_kept);
      if (locked) return made;
      if (!locked.error().retryable) return fail(locked.error());
      if (patience.passed()) return fail(in_use(swap, locked.error()));
      ZX_TRY(made.run("ROLLBACK"));
      pause_for(kBetweenLocks);
    }
  }

  [[nodiscard]] const std::vector<TableId>& tables() const { return tables_; }
  [[nodiscard]] const std::vector<TableId>& had() const { return had_; }
  [[nodiscard]] const std::vector<TableId>& missing() const { return missing_; }
  [[nodiscard]] const TableNow& now(const TableId& table) const { return now_.at(table); }
  pg::CopyIn& connection() { return connection_; }
  Status run(const std::string& sql) { return connection_.run(sql); }

  // Of this run: none, or all.
  Result<bool> is_kept() const {
    std::vector<std::string> lacking;
    for (const auto& table : tables_)
      if (now(table).kept_by != swap_->run) lacking.push_back(shown(kept_table(table)));
    if (lacking.size() == tables_.size()) return false;
    if (lacking.empty()) return true;
    return fail(Code::refused, join(lacking, ", ") + " of this restore is gone",
                "somebody has dropped it: what it kept cannot be brought back");
  }
  // No trigger and no rule acts, and nobody checks foreign keys row by row.
  Status quieten() {
    ZX_TRY(run("SET LOCAL session_replication_role = replica"));
    ZX_ASSIGN(const auto acting, connection_.ask(always_acting_sql(had_)));
    for (const auto& row : acting) {
      ZX_TRY(run(row.at(0).value_or("")));
      wake_.push_back(row.at(1).value_or(""));
    }
    return {};
  }
  // Ours are the locks: what others write into tables that refer to these, or that these refer to,
  // waits for them in its own check. `counting` counts the rows that stand in the way.
  using Counting = std::function<Result<std::int64_t>(const ForeignKey&)>;
  Status check_foreign_keys(const std::vector<TableId>& tables, const Counting& counting) {
    ZX_ASSIGN(const auto rows, connection_.ask(foreign_keys_sql(tables)));
    for (const auto& key : foreign_keys_of(rows)) {
      ZX_ASSIGN(const auto orphans, counting(key));
      if (orphans == 0) continue;
      return fail(Code::refused,
                  fmt::format("{} of {} would refer to nothing in {}: foreign key {}",
                              count_of(orphans, "row"), key.of, key.to, key.name),
                  fmt::format("nothing was changed; the two belong together, name both: --table {} "
                              "--table {}",
                              key.of, key.to));
    }
    return {};
  }
  Status finish(const std::vector<TableId>& tables, const Counting& counting) {
    for (const auto& sql : wake_) ZX_TRY(run(sql));
    if (tables.empty()) return {};
    ZX_ASSIGN(const auto forward, connection_.ask(sequences_sql(tables)));
    for (const auto& row : forward) ZX_TRY(run(row.at(0).value_or("")));
    return check_foreign_keys(tables, counting);
  }

 private:
  Transaction(const TableSwap& swap, pg::CopyIn connection)
      : swap_(&swap), connection_(std::move(connection)) {}

  Status lock(bool changes_kept) {
    ZX_TRY(run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"));
    ZX_TRY(run(fmt::format("SET LOCAL lock_timeout = '{}'", kLockTimeout)));
    // A transaction of a zx that was killed may still be at work, or be committing.
    ZX_TRY(run("SELECT pg_advisory_xact_lock(hashtext('zx restore'))"));
    ZX_TRY(look());
    ZX_ASSIGN(const bool kept, is_kept());
    if (kept != changes_kept) return {};
    std::vector<TableId> there;
    for (const auto& table : tables_)
      if (now(table).kind == 'r') there.push_back(table);
    if (there.empty()) return {};
    ZX_TRY(run(lock_sql(there)));
    ZX_TRY(run(fmt::format("SET LOCAL lock_timeout = '{}'", kLaterLockTimeout)));
    return look();
  }
  Status look() {
    for (const auto& table : tables_) {
      ZX_ASSIGN(const auto rows, connection_.ask(look_sql(table)));
      now_[table] = now_of(rows.at(0));
    }
    return {};
  }
  const TableSwap* swap_;
  pg::CopyIn connection_;
  std::vector<TableId> tables_, had_, missing_;
  std::map<TableId, TableNow> now_;
  std::vector<std::string> wake_;
};

// The server's refusal of a row, a name or a right: all of it is rolled back.
Error rolled_back(Error error) {
  if (error.code == Code::server) error.code = Code::failed;
  if (error.hint.empty()) error.hint = "nothing was changed";
  return error;
}

// --- in ----------------------------------------------------------------------------------------

class SwapIn {
 public:
  SwapIn(const TableSwap& swap, const TableSource& source, Deadline deadline)
      : swap_(swap), source_(source), deadline_(deadline) {}

  Result<bool> run() {
    auto target = swap_.server.target;
    target.database = source_.database;
    ZX_ASSIGN(auto aside, pg::CopyIn::connect(target, settings_of(source_.encoding), deadline_));
    ZX_ASSIGN(const auto orphans, orphans_now());
    ZX_ASSIGN(auto change, Transaction::begin(swap_, source_.encoding, false, deadline_));
    ZX_ASSIGN(const bool is_done, change.is_kept());
    if (is_done) return false;
    ZX_TRY(is_as_planned(change));
    std::map<TableId, std::vector<Column>> columns;
    for (const auto& table : change.had()) {
      ZX_ASSIGN(columns[table], same_columns(change, aside, table));
    }
    ZX_TRY(change.quieten());
    for (const auto& table : change.had()) ZX_TRY(change.run(keep_sql(table, swap_.run, orphans)));
    for (const auto& table : change.had()) ZX_TRY(copy(change, aside, table, columns.at(table)));
    if (const auto made = make_missing(change); !made) return fail(needs_others(made.error()));
    for (const auto& table : change.missing()) ZX_TRY(change.run(keep_none_sql(table, swap_.run)));
    ZX_TRY(change.finish(change.tables(),
                         [&](const ForeignKey& key) { return made_orphans(change, key); }));
    ZX_TRY(change.run("COMMIT"));
    return true;
  }

 private:
  // Who deletes by hand may leave rows that refer to nothing. Before the tables are locked: it only
  // tells what the way back may find again.
  Result<Orphans> orphans_now() const {
    Orphans orphans;
    ZX_ASSIGN(const auto had, ids_of(swap_.had));
    if (had.empty()) return orphans;
    auto settings = settings_of();
    // Nobody waits for one who wants to read.
    settings.emplace_back("lock_timeout", std::to_string(kLockPatience.count()));
    ZX_ASSIGN(auto live, pg::CopyIn::connect(swap_.server.target, settings, deadline_));
    ZX_ASSIGN(const auto rows, live.ask(foreign_keys_sql(had)));
    for (const auto& key : foreign_keys_of(rows)) {
      const auto count = orphans_of(live, key);
      if (!count)
        return fail(count.error().retryable ? in_use(swap_, count.error()) : count.error());
      if (*count > 0) orphans[id_of(key)] = *count;
    }
    return orphans;
  }
  // Rows of the set refer to something. Those of other tables may refer to nothing as before, but
  // what they did refer to must be there still: a count of before would hide as many new ones.
  static Result<std::int64_t> made_orphans(Transaction& change, const ForeignKey& key) {
    ZX_ASSIGN(const auto all, orphans_of(change.connection(), key));
    if (all == 0 || key.of_asked) return all;
    std::vector<TableId> kept;
    for (const auto at : key.to_asked) {
      const auto& table = change.tables().at(at);
      const auto& had = change.had();
      if (std::find(had.begin(), had.end(), table) != had.end()) kept.push_back(kept_table(table));
    }
    if (kept.empty()) return 0;  // nobody could refer to rows that were not there
    // TABLE_zxold has no index, and the server does not know yet what is in it.
    ZX_TRY(change.run("SET LOCAL enable_nestloop = off"));
    ZX_ASSIGN(const auto made, orphans_of(change.connection(), key, kept));
    ZX_TRY(change.run("SET LOCAL enable_nestloop TO DEFAULT"));
    return made;
  }
  Status is_as_planned(const Transaction& change) const {
    for (const auto& table : change.tables())
      if (change.now(table).has_kept)
        return fail(Code::refused, shown(kept_table(table)) + " is there",
                    "an earlier restore is kept there: zx restore commit, or zx restore undo");
    for (const auto& table : change.had())
      if (change.now(table).kind != 'r')
        return fail(Code::refused, shown(table) + " is not there any more",
                    "somebody has dropped it since the plan was made: try again");
    for (const auto& table : change.missing())
      if (change.now(table).kind != 0)
        return fail(Code::refused, shown(table) + " is there",
                    "somebody has made it since the plan was made: try again");
    return {};
  }
  Result<std::vector<Column>> same_columns(Transaction& change, pg::CopyIn& aside,
                                           const TableId& table) const {
    ZX_ASSIGN(const auto live, columns_of(change.connection(), table));
    ZX_ASSIGN(const auto of_set, columns_of(aside, table));
    const auto differ = columns_differ(live, of_set, "the set");
    if (differ.empty()) return live;
    return fail(Code::refused, fmt::format("{} is not as it was: {}", shown(table), few(differ)),
                "nothing was changed; make its columns as they were, or take its rows out of the "
                "set by hand: zx-repository(7)");
  }
  Status copy(Transaction& change, pg::CopyIn& aside, const TableId& table,
              const std::vector<Column>& columns) const {
    auto& live = change.connection();
    ZX_TRY(live.begin(copy_in_sql(table, columns)));
    ZX_TRY(aside.copy_out(copy_out_sql(table, columns),
                          [&](std::string_view lines) { return live.put(lines); }));
    ZX_ASSIGN(const auto rows, live.end());
    return has_rows(table, rows);
  }
  Status has_rows(const TableId& table, std::uint64_t rows) const {
    for (const auto& expected : source_.rows) {
      ZX_ASSIGN(const auto id, table_id(expected.table));
      if (id == table && rows != expected.rows)
        return fail(Code::failed,
                    fmt::format("{} got {} rows instead of {}", shown(table), rows, expected.rows));
    }
    return {};
  }
  static Error needs_others(Error error) {
    if (error.code == Code::server)
      error.hint =
          "nothing was changed; the table needs what is not there, or not as it was: a table that "
          "it refers to is brought back with it when both are named";
    return error;
  }
  // As pg_dump writes it, with indexes, constraints, rights and rows.
  Status make_missing(Transaction& change) const {
    if (change.missing().empty()) return {};
    ZX_ASSIGN(const auto environment, pg::ClientEnvironment::make(swap_.server.target));
    os::ProcessOptions options;
    options.environment = environment.variables(source_.database, {{"statement_timeout", "0"}});
    options.deadline = deadline_.left();
    options.output_limit = 64u << 10;
    os::Argv argv{swap_.server.bin_dir + "/pg_dump", "--format=plain", "--no-password",
                  "--strict-names", "--encoding=" + source_.encoding};
    for (const auto& table : change.missing()) argv.push_back("--table=" + sql_name(table));
    auto& live = change.connection();
    DumpScript script({[&](const std::string& sql) { return statement(live, sql); },
                       [&](const std::string& sql) { return live.begin(sql); },
                       [&](std::string_view lines) { return live.put(lines); },
                       [&]() -> Status {
                         ZX_TRY(live.end());
                         return {};
                       }});
    ZX_ASSIGN(const auto ended, os::run_reading(argv, options, [&](std::string_view piece) {
                return script.feed(piece);
              }));
    if (!ended.ok())
      return fail(Code::failed, fmt::format("pg_dump of {}: {}", source_.database,
                                            clean_utf8(first_line(ended.err))));
    ZX_TRY(script.finish());
    for (const auto& table : change.missing()) {
      ZX_ASSIGN(const auto rows, live.ask("SELECT count(*) FROM ONLY " + sql_name(table)));
      ZX_TRY(has_rows(table, std::stoull(rows.at(0).at(0).value_or("0"))));
    }
    return {};
  }
  // The waits for locks are of this transaction, not of the script.
  static Status statement(pg::CopyIn& live, const std::string& sql) {
    for (const char* setting :
         {"SET lock_timeout", "SET statement_timeout", "SET idle_in_transaction_session_timeout"})
      if (sql.starts_with(setting)) return {};
    return live.run(sql);
  }

  const TableSwap& swap_;
  const TableSource& source_;
  Deadline deadline_;
};

// --- back --------------------------------------------------------------------------------------

Status bring_back(Transaction& change, const TableId& table) {
  if (change.now(table).kind != 'r')
    return fail(
        Code::refused, shown(table) + " is not there any more",
        fmt::format("somebody has dropped it; its rows are in {}", shown(kept_table(table))));
  ZX_ASSIGN(const auto live, columns_of(change.connection(), table));
  ZX_ASSIGN(const auto kept, columns_of(change.connection(), kept_table(table)));
  // Values that were generated are plain there.
  auto plain = live;
  for (auto& column : plain) column.is_generated = false;
  const auto differ = columns_differ(plain, kept, shown(kept_table(table)));
  if (!differ.empty())
    return fail(Code::refused, fmt::format("{} is not as it was: {}", shown(table), few(differ)),
                "nothing was changed; make its columns as they were");
  ZX_TRY(change.run(bring_back_sql(table, live)));
  return change.run("DROP TABLE " + sql_name(kept_table(table)));
}

Status drop_made(Transaction& change) {
  std::vector<std::string> names;
  for (const auto& table : change.missing()) {
    if (change.now(table).kind == 'r') names.push_back(sql_name(table));
    names.push_back(sql_name(kept_table(table)));
  }
  if (names.empty()) return {};
  // All at once: they may refer to one another.
  auto done = change.run("DROP TABLE " + join(names, ", "));
  if (done || done.error().code != Code::server) return done;
  return fail(Code::refused, done.error().message,
              "nothing was changed; drop first what was made since and needs the table");
}

Result<bool> back(const TableSwap& swap, const std::function<Status()>& before_commit,
                  Deadline deadline) {
  ZX_ASSIGN(auto change, Transaction::begin(swap, "UTF8", true, deadline));
  ZX_ASSIGN(const bool is_kept, change.is_kept());
  if (!is_kept) return false;
  Orphans orphans;
  for (const auto& table : change.had())
    for (const auto& [key, count] : change.now(table).orphans) orphans[key] = count;
  ZX_TRY(change.quieten());
  for (const auto& table : change.had()) ZX_TRY(bring_back(change, table));
  ZX_TRY(drop_made(change));
  // As many may refer to nothing as before the restore.
  ZX_TRY(change.finish(change.had(), [&](const ForeignKey& key) -> Result<std::int64_t> {
    ZX_ASSIGN(const auto now, orphans_of(change.connection(), key));
    const auto then = orphans.find(id_of(key));
    return now <= (then == orphans.end() ? 0 : then->second) ? 0 : now;
  }));
  if (before_commit) ZX_TRY(before_commit());
  ZX_TRY(change.run("COMMIT"));
  return true;
}

}  // namespace

Result<bool> swap_tables_in(const TableSwap& swap, const TableSource& source, Deadline deadline) {
  auto done = SwapIn(swap, source, deadline).run();
  if (!done) return fail(rolled_back(done.error()));
  return done;
}

Result<bool> swap_tables_back(const TableSwap& swap, const std::function<Status()>& before_commit,
                              Deadline deadline) {
  auto done = back(swap, before_commit, deadline);
  if (!done) return fail(rolled_back(done.error()));
  return done;
}

Result<std::vector<std::string>> drop_kept_tables(const TableSwap& swap, Deadline deadline) {
  ZX_ASSIGN(auto connection, pg::CopyIn::connect(swap.server.target, settings_of(), deadline));
  ZX_ASSIGN(const auto tables, ids_of(swap.tables));
  std::vector<std::string> names, words;
  for (const auto& table : tables) {
    ZX_ASSIGN(const auto rows, connection.ask(look_sql(table)));
    if (now_of(rows.at(0)).kept_by != swap.run) continue;
    names.push_back(sql_name(kept_table(table)));
    words.push_back(shown(kept_table(table)));
  }
  if (!names.empty()) ZX_TRY(connection.run("DROP TABLE " + join(names, ", ")));
  return words;
}

Result<std::vector<std::string>> lost_referrers(const TableSwap& swap, const TableSource& source,
                                                Deadline deadline) {
  std::vector<TableId> missing;
  for (const auto& name : swap.tables) {
    if (contains(swap.had, name)) continue;
    ZX_ASSIGN(auto id, table_id(name));
    missing.push_back(std::move(id));
  }
  if (missing.empty()) return std::vector<std::string>{};
  const auto referrers = [&](const std::string& database) -> Result<pg::Rows> {
    auto target = swap.server.target;
    target.database = database;
    ZX_ASSIGN(auto connection, pg::CopyIn::connect(target, settings_of(), deadline));
    return connection.ask(referrers_sql(missing));
  };
  ZX_ASSIGN(const auto of_set, referrers(source.database));
  ZX_ASSIGN(const auto live, referrers(swap.server.target.database));
  std::set<std::pair<std::string, std::string>> there;
  for (const auto& row : live) there.emplace(row.at(0).value_or(""), row.at(1).value_or(""));
  std::vector<std::string> words;
  for (const auto& row : of_set)
    if (!there.contains({row.at(0).value_or(""), row.at(1).value_or("")}))
      words.push_back(fmt::format("ALTER TABLE {} ADD CONSTRAINT {} {}", row.at(0).value_or(""),
                                  row.at(1).value_or(""), row.at(2).value_or("")));
  return words;
}

}  // namespace zx::backup
