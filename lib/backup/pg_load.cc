#include "lib/backup/pg_load.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

#include "lib/backup/dump_left_out.h"
#include "lib/backup/dump_script.h"
#include "lib/backup/load_session.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_globals.h"
#include "lib/backup/row_loader.h"
#include "lib/base/text.h"
#include "lib/os/signals.h"
#include "lib/os/stream.h"
#include "lib/pg/client_environment.h"

namespace zx::backup {
namespace {

constexpr std::size_t kMostGlobals = 256u << 20;
constexpr std::size_t kLongestName = 63;           // bytes: NAMEDATALEN - 1
constexpr std::uint64_t kWorthCopies = 32u << 20;  // bytes of a dump

// The settings whose values are lists of names (GUC_LIST_QUOTE, guc.c of PostgreSQL 15).
constexpr std::array<std::string_view, 6> kLists{
    "local_preload_libraries",  "search_path",      "session_preload_libraries",
    "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"};

// `"$user", public` taken apart.
std::vector<std::string> names_in(const std::string& list) {
  std::vector<std::string> names;
  std::string name;
  bool is_quoted = false;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const char c = list[i];
    if (c == '"' && is_quoted && i + 1 < list.size() && list[i + 1] == '"') {
      name += c;
      ++i;
    } else if (c == '"') {
      is_quoted = !is_quoted;
    } else if (c == ',' && !is_quoted) {
      names.push_back(std::exchange(name, {}));
    } else if (is_quoted || c != ' ') {
      name += c;
    }
  }
  names.push_back(name);
  return names;
}

std::string setting_sql(const DatabaseSetting& setting) {
  auto value = pg::quote_literal(setting.value);
  if (std::find(kLists.begin(), kLists.end(), lower(setting.name)) != kLists.end()) {
    std::vector<std::string> items;
    for (const auto& name : names_in(setting.value)) items.push_back(pg::quote_literal(name));
    value = join(items, ", ");
  }
  return fmt::format("SET {} TO {}", quote_name(setting.name), value);
}

Error said(const Object& dump, const os::ProcessResult& ended) {
  std::string words;
  for (const auto& line : split(ended.err, '\n'))
    if (words.empty() && line.find("error:") != std::string::npos)
      words = line.substr(line.find("error:") + 6);
  if (words.empty()) words = first_line(ended.err);
  if (ended.signal != 0) words = fmt::format("it was killed by signal {}", ended.signal);
  const bool is_full = words.find("No space left on device") != std::string::npos;
  const auto code = is_full                                          ? Code::disk_full
                    : ended.signal != 0 || is_of_the_host(ended.err) ? Code::config
                                                                     : Code::failed;
  return Error{
      code, fmt::format("{}: pg_restore: {}", shown(dump), clean_utf8(trim(words))), {}, {}, false};
}

// Feeds `argv` with a dump. Whatever the program thinks of it: the sum must be right. What it
// writes goes to `take`.
Result<std::uint64_t> feed(const Repository& repository, const Object& dump, const os::Argv& argv,
                           os::ProcessOptions options,
                           const std::function<void(std::uint64_t)>& progress, Deadline until,
                           const os::Take* take = nullptr) {
  ZX_ASSIGN(auto reader, ObjectReader::open(repository, dump));
  std::uint64_t bytes = 0;
  bool has_ended = false;
  const auto next = [&]() -> Result<std::string_view> {
    if (const auto signal = os::interruption()) return fail(*signal);
    if (until.passed()) return fail(Code::timeout, shown(dump) + " was not read by the deadline");
    ZX_ASSIGN(const auto piece, reader.next());
    bytes += piece.size();
    has_ended = piece.empty();
    if (progress && !piece.empty()) progress(piece.size());
    return piece;
  };
  options.deadline = until.left();
  ZX_ASSIGN(const auto ended, take == nullptr ? os::run_feeding(argv, options, next)
                                              : os::run_through(argv, options, next, *take));
  // A program that gave up early may have found the damage that the sum tells more of.
  while (!has_ended) ZX_TRY(next());
  if (ended.ok()) return bytes;
  return fail(said(dump, ended));
}

Result<std::vector<GlobalStatement>> globals_of(const Repository& repository, const PgPart& part) {
  ZX_ASSIGN(const auto text, read_object(repository, part.globals, kMostGlobals));
  auto statements = statements_of(text);
  if (statements) return statements;
  auto error = statements.error();
  error.message = shown(part.globals) + ": " + error.message;
  return fail(std::move(error));
}

// Is a statement about somebody whom this load made?
bool is_about(const GlobalStatement& statement, const std::set<std::string>& made) {
  return std::any_of(statement.roles.begin(), statement.roles.end(),
                     [&](const auto& role) { return made.contains(role); });
}

}  // namespace

std::string quote_name(std::string_view name) {
  std::string out = "\"";
  for (const char c : name) {
    if (c == '"') out += c;
    out += c;
  }
  return out + "\"";
}

Status fits_as_name(const std::string& name) {
  if (name.size() <= kLongestName) return {};
  return fail(Code::refused,
              fmt::format("{} is too long for a name: one has {} bytes", name, kLongestName));
}

std::string left_out(const std::vector<std::string>& subscriptions) {
  if (subscriptions.empty()) return {};
  return fmt::format("without the {} {}",
                     subscriptions.size() == 1 ? "subscription" : "subscriptions",
                     join(subscriptions, ", "));
}

bool is_of_the_host(std::string_view words) {
  for (const char* sign : {"could not open extension control file",
                           "is not available",
                           "shared_preload_libraries",
                           "could not access file",
                           "could not load library",
                           "No space left on device",
                           "out of memory",
                           "out of shared memory",
                           "Cannot allocate memory",
                           "unsupported version",
                           "invalid locale name",
                           "invalid LC_COLLATE",
                           "is not supported in this build",
                           "could not open collator",
                           "tablespace",
                           "security label provider",
                           "server closed the connection",
                           "terminating connection",
                           "canceling statement",
                           "connection to server"})
    if (words.find(sign) != std::string_view::npos) return true;
  return false;
}

namespace {

constexpr int kProviders = 150'000;  // LOCALE_PROVIDER, which icu in a database came with

// Within a transaction. Returns the roles that it made.
Result<std::set<std::string>> make_roles(
    const std::vector<GlobalStatement>& statements, const PgPart& part,
    const std::function<Result<pg::Rows>(const std::string& sql, const std::string& what)>& ask) {
  ZX_ASSIGN(const auto rows, ask("SELECT rolname FROM pg_roles", "listing the roles"));
  std::set<std::string> there, made;
  for (const auto& row : rows) there.insert(row.at(0).value_or(""));
  for (const auto& statement : statements) {
    using About = GlobalStatement::About;
    if (statement.about == About::tablespace) continue;
    if (statement.about == About::other)
      return fail(Code::failed,
                  fmt::format("{} has a statement that is not of a dump of globals: {}",
                              shown(part.globals), first_line(statement.sql.substr(0, 60))));
    const auto name = statement.roles.empty() ? std::string() : statement.roles.front();
    const bool is_new = statement.makes_role && !there.contains(name);
    const bool is_wanted = statement.about == About::session || is_new || is_about(statement, made);
    if (!is_wanted) continue;
    ZX_TRY(ask(statement.sql, "making the role " + (name.empty() ? "…" : name)));
    if (is_new) made.insert(name);
  }
  there.insert(made.begin(), made.end());
  for (const auto& role : part.roles)
    if (!there.contains(role))
      return fail(Code::failed, fmt::format("{} lacks the role {}, which the manifest names",
                                            shown(part.globals), role));
  return made;
}

}  // namespace

Result<LoadedGlobals> load_globals(const Repository& repository, const PgPart& part,
                                   const PgServer& server, Deadline until) {
  ZX_ASSIGN(const auto statements, globals_of(repository, part));
  ZX_ASSIGN(auto session, LoadSession::open(server.target, until));
  const auto ask = [&](const std::string& sql, const std::string& what) -> Result<pg::Rows> {
    auto rows = session.client.query(sql, until);
    if (!rows) return fail(refusal_of(server.target, rows.error(), what));
    return *std::move(rows);
  };
  // Statements have passwords, hashed ones at least.
  ZX_ASSIGN(const auto logged, session.keep_out_of_log(server.target, until));
  // A role without its password and rights would be taken for whole the next time.
  ZX_TRY(ask("BEGIN READ WRITE", "making the roles"));
  ZX_ASSIGN(const auto made, make_roles(statements, part, ask));
  ZX_TRY(ask("COMMIT", "making the roles"));
  LoadedGlobals loaded{{made.begin(), made.end()}, {}};
  if (!made.empty() && !logged.empty())
    loaded.warning =
        fmt::format("the server's log may show their password hashes: {} may not set {}",
                    server.target.user, join(logged, ", "));
  return loaded;
}

Result<std::string> create_database_sql(const DatabasePart& part, const std::string& as_name,
                                        int version) {
  const bool is_icu = part.provider == "icu";
  if (!is_icu && !part.provider.empty() && part.provider != "libc")
    return fail(Code::refused,
                fmt::format("the database {} has its locale of the provider {}, and zx restores "
                            "those of libc and icu",
                            part.name, clean_utf8(first_line(part.provider))),
                "make it by hand, and load its dump with pg_restore");
  if (is_icu && version < kProviders)
    return fail(Code::config,
                fmt::format("the database {} has its locale of ICU, and the server is too old for "
                            "that",
                            part.name),
                "PostgreSQL 15 and later have it");
  ZX_TRY(fits_as_name(as_name));
  auto sql = fmt::format("CREATE DATABASE {} TEMPLATE template0", quote_name(as_name));
  const auto add = [&](const char* what, const std::string& value) {
    if (!value.empty()) sql += fmt::format(" {} {}", what, pg::quote_literal(value));
  };
  add("ENCODING", part.encoding);
  // Without it the provider would be that of template0.
  if (version >= kProviders) sql += is_icu ? " LOCALE_PROVIDER icu" : " LOCALE_PROVIDER libc";
  if (is_icu) add("ICU_LOCALE", part.icu_locale);
  add("LC_COLLATE", part.collate);
  add("LC_CTYPE", part.ctype);
  if (!part.owner.empty()) sql += " OWNER " + quote_name(part.owner);
  return sql;
}

Status create_database(const PgServer& server, const DatabasePart& part, const std::string& as_name,
                       Deadline until, bool in_own_tablespace) {
  ZX_ASSIGN(auto session, LoadSession::open(server.target, until));
  ZX_ASSIGN(auto sql, create_database_sql(part, as_name, session.version));
  if (in_own_tablespace && !part.tablespace.empty())
    sql += " TABLESPACE " + quote_name(part.tablespace);
  const auto made = session.client.query(sql, until);
  if (!made) return fail(refusal_of(server.target, made.error(), "making the database " + as_name));
  return {};
}

namespace {

// Of sessions that load into the database. Of maintenance_work_mem more than the server's own was
// not faster.
Result<Settings> settings_of_load(const PgServer& server, const std::string& database,
                                  Deadline until) {
  auto target = server.target;
  target.database = database;
  ZX_ASSIGN(auto session, LoadSession::open(target, until));
  session.settings.emplace_back("synchronous_commit", "off");
  // What is loaded without its tablespace is to lie in that of its database.
  session.settings.emplace_back("default_tablespace", "");
  return std::move(session.settings);
}

// The name as a word of a connection string: one with "=" in it would be taken for one.
std::string database_word(const std::string& name) {
  std::string word = "--dbname=dbname='";
  for (const char c : name) {
    if (c == '\'' || c == '\\') word += '\\';
    word += c;
  }
  return word + "'";
}

class Load {
 public:
  Load(const Repository& repository, const DatabasePart& part, const PgServer& server,
       const std::string& into, const LoadOptions& options, Settings settings,
       const pg::ClientEnvironment& environment)
      : repository_(repository),
        part_(part),
        server_(server),
        into_(into),
        options_(options),
        settings_(std::move(settings)) {
    running_.output_limit = 64u << 10;
    running_.environment = environment.variables(into, settings_);
  }

  // What is left out of it.
  Status read_contents() {
    ZX_ASSIGN(left_out_,
              DumpLeftOut::read(repository_, part_.dump, server_.bin_dir, options_.until));
    return {};
  }

  Result<Loaded> by_pg_restore() const {
    ZX_ASSIGN(const auto bytes,
              feed(repository_, part_.dump, argv({}), running_, options_.progress, options_.until));
    return Loaded{bytes, {}, left_out_.subscriptions(), {}};
  }

  // The tables by pg_restore, their rows over several connections, and by pg_restore again what is
  // easier once they are there: indexes and constraints.
  Result<Loaded> by_copies() const {
    ZX_TRY(section("pre-data"));
    auto target = server_.target;
    target.database = into_;
    ZX_ASSIGN(auto rows, RowLoader::connect(target, settings_, options_.copies, options_.until));
    os::Argv words{server_.bin_dir + "/pg_restore", "--format=custom", "--section=data",
                   "--file=-"};
    add_choice(words);
    DumpScript script(rows.events());
    const os::Take take = [&](std::string_view piece) { return script.feed(piece); };
    ZX_ASSIGN(const auto bytes, feed(repository_, part_.dump, words, running_, options_.progress,
                                     options_.until, &take));
    ZX_TRY(script.finish());
    ZX_TRY(section("post-data"));
    return Loaded{bytes, rows.counted(), left_out_.subscriptions(), {}};
  }

 private:
  [[nodiscard]] os::Argv argv(const os::Argv& more) const {
    os::Argv words{server_.bin_dir + "/pg_restore", "--format=custom", "--exit-on-error",
                   "--no-password", database_word(into_)};
    if (options_.in_one_transaction) words.emplace_back("--single-transaction");
    words.insert(words.end(), more.begin(), more.end());
    add_choice(words);
    return words;
  }
  void add_choice(os::Argv& words) const {
    if (options_.no_tablespaces) words.emplace_back("--no-tablespaces");
    const auto& without = left_out_.argv();
    words.insert(words.end(), without.begin(), without.end());
    words.insert(words.end(), options_.more.begin(), options_.more.end());
  }
  // It reads no further than the table of contents: nothing else is wanted of it.
  [[nodiscard]] Status section(const std::string& name) const {
    ZX_ASSIGN(auto reader, ObjectReader::open(repository_, part_.dump));
    auto running = running_;
    running.deadline = options_.until.left();
    ZX_ASSIGN(const auto ended,
              os::run_feeding(argv({"--section=" + name}), running, [&] { return reader.next(); }));
    if (ended.ok()) return {};
    return fail(said(part_.dump, ended));
  }

  const Repository& repository_;
  const DatabasePart& part_;
  const PgServer& server_;
  const std::string& into_;
  const LoadOptions& options_;
  Settings settings_;
  DumpLeftOut left_out_;
  os::ProcessOptions running_;
};

}  // namespace

Result<Loaded> load_database(const Repository& repository, const DatabasePart& part,
                             const PgServer& server, const std::string& into,
                             const LoadOptions& options) {
  const auto start = monotonic_now();
  ZX_ASSIGN(const auto environment, pg::ClientEnvironment::make(server.target));
  ZX_ASSIGN(auto settings, settings_of_load(server, into, options.until));
  Load load(repository, part, server, into, options, std::move(settings), environment);
  ZX_TRY(load.read_contents());
  const bool is_worth_it =
      options.copies > 1 && !options.in_one_transaction && part.dump.raw >= kWorthCopies;
  auto loaded = is_worth_it ? load.by_copies() : load.by_pg_restore();
  if (!loaded) return fail_while(loaded.error(), "loading " + part.name);
  loaded->took = since(start);
  return loaded;
}

Status decode_dump(const Repository& repository, const DatabasePart& part,
                   const std::string& bin_dir, const std::function<void(std::uint64_t)>& progress,
                   Deadline until) {
  os::ProcessOptions running;
  running.output_limit = 64u << 10;
  running.environment = {{"LC_ALL", "C.UTF-8"}};
  const auto fed =
      feed(repository, part.dump, {bin_dir + "/pg_restore", "--format=custom", "--file=/dev/null"},
           running, progress, until);
  if (!fed) return fail(fed.error());
  return {};
}

Result<std::vector<std::string>> properties_sql(const DatabasePart& part,
                                                const std::string& database) {
  const auto name = quote_name(database);
  std::vector<std::string> all;
  if (!part.owner.empty())
    all.push_back(fmt::format("ALTER DATABASE {} OWNER TO {}", name, quote_name(part.owner)));
  if (part.has_acl) {
    all.push_back(fmt::format("REVOKE ALL ON DATABASE {} FROM PUBLIC", name));
    if (!part.owner.empty())
      all.push_back(fmt::format("REVOKE ALL ON DATABASE {} FROM {}", name, quote_name(part.owner)));
  }
  for (const auto& grant : part.acl) {
    if (grant.privilege != "CREATE" && grant.privilege != "CONNECT" &&
        grant.privilege != "TEMPORARY")
      return fail(Code::failed, fmt::format("{} is no privilege of a database",
                                            clean_utf8(first_line(grant.privilege))));
    all.push_back(fmt::format("GRANT {} ON DATABASE {} TO {}{}", grant.privilege, name,
                              grant.grantee.empty() ? "PUBLIC" : quote_name(grant.grantee),
                              grant.grantable ? " WITH GRANT OPTION" : ""));
  }
  for (const auto& setting : part.settings)
    all.push_back((setting.role.empty() ? fmt::format("ALTER DATABASE {} ", name)
                                        : fmt::format("ALTER ROLE {} IN DATABASE {} ",
                                                      quote_name(setting.role), name)) +
                  setting_sql(setting));
  if (!part.comment.empty())
    all.push_back(
        fmt::format("COMMENT ON DATABASE {} IS {}", name, pg::quote_literal(part.comment)));
  // Last, and not when it is made: whoever loads it may be no superuser.
  if (part.connection_limit >= 0)
    all.push_back(
        fmt::format("ALTER DATABASE {} CONNECTION LIMIT {}", name, part.connection_limit));
  return all;
}

Status apply_properties(const PgServer& server, const DatabasePart& part,
                        const std::string& database, Deadline until) {
  ZX_ASSIGN(const auto statements, properties_sql(part, database));
  ZX_ASSIGN(auto session, LoadSession::open(server.target, until));
  for (const auto& sql : statements) {
    const auto done = session.client.query(sql, until);
    if (!done)
      return fail(refusal_of(server.target, done.error(),
                             "giving " + database + " its rights and settings"));
  }
  return {};
}

}  // namespace zx::backup
