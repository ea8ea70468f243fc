#include "commands/pg_cluster.h"

#include <tuple>

#include <fmt/format.h>

#include "commands/run_report.h"
#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/coord/etcd_shared.h"
#include "lib/ha/sync_debt.h"

namespace zx::commands {

void add_cluster_flag(Tree& tree, CLI::App* leaf, std::string& cluster) {
  tree.complete(
      leaf->add_option("--cluster", cluster, "which PostgreSQL cluster, when zx.toml has several"),
      Complete::pg_cluster);
}

Result<const config::PgCluster*> pick_cluster(const config::Config& config,
                                              const std::string& name) {
  std::vector<std::string> names;
  for (const auto& cluster : config.pg) names.push_back(cluster.name);
  if (names.empty())
    return fail(Code::config, config.path + " has no PostgreSQL cluster",
                "describe one under [pg.NAME], or let zx do it: zx config init --dsn DSN");
  if (name.empty() && names.size() > 1)
    return fail(Code::usage, "zx.toml has several PostgreSQL clusters: " + join(names, ", "),
                "say which one: --cluster NAME");
  if (name.empty()) return &config.pg.front();
  if (const auto* found = config.cluster(name)) return found;
  const auto near = nearest(name, names);
  return fail(Code::not_found, fmt::format("--cluster: no cluster named \"{}\"", first_line(name)),
              near.empty() ? "clusters: " + join(names, ", ") : "did you mean \"" + near + "\"?");
}

Json to_json(const ha::PgVerdict& verdict) {
  auto evidence = Json::array();
  for (const auto& one : verdict.evidence)
    evidence.push_back({{"observer", one.observer}, {"node", one.node}, {"text", one.text}});
  return Json{{"state", name_of(verdict.state)},
              {"primary", verdict.primary.empty() ? Json() : Json(verdict.primary)},
              {"summary", verdict.summary},
              {"problems", verdict.problems},
              {"evidence", std::move(evidence)}};
}

Json to_json(const ha::Choice& choice) {
  auto list = Json::array();
  for (const auto& one : choice.candidates)
    list.push_back({{"node", one.node},
                    {"fate", name_of(one.fate)},
                    {"position", to_string(one.position)},
                    {"timeline", one.timeline},
                    {"lost_bytes", one.lost},
                    {"why", one.reasons}});
  return list;
}

Result<Hand> hand_on(const config::Config& config, const config::PgCluster& cluster) {
  Hand hand;
  ZX_ASSIGN(hand.shared, coord::shared_of(config));
  hand.world = ha::real_world(config, cluster, hand.shared.get());
  return hand;
}

void add_alone_flag(CLI::App* leaf, bool& alone) {
  leaf->add_flag("--assume-alone", alone,
                 "when etcd does not answer: nobody else, person or agent, is at work on this "
                 "cluster; you made sure of it");
}

Result<std::unique_ptr<coord::Lease>> begin_turn(Hand& hand, const ha::TurnWish& wish,
                                                 bool only_look) {
  if (!only_look) return ha::take_turn(*hand.world, hand.shared.get(), wish);
  ZX_TRY(ha::may_take_turn(*hand.world, hand.shared.get(), wish));
  return std::unique_ptr<coord::Lease>();
}

Status still_agreed(ha::Prepared& prepared, Result<ha::Prepared> now) {
  if (!now) return fail(now.error());
  const auto what = [](const ha::Prepared& one) {
    const auto& plan = one.plan;
    return std::tuple(plan.summary, get_string(plan.context, "old_primary"),
                      get_string(plan.context, "fence"), one.gives_up_newer, one.nothing_to_do);
  };
  if (what(*now) != what(prepared) || now->choice.lost > prepared.choice.lost)
    return fail(Code::refused,
                "since you were asked it has changed what would be done: " +
                    (now->nothing_to_do ? now->said + ", nothing to do" : now->plan.summary),
                "nothing was changed; run it again");
  prepared = *std::move(now);
  return {};
}

void log_evidence(const ha::View& view) {
  log::info("verdict: " + view.verdict.summary);
  for (const auto& one : view.verdict.evidence)
    log::info(fmt::format("{} sees {}: {}", one.observer, one.node, one.text));
}

Result<int> not_begun(Env& env, const std::string& command, const Error& error,
                      const ha::Prepared* why) {
  const bool is_refusal =
      error.code == Code::locked || info(error.code).exit == info(Code::refused).exit;
  Json json{
      {"run", Json()},      {"command", command},   {"outcome", is_refusal ? "refused" : "failed"},
      {"promoted", Json()}, {"lost_bytes", Json()}, {"steps", Json::array()}};
  if (why != nullptr && !why->view.snapshot.nodes.empty()) {
    log_evidence(why->view);
    json["verdict"] = to_json(why->view.verdict);
    if (!why->choice.candidates.empty()) json["candidates"] = to_json(why->choice);
  }
  json["error"] = zx::to_json(error);
  env.screen.json(json);
  return fail(error);
}

void note_given_way(Env& env, const coord::Lease& lease, const run::RunReport& report) {
  if (lease.is_wanted() && report.error && report.error->code == Code::interrupted)
    env.screen.note("this run gave way to a failover; run it again when that has ended");
}

void note_untold(Env& env, const Status& told) {
  if (!told) env.screen.note("the agents could not be told of this run: " + told.error().message);
}

Status tell_agents(const Hand& hand, ha::ToldByHand& told, const run::RunReport& report) {
  ZX_TRY(told.end(report));
  if (hand.shared == nullptr) return {};
  return ha::share_sync_debt(hand.world->config().platform.state_dir, *hand.shared,
                             hand.world->cluster().name, report.id);
}

Result<int> carry_out(Env& env, Hand& hand, const ha::Prepared& prepared, coord::Lease& lease,
                      std::optional<Millis> looked) {
  auto plan = prepared.plan;
  log_evidence(prepared.view);
  const auto alone = lease.alone_because();
  if (!alone.empty())
    env.screen.note("going on with the lock of this host only, on your word: " + alone);
  ha::ToldByHand told(hand.shared.get(), hand.world->cluster().name, !alone.empty());
  if (const auto begun = told.begin(plan, prepared.choice.promote); !begun)
    return not_begun(env, plan.command, begun.error(), &prepared);
  const auto report =
      ha::carry_out(*hand.world, plan, lease, told.with(live_lines(env, plan), plan));
  if (!report) {
    run::RunReport nothing;
    nothing.plan = plan;
    nothing.ending = run::Ending::refused;
    note_untold(env, told.end(nothing));
    return not_begun(env, plan.command, report.error(), &prepared);
  }
  note_given_way(env, lease, *report);
  note_untold(env, tell_agents(hand, told, *report));
  return conclude(env, *report, looked);
}

}  // namespace zx::commands
