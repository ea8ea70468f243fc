#include "lib/ha/redis_judge.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/ha/redis_problems.h"

namespace zx::ha {
namespace {

using redis::Failure;
using redis::NodeFacts;
using redis::Role;
using redis::Snapshot;

// "redis-a, redis-b and redis-c"
std::string listed(const std::vector<std::string>& names) {
  if (names.size() < 2) return join(names, "");
  return join({names.begin(), names.end() - 1}, ", ") + " and " + names.back();
}

// Clients write at once to a master that came back: a tenth is what it may have of new keys.
bool is_next_to_nothing(std::int64_t keys, std::int64_t had) {
  constexpr std::int64_t kPart = 10;
  return had > 0 && keys * kPart < had;
}

constexpr const char* kFailover = "zx failover redis --dry-run says what can be done";

class Judge {
 public:
  Judge(const config::RedisDeployment& deployment, const Snapshot& snapshot,
        const std::optional<RedisLastSeen>& last)
      : deployment_(deployment), snapshot_(snapshot), last_(last) {}

  RedisVerdict run() {
    for (const auto& facts : snapshot_.nodes) {
      add(facts.name, describe(facts));
      if (facts.answered() && facts.role == Role::master) verdict_.masters.push_back(facts.name);
    }
    if (verdict_.masters.size() > 1)
      several_masters();
    else if (verdict_.masters.size() == 1)
      one_master(*snapshot_.node(verdict_.masters.front()));
    else
      none_answers_as_master();
    const bool is_one = verdict_.masters.size() == 1;
    add(problems_of(snapshot_, is_one ? snapshot_.node(verdict_.masters.front()) : nullptr));
    say_of_sentinels();
    if (verdict_.state == RedisState::healthy && !verdict_.problems.empty())
      conclude(RedisState::degraded,
               fmt::format("{} is the master; {}", verdict_.master, verdict_.problems.front()));
    if (verdict_.hint.empty() && !verdict_.hints.empty()) verdict_.hint = verdict_.hints.front();
    return verdict_;
  }

 private:
  void add(const std::string& node, std::string text) {
    verdict_.evidence.push_back({snapshot_.observer, node, std::move(text)});
  }

  void add(const std::vector<RedisProblem>& problems) {
    for (const auto& one : problems) {
      verdict_.problems.push_back(one.text);
      if (!one.hint.empty()) add_hint(one.hint);
    }
  }
  void add_hint(const std::string& hint) {
    auto& all = verdict_.hints;
    if (std::find(all.begin(), all.end(), hint) == all.end()) all.push_back(hint);
  }

  void conclude(RedisState state, std::string summary, std::string hint = {}) {
    verdict_.state = state;
    verdict_.summary = std::move(summary);
    verdict_.hint = std::move(hint);
    if (!verdict_.hint.empty()) add_hint(verdict_.hint);
  }

  std::string describe(const NodeFacts& f) const {
    if (f.is_loading())
      return "is loading its data set" +
             (f.persistence.loading_eta_s
                  ? fmt::format(", {} s to go", *f.persistence.loading_eta_s)
                  : std::string());
    if (!f.answered())
      return fmt::format("{} (after {})", redis::says(f.failure), format_duration(f.took));
    if (f.role == Role::master)
      return fmt::format("answers as master at offset {}, {}", f.lineage.offset,
                         count_of(f.keys, "key"));
    if (!f.link) return "is a replica of nobody";
    const auto from = master_of(snapshot_, f);
    const auto whom =
        from.empty() ? fmt::format("{}:{}", f.link->master_host, f.link->master_port) : from;
    if (f.link->is_syncing) return fmt::format("is in a full resync from {}", whom);
    if (!f.link->is_up) return fmt::format("is not linked to {}{}", whom, down_for(*f.link));
    return fmt::format("is linked to {}{}", whom,
                       f.link->last_io_s ? fmt::format(", last heard {} s ago", *f.link->last_io_s)
                                         : std::string());
  }

  static std::string down_for(const redis::Link& link) {
    if (!link.down_for_s || *link.down_for_s < 0) return {};
    return *link.down_for_s == 0 ? std::string(" for less than 1 s")
                                 : fmt::format(" for {} s", *link.down_for_s);
  }

  bool has_followers(const NodeFacts& master) const {
    return std::any_of(snapshot_.nodes.begin(), snapshot_.nodes.end(), [&](const auto& facts) {
      return facts.is_linked() && master_of(snapshot_, facts) == master.name;
    });
  }

  // Nobody is linked to any of them, and one was the master: do replicas still point at it alone?
  bool is_waited_for(const std::vector<std::string>& masters) const {
    if (!last_ || std::find(masters.begin(), masters.end(), last_->master) == masters.end())
      return false;
    bool is_so = false;
    for (const auto& facts : snapshot_.nodes) {
      if (!facts.answered() || facts.role != Role::replica) continue;
      const auto from = master_of(snapshot_, facts);
      if (from == last_->master)
        is_so = true;
      else if (std::find(masters.begin(), masters.end(), from) != masters.end())
        return false;
    }
    return is_so;
  }

  // Who is the right one: of the line that was last seen, or else whoever it was, with its data; or
  // the only one that is followed.
  void several_masters() {
    std::vector<std::string> right, followed;
    for (const auto& name : verdict_.masters) {
      const auto& facts = *snapshot_.node(name);
      if (last_ && redis::is_same_line(facts.lineage, last_->lineage) &&
          !is_next_to_nothing(facts.keys, last_->keys))
        right.push_back(name);
      if (has_followers(facts)) followed.push_back(name);
    }
    const auto& masters = verdict_.masters;
    if (right.empty() && last_ &&
        std::find(masters.begin(), masters.end(), last_->master) != masters.end() &&
        !is_next_to_nothing(snapshot_.node(last_->master)->keys, last_->keys))
      right.push_back(last_->master);
    verdict_.master = right.size() == 1      ? right.front()
                      : followed.size() == 1 ? followed.front()
                      : is_waited_for(right) ? last_->master
                                             : std::string();
    std::vector<std::string> others;
    for (const auto& name : verdict_.masters) {
      if (name == verdict_.master) continue;
      others.push_back(name);
      const auto& facts = *snapshot_.node(name);
      verdict_.problems.push_back(fmt::format("{} says that it is a master: line {}, {}", name,
                                              short_replid(facts.lineage),
                                              count_of(facts.keys, "key")));
    }
    conclude(
        RedisState::several_masters,
        fmt::format("{} {} say that they are the master", listed(verdict_.masters),
                    verdict_.masters.size() == 2 ? "both" : "all"),
        verdict_.master.empty()
            ? "decide which one is right, and make the other follow it (REPLICAOF)"
            : fmt::format("{} is the right one, {} to follow it; what {} lose says zx redis sync "
                          "{} --dry-run",
                          verdict_.master,
                          others.size() == 1 ? others.front() + " is" : "the others are",
                          others.size() == 1 ? "it would" : "they would",
                          others.size() == 1 ? others.front() : "--all"));
  }

  // Another line than the last master's, which a replica still has: it has taken nothing over.
  bool is_of_another_line(const NodeFacts& master) const {
    if (!last_ || redis::is_same_line(master.lineage, last_->lineage)) return false;
    if (last_->master == master.name) return false;
    return std::any_of(snapshot_.nodes.begin(), snapshot_.nodes.end(), [&](const auto& facts) {
      return facts.answered() && facts.name != master.name &&
             redis::is_same_line(facts.lineage, last_->lineage);
    });
  }

  bool is_master_of_a_sentinel(const NodeFacts& master) const {
    return std::any_of(
        snapshot_.sentinels.begin(), snapshot_.sentinels.end(), [&](const auto& one) {
          return one.answered() && one.knows_master &&
                 redis::node_at(snapshot_, one.master_host, one.master_port) == &master;
        });
  }

  // One that took over has the data, and all of the stream. Who has next to nothing, or left the
  // line before its end, while a replica that waits for a dead master has them, was told to be a
  // master by mistake. Sentinels may choose one that lacks some bytes.
  const NodeFacts* keeper_beside(const NodeFacts& master) const {
    if (last_ && last_->master == master.name) return nullptr;
    const bool is_chosen = is_master_of_a_sentinel(master);
    for (const auto& facts : snapshot_.nodes) {
      const auto* from = facts.answered() ? snapshot_.node(master_of(snapshot_, facts)) : nullptr;
      if (from == nullptr || from->answered()) continue;
      if (!is_chosen && left_before(master, facts)) return &facts;
      if (last_ && from->name == last_->master &&
          redis::is_same_line(facts.lineage, last_->lineage) &&
          is_next_to_nothing(master.keys, last_->keys) &&
          !is_next_to_nothing(facts.keys, last_->keys))
        return &facts;
    }
    return nullptr;
  }
  // Has the replica more of the line that both were on?
  static bool left_before(const NodeFacts& master, const NodeFacts& replica) {
    return master.lineage.replid2 == replica.lineage.replid &&
           replica.lineage.offset >= master.lineage.second_offset;
  }

  void one_master(const NodeFacts& master) {
    verdict_.master = master.name;
    if (const auto* keeper = keeper_beside(master)) {
      verdict_.master = master_of(snapshot_, *keeper);
      const bool is_short = left_before(master, *keeper);
      return conclude(
          RedisState::unknown,
          fmt::format("{} says that it is the master with {}, but {}, which still waits for {}, "
                      "has {}",
                      master.name, count_of(master.keys, "key"), keeper->name, verdict_.master,
                      is_short ? format_bytes(static_cast<std::uint64_t>(
                                     keeper->lineage.offset - master.lineage.second_offset + 1)) +
                                     " more of its stream"
                               : count_of(keeper->keys, "key")),
          fmt::format("start {1}, then zx redis sync {0}; or stop {0}, then zx failover redis "
                      "--dry-run",
                      master.name, verdict_.master));
    }
    if (is_of_another_line(master)) {
      verdict_.master = last_->master;
      return conclude(
          RedisState::unknown,
          fmt::format("{} says that it is the master, but its line {} is not that of {}, which "
                      "was the master",
                      master.name, short_replid(master.lineage), last_->master),
          fmt::format("start {1}, then zx redis sync {0}; or stop {0}, then zx failover redis "
                      "--dry-run",
                      master.name, last_->master));
    }
    if (is_reborn_empty(snapshot_, master, last_)) return reborn(master);
    conclude(RedisState::healthy, fmt::format("{} is the master, {} of {} nodes", master.name,
                                              snapshot_.nodes.size(), snapshot_.nodes.size()));
  }

  // It ends when a failover makes another the master, when a copy is put back, or when a person
  // says that it is meant to be empty: what is noted of the master is then what it has now.
  void reborn(const NodeFacts& master) {
    std::int64_t kept = 0;
    std::string keeper;
    for (const auto& facts : snapshot_.nodes)
      if (facts.answered() && facts.role == Role::replica && facts.keys > kept &&
          !redis::is_same_line(facts.lineage, master.lineage)) {
        kept = facts.keys;
        keeper = facts.name;
      }
    const bool is_noted = last_ && last_->master == master.name;
    const auto had = is_noted ? last_->keys : kept;
    verdict_.problems.push_back(fmt::format(
        "{}: {} came back with {} and had {}{}",
        keeper.empty() ? "the data are gone" : "the data of the master are gone", master.name,
        count_of(master.keys, "key"), had,
        is_noted ? fmt::format(" ({})", format_local(last_->at, snapshot_.at)) : std::string()));
    conclude(RedisState::master_reborn_empty,
             fmt::format("{} restarted with {} and had {}", master.name,
                         count_of(master.keys, "key"), had),
             keeper.empty()
                 ? "no replica has kept its data: zx redis restore FILE --target " + master.name
                 : fmt::format(
                       "{0} still has {1}; before it follows the empty master: zx failover redis "
                       "--to {0}",
                       keeper, count_of(kept, "key")));
    add_hint("when it is meant to be empty: zx redis sync --all --confirm " + master.name);
  }

  // Who was the master? A node that answers as a replica is not it any more.
  std::string suspect() const {
    std::vector<std::string> silent;
    for (const auto& facts : snapshot_.nodes)
      if (!facts.answered()) silent.push_back(facts.name);
    const auto is_silent = [&](const std::string& name) {
      return std::find(silent.begin(), silent.end(), name) != silent.end();
    };
    if (silent.empty())
      return last_ && snapshot_.node(last_->master) != nullptr ? last_->master : std::string();
    std::map<std::string, int> pointed_at;
    for (const auto& facts : snapshot_.nodes)
      if (facts.answered())
        if (const auto from = master_of(snapshot_, facts); is_silent(from)) ++pointed_at[from];
    if (last_ && is_silent(last_->master) &&
        (pointed_at.empty() || pointed_at.contains(last_->master)))
      return last_->master;
    if (pointed_at.size() == 1) return pointed_at.begin()->first;
    if (pointed_at.empty() && silent.size() == 1) return silent.front();
    return {};
  }

  // A replica that is linked to a server that is none of these.
  std::string strange_master() const {
    for (const auto& facts : snapshot_.nodes)
      if (facts.is_linked() && master_of(snapshot_, facts).empty())
        return fmt::format("{} is linked to {}:{}, which is none of the nodes in zx.toml",
                           facts.name, facts.link->master_host, facts.link->master_port);
    return {};
  }

  void none_answers_as_master() {
    verdict_.master = suspect();
    const auto& name = verdict_.master;
    if (name.empty() || snapshot_.node(name)->answered())
      if (const auto stranger = strange_master(); !stranger.empty())
        return conclude(RedisState::unknown, stranger + ": there is a master elsewhere",
                        "add it to the nodes of the deployment in zx.toml, or give it its address");
    if (name.empty()) {
      const bool all_answer = std::all_of(snapshot_.nodes.begin(), snapshot_.nodes.end(),
                                          [](const auto& facts) { return facts.answered(); });
      if (all_answer)
        return conclude(RedisState::no_master, "every node is a replica, none is the master",
                        kFailover);
      const bool none_answers = std::none_of(snapshot_.nodes.begin(), snapshot_.nodes.end(),
                                             [](const auto& facts) { return facts.answered(); });
      if (none_answers)
        return conclude(RedisState::unreachable, "no node answers",
                        "start the node that was the master last; the others follow it");
      return conclude(RedisState::unknown,
                      "no node answers as master, and which one it was is not known",
                      "start the node that was the master last; the others follow it");
    }
    const auto& facts = *snapshot_.node(name);
    if (facts.answered())
      return conclude(
          RedisState::no_master,
          fmt::format("{} was the master and is now a replica; none is the master", name),
          kFailover);
    switch (facts.failure) {
      case Failure::loading:
        return conclude(RedisState::master_loading, name + " is loading its data set",
                        "it is coming back; zx redis status shows when");
      case Failure::too_many_clients:
        return conclude(RedisState::master_overloaded, name + " is alive but takes no more clients",
                        "end clients there (CLIENT LIST), or raise maxclients");
      case Failure::busy:
        return conclude(RedisState::master_overloaded, name + " is alive and runs a script",
                        "end it there: SCRIPT KILL, or FUNCTION KILL");
      case Failure::refused:
      case Failure::no_route:
      case Failure::no_answer:
      case Failure::silent: return nobody_home(facts);
      default:
        return conclude(RedisState::unknown,
                        fmt::format("{} cannot be asked: {}", name,
                                    facts.error.message.empty() ? redis::says(facts.failure)
                                                                : facts.error.message.c_str()),
                        redis::proves_life(facts.failure)
                            ? "mend user and password_file of the deployment in zx.toml"
                            : "zx redis status -v says more");
    }
  }

  // Why a replica may be one that hears from the master; empty: it does not. A dead server's links
  // end within milliseconds; of a silent one the time of its last word tells. It is in whole
  // seconds, and an idle master says something every ten (repl-ping-replica-period).
  std::string hears(const NodeFacts& replica, const NodeFacts& master) const {
    if (!replica.is_linked() || master_of(snapshot_, replica) != master.name) return {};
    const auto heard = replica.link->last_io_s;
    if (!heard) return replica.name + " is linked to it, and when it heard last is not known";
    if (Millis(*heard * 1000) >= deployment_.policy.silent_after) return {};
    return fmt::format("{} heard from it {} s ago", replica.name, *heard);
  }

  // Its host sees its process at work, and it has not gone on for so long that it may never end.
  bool works_on_something(const NodeFacts& master) const {
    constexpr int kTimes = 10;
    if (!master.local || !master.local->is_working) return false;
    return std::any_of(snapshot_.nodes.begin(), snapshot_.nodes.end(), [&](const auto& facts) {
      return facts.is_linked() && master_of(snapshot_, facts) == master.name &&
             facts.link->last_io_s &&
             Millis(*facts.link->last_io_s * 1000) < kTimes * deployment_.policy.silent_after;
    });
  }

  void nobody_home(const NodeFacts& master) {
    const auto& name = master.name;
    const auto alive = [&](const std::string& who) {
      conclude(RedisState::master_unreachable,
               fmt::format("{} is alive: {}, this host does not reach it ({})", name, who,
                           redis::says(master.failure)),
               "mend the network between this host and " + name);
    };
    for (const auto& testimony : snapshot_.testimonies) {
      verdict_.evidence.push_back({testimony.observer, name, testimony.text});
      if (testimony.sees_alive) return alive(testimony.observer + " reaches it");
    }
    for (const auto& facts : snapshot_.nodes)
      if (const auto why = hears(facts, master); !why.empty()) return alive(why);
    if (works_on_something(master))
      return conclude(
          RedisState::master_overloaded,
          fmt::format("{} is alive: process {} works on one command, and answers nobody "
                      "meanwhile",
                      name, master.local->pid),
          "when it answers again SLOWLOG GET there tells which; zx redis status --watch");
    if (const auto stranger = strange_master(); !stranger.empty())
      return conclude(RedisState::unknown,
                      fmt::format("{} does not answer, and {}", name, stranger),
                      "add it to the nodes of the deployment in zx.toml");
    if (master.failure == Failure::refused)
      return conclude(
          RedisState::master_dead,
          fmt::format("{} is dead: connection refused, and no replica is linked to it", name),
          kFailover);
    conclude(RedisState::master_silent,
             fmt::format("{} is silent: {}, and no replica hears from it", name,
                         redis::says(master.failure)),
             kFailover);
  }

  // What they say is evidence; that they disagree is a problem.
  void say_of_sentinels() {
    const auto& sentinel = deployment_.sentinel;
    if (sentinel.master_name.empty()) return;
    for (const auto& one : snapshot_.sentinels) {
      const auto who = fmt::format("Sentinel {}:{}", one.address, one.port);
      const auto words = sentinel_words(snapshot_, sentinel, one);
      verdict_.evidence.push_back({who, {}, words});
    }
    add(sentinel_problems(snapshot_, sentinel, verdict_.master));
  }

  const config::RedisDeployment& deployment_;
  const Snapshot& snapshot_;
  const std::optional<RedisLastSeen>& last_;
  RedisVerdict verdict_;
};

}  // namespace

const char* name_of(RedisState state) {
  switch (state) {
    case RedisState::healthy: return "healthy";
    case RedisState::degraded: return "degraded";
    case RedisState::master_overloaded: return "master_overloaded";
    case RedisState::master_unreachable: return "master_unreachable";
    case RedisState::master_loading: return "master_loading";
    case RedisState::master_reborn_empty: return "master_reborn_empty";
    case RedisState::master_silent: return "master_silent";
    case RedisState::master_dead: return "master_dead";
    case RedisState::several_masters: return "several_masters";
    case RedisState::no_master: return "no_master";
    case RedisState::unreachable: return "unreachable";
    case RedisState::unknown: return "unknown";
  }
  return "unknown";
}

bool calls_for_failover(RedisState state) {
  return state == RedisState::master_dead || state == RedisState::master_silent ||
         state == RedisState::no_master || state == RedisState::master_reborn_empty;
}

bool is_master_by_mistake(const RedisVerdict& verdict, const std::string& name) {
  return verdict.state == RedisState::unknown && verdict.master != name;
}

bool is_reborn_empty(const Snapshot& snapshot, const NodeFacts& master,
                     const std::optional<RedisLastSeen>& last) {
  const auto is_lost = [&](std::int64_t had) { return is_next_to_nothing(master.keys, had); };
  if (last && last->master == master.name && last->run_id != master.run_id &&
      !redis::is_same_line(master.lineage, last->lineage) && is_lost(last->keys))
    return true;
  // A replica that was linked to it until it restarted, and has not followed it again yet. One that
  // never was, or lost its link before that, has keys of who knows when.
  constexpr std::int64_t kRounding = 2;
  return std::any_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
    return facts.answered() && facts.role == Role::replica &&
           master_of(snapshot, facts) == master.name &&
           !redis::is_same_line(facts.lineage, master.lineage) && is_lost(facts.keys) &&
           facts.link->down_for_s && *facts.link->down_for_s >= 0 &&
           master.uptime_s <= *facts.link->down_for_s + kRounding &&
           *facts.link->down_for_s <= master.uptime_s + kRounding;
  });
}

RedisVerdict judge(const config::RedisDeployment& deployment, const Snapshot& snapshot,
                   const std::optional<RedisLastSeen>& last) {
  return Judge(deployment, snapshot, last).run();
}

}  // namespace zx::ha
