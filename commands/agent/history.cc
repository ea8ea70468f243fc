#include "commands/agent/history.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/agent/agent.h"
#include "lib/coord/lock.h"
#include "lib/ha/pg_chain.h"
#include "lib/ha/pg_watch.h"
#include "lib/store/events.h"

namespace zx::commands {
namespace {

constexpr std::size_t kRunsLookedAt = 500;
constexpr std::size_t kEventsLookedAt = 5000;

using run::Record;
using run::StepState;

const run::StepRecord* done_step(const Record& record, const std::string& name) {
  const auto found = record.steps.find(name);
  return found != record.steps.end() && found->second.state == StepState::done ? &found->second
                                                                               : nullptr;
}

Millis between(Wall from, Wall to) {
  return std::max(Millis(0), std::chrono::duration_cast<Millis>(to - from));
}

// Since when clients had no primary, as far as is known.
Wall trouble_began(const Record& record, Wall promoted, const std::vector<store::Event>& events) {
  if (record.plan.command == "switchover pg") {
    const auto* stop = done_step(record, "stop");
    return stop == nullptr ? record.begun : stop->ended - Millis(stop->ms);
  }
  if (const auto since = get_string(record.plan.context, "trouble_since"); !since.empty())
    return std::min(parse_utc(since), record.begun);
  // A person's: by what an agent here has seen.
  const store::Event* detected = nullptr;
  for (const auto& event : events) {
    if (event.at > promoted) break;
    if (event.kind == "detected" && detected == nullptr) detected = &event;
    // The first write is of an earlier failover.
    if (event.kind == "recovered" || event.kind == "first_write") detected = nullptr;
  }
  return detected == nullptr ? record.begun : std::min(detected->at, record.begun);
}

Move move_of(const Record& record, const std::vector<store::Event>& events) {
  const auto& promoted = *done_step(record, "promote");
  Move move;
  move.command = record.plan.command;
  move.run = record.id;
  move.from = get_string(record.plan.context, "old_primary");
  move.to = get_string(promoted.seen, "node");
  move.agent = get_string(record.plan.context, "agent");
  move.at = promoted.ended;
  move.is_here = true;
  const auto began = trouble_began(record, promoted.ended, events);
  move.until_promoted = between(began, promoted.ended);
  if (const auto* check = done_step(record, "check"))
    move.until_write = between(began, check->ended);
  if (move.command == "switchover pg") {
    move.lost = 0;  // the new primary had replayed the last record
    move.is_exact = true;
  } else if (const auto* receipt = done_step(record, "receipt")) {
    move.lost = static_cast<std::uint64_t>(get_int(receipt->seen, "bytes"));
    move.is_exact = get_bool(receipt->seen, "exact");
  }
  return move;
}

// What only the old primary had is counted when it is brought back.
void add_kept(Move& move, const Record& record) {
  const auto* keep = done_step(record, "keep");
  if (record.plan.command != "rejoin pg" || get_string(record.plan.context, "node") != move.from ||
      record.begun < move.at || keep == nullptr || !get_bool(keep->seen, "diverged"))
    return;
  if (const auto commits = get_int(keep->seen, "commits", -1); commits >= 0) move.commits = commits;
  move.directory = get_string(keep->seen, "directory");
  move.lost = static_cast<std::uint64_t>(get_int(keep->seen, "bytes"));
  move.is_exact = true;
}

OpenRun open_of(const config::Config& config, Record record) {
  OpenRun open;
  const auto free = coord::is_free(config.platform.state_dir, record.plan.lock);
  open.is_at_work = !free && free.error().code == Code::locked;
  open.is_optional = ha::has_only_leftovers(record);
  open.is_of_agent = !get_string(record.plan.context, "agent").empty();
  for (const auto& step : record.plan.steps) {
    const auto found = record.steps.find(step.name);
    if (found != record.steps.end() &&
        (found->second.state == StepState::done || found->second.state == StepState::skipped))
      continue;
    open.left.push_back(step.name + " " + step.subject);
  }
  open.record = std::move(record);
  return open;
}

}  // namespace

History history_of(const config::Config& config, const Json& cluster) {
  History history;
  const auto name = get_string(cluster, "cluster");
  const auto* watched = config.cluster(name);
  if (watched == nullptr) {
    history.unknown.push_back(
        fmt::format("{} has no cluster {} now: reload the agent", config.path, name));
    return history;
  }
  const auto lock = ha::lock_of(*watched);
  std::vector<store::Event> events;
  if (auto opened = store::Events::open_existing(agent::events_path(config)); !opened) {
    history.unknown.push_back(opened.error().message);
  } else if (*opened) {
    auto found = (*opened)->newest(kEventsLookedAt, name);
    if (found)
      events = *std::move(found);
    else
      history.unknown.push_back(found.error().message);
  }
  auto found = run::list_runs(config.platform.state_dir, kRunsLookedAt);
  if (!found) {
    history.unknown.push_back(found.error().message);
    found = run::Runs{};
  }
  for (const auto& record : found->runs) {
    if (record.plan.lock != lock) continue;
    if (!record.outcome && !history.open) history.open = open_of(config, record);
    const bool moves =
        record.plan.command == "failover pg" || record.plan.command == "switchover pg";
    if (moves && !history.last && done_step(record, "promote") != nullptr)
      history.last = move_of(record, events);
  }
  if (const auto& last = get_object(cluster, "last_failover"); last.is_object()) {
    const auto at = parse_utc(get_string(last, "at"));
    const auto run = get_string(last, "run");
    // By another agent, whose journal is on its own host.
    if (!history.last || (history.last->run != run && history.last->at < at)) {
      history.last = Move{};
      history.last->command = "failover pg";
      history.last->run = run;
      history.last->from = get_string(last, "from");
      history.last->to = get_string(last, "to");
      history.last->at = at;
    }
  }
  if (history.last && history.open && history.open->record.id == history.last->run)
    history.last->is_at_work = history.open->is_at_work;
  if (history.last && history.last->is_here)
    for (const auto& record : found->runs)
      if (record.plan.lock == lock) add_kept(*history.last, record);
  for (auto& broken : found->broken)
    if (broken.may_hold(lock)) history.broken = std::move(broken);
  return history;
}

Json to_json(const Move& move) {
  const auto ms = [](const std::optional<Millis>& span) {
    return span ? Json(span->count()) : Json();
  };
  return Json{{"command", move.command},
              {"run", move.run},
              {"from", move.from},
              {"to", move.to},
              {"agent", move.agent.empty() ? Json() : Json(move.agent)},
              {"at", format_utc(move.at)},
              {"journal_is_here", move.is_here},
              {"until_promoted_ms", ms(move.until_promoted)},
              {"until_first_write_ms", ms(move.until_write)},
              {"lost_bytes", move.lost ? Json(*move.lost) : Json()},
              {"lost_is_exact", move.is_exact},
              {"lost_commits", move.commits ? Json(*move.commits) : Json()},
              {"kept_in", move.directory.empty() ? Json() : Json(move.directory)}};
}

Json to_json(const OpenRun& open) {
  return Json{{"run", open.record.id},
              {"command", open.record.plan.command},
              {"begun", format_utc(open.record.begun)},
              {"at_work", open.is_at_work},
              {"by_agent", open.is_of_agent},
              {"only_optional_left", open.is_optional},
              {"no_return", open.record.no_return},
              {"left", open.left}};
}

}  // namespace zx::commands
