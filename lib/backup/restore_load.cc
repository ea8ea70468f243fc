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
      if (std::find(names.begin(), names.end(), part.name) != names.end()) parts.push_back(&part);
  // The largest first, so that none of them begins last.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto* a, const auto* b) { return a->dump.raw > b->dump.raw; });
  return parts;
}

Result<Json> load_files(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  std::uint64_t files = 0, bytes = 0;
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
    ZX_ASSIGN(const auto done, restore_files(world.repository, *part, options));
    files += done.files;
    bytes += done.bytes;
  }
  return Json{{"words", fmt::format("{}, {}", count_of(static_cast<std::int64_t>(files), "name"),
                                    format_bytes(bytes))},
              {"files", files},
              {"bytes", bytes}};
}

Status forget_files(StepContext& context) {
  for (const auto& path : list(context, "trees")) ZX_TRY(remove_tree(aside_path(path)));
  return {};
}

Result<Json> make_roles(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto server,
            primary_server(world, get_string(context.plan().context, "cluster")));
  ZX_ASSIGN(const auto made, load_globals(world.repository, *set.pg, server, context.deadline()));
  return Json{{"words", made.empty() ? "they are there" : "made " + join(made, ", ")},
              {"roles", made}};
}

// Whether the server has counted as many rows as the set has.
Result<bool> load_one(RestoreWorld& world, const DatabasePart& part, const PgServer& server,
                      int copies, Deadline until, std::atomic<std::uint64_t>& bytes) {
  const auto name = aside_name(part.name);
  // Of an attempt that was killed.
  ZX_TRY(drop_database(server.target, name, until));
  ZX_TRY(create_database(server, part, name, until));
  LoadOptions options;
  options.copies = copies;
  options.progress = world.progress;
  options.until = until;
  ZX_ASSIGN(const auto loaded, load_database(world.repository, part, server, name, options));
  bytes += loaded.bytes;
  ZX_TRY(apply_properties(server, part, name, until));
  return !loaded.counted.empty() && rows_differ(part.tables, loaded.counted).empty();
}

Result<Json> load_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto server,
            primary_server(world, get_string(context.plan().context, "cluster")));
  const auto parts = wanted(set, list(context, "databases"));
  std::atomic<std::uint64_t> bytes{0};
  const auto until = context.deadline();
  // Fewer databases than jobs: the others copy the rows of the same one.
  const int copies = std::max(1, world.jobs / std::max(1, static_cast<int>(parts.size())));
  std::mutex mutex;
  std::vector<std::string> counted;
  ZX_TRY(os::in_turns(parts.size(), world.jobs, [&](std::size_t at) -> Status {
    const auto done = load_one(world, *parts[at], server, copies, until, bytes);
    if (!done) return fail_while(done.error(), "loading " + parts[at]->name);
    const std::lock_guard lock(mutex);
    if (*done) counted.push_back(parts[at]->name);
    return {};
  }));
  return Json{
      {"words", fmt::format("{}, {}", count_of(static_cast<std::int64_t>(parts.size()), "database"),
                            format_bytes(bytes))},
      {"bytes", bytes.load()},
      {"counted", counted}};
}

Status forget_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target,
            primary_target(world, get_string(context.plan().context, "cluster")));
  for (const auto& name : list(context, "databases"))
    ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  return {};
}

Result<Json> check_rows(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto set, set_of(world, context));
  ZX_ASSIGN(const auto target,
            primary_target(world, get_string(context.plan().context, "cluster")));
  const auto parts = wanted(set, list(context, "databases"));
  const auto counted = get_strings(context.seen("load"), "counted");
  std::atomic<std::uint64_t> rows{0};
  const auto until = context.deadline();
  ZX_TRY(os::in_turns(parts.size(), world.jobs, [&](std::size_t at) -> Status {
    const auto& part = *parts[at];
    if (std::find(counted.begin(), counted.end(), part.name) != counted.end()) {
      for (const auto& table : part.tables) rows += table.rows;
      return {};
    }
    auto there = target;
    there.database = aside_name(part.name);
    there.statement_timeout = Millis(0);
    auto client = pg::Client::open(there, until);
    if (!client) return fail(pg::error_of(there, client.error()));
    // The database's own settings count for whoever connects.
    if (auto done = client->query("SET statement_timeout = 0", until); !done)
      return fail(pg::error_of(there, done.error()));
    const auto found = count_rows(*client, until);
    if (!found) return fail(pg::error_of(there, found.error()));
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

}  // namespace

Result<pg::Target> primary_target(const RestoreWorld& world, const std::string& cluster) {
  const auto* found = world.config.cluster(cluster);
  if (found == nullptr)
    return fail(Code::config,
                fmt::format("{} has no cluster {}", world.config.path, first_line(cluster)));
  ZX_ASSIGN(const auto targets, pg::targets_of(world.config, *found));
  const auto snapshot = pg::observe(targets, found->policy.probe_deadline);
  std::vector<std::string> primaries, words;
  for (const auto& facts : snapshot.nodes) {
    if (facts.answered() && facts.role == pg::Role::primary) primaries.push_back(facts.name);
    if (!facts.answered()) words.push_back(facts.name + ": " + pg::says(facts.failure));
  }
  if (primaries.size() > 1)
    return fail(
        Code::refused,
        fmt::format("{} have taken writes as primaries of {}", join(primaries, " and "), cluster),
        "zx status says which is right");
  if (primaries.empty())
    return fail(
        Code::unreachable,
        fmt::format("{} has no primary{}{}", cluster, words.empty() ? "" : ": ", join(words, ", ")),
        "bring it up first: zx status, zx failover pg");
  return pg::target_of(world.config, *found, primaries.front());
}

Result<PgServer> primary_server(const RestoreWorld& world, const std::string& cluster) {
  ZX_ASSIGN(auto target, primary_target(world, cluster));
  return PgServer{std::move(target), world.config.cluster(cluster)->bin_dir};
}

Result<Set> set_of(const RestoreWorld& world, const StepContext& context) {
  ZX_ASSIGN(auto entry, world.repository.set(get_string(context.plan().context, "set")));
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
  actions["restore.pg-check"].act = [&world](StepContext& context) {
    return check_rows(world, context);
  };
}

}  // namespace zx::backup
