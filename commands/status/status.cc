// zx status: one screen of what is the case, and what to type next.
#include <algorithm>
#include <future>
#include <memory>

#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/pg_cluster.h"
#include "commands/redis_deployment.h"
#include "commands/watching.h"
#include "lib/base/text.h"
#include "lib/coord/etcd_shared.h"
#include "lib/ha/last_seen.h"
#include "lib/ha/pg_directory.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/pg_watch.h"
#include "lib/ha/sync_debt.h"
#include "lib/pg/sync_names.h"
#include "lib/run/journal.h"

namespace zx::commands {
namespace {

struct Options {
  std::string cluster;
  Watching watching;
  bool detailed = false;
};

constexpr std::size_t kRunsLookedAt = 100;

// One word for a node; `failure` says more in the notes.
struct State {
  std::string word;
  Tone tone = Tone::plain;
  std::string note;
};

State state_of(const pg::Snapshot& snapshot, const pg::NodeFacts& facts) {
  using pg::Failure;
  if (!facts.answered()) {
    if (facts.local && facts.local->interrupted_rewind)
      return {"unusable", Tone::bad, "interrupted in a rewind or rebuild"};
    if (facts.local && facts.local->fenced)
      return {"fenced", Tone::warn,
              facts.local->fence_run.empty() ? "" : "by run " + facts.local->fence_run};
    const std::string says = pg::says(facts.failure);
    switch (facts.failure) {
      case Failure::refused: return {"down", Tone::bad, says};
      case Failure::starting_up:
      case Failure::recovering: return {"starting", Tone::warn, says};
      case Failure::shutting_down: return {"stopping", Tone::warn, says};
      case Failure::too_many_connections: return {"overloaded", Tone::warn, says};
      case Failure::silent:
      case Failure::no_answer: return {"silent", Tone::bad, says};
      default: return {"unknown", Tone::bad, facts.error.message};
    }
  }
  const auto paused = facts.replay_paused ? std::string("replay is paused") : std::string();
  if (facts.role == pg::Role::primary)
    return facts.read_only ? State{"read-only", Tone::warn, "default_transaction_read_only is on"}
                           : State{"ok", Tone::good, ""};
  if (!facts.receives()) {
    const auto upstream = ha::upstream_node(snapshot, facts);
    const auto* primary = snapshot.node(upstream);
    if (primary != nullptr && facts.misses_wal_of(*primary))
      return {"not streaming", Tone::bad, upstream + " has removed the WAL that it needs"};
    if (paused.empty() && !upstream.empty())
      return {"not streaming", Tone::warn, "tries to reach " + upstream};
    return {"not streaming", Tone::warn, paused};
  }
  const auto from = ha::upstream_node(snapshot, facts);
  auto note = paused;
  if (from.empty())
    note = fmt::format("from {}:{}, none of this cluster", facts.receiver->sender_host,
                       facts.receiver->sender_port);
  return {facts.receiver->status, paused.empty() ? Tone::good : Tone::warn, note};
}

struct Shown {
  const config::PgCluster* cluster;
  ha::View view;
  std::optional<ha::Forecast> forecast;
  std::optional<run::Record> unfinished;
  bool is_at_work = false;                  // it is being done now
  std::optional<run::BrokenRun> broken;     // a journal that may be of an unfinished run
  std::optional<Error> no_runs;             // why the runs are not known
  std::optional<run::Record> made_primary;  // the run that promoted the primary of now
  std::vector<ha::FenceDebt> debts;         // declared fenced, not fenced on its host
  std::optional<ha::SyncDebt> owed_sync;    // synchronous_standby_names is reduced
  std::optional<Error> no_record;           // why only this host's notes are known
  std::optional<std::string> has_turn;      // who on another host is at work
  std::string given_up;  // the only primary, while a standby is on a later timeline
  std::string next;      // what to type
};

std::string promoted_in(const run::Record& record) {
  const auto step = record.steps.find("promote");
  if (step == record.steps.end() || step->second.state != run::StepState::done) return {};
  return get_string(step->second.seen, "node");
}

// Somebody on another host may have moved the primary since, even back.
bool is_still_of(const run::Record& record, const ha::View& view) {
  const auto* primary = view.snapshot.node(view.verdict.primary);
  return primary != nullptr && primary->answered() && promoted_in(record) == primary->name &&
         get_int(record.steps.at("promote").seen, "timeline") == primary->lineage.timeline;
}

// It follows the primary by its settings and could; a standby asks again every five seconds.
bool is_reconnecting(const ha::View& view, const pg::NodeFacts& facts,
                     const pg::NodeFacts& primary) {
  return ha::upstream_node(view.snapshot, facts) == primary.name && !facts.replay_paused &&
         pg::can_follow(facts.lineage, facts.position(), primary.lineage).kin == pg::Kin::same_line;
}

std::string next_of(Env& env, const Shown& shown) {
  const auto& view = shown.view;
  if (shown.unfinished)
    return env.typed((shown.is_at_work ? "runs show " : "runs resume ") + shown.unfinished->id);
  if (shown.broken) return env.typed("runs list");
  if (shown.has_turn) return {};
  if (ha::calls_for_failover(view.verdict.state)) return env.typed("failover pg --dry-run");
  for (const auto& debt : shown.debts)
    if (const auto& all = view.verdict.primaries;
        all.size() == 2 && std::find(all.begin(), all.end(), debt.node) != all.end())
      return env.typed("rejoin pg " + shell_word(debt.node));
  if (view.verdict.primaries.size() != 1) return {};
  // Whose line is the right one is for a person to say; the hint of the verdict has both ways.
  if (ha::ahead_of(view.snapshot, *view.snapshot.node(view.verdict.primary)) != nullptr) return {};
  for (const auto& facts : view.snapshot.nodes) {
    if (facts.name == view.verdict.primary) continue;
    const auto& primary = *view.snapshot.node(view.verdict.primary);
    if (facts.local && !facts.local->interrupted_rewind &&
        !ha::newer_than(facts.name, facts.local->lineage, primary).empty())
      return env.typed("rejoin pg " + shell_word(facts.name) + " --dry-run");
    if (!ha::must_rebuild(facts, primary).empty())
      return env.typed(
          fmt::format("rejoin pg {0} --rebuild --confirm {0}", shell_word(facts.name)));
    const bool gone = !facts.answered() && (facts.failure == pg::Failure::refused ||
                                            (facts.local && facts.local->stopped));
    const bool stays_away =
        facts.answered() && !facts.receives() && !is_reconnecting(view, facts, primary);
    const auto rejoin = env.typed("rejoin pg " + shell_word(facts.name));
    if (gone || stays_away) return rejoin;
    if (facts.answered() && !facts.receives())
      return fmt::format("{}, if {} does not stream within seconds", rejoin, facts.name);
  }
  // Only once there are enough standbys for it.
  if (const auto wanted = pg::parse_sync_names(shown.owed_sync ? shown.owed_sync->wanted : "")) {
    const auto able =
        ha::able_standbys(view.snapshot, *view.snapshot.node(view.verdict.primary), *wanted);
    if (shown.owed_sync && std::ssize(able) >= wanted->count)
      return env.typed("rejoin pg " + shell_word(able.front()));
  }
  return {};
}

struct SharedFacts {
  ha::WatchRecord record;
  std::optional<std::string> has_turn;
};

Result<SharedFacts> shared_facts(const config::Config& config, const config::PgCluster& cluster) {
  ZX_ASSIGN(const auto shared, coord::shared_of(config));
  ZX_ASSIGN(auto record, ha::read_record(*shared, cluster.name));
  SharedFacts facts{std::move(record), std::nullopt};
  const auto free = shared->is_turn_free(ha::lock_of(cluster));
  if (!free && free.error().code != Code::locked) return fail(free.error());
  if (!free) facts.has_turn = free.error().message;
  return facts;
}

Shown look_at(Env& env, const config::Config& config, const config::PgCluster& cluster) {
  Shown shown;
  shown.cluster = &cluster;
  const auto world = ha::real_world(config, cluster);
  // A coordinator that is silent takes no more time than the nodes do.
  auto asked = std::async(std::launch::async, shared_facts, std::cref(config), std::cref(cluster));
  const auto deadline = env.shared.timeout.value_or(cluster.policy.probe_deadline);
  shown.view = ha::look(*world, deadline, true);
  log_evidence(shown.view);
  shown.forecast = ha::forecast(config, cluster, shown.view);
  shown.debts = ha::fence_debts(config.platform.state_dir, cluster.name);
  const auto shared = asked.get();
  if (!shared) shown.no_record = shared.error();
  if (const auto* primary = shown.view.snapshot.node(shown.view.verdict.primary);
      primary != nullptr && shown.view.verdict.primaries.size() == 1) {
    const auto run =
        ha::given_up_in(shown.debts, shared ? &shared->record : nullptr, primary->name);
    if (!run.empty() && ha::ahead_of(shown.view.snapshot, *primary) != nullptr) {
      shown.given_up = primary->name;
      shown.view.verdict.problems.push_back(
          fmt::format("{} was given up in run {}", primary->name, run));
    }
    shown.owed_sync =
        ha::newest_sync_debt(ha::local_sync_debt(config.platform.state_dir, cluster.name),
                             shared ? &shared->record : nullptr, primary->sync_names);
  }
  const auto lock = ha::lock_of(cluster);
  auto found = run::list_runs(config.platform.state_dir, kRunsLookedAt);
  if (!found) {
    shown.no_runs = found.error();
    found = run::Runs{};
  }
  for (auto& record : found->runs) {
    if (record.plan.lock != lock) continue;
    if (!record.outcome && !shown.unfinished) shown.unfinished = record;
    const auto promoted = promoted_in(record);
    if (promoted.empty() || shown.made_primary) continue;
    shown.made_primary = record;
  }
  for (auto& broken : found->broken)
    if (broken.may_hold(lock)) shown.broken = std::move(broken);
  if (shown.unfinished) {
    const auto free = coord::is_free(config.platform.state_dir, lock);
    shown.is_at_work = !free && free.error().code == Code::locked;
  }
  if (shared && !shown.is_at_work) shown.has_turn = shared->has_turn;
  if (shown.made_primary && !is_still_of(*shown.made_primary, shown.view))
    shown.made_primary.reset();
  shown.next = next_of(env, shown);
  return shown;
}

// By the step, not by the run, which may have been resumed hours later.
Wall promoted_at(const run::Record& record) { return record.steps.at("promote").ended; }

std::string ago(Wall then, Wall now) {
  return format_duration(std::chrono::duration_cast<Millis>(now - then)) + " ago";
}

// " since 03:12:44 (6m ago, run 20261124T031243-a1)"; empty when no run of zx made it the primary.
std::string since_of(const Shown& shown) {
  if (!shown.made_primary) return {};
  const auto now = std::chrono::system_clock::now();
  const auto since = promoted_at(*shown.made_primary);
  return fmt::format(" since {} ({}, run {})", format_local(since, now), ago(since, now),
                     shown.made_primary->id);
}

std::string region_of(const config::Config& config, const pg::NodeFacts& facts) {
  const auto* host = config.host(facts.host);
  return host == nullptr ? std::string() : host->region;
}

void show_cluster(Env& env, const config::Config& config, const Shown& shown) {
  const auto& view = shown.view;
  const auto& verdict = view.verdict;
  const auto now = std::chrono::system_clock::now();
  std::size_t in_place = 0;
  bool has_regions = false, has_notes = false;
  Table table;
  for (const auto& facts : view.snapshot.nodes) {
    const auto state = state_of(view.snapshot, facts);
    if (state.tone == Tone::good) ++in_place;
    const auto lag = ha::lag_of(view, facts);
    const auto region = region_of(config, facts);
    has_regions = has_regions || !region.empty();
    has_notes = has_notes || !state.note.empty();
    table.rows.push_back({facts.name, region, facts.answered() ? name_of(facts.role) : "–",
                          Cell(state.word, state.tone), lag ? format_bytes(*lag) : "–",
                          fmt::format("{}:{}", facts.address, facts.port), state.note});
  }
  table.head = {"NODE", "REGION", "ROLE", "STATE", "LAG", "ADDRESS", "NOTE"};
  if (!has_notes) table.head.pop_back();
  if (!has_regions) {
    table.head.erase(table.head.begin() + 1);
    for (auto& row : table.rows) row.erase(row.begin() + 1);
  }
  std::string head = fmt::format("PostgreSQL {}   ", shown.cluster->name);
  if (verdict.primaries.size() == 1) {
    const auto* primary = view.snapshot.node(verdict.primary);
    head += fmt::format("primary {}, timeline {}, {} of {} nodes", verdict.primary,
                        primary->lineage.timeline, in_place, view.snapshot.nodes.size());
  } else {
    head += verdict.summary;
  }
  env.screen.line(head);
  env.screen.table(table);
  for (const auto& problem : verdict.problems) env.screen.line("  " + problem, Tone::warn);
  if (!verdict.hint.empty()) env.screen.line("  " + verdict.hint, Tone::warn);
  for (const auto& debt : shown.debts) {
    // It serves, and the problems say what to do about it.
    if (debt.node == shown.given_up) continue;
    env.screen.line(
        fmt::format("  {} was not fenced on its host (run {}): keep it off until zx rejoin pg {}",
                    debt.node, debt.run, shell_word(debt.node)),
        Tone::warn);
  }
  if (shown.unfinished)
    env.screen.line(
        fmt::format("Run {} ({}) is {}, begun {}", shown.unfinished->id,
                    shown.unfinished->plan.command, shown.is_at_work ? "at work" : "unfinished",
                    ago(shown.unfinished->begun, now)),
        Tone::warn);
  if (shown.has_turn) env.screen.line(*shown.has_turn, Tone::warn);
  if (shown.owed_sync)
    env.screen.line(
        fmt::format("  synchronous_standby_names is {} since run {}; it was {}",
                    shown.owed_sync->reduced.empty() ? "empty" : shown.owed_sync->reduced,
                    shown.owed_sync->run, shown.owed_sync->wanted),
        Tone::warn);
  if (shown.no_record)
    env.screen.line("  what other hosts have noted is not known: " + shown.no_record->message,
                    Tone::warn);
  if (shown.broken)
    env.screen.line(
        fmt::format("Run {} may be unfinished: {}", shown.broken->id, shown.broken->error.message),
        Tone::warn);
  if (shown.no_runs)
    env.screen.line(
        fmt::format("Whether a run is unfinished is not known: {}", shown.no_runs->message),
        Tone::warn);
  if (!shown.forecast) return;
  const auto& forecast = *shown.forecast;
  if (forecast.promote.empty())
    env.screen.line("If the primary died now: nothing could be promoted" +
                        (forecast.why_not.empty() ? "" : " (" + forecast.why_not + ")"),
                    Tone::bad);
  else
    env.screen.line(fmt::format("If the primary died now: {} in about {}, {} lost",
                                forecast.promote, format_duration(forecast.expected),
                                forecast.lost == 0 ? "0 bytes" : format_bytes(forecast.lost)));
}

Json cluster_json(const config::Config& config, const Shown& shown) {
  const auto& view = shown.view;
  auto nodes = Json::array();
  for (const auto& facts : view.snapshot.nodes) {
    auto node = pg::to_json(facts);
    const auto state = state_of(view.snapshot, facts);
    const auto lag = ha::lag_of(view, facts);
    node["state"] = state.word;
    node["note"] = state.note;
    node["region"] = region_of(config, facts);
    node["lag_bytes"] = lag ? Json(*lag) : Json();
    node["upstream"] =
        facts.role == pg::Role::standby ? Json(ha::upstream_node(view.snapshot, facts)) : Json();
    nodes.push_back(std::move(node));
  }
  const auto verdict = to_json(view.verdict);
  Json json{{"cluster", shown.cluster->name},  {"verdict", name_of(view.verdict.state)},
            {"summary", view.verdict.summary}, {"primary", verdict["primary"]},
            {"problems", verdict["problems"]}, {"nodes", std::move(nodes)},
            {"evidence", verdict["evidence"]}};
  if (shown.forecast)
    json["forecast"] = {
        {"promote", shown.forecast->promote.empty() ? Json() : Json(shown.forecast->promote)},
        {"lost_bytes", shown.forecast->lost},
        {"expected_ms", shown.forecast->expected.count()},
        {"why_not", shown.forecast->why_not}};
  else
    json["forecast"] = nullptr;
  json["not_fenced_on_host"] = Json::array();
  for (const auto& debt : shown.debts)
    json["not_fenced_on_host"].push_back(
        {{"node", debt.node}, {"run", debt.run}, {"proof", debt.proof}});
  json["sync_owed"] = shown.owed_sync ? Json(shown.owed_sync->wanted) : Json();
  json["record_error"] = shown.no_record ? zx::to_json(*shown.no_record) : Json();
  json["unfinished_run"] = shown.unfinished ? Json(shown.unfinished->id) : Json();
  json["is_at_work"] = shown.is_at_work;
  json["has_turn"] = shown.has_turn ? Json(*shown.has_turn) : Json();
  json["broken_run"] = shown.broken ? Json(shown.broken->id) : Json();
  json["runs_error"] = shown.no_runs ? zx::to_json(*shown.no_runs) : Json();
  json["promoted_by_run"] = shown.made_primary ? Json(shown.made_primary->id) : Json();
  json["next"] = shown.next;
  return json;
}

bool is_healthy(const Shown& shown) {
  return shown.view.verdict.state == ha::PgState::healthy && !shown.owed_sync &&
         !shown.unfinished && !shown.broken && !shown.no_runs;
}

Result<int> show_once(Env& env, const config::Config& config,
                      const std::vector<const config::PgCluster*>& clusters, const Options& given) {
  // Beside PostgreSQL: one screen takes no longer than the slowest.
  auto asked = std::async(std::launch::async, [&]() -> Result<std::vector<RedisView>> {
    if (!given.cluster.empty()) return std::vector<RedisView>();
    return look_at_all(config, env.shared.timeout);
  });
  std::vector<Shown> all;
  for (const auto* cluster : clusters) all.push_back(look_at(env, config, *cluster));
  ZX_ASSIGN(const auto redis, asked.get());
  bool healthy = true;
  std::string worst = "healthy";
  for (const auto& shown : all) {
    if (!is_healthy(shown)) {
      if (healthy)
        worst = shown.view.verdict.state == ha::PgState::healthy
                    ? "degraded"
                    : name_of(shown.view.verdict.state);
      healthy = false;
    }
  }
  for (const auto& view : redis) {
    if (view.is_healthy()) continue;
    if (healthy) worst = name_of(view.verdict.state);
    healthy = false;
  }
  if (given.watching.is_on) env.screen.clear();
  std::replace(worst.begin(), worst.end(), '_', ' ');
  std::string head;
  if (all.size() == 1 && all.front().view.verdict.primaries.size() == 1 &&
      !all.front().view.verdict.primary.empty())
    head = "  primary " + all.front().view.verdict.primary + since_of(all.front());
  env.screen.line(fmt::format("{}  {}{}", config.platform.name, worst, head),
                  healthy ? Tone::good : Tone::warn);
  for (const auto& shown : all) {
    env.screen.line("");
    show_cluster(env, config, shown);
    if (all.size() > 1 && shown.made_primary)
      env.screen.line(shown.view.verdict.primary + since_of(shown));
  }
  if (!redis.empty()) env.screen.line("");
  for (const auto& view : redis) {
    show_head(env.screen, view);
    show_problems(env.screen, view);
  }
  const auto backups = given.cluster.empty()
                           ? standing_of_backups(env, config, std::chrono::system_clock::now())
                           : std::nullopt;
  if (backups) env.screen.line("Backup        " + backups->line.text, backups->line.tone);
  std::vector<std::string> nexts;
  for (const auto& shown : all)
    if (!shown.next.empty()) nexts.push_back(shown.next);
  // A backup is not what to do next while a server is down.
  if (backups && nexts.empty() && !backups->next.empty() && (healthy || backups->is_unfinished))
    nexts.push_back(backups->next);
  if (!nexts.empty()) {
    env.screen.line("");
    for (const auto& next : nexts) env.screen.line("next: " + next);
  }
  const auto& at = all.empty() ? redis.front().snapshot.at : all.front().view.snapshot.at;
  const auto& observer =
      all.empty() ? redis.front().snapshot.observer : all.front().view.snapshot.observer;
  Json json{{"platform", config.platform.name},
            {"environment", config.platform.environment},
            {"state", worst},
            {"at", format_utc(at)},
            {"observer", observer}};
  if (!all.empty()) json["pg"] = cluster_json(config, all.front());
  if (all.size() > 1) {
    json["pg_clusters"] = Json::array();
    for (const auto& shown : all) json["pg_clusters"].push_back(cluster_json(config, shown));
  }
  if (!redis.empty()) {
    json["redis"] = Json::array();
    for (const auto& view : redis) json["redis"].push_back(to_json(view));
  }
  if (backups) json["backup"] = backups->json;
  env.screen.json(json);
  return given.detailed && !healthy ? info(Code::findings).exit : 0;
}

Result<int> run(Env& env, const Options& given) {
  ZX_ASSIGN(const auto* config, env.config());
  std::vector<const config::PgCluster*> clusters;
  const bool has_only_redis = config->pg.empty() && !config->redis.empty();
  if (given.cluster.empty() && (config->pg.size() > 1 || has_only_redis)) {
    for (const auto& cluster : config->pg) clusters.push_back(&cluster);
  } else {
    ZX_ASSIGN(const auto* one, pick_cluster(*config, given.cluster));
    clusters.push_back(one);
  }
  // A password that cannot be read would make every node look as if it refused us.
  for (const auto* cluster : clusters) ZX_TRY(config::password_of(*config, *cluster));
  return watch(env, given.watching, [&] { return show_once(env, *config, clusters, given); });
}

}  // namespace

void add_status(Tree& tree) {
  const auto given = std::make_shared<Options>();
  auto* leaf = tree.leaf(
      &tree.root(), "status", "show every node, what is wrong, and what to do next",
      {.description =
           "Asks every node of every PostgreSQL cluster and of every Redis deployment at once, "
           "each "
           "under the probe deadline. For PostgreSQL it shows role, state and lag of each node, "
           "what would happen if the primary died now, runs that are unfinished, and the command "
           "to type next; a node that does not answer is also looked at on its host. For Redis it "
           "shows the master, its replicas and what Sentinel says in a line, and what is wrong; zx "
           "redis status shows more. Of backups it shows how old the newest good set is and how "
           "long "
           "the last rehearsal took. With --cluster it looks at that cluster only.",
       .examples = {{"zx status", "one screen"},
                    {"zx status --watch", "the same, again and again"},
                    {"zx status -o json", "everything that was observed"},
                    {"zx status --detailed-exitcode", "10 when something is not as it should be"}},
       .exits = {Code::config, Code::auth, Code::findings}},
      [given](Env& env) { return run(env, *given); });
  add_cluster_flag(tree, leaf, given->cluster);
  add_watch_flags(leaf, given->watching);
  leaf->add_flag("--detailed-exitcode", given->detailed, "exit 10 when something is not healthy");
}

}  // namespace zx::commands
