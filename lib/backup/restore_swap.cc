// The steps that put what was loaded in the place of what is there, and those of the way back.
#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/files_swap.h"
#include "lib/backup/pg_swap.h"
#include "lib/backup/restore_steps.h"
#include "lib/backup/services.h"
#include "lib/base/text.h"

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

Result<Json> swap_files(StepContext& context) {
  const auto trees = list(context, "trees");
  for (const auto& path : trees) ZX_TRY(swap_tree_in(path));
  return Json{{"words", join(trees, ", ")}};
}
Status swap_files_back(StepContext& context) {
  const auto had = list(context, "had_tree");
  for (const auto& path : list(context, "trees"))
    ZX_TRY(swap_tree_back(path, std::find(had.begin(), had.end(), path) != had.end()));
  return {};
}

Result<Json> swap_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  const auto databases = list(context, "databases");
  ZX_TRY(swap_in(target, databases, context.deadline()));
  return Json{{"words", fmt::format("{} on {}", join(databases, ", "), target.name)}};
}
Status swap_databases_back(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  return swap_back(target, list(context, "databases"), list(context, "had_database"),
                   context.deadline());
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
  kept.had_database = list(context, "had_database");
  kept.trees = list(context, "trees");
  kept.had_tree = list(context, "had_tree");
  kept.redis_deployment = text(context, "redis_deployment");
  kept.with_services = get_bool(context.plan().context, "with_services");
  ZX_TRY(write_kept(world.config.platform.state_dir, kept));
  std::vector<std::string> words;
  for (const auto& name : kept.had_database) words.push_back(kept_name(name));
  for (const auto& path : kept.had_tree) words.push_back(kept_path(path));
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
  ZX_TRY(swap_databases_back(world, context));
  return Json{{"words", join(list(context, "databases"), ", ")}};
}

Result<Json> undo_files(StepContext& context) {
  ZX_TRY(context.no_return());
  ZX_TRY(swap_files_back(context));
  return Json{{"words", join(list(context, "trees"), ", ")}};
}

Result<Json> clear(RestoreWorld& world, StepContext& context) {
  const auto databases = list(context, "databases");
  if (!databases.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    for (const auto& name : databases)
      ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  }
  for (const auto& path : list(context, "trees")) ZX_TRY(remove_tree(aside_path(path)));
  ZX_TRY(forget_kept(world.config.platform.state_dir));
  return Json{{"words", "removed"}};
}

}  // namespace

void add_swap_actions(RestoreWorld& world, run::Actions& actions) {
  // Taken back, the services run again: nothing of what they use was replaced.
  actions["restore.stop"] = {{},
                             [&world](StepContext& context) { return stop(world, context); },
                             {},
                             [&world](StepContext& context) -> Status {
                               ZX_TRY(start(world, context));
                               return {};
                             }};
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
  actions["restore.start"].act = [&world](StepContext& context) { return start(world, context); };
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
  return actions;
}

}  // namespace zx::backup
