// Where a node's WAL comes from. Timeline numbers alone say nothing: two nodes can both be on
// "timeline 2" with different switch points. Compared are the system identifier, the edges of the
// history file and, where both have it, the first bytes written on the timeline.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/lsn.h"

namespace zx::pg {

// One line of a .history file: WAL of `timeline` is valid up to `until`.
struct HistoryEdge {
  std::uint32_t timeline = 0;
  Lsn until;
  bool operator==(const HistoryEdge&) const = default;
};
using History = std::vector<HistoryEdge>;  // oldest first

// The text of NNNNNNNN.history (src/backend/access/transam/timeline.c). An Error names the line.
[[nodiscard]] Result<History> parse_history(std::string_view text);

struct Lineage {
  std::string system_id;
  std::uint32_t timeline = 0;  // 0: unknown
  // Absent: could not be read. Empty for timeline 1.
  std::optional<History> history;
  // The first bytes of each timeline on the way, as far as their segments are there:
  // "2:6d61…,3:…" in hexadecimal. The first record holds the time of the promotion, so that two
  // promotions at the same position differ. Absent: the segments are gone, or timeline 1.
  std::optional<std::string> mark;
};

enum class Kin {
  same_line,  // one continues the other; the one behind can follow the one ahead
  diverged,   // `a` has WAL that `b` does not have in its past: it must be rewound
  foreign,    // another system identifier
  unknown,    // not enough is known
};

struct Relation {
  Kin kin = Kin::unknown;
  Lsn fork;  // the last common position, valid with `diverged`
  std::string why;
  // One timeline was begun twice: histories, and pg_rewind, which reads only those, take the two
  // for one.
  bool same_names = false;
};

// Where the first bytes of a timeline are: of the one that follows `edge`.
inline constexpr std::uint64_t kMarkBytes = 48;

// Can a node of lineage `a`, with WAL up to `position`, follow a node of lineage `b`?
[[nodiscard]] Relation can_follow(const Lineage& a, Lsn position, const Lineage& b);

// "00000002000000000000000A" of timeline 2 and the segment that has `lsn`.
[[nodiscard]] std::string segment_name(std::uint32_t timeline, Lsn lsn, std::uint64_t segment_size);
// The other way, from a name without its timeline: "000000000000000A".
[[nodiscard]] std::optional<Lsn> start_of_segment(std::string_view name,
                                                  std::uint64_t segment_size);

}  // namespace zx::pg
