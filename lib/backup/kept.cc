// What the last restore replaced, and its end.
#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore.h"
#include "lib/backup/restore_steps.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

constexpr Millis kLook{30'000};

std::string path_in(const std::string& state_dir) { return state_dir + "/restored.json"; }

}  // namespace

Json to_json(const Kept& kept) {
  return {{"run", kept.run},
          {"set", kept.set},
          {"at", format_utc(kept.at)},
          {"cluster", kept.cluster},
          {"databases", kept.databases},
          {"had_database", kept.had_database},
          {"table_database", kept.table_database},
          {"tables", kept.tables},
          {"had_table", kept.had_table},
          {"trees", kept.trees},
          {"had_tree", kept.had_tree},
          {"oids", kept.oids},
          {"inodes", kept.inodes},
          {"redis_deployment", kept.redis_deployment},
          {"with_services", kept.with_services},
          {"committing", kept.committing}};
}

Result<std::optional<Kept>> read_kept(const std::string& state_dir) {
  const auto text = os::read_file(path_in(state_dir));
  if (!text && text.error().code == Code::not_found) return std::optional<Kept>();
  if (!text) return fail(text.error());
  ZX_ASSIGN(const auto json, parse_json(*text, path_in(state_dir)));
  Kept kept;
  kept.run = get_string(json, "run");
  kept.set = get_string(json, "set");
  kept.at = parse_utc(get_string(json, "at"));
  kept.cluster = get_string(json, "cluster");
  kept.databases = get_strings(json, "databases");
  kept.had_database = get_strings(json, "had_database");
  kept.table_database = get_string(json, "table_database");
  kept.tables = get_strings(json, "tables");
  kept.had_table = get_strings(json, "had_table");
  kept.trees = get_strings(json, "trees");
  kept.had_tree = get_strings(json, "had_tree");
  kept.oids = get_numbers(json, "oids");
  kept.inodes = get_numbers(json, "inodes");
  kept.redis_deployment = get_string(json, "redis_deployment");
  kept.with_services = get_bool(json, "with_services");
  kept.committing = get_bool(json, "committing");
  if (kept.run.empty())
    return fail(Code::failed, path_in(state_dir) + " names no run",
                "it says what the last restore keeps; DB_zxold and PATH.zxold are what it kept");
  return std::optional<Kept>(std::move(kept));
}

Status write_kept(const std::string& state_dir, const Kept& kept) {
  return os::write_file(path_in(state_dir), dump_pretty(to_json(kept)) + "\n");
}

Status forget_kept(const std::string& state_dir) { return os::remove_file(path_in(state_dir)); }

std::vector<std::string> had_of(const Json& noted, const Json& context, const char* key) {
  return noted.is_array() ? noted.get<std::vector<std::string>>() : get_strings(context, key);
}

Kept kept_of(const Traces& traces) {
  const auto& plan = traces.plan.context;
  Kept kept;
  kept.run = traces.run;
  kept.set = get_string(plan, "set");
  kept.at = wall_now();
  kept.cluster = get_string(plan, "cluster");
  kept.databases = get_strings(plan, "databases");
  kept.had_database = had_of(traces.noted("databases", kHad), plan, "had_database");
  kept.table_database = get_string(plan, "table_database");
  kept.tables = get_strings(plan, "tables");
  kept.had_table = get_strings(plan, "had_table");
  kept.trees = get_strings(plan, "trees");
  kept.had_tree = had_of(traces.noted("files", kHad), plan, "had_tree");
  kept.oids = get_numbers(traces.seen("load"), "oids");
  kept.inodes = get_numbers(traces.seen("files aside"), "inodes");
  kept.redis_deployment = get_string(plan, "redis_deployment");
  kept.with_services = get_bool(plan, "with_services");
  return kept;
}

Result<std::optional<Kept>> left_by(RestoreWorld& world, const run::Record& record) {
  const Json none;
  const auto step_of = [&](const std::string& name) -> const run::StepRecord* {
    const auto found = record.steps.find(name);
    return found == record.steps.end() ? nullptr : &found->second;
  };
  auto kept = kept_of(Traces{record.plan, record.id,
                             [&](const std::string& step) -> const Json& {
                               const auto* found = step_of(step);
                               return found == nullptr ? none : found->seen;
                             },
                             [&](const std::string& step, const std::string& key) -> const Json& {
                               const auto* found = step_of(step);
                               if (found == nullptr) return none;
                               const auto note = found->notes.find(key);
                               return note == found->notes.end() ? none : note->second;
                             }});
  const auto was_begun = [&](const char* name) {
    const auto* found = step_of(name);
    return found != nullptr && found->state != run::StepState::pending &&
           found->state != run::StepState::skipped && found->state != run::StepState::undone;
  };
  const auto keep_only = [](std::vector<std::string>& names, std::vector<std::string>& had,
                            const auto& is_swapped) {
    std::erase_if(had, [&](const std::string& name) { return !is_swapped(name, true); });
    std::erase_if(names, [&](const std::string& name) {
      return !contains(had, name) && !is_swapped(name, false);
    });
  };
  const auto forget = [](std::vector<std::string>& names, std::vector<std::string>& had) {
    names.clear();
    had.clear();
  };
  if (!was_begun("databases")) forget(kept.databases, kept.had_database);
  if (!kept.databases.empty()) {
    const auto deadline = Deadline::after(kLook);
    ZX_ASSIGN(const auto target, primary_target(world, kept.cluster));
    ZX_ASSIGN(const auto names, look_at_names(target, kept.databases, deadline));
    keep_only(kept.databases, kept.had_database, [&](const std::string& name, bool had) {
      const auto& now = names.at(name);
      const auto known = kept.oids.find(name);
      return had ? now.has_old : known != kept.oids.end() && now.oid == known->second;
    });
  }
  if (!was_begun("files")) forget(kept.trees, kept.had_tree);
  keep_only(kept.trees, kept.had_tree, [&](const std::string& path, bool had) {
    if (had) return is_there(kept_path(path));
    const auto known = kept.inodes.find(path);
    const auto now = inode_of(path);
    return known != kept.inodes.end() && now && *now == known->second;
  });
  if (!was_begun("tables")) forget(kept.tables, kept.had_table);
  if (!kept.tables.empty()) {
    ZX_ASSIGN(const bool are_there, are_tables_kept(world, kept, Deadline::after(kLook)));
    if (!are_there) forget(kept.tables, kept.had_table);
  }
  if (kept.tables.empty()) kept.table_database.clear();
  if (!was_begun("redis")) kept.redis_deployment.clear();
  if (kept.databases.empty() && kept.trees.empty() && kept.tables.empty() &&
      kept.redis_deployment.empty())
    return std::optional<Kept>();
  return std::optional<Kept>(std::move(kept));
}

Result<std::vector<std::string>> commit_restore(RestoreWorld& world, const Kept& kept) {
  const auto deadline = Deadline::after(Millis(600'000));
  for (const auto& tree : kept.had_tree) ZX_TRY(holds_no_mount(kept_path(tree)));
  // Looked at first: from then on there is no way back.
  pg::Target primary;
  std::map<std::string, SwapNames> names;
  if (!kept.had_database.empty() || !kept.tables.empty()) {
    ZX_ASSIGN(auto server, right_primary(world, kept.cluster));
    primary = std::move(server.target);
    ZX_ASSIGN(names, look_at_names(primary, kept.had_database, deadline));
  }
  auto begun = kept;
  begun.committing = true;
  ZX_TRY(write_kept(world.config.platform.state_dir, begun));
  std::vector<std::string> removed;
  for (const auto& database : kept.had_database) {
    if (!names.at(database).has_old) continue;
    ZX_TRY(drop_database(primary, kept_name(database), deadline));
    removed.push_back("database " + kept_name(database));
  }
  if (!kept.tables.empty()) {
    ZX_ASSIGN(const auto tables, commit_tables(world, kept, deadline));
    removed.insert(removed.end(), tables.begin(), tables.end());
  }
  for (const auto& tree : kept.had_tree) {
    if (!os::exists(kept_path(tree))) continue;
    ZX_TRY(remove_tree(kept_path(tree)));
    removed.push_back(kept_path(tree));
  }
  if (!kept.redis_deployment.empty()) {
    ZX_ASSIGN(const auto copies, world.redis.forget(kept.run));
    removed.insert(removed.end(), copies.begin(), copies.end());
  }
  ZX_TRY(forget_kept(world.config.platform.state_dir));
  return removed;
}

}  // namespace zx::backup
