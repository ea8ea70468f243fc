#include "commands/redis_view.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::commands {
namespace {

using redis::Failure;
using redis::NodeFacts;
using redis::Role;
using redis::SentinelFacts;

std::string name_at(const redis::Snapshot& snapshot, const std::string& host, int port) {
  const auto* node = node_at(snapshot, host, port);
  return node != nullptr ? node->name : fmt::format("{}:{}", host, port);
}

// Redis counts whole seconds.
std::string span_of(std::int64_t seconds) {
  return seconds == 0 ? "less than 1 s" : format_duration(Millis(seconds * 1000));
}

std::string sentinels_say(const RedisView& view) {
  const auto& all = view.snapshot.sentinels;
  if (all.empty()) return {};
  std::set<std::string> named;
  std::size_t answered = 0, agree = 0;
  bool lacks_quorum = false;
  for (const auto& one : all) {
    if (!one.answered()) continue;
    ++answered;
    lacks_quorum = lacks_quorum || one.has_quorum == false;
    if (!one.knows_master) continue;
    const auto says = master_of(view, one);
    named.insert(says);
    if (view.master() != nullptr && says == view.master()->name) ++agree;
  }
  const auto of_all = fmt::format("{} of {}", agree, all.size());
  if (answered == 0) return ", no Sentinel answers";
  if (named.size() > 1)
    return fmt::format(", Sentinels disagree: {}", join({named.begin(), named.end()}, " or "));
  if (lacks_quorum) return ", Sentinel has no quorum";
  if (agree > 0) return fmt::format(", Sentinel agrees ({})", of_all);
  if (named.empty()) return ", no Sentinel watches it";
  return ", Sentinel says " + *named.begin();
}

std::string summary_of(const RedisView& view) {
  const auto* master = view.master();
  const auto state = view.verdict.state;
  const bool serves = state == ha::RedisState::healthy || state == ha::RedisState::degraded;
  if (master == nullptr || !serves) return view.verdict.summary + sentinels_say(view);
  const auto& nodes = view.snapshot.nodes;
  const auto linked = std::count_if(nodes.begin(), nodes.end(),
                                    [](const auto& facts) { return facts.is_linked(); });
  auto text = "master " + master->name;
  if (nodes.size() > 1) text += fmt::format(", {} of {} replicas linked", linked, nodes.size() - 1);
  return text + sentinels_say(view);
}

// What zx has left comes before what the servers say: it is often why they say it.
void put_first(RedisView& view, std::string problem, const std::string& hint) {
  auto& verdict = view.verdict;
  if (verdict.state == ha::RedisState::healthy) verdict.state = ha::RedisState::degraded;
  verdict.problems.insert(verdict.problems.begin(), std::move(problem));
  if (!hint.empty()) verdict.hints.insert(verdict.hints.begin(), hint);
}

}  // namespace

const NodeFacts* RedisView::master() const {
  const auto& all = verdict.masters;
  if (all.size() != 1 || ha::is_master_by_mistake(verdict, all.front())) return nullptr;
  return snapshot.node(all.front());
}

RedisView redis_view(const config::RedisDeployment& deployment, ha::RedisView seen) {
  RedisView view;
  view.deployment = &deployment;
  view.snapshot = std::move(seen.snapshot);
  view.verdict = std::move(seen.verdict);
  view.summary = summary_of(view);
  return view;
}

void add_open_run(RedisView& view, const run::Record& record, bool is_at_work) {
  view.open_run = record.id;
  view.is_at_work = is_at_work;
  const auto span = std::chrono::duration_cast<Millis>(view.snapshot.at - record.begun);
  put_first(view,
            fmt::format("run {} ({}) is {}, begun {} ago", record.id, record.plan.command,
                        is_at_work ? "at work" : "unfinished",
                        format_duration(std::max(span, Millis(0)))),
            fmt::format("zx runs {} {}", is_at_work ? "show" : "resume", record.id));
}

void add_unclear_runs(RedisView& view, const Error& error) {
  put_first(view, "whether a run on it is unfinished is not known: " + error.message, error.hint);
}

std::string followed_by(const RedisView& view, const NodeFacts& facts) {
  if (facts.role != Role::replica || !facts.link) return {};
  return name_at(view.snapshot, facts.link->master_host, facts.link->master_port);
}

std::string master_of(const RedisView& view, const SentinelFacts& facts) {
  return facts.knows_master ? name_at(view.snapshot, facts.master_host, facts.master_port)
                            : std::string();
}

std::optional<std::int64_t> bytes_behind(const RedisView& view, const NodeFacts& facts) {
  const auto* master = view.master();
  if (master == nullptr || facts.role != Role::replica || !facts.answered()) return std::nullopt;
  if (!is_same_line(facts.lineage, master->lineage)) return std::nullopt;
  // The replica may have been asked a moment later.
  return std::max<std::int64_t>(0, master->lineage.offset - facts.lineage.offset);
}

RedisState state_of(const RedisView& view, const NodeFacts& facts) {
  const std::string says = redis::says(facts.failure);
  switch (facts.failure) {
    case Failure::none: break;
    case Failure::refused: return {"down", Tone::bad, says};
    case Failure::loading: return {"loading", Tone::warn, says};
    case Failure::silent:
    case Failure::no_answer: return {"silent", Tone::bad, says};
    case Failure::too_many_clients:
    case Failure::busy: return {"overloaded", Tone::warn, says};
    case Failure::auth:
    case Failure::permission:
    case Failure::protected_mode: return {"no access", Tone::bad, says};
    default: return {"unknown", Tone::bad, says};
  }
  const auto& p = facts.persistence;
  const auto note = !p.aof_last_write_ok ? std::string("cannot write to its AOF")
                    : !p.last_save_ok    ? std::string("its last save failed")
                    : !facts.is_read_only && facts.role == Role::replica
                        ? std::string("takes writes")
                        : std::string();
  if (facts.role == Role::master) {
    if (facts.paused_by_failover) return {"failing over", Tone::warn, note};
    const bool is_one_of_several = view.verdict.masters.size() > 1;
    return {"ok", note.empty() && !is_one_of_several ? Tone::good : Tone::warn, note};
  }
  const auto& link = *facts.link;
  if (link.is_syncing) return {"full resync", Tone::warn, note};
  if (!link.is_up)
    return {"no link", Tone::bad, link.down_for_s ? "for " + span_of(*link.down_for_s) : note};
  return {"linked", note.empty() ? Tone::good : Tone::warn, note};
}

Json to_json(const RedisView& view) {
  auto nodes = Json::array();
  for (const auto& facts : view.snapshot.nodes) {
    auto node = redis::to_json(facts);
    const auto state = state_of(view, facts);
    const auto behind = bytes_behind(view, facts);
    const auto followed = followed_by(view, facts);
    node["state"] = state.word;
    node["note"] = state.note;
    node["follows"] = followed.empty() ? Json() : Json(followed);
    node["behind_bytes"] = behind ? Json(*behind) : Json();
    nodes.push_back(std::move(node));
  }
  auto sentinels = Json::array();
  for (const auto& facts : view.snapshot.sentinels) {
    auto sentinel = redis::to_json(facts);
    const auto master = master_of(view, facts);
    sentinel["master"] = master.empty() ? Json() : Json(master);
    sentinels.push_back(std::move(sentinel));
  }
  return Json{{"deployment", view.deployment->name},
              {"state", name_of(view.verdict.state)},
              {"summary", view.summary},
              {"master", view.master() != nullptr ? Json(view.master()->name) : Json()},
              {"problems", view.verdict.problems},
              {"hints", view.verdict.hints},
              {"unfinished_run", view.open_run.empty() ? Json() : Json(view.open_run)},
              {"is_at_work", view.is_at_work},
              {"nodes", std::move(nodes)},
              {"sentinels", std::move(sentinels)}};
}

}  // namespace zx::commands
