// The steps that put what was loaded in the place of what is there, and those of the way back.

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

constexpr const char* kBegun = "begun";  // noted
constexpr const char* kBack = "back";

Result<Json> stop(RestoreWorld& world, StepContext& context) {
  ZX_TRY(stop_services(world.config, context.deadline()));
  return Json{{"words", "stopped"}};
}
Result<Json> start(RestoreWorld& world, StepContext& context) {
  ZX_TRY(context.note(kBegun, true));
  ZX_TRY(start_services(world.config, context.deadline()));
  return Json{{"words", "healthy"}};
}

std::vector<std::string> had_of(StepContext& context, const char* step, const char* key) {
  return backup::had_of(context.noted_by(step, kHad), context.plan().context, key);
}

Status stop_again(RestoreWorld& world, StepContext& context) {
  ZX_TRY(stop_services(world.config, context.deadline()));
  return context.note(kBack, true);
}
// Nothing is swapped back under services that could not be stopped again.
Status services_stand(StepContext& context) {
  if (context.noted_by("start", kBegun).is_null() || !context.noted_by("start", kBack).is_null())
    return {};
  return fail(Code::failed, "the services are not stopped, so nothing is swapped back under them",
              "stop them, then take the run back once more");
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
  if (!context.noted_by("redis", kBegun).is_null() && context.noted_by("redis", kBack).is_null())
    left.push_back("what Redis got of the set");
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
  ZX_TRY(services_stand(context));
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
  ZX_TRY(services_stand(context));
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  ZX_TRY(swap_back(target, list(context, "databases"), had_of(context, "databases", "had_database"),
                   loaded_oids(context), {}, context.deadline()));
  for (const auto& warning : end_standby_sessions(world, target, context)) log::debug(warning);
  return {};
}

Result<Json> restore_redis(RestoreWorld& world, StepContext& context) {
  ZX_TRY(context.note(kBegun, true));
  return world.redis.restore(text(context, "redis_file"), text(context, "redis_target"),
                             context.run_id());
}
Status restore_redis_back(RestoreWorld& world, StepContext& context) {
  ZX_TRY(services_stand(context));
  ZX_TRY(world.redis.take_back(context.run_id(), context.run_id() + " back"));
  return context.note(kBack, true);
}

Result<Json> write_receipt(RestoreWorld& world, StepContext& context) {
  const auto kept =
      kept_of(Traces{context.plan(), context.run_id(),
                     [&](const std::string& step) -> const Json& { return context.seen(step); },
                     [&](const std::string& step, const std::string& key) -> const Json& {
                       return context.noted_by(step, key);
                     }});
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

// --- undo: only forward, once the first is back ------------------------------------------------

Result<Json> undo_redis(RestoreWorld& world, StepContext& context) {
  // Begun before, it only goes on.
  if (!context.resumed()) ZX_TRY(world.redis.can_take_back(text(context, "run")));
  ZX_TRY(context.no_return());
  ZX_TRY(world.redis.take_back(text(context, "run"), context.run_id()));
  return Json{{"words", "as it was before the restore"}};
}

Oids replaced_by(StepContext& context) {
  Oids oids;
  for (const auto& [name, oid] : get_numbers(context.plan().context, "oids"))
    oids[name] = static_cast<std::uint32_t>(oid);
  return oids;
}
// Is what stands at `at` the tree that was restored for `path`?
bool is_restored(StepContext& context, const std::string& path, const std::string& at) {
  const auto inodes = get_numbers(context.plan().context, "inodes");
  const auto known = inodes.find(path);
  const auto now = inode_of(at);
  return known == inodes.end() || !now || *now == known->second;
}

Result<Json> undo_databases(RestoreWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
  const auto databases = list(context, "databases");
  ZX_TRY(swap_back(
      target, databases, list(context, "had_database"), replaced_by(context),
      [&] { return context.no_return(); }, context.deadline()));
  return swapped(join(databases, ", "), end_standby_sessions(world, target, context));
}

Result<Json> undo_files(StepContext& context) {
  const auto trees = list(context, "trees"), had = list(context, "had_tree");
  for (const auto& path : trees) ZX_TRY(holds_no_mount(path));
  ZX_TRY(context.no_return());
  for (const auto& path : trees) {
    // Of somebody who came after.
    if (!contains(had, path) && !is_restored(context, path, path)) continue;
    ZX_TRY(swap_tree_back(path, contains(had, path)));
  }
  return Json{{"words", join(trees, ", ")}};
}

Result<Json> clear(RestoreWorld& world, StepContext& context) {
  const auto databases = list(context, "databases");
  if (!databases.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    ZX_ASSIGN(const auto names, look_at_names(target, databases, context.deadline()));
    const auto oids = replaced_by(context);
    for (const auto& [name, now] : names)
      if (now.has_new && (!oids.contains(name) || oids.at(name) == now.new_oid))
        ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  }
  if (const auto name = text(context, "table_database"); !name.empty()) {
    ZX_ASSIGN(const auto target, primary_target(world, text(context, "cluster")));
    ZX_TRY(drop_database(target, aside_name(name), context.deadline()));
  }
  for (const auto& path : list(context, "trees"))
    if (is_restored(context, path, aside_path(path))) ZX_TRY(remove_tree(aside_path(path)));
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
  actions["restore.start"] = {
      {},
      [&world](StepContext& context) { return start(world, context); },
      {},
      [&world](StepContext& context) { return stop_again(world, context); }};
}

void add_undo_actions(RestoreWorld& world, run::Actions& actions) {
  // Taken back only before anything else is.
  actions["restore.undo-stop"] = {
      {},
      [&world](StepContext& context) { return stop(world, context); },
      {},
      [&world](StepContext& context) { return start_services(world.config, context.deadline()); }};
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
