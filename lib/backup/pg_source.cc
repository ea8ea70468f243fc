#include "lib/backup/pg_source.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "lib/backup/dump_rows.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_standbys.h"
#include "lib/backup/row_counts.h"
#include "lib/base/text.h"
#include "lib/os/in_turns.h"
#include "lib/os/signals.h"
#include "lib/os/stream.h"
#include "lib/pg/client_environment.h"
#include "lib/pg/observe.h"

namespace zx::backup {
namespace {

constexpr Millis kConnect{10'000};
constexpr Millis kCatalog{10 * 60'000};  // of many tables, and files of a cold disk
// A dump waits no longer behind whoever has a table locked, such as an ALTER TABLE.
constexpr const char* kLockWait = "60s";

// What pg_dump does not write into an archive that is restored under another name, and what a
// person may want to know. From PostgreSQL 17 on daticulocale is datlocale.
constexpr const char* kProperties = R"(
SELECT json_build_object(
  'owner', pg_get_userbyid(d.datdba), 'encoding', pg_encoding_to_char(d.encoding),
  'collate', coalesce(d.datcollate, ''), 'ctype', coalesce(d.datctype, ''),
  'provider', CASE coalesce(to_jsonb(d)->>'datlocprovider', 'c') WHEN 'c' THEN 'libc'
    WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE to_jsonb(d)->>'datlocprovider' END,
  'icu_locale', coalesce(to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale', ''),
  'tablespace', (SELECT CASE spcname WHEN 'pg_default' THEN '' ELSE spcname END
                   FROM pg_tablespace t WHERE t.oid = d.dattablespace),
  'comment', coalesce(shobj_description(d.oid, 'pg_database'), ''),
  'connection_limit', d.datconnlimit,
  'acl', CASE WHEN d.datacl IS NOT NULL THEN
    (SELECT coalesce(json_agg(json_build_object(
        'grantee', CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
        'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
       FROM aclexplode(d.datacl) a) END,
  'settings',
    (SELECT coalesce(json_agg(json_build_object(
        'role', CASE WHEN s.setrole = 0 THEN '' ELSE pg_get_userbyid(s.setrole) END,
        'name', split_part(c, '=', 1), 'value', substr(c, strpos(c, '=') + 1))), '[]')
       FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setdatabase = d.oid),
  'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
  'size', pg_database_size(d.oid))
  FROM pg_database d WHERE d.datname = current_database())";

constexpr const char* kSnapshot = R"(
SELECT pg_export_snapshot(),
       CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)";

// One that has replayed no commit since its start is of its last restart point at least. In ms
// since 1970.
constexpr const char* kReplayedOf = R"(
SELECT floor(extract(epoch FROM coalesce(pg_last_xact_replay_timestamp(),
    (SELECT checkpoint_time FROM pg_control_checkpoint()))) * 1000)::bigint)";

constexpr const char* kUnlogged =
    "SELECT EXISTS (SELECT FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm'))";

// A database with the transaction that keeps its snapshot.
struct Held {
  DatabasePart part;
  pg::Client client;
  std::string snapshot;
};

// Why this standby cannot give what the primary can; empty: it is another problem.
std::string unfit_standby(const std::string& words) {
  if (words.find("conflict with recovery") != std::string::npos)
    return "its replay ended a query of the dump (conflict with recovery)";
  if (words.find("unlogged relations during recovery") != std::string::npos)
    return "it has no rows of unlogged tables";
  return {};
}

class Work {
 public:
  Work(const Repository& repository, const PgJob& job, const PgSource& source, pg::Target target)
      : repository_(repository), job_(job), source_(source), target_(std::move(target)) {}

  Result<PgPart> run() {
    const auto start = monotonic_now();
    part_.cluster = job_.cluster.name;
    part_.node = source_.node;
    part_.from_standby = source_.is_standby;
    ZX_TRY(look());
    ZX_TRY(open_all());
    ZX_TRY(hold_all());
    ZX_ASSIGN(auto environment, pg::ClientEnvironment::make(target_));
    ZX_ASSIGN(part_.globals, dump_globals(environment));
    ZX_TRY(dump_all(environment));
    for (auto& held : held_) part_.databases.push_back(std::move(held.part));
    part_.took_ms = since(start).count();
    return std::move(part_);
  }
  // Once run() has ended.
  [[nodiscard]] const std::string& unfit() const { return unfit_; }
  [[nodiscard]] std::vector<std::string> warnings() const { return warnings_; }

 private:
  // The first reason. Dumps that run at once have their own.
  void note_unfit(std::string why) {
    if (!source_.is_standby || why.empty()) return;
    const std::lock_guard guard(lock_);
    if (unfit_.empty()) unfit_ = std::move(why);
  }
  [[nodiscard]] Error error_of(const pg::Failed& failed) {
    note_unfit(unfit_standby(failed.error.message));
    auto error = pg::error_of(target_, failed);
    if (error.hint.empty()) error.hint = what_says_more();
    return error;
  }
  [[nodiscard]] std::string what_says_more() const {
    return fmt::format("the log of {} may say more", source_.node);
  }
  [[nodiscard]] std::string program(const char* name) const {
    return job_.cluster.bin_dir + "/" + name;
  }

  // The server and the programs.
  Status look() {
    auto client = pg::Client::open(target_, job_.until.at_most(kConnect));
    if (!client) return fail(error_of(client.error()));
    auto rows = client->query(
        "SELECT current_setting('server_version'), current_setting('server_version_num'),"
        " (SELECT system_identifier FROM pg_control_system()),"
        " (SELECT timeline_id FROM pg_control_checkpoint())",
        job_.until.at_most(kConnect));
    if (!rows) return fail(error_of(rows.error()));
    const auto& row = rows->at(0);
    part_.server_version = row.at(0).value_or("");
    part_.system_id = row.at(2).value_or("");
    part_.timeline = static_cast<std::uint32_t>(std::stoul(row.at(3).value_or("0")));
    ZX_ASSIGN(const auto version, os::run_ok({program("pg_dump"), "--version"}, {}));
    part_.dump_version = first_line(version.out);
    const auto major = std::stoi(row.at(1).value_or("0")) / 10'000;
    const auto at = part_.dump_version.find(") ");
    const auto dump = at == std::string::npos ? 0 : std::atoi(part_.dump_version.c_str() + at + 2);
    if (dump < major)
      return fail(Code::config,
                  fmt::format("{} is older than {}, which is {}: {}", program("pg_dump"),
                              source_.node, part_.server_version, part_.dump_version),
                  fmt::format("install PostgreSQL {} here and name its programs in "
                              "pg.{}.bin_dir",
                              major, job_.cluster.name));
    auto roles =
        client->query("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname",
                      job_.until.at_most(kConnect));
    if (!roles) return fail(error_of(roles.error()));
    for (const auto& one : *roles) part_.roles.push_back(one.at(0).value_or(""));
    auto databases = client->query(
        "SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn"
        " ORDER BY datname",
        job_.until.at_most(kConnect));
    if (!databases) return fail(error_of(databases.error()));
    return choose_databases(*databases);
  }

  Status choose_databases(const pg::Rows& rows) {
    std::vector<std::string> there;
    for (const auto& row : rows) there.push_back(row.at(0).value_or(""));
    const auto is_there = [&](const std::string& name) { return contains(there, name); };
    names_ = job_.cluster.databases;
    if (names_.empty()) {
      names_ = there;
      // Leavings of a restore are no databases of applications.
      std::erase_if(names_, [](const std::string& name) {
        return name == "postgres" || name.ends_with("_zxold") || name.ends_with("_zxnew");
      });
    }
    for (const auto& name : names_)
      if (!is_there(name))
        return fail(Code::failed, fmt::format("{} has no database {}", source_.node, name),
                    fmt::format("pg.{}.databases names it", job_.cluster.name));
    // Leavings of a restore are no databases of applications.
    const auto is_known = [&](const std::string& name) {
      return name == "postgres" || name.ends_with("_zxold") || name.ends_with("_zxnew") ||
             contains(names_, name);
    };
    for (const auto& name : there)
      if (!is_known(name))
        warnings_.push_back(
            fmt::format("the database {} of {} is not backed up: pg.{}.databases does not name it",
                        name, source_.node, job_.cluster.name));
    return {};
  }

  Status open_all() {
    for (const auto& name : names_) {
      auto target = target_;
      target.database = name;
      target.statement_timeout = Millis(0);
      auto client = pg::Client::open(target, job_.until.at_most(kConnect));
      if (!client) return fail_while(error_of(client.error()), "connecting to " + name);
      if (source_.is_standby) {
        auto unlogged = client->query(kUnlogged, job_.until.at_most(kCatalog));
        if (!unlogged) return fail(error_of(unlogged.error()));
        if (unlogged->at(0).at(0) == "t") {
          auto why = fmt::format("it has no rows of unlogged tables, and {} has some", name);
          note_unfit(why);
          return fail(Code::failed, std::move(why));
        }
      }
      DatabasePart part;
      part.name = name;
      held_.push_back({std::move(part), *std::move(client), {}});
    }
    return {};
  }

  // All snapshots right after one another, before anything else is asked.
  Status hold_all() {
    ZX_ASSIGN(const auto date, date_of_standby());
    for (auto& held : held_) {
      auto begun = held.client.query(
          "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0;"
          " BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
          job_.until.at_most(kConnect));
      if (!begun) return fail(error_of(begun.error()));
    }
    part_.at = wall_now();
    if (date) part_.at = std::min(part_.at, *date);
    const auto first = monotonic_now();
    for (auto& held : held_) {
      auto rows = held.client.query(kSnapshot, job_.until.at_most(kConnect));
      if (!rows) return fail(error_of(rows.error()));
      held.snapshot = rows->at(0).at(0).value_or("");
      held.part.lsn = rows->at(0).at(1).value_or("");
    }
    part_.skew_ms = since(first).count();
    for (auto& held : held_) ZX_TRY(read_properties(held));
    return {};
  }

  // What there is of a standby is of then or later; of one that lags by the clock of its primary.
  Result<std::optional<Wall>> date_of_standby() {
    if (source_.behind.empty() || held_.empty()) return source_.at;
    auto rows = held_.front().client.query(kReplayedOf, job_.until.at_most(kConnect));
    if (!rows) return fail(error_of(rows.error()));
    const Wall at(Millis(std::strtoll(rows->at(0).at(0).value_or("0").c_str(), nullptr, 10)));
    warnings_.push_back(
        fmt::format("{} is {}, and no other server can give it: what this set has "
                    "of {} is of {}",
                    source_.node, source_.behind, job_.cluster.name, format_utc(at)));
    return at;
  }

  Status read_properties(Held& held) {
    auto rows = held.client.query(kProperties, job_.until.at_most(kCatalog));
    if (!rows) return fail(error_of(rows.error()));
    ZX_ASSIGN(const auto json,
              parse_json(rows->at(0).at(0).value_or(""), "what the server says of a database"));
    auto& part = held.part;
    part.owner = get_string(json, "owner");
    part.encoding = get_string(json, "encoding");
    part.collate = get_string(json, "collate");
    part.ctype = get_string(json, "ctype");
    part.provider = get_string(json, "provider");
    part.icu_locale = get_string(json, "icu_locale");
    part.tablespace = get_string(json, "tablespace");
    part.comment = get_string(json, "comment");
    part.connection_limit = static_cast<int>(get_int(json, "connection_limit", -1));
    part.has_acl = get_object(json, "acl").is_array();
    for (const auto& grant : get_object(json, "acl"))
      part.acl.push_back({get_string(grant, "grantee"), get_string(grant, "privilege"),
                          get_bool(grant, "grantable")});
    for (const auto& setting : get_object(json, "settings"))
      part.settings.push_back(
          {get_string(setting, "role"), get_string(setting, "name"), get_string(setting, "value")});
    part.extensions = get_strings(json, "extensions");
    part.size = static_cast<std::uint64_t>(get_int(json, "size"));
    return {};
  }

  [[nodiscard]] os::ProcessOptions options_for(const pg::ClientEnvironment& environment,
                                               const std::string& database) const {
    os::ProcessOptions options;
    options.environment = environment.variables(
        database, {{"statement_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"}});
    options.deadline = job_.until.left();
    options.cancelled = [this] { return has_failed_.load(); };
    return options;
  }

  // Runs a program of PostgreSQL and keeps what it writes.
  Result<Object> keep(const os::Argv& argv, const os::ProcessOptions& options,
                      const std::string& name,
                      const std::function<void(std::string_view)>& also = {}) {
    const auto file = repository_.incoming_path(job_.set_id) + "/pg/" + name;
    ZX_ASSIGN(auto writer,
              ObjectWriter::create(file, "sets/" + job_.set_id + "/pg/" + name, job_.level));
    ZX_ASSIGN(const auto ended,
              os::run_reading(argv, options, [&](std::string_view bytes) -> Status {
                if (job_.progress) job_.progress(bytes.size());
                if (also) also(bytes);
                return writer.write(bytes);
              }));
    if (ended.exit != 0) return fail(said(argv.front(), ended));
    return writer.finish();
  }

  [[nodiscard]] std::string what_it_must_read() const {
    return fmt::format(
        "the role {} must be able to read everything: GRANT pg_read_all_data, or a superuser",
        target_.user);
  }

  // A program's last "error:" line says most.
  [[nodiscard]] Error said(const std::string& path, const os::ProcessResult& ended) {
    note_unfit(unfit_standby(ended.err));
    std::string words;
    for (const auto& line : split(ended.err, '\n'))
      if (line.find("error:") != std::string::npos || line.find("ERROR:") != std::string::npos)
        words = line;
    if (words.empty()) words = first_line(ended.err);
    for (const char* mark : {"ERROR:", "error:"})
      if (const auto at = words.rfind(mark); at != std::string::npos) {
        words = words.substr(at + std::string_view(mark).size());
        break;
      }
    const auto name = path.substr(path.rfind('/') + 1);
    const auto how = ended.signal != 0 ? fmt::format("was killed by signal {}", ended.signal)
                                       : std::string("failed");
    const auto has = [&](const char* text) { return words.find(text) != std::string::npos; };
    const bool is_denied = has("permission denied");
    // Of libpq, when the server ended or the network did.
    const bool is_gone = has("connection to server") || has("server closed the connection") ||
                         has("terminating connection") || has("from server:") ||
                         has("to server:") || has("no connection to the server");
    return Error{is_denied ? Code::auth
                 : is_gone ? Code::unreachable
                           : Code::failed,
                 fmt::format("{} {}: {}", name, how, clean_utf8(trim(words))),
                 is_denied ? what_it_must_read() : what_says_more(),
                 {},
                 false};
  }

  Result<Object> dump_globals(const pg::ClientEnvironment& environment) {
    auto kept = keep({program("pg_dumpall"), "--globals-only", "--no-password"},
                     options_for(environment, target_.database), "globals.sql.zst");
    if (!kept) return fail_while(kept.error(), "dumping roles and tablespaces");
    return kept;
  }

  Status dump_one(const pg::ClientEnvironment& environment, Held& held) {
    const auto start = monotonic_now();
    const auto tables = list_tables(held.client, job_.until.at_most(kCatalog));
    if (!tables) return fail(error_of(tables.error()));
    DumpRows rows;
    // Not compressed twice; the archive names its own database nowhere that counts.
    auto kept =
        keep({program("pg_dump"), "--format=custom", "--compress=0", "--no-password",
              "--snapshot=" + held.snapshot, std::string("--lock-wait-timeout=") + kLockWait},
             options_for(environment, held.part.name), file_name_of(held.part.name) + ".dump.zst",
             [&](std::string_view bytes) { rows.feed(bytes); });
    if (!kept) return fail_while(kept.error(), "dumping " + held.part.name);
    held.part.dump = *std::move(kept);
    ZX_ASSIGN(held.part.tables, counted(held, *tables, rows));
    held.part.took_ms = since(start).count();
    return {};
  }

  // As pg_dump wrote them; by the server, in the same snapshot, where its format is not known.
  Result<std::vector<TableRows>> counted(Held& held, const std::vector<TableName>& tables,
                                         const DumpRows& rows) {
    const auto found = rows.finish();
    if (!found && found.error().code != Code::refused)
      return fail_while(found.error(), "dumping " + held.part.name);
    std::vector<TableRows> all;
    for (const auto& table : tables) {
      if (!found) break;
      const auto at = found->find({table.schema, table.name});
      if (at == found->end()) break;
      all.push_back({table.quoted, at->second});
    }
    if (all.size() == tables.size()) return all;
    const auto counted = count_rows(held.client, job_.until);
    if (counted) return *counted;
    auto error = error_of(counted.error());
    if (counted.error().why == pg::Failure::permission) error.hint = what_it_must_read();
    return fail_while(std::move(error), "counting the rows of " + held.part.name);
  }

  // The largest first, so that none of them begins last.
  Status dump_all(const pg::ClientEnvironment& environment) {
    std::vector<Held*> order;
    for (auto& held : held_) order.push_back(&held);
    std::stable_sort(order.begin(), order.end(),
                     [](const Held* a, const Held* b) { return a->part.size > b->part.size; });
    // What the others say once one has failed is that they were ended.
    return os::in_turns(
        order.size(), job_.jobs, [&](std::size_t at) { return dump_one(environment, *order[at]); },
        [this] { has_failed_ = true; });
  }

  const Repository& repository_;
  const PgJob& job_;
  const PgSource& source_;
  pg::Target target_;
  PgPart part_;
  std::vector<std::string> names_;
  std::vector<Held> held_;
  std::vector<std::string> warnings_;
  std::mutex lock_;
  std::string unfit_;
  std::atomic<bool> has_failed_{false};
};

// What the first attempt has written.
Status clear(const std::string& directory) {
  std::error_code wrong;
  std::filesystem::directory_iterator entry(directory, wrong);
  while (!wrong && entry != std::filesystem::directory_iterator()) {
    std::filesystem::remove(entry->path(), wrong);
    if (!wrong) entry.increment(wrong);
  }
  if (wrong) return fail(Code::io, fmt::format("cannot clear {}: {}", directory, wrong.message()));
  return {};
}

}  // namespace

Result<PgBackedUp> back_up_pg(const Repository& repository, const PgJob& job) {
  ZX_ASSIGN(const auto targets, pg::targets_of(job.config, job.cluster));
  const auto snapshot = pg::observe(targets, job.cluster.policy.probe_deadline);
  const auto wait = [&](const std::string& node, Lsn goal) -> Result<Lsn> {
    ZX_ASSIGN(const auto target, pg::target_of(job.config, job.cluster, node));
    return wait_for_replay(target, goal, job.until);
  };
  ZX_ASSIGN(auto chosen, choose_pg_source(job.cluster, snapshot, wait));
  auto source = std::move(chosen.source);
  PgBackedUp done;
  done.warnings = std::move(chosen.warnings);
  while (true) {
    ZX_ASSIGN(auto target, pg::target_of(job.config, job.cluster, source.node));
    Work work(repository, job, source, std::move(target));
    auto part = work.run();
    if (part) {
      done.part = *std::move(part);
      for (const auto& warning : work.warnings()) done.warnings.push_back(warning);
      return done;
    }
    const auto* primary = primary_of(snapshot);
    if (work.unfit().empty() || primary == nullptr) return fail(part.error());
    done.warnings.push_back(
        fmt::format("{} was taken from the primary, {}: {} could not give it, {}", job.cluster.name,
                    primary->name, source.node, work.unfit()));
    source = {primary->name, false, "the standby could not give it", {}, {}};
    ZX_TRY(clear(repository.incoming_path(job.set_id) + "/pg"));
  }
}

}  // namespace zx::backup
