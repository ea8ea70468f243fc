#include "commands/agent/redis_status.h"

#include <algorithm>

#include <fmt/format.h>

#include "commands/agent/status_words.h"
#include "commands/times.h"
#include "lib/base/text.h"
#include "lib/coord/lock.h"
#include "lib/redis/connection.h"
#include "lib/run/journal.h"

namespace zx::commands {
namespace {

std::int64_t offset_of(const Json& deployment, const std::string& node) {
  for (const auto& one : get_object(deployment, "nodes"))
    if (get_string(one, "name") == node) return get_int(one, "offset");
  return 0;
}

Cell says_of(const Json& deployment, const Json& node) {
  const auto role = get_string(node, "role");
  if (const auto failure = get_string(node, "failure"); !failure.empty() && failure != "none") {
    const auto error = get_string(node, "error");
    return {error.empty() ? spaced(failure) : error, Tone::bad};
  }
  if (role != "replica") return {role == "master" ? "ok" : "not looked at yet"};
  const auto& link = get_object(node, "link");
  if (!link.is_object()) return {"follows nobody", Tone::bad};
  if (get_bool(link, "syncing")) return {"in a full resync", Tone::warn};
  if (!get_bool(link, "up")) return {"its link is down", Tone::warn};
  const auto master = get_string(deployment, "master");
  if (master.empty()) return {"linked"};
  const auto behind = offset_of(deployment, master) - get_int(node, "offset");
  return {fmt::format("linked, {} behind",
                      format_bytes(static_cast<std::uint64_t>(std::max<std::int64_t>(0, behind))))};
}

// The journal of a run that a person or an agent of this host began says more than the record that
// all agents share.
void show_last(Screen& screen, const config::Config& config, Json& deployment, Wall now) {
  if (!get_object(deployment, "last_failover").is_object()) return;
  auto& last = deployment["last_failover"];
  const auto run = get_string(last, "run");
  const auto record = run::read_run(config.platform.state_dir, run);
  const bool is_here = record.has_value();
  const bool is_planned = is_here && get_bool(record->plan.context, "planned");
  last["planned"] = is_here ? Json(is_planned) : Json();
  const bool by_hand = get_bool(last, "by_hand");
  const auto agent = is_here ? get_string(record->plan.context, "agent") : std::string();
  say(screen, fmt::format("Last {}: {} to {}, {}",
                          is_planned            ? "planned move"
                          : by_hand && !is_here ? "move by hand"
                                                : "failover",
                          get_string(last, "from"), get_string(last, "to"),
                          moment_ago(parse_utc(get_string(last, "at")), now)));
  say(screen,
      fmt::format("run {}, {}{}", run,
                  by_hand         ? "begun by a person"
                  : agent.empty() ? "by an agent"
                                  : "by agent " + agent,
                  is_here ? "" : "; its journal is on another host"),
      Tone::plain, "  ");
  if (const auto until = get_string(deployment, "next_failover_waits_until"); !until.empty())
    say(screen,
        fmt::format("not acknowledged: until {} no other failover is begun by itself",
                    moment_of(parse_utc(until))),
        Tone::warn, "  ");
}

void show_standing(Screen& screen, const Json& deployment, Wall now) {
  if (!get_bool(deployment, "automatic"))
    say(screen, "Automatic is off: the agent watches this deployment, and does nothing to it");
  else if (get_bool(deployment, "by_sentinels"))
    say(screen, "The Sentinels fail over by themselves, the agent watches");
  if (const auto why = get_string(deployment, "waits_because");
      !why.empty() && why != get_string(deployment, "summary")) {
    const bool is_blocked = get_bool(deployment, "blocked");
    say(screen, (is_blocked ? "Blocked: " : "Waits: ") + why, is_blocked ? Tone::bad : Tone::plain);
  }
  if (const auto& pause = get_object(deployment, "pause"); pause.is_object()) {
    const auto end = parse_utc(get_string(pause, "at")) + Millis(get_int(pause, "for_ms"));
    const auto why = get_string(pause, "why");
    if (now < end)
      say(screen, fmt::format("Paused until {}{}{}", moment_of(end), why.empty() ? "" : ": ", why),
          Tone::warn);
  }
  if (const auto error = get_string(deployment, "error"); !error.empty())
    say(screen, "Failed: " + error, Tone::bad);
}

// A run on it that has no end, of those begun on this host.
std::string show_open_run(Screen& screen, const config::Config& config, Json& deployment,
                          Wall now) {
  deployment["unfinished_run"] = nullptr;
  const auto& state_dir = config.platform.state_dir;
  const auto lock = "redis." + get_string(deployment, "deployment");
  const auto open = run::unfinished_run(state_dir, lock);
  if (!open) {
    say(screen, open.error().message, Tone::warn);
    return "runs list";
  }
  if (!*open) return {};
  const auto& record = **open;
  deployment["unfinished_run"] = record.id;
  const auto free = coord::is_free(state_dir, lock);
  const bool is_at_work = !free && free.error().code == Code::locked;
  say(screen,
      fmt::format("{}: run {} ({}), begun {}", is_at_work ? "At work" : "Unfinished", record.id,
                  record.plan.command, moment_ago(record.begun, now)),
      is_at_work ? Tone::plain : Tone::warn);
  return is_at_work ? std::string() : "runs resume " + record.id;
}

}  // namespace

std::string show_agent_deployment(Env& env, const config::Config& config, Json& deployment,
                                  bool has_others, Wall now) {
  auto& screen = env.screen;
  const auto master = get_string(deployment, "master");
  const auto verdict = get_string(deployment, "verdict");
  const auto run = get_string(deployment, "at_work");
  const bool is_well = verdict == "healthy" && run.empty();
  screen.line("");
  screen.line(fmt::format("Redis {}   {}, {}", get_string(deployment, "deployment"),
                          !run.empty()      ? "at work: " + run
                          : verdict.empty() ? std::string("not looked at yet")
                                            : spaced(verdict),
                          master.empty() ? "no master for certain" : "master " + master),
              is_well ? Tone::good : Tone::warn);
  show_nodes(screen, deployment, says_of);
  if (!is_well && !verdict.empty() && run.empty()) {
    auto summary = get_string(deployment, "summary");
    for (const auto& problem : get_strings(deployment, "problems"))
      if (summary.find(problem) == std::string::npos) summary += "; " + problem;
    say(screen, summary, Tone::warn);
    if (const auto hint = get_string(deployment, "hint"); !hint.empty())
      say(screen, hint, Tone::warn, "  ");
  }
  const auto left = show_open_run(screen, config, deployment, now);
  show_standing(screen, deployment, now);
  show_last(screen, config, deployment, now);
  auto words = !run.empty() ? std::string() : left;
  if (words.empty() && run.empty()) words = get_string(deployment, "remedy");
  if (words.empty() && run.empty() && !get_string(deployment, "next_failover_waits_until").empty())
    words = "failover ack";
  const bool names_it = words.starts_with("failover ack") || words == "agent resume";
  const auto name = get_string(deployment, "deployment");
  if (names_it)
    words += " --cluster " + shell_word("redis." + name);
  else if (has_others && (words.starts_with("failover") || words.starts_with("redis ")))
    words += " --deployment " + shell_word(name);
  const auto next = words.empty() ? std::string() : env.typed(words);
  deployment["next"] = next.empty() ? Json() : Json(next);
  return next;
}

}  // namespace zx::commands
