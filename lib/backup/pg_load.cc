#include "lib/backup/pg_load.h"

#include <algorithm>
#include <array>
#include <set>

#include <fmt/format.h>

#include "lib/backup/dump_script.h"
#include "lib/backup/object.h"
#include "lib/backup/pg_globals.h"
#include "lib/backup/row_loader.h"
#include "lib/base/text.h"
#include "lib/os/stream.h"
#include "lib/pg/client_environment.h"

namespace zx::backup {
namespace {

constexpr Millis kConnect{10'000};
constexpr std::size_t kMostGlobals = 256u << 20;
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

Result<pg::Client> connect(const pg::Target& target, Deadline until) {
  auto client = pg::Client::open(target, until.at_most(kConnect));
  if (!client) return fail(pg::error_of(target, client.error()));
  return *std::move(client);
}

// The failure of a statement; what it is about is in the trail.
Error refused(const pg::Target& target, const pg::Failed& failed, const std::string& what) {
  auto error = pg::error_of(target, failed);
  if (error.code == Code::server)
    error.code = is_of_the_host(error.message) ? Code::config : Code::failed;
  error.trail.push_back("while " + what);
  return error;
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

bool is_of_the_host(std::string_view words) {
  for (const char* sign :
       {"could not open extension control file", "is not available", "shared_preload_libraries",
        "could not access file", "could not load library", "No space left on device",
        "out of memory", "out of shared memory", "Cannot allocate memory", "unsupported version",
        "invalid locale name", "invalid LC_COLLATE", "is not supported in this build",
        "could not open collator", "tablespace", "server closed the connection",
        "terminating connection", "connection to server"})
    if (words.find(sign) != std::string_view::npos) return true;
  return false;
}

Result<std::vector<std::string>> load_globals(const Repository& repository, const PgPart& part,
                                              const PgServer& server, Deadline until) {
  ZX_ASSIGN(const auto statements, globals_of(repository, part));
  ZX_ASSIGN(auto client, connect(server.target, until));
  const auto ask = [&](const std::string& sql, const std::string& what) -> Result<pg::Rows> {
    auto rows = client.query(sql, until);
    if (!rows) return fail(refused(server.target, rows.error(), what));
    return *std::move(rows);
  };
  // Statements have passwords, hashed ones at least.
  ZX_TRY(
      ask("SELECT set_config(name, 'none', false) FROM pg_settings"
          " WHERE name = 'log_statement' AND (SELECT rolsuper FROM pg_roles"
          " WHERE rolname = current_user)",
          "keeping passwords out of the server's log"));
  ZX_TRY(
      ask("SELECT set_config(name, 'panic', false) FROM pg_settings"
          " WHERE name = 'log_min_error_statement' AND (SELECT rolsuper FROM pg_roles"
          " WHERE rolname = current_user)",
          "keeping passwords out of the server's log"));
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
  return std::vector<std::string>(made.begin(), made.end());
}

std::string create_database_sql(const DatabasePart& part, const std::string& as_name) {
  auto sql = fmt::format("CREATE DATABASE {} TEMPLATE template0", quote_name(as_name));
  const auto add = [&](const char* what, const std::string& value) {
    if (!value.empty()) sql += fmt::format(" {} {}", what, pg::quote_literal(value));
  };
  add("ENCODING", part.encoding);
  // The clause is of PostgreSQL 15 on, which icu in a database is, too.
  if (part.provider == "icu") sql += " LOCALE_PROVIDER icu";
  if (part.provider == "icu") add("ICU_LOCALE", part.icu_locale);
  add("LC_COLLATE", part.collate);
  add("LC_CTYPE", part.ctype);
  if (!part.owner.empty()) sql += " OWNER " + quote_name(part.owner);
  return sql;
}

Status create_database(const PgServer& server, const DatabasePart& part, const std::string& as_name,
                       Deadline until) {
  ZX_ASSIGN(auto client, connect(server.target, until));
  const auto made = client.query(create_database_sql(part, as_name), until);
  if (!made) return fail(refused(server.target, made.error(), "making the database " + as_name));
  return {};
}

namespace {

using Settings = std::vector<std::pair<std::string, std::string>>;

Settings settings_of_load() {
  // Of maintenance_work_mem more than the server's own was not faster.
  return {{"synchronous_commit", "off"},
          {"statement_timeout", "0"},
          {"lock_timeout", "0"},
          {"idle_in_transaction_session_timeout", "0"},
          {"default_transaction_read_only", "off"}};
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
       const std::string& into, const LoadOptions& options,
       const pg::ClientEnvironment& environment)
      : repository_(repository), part_(part), server_(server), into_(into), options_(options) {
    running_.output_limit = 64u << 10;
    running_.environment = environment.variables(into, settings_of_load());
  }

  Result<Loaded> by_pg_restore() const {
    ZX_ASSIGN(const auto bytes,
              feed(repository_, part_.dump, argv({}), running_, options_.progress, options_.until));
    return Loaded{bytes, {}, {}};
  }

  // The tables by pg_restore, their rows over several connections, and by pg_restore again what is
  // easier once they are there: indexes and constraints.
  Result<Loaded> by_copies() const {
    ZX_TRY(section("pre-data"));
    auto target = server_.target;
    target.database = into_;
    ZX_ASSIGN(auto rows,
              RowLoader::connect(target, settings_of_load(), options_.copies, options_.until));
    os::Argv words{server_.bin_dir + "/pg_restore", "--format=custom", "--section=data",
                   "--file=-"};
    words.insert(words.end(), options_.more.begin(), options_.more.end());
    DumpScript script(rows.events());
    const os::Take take = [&](std::string_view piece) { return script.feed(piece); };
    ZX_ASSIGN(const auto bytes, feed(repository_, part_.dump, words, running_, options_.progress,
                                     options_.until, &take));
    ZX_TRY(script.finish());
    ZX_TRY(section("post-data"));
    return Loaded{bytes, rows.counted(), {}};
  }

 private:
  [[nodiscard]] os::Argv argv(const os::Argv& more) const {
    os::Argv words{server_.bin_dir + "/pg_restore", "--format=custom", "--exit-on-error",
                   "--no-password", database_word(into_)};
    if (options_.in_one_transaction) words.emplace_back("--single-transaction");
    if (options_.no_tablespaces) words.emplace_back("--no-tablespaces");
    words.insert(words.end(), more.begin(), more.end());
    words.insert(words.end(), options_.more.begin(), options_.more.end());
    return words;
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
  os::ProcessOptions running_;
};

}  // namespace

Result<Loaded> load_database(const Repository& repository, const DatabasePart& part,
                             const PgServer& server, const std::string& into,
                             const LoadOptions& options) {
  const auto start = monotonic_now();
  ZX_ASSIGN(const auto environment, pg::ClientEnvironment::make(server.target));
  const Load load(repository, part, server, into, options, environment);
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
  // Last, and not when it is made: whoever loads it may be no superuser.
  if (part.connection_limit >= 0)
    all.push_back(
        fmt::format("ALTER DATABASE {} CONNECTION LIMIT {}", name, part.connection_limit));
  return all;
}

Status apply_properties(const PgServer& server, const DatabasePart& part,
                        const std::string& database, Deadline until) {
  ZX_ASSIGN(const auto statements, properties_sql(part, database));
  ZX_ASSIGN(auto client, connect(server.target, until));
  for (const auto& sql : statements) {
    const auto done = client.query(sql, until);
    if (!done)
      return fail(
          refused(server.target, done.error(), "giving " + database + " its rights and settings"));
  }
  return {};
}

}  // namespace zx::backup
