#include "lib/ha/pg_choose.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/pg_judge.h"
#include "lib/ha/pg_proof.h"
#include "lib/pg/sync_names.h"

namespace zx::ha {
namespace {

using pg::NodeFacts;
using pg::Role;
using pg::Snapshot;
using pg::SyncNames;

// What all candidates are measured against: the line of WAL that clients wrote to.
std::optional<pg::Lineage> reference_line(const Snapshot& snapshot, const std::string& old_primary,
                                          const std::optional<LastSeen>& last) {
  if (const auto* old = snapshot.node(old_primary)) {
    if (old->answered()) return old->lineage;
    if (old->local && old->local->is_data_directory && old->local->lineage.timeline != 0)
      return old->local->lineage;
  }
  if (last && last->primary == old_primary && last->lineage.timeline != 0) return last->lineage;
  return std::nullopt;
}

class Chooser {
 public:
  Chooser(const config::PgCluster& cluster, const Snapshot& snapshot,
          const std::string& old_primary, const std::optional<LastSeen>& last,
          const ChooseOptions& options)
      : cluster_(cluster), snapshot_(snapshot), old_(old_primary), last_(last), options_(options) {}

  Choice run() {
    choice_.reference = reference_of(snapshot_, old_, last_);
    if (options_.prior && !choice_.reference.exact) {
      auto& reference = choice_.reference;
      if (options_.prior->end >= reference.end) {
        reference = *options_.prior;
      } else {
        reference.known = reference.known || options_.prior->known;
      }
    }
    find_sync_names();
    line_ = reference_line(snapshot_, old_, last_);
    for (const auto& node : cluster_.nodes)
      if (node.name != old_ || is_standby(snapshot_.node(old_))) consider(node);
    std::stable_sort(choice_.candidates.begin(), choice_.candidates.end(),
                     [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
    pick();
    return choice_;
  }

 private:
  using Rank = std::tuple<int, std::uint64_t, int, int>;
  Rank rank(const Candidate& c) const {
    const int group = c.fate == Candidate::Fate::promote ? 0
                      : c.fate == Candidate::Fate::down  ? 2
                                                         : 1;
    return {group, ~c.position.value, is_sync(c.node) ? 0 : 1, -priority_of(c.node)};
  }
  int priority_of(const std::string& node) const {
    const auto* found = cluster_.node(node);
    return found != nullptr ? found->priority : 0;
  }
  bool is_sync(const std::string& node) const {
    const auto names = pg::parse_sync_names(choice_.sync_names);
    return names && names->method != SyncNames::Method::none && names->lists(node);
  }

  std::vector<std::string> not_asked() const {
    std::vector<std::string> names;
    for (const auto& node : cluster_.nodes)
      if (node.name != old_ && !is_standby(snapshot_.node(node.name))) names.push_back(node.name);
    return names;
  }

  void find_sync_names() {
    const auto* old = snapshot_.node(old_);
    if (old != nullptr && old->answered()) {
      choice_.sync_names = old->sync_names;
      choice_.sync_known = true;
    } else if (last_ && last_->primary == old_) {
      choice_.sync_names = last_->sync_names;
      choice_.sync_known = last_->is_watched || snapshot_.at - last_->at < kLooksLast;
    }
    // What its own files say now beats what was seen a while ago.
    if (old != nullptr && old->local && old->local->sync_names_known) {
      choice_.sync_names = old->local->sync_names;
      choice_.sync_known = true;
    }
  }

  // Empty: it may be promoted. All reasons, not only the first.
  std::vector<std::string> against(const config::PgNode& node, const NodeFacts& facts,
                                   Candidate& candidate) {
    std::vector<std::string> reasons;
    if (node.nofailover) reasons.emplace_back("nofailover is set");
    if (node.priority == 0) reasons.emplace_back("priority 0");
    if (!options_.to.empty() && options_.to != node.name)
      reasons.push_back("--to names " + options_.to);
    if (line_) {
      const auto relation = pg::can_follow(facts.lineage, facts.position(), *line_);
      if (relation.kin == pg::Kin::foreign) reasons.push_back(relation.why);
      if (relation.kin == pg::Kin::diverged) reasons.push_back("diverged: " + relation.why);
      if (relation.kin == pg::Kin::unknown)
        reasons.push_back("its lineage cannot be compared: " + relation.why);
    } else if (const auto conflict = disagrees_with_others(facts); !conflict.empty()) {
      reasons.push_back(conflict);
    }
    // What the operator says is the bound, also when it is less than the policy's; 0 is no consent
    // to a loss that nobody knows.
    const auto allowed = options_.allow_loss.value_or(cluster_.policy.max_lag);
    const bool accepts_unknown = options_.allow_loss.value_or(0) > 0;
    if (candidate.lost > allowed)
      reasons.push_back(fmt::format(
          "{} behind, more than {}", format_bytes(candidate.lost),
          options_.allow_loss ? "--allow-data-loss" : "max_lag " + format_bytes(allowed)));
    if (!choice_.reference.known && !facts.receives() && !accepts_unknown)
      reasons.emplace_back(
          "how far it is behind is not known: the old primary was never seen from here and its WAL "
          "cannot be read (--allow-data-loss BYTES accepts it)");
    if (lacks_synchronous(facts))
      (accepts_unknown ? candidate.accepted : reasons)
          .push_back(fmt::format("it ends before timeline {} began, and what was acknowledged "
                                 "until then was synchronous",
                                 line_->timeline));
    const bool has_all =
        (choice_.reference.exact && candidate.lost == 0) || is_old_and_newest(facts);
    if (!has_all && choice_.sync_known) {
      const auto safety = sync_safety(choice_.sync_names, cluster_, snapshot_, old_, node.name,
                                      last_, options_.assume_fenced);
      if (safety.applies && !safety.safe)
        (accepts_unknown ? candidate.accepted : reasons).push_back(safety.why);
      if (cluster_.policy.require_sync && !safety.applies)
        reasons.emplace_back("require_sync is set and the old primary was asynchronous");
    } else if (!has_all && cluster_.policy.require_sync) {
      reasons.emplace_back(
          "require_sync is set and synchronous_standby_names of the old primary is not known");
    } else if (const auto others = not_asked(); !has_all && !old_.empty() && !others.empty()) {
      (accepts_unknown ? candidate.accepted : reasons)
          .push_back("commits may have been acknowledged by " + join(others, " or ") + " alone");
    }
    return reasons;
  }

  // Whom a failover left behind may lack commits that waited for another standby only, whatever the
  // rule is that the new primary has now.
  bool lacks_synchronous(const NodeFacts& facts) const {
    if (!line_ || !line_->history || line_->history->empty()) return false;
    // One that died right after its promotion was never seen: then the last rule is of before it.
    const bool was_sync =
        (last_ && (last_->was_sync || !last_->sync_names.empty())) || !choice_.sync_names.empty();
    return was_sync && facts.position() < line_->history->back().until;
  }

  // The old primary itself, in recovery, has all that it acknowledged.
  bool is_old_and_newest(const NodeFacts& facts) const {
    return facts.name == old_ && last_ && last_->primary == old_ &&
           facts.lineage.timeline >= last_->lineage.timeline &&
           std::none_of(snapshot_.nodes.begin(), snapshot_.nodes.end(), [&](const auto& other) {
             return other.answered() && other.lineage.timeline > facts.lineage.timeline;
           });
  }

  std::string disagrees_with_others(const NodeFacts& facts) const {
    for (const auto& other : snapshot_.nodes) {
      if (!is_standby(&other) || other.name == facts.name || other.name == old_) continue;
      auto relation = pg::can_follow(facts.lineage, facts.position(), other.lineage);
      if (relation.kin != pg::Kin::same_line) {
        const auto back = pg::can_follow(other.lineage, other.position(), facts.lineage);
        if (back.kin == pg::Kin::same_line) continue;
        return fmt::format(
            "it and {} are of different lines, and which one the old primary was on is not known",
            other.name);
      }
    }
    return {};
  }

  void consider(const config::PgNode& node) {
    Candidate candidate;
    candidate.node = node.name;
    const auto* facts = snapshot_.node(node.name);
    if (!is_standby(facts)) {
      candidate.fate = Candidate::Fate::down;
      if (facts != nullptr && facts->answered() && line_) {
        const auto relation = pg::can_follow(facts->lineage, facts->position(), *line_);
        if (relation.kin == pg::Kin::foreign) candidate.reasons.push_back(relation.why);
      }
      candidate.reasons.emplace_back(facts == nullptr    ? "not asked"
                                     : facts->answered() ? "not a standby"
                                                         : pg::says(facts->failure));
      choice_.candidates.push_back(std::move(candidate));
      return;
    }
    candidate.position = facts->position();
    candidate.timeline = facts->lineage.timeline;
    candidate.lost = bytes_ahead(choice_.reference.end, candidate.position);
    const auto reasons = against(node, *facts, candidate);
    if (reasons.empty()) {
      candidate.fate = Candidate::Fate::promote;  // pick() leaves it to the best one
      candidate.reasons.push_back(fmt::format("timeline {}, received {}", candidate.timeline,
                                              to_string(candidate.position)));
      candidate.reasons.push_back(fmt::format("priority {}", node.priority));
      if (is_sync(node.name)) candidate.reasons.emplace_back("synchronous");
      for (const auto& risk : candidate.accepted)
        candidate.reasons.push_back("accepted by --allow-data-loss: " + risk);
      if (facts->replay_paused)
        candidate.reasons.emplace_back("its replay is paused and will be resumed");
    } else {
      candidate.reasons = reasons;
      candidate.fate = Candidate::Fate::excluded;
    }
    choice_.candidates.push_back(std::move(candidate));
  }

  void pick() {
    auto& all = choice_.candidates;
    if (all.empty() || all.front().fate != Candidate::Fate::promote) {
      std::vector<std::string> why;
      for (const auto& c : all) why.push_back(c.node + ": " + join(c.reasons, "; "));
      Error error{Code::refused, "no standby may be promoted", {}, why, false};
      error.hint =
          "start the server of a node that is down, it may have what is missing, and look again: "
          "zx "
          "failover pg --dry-run; or accept a loss: --allow-data-loss BYTES";
      if (all.empty()) error.hint = "there is no standby";
      choice_.refusal = std::move(error);
      return;
    }
    auto& best = all.front();
    choice_.promote = best.node;
    choice_.lost = best.lost;
    const auto* winner = snapshot_.node(best.node);
    for (auto& c : all) {
      if (&c == &best || c.fate == Candidate::Fate::down) continue;
      const auto* facts = snapshot_.node(c.node);
      const bool was_eligible = c.fate == Candidate::Fate::promote;
      auto relation = pg::can_follow(facts->lineage, facts->position(), winner->lineage);
      const bool ahead = relation.kin == pg::Kin::same_line && c.position > best.position;
      if (relation.kin == pg::Kin::same_line && !ahead) {
        c.fate = Candidate::Fate::follow;
        if (was_eligible)
          c.reasons = {c.position < best.position
                           ? fmt::format("{} behind {}",
                                         format_bytes(bytes_ahead(best.position, c.position)),
                                         best.node)
                       : is_sync(best.node) && !is_sync(c.node) ? best.node + " is synchronous"
                       : priority_of(c.node) < priority_of(best.node)
                           ? fmt::format("as far, but priority {} is lower", priority_of(c.node))
                           : fmt::format("as far, and {} comes first in zx.toml", best.node)};
      } else {
        c.fate = Candidate::Fate::rejoin;
        if (was_eligible || ahead)
          c.reasons.push_back(fmt::format("{} ahead of {}: it must be rewound",
                                          format_bytes(bytes_ahead(c.position, best.position)),
                                          best.node));
      }
    }
  }

  const config::PgCluster& cluster_;
  const Snapshot& snapshot_;
  const std::string& old_;
  const std::optional<LastSeen>& last_;
  const ChooseOptions& options_;
  std::optional<pg::Lineage> line_;
  Choice choice_;
};

}  // namespace

const char* name_of(Candidate::Fate fate) {
  switch (fate) {
    case Candidate::Fate::promote: return "promote";
    case Candidate::Fate::follow: return "follow";
    case Candidate::Fate::rejoin: return "rejoin";
    case Candidate::Fate::down: return "down";
    case Candidate::Fate::excluded: return "excluded";
  }
  return "excluded";
}

Reference reference_of(const Snapshot& snapshot, const std::string& old_primary,
                       const std::optional<LastSeen>& last) {
  Reference reference;
  const auto* old = snapshot.node(old_primary);
  // A copy from another day, or one that is damaged, ends before what was seen of it.
  const auto is_whole = [&](Lsn end) {
    if (last && last->primary == old_primary && last->flushed > end) return false;
    return std::none_of(snapshot.nodes.begin(), snapshot.nodes.end(), [&](const auto& facts) {
      return is_standby(&facts) && facts.name != old_primary && facts.receiver &&
             facts.receiver->latest_end > end;
    });
  };
  if (old != nullptr && old->local && old->local->wal_end && is_whole(*old->local->wal_end)) {
    reference.end = *old->local->wal_end;
    reference.exact = reference.known = true;
    reference.source = "read from its WAL on its host";
  } else if (old != nullptr && old->answered()) {
    reference.end = old->position();
    reference.known = true;
    reference.source = "its own answer";
  } else if (last && last->primary == old_primary) {
    reference.end = last->flushed;
    reference.known = true;
    reference.source =
        fmt::format("as it was {} ago",
                    format_duration(std::chrono::duration_cast<Millis>(snapshot.at - last->at)));
  }
  if (reference.exact) return reference;
  const auto line = reference_line(snapshot, old_primary, last);
  const auto is_of_another_line = [&](const NodeFacts& facts) {
    if (!line) return false;
    const auto kin = pg::can_follow(facts.lineage, facts.position(), *line).kin;
    return kin == pg::Kin::foreign || kin == pg::Kin::diverged;
  };
  // Whatever a standby has, or has been told of, the primary had.
  for (const auto& facts : snapshot.nodes) {
    if (!is_standby(&facts) || facts.name == old_primary || is_of_another_line(facts)) continue;
    auto end = facts.position();
    if (facts.receiver) end = std::max(end, facts.receiver->latest_end);
    if (end > reference.end) {
      reference.end = end;
      reference.source = "what " + facts.name + " has of it";
      if (facts.receives()) reference.known = true;
    }
  }
  return reference;
}

Choice choose(const config::PgCluster& cluster, const Snapshot& snapshot,
              const std::string& old_primary, const std::optional<LastSeen>& last,
              const ChooseOptions& options) {
  return Chooser(cluster, snapshot, old_primary, last, options).run();
}

}  // namespace zx::ha
