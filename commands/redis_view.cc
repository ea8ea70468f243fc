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

std::string place_of(const SentinelFacts& sentinel) {
  return fmt::format("{}:{}", sentinel.address, sentinel.port);
}

bool is_nearly(std::uint64_t used, std::uint64_t all) { return all > 0 && used >= all - all / 10; }

// Redis counts whole seconds.
std::string span_of(std::int64_t seconds) {
  return seconds == 0 ? "less than 1 s" : format_duration(Millis(seconds * 1000));
}

class Judging {
 public:
  explicit Judging(RedisView& view) : view_(view), snapshot_(view.snapshot) {}

  void run() {
    for (const auto& facts : snapshot_.nodes)
      if (facts.answered() && facts.role == Role::master) view_.masters.push_back(facts.name);
    for (const auto& facts : snapshot_.nodes) look_at(facts);
    for (const auto& sentinel : snapshot_.sentinels) look_at(sentinel);
    conclude();
  }

 private:
  void problem(std::string text) { view_.problems.push_back(std::move(text)); }

  void look_at(const NodeFacts& facts) {
    if (!facts.answered()) return problem(facts.error.message);
    if (facts.role == Role::replica) look_at_replica(facts);
    if (facts.role == Role::master) look_at_master(facts);
    const auto& p = facts.persistence;
    if (!p.last_save_ok) problem(facts.name + " could not save: its last BGSAVE failed");
    if (!p.aof_last_write_ok) problem(facts.name + " cannot write to its AOF");
    if (!p.aof_last_rewrite_ok) problem(facts.name + " could not rewrite its AOF");
    if (is_nearly(facts.memory_used, facts.memory_max))
      problem(fmt::format("{} uses {} of maxmemory {} ({})", facts.name,
                          format_bytes(facts.memory_used), format_bytes(facts.memory_max),
                          facts.memory_policy));
    if (facts.clients > 0 && facts.clients_max > 0 &&
        is_nearly(static_cast<std::uint64_t>(facts.clients),
                  static_cast<std::uint64_t>(facts.clients_max)))
      problem(fmt::format("{} has {} of {} clients", facts.name, facts.clients, facts.clients_max));
    for (const auto& warning : facts.warnings) problem(facts.name + ": " + warning);
  }

  void look_at_master(const NodeFacts& facts) {
    if (facts.paused_by_failover) problem("a failover is under way on " + facts.name);
    if (facts.min_replicas_to_write > 0 &&
        facts.min_replicas_good.value_or(0) < facts.min_replicas_to_write)
      problem(fmt::format("{} takes no writes: {} good replicas of at least {}", facts.name,
                          facts.min_replicas_good.value_or(0), facts.min_replicas_to_write));
  }

  void look_at_replica(const NodeFacts& facts) {
    const auto followed = followed_by(view_, facts);
    const auto* upstream = snapshot_.node(followed);
    const auto* master = view_.master();
    if (upstream == nullptr) {
      problem(fmt::format("{} follows {}, none of this deployment", facts.name, followed));
    } else if (master != nullptr && upstream != master && !upstream->is_linked()) {
      problem(fmt::format("{} follows {}, not the master {}", facts.name, followed, master->name));
    }
    const auto& link = *facts.link;
    if (link.is_syncing)
      problem(fmt::format("{} copies the whole data set of {}{}", facts.name, followed,
                          link.sync_left_bytes
                              ? fmt::format(", {} left", format_bytes(static_cast<std::uint64_t>(
                                                             *link.sync_left_bytes)))
                              : ""));
    else if (!link.is_up)
      problem(fmt::format("{} has no link to {}{}", facts.name, followed,
                          link.down_for_s ? " for " + span_of(*link.down_for_s) : ""));
    if (master != nullptr && !link.is_syncing && !is_same_line(facts.lineage, master->lineage))
      problem(fmt::format("{} has another history than {}: it would have to copy everything",
                          facts.name, master->name));
    if (!facts.is_read_only)
      problem(facts.name + " takes writes although it is a replica (replica-read-only no)");
  }

  void look_at(const SentinelFacts& sentinel) {
    const auto name = "Sentinel " + place_of(sentinel);
    if (!sentinel.answered()) return problem(sentinel.error.message);
    const auto& wanted = view_.deployment->sentinel.master_name;
    if (!sentinel.knows_master) return problem(name + " does not watch " + wanted);
    const auto says = master_of(view_, sentinel);
    const auto* master = view_.master();
    if (master != nullptr && says != master->name)
      problem(fmt::format("{} takes {} for the master", name, says));
    for (const auto* flag : {"s_down", "o_down", "failover_in_progress"})
      if (std::find(sentinel.flags.begin(), sentinel.flags.end(), flag) != sentinel.flags.end())
        problem(fmt::format("{} says of {}: {}", name, says, flag));
    if (sentinel.has_quorum == false) problem(name + ": " + sentinel.quorum_text);
    const auto others = static_cast<int>(view_.deployment->sentinel.nodes.size()) - 1;
    if (sentinel.other_sentinels != others)
      problem(fmt::format("{} knows {} other Sentinels, zx.toml has {}", name,
                          sentinel.other_sentinels, others));
    std::vector<std::string> phantoms;
    for (const auto& replica : sentinel.replicas)
      if (replica.is_phantom)
        phantoms.push_back(fmt::format("{}:{}", replica.address, replica.port));
    if (phantoms.empty()) return;
    problem(fmt::format("{} keeps replicas that do not exist: {}", name, join(phantoms, ", ")));
    const auto hint =
        fmt::format("SENTINEL RESET {}, one Sentinel after the other, forgets them", wanted);
    if (view_.hints.empty()) view_.hints.push_back(hint);
  }

  [[nodiscard]] std::string sentinels_say() const {
    const auto& all = snapshot_.sentinels;
    if (all.empty()) return {};
    std::set<std::string> named;
    std::size_t answered = 0, agree = 0;
    bool lacks_quorum = false;
    for (const auto& one : all) {
      if (!one.answered()) continue;
      ++answered;
      lacks_quorum = lacks_quorum || one.has_quorum == false;
      if (!one.knows_master) continue;
      const auto says = master_of(view_, one);
      named.insert(says);
      if (view_.master() != nullptr && says == view_.master()->name) ++agree;
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

  void conclude() {
    const auto& masters = view_.masters;
    std::size_t replicas = 0, linked = 0, answered = 0;
    for (const auto& facts : snapshot_.nodes) {
      if (facts.answered()) ++answered;
      if (masters.size() == 1 && facts.name == masters.front()) continue;
      ++replicas;
      if (facts.is_linked()) ++linked;
    }
    if (masters.size() == 1) {
      view_.state = view_.problems.empty() ? "healthy" : "degraded";
      view_.summary = "master " + masters.front();
      if (replicas > 0)
        view_.summary += fmt::format(", {} of {} replicas linked", linked, replicas);
    } else if (masters.size() > 1) {
      view_.state = "several_masters";
      view_.summary = fmt::format("{} {} take writes as masters", join(masters, " and "),
                                  masters.size() == 2 ? "both" : "all");
      problem(view_.summary);
    } else if (answered == 0) {
      view_.state = "unreachable";
      view_.summary = "no node answers";
    } else {
      view_.state = "no_master";
      view_.summary = "no node answers as a master";
      problem(view_.summary);
    }
    view_.summary += sentinels_say();
  }

  RedisView& view_;
  const redis::Snapshot& snapshot_;
};

}  // namespace

const NodeFacts* RedisView::master() const {
  return masters.size() == 1 ? snapshot.node(masters.front()) : nullptr;
}

RedisView redis_view(const config::RedisDeployment& deployment, redis::Snapshot snapshot) {
  RedisView view;
  view.deployment = &deployment;
  view.snapshot = std::move(snapshot);
  Judging(view).run();
  return view;
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
    const bool is_one_of_several = view.masters.size() > 1;
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
              {"state", view.state},
              {"summary", view.summary},
              {"master", view.master() != nullptr ? Json(view.master()->name) : Json()},
              {"problems", view.problems},
              {"hints", view.hints},
              {"nodes", std::move(nodes)},
              {"sentinels", std::move(sentinels)}};
}

}  // namespace zx::commands
