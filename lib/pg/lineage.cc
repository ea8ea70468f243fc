#include "lib/pg/lineage.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::pg {
namespace {

// No end yet.
constexpr Lsn kOpen{~std::uint64_t{0}};

// What is known of the first bytes of `timeline`; empty: nothing.
std::string_view mark_of(const Lineage& lineage, std::uint32_t timeline) {
  if (!lineage.mark) return {};
  std::string_view rest = *lineage.mark;
  const auto wanted = fmt::format("{}:", timeline);
  while (!rest.empty()) {
    const auto one = rest.substr(0, rest.find(','));
    if (one.starts_with(wanted)) return one.substr(wanted.size());
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
  }
  return {};
}

}  // namespace

Result<History> parse_history(std::string_view text) {
  History history;
  int number = 0;
  for (const auto& raw : split(text, '\n')) {
    ++number;
    const auto line = trim(raw);
    if (line.empty() || line.front() == '#') continue;
    const auto fields_end = line.find_first_of(" \t");
    const auto wrong = [&](const char* expected) {
      return fail(Code::server, fmt::format("history file, line {}: expected {}, found \"{}\"",
                                            number, expected, first_line(line.substr(0, 60))));
    };
    if (fields_end == std::string_view::npos) return wrong("a timeline and a position");
    HistoryEdge edge;
    const auto id = line.substr(0, fields_end);
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), edge.timeline);
    if (error != std::errc{} || end != id.data() + id.size() || edge.timeline == 0)
      return wrong("a timeline");
    const auto rest = trim(line.substr(fields_end));
    const auto lsn = parse_lsn(rest.substr(0, rest.find_first_of(" \t")));
    if (!lsn) return wrong("a position such as 0/3000028");
    edge.until = *lsn;
    if (!history.empty() &&
        (edge.timeline <= history.back().timeline || edge.until < history.back().until))
      return wrong("timelines and positions in ascending order");
    history.push_back(edge);
  }
  return history;
}

Relation can_follow(const Lineage& a, Lsn position, const Lineage& b) {
  if (a.system_id.empty() || b.system_id.empty())
    return {Kin::unknown, {}, "system identifier unknown"};
  if (a.system_id != b.system_id)
    return {Kin::foreign,
            {},
            fmt::format("another cluster: system identifier {}, not {}", a.system_id, b.system_id)};
  if (a.timeline == 0 || b.timeline == 0) return {Kin::unknown, {}, "timeline unknown"};

  if (a.timeline == 1 && b.timeline == 1) return {Kin::same_line, {}, {}};
  if ((b.timeline > 1 && !b.history) || (a.timeline > 1 && !a.history))
    return {Kin::unknown, {}, "timeline history unknown"};

  // The way of each: the timelines that it went along, each until it was left; the last has no end.
  const auto way_of = [](const Lineage& lineage) {
    auto way = lineage.history.value_or(History{});
    way.push_back({lineage.timeline, kOpen});
    return way;
  };
  const auto way_a = way_of(a);
  const auto way_b = way_of(b);
  std::size_t common = 0;
  while (common < way_a.size() && common < way_b.size() && way_a[common] == way_b[common]) ++common;
  const auto left_before = [&] { return common > 0 ? way_b[common - 1].until : Lsn{}; };

  // Also the timeline on which they parted, if it has one name, was begun by one promotion or two.
  for (std::size_t i = 1; i <= common && i < way_a.size() && i < way_b.size(); ++i) {
    const auto timeline = way_a[i].timeline;
    if (timeline != way_b[i].timeline) break;
    const auto mark_a = mark_of(a, timeline);
    const auto mark_b = mark_of(b, timeline);
    if (!mark_a.empty() && mark_a.size() == mark_b.size() && mark_a != mark_b)
      return {Kin::diverged, way_a[i - 1].until,
              fmt::format("timeline {} was begun twice at the same position", timeline), true};
  }
  if (common == way_a.size() && common == way_b.size()) return {Kin::same_line, {}, {}};
  const auto& part_a = way_a[common];
  const auto& part_b = way_b[common];
  if (part_a.timeline != part_b.timeline)
    return {
        Kin::diverged, left_before(),
        fmt::format("forked at {}: its timeline {} is not on the way to timeline {} of the other",
                    to_string(left_before()), part_a.timeline, b.timeline)};
  if (part_a.until == kOpen) {
    // `b` was born of a's timeline.
    const Lsn fork = part_b.until;
    if (position <= fork) return {Kin::same_line, {}, {}};
    return {Kin::diverged, fork,
            fmt::format("has {} bytes of timeline {} after {}, where timeline {} forked off",
                        bytes_ahead(position, fork), a.timeline, to_string(fork), b.timeline)};
  }
  const Lsn fork = std::min(part_a.until, part_b.until);
  return {Kin::diverged, fork,
          fmt::format("is on timeline {}, which left timeline {} of the other at {}", a.timeline,
                      part_a.timeline, to_string(fork))};
}

std::string segment_name(std::uint32_t timeline, Lsn lsn, std::uint64_t segment_size) {
  const std::uint64_t number = lsn.value / segment_size;
  const std::uint64_t per_log = 0x100000000ULL / segment_size;
  return fmt::format("{:08X}{:08X}{:08X}", timeline, number / per_log, number % per_log);
}

std::optional<Lsn> start_of_segment(std::string_view name, std::uint64_t segment_size) {
  if (name.size() != 16) return std::nullopt;
  const auto hex = [](std::string_view digits) -> std::optional<std::uint64_t> {
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return value;
  };
  const auto log = hex(name.substr(0, 8));
  const auto number = hex(name.substr(8));
  if (!log || !number || *number >= 0x100000000ULL / segment_size) return std::nullopt;
  return Lsn{(*log << 32) + *number * segment_size};
}

}  // namespace zx::pg
