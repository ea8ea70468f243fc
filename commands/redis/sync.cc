// zx redis sync: brings replicas back in line behind the master.
#include <memory>

#include <fmt/format.h>

#include "commands/pg_cluster.h"
#include "commands/redis_deployment.h"
#include "commands/redis_hand.h"
#include "commands/run_report.h"
#include "lib/base/text.h"
#include "lib/ha/redis_chain.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "redis sync";

struct Options {
  std::string node, deployment;
  bool all = false, dry_run = false, assume_alone = false;
  Consent consent;
};

struct Said {
  const char* what;
  Tone tone;
};
Said said_of(const ha::SyncTask& task) {
  if (!task.blocked.empty()) return {"blocked", Tone::bad};
  if (!task.is_needed()) return {"in line", Tone::good};
  if (task.resync.is_partial) return {"partial resync", Tone::warn};
  return {"full resync", Tone::warn};
}

std::string why_of(const ha::SyncTask& task) {
  if (!task.blocked.empty()) return (task.said.empty() ? "" : task.said + "; ") + task.blocked;
  if (!task.is_needed()) return task.said;
  if (task.resync.is_partial)
    return fmt::format("{}; {} of the stream", task.said, format_bytes(task.resync.bytes));
  return fmt::format("{}; up to {}: {}", task.said, format_bytes(task.resync.bytes),
                     task.resync.why);
}

void show_tasks(Screen& screen, const ha::RedisPrepared& prepared) {
  Table table;
  table.head = {"NODE", "SYNC", "WHY"};
  for (const auto& task : prepared.tasks) {
    const auto said = said_of(task);
    table.rows.push_back({task.node, Cell(said.what, said.tone), why_of(task)});
  }
  screen.table(table);
}

Json tasks_json(const ha::RedisPrepared& prepared) {
  auto list = Json::array();
  for (const auto& task : prepared.tasks)
    list.push_back({{"node", task.node},
                    {"needed", task.is_needed()},
                    {"blocked", task.blocked.empty() ? Json() : Json(task.blocked)},
                    {"resync", !task.is_needed()        ? "none"
                               : task.resync.is_partial ? "partial"
                                                        : "full"},
                    {"bytes", task.resync.bytes},
                    {"why", why_of(task)}});
  return list;
}

Json answer(const ha::RedisPrepared* prepared, const char* outcome, const Error* error) {
  Json json{{"run", Json()},
            {"command", kCommand},
            {"outcome", outcome},
            {"master", prepared != nullptr ? Json(prepared->view.verdict.master) : Json()},
            {"nodes", prepared != nullptr ? tasks_json(*prepared) : Json::array()},
            {"steps", prepared != nullptr ? steps_json(prepared->plan) : Json::array()}};
  json["error"] = error != nullptr ? zx::to_json(*error) : Json();
  return json;
}

Result<int> not_begun(Env& env, const Error& error) {
  const bool is_refusal =
      error.code == Code::locked || info(error.code).exit == info(Code::refused).exit;
  env.screen.json(answer(nullptr, is_refusal ? "refused" : "failed", &error));
  return fail(error);
}

Result<int> run(Env& env, const Options& given) {
  if (given.all == !given.node.empty())
    return fail(Code::usage, given.all ? "NODE or --all, not both" : "which node?",
                "zx redis sync NODE, or zx redis sync --all");
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* deployment, pick_deployment(*config, given.deployment));
  ZX_ASSIGN(auto hand, hand_on(*config, *deployment));
  const ha::TurnWish wish{kCommand, ha::is_about_a_replica, given.assume_alone, false};
  auto lease = begin_turn(hand, wish, given.dry_run || is_asked(given.consent));
  if (!lease) return not_begun(env, lease.error());
  const auto prepare = [&] {
    return ha::prepare_redis_sync(*hand.world, given.node, given.consent.confirm);
  };
  auto prepared = prepare();
  if (!prepared) return not_begun(env, prepared.error());
  if (prepared->nothing_to_do) {
    show_tasks(env.screen, *prepared);
    if (!given.dry_run)
      if (const auto accepted = ha::accept_reborn(*hand.world, prepared->view); !accepted)
        return not_begun(env, accepted.error());
    env.screen.line(prepared->said + ", nothing to do");
    env.screen.json(answer(&*prepared, "done", nullptr));
    return 0;
  }
  if (given.dry_run) {
    env.screen.line(fmt::format("Would {}.", prepared->plan.summary));
    show_tasks(env.screen, *prepared);
    env.screen.line("");
    show_steps(env.screen, prepared->plan);
    env.screen.json(answer(&*prepared, "planned", nullptr));
    return 0;
  }
  if (is_asked(given.consent) && env.screen.is_terminal()) show_tasks(env.screen, *prepared);
  const bool is_confirmed = !prepared->gives_up.empty();  // it was named, or it would be refused
  if (!is_confirmed)
    if (const auto agreed = need_consent(env, *config, given.consent, deployment->name,
                                         "Do this: " + prepared->plan.summary + "?");
        !agreed)
      return not_begun(env, agreed.error());
  if (!*lease) {
    lease = begin_turn(hand, wish, false);
    if (!lease) return not_begun(env, lease.error());
    auto now = prepare();
    if (!now) return not_begun(env, now.error());
    if (now->plan.summary != prepared->plan.summary)
      return not_begun(env, Error{Code::refused,
                                  "since you were asked it has changed what would be done: " +
                                      (now->nothing_to_do ? now->said : now->plan.summary),
                                  "nothing was changed; run it again",
                                  {},
                                  false});
    prepared = std::move(now);
  }
  if (const auto closed = ha::supersede(hand.ground(), kCommand); !closed)
    return not_begun(env, closed.error());
  ZX_ASSIGN(const auto exit, carry_out(env, hand, prepared->plan, **lease, std::nullopt));
  if (exit == 0) ZX_TRY(ha::accept_reborn(*hand.world, prepared->view));
  return exit;
}

}  // namespace

void add_redis_sync(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("redis", "look at Redis and its Sentinels"), "sync",
      "bring replicas back in line behind the master",
      {.description =
           "A replica that follows nobody or the wrong server is told to follow the master; of one "
           "whose link does not come up the reason is found: a wrong password, protected mode, "
           "memory. Waits until it has what the master has, and until a key written there arrives. "
           "--dry-run says which resync it would be, partial or full, and what it costs.\n\n"
           "Refused where data would be given up by it: a master that restarted empty, or keys "
           "that "
           "only the node has. --confirm with the name that the refusal says does it all the same; "
           "of "
           "an empty master it also says that it is meant to be empty, and zx redis status no "
           "longer calls its data gone.",
       .examples = {{"zx redis sync --all --dry-run", "what each replica needs"},
                    {"zx redis sync redis-b --yes", "one of them"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(leaf->add_option("NODE", given->node, "the replica"), Complete::redis_node);
  leaf->add_flag("--all", given->all, "every replica");
  add_deployment_flag(tree, leaf, given->deployment);
  leaf->add_flag("--dry-run", given->dry_run, "say what would be done and change nothing");
  add_consent(leaf, given->consent, "deployment");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
