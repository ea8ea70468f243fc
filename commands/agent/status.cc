// zx agent status: what the agent of this host sees, what was done last, what stands open, and what
// a person is needed for.
#include "commands/agent/status.h"

#include <algorithm>

#include "commands/agent/history.h"
#include "commands/agent/redis_status.h"
#include "commands/agent/status_words.h"
#include "commands/times.h"
#include "lib/agent/control.h"
#include "lib/base/lsn.h"
#include "lib/base/text.h"
#include "lib/pg/connection.h"

namespace zx::commands {
namespace {

// A small commit that takes longer is worth a word.
constexpr Millis kSlowCommit{100};

// --- nodes ----------------------------------------------------------------------------------

std::string failure_of(const Json& node) {
  const auto failure = pg::failure_named(get_string(node, "failure"));
  switch (failure) {
    case pg::Failure::silent:
    case pg::Failure::no_answer:
      if (const auto span = silent_for(node))
        return fmt::format("no answer for {}{}", format_duration(*span),
                           failure == pg::Failure::silent ? ", its host takes connections" : "");
      return pg::says(failure);
    case pg::Failure::other:
    case pg::Failure::broken: return get_string(node, "error", pg::says(failure));
    default: return pg::says(failure);
  }
}

std::string of_standby(const Json& cluster, const Json& node, Tone& tone) {
  const auto& receiver = get_object(node, "receiver");
  tone = Tone::warn;
  if (get_bool(node, "replay_paused")) return "its replay is paused";
  if (!receiver.is_object()) return "receives from nobody";
  const auto replayed = parse_lsn(get_string(node, "replay_lsn"));
  std::optional<Lsn> end;
  for (const auto& other : get_object(cluster, "nodes"))
    if (get_string(other, "role") == "primary") end = parse_lsn(get_string(other, "flush_lsn"));
  tone = Tone::plain;
  return get_string(receiver, "status") +
         (replayed && end ? fmt::format(", {} behind", format_bytes(bytes_ahead(*end, *replayed)))
                          : "");
}

Cell says_of(const Json& cluster, const Json& node) {
  if (node.contains("failure")) return {failure_of(node), Tone::bad};
  Tone tone = Tone::plain;
  if (get_string(node, "role") == "standby") {
    auto text = of_standby(cluster, node, tone);
    return {std::move(text), tone};
  }
  if (get_string(node, "role") != "primary") return {"not looked at yet", Tone::warn};
  if (get_bool(node, "read_only")) return {"read-only", Tone::warn};
  const Millis commit(get_int(cluster, "commit_ms"));
  if (commit < kSlowCommit || get_string(cluster, "primary") != get_string(node, "name"))
    return {"ok"};
  return {fmt::format("a commit {} {}", get_bool(cluster, "commit_pending") ? "has taken" : "takes",
                      format_duration(commit)),
          Tone::warn};
}

// --- what was done, what stands open ---------------------------------------------------------

std::string cost_of(const Move& move) {
  std::vector<std::string> parts;
  const auto from = move.command == "switchover pg" ? "its stop" : "the first sign of trouble";
  if (move.until_promoted)
    parts.push_back(
        fmt::format("promoted {} after {}", format_duration(*move.until_promoted), from));
  if (move.until_write)
    parts.push_back(fmt::format("first write after {}", format_duration(*move.until_write)));
  if (!move.lost)
    parts.emplace_back(move.is_at_work ? "what was lost is not known yet"
                                       : "what was lost is not known");
  else if (*move.lost == 0)
    parts.emplace_back(move.is_exact ? "nothing lost" : "nothing lost, as far as is known");
  else
    parts.push_back(fmt::format(
        "{}{} given up{}{}", move.is_exact ? "" : "about ", format_bytes(*move.lost),
        move.commits
            ? fmt::format(" with {} commit{}", *move.commits, *move.commits == 1 ? "" : "s")
            : "",
        move.directory.empty() ? "" : ", kept in " + move.directory));
  return join(parts, ", ");
}

void show_last(Screen& screen, const Json& cluster, const History& history, Wall now) {
  if (!history.last) return;
  const auto& move = *history.last;
  say(screen, fmt::format("Last {}: {} to {}, {}",
                          move.command == "switchover pg" ? "switchover" : "failover",
                          move.from.empty() ? "a node that is not known" : move.from, move.to,
                          moment_ago(move.at, now)));
  say(screen,
      fmt::format("run {}, {}", move.run,
                  !move.is_here        ? "by the agent of another host: its journal is there"
                  : move.agent.empty() ? "begun by a person"
                                       : "by agent " + move.agent),
      Tone::plain, "  ");
  if (move.is_here) say(screen, cost_of(move), Tone::plain, "  ");
  if (const auto until = get_string(cluster, "next_failover_waits_until"); !until.empty())
    say(screen,
        fmt::format("not acknowledged: until {} no other failover is begun by itself",
                    moment_of(parse_utc(until))),
        Tone::warn, "  ");
}

bool is_automatic(const Json& cluster) { return get_bool(cluster, "automatic"); }

// Does the agent take it up by itself, or put another run in its place?
bool is_left_to_agent(const Json& cluster, const OpenRun& open) {
  if (!is_automatic(cluster)) return false;
  if (open.is_of_agent) return true;
  const auto& command = open.record.plan.command;
  return !open.is_optional && open.record.no_return &&
         (command == "failover pg" || command == "switchover pg");
}

void show_open_run(Screen& screen, const Json& cluster, const OpenRun& open, Wall now) {
  const auto& record = open.record;
  if (open.is_at_work) {
    say(screen, fmt::format("At work: run {} ({}), begun {}", record.id, record.plan.command,
                            moment_ago(record.begun, now)));
    return;
  }
  say(screen,
      fmt::format("Unfinished: run {} ({}), begun by {} {}", record.id, record.plan.command,
                  open.is_of_agent ? "an agent" : "a person", moment_ago(record.begun, now)),
      Tone::warn);
  say(screen,
      fmt::format("left: {}{}; {}", join(open.left, ", "),
                  open.is_optional ? " (optional: the cluster serves)" : "",
                  is_left_to_agent(cluster, open)
                      ? open.is_optional ? "the next run takes its place" : "the agent takes it up"
                      : "the agent does not take it up"),
      Tone::warn, "  ");
}

void show_open(Screen& screen, const Json& cluster, const History& history, Wall now) {
  if (!is_automatic(cluster))
    say(screen, "Automatic is off: the agent watches this cluster, and does nothing to it");
  if (const auto why = get_string(cluster, "waits_because"); !why.empty()) {
    const bool blocked = get_bool(cluster, "blocked");
    if (blocked || why != get_string(cluster, "summary"))
      say(screen, (blocked ? "Blocked: " : "Waits: ") + why, blocked ? Tone::bad : Tone::plain);
  }
  if (const auto& pause = get_object(cluster, "pause"); pause.is_object()) {
    const auto at = parse_utc(get_string(pause, "at"));
    const Millis span(get_int(pause, "for_ms"));
    const auto why = get_string(pause, "why");
    say(screen,
        fmt::format("Paused {} for {}, until {}{}{}", moment_of(at), format_duration(span),
                    moment_of(at + span), why.empty() ? "" : ": ", why),
        Tone::warn);
  }
  if (const auto error = get_string(cluster, "error"); !error.empty())
    say(screen, "Failed: " + error, Tone::bad);
  for (const auto& owed : get_object(cluster, "owed")) {
    const auto run = get_string(owed, "run");
    const bool is_run = !run.starts_with("of ");
    say(screen,
        fmt::format("To be brought back: {}, left behind {} by {}{}", get_string(owed, "node"),
                    moment_ago(parse_utc(get_string(owed, "since")), now),
                    is_run ? "run " : "agent ", is_run ? run : run.substr(3)),
        Tone::warn);
    if (const auto& failed = get_object(owed, "failed"); failed.is_object())
      say(screen,
          fmt::format(
              "{} failed{}: {}; again in {}", get_string(failed, "what"),
              get_int(failed, "times") == 1 ? ""
                                            : fmt::format(" {} times", get_int(failed, "times")),
              get_string(failed, "error"), format_duration(Millis(get_int(failed, "again_in_ms")))),
          Tone::warn, "  ");
  }
  if (const auto& debt = get_object(cluster, "sync_owed"); debt.is_object()) {
    const auto reduced = get_string(debt, "reduced");
    say(screen,
        fmt::format("synchronous_standby_names is {} since run {}, until there are enough standbys "
                    "for {}",
                    reduced.empty() ? "empty" : reduced, get_string(debt, "run"),
                    get_string(debt, "wanted")),
        Tone::warn);
  }
  // What is at work of this agent is told above, in its own words.
  if (history.open && !(history.open->is_at_work && get_object(cluster, "at_work").is_string()))
    show_open_run(screen, cluster, *history.open, now);
  if (history.broken)
    say(screen,
        fmt::format("Run {} may be unfinished: {}", history.broken->id,
                    history.broken->error.message),
        Tone::warn);
  for (const auto& why : history.unknown)
    say(screen, "What was done before is not known: " + why, Tone::warn);
}

// --- what to type ---------------------------------------------------------------------------

std::string needed(const Json& cluster, const History& history, bool is_cut_off) {
  if (get_object(cluster, "at_work").is_string()) return {};
  if (history.open && history.open->is_at_work) return {};
  if (history.broken) return "runs list";
  const bool is_mine = history.open && !is_left_to_agent(cluster, *history.open);
  if (is_mine && !history.open->is_optional) return "runs resume " + history.open->record.id;
  if (const auto remedy = get_string(cluster, "remedy"); !remedy.empty()) return remedy;
  if (is_mine) return "runs resume " + history.open->record.id;
  const auto verdict = get_string(cluster, "verdict");
  // Nobody who is cut off acts, and the others may be too.
  if (is_cut_off &&
      (verdict == "primary_dead" || verdict == "primary_silent" || verdict == "no_primary"))
    return "failover pg --dry-run";
  if (get_object(cluster, "pause").is_object()) return {};
  const bool has_primary = get_object(cluster, "primary").is_string();
  const bool is_stuck = !get_string(cluster, "error").empty();
  const bool rejoins = is_automatic(cluster) && get_string(cluster, "rejoin") != "manual";
  std::vector<std::string> owed;
  for (const auto& one : get_object(cluster, "owed")) owed.push_back(get_string(one, "node"));
  if (has_primary && !owed.empty() && (!rejoins || is_stuck))
    return "rejoin pg " + shell_word(owed.front());
  if (has_primary)
    for (const auto& node : get_object(cluster, "nodes"))
      if (const auto name = get_string(node, "name");
          get_string(node, "failure") == "refused" &&
          std::find(owed.begin(), owed.end(), name) == owed.end())
        return "rejoin pg " + shell_word(name);
  if (!get_string(cluster, "next_failover_waits_until").empty()) return "failover ack";
  return {};
}

std::string next_of(Env& env, const Json& status, const Json& cluster, const History& history) {
  const auto words_of = needed(cluster, history, get_string(status, "role") == "cut_off");
  const bool has_several = get_object(status, "pg").size() > 1;
  if (words_of.empty()) return {};
  const bool takes_cluster = words_of.starts_with("failover") || words_of == "agent resume";
  return env.typed(words_of + (has_several && takes_cluster
                                   ? " --cluster " + shell_word(get_string(cluster, "cluster"))
                                   : ""));
}

// --- all of it ------------------------------------------------------------------------------

void show_cluster(Screen& screen, const Json& cluster, const History& history, Wall now) {
  const auto primary = get_string(cluster, "primary");
  const auto verdict = get_string(cluster, "verdict");
  std::int64_t timeline = 0;
  for (const auto& node : get_object(cluster, "nodes"))
    if (get_string(node, "name") == primary) timeline = get_int(node, "timeline");
  // What was judged before a run says little about now.
  const auto run = get_string(cluster, "at_work");
  const auto state = !run.empty()      ? "at work: " + run
                     : verdict.empty() ? std::string("not looked at yet")
                                       : spaced(verdict);
  screen.line("");
  screen.line(
      fmt::format("PostgreSQL {}   {}, {}", get_string(cluster, "cluster"), state,
                  primary.empty() ? "no primary for certain"
                                  : fmt::format("primary {}, timeline {}", primary, timeline)),
      verdict == "healthy" && run.empty() ? Tone::good : Tone::warn);
  show_nodes(screen, cluster, says_of);
  if (verdict != "healthy" && !verdict.empty() && run.empty()) {
    auto summary = get_string(cluster, "summary");
    for (const auto& problem : get_strings(cluster, "problems"))
      if (summary.find(problem) == std::string::npos) summary += "; " + problem;
    say(screen, summary, Tone::warn);
    if (const auto hint = get_string(cluster, "hint"); !hint.empty())
      say(screen, hint, Tone::warn, "  ");
  }
  show_open(screen, cluster, history, now);
  show_last(screen, cluster, history, now);
}

std::string standing_of(const Json& status) {
  const auto role = get_string(status, "role");
  if (role == "leader") return "acts";
  if (role == "follower") return "watches, " + get_string(status, "leader") + " acts";
  return "cut off from the coordinator, does nothing";
}

}  // namespace

Result<int> show_agent_status(Env& env) {
  ZX_ASSIGN(const auto* config, env.config());
  ZX_ASSIGN(auto status, agent::ask_agent(*config, "GET", "/status"));
  auto& screen = env.screen;
  const auto now = system_clock().wall();
  const auto role = get_string(status, "role");
  screen.line(fmt::format("{}  {}  zx {}, since {}", get_string(status, "agent"),
                          standing_of(status), get_string(status, "version"),
                          moment_ago(parse_utc(get_string(status, "started")), now)),
              role == "cut_off" ? Tone::bad : Tone::plain);
  if (role == "cut_off") say(screen, get_string(status, "cut_off_because"), Tone::bad, "  ");
  for (const auto& warning : get_strings(status, "warnings")) say(screen, warning, Tone::bad);
  if (const auto why = get_string(status, "reload_error"); !why.empty())
    say(screen, "The last reload was refused: " + why, Tone::bad);
  for (const auto& guard : get_object(status, "guards"))
    say(screen, fmt::format("Guards {}: {}", get_string(guard, "node"), get_string(guard, "why")));
  std::vector<std::string> nexts;
  auto& clusters = status["pg"];
  for (auto& cluster : clusters) {
    const auto history = history_of(*config, cluster);
    show_cluster(screen, cluster, history, now);
    const auto next = next_of(env, status, cluster, history);
    if (!next.empty()) nexts.push_back(next);
    cluster["last_move"] = history.last ? to_json(*history.last) : Json();
    cluster["unfinished_run"] = history.open ? to_json(*history.open) : Json();
    cluster["broken_run"] = history.broken ? Json(history.broken->id) : Json();
    cluster["not_known"] = history.unknown;
    cluster["next"] = next.empty() ? Json() : Json(next);
  }
  auto& deployments = status["redis"];
  for (auto& deployment : deployments) {
    const auto next = show_agent_deployment(env, *config, deployment, deployments.size() > 1, now);
    if (!next.empty()) nexts.push_back(next);
  }
  if (!nexts.empty()) screen.line("");
  for (const auto& next : nexts) screen.line("next: " + next);
  screen.json(status);
  return 0;
}

}  // namespace zx::commands
