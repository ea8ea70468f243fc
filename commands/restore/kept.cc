// zx restore undo|commit: the two ends of what the last restore keeps.
#include <memory>

#include <fmt/format.h>

#include "commands/restore/restore.h"
#include "lib/backup/pg_table.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

struct Options {
  std::string confirm;
  bool dry_run = false;
};

// What is kept, asked again by who has the turn: another may have ended it, and restored again.
Status is_still_kept(const config::Config& config, const backup::Kept& kept) {
  ZX_ASSIGN(const auto now, backup::read_kept(config.platform.state_dir));
  if (now && now->run == kept.run) return {};
  return fail(Code::refused,
              now ? fmt::format("since then run {} has restored something else", now->run)
                  : "since then it was committed or taken back",
              "nothing was changed; zx runs list");
}

// Before a restore has come to its end nothing is kept for undo or commit, and all is still there.
Status nothing_is_open(const config::Config& config) {
  ZX_ASSIGN(const auto open, run::unfinished_run(config.platform.state_dir, backup::kRestoreLock));
  if (!open) return {};
  auto hint = "finish it: zx runs resume " + open->id;
  if (!open->no_return) hint += ", or take it back: zx runs abort " + open->id;
  return fail(Code::refused,
              fmt::format("run {} ({}) has not come to its end", open->id, open->plan.command),
              hint);
}

Result<int> undo(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto kept, backup::read_kept(config->platform.state_dir));
  if (!kept) ZX_TRY(nothing_is_open(*config));
  if (!kept)
    return fail(Code::not_found, "there is no restore to take back",
                "zx restore commit may have removed what it kept: zx runs list");
  ZX_ASSIGN(const auto hand, RestoreHand::make(env, *config, RestoreHand::Reads::nothing));
  const auto plan = backup::plan_undo(*kept);
  const ha::TurnWish turn{"restore undo", {}};
  if (given.dry_run) {
    ZX_TRY(ha::may_take_turn(hand->ground(), turn));
    ZX_TRY(backup::prepare_undo(hand->world(), *kept));
    env.screen.line(
        fmt::format("Would take back the restore of set {} (run {}).", kept->set, kept->run));
    show_steps(env.screen, plan);
    env.screen.line("Run it: " + env.typed("restore undo") + " --confirm " +
                    shell_word(config->platform.name));
    env.screen.json(Json{{"run", Json()},
                         {"command", turn.command},
                         {"outcome", "planned"},
                         {"kept", backup::to_json(*kept)},
                         {"steps", steps_json(plan)},
                         {"error", Json()}});
    return 0;
  }
  ZX_TRY(may_replace(env, given.confirm, config->platform.name));
  ZX_ASSIGN(const auto lease, ha::take_turn(hand->ground(), turn));
  ZX_TRY(is_still_kept(*config, *kept));
  ZX_TRY(backup::prepare_undo(hand->world(), *kept));
  // The restore's own run, of which nothing but the start of services was left: nobody is to take
  // it up again.
  ZX_TRY(ha::supersede(hand->ground(), turn.command));
  const auto report = run::execute(plan, backup::restore_actions(hand->world()),
                                   config->platform.state_dir, hand->hooks(env, plan, *lease));
  if (!report) return fail(report.error());
  return conclude(env, *report);
}

// What is gone for good with it, and is in no set; empty: nothing.
std::string only_kept(const config::Config& config, const backup::Kept& kept) {
  std::vector<std::string> trees;
  for (const auto& files : config.backup.files)
    if ((!files.include.empty() || !files.exclude.empty()) && contains(kept.had_tree, files.path))
      trees.push_back(files.path + ".zxold");
  if (trees.empty()) return {};
  return fmt::format("files that the backup leaves out by include and exclude are only in {}",
                     join(trees, ", "));
}

Result<int> commit(Env& env, const Options& given, const Consent& agreed) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto kept, backup::read_kept(config->platform.state_dir));
  if (!kept) {
    ZX_TRY(nothing_is_open(*config));
    env.screen.line("Nothing is kept of a restore.");
    env.screen.json(Json{{"outcome", "done"}, {"removed", Json::array()}, {"error", Json()}});
    return 0;
  }
  ZX_ASSIGN(const auto hand, RestoreHand::make(env, *config, RestoreHand::Reads::nothing));
  std::vector<std::string> what;
  for (const auto& name : kept->had_database) what.push_back(name + "_zxold");
  for (const auto& name : kept->tables)
    what.push_back(fmt::format("{}.{}", kept->table_database, backup::kept_shown(name)));
  for (const auto& path : kept->had_tree) what.push_back(path + ".zxold");
  if (!kept->redis_deployment.empty())
    what.push_back("the safety copy of Redis " + kept->redis_deployment);
  if (given.dry_run) {
    ZX_TRY(ha::may_take_turn(hand->ground(), {"restore commit", {}}));
    if (const auto only = only_kept(*config, *kept); !only.empty()) env.screen.note(only);
    env.screen.line("Would remove " + join(what, ", ") + ".");
    env.screen.json(Json{{"outcome", "planned"}, {"removes", what}, {"error", Json()}});
    return 0;
  }
  const auto only_there = only_kept(*config, *kept);
  if (!only_there.empty()) env.screen.note(only_there);
  ZX_TRY(need_consent(env, *config, agreed, config->platform.name,
                      fmt::format("Remove for good {}?", join(what, ", "))));
  ZX_ASSIGN(const auto lease, ha::take_turn(hand->ground(), {"restore commit", {}}));
  ZX_TRY(is_still_kept(*config, *kept));
  ZX_TRY(ha::supersede(hand->ground(), "restore commit"));
  ZX_ASSIGN(const auto removed, backup::commit_restore(hand->world(), *kept));
  env.screen.line(removed.empty() ? "Nothing was left to remove."
                                  : "Removed " + join(removed, ", ") + ".");
  env.screen.json(Json{{"outcome", "done"}, {"removed", removed}, {"error", Json()}});
  return 0;
}

}  // namespace

void add_kept(Tree& tree, CLI::App* group) {
  auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      group, "undo", "bring back what the last restore replaced",
      {.description = "Puts the databases, tables, trees and keys back that the last restore "
                      "replaced, and removes what it restored, with everything that was written "
                      "since. Services are stopped and started as by the restore. Possible until "
                      "zx restore commit; refused, and nothing is changed, where something that it "
                      "needs is gone or in the way. Once something is back it only goes forward: "
                      "killed, it is finished with zx runs resume.",
       .examples = {{"zx restore undo --confirm zhixuan", "names the platform"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::auth, Code::declined}},
      [given](Env& env) { return undo(env, *given); });
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  leaf->add_option("--confirm", given->confirm, "do it without being asked: names the platform")
      ->type_name("NAME");

  given = std::make_shared<Options>();
  const auto agreed = std::make_shared<Consent>();
  leaf = tree.leaf(
      group, "commit", "remove what the last restore replaced",
      {.description = "Drops the databases and tables and removes the trees and the safety copy "
                      "of Redis that the last restore kept. After it there is no way back. Killed, "
                      "it is finished by another one.",
       .examples = {{"zx restore commit --yes", "without being asked"}},
       .exits = {Code::failed, Code::refused, Code::locked, Code::config, Code::unreachable,
                 Code::auth, Code::declined}},
      [given, agreed](Env& env) { return commit(env, *given, *agreed); });
  leaf->add_flag("--dry-run", given->dry_run, "say what would be removed, and change nothing");
  add_consent(leaf, *agreed, "platform");
}

}  // namespace zx::commands
