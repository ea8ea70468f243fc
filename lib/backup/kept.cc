// What the last restore replaced, and its end.
#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore.h"
#include "lib/backup/restore_steps.h"

namespace zx::backup {
namespace {

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

Result<std::vector<std::string>> commit_restore(RestoreWorld& world, const Kept& kept) {
  for (const auto& tree : kept.had_tree) ZX_TRY(holds_no_mount(kept_path(tree)));
  auto begun = kept;
  begun.committing = true;
  ZX_TRY(write_kept(world.config.platform.state_dir, begun));
  std::vector<std::string> removed;
  const auto deadline = Deadline::after(Millis(600'000));
  if (!kept.had_database.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, kept.cluster));
    ZX_ASSIGN(const auto names, look_at_names(target, kept.had_database, deadline));
    for (const auto& database : kept.had_database) {
      if (!names.at(database).has_old) continue;
      ZX_TRY(drop_database(target, kept_name(database), deadline));
      removed.push_back("database " + kept_name(database));
    }
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
