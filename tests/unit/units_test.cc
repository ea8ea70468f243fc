// Sizes and durations as people write and read them.
#include <doctest/doctest.h>

#include <limits>

#include "lib/base/units.h"

namespace zx {
namespace {

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::int64_t kYears100 = 100LL * 365 * 86'400'000;

TEST_CASE("sizes are read with the units of the file") {
  const struct {
    std::string text;
    std::uint64_t bytes;
  } rows[] = {
      {"0", 0},
      {"1024", 1024},
      {"512 B", 512},
      {"16 MiB", 16ULL << 20},
      {"16MiB", 16ULL << 20},
      {"  16   MiB  ", 16ULL << 20},
      {"3 GiB", 3ULL << 30},
      {"2 TiB", 2ULL << 40},
      {"1 KiB", 1024},
      {"1 kB", 1000},
      {"1 MB", 1'000'000},
      {"1 GB", 1'000'000'000},
      {"1 TB", 1'000'000'000'000},
      {"007", 7},
      {"18446744073709551615", kMost},
      {"16777215 TiB", 16777215ULL << 40},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    CHECK(parse_bytes(row.text) == row.bytes);
  }
}

TEST_CASE("what is no size is not read as one") {
  for (const char* text : {"",
                           " ",
                           "MiB",
                           "-1",
                           "+1",
                           "- 1",
                           "1.5 GiB",
                           "1,5 GiB",
                           "1e3",
                           "0x10",
                           "16 mib",
                           "16 MIB",
                           "16 M",
                           "16 Mi",
                           "16 MiB MiB",
                           "16 MiB 1",
                           "1 2",
                           "1\n",
                           "1\tB",
                           "18446744073709551616",
                           "16777216 TiB",
                           "18446744073709552 kB",
                           "99999999999999999999 B",
                           "１ B",
                           "1 PiB"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_bytes(text).has_value());
  }
  CHECK_FALSE(parse_bytes(std::string_view("1\0", 2)).has_value());
}

TEST_CASE("sizes are shown with one decimal at most, never as 1024 of a smaller unit") {
  const struct {
    std::uint64_t bytes;
    std::string shown;
  } rows[] = {
      {0, "0 B"},
      {1, "1 B"},
      {1023, "1023 B"},
      {1024, "1 KiB"},
      {1075, "1 KiB"},
      {1076, "1.1 KiB"},
      {1536, "1.5 KiB"},
      {(1ULL << 20) - 1, "1 MiB"},
      {1048524, "1023.9 KiB"},
      {1048525, "1 MiB"},
      {1ULL << 20, "1 MiB"},
      {(1ULL << 30) - 1, "1 GiB"},
      {1288490189, "1.2 GiB"},
      {1ULL << 40, "1 TiB"},
      {1ULL << 50, "1 PiB"},
      {1ULL << 60, "1 EiB"},
      {kMost, "16 EiB"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.bytes);
    CHECK(format_bytes(row.bytes) == row.shown);
  }
}

TEST_CASE("durations are read largest unit first") {
  const struct {
    std::string text;
    std::int64_t ms;
  } rows[] = {
      {"0s", 0},
      {"0ms", 0},
      {"500ms", 500},
      {"1s", 1000},
      {" 30s ", 30'000},
      {"1m", 60'000},
      {"1h", 3'600'000},
      {"1h30m", 5'400'000},
      {"400d", 400LL * 86'400'000},
      {"1d1h1m1s1ms", 90'061'001},
      {"1m1ms", 60'001},
      {"90m", 5'400'000},
      {"36500d", kYears100},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    CHECK(parse_duration(row.text) == Millis(row.ms));
  }
}

TEST_CASE("what is no duration is not read as one") {
  for (const char* text : {"",
                           " ",
                           "1",
                           "s",
                           "ms",
                           "1.5s",
                           "-1s",
                           "+1s",
                           "1 s",
                           "1h 30m",
                           "1s1m",
                           "1s1s",
                           "1ms1s",
                           "1S",
                           "1M",
                           "1min",
                           "1w",
                           "1y",
                           "1us",
                           "1m1",
                           "1h30",
                           "36501d",
                           "876001h",
                           "18446744073709551616ms",
                           "99999999999999999999d",
                           "1s\n",
                           "１s"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_duration(text).has_value());
  }
}

TEST_CASE("the longest duration is the same however it is written") {
  // A sum of parts that are each within the bound must not pass it: in nanoseconds 292 years are
  // the end of 64 bits.
  CHECK_FALSE(parse_duration("36500d876000h").has_value());
  CHECK_FALSE(parse_duration("36500d1ms").has_value());
  CHECK(parse_duration("36499d24h") == Millis(kYears100));
}

TEST_CASE("durations are shown in the unit that a person would say") {
  const struct {
    std::int64_t ms;
    std::string shown;
  } rows[] = {
      {0, "0 ms"},           {38, "38 ms"},          {999, "999 ms"},
      {1000, "1 s"},         {1049, "1 s"},          {1050, "1.1 s"},
      {1200, "1.2 s"},       {59'949, "59.9 s"},     {59'950, "1m00s"},
      {60'000, "1m00s"},     {125'000, "2m05s"},     {3'599'499, "59m59s"},
      {3'599'500, "1h00m"},  {11'040'000, "3h04m"},  {86'399'499, "23h59m"},
      {86'399'500, "1d00h"}, {439'200'000, "5d02h"}, {-1200, "-1.2 s"},
      {-5, "-5 ms"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.ms);
    CHECK(format_duration(Millis(row.ms)) == row.shown);
  }
}

TEST_CASE("the longest and the shortest of all durations can be shown") {
  CHECK(format_duration(Millis::max()) == "106751991167d07h");
  CHECK(format_duration(Millis::min()) == "-106751991167d07h");
}

TEST_CASE("what is spelt is read back to the same value") {
  for (const std::int64_t ms : {0LL, 1LL, 999LL, 1000LL, 1500LL, 59'999LL, 60'000LL, 90'000LL,
                                3'600'000LL, 5'400'000LL, 86'400'000LL, 90'061'001LL}) {
    CAPTURE(ms);
    CHECK(parse_duration(spell_duration(Millis(ms))) == Millis(ms));
  }
  CHECK(spell_duration(Millis(1500)) == "1500ms");
  CHECK(spell_duration(Millis(30'000)) == "30s");
  CHECK(spell_duration(Millis(7'200'000)) == "2h");
  CHECK(spell_duration(Millis(kYears100)) == "36500d");
  for (const std::uint64_t bytes : {0ULL, 1ULL, 1000ULL, 1023ULL, 1024ULL, 1025ULL, 1ULL << 20,
                                    (1ULL << 30) + 1024, 5ULL << 40, ~0ULL}) {
    CAPTURE(bytes);
    CHECK(parse_bytes(spell_bytes(bytes)) == bytes);
  }
  CHECK(spell_bytes(16ULL << 20) == "16 MiB");
  CHECK(spell_bytes(1536) == "1536 B");
}

}  // namespace
}  // namespace zx
