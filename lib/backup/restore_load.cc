// The steps that load a set aside: nothing that anybody uses is touched.
#include <algorithm>
#include <atomic>
#include <mutex>

#include <fmt/format.h>

#include "lib/backup/files_restore.h"
#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/row_counts.h"
#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/os/in_turns.h"
#include "lib/pg/observe.h"

namespace zx::backup {
namespace {

using run::StepContext;

std::vector<std::string> list(StepContext& context, const char* key) {
  return get_strings(context.plan().context, key);
}

std::vector<const DatabasePart*> wanted(const Set& set, const std::vector<std::string>& names) {
  std::vector<const DatabasePart*> parts;
  if (set.pg)
    for (const auto& part : set.pg->databases)
      if (contains(names, part.name)) parts.push_back(&part);
  // The largest first, so that none of them begins last.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto* a, const auto* b) { return a->dump.raw > b->dump.raw; });
  return parts;
}

Result<Json> load_files(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  std::uint64_t files = 0, bytes = 0;
  std::vector<std::string> warnings;
  Json inodes = Json::object();
  for (const auto& path : list(context, "trees")) {
    const auto part = std::find_if(set.files.begin(), set.files.end(),
                                   [&](const FilesPart& one) { return one.path == path; });
    if (part == set.files.end())
      return fail(Code::failed, fmt::format("set {} has no files of {}", set.id, path));
    // Of an attempt that was killed.
    ZX_TRY(remove_tree(aside_path(path)));
    FilesRestore options;
    options.into = aside_path(path);
    options.progress = [&world](std::uint64_t, std::uint64_t more) {
      if (world.progress) world.progress(more);
    };
    options.until = context.deadline();
    ZX_ASSIGN(const auto done, restore_files(*world.repository, *part, options));
    files += done.files;
    bytes += done.bytes;
    warnings.insert(warnings.end(), done.warnings.begin(), done.warnings.end());
    ZX_ASSIGN(inodes[path], inode_of(aside_path(path)));
  }
  auto words = fmt::format("{}, {}", count_of(static_cast<std::int64_t>(files), "name"),
                           format_bytes(bytes));
  if (!warnings.empty())
    words +=
        "; not as it was: " + warnings.front() +
        (warnings.size() > 1 ? fmt::format(" and {} more", warnings.size() - 1) : std::string());
  return Json{{"words", words},
              {"files", files},
              {"bytes", bytes},
              {"inodes", inodes},
              {"warnings", warnings}};
}

Status forget_files(StepContext& context) {
  for (const auto& path : list(context, "trees")) ZX_TRY(remove_tree(aside_path(path)));
  return {};
}

Result<Json> make_roles(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto server,
            primary_server(world, get_string(context.plan().context, "cluster")));
  ZX_ASSIGN(const auto done, load_globals(*world.repository, *set.pg, server, context.deadline()));
  auto words = done.made.empty() ? "they are there" : "made " + join(done.made, ", ");
  if (!done.warning.empty()) words += "; " + done.warning;
  return Json{{"words", words}, {"roles", done.made}};
}

struct One {
  bool is_counted = false;  // the server has counted as many rows as the set has
  std::string left_out;
};
Result<One> load_one(RestoreWorld& world, const DatabasePart& part, const PgServer& server,
                     int copies, bool no_tablespaces, Deadline until,
                     std::atomic<std::uint64_t>& bytes) {
  const auto name = aside_name(part.name);
  // Of an attempt that was killed.
  ZX_TRY(drop_database(server.target, name, until));
  auto beside = server;
  ZX_ASSIGN(beside.target,
            target_beside(server.target, {part.name, name, kept_name(part.name)}, until));
  ZX_TRY(create_database(beside, part, name, until, !no_tablespaces));
  LoadOptions options;
  options.copies = copies;
  options.no_tablespaces = no_tablespaces;
  options.progress = world.progress;
  options.until = until;
  ZX_ASSIGN(const auto loaded, load_database(*world.repository, part, server, name, options));
  bytes += loaded.bytes;
  ZX_TRY(apply_properties(beside, part, name, until));
  return One{!loaded.counted.empty() && rows_differ(part.tables, loaded.counted).empty(),
             left_out(loaded.subscriptions)};
}

Result<Json> load_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto server,
            primary_server(world, get_string(context.plan().context, "cluster")));
  const auto parts = wanted(set, list(context, "databases"));
  std::atomic<std::uint64_t> bytes{0};
  const bool no_tablespaces = get_bool(context.plan().context, "no_tablespaces");
  const auto until = context.deadline();
  // Fewer databases than jobs: the others copy the rows of the same one.
  const int copies = std::max(1, world.jobs / std::max(1, static_cast<int>(parts.size())));
  std::mutex mutex;
  std::vector<std::string> counted, left_out;
  ZX_TRY(os::in_turns(parts.size(), world.jobs, [&](std::size_t at) -> Status {
    const auto done = load_one(world, *parts[at], server, copies, no_tablespaces, until, bytes);
    if (!done) return fail_while(done.error(), "loading " + parts[at]->name);
    const std::lock_guard lock(mutex);
    if (done->is_counted) counted.push_back(parts[at]->name);
    if (!done->left_out.empty()) left_out.push_back(parts[at]->name + " " + done->left_out);
    return {};
  }));
  auto words = fmt::format("{}, {}", count_of(static_cast<std::int64_t>(parts.size()), "database"),
                           format_bytes(bytes));
  for (const auto& one : left_out) words += "; " + one;
  Json seen{{"words", words}, {"bytes", bytes.load()}, {"counted", counted}};
  ZX_ASSIGN(const auto primary, look_at_primary(server.target, until));
  seen.update(primary);
  ZX_ASSIGN(const auto names, look_at_names(server.target, list(context, "databases"), until));
  for (const auto& [database, now] : names) seen["oids"][database] = now.new_oid;
  return seen;
}

Status forget_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target,
            primary_target(world, get_string(context.plan().context, "cluster")));
  for (const auto& name : list(context, "databases"))
    ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  return {};
}

Result<pg::Client> connect_aside(pg::Target target, const std::string& database, Deadline until) {
  target.database = aside_name(database);
  target.statement_timeout = Millis(0);
  auto client = pg::Client::open(target, until);
  if (!client) return fail(pg::error_of(target, client.error()));
  // The database's own settings count for whoever connects.
  if (auto done = client->query("SET statement_timeout = 0", until); !done)
    return fail(pg::error_of(target, done.error()));
  return *std::move(client);
}

// DB_zxnew of each is the one that was loaded.
Status are_as_loaded(const pg::Target& target, StepContext& context) {
  const auto databases = list(context, "databases");
  ZX_ASSIGN(const auto names, look_at_names(target, databases, context.deadline()));
  const auto loaded = loaded_oids(context);
  for (const auto& database : databases)
    if (loaded.contains(database) && names.at(database).new_oid != loaded.at(database))
      return fail(Code::refused,
                  fmt::format("{} is {}", aside_name(database),
                              names.at(database).has_new ? "not what was loaded" : "not there"),
                  "somebody has changed it: take the run back, then restore again");
  return {};
}

Result<Json> check_rows(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto target,
            primary_target(world, get_string(context.plan().context, "cluster")));
  const auto parts = wanted(set, list(context, "databases"));
  const auto until = context.deadline();
  ZX_TRY(is_as_loaded(target, context));
  ZX_TRY(are_as_loaded(target, context));
  // What another process saw says nothing of what happened since.
  const auto counted =
      context.resumed() ? std::vector<std::string>{} : get_strings(context.seen("load"), "counted");
  std::atomic<std::uint64_t> rows{0};
  ZX_TRY(os::in_turns(parts.size(), world.jobs, [&](std::size_t at) -> Status {
    const auto& part = *parts[at];
    if (contains(counted, part.name)) {
      for (const auto& table : part.tables) rows += table.rows;
      return {};
    }
    ZX_ASSIGN(auto client, connect_aside(target, part.name, until));
    const auto found = count_rows(client, until);
    if (!found) return fail(pg::error_of(target, found.error()));
    const auto differ = rows_differ(part.tables, *found);
    if (!differ.empty())
      return fail(
          Code::failed,
          fmt::format("{} is not what was backed up: {}{}", part.name, differ.front(),
                      differ.size() > 1 ? fmt::format(" and {} more", differ.size() - 1) : ""),
          "verify the set: zx backup verify " + set.id + " --level restore");
    for (const auto& table : *found) rows += table.rows;
    return {};
  }));
  return Json{{"words", fmt::format("{} rows, as in the set", rows.load())}, {"rows", rows.load()}};
}

// Statistics are not in a dump, and without them the first queries may take the worst way. One that
// they cannot be made of is right all the same: autovacuum makes them later.
Result<Json> analyze(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target,
            primary_target(world, get_string(context.plan().context, "cluster")));
  const auto databases = list(context, "databases");
  const auto until = context.deadline();
  std::mutex mutex;
  std::vector<std::string> warnings;
  ZX_TRY(os::in_turns(databases.size(), world.jobs, [&](std::size_t at) -> Status {
    ZX_ASSIGN(auto client, connect_aside(target, databases[at], until));
    const auto done = client.query("ANALYZE", until);
    if (done) return {};
    const auto error = pg::error_of(target, done.error());
    if (error.code != Code::server) return fail(error);
    const std::lock_guard lock(mutex);
    warnings.push_back(fmt::format("{} is not analyzed: {}", databases[at], error.message));
    return {};
  }));
  auto words = count_of(static_cast<std::int64_t>(databases.size() - warnings.size()), "database");
  if (!warnings.empty()) words += "; " + join(warnings, "; ");
  return Json{{"words", words}, {"warnings", warnings}};
}

}  // namespace

Result<Json> look_at_primary(const pg::Target& target, Deadline until) {
  ZX_ASSIGN(auto client, connect_beside(target, {}, until));
  const auto rows = client.query(
      "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
      " FROM pg_control_system()",
      until);
  if (!rows) return fail(pg::error_of(target, rows.error()));
  return Json{{"node", target.name},
              {"system_id", rows->at(0).at(0).value_or("")},
              {"timeline", rows->at(0).at(1).value_or("")}};
}

Status is_as_loaded(const pg::Target& target, const StepContext& context) {
  const auto& loaded = context.seen("load");
  ZX_ASSIGN(const auto now, look_at_primary(target, context.deadline()));
  for (const auto* key : {"system_id", "node", "timeline"}) {
    const auto then = get_string(loaded, key);
    if (!then.empty() && then != get_string(now, key))
      return fail(Code::refused,
                  fmt::format("{} is not as it was when it was loaded: {} {} instead of {}",
                              target.name, key, get_string(now, key), then),
                  "there was a failover or another restore: take the run back, then restore again");
  }
  return {};
}

Oids loaded_oids(const StepContext& context) {
  Oids oids;
  const auto& loaded = context.seen("load");
  if (const auto found = loaded.find("oids"); loaded.is_object() && found != loaded.end())
    for (const auto& [database, oid] : found->items()) oids[database] = oid.get<std::uint32_t>();
  return oids;
}

Result<pg::Target> primary_target(const RestoreWorld& world, const std::string& cluster) {
  const auto* found = world.config.cluster(cluster);
  if (found == nullptr)
    return fail(Code::config,
                fmt::format("{} has no cluster {}", world.config.path, first_line(cluster)));
  ZX_ASSIGN(const auto targets, pg::targets_of(world.config, *found));
  const auto snapshot = pg::observe(targets, found->policy.probe_deadline);
  std::vector<std::string> primaries, words;
  bool has_wrong_password = false;
  for (const auto& facts : snapshot.nodes) {
    if (facts.answered() && facts.role == pg::Role::primary) primaries.push_back(facts.name);
    if (!facts.answered()) words.push_back(facts.name + ": " + pg::says(facts.failure));
    has_wrong_password = has_wrong_password || facts.failure == pg::Failure::auth;
  }
  if (primaries.size() > 1)
    return fail(
        Code::refused,
        fmt::format("{} have taken writes as primaries of {}", join(primaries, " and "), cluster),
        "zx status says which is right");
  if (primaries.empty() && has_wrong_password)
    return fail(Code::auth,
                fmt::format("no primary of {} lets zx in: {}", cluster, join(words, ", ")),
                fmt::format("pg.{}.user and its password in {}", cluster, world.config.path));
  if (primaries.empty())
    return fail(
        Code::unreachable,
        fmt::format("{} has no primary{}{}", cluster, words.empty() ? "" : ": ", join(words, ", ")),
        "bring it up first: zx status, zx failover pg");
  const auto& primary = *snapshot.node(primaries.front());
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.lineage.system_id == primary.lineage.system_id &&
        facts.lineage.timeline > primary.lineage.timeline)
      return fail(
          Code::refused,
          fmt::format("{} is on timeline {}, later than timeline {} of {}: who took over "
                      "does not answer",
                      facts.name, facts.lineage.timeline, primary.lineage.timeline, primary.name),
          "zx status says which is right");
  return pg::target_of(world.config, *found, primary.name);
}

Result<PgServer> primary_server(const RestoreWorld& world, const std::string& cluster) {
  ZX_ASSIGN(auto target, primary_target(world, cluster));
  return PgServer{std::move(target), world.config.cluster(cluster)->bin_dir};
}

Result<PgServer> right_primary(const RestoreWorld& world, const std::string& cluster) {
  ZX_ASSIGN(auto server, primary_server(world, cluster));
  if (world.is_right_primary) ZX_TRY(world.is_right_primary(cluster, server.target.name));
  return server;
}

Result<Set> set_of(const RestoreWorld& world, const StepContext& context) {
  if (world.repository == nullptr) return fail(Code::internal, "the repository is not open");
  ZX_ASSIGN(auto entry, world.repository->set(get_string(context.plan().context, "set")));
  return std::move(entry.set);
}

void add_load_actions(RestoreWorld& world, run::Actions& actions) {
  actions["restore.files-load"] = {
      {},
      [&world](StepContext& context) { return load_files(world, context); },
      {},
      [](StepContext& context) { return forget_files(context); }};
  actions["restore.roles"].act = [&world](StepContext& context) {
    return make_roles(world, context);
  };
  actions["restore.pg-load"] = {
      {},
      [&world](StepContext& context) { return load_databases(world, context); },
      {},
      [&world](StepContext& context) { return forget_databases(world, context); }};
  actions["restore.pg-analyze"].act = [&world](StepContext& context) {
    return analyze(world, context);
  };
  actions["restore.pg-check"].act = [&world](StepContext& context) {
    return check_rows(world, context);
  };
}

}  // namespace zx::backup
