// What all agents of a platform must know about one cluster, kept by the coordinator: the last
// failover, a pause, and which nodes are to be brought back. Times are wall clock; whoever reads
// them counts what is left of a span by its own monotonic clock, so that a clock that jumps opens
// nothing early twice.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"

namespace zx::ha {

// A failover asks for fewer synchronous standbys than before when fewer are left, so that commits
// do not hang: what is to come back when they do.
struct SyncDebt {
  std::string wanted;   // synchronous_standby_names, were all nodes there
  std::string reduced;  // what it was set to; anything else now: somebody has settled it
  std::string run;
  bool operator==(const SyncDebt&) const = default;
};

struct WatchRecord {
  struct Failover {
    Wall at{};
    std::string run, from, to;
    bool is_acknowledged = false;
    std::uint32_t timeline = 0;  // that `to` began; 0: not known
    // A person did it: the next one by an agent need not wait.
    bool by_hand = false;
    bool operator==(const Failover&) const = default;
  };
  std::optional<Failover> last;

  // A failover that an agent, or a person, is about to carry out, noted before: it may die with the
  // promotion done and nobody told.
  struct Begun {
    std::string agent, from, to, proof;
    Wall at{};
    bool operator==(const Begun&) const = default;
  };
  std::optional<Begun> begun;

  // Maintenance: nobody acts on the cluster by itself.
  struct Pause {
    std::string id;  // tells one pause from the next
    Wall at{};
    Millis span{0};
    std::string why;
    bool operator==(const Pause&) const = default;
  };
  std::optional<Pause> pause;

  // Nodes that a failover has left behind. `proof` is empty when zx stopped it on its
  // host; else what was taken as a proof instead, and it must be stopped as soon as it is seen
  // again.
  struct Owed {
    std::string node, run, proof;
    Wall since{};
    std::string to{};  // who was promoted in its place, when no failover tells it: `last` does else
    bool operator==(const Owed&) const = default;
  };
  std::vector<Owed> owed;
  std::optional<SyncDebt> sync_owed;

  [[nodiscard]] const Owed* owes(const std::string& node) const;
  void owe(const Owed& one);  // in the place of what was owed to the node before
  void forgive(const std::string& node);
  void begin(const Begun& now);
  // `who` has promoted. `after`: the failover that was the last when he began. Nothing is noted
  // when another one has been begun, or done, since then: he stood still meanwhile.
  void promote(const std::string& who, const Failover& done, const std::string& proof,
               const std::optional<std::string>& after);
  bool operator==(const WatchRecord&) const = default;
};

inline constexpr Millis kLongestPause{7 * 24 * 3'600'000LL};

// The coordinator's key of a cluster's record.
[[nodiscard]] std::string watch_key(const std::string& cluster);
[[nodiscard]] Json to_json(const WatchRecord& record);
// An empty text is an empty record. A pause is never longer than kLongestPause.
[[nodiscard]] Result<WatchRecord> watch_record_from(const std::string& text);

}  // namespace zx::ha
