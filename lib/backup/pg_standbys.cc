#include "lib/backup/pg_standbys.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/os/signals.h"

namespace zx::backup {
namespace {

constexpr Millis kCatchUp{5'000};
constexpr Millis kLook{50};

std::vector<const pg::NodeFacts*> primaries_of(const pg::Snapshot& snapshot) {
  std::vector<const pg::NodeFacts*> primaries;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == pg::Role::primary) primaries.push_back(&facts);
  return primaries;
}

// That the standby receives from, as far as it is known by that address.
const pg::NodeFacts* followed_by(const pg::Snapshot& snapshot, const pg::NodeFacts& standby) {
  if (!standby.receiver) return nullptr;
  const auto& receiver = *standby.receiver;
  for (const auto& facts : snapshot.nodes)
    if (facts.port == receiver.sender_port &&
        (facts.address == receiver.sender_host || facts.host == receiver.sender_host))
      return &facts;
  return nullptr;
}

// The one with the least to do otherwise first: that is least wanted as a primary.
std::vector<const pg::NodeFacts*> standbys_of(const config::PgCluster& cluster,
                                              const pg::Snapshot& snapshot) {
  std::vector<const pg::NodeFacts*> standbys;
  for (const auto& facts : snapshot.nodes)
    if (facts.answered() && facts.role == pg::Role::standby && !facts.replay_paused &&
        facts.receiver && facts.receiver->status == "streaming")
      standbys.push_back(&facts);
  const auto priority = [&](const pg::NodeFacts* facts) {
    const auto* node = cluster.node(facts->name);
    return node == nullptr || node->nofailover ? 0 : node->priority;
  };
  std::stable_sort(standbys.begin(), standbys.end(),
                   [&](const auto* a, const auto* b) { return priority(a) < priority(b); });
  return standbys;
}

// What a standby must have replayed to be up to date.
struct Goal {
  Lsn lsn;
  std::string whose;
  Wall at{};
};

// By its own sender's last word where no primary, or more than one, says it.
Goal goal_of(const pg::Snapshot& snapshot, const pg::NodeFacts& standby) {
  const auto* primary = primary_of(snapshot);
  const auto* followed = followed_by(snapshot, standby);
  if (primary == nullptr && followed != nullptr && followed->answered() &&
      followed->role == pg::Role::primary)
    primary = followed;
  if (primary != nullptr) return {primary->written, primary->name, primary->at};
  return {
      standby.receiver->latest_end,
      followed == nullptr ? "what it was last sent" : "what it was last sent by " + followed->name,
      standby.at};
}

Error nobody(const config::PgCluster& cluster, const pg::Snapshot& snapshot) {
  std::vector<std::string> words;
  for (const auto& facts : snapshot.nodes)
    words.push_back(facts.name + ": " +
                    (facts.answered() ? pg::name_of(facts.role) : pg::says(facts.failure)));
  const auto says =
      fmt::format("no server of {} to back up from: {}", cluster.name, join(words, ", "));
  // Servers that are there and let nobody look are not away.
  const bool is_denied =
      std::any_of(snapshot.nodes.begin(), snapshot.nodes.end(), [](const pg::NodeFacts& facts) {
        return !facts.answered() &&
               (facts.failure == pg::Failure::auth || facts.failure == pg::Failure::permission);
      });
  if (!is_denied) return Error{Code::unreachable, says, "zx status says more", {}, false};
  return Error{Code::auth,
               says,
               fmt::format("pg.{0}.user and pg.{0}.password_file say as whom zx comes; the role "
                           "needs pg_monitor and pg_read_all_data",
                           cluster.name),
               {},
               false};
}

class Choice {
 public:
  Choice(const config::PgCluster& cluster, const pg::Snapshot& snapshot, const WaitForReplay& wait)
      : cluster_(cluster), snapshot_(snapshot), wait_(wait) {}

  Result<PgChosen> choose() {
    for (const auto* standby : standbys_of(cluster_, snapshot_)) {
      ZX_ASSIGN(const bool is_up_to_date, look(*standby));
      if (is_up_to_date)
        return take(
            {standby->name, true, "a standby that streams", goal_of(snapshot_, *standby).at, {}});
    }
    if (const auto* primary = primary_of(snapshot_); primary != nullptr)
      return take({primary->name,
                   false,
                   cluster_.nodes.size() == 1 ? "the only node"
                   : passed_over_.empty()     ? "no standby streams"
                                              : "no standby is up to date",
                   {},
                   {}});
    if (most_) {
      passed_over_.clear();
      return take(*std::move(most_));
    }
    if (problem_) return fail(*problem_);
    return fail(nobody(cluster_, snapshot_));
  }

 private:
  // Is it up to date, or at last?
  Result<bool> look(const pg::NodeFacts& standby) {
    const auto goal = goal_of(snapshot_, standby);
    auto replayed = standby.replayed.value_or(Lsn{});
    const auto most = cluster_.policy.max_lag;
    std::string why;
    if (primary_of(snapshot_) != nullptr && bytes_ahead(goal.lsn, replayed) > most) {
      why = ", more than max_lag " + format_bytes(most);
    } else if (replayed < goal.lsn) {
      const auto waited = wait_(standby.name, goal.lsn);
      if (!waited && os::interruption()) return fail(waited.error());
      if (!waited) {
        problem_ = waited.error();
        passed_over_.push_back(waited.error().message);
        return false;
      }
      replayed = *waited;
      why = " and does not catch up";
    }
    if (replayed >= goal.lsn) return true;
    const auto behind =
        fmt::format("{} behind {}", format_bytes(bytes_ahead(goal.lsn, replayed)), goal.whose);
    passed_over_.push_back(fmt::format("{} is {}{}", standby.name, behind, why));
    if (!most_ || replayed > replayed_) {
      most_ = PgSource{standby.name, true, "no other server can give it", {}, behind};
      replayed_ = replayed;
    }
    return false;
  }

  PgChosen take(PgSource source) const {
    PgChosen chosen;
    if (auto doubt = pg_doubt_of(snapshot_, source.node); !doubt.empty())
      chosen.warnings.push_back(std::move(doubt));
    if (!passed_over_.empty())
      chosen.warnings.push_back(fmt::format("{} was taken from {}{}: {}", cluster_.name,
                                            source.is_standby ? "" : "the primary, ", source.node,
                                            join(passed_over_, "; ")));
    chosen.source = std::move(source);
    return chosen;
  }

  const config::PgCluster& cluster_;
  const pg::Snapshot& snapshot_;
  const WaitForReplay& wait_;
  std::vector<std::string> passed_over_;
  std::optional<PgSource> most_;  // of those that lag, the one that has most
  Lsn replayed_;                  // by that one
  std::optional<Error> problem_;
};

}  // namespace

Result<PgChosen> choose_pg_source(const config::PgCluster& cluster, const pg::Snapshot& snapshot,
                                  const WaitForReplay& wait) {
  return Choice(cluster, snapshot, wait).choose();
}

const pg::NodeFacts* primary_of(const pg::Snapshot& snapshot) {
  const auto primaries = primaries_of(snapshot);
  return primaries.size() == 1 ? primaries.front() : nullptr;
}

std::string pg_doubt_of(const pg::Snapshot& snapshot, const std::string& node) {
  std::vector<std::string> names;
  for (const auto* primary : primaries_of(snapshot)) names.push_back(primary->name);
  if (names.size() < 2) return {};
  const auto* source = snapshot.node(node);
  const auto* followed = source == nullptr ? nullptr : followed_by(snapshot, *source);
  return fmt::format(
      "{} each say that they are the primary, and it is not clear which is right: this dump is of "
      "{}{}",
      join(names, " and "), node, followed == nullptr ? "" : ", which follows " + followed->name);
}

Result<Lsn> wait_for_replay(const pg::Target& standby, Lsn goal, Deadline until) {
  const auto deadline = until.at_most(kCatchUp);
  auto client = pg::Client::open(standby, deadline);
  if (!client) return fail(pg::error_of(standby, client.error()));
  while (true) {
    // An answer may come later than the last look.
    const auto rows = client->query("SELECT pg_last_wal_replay_lsn()", until.at_most(kCatchUp));
    if (!rows) return fail(pg::error_of(standby, rows.error()));
    const auto replayed = parse_lsn(rows->at(0).at(0).value_or("")).value_or(Lsn{});
    if (replayed >= goal || deadline.passed()) return replayed;
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLook);
  }
}

}  // namespace zx::backup
