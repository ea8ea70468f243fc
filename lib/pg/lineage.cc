#include "lib/pg/lineage.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::pg {

Result<History> parse_history(std::string_view text) {
  History history;
  int number = 0;
  for (const auto& raw : split(text, '\n')) {
    ++number;
    const auto line = trim(raw);
    if (line.empty() || line.front() == '#') continue;
    const auto fields_end = line.find_first_of(" \t");
    const auto wrong = [&](const char* expected) {
      return fail(Code::server, fmt::format("history file, line {}: expected {}, found \"{}\"", number,
                                            expected, first_line(line.substr(0, 60))));
    };
    if (fields_end == std::string_view::npos) return wrong("a timeline and a position");
    HistoryEdge edge;
    const auto id = line.substr(0, fields_end);
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), edge.timeline);
    if (error != std::errc{} || end != id.data() + id.size() || edge.timeline == 0) return wrong("a timeline");
    const auto rest = trim(line.substr(fields_end));
    const auto lsn = parse_lsn(rest.substr(0, rest.find_first_of(" \t")));
    if (!lsn) return wrong("a position such as 0/3000028");
    edge.until = *lsn;
    if (!history.empty() && (edge.timeline <= history.back().timeline || edge.until < history.back().until))
      return wrong("timelines and positions in ascending order");
    history.push_back(edge);
  }
  return history;
}

Relation can_follow(const Lineage& a, Lsn position, const Lineage& b) {
  if (a.system_id.empty() || b.system_id.empty()) return {Kin::unknown, {}, "system identifier unknown"};
  if (a.system_id != b.system_id)
    return {Kin::foreign, {}, fmt::format("another cluster: system identifier {}, not {}", a.system_id, b.system_id)};
  if (a.timeline == 0 || b.timeline == 0) return {Kin::unknown, {}, "timeline unknown"};

  const bool same_number = a.timeline == b.timeline;
  if (a.timeline == 1 && same_number) return {Kin::same_line, {}, {}};
  if (!b.history || (a.timeline > 1 && !a.history)) return {Kin::unknown, {}, "timeline history unknown"};

  static const History kNoEdges;
  const History& past_a = a.history ? *a.history : kNoEdges;
  const History& past_b = *b.history;
  std::size_t common = 0;
  while (common < past_a.size() && common < past_b.size() && past_a[common] == past_b[common]) ++common;

  if (same_number) {
    if (common == past_a.size() && common == past_b.size()) {
      if (a.mark && b.mark && *a.mark != *b.mark)
        return {Kin::diverged, past_b.empty() ? Lsn{} : past_b.back().until,
                fmt::format("timeline {} was begun twice at the same position", a.timeline)};
      return {Kin::same_line, {}, {}};
    }
  } else if (common == past_a.size() && common < past_b.size() && past_b[common].timeline == a.timeline) {
    // `b` was born of a's timeline at past_b[common].until.
    const Lsn fork = past_b[common].until;
    if (position <= fork) return {Kin::same_line, {}, {}};
    return {Kin::diverged, fork,
            fmt::format("has {} bytes of timeline {} after {}, where timeline {} forked off",
                        bytes_ahead(position, fork), a.timeline, to_string(fork), b.timeline)};
  } else if (common == past_b.size() && common < past_a.size() && past_a[common].timeline == b.timeline) {
    const Lsn fork = past_a[common].until;
    if (position <= fork) return {Kin::same_line, {}, {}};
    return {Kin::diverged, fork,
            fmt::format("is on timeline {}, which forked off timeline {} at {}", a.timeline, b.timeline,
                        to_string(fork))};
  }
  // The histories differ at `common`: both left the same timeline at different positions, or one
  // of them left it and the other went on.
  const auto leave = [&](const History& past) {
    return common < past.size() ? past[common].until : position;
  };
  const Lsn fork = std::min(leave(past_a), leave(past_b));
  return {Kin::diverged, fork,
          fmt::format("forked at {}: its timeline {} is not the timeline {} of the other", to_string(fork),
                      a.timeline, b.timeline)};
}

std::string segment_name(std::uint32_t timeline, Lsn lsn, std::uint64_t segment_size) {
  const std::uint64_t number = lsn.value / segment_size;
  const std::uint64_t per_log = 0x100000000ULL / segment_size;
  return fmt::format("{:08X}{:08X}{:08X}", timeline, number / per_log, number % per_log);
}

}  // namespace zx::pg
