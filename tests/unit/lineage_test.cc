// Where WAL comes from: history files, and who can follow whom.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/pg/lineage.h"

namespace zx::pg {
namespace {

using namespace std::string_view_literals;

constexpr Lsn kA{0x3000028};
constexpr Lsn kB{0x5000060};
constexpr Lsn kC{0x9000000};
constexpr Lsn kEnd{~std::uint64_t{0}};

Lineage line(std::uint32_t timeline, History history, std::optional<std::string> mark = {}) {
  return {"7301", timeline, std::move(history), std::move(mark)};
}

void check_diverged(const Lineage& a, Lsn position, const Lineage& b, Lsn fork) {
  const auto relation = can_follow(a, position, b);
  CHECK(relation.kin == Kin::diverged);
  CHECK(to_string(relation.fork) == to_string(fork));
  CHECK_FALSE(relation.why.empty());
}

TEST_CASE("the name of a segment says where it begins") {
  const std::uint64_t size = 16u << 20;
  for (const std::uint64_t at :
       {0x0ULL, 0x1000000ULL, 0xFF000000ULL, 0x100000000ULL, 0xABCDEF01000000ULL}) {
    CAPTURE(at);
    CHECK(start_of_segment(segment_name(7, Lsn{at}, size).substr(8), size) == Lsn{at});
    CHECK(start_of_segment(segment_name(7, Lsn{at + size - 1}, size).substr(8), size) == Lsn{at});
  }
  for (const std::string name : {"", "00000001", "000000000000010G", "0000000000000100",
                                 "000000070000000000000001", "-000000000000001"}) {
    CAPTURE(name);
    CHECK_FALSE(start_of_segment(name, size).has_value());
  }
}

TEST_CASE("a history file is read line by line") {
  const auto history = parse_history(
      "1\t0/3000028\tno recovery target specified\n"
      "# a comment\n"
      "\n"
      "  3 \t 0/5000060   before 2026-11-24 03:12:43 \xE4\xB8\xBB\n"
      "4\t1/0\r\n"
      "4294967295\t1/0");
  REQUIRE(history.has_value());
  CHECK(*history == History{{1, kA}, {3, kB}, {4, Lsn{1ULL << 32}}, {4294967295, Lsn{1ULL << 32}}});
  CHECK(parse_history("")->empty());
  CHECK(parse_history("# nothing\n\n")->empty());
}

TEST_CASE("a hostile history is an error that names its line") {
  const struct {
    std::string_view text;
    std::string place;
  } rows[] = {
      {"1", "line 1"},
      {"x\t0/1", "line 1"},
      {"0\t0/1", "line 1"},
      {"-1\t0/1", "line 1"},
      {"+1\t0/1", "line 1"},
      {"1.5\t0/1", "line 1"},
      {"4294967296\t0/1", "line 1"},
      {"99999999999999999999999\t0/1", "line 1"},
      {"1\tzz", "line 1"},
      {"1\t0/1/2", "line 1"},
      {"1\t000000001/0", "line 1"},
      {"\n1\t0/1\n1\t0/2\n", "line 3"},  // a timeline twice
      {"2\t0/1\n1\t0/2\n", "line 2"},    // backwards
      {"1\t0/5\n2\t0/4\n", "line 2"},    // a position backwards
      {"1\t0/5\n<html>\n", "line 2"},
      {"\0\0\0\0"sv, "line 1"},
      {"1\0\t0/1"sv, "line 1"},
      {"1\t0/5\n\x1B[2J\xFF x\n", "line 2"},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.text));
    const auto history = parse_history(row.text);
    REQUIRE_FALSE(history.has_value());
    CHECK(history.error().code == Code::server);
    CHECK(history.error().message.find(row.place) != std::string::npos);
    CHECK(history.error().message == clean_utf8(history.error().message));
    CHECK(history.error().message.find('\n') == std::string::npos);
  }
  const auto endless = parse_history(std::string(1'000'000, 'x'));
  REQUIRE_FALSE(endless.has_value());
  CHECK(endless.error().message.size() < 300);
}

TEST_CASE("on one timeline the one behind follows the one ahead") {
  CHECK(can_follow(line(1, {}), kA, line(1, {})).kin == Kin::same_line);
  CHECK(can_follow(line(1, {}), Lsn{}, line(1, {})).kin == Kin::same_line);
  // On timeline 1 there is no history to read.
  Lineage bare{"7301", 1, std::nullopt, std::nullopt};
  CHECK(can_follow(bare, kA, bare).kin == Kin::same_line);
  const auto second = line(2, {{1, kA}}, "2:6d61");
  CHECK(can_follow(second, kB, second).kin == Kin::same_line);
  const auto unmarked = line(2, {{1, kA}});
  CHECK(can_follow(second, kB, unmarked).kin == Kin::same_line);
}

// A promotion that nobody learnt of, and a second one at the same position: both are "timeline 2".
TEST_CASE("a timeline that was begun twice parts two nodes, also when one has left it since") {
  const auto first = line(2, {{1, kA}}, "2:aaaa");
  const auto second = line(2, {{1, kA}}, "2:bbbb");
  CHECK(can_follow(first, kB, second).kin == Kin::diverged);
  CHECK(can_follow(first, kB, second).fork == kA);
  CHECK(can_follow(first, kB, second).same_names);
  const auto later = line(3, {{1, kA}, {2, kC}}, "2:bbbb,3:cccc");
  const auto relation = can_follow(first, kB, later);
  CHECK(relation.kin == Kin::diverged);
  CHECK(relation.fork == kA);
  CHECK(relation.same_names);
  CHECK(can_follow(second, kB, later).kin == Kin::same_line);
  // Where the first segment is gone nothing speaks against it; nor does another form of mark.
  CHECK(can_follow(first, kB, line(3, {{1, kA}, {2, kC}}, "3:cccc")).kin == Kin::same_line);
  CHECK(can_follow(first, kB, line(2, {{1, kA}}, "2:bb")).kin == Kin::same_line);
}

TEST_CASE("an ancestor can follow as long as it has nothing behind the fork") {
  const auto old = line(1, {});
  const auto next = line(2, {{1, kA}});
  const auto last = line(4, {{1, kA}, {2, kB}, {3, kC}});
  CHECK(can_follow(old, Lsn{kA.value - 1}, next).kin == Kin::same_line);
  CHECK(can_follow(old, kA, next).kin == Kin::same_line);
  check_diverged(old, Lsn{kA.value + 1}, next, kA);
  CHECK(can_follow(old, kA, last).kin == Kin::same_line);
  check_diverged(old, kB, last, kA);
  CHECK(can_follow(next, kB, last).kin == Kin::same_line);
  check_diverged(next, Lsn{kB.value + 8}, last, kB);
  const auto relation = can_follow(old, Lsn{kA.value + 24}, next);
  CHECK(relation.why.find("24 bytes") != std::string::npos);
  CHECK(relation.why.find("0/3000028") != std::string::npos);
}

TEST_CASE("a newer timeline cannot follow the one that it left") {
  check_diverged(line(2, {{1, kA}}), kB, line(1, {}), kA);
  check_diverged(line(4, {{1, kA}, {2, kB}, {3, kC}}), kEnd, line(2, {{1, kA}}), kB);
}

TEST_CASE("timelines of one number are told apart by where they forked") {
  const auto early = line(2, {{1, kA}});
  const auto late = line(2, {{1, kB}});
  check_diverged(early, kC, late, kA);
  check_diverged(late, kC, early, kA);
  // Not even a node that has none of its own bytes yet: its history says where it goes.
  CHECK(can_follow(late, kA, early).kin == Kin::diverged);
  // Three deep.
  check_diverged(line(3, {{1, kA}, {2, kB}}), kEnd, line(3, {{1, kA}, {2, kC}}), kB);
}

TEST_CASE("timelines begun twice at one position are told apart by their first record") {
  const auto one = line(2, {{1, kA}}, "2:6f6e65");
  const auto other = line(2, {{1, kA}}, "2:6f7468");
  check_diverged(one, kB, other, kA);
  check_diverged(other, kB, one, kA);
}

TEST_CASE("what left a timeline earlier does not continue it") {
  // `a` left 1 at A; `b` went on with 1 to B and left it then.
  check_diverged(line(2, {{1, kA}}), kC, line(3, {{1, kB}}), kA);
  check_diverged(line(3, {{1, kB}}), kC, line(2, {{1, kA}}), kA);
  check_diverged(line(4, {{1, kA}, {2, kB}}), kC, line(5, {{1, kA}, {2, kC}}), kB);
}

// Two standbys, equally far, promoted one after the other: the second sees that 2 is taken and
// takes 3. All that either wrote behind A is not in the other.
TEST_CASE("two timelines forked off at one position part there") {
  const auto second = line(2, {{1, kA}});
  const auto third = line(3, {{1, kA}});
  check_diverged(second, kB, third, kA);
  check_diverged(third, kB, second, kA);
  check_diverged(second, kEnd, third, kA);
}

TEST_CASE("descendants of two such timelines part where those did") {
  const auto one = line(4, {{1, kA}, {2, kB}});
  const auto other = line(5, {{1, kA}, {3, kC}});
  check_diverged(one, kEnd, other, kA);
  check_diverged(other, kEnd, one, kA);
}

TEST_CASE("one number reached on a direct and on an indirect way parts at the first fork") {
  const auto direct = line(3, {{1, kA}});
  const auto indirect = line(3, {{1, kA}, {2, kB}});
  check_diverged(direct, kEnd, indirect, kA);
  check_diverged(indirect, kEnd, direct, kA);
}

TEST_CASE("another system identifier is foreign, whatever else agrees") {
  auto other = line(1, {});
  other.system_id = "9999";
  const auto relation = can_follow(line(1, {}), kA, other);
  CHECK(relation.kin == Kin::foreign);
  CHECK(relation.why.find("7301") != std::string::npos);
  CHECK(relation.why.find("9999") != std::string::npos);
  other.timeline = 0;
  CHECK(can_follow(line(1, {}), kA, other).kin == Kin::foreign);
}

TEST_CASE("what is not known is unknown, never the same line") {
  const auto whole = line(2, {{1, kA}});
  Lineage nameless = whole;
  nameless.system_id.clear();
  Lineage no_timeline = whole;
  no_timeline.timeline = 0;
  Lineage no_history = whole;
  no_history.history.reset();
  for (const auto& dim : {nameless, no_timeline, no_history, Lineage{}}) {
    for (const auto& relation : {can_follow(dim, kA, whole), can_follow(whole, kA, dim)}) {
      CHECK(relation.kin == Kin::unknown);
      CHECK_FALSE(relation.why.empty());
    }
  }
  // Timeline 1 has no file; the newer one's must be there.
  Lineage first{"7301", 1, std::nullopt, std::nullopt};
  CHECK(can_follow(first, kA, whole).kin == Kin::same_line);
  CHECK(can_follow(first, kA, no_history).kin == Kin::unknown);
}

TEST_CASE("a history without the timeline is not its descendant") {
  // Timeline 2 is not among the ancestors of 5.
  CHECK(can_follow(line(2, {{1, kA}}), kA, line(5, {{1, kB}, {3, kC}})).kin == Kin::diverged);
  CHECK(can_follow(line(1, {}), kA, line(5, {{3, kC}})).kin == Kin::diverged);
}

TEST_CASE("segment files are named as PostgreSQL names them") {
  constexpr std::uint64_t kMiB = 1 << 20;
  CHECK(segment_name(1, Lsn{0}, 16 * kMiB) == "000000010000000000000000");
  CHECK(segment_name(2, Lsn{0xA000028}, 16 * kMiB) == "00000002000000000000000A");
  CHECK(segment_name(2, Lsn{0xFFFFFFFF}, 16 * kMiB) == "0000000200000000000000FF");
  CHECK(segment_name(2, Lsn{0x100000000}, 16 * kMiB) == "000000020000000100000000");
  CHECK(segment_name(0x1F, Lsn{0x16B374D848}, 16 * kMiB) == "0000001F00000016000000B3");
  CHECK(segment_name(1, Lsn{0x16B374D848}, 64 * kMiB) == "00000001000000160000002C");
  CHECK(segment_name(1, Lsn{0x16B374D848}, 1024 * kMiB) == "000000010000001600000002");
  CHECK(segment_name(1, Lsn{0x100000}, kMiB) == "000000010000000000000001");
}

}  // namespace
}  // namespace zx::pg
