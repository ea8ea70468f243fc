// zx redis restore: the data of a file in the place of those of a deployment.
#include <memory>

#include <fmt/format.h>

#include "commands/fit.h"
#include "commands/pg_cluster.h"
#include "commands/redis_deployment.h"
#include "commands/redis_hand.h"
#include "commands/run_report.h"
#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/ha/redis_restore.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "redis restore";

struct Options {
  std::string file, target, deployment, confirm;
  bool dry_run = false, assume_alone = false;
};

Json file_json(const ha::PreparedRestore& prepared) {
  const auto& record = prepared.file.record;
  return Json{{"path", get_string(prepared.plan.context, "file")},
              {"sha256", prepared.file.sha256},
              {"bytes", prepared.file.summary.bytes},
              {"keys", prepared.file.summary.keys},
              {"taken", record ? Json(format_utc(record->taken)) : Json()},
              {"node", record && !record->node.empty() ? Json(record->node) : Json()}};
}

// A name that begins with a dash is no flag.
std::string typed_file(const std::string& file) {
  return shell_word(file.starts_with('-') ? "./" + file : file);
}

void show_plan(Env& env, const ha::PreparedRestore& prepared, const std::string& target) {
  const auto& summary = prepared.file.summary;
  const auto& record = prepared.file.record;
  const auto say = [&](const std::string& text, Tone tone = Tone::plain) {
    env.screen.line(wrap(text, kColumns, ""), tone);
  };
  say(fmt::format("Would {}: {}, {}{}.", prepared.plan.summary, count_of(summary.keys, "key"),
                  format_bytes(summary.bytes),
                  record ? ", taken " + format_utc(record->taken) : ""));
  say(prepared.is_live
          ? fmt::format("What {} has now is replaced: {}.", target,
                        count_of(prepared.present_keys, "key"))
          : fmt::format("{} is stopped; what its data directory has is kept beside.", target),
      Tone::warn);
  for (const auto& warning : prepared.warnings) say("But " + warning + ".", Tone::warn);
  env.screen.line("");
  show_steps(env.screen, prepared.plan);
  env.screen.line("");
}

Status consent(Env& env, const Options& given) {
  if (given.confirm == given.target) return {};
  if (!given.confirm.empty())
    return fail(Code::declined,
                fmt::format("--confirm names \"{}\", this is about {}", first_line(given.confirm),
                            given.target),
                "nothing was changed; --confirm " + shell_word(given.target));
  return env.screen.confirm(fmt::format("Replace all data of {}?", given.target),
                            "--confirm " + shell_word(given.target));
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* deployment, pick_deployment(*config, given.deployment));
  ZX_ASSIGN(auto hand, hand_on(*config, *deployment));
  const ha::TurnWish wish{kCommand, ha::is_about_a_replica, given.assume_alone};
  const bool only_look = given.dry_run || given.confirm.empty();
  ZX_ASSIGN(auto lease, begin_turn(hand, wish, only_look));
  ZX_ASSIGN(auto prepared, ha::prepare_redis_restore(*hand.world, given.file, given.target));
  if (given.dry_run) {
    show_plan(env, prepared, given.target);
    env.screen.line(fmt::format("Run it: {} --target {} --confirm {}",
                                env.typed("redis restore " + typed_file(given.file)),
                                shell_word(given.target), shell_word(given.target)));
    env.screen.json(Json{{"run", Json()},
                         {"command", kCommand},
                         {"outcome", "planned"},
                         {"mode", prepared.is_live ? "live" : "offline"},
                         {"file", file_json(prepared)},
                         {"present_keys", prepared.present_keys},
                         {"warnings", prepared.warnings},
                         {"steps", steps_json(prepared.plan)},
                         {"error", Json()}});
    return 0;
  }
  if (given.confirm.empty() && env.screen.is_terminal()) show_plan(env, prepared, given.target);
  ZX_TRY(consent(env, given));
  if (!lease) {
    ZX_ASSIGN(lease, begin_turn(hand, wish, false));
    ZX_ASSIGN(auto now, ha::prepare_redis_restore(*hand.world, given.file, given.target));
    if (now.plan.context != prepared.plan.context)
      return fail(Code::refused, "since you were asked it has changed what would be done",
                  "nothing was changed; run it again");
  }
  for (const auto& warning : prepared.warnings) env.screen.note(warning);
  ZX_TRY(ha::supersede(hand.ground(), kCommand));
  return carry_out(env, hand, prepared.plan, *lease);
}

}  // namespace

void add_redis_restore(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("redis", "look at Redis and its Sentinels"), "restore",
      "replace the data set by that of a copy",
      {.description =
           "Checks FILE and loads it in a server of its own. The master NODE then takes no writes, "
           "a safety copy of what it has is made, and it follows that server for a moment: until "
           "the new data are whole it keeps the old ones (repl-diskless-load swapdb), which wants "
           "memory for both. They are written to its disk, its replicas follow, keys and digest "
           "are "
           "compared with FILE, and every setting is put back.\n\n"
           "A stopped NODE gets FILE into its data directory, as the base of its append-only file "
           "where it has one, is started and compared; what was there is kept beside it. To "
           "another host FILE is sent through `remote`. A replica that lives copies it at once: "
           "what it has is kept first, and the run goes only forward from the start on.\n\n"
           "Sentinels are told to wait longer meanwhile (down-after-milliseconds), so a master "
           "that "
           "dies during the restore is not failed over. Every step is journalled: killed anywhere, "
           "the run is finished with zx runs resume, or, until the new data are whole on the "
           "server, taken back with zx runs abort. A server that restarts before they are on its "
           "disk has the old ones again: resume keeps a second copy of these, and loads FILE once "
           "more. Ended as it is (zx runs abort --as-is), the data stay as they are; "
           "min-replicas-to-write and the Sentinels' down-after-milliseconds are put back where "
           "the servers answer, and named with their commands where not. When another says that it "
           "is the master too, the server goes on refusing writes, and that is said. What a CONFIG "
           "REWRITE of somebody else has kept of the restore is written anew where `remote` of the "
           "host is set.",
       .examples = {{"zx redis restore cache.rdb --target redis-a --dry-run", "what would be done"},
                    {"zx redis restore cache.rdb --target redis-a --confirm redis-a", "do it"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(
      leaf->add_option("FILE", given->file, "the copy, of zx redis backup or any other RDB")
          ->required(),
      Complete::file);
  tree.complete(leaf->add_option("--target", given->target, "the master to give it to")
                    ->required()
                    ->type_name("NODE"),
                Complete::redis_node);
  add_deployment_flag(tree, leaf, given->deployment);
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  leaf->add_option("--confirm", given->confirm,
                   "do it without being asked: names the node whose data are replaced")
      ->type_name("NODE");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
