#include "lib/ha/redis_choose.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "lib/base/count.h"
#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/ha/redis_problems.h"

namespace zx::ha {
namespace {

using redis::NodeFacts;
using redis::Role;
using redis::Snapshot;
using Fate = RedisCandidate::Fate;

// How long what was seen of the master's stream is taken to be near its end.
constexpr std::chrono::seconds kMoment{60};

std::uint64_t ahead(std::int64_t to, std::int64_t from) {
  return to > from ? static_cast<std::uint64_t>(to - from) : 0;
}

// It was linked to `master` until a moment ago, or is: it is on its line.
bool was_linked_to(const Snapshot& snapshot, const NodeFacts& facts, const std::string& master) {
  if (!facts.answered() || facts.role != Role::replica || !facts.link || facts.link->is_syncing ||
      master_of(snapshot, facts) != master)
    return false;
  const auto down = facts.link->down_for_s.value_or(-1);
  return facts.link->is_up || (down >= 0 && std::chrono::seconds(down) < kMoment);
}

// How far it is on the line of `master`. One that was a master itself since then, and has not come
// in line again, has bytes of its own behind where it left that line.
std::int64_t position_on(const std::optional<redis::Lineage>& line, const Snapshot& snapshot,
                         const NodeFacts& facts, const std::string& master) {
  const auto& own = facts.lineage;
  const bool has_left = line && own.replid != line->replid && own.replid2 == line->replid &&
                        !was_linked_to(snapshot, facts, master);
  return has_left ? std::min(own.offset, own.second_offset - 1) : own.offset;
}

// Was it linked to the master after that was last seen? Redis takes the difference of two times in
// whole seconds, which is up to a second too short or too long.
enum class Linked { before, unclear, after };
Linked linked(const Snapshot& snapshot, const NodeFacts& facts, Wall seen) {
  constexpr std::chrono::seconds kWhole{1};
  if (facts.link->is_up) return Linked::after;
  const auto latest = snapshot.at - std::chrono::seconds(facts.link->down_for_s.value_or(0));
  if (latest - kWhole > seen) return Linked::after;
  return latest + kWhole > seen ? Linked::unclear : Linked::before;
}

// The stream that clients wrote to, which every candidate is measured against.
struct MasterLine {
  std::optional<redis::Lineage> line;
  bool is_clear = true;  // false: replicas are on different lines, and either may be it
};

// A master that has restarted since it was last seen has begun another line, on which are the
// replicas that were linked to it afterwards. It must have its data: a tenth is what one that came
// back empty may have of new keys.
MasterLine line_since(const Snapshot& snapshot, const RedisLastSeen& last) {
  constexpr std::int64_t kPart = 10;
  const NodeFacts* newer = nullptr;
  bool is_followed_still = false, is_sure = false;
  for (const auto& facts : snapshot.nodes) {
    if (!was_linked_to(snapshot, facts, last.master)) continue;
    if (redis::is_same_line(facts.lineage, last.lineage)) {
      is_followed_still = true;
      continue;
    }
    const auto when = linked(snapshot, facts, last.at);
    if (when == Linked::before || facts.keys * kPart < last.keys) continue;
    if (newer != nullptr && !redis::is_same_line(facts.lineage, newer->lineage))
      return {last.lineage, false};
    newer = &facts;
    is_sure = is_sure || when == Linked::after;
  }
  if (newer == nullptr) return {last.lineage};
  if (is_sure || !is_followed_still) return {newer->lineage};
  return {last.lineage, false};
}

MasterLine known_line(const Snapshot& snapshot, const std::string& old,
                      const std::optional<RedisLastSeen>& last) {
  if (last && last->master == old && !last->lineage.replid.empty())
    return line_since(snapshot, *last);
  const auto* facts = snapshot.node(old);
  if (facts == nullptr || !facts->answered() || is_reborn_empty(snapshot, *facts, last)) return {};
  return {facts->lineage};
}

// It went on at least as far as a replica has it: one that left the line before that, and wrote by
// itself, does not go on with it.
MasterLine reference_line(const Snapshot& snapshot, const std::string& old,
                          const std::optional<RedisLastSeen>& last) {
  auto found = known_line(snapshot, old, last);
  if (!found.line) return found;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.lineage.replid == found.line->replid)
      found.line->offset = std::max(found.line->offset, facts.lineage.offset);
  return found;
}

class Chooser {
 public:
  Chooser(const config::RedisDeployment& deployment, const Snapshot& snapshot,
          const std::string& old_master, const std::optional<RedisLastSeen>& last,
          const RedisChooseOptions& options)
      : deployment_(deployment),
        snapshot_(snapshot),
        old_(old_master),
        last_(last),
        options_(options) {}

  RedisChoice run() {
    choice_.reference = reference_of(snapshot_, old_, last_);
    if (options_.prior && options_.prior->end >= choice_.reference.end && !choice_.reference.exact)
      choice_.reference = *options_.prior;
    const auto found = reference_line(snapshot_, old_, last_);
    line_ = found.line;
    is_clear_ = found.is_clear;
    for (const auto& node : deployment_.nodes) {
      const auto* facts = snapshot_.node(node.name);
      const bool is_replica = facts != nullptr && facts->answered() && facts->role == Role::replica;
      if (node.name != old_ || is_replica) consider(node, facts);
    }
    std::stable_sort(choice_.candidates.begin(), choice_.candidates.end(),
                     [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    pick();
    return choice_;
  }

 private:
  using Rank = std::tuple<int, bool, std::int64_t, int>;
  // Whoever takes no writes is no master for clients, however far it is.
  Rank rank(const RedisCandidate& c) const {
    const int group = c.fate == Fate::promote ? 0 : c.fate == Fate::down ? 2 : 1;
    return {group, !why_no_writes(c.node).empty(), -c.position, -priority_of(c.node)};
  }
  // Of a server that refuses writes for a reason of its own; empty: it takes them.
  std::string why_no_writes(const std::string& node) const {
    const auto* facts = snapshot_.node(node);
    if (facts == nullptr || !facts->answered()) return {};
    const auto& disk = facts->persistence;
    if (!disk.last_save_ok) return "it cannot save, and may refuse writes (MISCONF)";
    if (disk.aof && !disk.aof_last_write_ok) return "it cannot write its AOF (MISCONF)";
    return {};
  }
  int priority_of(const std::string& node) const {
    const auto* found = deployment_.node(node);
    return found != nullptr ? found->priority : 0;
  }

  // A named risk speaks against it only while the operator has not accepted it.
  void risk(const std::string& what, RedisCandidate& c, std::vector<std::string>& reasons) const {
    (options_.allow_loss && (options_.to.empty() || options_.to == c.node) ? c.accepted : reasons)
        .push_back(what);
  }

  // Is what it has all that is left of the stream, as far as can be said?
  void weigh_loss(const NodeFacts& facts, RedisCandidate& c,
                  std::vector<std::string>& reasons) const {
    if (!is_clear_ || (line_ && !redis::is_same_line(facts.lineage, *line_))) {
      // Naming the node is part of the word: no other rule leads to it.
      const auto what =
          !is_clear_ ? fmt::format("its line ({}) may not be the one that the master had last",
                                   short_replid(facts.lineage))
                     : fmt::format(
                           "it is of another line ({}) than the master's ({}), at offset {}",
                           short_replid(facts.lineage), short_replid(*line_), facts.lineage.offset);
      if (options_.to == c.node)
        risk(what, c, reasons);
      else
        reasons.push_back(what);
      return;
    }
    if (!choice_.reference.known) {
      risk("where the master's stream ended is not known", c, reasons);
      return;
    }
    const auto most = options_.allow_loss.value_or(deployment_.policy.max_lag);
    if (c.lost <= most) return;
    reasons.push_back(fmt::format("it lacks {} of the master's stream, more than {}",
                                  format_bytes(c.lost), format_bytes(most)));
  }

  // Empty: it may be promoted. All reasons, not only the first.
  std::vector<std::string> against(const config::RedisNode& node, const NodeFacts& facts,
                                   RedisCandidate& c) const {
    std::vector<std::string> reasons;
    if (node.priority == 0) reasons.emplace_back("priority 0");
    if (!options_.to.empty() && options_.to != node.name)
      reasons.push_back("--to names " + options_.to);
    if (facts.role == Role::master) {
      reasons.emplace_back("it says that it is a master itself");
      return reasons;
    }
    if (facts.min_replicas_to_write == redis::kHeldReplicas)
      reasons.emplace_back("it would refuse every write, as a restore has set it");
    if (facts.persistence.is_loading) reasons.emplace_back("it is loading its data set");
    if (facts.link && facts.link->is_syncing)
      reasons.emplace_back("it is in a full resync: its data set is not whole");
    weigh_loss(facts, c, reasons);
    return reasons;
  }

  void consider(const config::RedisNode& node, const NodeFacts* facts) {
    RedisCandidate c;
    c.node = node.name;
    if (facts == nullptr || !facts->answered()) {
      c.fate = Fate::down;
      c.reasons.emplace_back(facts == nullptr      ? "not asked"
                             : facts->is_loading() ? "it is loading its data set"
                                                   : redis::says(facts->failure));
      choice_.candidates.push_back(std::move(c));
      return;
    }
    c.lineage = facts->lineage;
    c.keys = facts->keys;
    c.position = position_on(line_, snapshot_, *facts, old_);
    c.lost = ahead(choice_.reference.end, c.position);
    auto reasons = against(node, *facts, c);
    if (reasons.empty()) {
      c.fate = Fate::promote;  // pick() leaves it to the best one
      c.reasons.push_back(fmt::format("offset {}, {}", c.lineage.offset, count_of(c.keys, "key")));
      c.reasons.push_back(fmt::format("priority {}", node.priority));
      if (auto why = why_no_writes(node.name); !why.empty()) c.reasons.push_back(std::move(why));
      for (const auto& accepted : c.accepted)
        c.reasons.push_back("accepted by --allow-data-loss: " + accepted);
    } else {
      c.reasons = std::move(reasons);
    }
    choice_.candidates.push_back(std::move(c));
  }

  void refuse() {
    std::vector<std::string> why;
    std::string other_line;
    std::int64_t kept = 0;
    for (const auto& c : choice_.candidates) {
      why.push_back(c.node + ": " + join(c.reasons, "; "));
      if (c.fate != Fate::excluded || !line_ || redis::is_same_line(c.lineage, *line_)) continue;
      // One that is empty has nothing to be taken instead.
      if (c.keys > kept) other_line = c.node;
      kept = std::max(kept, c.keys);
    }
    Error error{Code::refused, "no replica may be promoted", {}, why, false};
    error.hint =
        choice_.candidates.empty() ? "there is no replica"
        : is_all_gone() ? "none that answers has a key left: start a node that is down, it "
                          "may have its data; or put a copy back: zx redis restore FILE --target " +
                              old_
        : !is_clear_
            ? "start the server that was the master, it has what was written; or take what one of "
              "them has: --to NODE --allow-data-loss BYTES (keys: zx redis status)"
        : other_line.empty()
            ? "start the server of a node that is down, it may have what is missing, and look "
              "again: zx failover redis --dry-run; or accept a loss: --allow-data-loss BYTES"
            : fmt::format(
                  "start a node that has the master's line; or take what {0} has instead: "
                  "--to {0} --allow-data-loss BYTES",
                  other_line);
    choice_.refusal = std::move(error);
  }

  // The master had keys, and nobody who answers has any.
  bool is_all_gone() const {
    if (!last_ || last_->keys == 0 || old_.empty()) return false;
    bool anybody = false;
    for (const auto& facts : snapshot_.nodes) {
      if (!facts.answered()) continue;
      if (facts.keys > 0) return false;
      anybody = true;
    }
    return anybody;
  }

  void pick() {
    auto& all = choice_.candidates;
    if (all.empty() || all.front().fate != Fate::promote) return refuse();
    auto& best = all.front();
    choice_.promote = best.node;
    choice_.lost = best.lost;
    choice_.is_of_another_line = line_ && !redis::is_same_line(best.lineage, *line_);
    for (auto& c : all) {
      if (&c == &best || c.fate == Fate::down) continue;
      const bool was_eligible = c.fate == Fate::promote;
      const auto* facts = snapshot_.node(c.node);
      if (facts->role == Role::master) continue;  // nothing is done to it
      if (!redis::is_prefix_of(c.lineage, best.lineage)) {
        c.fate = Fate::resync;
        if (was_eligible)
          c.reasons = {fmt::format("{} ahead of {}: it must be sent everything anew",
                                   format_bytes(ahead(c.lineage.offset, best.lineage.offset)),
                                   best.node)};
        if (auto why = why_no_writes(c.node); was_eligible && !why.empty())
          c.reasons.push_back(std::move(why));
        continue;
      }
      c.fate = Fate::follow;
      if (auto why = why_no_writes(c.node); was_eligible && !why.empty())
        c.reasons = {std::move(why)};
      else if (was_eligible)
        c.reasons = {c.lineage.offset < best.lineage.offset
                         ? fmt::format("{} behind {}",
                                       format_bytes(ahead(best.lineage.offset, c.lineage.offset)),
                                       best.node)
                     : priority_of(c.node) < priority_of(best.node)
                         ? fmt::format("as far, but priority {} is lower", priority_of(c.node))
                         : fmt::format("as far, and {} comes first in zx.toml", best.node)};
    }
  }

  const config::RedisDeployment& deployment_;
  const Snapshot& snapshot_;
  const std::string& old_;
  const std::optional<RedisLastSeen>& last_;
  const RedisChooseOptions& options_;
  std::optional<redis::Lineage> line_;
  bool is_clear_ = true;
  RedisChoice choice_;
};

}  // namespace

const char* name_of(Fate fate) {
  switch (fate) {
    case Fate::promote: return "promote";
    case Fate::follow: return "follow";
    case Fate::resync: return "resync";
    case Fate::down: return "down";
    case Fate::excluded: return "excluded";
  }
  return "excluded";
}

RedisReference reference_of(const Snapshot& snapshot, const std::string& old_master,
                            const std::optional<RedisLastSeen>& last) {
  RedisReference reference;
  const auto* old = snapshot.node(old_master);
  const auto line = reference_line(snapshot, old_master, last).line;
  const bool is_last =
      last && last->master == old_master && line && redis::is_same_line(*line, last->lineage);
  if (old != nullptr && old->answered() && !is_reborn_empty(snapshot, *old, last) &&
      (!line || redis::is_same_line(old->lineage, *line))) {
    reference = {old->lineage.offset, false, true, "its own answer"};
    // One that has been a replica since gained nothing of its own.
    reference.exact = old->role == Role::replica;
  } else if (is_last) {
    // It may have gone on for as long as nobody has looked.
    reference = {
        last->lineage.offset, false, snapshot.at - last->at < kMoment,
        fmt::format("as it was {} ago",
                    format_duration(std::chrono::duration_cast<Millis>(snapshot.at - last->at)))};
  }
  if (reference.exact) return reference;
  // Whatever a replica has, the master had. One that heard of it until a moment ago knows where it
  // was.
  for (const auto& facts : snapshot.nodes) {
    if (!facts.answered() || facts.role != Role::replica || facts.name == old_master) continue;
    if (line && !redis::is_same_line(facts.lineage, *line)) continue;
    if (!line && master_of(snapshot, facts) != old_master) continue;
    reference.known |= was_linked_to(snapshot, facts, old_master);
    const auto position = position_on(line, snapshot, facts, old_master);
    if (position >= reference.end) {
      reference.end = position;
      reference.source = "what " + facts.name + " has of it";
    }
  }
  return reference;
}

RedisChoice choose(const config::RedisDeployment& deployment, const Snapshot& snapshot,
                   const std::string& old_master, const std::optional<RedisLastSeen>& last,
                   const RedisChooseOptions& options) {
  return Chooser(deployment, snapshot, old_master, last, options).run();
}

Resync resync_of(const NodeFacts& replica, const NodeFacts& master) {
  Resync resync;
  if (!redis::is_prefix_of(replica.lineage, master.lineage)) {
    resync.bytes = master.memory_used;
    resync.why =
        redis::is_same_line(replica.lineage, master.lineage)
            ? fmt::format("it is {} ahead of {}",
                          format_bytes(ahead(replica.lineage.offset, master.lineage.offset)),
                          master.name)
            : fmt::format("it is of another line ({}) than {} ({})", short_replid(replica.lineage),
                          master.name, short_replid(master.lineage));
    return resync;
  }
  const auto next = replica.lineage.offset + 1;
  const auto behind = ahead(master.lineage.offset, replica.lineage.offset);
  if (master.backlog_first > 0 && next >= master.backlog_first &&
      next <= master.backlog_first + master.backlog_length) {
    resync.is_partial = true;
    resync.bytes = behind;
    return resync;
  }
  resync.bytes = master.memory_used;
  resync.why =
      master.backlog_length == 0
          ? master.name + " has no backlog"
          : fmt::format(
                "it is {} behind, and the backlog of {} reaches back {} "
                "(repl-backlog-size {})",
                format_bytes(behind), master.name,
                format_bytes(
                    static_cast<std::uint64_t>(std::max<std::int64_t>(0, master.backlog_length))),
                format_bytes(
                    static_cast<std::uint64_t>(std::max<std::int64_t>(0, master.backlog_size))));
  return resync;
}

}  // namespace zx::ha
