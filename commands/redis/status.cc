// zx redis status: every server and Sentinel of a deployment on one screen.
#include <memory>

#include <fmt/format.h>

#include "commands/redis_deployment.h"
#include "commands/watching.h"
#include "lib/base/clock.h"

namespace zx::commands {
namespace {

struct Options {
  std::string deployment;
  Watching watching;
  bool detailed = false;
};

using redis::NodeFacts;
using redis::SentinelFacts;

// What a server that answered, or that loads, has said.
bool has_facts(const NodeFacts& facts) { return facts.role != redis::Role::unknown; }

std::string role_of(const NodeFacts& facts) {
  return has_facts(facts) ? redis::name_of(facts.role) : "–";
}

std::string bytes(std::int64_t count) {
  return format_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(count, 0)));
}

Table nodes_table(const RedisView& view) {
  Table table;
  table.head = {"NODE", "ROLE", "STATE", "FOLLOWS", "BEHIND", "ADDRESS", "NOTE"};
  bool has_notes = false;
  for (const auto& facts : view.snapshot.nodes) {
    const auto state = state_of(view, facts);
    const auto followed = followed_by(view, facts);
    const auto behind = bytes_behind(view, facts);
    has_notes = has_notes || !state.note.empty();
    table.rows.push_back({facts.name, role_of(facts), Cell(state.word, state.tone),
                          followed.empty() ? "–" : followed, behind ? bytes(*behind) : "–",
                          fmt::format("{}:{}", facts.address, facts.port), state.note});
  }
  if (!has_notes) table.head.pop_back();
  return table;
}

std::string saved(const NodeFacts& facts, Wall now) {
  const auto& p = facts.persistence;
  if (p.is_saving) return "now";
  if (p.last_save <= 0) return "never";
  const auto at = std::chrono::system_clock::from_time_t(p.last_save);
  return format_duration(std::max(std::chrono::duration_cast<Millis>(now - at), Millis(0))) +
         (p.last_save_ok ? " ago" : " ago, then failed");
}

std::string aof(const NodeFacts& facts) {
  const auto& p = facts.persistence;
  if (!p.aof) return "off";
  if (!p.aof_last_write_ok) return "broken";
  return p.aof_rewriting ? "rewriting" : "on";
}

std::string memory(const NodeFacts& facts) {
  const auto used = format_bytes(facts.memory_used);
  return facts.memory_max == 0 ? used : used + " of " + format_bytes(facts.memory_max);
}

Table state_table(const RedisView& view) {
  const auto now = view.snapshot.at;
  Table table;
  table.head = {"NODE", "LINE", "OFFSET", "KEYS", "MEMORY", "CLIENTS", "SAVED", "AOF", "VERSION"};
  for (const auto& facts : view.snapshot.nodes) {
    if (!has_facts(facts)) continue;
    constexpr std::size_t kEnough = 8;
    table.rows.push_back({facts.name, facts.lineage.replid.substr(0, kEnough),
                          std::to_string(facts.lineage.offset), std::to_string(facts.keys),
                          memory(facts), std::to_string(facts.clients), saved(facts, now),
                          aof(facts), facts.version});
  }
  return table;
}

std::string quorum(const SentinelFacts& facts) {
  if (!facts.has_quorum) return "–";
  return fmt::format("{}, {}", facts.quorum, *facts.has_quorum ? "reached" : "lost");
}

Table sentinels_table(const RedisView& view) {
  Table table;
  table.head = {"SENTINEL", "STATE", "MASTER", "QUORUM", "OTHERS", "REPLICAS"};
  for (const auto& facts : view.snapshot.sentinels) {
    const auto master = master_of(view, facts);
    std::size_t phantoms = 0;
    for (const auto& replica : facts.replicas)
      if (replica.is_phantom) ++phantoms;
    const bool is_well = facts.answered() && facts.has_quorum == true &&
                         !ha::waits_too_long(facts) &&
                         (view.master() == nullptr || master == view.master()->name);
    const std::string word = !facts.answered()     ? redis::says(facts.failure)
                             : !facts.knows_master ? "does not know it"
                             : ha::waits_too_long(facts)
                                 ? "waits " + format_duration(facts.down_after)
                             : is_well            ? "ok"
                             : !facts.has_quorum  ? "unknown"
                             : !*facts.has_quorum ? "no quorum"
                                                  : "disagrees";
    std::vector<Cell> row{fmt::format("{}:{}", facts.address, facts.port),
                          Cell(word, is_well ? Tone::good : Tone::bad)};
    if (facts.answered() && facts.knows_master)
      row.insert(row.end(), {master, quorum(facts), std::to_string(facts.other_sentinels),
                             std::to_string(facts.replicas.size()) +
                                 (phantoms > 0 ? fmt::format(", {} do not exist", phantoms) : "")});
    else
      row.insert(row.end(), 4, Cell("–"));
    table.rows.push_back(std::move(row));
  }
  return table;
}

void show(Screen& screen, const RedisView& view) {
  show_head(screen, view);
  screen.table(nodes_table(view));
  const auto more = state_table(view);
  if (!more.rows.empty()) {
    screen.line("");
    screen.table(more);
  }
  if (!view.snapshot.sentinels.empty()) {
    screen.line("");
    screen.table(sentinels_table(view));
  }
  if (!view.verdict.problems.empty() || !view.verdict.hints.empty()) screen.line("");
  show_problems(screen, view);
}

Result<int> show_once(Env& env, const config::Config& config,
                      const std::vector<const config::RedisDeployment*>& deployments,
                      const Options& given) {
  bool healthy = true;
  std::vector<RedisView> views;
  for (const auto* deployment : deployments) {
    const auto deadline = env.shared.timeout.value_or(deployment->policy.probe_deadline);
    ZX_ASSIGN(views.emplace_back(), look_at(config, *deployment, deadline));
    healthy = healthy && views.back().is_healthy();
  }
  if (given.watching.is_on) env.screen.clear();
  auto list = Json::array();
  for (const auto& view : views) {
    if (&view != &views.front()) env.screen.line("");
    show(env.screen, view);
    list.push_back(to_json(view));
  }
  const auto& first = views.front().snapshot;
  Json json{{"at", format_utc(first.at)}, {"observer", first.observer}};
  // One deployment, as nearly always: its facts are at the top.
  json.update(list.front());
  if (list.size() > 1) json["deployments"] = std::move(list);
  env.screen.json(json);
  return given.detailed && !healthy ? info(Code::findings).exit : 0;
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  std::vector<const config::RedisDeployment*> deployments;
  if (given.deployment.empty() && config->redis.size() > 1) {
    for (const auto& deployment : config->redis) deployments.push_back(&deployment);
  } else {
    ZX_ASSIGN(const auto* one, pick_deployment(*config, given.deployment));
    deployments.push_back(one);
  }
  return watch(env, given.watching, [&] { return show_once(env, *config, deployments, given); });
}

}  // namespace

void add_redis_status(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      tree.group("redis", "look at Redis and its Sentinels"), "status",
      "show every Redis server, who follows whom, and what Sentinel says",
      {.description =
           "Asks every server and every Sentinel of every Redis deployment at once, each under the "
           "probe deadline. Shows role, link and bytes behind of each server, its history (LINE is "
           "the beginning of its replication id), keys, memory, clients, last save and AOF; of "
           "each "
           "Sentinel whom it takes for the master, whether a quorum can be reached, and replicas "
           "that it keeps although they do not exist.",
       .examples = {{"zx redis status", "one screen"},
                    {"zx redis status --watch", "the same, again and again"},
                    {"zx redis status -o json", "everything that was observed"},
                    {"zx redis status --detailed-exitcode",
                     "10 when something is not as it should be"}},
       .exits = {Code::config, Code::auth, Code::findings}},
      [given](Env& env) { return run(env, *given); });
  add_deployment_flag(tree, leaf, given->deployment);
  add_watch_flags(leaf, given->watching);
  leaf->add_flag("--detailed-exitcode", given->detailed,
                 "exit 10 when a deployment is not healthy");
}

}  // namespace zx::commands
