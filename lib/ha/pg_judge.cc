#include "lib/ha/pg_judge.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/pg_watch.h"

namespace zx::ha {
namespace {

using pg::Failure;
using pg::NodeFacts;
using pg::Role;
using pg::Snapshot;

bool same_host(const std::string& a, const std::string& b) {
  const auto loopback = [](const std::string& h) {
    return h == "localhost" || h == "::1" || h == "127.0.0.1";
  };
  return lower(a) == lower(b) || (loopback(a) && loopback(b));
}

std::string other_cluster(const NodeFacts& facts) {
  return "another cluster: system identifier " + facts.lineage.system_id;
}

// The servers say something: they are alive, whatever it is.
bool proves_life(Failure failure) {
  switch (failure) {
    case Failure::none:
    case Failure::auth:
    case Failure::permission:
    case Failure::too_many_connections:
    case Failure::no_database: return true;
    default: return false;
  }
}

class Judge {
 public:
  Judge(const config::PgCluster& cluster, const Snapshot& snapshot,
        const std::optional<LastSeen>& last)
      : cluster_(cluster), snapshot_(snapshot), last_(last) {}

  PgVerdict run() {
    for (const auto& facts : snapshot_.nodes) {
      add(facts.name, describe(facts));
      if (facts.answered() && facts.role == Role::primary && !is_foreign(snapshot_, facts, last_))
        verdict_.primaries.push_back(facts.name);
    }
    for (const auto& testimony : snapshot_.testimonies)
      verdict_.evidence.push_back({testimony.observer, testimony.node,
                                   testimony.failure == Failure::none
                                       ? fmt::format("answers as {}", name_of(testimony.role))
                                       : pg::says(testimony.failure)});
    if (verdict_.primaries.size() > 1)
      two_primaries();
    else if (verdict_.primaries.size() == 1)
      one_primary(*snapshot_.node(verdict_.primaries.front()));
    else
      none_answers_as_primary();
    return verdict_;
  }

 private:
  void add(const std::string& node, std::string text) {
    verdict_.evidence.push_back({snapshot_.observer, node, std::move(text)});
  }

  void conclude(PgState state, std::string summary, std::string hint = {}) {
    verdict_.state = state;
    verdict_.summary = std::move(summary);
    verdict_.hint = std::move(hint);
  }

  std::string describe(const NodeFacts& f) const {
    if (!f.answered())
      return fmt::format("{} (after {})", pg::says(f.failure), format_duration(f.took));
    if (is_foreign(snapshot_, f, last_)) return "answers as a server of " + other_cluster(f);
    if (f.role == Role::primary)
      return fmt::format("answers as primary on timeline {}", f.lineage.timeline);
    if (!f.receives()) return "is a standby and receives from nobody";
    const auto from = upstream_node(snapshot_, f);
    const auto age = f.receiver->message_age;
    return fmt::format("receives from {}{}", from.empty() ? f.receiver->sender_host : from,
                       age ? fmt::format(", last message {} ago", format_duration(*age)) : "");
  }

  void two_primaries() {
    verdict_.primary.clear();
    conclude(PgState::two_primaries, join(verdict_.primaries, " and ") + " both accept writes",
             "decide which one is right, then fence and rewind the other: zx rejoin pg NODE");
  }

  void one_primary(const NodeFacts& primary) {
    verdict_.primary = primary.name;
    auto& problems = verdict_.problems;
    std::string hint;
    if (const auto* ahead = ahead_of(snapshot_, primary)) {
      problems.push_back(newer_than(ahead->name, ahead->lineage, primary));
      hint = way_back(primary, ahead->name);
    }
    if (primary.read_only)
      problems.push_back(primary.name + " is read-only (default_transaction_read_only)");
    for (const auto& facts : snapshot_.nodes) {
      if (facts.name == primary.name) continue;
      if (!facts.answered()) {
        problems.push_back(facts.local && facts.local->fenced
                               ? facts.name + " is fenced"
                               : facts.name + ": " + pg::says(facts.failure));
      } else if (facts.lineage.system_id != primary.lineage.system_id) {
        problems.push_back(facts.name + " is a server of " + other_cluster(facts));
      } else if (!facts.receives()) {
        problems.push_back(facts.name + " receives from nobody");
      } else if (facts.replay_paused) {
        problems.push_back("the replay of " + facts.name + " is paused");
      } else if (upstream_node(snapshot_, facts).empty()) {
        problems.push_back(fmt::format("{} receives from {}:{}, which is none of this cluster",
                                       facts.name, facts.receiver->sender_host,
                                       facts.receiver->sender_port));
      }
    }
    if (primary.max_connections > 0 && primary.connections >= primary.max_connections)
      problems.push_back(
          fmt::format("{} uses all of its {} connections", primary.name, primary.max_connections));
    if (problems.empty())
      conclude(PgState::healthy, fmt::format("{} is the primary, {} of {} nodes", primary.name,
                                             snapshot_.nodes.size(), snapshot_.nodes.size()));
    else
      conclude(PgState::degraded,
               fmt::format("{} is the primary; {}", primary.name, problems.front()), hint);
  }

  // Who was the primary? A node that answers as a standby is not it any more.
  std::string suspect() const {
    std::vector<std::string> silent;
    for (const auto& facts : snapshot_.nodes)
      if (!facts.answered()) silent.push_back(facts.name);
    if (silent.empty())
      return last_ && snapshot_.node(last_->primary) != nullptr ? last_->primary : std::string();
    if (silent.size() == 1) return silent.front();
    const auto is_silent = [&](const std::string& name) {
      return std::find(silent.begin(), silent.end(), name) != silent.end();
    };
    // What the standbys point at, and the newest timeline of those that point there.
    std::map<std::string, std::uint32_t> pointed_at;
    for (const auto& facts : snapshot_.nodes) {
      if (!facts.answered()) continue;
      const auto from = upstream_node(snapshot_, facts);
      if (is_silent(from)) pointed_at[from] = std::max(pointed_at[from], facts.lineage.timeline);
    }
    const auto last = last_ && is_silent(last_->primary) ? last_->primary : std::string();
    if (pointed_at.empty()) return last;
    if (pointed_at.contains(last)) return last;
    if (pointed_at.size() > 1) return {};
    const auto& [name, timeline] = *pointed_at.begin();
    // On the timeline of the last primary it can only be the middle of a cascade; on a newer one it
    // was promoted since.
    const auto known = last.empty() ? 0 : last_->lineage.timeline;
    if (!last.empty() && (known == 0 || timeline <= known)) return last;
    return name;
  }

  bool all_answer() const {
    return std::all_of(snapshot_.nodes.begin(), snapshot_.nodes.end(),
                       [](const auto& f) { return f.answered(); });
  }

  // A standby that receives from a server that is none of these.
  std::string strange_sender() const {
    for (const auto& facts : snapshot_.nodes) {
      if (!facts.answered() || !facts.receives()) continue;
      const auto& receiver = *facts.receiver;
      if (node_at(snapshot_, receiver.sender_host, receiver.sender_port).empty())
        return fmt::format("{} receives from {}:{}, which is none of the nodes in zx.toml",
                           facts.name, receiver.sender_host, receiver.sender_port);
    }
    return {};
  }

  void none_answers_as_primary() {
    verdict_.primary = suspect();
    const auto& name = verdict_.primary;
    if (name.empty() || snapshot_.node(name)->answered())
      if (const auto stranger = strange_sender(); !stranger.empty())
        return conclude(PgState::unknown, stranger + ": there is a primary elsewhere",
                        "add it to the nodes of the cluster in zx.toml, or give it its address");
    if (name.empty()) {
      if (all_answer())
        return conclude(PgState::no_primary, "every node is in recovery, none is the primary");
      return conclude(PgState::unknown,
                      "no node answers as primary, and which one it was is not known",
                      "start the node that was the primary last; the others follow it");
    }
    const auto& facts = *snapshot_.node(name);
    if (is_foreign(snapshot_, facts, last_))
      return conclude(PgState::unknown,
                      fmt::format("{} was the primary, and a server of {} answers there now", name,
                                  other_cluster(facts)),
                      "host and port of the node in zx.toml lead to another server");
    if (facts.answered())
      return conclude(
          PgState::no_primary,
          fmt::format("{} was the primary and is now in recovery; none accepts writes", name));
    switch (facts.failure) {
      case Failure::too_many_connections:
        return conclude(PgState::primary_overloaded, name + " is alive but has no free connection",
                        "free connections there (pg_stat_activity), or raise max_connections");
      case Failure::starting_up:
      case Failure::recovering:
        return conclude(PgState::primary_starting, name + " is starting up",
                        "it is coming back; zx status shows when");
      case Failure::shutting_down:
        return conclude(PgState::primary_shutting_down, name + " is shutting down",
                        "wait until it has stopped, or has come back");
      case Failure::auth:
      case Failure::permission:
        return conclude(PgState::unknown,
                        fmt::format("{} cannot be asked: {}", name, facts.error.message),
                        "mend user and password_file of the cluster in zx.toml");
      case Failure::refused:
      case Failure::no_route:
      case Failure::no_answer:
      case Failure::silent: return nobody_home(facts);
      default:
        return conclude(PgState::unknown,
                        fmt::format("{} cannot be asked: {}", name, facts.error.message),
                        "zx status -v says more");
    }
  }

  bool is_followed(const std::string& node) const {
    return std::any_of(snapshot_.nodes.begin(), snapshot_.nodes.end(), [&](const auto& facts) {
      return facts.answered() && upstream_node(snapshot_, facts) == node;
    });
  }

  // Why the walreceiver of a standby may be one that hears from the primary; empty: it is not.
  std::string hides(const NodeFacts& standby, const NodeFacts& primary) const {
    if (!standby.receiver) return {};
    const auto& receiver = *standby.receiver;
    if (receiver.status.empty())
      return fmt::format(
          "the role of zx may not see from whom {} receives (it must be a member of pg_monitor)",
          standby.name);
    if (!standby.receives()) return {};
    const auto sender = node_at(snapshot_, receiver.sender_host, receiver.sender_port);
    // A dead server's walsenders are gone within milliseconds, however long an idle one says
    // nothing.
    const bool recent = primary.failure == Failure::refused || !receiver.message_age ||
                        *receiver.message_age < cluster_.policy.silent_after;
    if (sender.empty() && recent)
      return fmt::format("{} receives from {}:{}, which is none of the nodes in zx.toml",
                         standby.name, receiver.sender_host, receiver.sender_port);
    if (sender == primary.name && !receiver.message_age && primary.failure != Failure::refused)
      return fmt::format(
          "{} holds a connection to it, and the age of its last message is not known",
          standby.name);
    return {};
  }

  void nobody_home(const NodeFacts& primary) {
    for (const auto& testimony : snapshot_.testimonies) {
      if (testimony.node != primary.name || testimony.observer == snapshot_.observer) continue;
      if (proves_life(testimony.failure))
        return conclude(PgState::primary_unreachable,
                        fmt::format("{} is alive: {} reaches it, this host does not ({})",
                                    primary.name, testimony.observer, pg::says(primary.failure)),
                        "mend the network between this host and " + primary.name);
    }
    for (const auto& testimony : snapshot_.testimonies) {
      if (testimony.node != primary.name || testimony.observer == snapshot_.observer) continue;
      const auto there = fmt::format("{}: {} sees it {}", primary.name, testimony.observer,
                                     pg::says(testimony.failure));
      if (testimony.failure == Failure::starting_up || testimony.failure == Failure::recovering)
        return conclude(PgState::primary_starting, there,
                        "it is coming back; zx status shows when");
      if (testimony.failure == Failure::shutting_down)
        return conclude(PgState::primary_shutting_down, there,
                        "wait until it has stopped, or has come back");
    }
    int standbys = 0;
    for (const auto& facts : snapshot_.nodes) {
      if (!facts.answered()) continue;
      ++standbys;
      if (const auto why = hides(facts, primary); !why.empty())
        return conclude(PgState::unknown, fmt::format("{} may be alive: {}", primary.name, why),
                        "look with zx status -o json at the receiver of " + facts.name);
      if (!facts.receives() || upstream_node(snapshot_, facts) != primary.name) continue;
      const auto age = facts.receiver->message_age;
      // After a refusal a held connection is proof of life: a dead postmaster's walsenders are gone
      // within milliseconds. From a silent host nothing ends a connection; only a message counts.
      if (primary.failure == Failure::refused || (age && *age < cluster_.policy.silent_after))
        return conclude(
            PgState::primary_unreachable,
            fmt::format("{} is alive: {} receives from it{}, this host does not reach it ({})",
                        primary.name, facts.name,
                        age ? fmt::format(", last message {} ago", format_duration(*age)) : "",
                        pg::says(primary.failure)),
            "mend the network between this host and " + primary.name);
    }
    if (primary.failure != Failure::refused && last_ && last_->primary != primary.name &&
        !is_followed(primary.name))
      return conclude(PgState::unknown,
                      fmt::format("{} does not answer and may be the primary: {}, last seen as "
                                  "such, is a standby, and no "
                                  "standby follows {}, so that none can tell",
                                  primary.name, last_->primary, primary.name),
                      "make " + primary.name + " reachable, or look from another host");
    if (standbys == 0 && std::all_of(snapshot_.nodes.begin(), snapshot_.nodes.end(),
                                     [](const auto& f) { return f.failure == Failure::refused; }))
      return conclude(
          PgState::unknown, "no node answers: connection refused by all of them",
          fmt::format("when they are all down, start {} first, it was the primary last; "
                      "else look from another host",
                      primary.name));
    if (standbys == 0)
      return conclude(PgState::unknown,
                      fmt::format("no node answers{}: this host may be the one that is cut off",
                                  snapshot_.deadline.count() > 0
                                      ? " within " + format_duration(snapshot_.deadline)
                                      : std::string()),
                      "look from another host, or longer: --timeout");
    if (primary.failure == Failure::refused)
      return conclude(PgState::primary_dead,
                      fmt::format("{} is dead: connection refused, and no standby receives from it",
                                  primary.name));
    conclude(PgState::primary_silent,
             fmt::format("{} is silent: {}, and no standby has heard from it for {}", primary.name,
                         pg::says(primary.failure), format_duration(cluster_.policy.silent_after)));
  }

  const config::PgCluster& cluster_;
  const Snapshot& snapshot_;
  const std::optional<LastSeen>& last_;
  PgVerdict verdict_;
};

}  // namespace

const char* name_of(PgState state) {
  switch (state) {
    case PgState::healthy: return "healthy";
    case PgState::degraded: return "degraded";
    case PgState::primary_overloaded: return "primary_overloaded";
    case PgState::primary_unreachable: return "primary_unreachable";
    case PgState::primary_starting: return "primary_starting";
    case PgState::primary_shutting_down: return "primary_shutting_down";
    case PgState::primary_silent: return "primary_silent";
    case PgState::primary_dead: return "primary_dead";
    case PgState::two_primaries: return "two_primaries";
    case PgState::no_primary: return "no_primary";
    case PgState::unknown: return "unknown";
  }
  return "unknown";
}

bool calls_for_failover(PgState state) {
  return state == PgState::primary_dead || state == PgState::primary_silent ||
         state == PgState::no_primary;
}

bool has_live_primary(PgState state) {
  return state == PgState::healthy || state == PgState::degraded ||
         state == PgState::primary_overloaded || state == PgState::primary_unreachable ||
         state == PgState::two_primaries;
}

bool is_foreign(const Snapshot& snapshot, const NodeFacts& facts,
                const std::optional<LastSeen>& last) {
  if (!last || last->lineage.system_id.empty() || !facts.answered()) return false;
  const auto& ours = last->lineage.system_id;
  return facts.lineage.system_id != ours &&
         std::any_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& other) {
           return other.answered() && other.lineage.system_id == ours;
         });
}

std::string node_at(const Snapshot& snapshot, const std::string& host, int port) {
  for (const auto& facts : snapshot.nodes)
    if (facts.port == port && (same_host(facts.address, host) || facts.host == host))
      return facts.name;
  return {};
}

std::string upstream_node(const Snapshot& snapshot, const NodeFacts& standby) {
  if (standby.receiver && !standby.receiver->sender_host.empty()) {
    const auto name =
        node_at(snapshot, standby.receiver->sender_host, standby.receiver->sender_port);
    if (!name.empty()) return name;
  }
  return standby.has_upstream ? node_at(snapshot, standby.upstream_host, standby.upstream_port)
                              : std::string();
}

PgVerdict judge(const config::PgCluster& cluster, const Snapshot& snapshot,
                const std::optional<LastSeen>& last) {
  return Judge(cluster, snapshot, last).run();
}

}  // namespace zx::ha
