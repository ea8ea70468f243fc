// zx switchover pg: moves the primary on purpose, losing nothing.
#include <memory>

#include <fmt/format.h>

#include "commands/pg_cluster.h"
#include "commands/run_report.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "switchover pg";

struct Options {
  std::string to, cluster;
  bool dry_run = false, assume_alone = false;
  Consent consent;
};

Result<int> nothing_to_do(Env& env, const ha::Prepared& prepared, const std::string& to) {
  env.screen.line(prepared.said + ", nothing to do");
  env.screen.json(Json{{"run", Json()},
                       {"command", kCommand},
                       {"outcome", "done"},
                       {"promoted", to},
                       {"lost_bytes", 0},
                       {"steps", Json::array()},
                       {"said", prepared.said},
                       {"error", Json()}});
  return 0;
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* cluster, pick_cluster(*config, given.cluster));
  ZX_ASSIGN(auto hand, hand_on(*config, *cluster));
  const ha::TurnWish wish{kCommand, {}, given.assume_alone};
  auto lease = begin_turn(hand, wish, given.dry_run || is_asked(given.consent));
  if (!lease) return not_begun(env, kCommand, lease.error(), nullptr);
  auto prepared = ha::prepare_switchover(*hand.world, given.to);
  if (!prepared) return not_begun(env, kCommand, prepared.error(), nullptr);
  if (prepared->nothing_to_do) return nothing_to_do(env, *prepared, given.to);
  const auto& plan = prepared->plan;
  if (given.dry_run) {
    env.screen.line(fmt::format("Would {}. Nothing is lost: {} stops cleanly first.", plan.summary,
                                get_string(plan.context, "old_primary")));
    env.screen.line("");
    show_steps(env.screen, plan);
    env.screen.line("");
    const bool production = config->platform.environment == "production";
    env.screen.line(fmt::format("Run it: {} {}",
                                env.typed("switchover pg --to " + shell_word(given.to)),
                                production ? "--confirm " + shell_word(cluster->name) : "--yes"));
    env.screen.json(Json{{"run", Json()},
                         {"command", kCommand},
                         {"outcome", "planned"},
                         {"promoted", Json()},
                         {"would_promote", given.to},
                         {"lost_bytes", 0},
                         {"verdict", to_json(prepared->view.verdict)},
                         {"steps", steps_json(plan)},
                         {"error", Json()}});
    return 0;
  }
  if (const auto agreed =
          need_consent(env, *config, given.consent, cluster->name,
                       fmt::format("Move the primary from {} to {}?",
                                   get_string(plan.context, "old_primary"), given.to));
      !agreed)
    return not_begun(env, kCommand, agreed.error(), &*prepared);
  if (!*lease) {
    lease = begin_turn(hand, wish, false);
    if (!lease) return not_begun(env, kCommand, lease.error(), &*prepared);
    const auto same = still_agreed(*prepared, ha::prepare_switchover(*hand.world, given.to));
    if (!same) return not_begun(env, kCommand, same.error(), &*prepared);
  }
  if (const auto closed = ha::supersede(*hand.world, kCommand); !closed)
    return not_begun(env, kCommand, closed.error(), &*prepared);
  return carry_out(env, hand, *prepared, **lease);
}

}  // namespace

void add_switchover_pg(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("switchover", "move the primary on purpose"), "pg",
      "move the primary of a PostgreSQL cluster to another node",
      {.description =
           "Checkpoints the primary, stops it cleanly, waits until NODE has replayed its last "
           "record, promotes NODE, points the other standbys at it, and starts the old primary as "
           "a standby. No commit is lost. When anything stalls before the promotion, the old "
           "primary is started again as the primary.",
       .examples = {{"zx switchover pg --to pg-b --dry-run", "what would be done"},
                    {"zx switchover pg --to pg-b --yes", "do it"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(
      leaf->add_option("--to", given->to, "the node that becomes the primary")->required(),
      Complete::pg_node);
  add_cluster_flag(tree, leaf, given->cluster);
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  add_consent(leaf, given->consent, "cluster");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
