// zx rejoin pg: makes a node a standby of the primary again.
#include <memory>

#include <fmt/format.h>

#include "commands/pg_cluster.h"
#include "commands/run_report.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_watch.h"
#include "lib/os/signals.h"

namespace zx::commands {
namespace {

constexpr const char* kCommand = "rejoin pg";

struct Options {
  std::string node, cluster;
  bool rebuild = false, dry_run = false, assume_alone = false;
  Consent consent;
};

Result<int> nothing_to_do(Env& env, const ha::Prepared& prepared) {
  env.screen.line(prepared.said + ", nothing to do");
  env.screen.json(Json{{"run", Json()},
                       {"command", kCommand},
                       {"outcome", "done"},
                       {"steps", Json::array()},
                       {"said", prepared.said},
                       {"error", Json()}});
  return 0;
}

bool wants_name(const config::Config& config, const ha::Prepared& prepared, const Options& given) {
  return given.rebuild || prepared.gives_up_newer || config.platform.environment == "production";
}

void show_plan(Env& env, const ha::Prepared& prepared, const Options& given) {
  const auto& plan = prepared.plan;
  env.screen.line(
      fmt::format("Would {}.{}", plan.summary,
                  given.rebuild ? " Its data directory is replaced by a fresh copy." : ""));
  if (!prepared.newer.empty())
    env.screen.line(prepared.newer + ", and is given up.", Tone::warn);
  else if (prepared.gives_up_newer)
    env.screen.line(fmt::format("{} accepts writes on a later timeline than {}: its commits since "
                                "the promotion are given up.",
                                given.node, get_string(plan.context, "primary")),
                    Tone::warn);
  env.screen.line("");
  show_steps(env.screen, plan);
  env.screen.line("");
}

// A rebuild deletes a data directory, and giving up the primary that was promoted later is rarely
// what is meant: both want the node's name. Anything else a rejoin does is kept as WAL beside it,
// and --yes, or asking for it on a terminal, is enough.
Status consent(Env& env, const config::Config& config, const Options& given,
               const ha::Prepared& prepared) {
  const auto& plan = prepared.plan;
  if (!prepared.newer.empty() && given.consent.confirm.empty())
    return fail(Code::refused, prepared.newer,
                ha::way_back(*prepared.view.snapshot.node(get_string(plan.context, "primary")),
                             given.node));
  if (given.rebuild) {
    if (given.consent.confirm.empty() && given.consent.yes)
      return fail(
          Code::declined,
          "--rebuild replaces the data directory of " + given.node + ": --yes is not enough",
          "name the node: --confirm " + shell_word(given.node));
    return need_consent(env, config, given.consent, given.node,
                        fmt::format("Replace the data directory of {}?", given.node));
  }
  const auto primary = get_string(plan.context, "primary");
  if (prepared.gives_up_newer && given.consent.confirm.empty() && given.consent.yes)
    return fail(Code::declined,
                fmt::format("{} accepts writes on a later timeline than {}: its commits since the "
                            "promotion would be given up, and --yes is not enough",
                            given.node, primary),
                fmt::format("if {} is the one to keep: zx rejoin pg {}; else --confirm {}",
                            given.node, shell_word(primary), shell_word(given.node)));
  return need_consent(
      env, config, given.consent, given.node,
      prepared.gives_up_newer
          ? fmt::format(
                "{} accepts writes on a later timeline than {}. Give its commits up and {}?",
                given.node, primary, plan.summary)
          : fmt::format("Go on and {}?", plan.summary));
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(const auto* cluster, pick_cluster(*config, given.cluster));
  ZX_ASSIGN(auto hand, hand_on(*config, *cluster));
  const ha::TurnWish wish{kCommand, ha::is_about_a_standby, given.assume_alone};
  auto lease = begin_turn(hand, wish, given.dry_run || is_asked(given.consent));
  if (!lease) return not_begun(env, kCommand, lease.error(), nullptr);
  auto prepared = ha::prepare_rejoin(*hand.world, given.node, given.rebuild);
  if (!prepared) return not_begun(env, kCommand, prepared.error(), nullptr);
  if (prepared->nothing_to_do) {
    // It came back by itself: nothing is owed any more.
    if (!given.dry_run)
      ZX_TRY(ha::clear_fence_debt(config->platform.state_dir, cluster->name, given.node));
    return nothing_to_do(env, *prepared);
  }
  if (given.dry_run) {
    show_plan(env, *prepared, given);
    env.screen.line(fmt::format(
        "Run it: {}{}{}", env.typed("rejoin pg " + shell_word(given.node)),
        given.rebuild ? " --rebuild" : "",
        wants_name(*config, *prepared, given) ? " --confirm " + shell_word(given.node) : " --yes"));
    env.screen.json(Json{{"run", Json()},
                         {"command", kCommand},
                         {"outcome", "planned"},
                         {"verdict", to_json(prepared->view.verdict)},
                         {"gives_up_newer", prepared->gives_up_newer},
                         {"steps", steps_json(prepared->plan)},
                         {"error", Json()}});
    return 0;
  }
  if (const auto agreed = consent(env, *config, given, *prepared); !agreed)
    return not_begun(env, kCommand, agreed.error(), &*prepared);
  if (!*lease) {
    lease = begin_turn(hand, wish, false);
    if (!lease) return not_begun(env, kCommand, lease.error(), &*prepared);
    const auto same =
        still_agreed(*prepared, ha::prepare_rejoin(*hand.world, given.node, given.rebuild));
    if (!same) return not_begun(env, kCommand, same.error(), &*prepared);
  }
  if (const auto closed = ha::supersede(*hand.world, kCommand); !closed)
    return not_begun(env, kCommand, closed.error(), &*prepared);
  const os::InterruptibleBy gives_way([&] { return (*lease)->is_wanted(); });
  return carry_out(env, hand, *prepared, **lease);
}

}  // namespace

void add_rejoin_pg(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("rejoin", "make a node a standby again"), "pg",
      "make a PostgreSQL node a standby of the primary again",
      {.description =
           "Stops NODE, keeps the WAL that only it has as a receipt of what was lost, rewinds it "
           "to where the timelines parted (pg_rewind), starts it as a standby and waits until it "
           "streams. With --rebuild its data directory is replaced by a fresh copy of the primary "
           "(pg_basebackup); the old one is kept until the copy streams. An empty directory of the "
           "server's user will do, after a disk was replaced. Of two primaries, the one that was "
           "promoted later is given up only when --confirm names it; so is a node on a later "
           "timeline "
           "than the only primary.",
       .examples = {{"zx rejoin pg pg-a", "bring the old primary back after a failover"},
                    {"zx rejoin pg pg-a --dry-run", "what would be done"},
                    {"zx rejoin pg pg-a --rebuild --confirm pg-a",
                     "when it cannot be rewound: a fresh copy"}},
       .exits = {Code::failed, Code::refused, Code::partial, Code::locked, Code::config,
                 Code::unreachable, Code::declined}},
      [given](Env& env) { return run(env, *given); });
  tree.complete(leaf->add_option("NODE", given->node, "the node to bring back")->required(),
                Complete::pg_node);
  add_cluster_flag(tree, leaf, given->cluster);
  leaf->add_flag("--rebuild", given->rebuild, "a fresh copy of the primary instead of a rewind");
  leaf->add_flag("--dry-run", given->dry_run, "print the plan and change nothing");
  add_consent(leaf, given->consent, "node");
  add_alone_flag(leaf, given->assume_alone);
}

}  // namespace zx::commands
