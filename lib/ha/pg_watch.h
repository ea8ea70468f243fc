// What an agent does next about one cluster. Pure: what is seen and what is remembered go in, one
// decision comes out.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "lib/ha/pg_judge.h"
#include "lib/ha/watch_record.h"
#include "lib/run/journal.h"

namespace zx::ha {

// A server said, as it ended our connection, that somebody had told it to stop: "fast" or
// "immediate".
struct PlannedStop {
  std::string node, mode;
  Monotonic at{};
};

struct Sight {
  const config::PgCluster& cluster;
  const pg::Snapshot& snapshot;
  const PgVerdict& verdict;
  const WatchRecord& record;
  bool leads = false;
  std::string why_not_leading = {};
  int regions_agree = 1;                 // that see no life in the primary, this one included
  std::optional<run::Record> open = {};  // an unfinished run, and nobody is at work on it
  std::optional<PlannedStop> planned = {};
  std::optional<Monotonic> answered = {};  // when the primary of the verdict answered last
  Monotonic now = {};
  Wall wall = {};
};

// What one agent remembers of a cluster from look to look; lost with the process, which costs time
// and no safety.
struct WatchMemory {
  std::string gone;  // the primary that has not answered since
  Monotonic gone_since{};
  std::map<std::string, Monotonic> adrift;  // standbys that follow nobody, since
  struct Tries {
    int failed = 0;
    Monotonic next{};
  };
  std::map<std::string, Tries> tries;  // by what was tried: "failover", "rejoin pg-a"
  // Nodes of which a rejoin has found that only a rebuild helps, and how things stood then.
  struct BeyondRewind {
    std::string primary, why;
    bool answered = false;
  };
  std::map<std::string, BeyondRewind> beyond_rewind;
  std::set<std::string> away;  // nodes whose host does not answer
  // Spans of the record, counted from when they were first seen.
  struct Span {
    std::string id;
    Monotonic until{};
  };
  Span flap, pause;
};
void remember(WatchMemory& memory, const Sight& sight);
// A span of the record, which began at `at` by the wall clock, from when it is first seen; an empty
// id ends it.
void count_down(WatchMemory::Span& span, const std::string& id, Wall at, Millis whole,
                Monotonic now, Wall wall);
// After each attempt the next one waits longer: 0.5 s, doubled up to 30 s; for a rejoin 2 s up to
// 5 min.
void note_failure(WatchMemory& memory, const std::string& what, Monotonic now);
void note_success(WatchMemory& memory, const std::string& what);

enum class Act { none, failover, resume, repoint, rejoin, fence, sync };
[[nodiscard]] const char* name_of(Act act);

struct Decision {
  Act act = Act::none;
  std::string subject;      // the node, or the run of `resume`
  std::string why;          // a sentence: why this, or why nothing although something is wrong
  bool is_blocked = false;  // something should be done, and a person or another agent must do it
  std::string remedy = {};  // what that person types behind `zx`; empty: nobody is needed yet
  // Of what was tried, for note_failure().
  [[nodiscard]] std::string key() const;
};
// After remember() of the same sight.
[[nodiscard]] Decision decide(const Sight& sight, const WatchMemory& memory);

// Why `primary`, the only one that answers as such, may not be the right one: a failover gave it
// up, and who took over does not answer. Empty: nothing speaks against it.
[[nodiscard]] std::string doubt_of(const WatchRecord& record, const pg::Snapshot& snapshot,
                                   const std::string& primary);

// A standby on a later timeline than `primary`, of which it is no standby any more: somebody took
// over. Null: none.
[[nodiscard]] const pg::NodeFacts* ahead_of(const pg::Snapshot& snapshot,
                                            const pg::NodeFacts& primary);

// Why `node` must not follow `primary` unless a person names it: it is on a later timeline than the
// only primary, and has what was committed there. `line`: its own. Empty: it is not.
[[nodiscard]] std::string newer_than(const std::string& node, const pg::Lineage& line,
                                     const pg::NodeFacts& primary);
// What a person does then. As a standby it tells what it has not acknowledged.
[[nodiscard]] std::string way_back(const pg::NodeFacts& primary, const std::string& ahead);
// The run that gave `node` up, by what this host or all hosts have noted; empty: none is known.
[[nodiscard]] std::string given_up_in(const std::vector<FenceDebt>& debts,
                                      const WatchRecord* record, const std::string& node);
// A failover gave `node` up, and promoted `primary` in its place.
[[nodiscard]] bool gave_way_to(const WatchRecord& record, const std::string& node,
                               const std::string& primary);

// Whom an earlier failover from `primary` may have promoted, when it does not answer: it may be a
// primary that nobody sees. Empty: nobody.
[[nodiscard]] std::string heir_of(const WatchRecord& record, const pg::Snapshot& snapshot,
                                  const std::string& primary);

// Why `primary` is not the one to fail over from: it was given up, and who took over was not seen.
// Empty: it is.
[[nodiscard]] std::string missed_successor(const WatchRecord& record, const pg::Snapshot& snapshot,
                                           const std::string& primary);

// Who took over from `primary` in the last failover, when it answers in recovery and nobody is on a
// later line: what was committed there is there. Null: nobody, or it is not certain.
[[nodiscard]] const pg::NodeFacts* successor_of(const WatchRecord& record,
                                                const pg::Snapshot& snapshot,
                                                const std::string& primary);

// All that had to be done is; what is left are steps without which the cluster serves.
[[nodiscard]] bool has_only_leftovers(const run::Record& open);
// It ended before it came to some of its steps, as when its zx was killed. A step that failed has
// been tried.
[[nodiscard]] bool was_cut_short(const run::Record& open);
// Whom the run makes the primary, as far as it got; of a rejoin, whom the node is to follow.
[[nodiscard]] std::string primary_after(const run::Record& record);

}  // namespace zx::ha
