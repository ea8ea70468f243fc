#include "commands/pg_cluster.h"

#include <fmt/format.h>

#include "commands/run_report.h"
#include "lib/base/log.h"
#include "lib/base/text.h"

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

Result<std::unique_ptr<coord::Lease>> begin_turn(
    ha::PgWorld& world, const std::string& command, bool dry_run,
    const std::function<bool(const run::Record&)>& supersedes) {
  if (!dry_run) return ha::take_turn(world, command, supersedes);
  ZX_TRY(ha::may_take_turn(world, supersedes));
  return std::unique_ptr<coord::Lease>();
}

void log_evidence(const ha::View& view) {
  log::info("verdict: " + view.verdict.summary);
  for (const auto& one : view.verdict.evidence)
    log::info(fmt::format("{} sees {}: {}", one.observer, one.node, one.text));
}

Result<int> not_begun(Env& env, const std::string& command, const Error& error,
                      const ha::Prepared* why) {
  Json json{{"run", Json()},
            {"command", command},
            {"outcome", info(error.code).exit == info(Code::refused).exit ? "refused" : "failed"},
            {"promoted", Json()},
            {"lost_bytes", Json()},
            {"steps", Json::array()}};
  if (why != nullptr && !why->view.snapshot.nodes.empty()) {
    log_evidence(why->view);
    json["verdict"] = to_json(why->view.verdict);
    if (!why->choice.candidates.empty()) json["candidates"] = to_json(why->choice);
  }
  json["error"] = zx::to_json(error);
  env.screen.json(json);
  return fail(error);
}

Result<int> carry_out(Env& env, ha::PgWorld& world, const ha::Prepared& prepared,
                      coord::Lease& lease, std::optional<Millis> looked) {
  const auto& plan = prepared.plan;
  log_evidence(prepared.view);
  const auto report = ha::carry_out(world, plan, lease, live_lines(env, plan));
  if (!report) return not_begun(env, plan.command, report.error(), &prepared);
  return conclude(env, *report, looked);
}

}  // namespace zx::commands
