// The steps that put what was loaded in the place of what is there, and those of the way back.
#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_standbys.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/pg_table.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/services.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/pg/observe.h"

namespace zx::backup {
namespace {

using run::StepContext;

std::vector<std::string> list(StepContext& context, const char* key) {
  return get_strings(context.plan().context, key);
}
std::string text(StepContext& context, const char* key) {
  return get_string(context.plan().context, key);
}

Result<Json> stop(RestoreWorld& world, StepContext& context) {
  ZX_TRY(stop_services(world.config, context.deadline()));
  return Json{{"words", "stopped"}};
}
Result<Json> start(RestoreWorld& world, StepContext& context) {
  ZX_TRY(start_services(world.config, context.deadline()));
  return Json{{"words", "healthy"}};
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What was there right before the renames of a step; else what was there at first.
constexpr const char* kHad = "had";
std::vector<std::string> had_of(StepContext& context, const char* step, const char* key) {
  const auto& noted = context.noted_by(step, kHad);
  return noted.is_array() ? noted.get<std::vector<std::string>>() : list(context, key);
}

// Taken back, the services run again, but only on what they had: a swap that could not be taken
// back is none of theirs.
Status start_again(RestoreWorld& world, StepContext& context) {
  std::vector<std::string> left;
  if (const auto& had = context.noted_by("databases", kHad); had.is_array()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    ZX_ASSIGN(const auto names,
              look_at_names(target, had.get<std::vector<std::string>>(), context.deadline()));
    for (const auto& [database, now] : names)
      if (now.has_old) left.push_back(kept_name(database));
  }
  if (const auto& had = context.noted_by("files", kHad); had.is_array())
    for (const auto& path : had.get<std::vector<std::string>>())
      if (os::exists(kept_path(path))) left.push_back(kept_path(path));
  if (!left.empty())
    return fail(Code::failed,
                fmt::format("the services were not started: {} {} still there, so not all is as it "
                            "was",
                            join(left, ", "), left.size() == 1 ? "is" : "are"));
  return start_services(world.config, context.deadline());
}

std::uint64_t loaded_inode(StepContext& context, const std::string& path) {
  const auto& loaded = context.seen("files aside");
  const auto found = loaded.find("inodes");
  if (!loaded.is_object() || found == loaded.end() || !found->contains(path)) return 0;
  return found->at(path).get<std::uint64_t>();
}

Result<Json> swap_files(StepContext& context) {
  const auto trees = list(context, "trees");
  std::vector<std::string> had;
  for (const auto& path : trees) {
    ZX_TRY(can_swap_tree_in(path, loaded_inode(context, path)));
    if (had_tree(path)) had.push_back(path);
  }
  ZX_TRY(context.note(kHad, had));
  for (const auto& path : trees) ZX_TRY(swap_tree_in(path, loaded_inode(context, path)));
  return Json{{"words", join(trees, ", ")}};
}
Status swap_files_back(StepContext& context) {
  // It was not begun.
  if (!context.noted(kHad).is_array()) return {};
  const auto had = had_of(context, "files", "had_tree");
  for (const auto& path : list(context, "trees")) {
    const bool had_old = contains(had, path);
    const auto loaded = loaded_inode(context, path);
    const auto now = inode_of(path);
    // Of somebody who came after.
    if (!had_old && loaded != 0 && now && *now != loaded) continue;
    ZX_TRY(swap_tree_back(path, had_old));
  }
  return {};
}

// A standby replays a rename under its sessions, which go on with what has another name now. What
// could not be done, in words.
std::vector<std::string> end_standby_sessions(const RestoreWorld& world, const pg::Target& primary,
                                              StepContext& context) {
  const auto cluster = text(context, "cluster");
  const auto* found = world.config.cluster(cluster);
  const auto goal = written_by(primary, context.deadline());
  const auto targets = pg::targets_of(world.config, *found);
  if (!goal) return {goal.error().message};
  if (!targets) return {targets.error().message};
  std::vector<std::string> names, warnings;
  for (const auto& database : list(context, "databases")) {
    names.push_back(kept_name(database));
    names.push_back(aside_name(database));
  }
  const auto end_on = [&](const std::string& node) -> Status {
    ZX_ASSIGN(const auto standby, pg::target_of(world.config, *found, node));
    ZX_ASSIGN(const auto replayed, wait_for_replay(standby, *goal, context.deadline()));
    ZX_TRY(end_sessions(standby, names, context.deadline()));
    if (replayed >= *goal) return {};
    return fail(Code::timeout, node + " has not replayed it");
  };
  for (const auto& facts : pg::observe(*targets, found->policy.probe_deadline).nodes) {
    if (!facts.answered() || facts.role != pg::Role::standby) continue;
    if (const auto done = end_on(facts.name); !done)
      warnings.push_back(fmt::format("sessions on {} may go on with the databases of before: {}",
                                     facts.name, done.error().message));
  }
  return warnings;
}

Json swapped(const std::string& words, const std::vector<std::string>& warnings) {
  return {{"words", words + (warnings.empty() ? "" : "; ") + join(warnings, "; ")},
          {"warnings", warnings}};
}

Result<Json> swap_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  ZX_TRY(is_as_loaded(target, context));
  const auto databases = list(context, "databases");
  const auto loaded = loaded_oids(context);
  ZX_ASSIGN(const auto names, look_at_names(target, databases, context.deadline()));
  ZX_TRY(renames_in(names, loaded));
  auto had = had_of(context, "databases", "had_database");
  for (const auto& [database, now] : names) {
    if (!now.has_new) continue;
    std::erase(had, database);
    if (now.is_there) had.push_back(database);
  }
  ZX_TRY(context.note(kHad, had));
  ZX_TRY(swap_in(target, names, loaded, context.deadline()));
  return swapped(fmt::format("{} on {}", join(databases, ", "), target.name),
                 end_standby_sessions(world, target, context));
}
Status swap_databases_back(RestoreWorld& world, StepContext& context) {
  // It was not begun.
  if (!context.noted(kHad).is_array()) return {};
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  ZX_TRY(swap_back(target, list(context, "databases"), had_of(context, "databases", "had_database"),
                   loaded_oids(context), context.deadline()));
  for (const auto& warning : end_standby_sessions(world, target, context)) log::debug(warning);
  return {};
}

Result<Json> restore_redis(RestoreWorld& world, StepContext& context) {
  return world.redis.restore(text(context, "redis_file"), text(context, "redis_target"),
                             context.run_id());
}
Status restore_redis_back(RestoreWorld& world, StepContext& context) {
  return world.redis.take_back(context.run_id(), context.run_id() + " back");
}

Result<Json> write_receipt(RestoreWorld& world, StepContext& context) {
  Kept kept;
  kept.run = context.run_id();
  kept.set = text(context, "set");
  kept.at = wall_now();
  kept.cluster = text(context, "cluster");
  kept.databases = list(context, "databases");
  kept.had_database = had_of(context, "databases", "had_database");
  kept.table_database = text(context, "table_database");
  kept.tables = list(context, "tables");
  kept.had_table = list(context, "had_table");
  kept.trees = list(context, "trees");
  kept.had_tree = had_of(context, "files", "had_tree");
  kept.redis_deployment = text(context, "redis_deployment");
  kept.with_services = get_bool(context.plan().context, "with_services");
  ZX_TRY(write_kept(world.config.platform.state_dir, kept));
  std::vector<std::string> words;
  for (const auto& name : kept.had_database) words.push_back(kept_name(name));
  for (const auto& name : kept.had_table) words.push_back(kept_shown(name));
  for (const auto& path : kept.had_tree) words.push_back(kept_path(path));
  if (!kept.redis_deployment.empty())
    words.push_back("what Redis " + kept.redis_deployment + " had");
  auto seen = to_json(kept);
  seen["words"] = words.empty() ? "nothing was there before" : "kept: " + join(words, ", ");
  return seen;
}

// --- undo: only forward ------------------------------------------------------------------------

Result<Json> undo_redis(RestoreWorld& world, StepContext& context) {
  ZX_TRY(context.no_return());
  ZX_TRY(world.redis.take_back(text(context, "run"), context.run_id()));
  return Json{{"words", "as it was before the restore"}};
}

Result<Json> undo_databases(RestoreWorld& world, StepContext& context) {
  ZX_TRY(context.no_return());
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  const auto databases = list(context, "databases");
  ZX_TRY(swap_back(target, databases, list(context, "had_database"), {}, context.deadline()));
  return swapped(join(databases, ", "), end_standby_sessions(world, target, context));
}

Result<Json> undo_files(StepContext& context) {
  ZX_TRY(context.no_return());
  const auto trees = list(context, "trees"), had = list(context, "had_tree");
  for (const auto& path : trees) ZX_TRY(swap_tree_back(path, contains(had, path)));
  return Json{{"words", join(trees, ", ")}};
}

Result<Json> clear(RestoreWorld& world, StepContext& context) {
  const auto databases = list(context, "databases");
  if (!databases.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    for (const auto& name : databases)
      ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  }
  if (const auto name = text(context, "table_database"); !name.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  }
  for (const auto& path : list(context, "trees")) ZX_TRY(remove_tree(aside_path(path)));
  ZX_TRY(forget_kept(world.config.platform.state_dir));
  // What Redis had before, which it has again, and what this replaced.
  if (!text(context, "redis_deployment").empty())
    for (const auto& within : {text(context, "run"), context.run_id()}) {
      const auto copies = world.redis.forget(within);
      if (!copies) log::warning("a safety copy of Redis stays: " + copies.error().message);
    }
  return Json{{"words", "removed"}};
}

}  // namespace

void add_swap_actions(RestoreWorld& world, run::Actions& actions) {
  actions["restore.stop"] = {
      {},
      [&world](StepContext& context) { return stop(world, context); },
      {},
      [&world](StepContext& context) { return start_again(world, context); }};
  actions["restore.files-swap"] = {{},
                                   [](StepContext& context) { return swap_files(context); },
                                   {},
                                   [](StepContext& context) { return swap_files_back(context); }};
  actions["restore.pg-swap"] = {
      {},
      [&world](StepContext& context) { return swap_databases(world, context); },
      {},
      [&world](StepContext& context) { return swap_databases_back(world, context); }};
  actions["restore.redis"] = {
      {},
      [&world](StepContext& context) { return restore_redis(world, context); },
      {},
      [&world](StepContext& context) { return restore_redis_back(world, context); }};
  actions["restore.receipt"] = {
      {},
      [&world](StepContext& context) { return write_receipt(world, context); },
      {},
      [&world](StepContext&) { return forget_kept(world.config.platform.state_dir); }};
  // Nothing is swapped back under them.
  actions["restore.start"] = {
      {},
      [&world](StepContext& context) { return start(world, context); },
      {},
      [&world](StepContext& context) { return stop_services(world.config, context.deadline()); }};
}

void add_undo_actions(RestoreWorld& world, run::Actions& actions) {
  actions["restore.undo-stop"].act = [&world](StepContext& context) -> Result<Json> {
    ZX_TRY(context.no_return());
    return stop(world, context);
  };
  actions["restore.undo-redis"].act = [&world](StepContext& context) {
    return undo_redis(world, context);
  };
  actions["restore.undo-pg"].act = [&world](StepContext& context) {
    return undo_databases(world, context);
  };
  actions["restore.undo-files"].act = [](StepContext& context) { return undo_files(context); };
  actions["restore.undo-clear"].act = [&world](StepContext& context) {
    return clear(world, context);
  };
}

run::Actions restore_actions(RestoreWorld& world) {
  run::Actions actions;
  add_load_actions(world, actions);
  add_swap_actions(world, actions);
  add_undo_actions(world, actions);
  add_table_actions(world, actions);
  return actions;
}

}  // namespace zx::backup
