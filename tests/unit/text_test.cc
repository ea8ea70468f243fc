// Text of people and of servers: width, cleaning, wrapping, nearest names.
#include <doctest/doctest.h>

#include "lib/base/json.h"
#include "lib/base/text.h"

namespace zx {
namespace {

using namespace std::string_view_literals;
using Words = std::vector<std::string>;

TEST_CASE("split and join are each other's inverse") {
  CHECK(split("", ',') == Words{""});
  CHECK(split(",", ',') == Words{"", ""});
  CHECK(split("a,,b,", ',') == Words{"a", "", "b", ""});
  for (const std::string text : {"", ",", "a", ",a", "a,", ",,", "a,b,,c"}) {
    CAPTURE(text);
    CHECK(join(split(text, ','), ",") == text);
  }
  CHECK(join({}, ", ").empty());
  CHECK(join({"", "a"}, ", ") == ", a");
}

TEST_CASE("trim takes white space from both ends only") {
  CHECK(trim(" \t\r\n a b \n") == "a b");
  CHECK(trim(" \n ").empty());
  CHECK(trim("").empty());
  CHECK(lower("AZaz09-_\xC3\x84") == "azaz09-_\xC3\x84");
}

TEST_CASE("width is counted in columns of a terminal") {
  const struct {
    std::string_view text;
    std::size_t width;
  } rows[] = {
      {"", 0},
      {"pg-a", 4},
      {"主库", 4},
      {"故障转移 pg", 11},
      {"ｆｕｌｌ", 8},
      {"ﾊﾝｶｸ", 4},  // half-width katakana
      {"한국어", 6},
      {"e\u0301", 1},       // e and a combining acute
      {"\u304B\u3099", 2},  // か and a combining voiced mark
      {"a\u20DD", 1},       // a in a combining circle
      {"葛\U000E0100", 2},  // an ideograph with a variation selector
      {"a\u200Bb", 2},      // zero width space
      {"“quoted”…", 9},
      {"\u00e9", 1},
      {"😀", 2},
      {"𠀀", 2},        // an ideograph outside the first plane
      {"\xFF\xFE", 2},  // broken bytes become one U+FFFD each
      {"\xE4\xB8", 2},  // cut in the middle
      {"a\xE4\xB8"
       "b",
       4},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.text));
    CHECK(display_width(row.text) == row.width);
  }
}

TEST_CASE("cleaned text is valid UTF-8 without control characters") {
  const std::string bad = "\xEF\xBF\xBD";
  const struct {
    std::string_view text;
    std::string clean;
  } rows[] = {
      {"plain", "plain"},
      {"a\nb\tc", "a\nb\tc"},
      {"主库 é 😀", "主库 é 😀"},
      {"\x1B[31mred\x1B[0m", " [31mred [0m"},
      {"a\rb", "a b"},
      {"bell\x07 nul\0 del\x7F"sv, "bell  nul  del "},
      {"\xC2\x9B"
       "2J",
       " 2J"},  // CSI as one C1 character
      {"\x9B"
       "2J",
       bad + "2J"},  // and as one byte
      {"caf\xE9", "caf" + bad},
      {"\xC0\xAF", bad + bad},  // overlong slash
      {"\xE0\x80\xAF", bad + bad + bad},
      {"\xED\xA0\x80", bad + bad + bad},            // a surrogate
      {"\xF4\x90\x80\x80", bad + bad + bad + bad},  // behind U+10FFFF
      {"\xF8\x88\x80\x80\x80", bad + bad + bad + bad + bad},
      {"\xE4\xB8", bad + bad},
      {"\xE4\xB8"
       "x",
       bad + bad + "x"},
      {"\x80", bad},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.text));
    CHECK(clean_utf8(row.text) == row.clean);
    CHECK(clean_utf8(row.clean) == row.clean);
  }
}

TEST_CASE("any two bytes and any lead byte are cleaned to what JSON takes as it is") {
  for (int first = 0; first < 256; ++first)
    for (int second = 0; second < 256; ++second) {
      const char bytes[] = {static_cast<char>(first), static_cast<char>(second), 'z'};
      const auto clean = clean_utf8(std::string_view(bytes, sizeof bytes));
      // Without the replacing handler dump() would throw on what is not UTF-8.
      CHECK_NOTHROW(static_cast<void>(Json(clean).dump()));
      if (!clean.ends_with('z')) FAIL("swallowed a whole character");
    }
}

TEST_CASE("the first line of a message is trimmed and cleaned") {
  const struct {
    std::string_view text;
    std::string line;
  } rows[] = {
      {"", ""},
      {"one", "one"},
      {"one\ntwo", "one"},
      {"one\r\ntwo", "one"},
      {"\n\n  one  \ntwo", "one"},
      {"FATAL:  no\tway  \nLOCATION", "FATAL:  no\tway"},
      {"\x1B[31mred\x1B", "[31mred"},
      {"\x07\nreal", "real"},
      {"\0 a"sv, "a"},
      {"a\xFF\nb", "a\xEF\xBF\xBD"},
      {" \n \n", ""},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.text));
    CHECK(first_line(row.text) == row.line);
  }
}

TEST_CASE("wrapped lines are no wider than asked, by columns") {
  const struct {
    std::string_view text;
    std::size_t width;
    std::string_view indent;
    std::string wrapped;
  } rows[] = {
      {"", 10, "", ""},
      {"aaa bbb ccc", 7, "", "aaa bbb\nccc"},
      {"aaa bbb ccc", 11, "", "aaa bbb ccc"},
      {"aaa bbb ccc", 10, "", "aaa bbb\nccc"},
      {"aaa bbb ccc", 9, "  ", "  aaa bbb\n  ccc"},
      {"a b", 1, "", "a\nb"},
      {"toolong b", 3, "", "toolong\nb"},
      {"主库 备库 主库", 9, "", "主库 备库\n主库"},
      {"a\n\nb", 10, "", "a\n\nb"},
      {"a\n\nb", 10, "  ", "  a\n\n  b"},
      {"a\n", 10, "", "a\n"},
      {"\na", 10, "", "\na"},
      {"\n\na", 10, "", "\n\na"},
      // A run of spaces is one place to break.
      {"aaaa  bb", 4, "  ", "  aaaa\n  bb"},
      {"aaaa  bb", 4, "", "aaaa\nbb"},
      {"aaaa ", 4, "", "aaaa"},
      {"  as it is, however wide", 8, "> ", ">   as it is, however wide"},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.text));
    CAPTURE(row.width);
    CHECK(wrap(row.text, row.width, row.indent) == row.wrapped);
  }
}

TEST_CASE("wrapping loses no word at any width") {
  const std::string text = "Zwei  主库\nvery-long-word e\u0301 x\n\ny 故障转移 z ";
  const auto words_of = [](std::string_view any) {
    Words words;
    for (const auto& line : split(any, '\n'))
      for (const auto& word : split(line, ' '))
        if (!word.empty()) words.push_back(word);
    return words;
  };
  for (std::size_t width = 0; width < 40; ++width)
    for (const auto indent : {""sv, "    "sv}) {
      CAPTURE(width);
      const auto wrapped = wrap(text, width, indent);
      CHECK(words_of(wrapped) == words_of(text));
      for (const auto& line : split(wrapped, '\n')) {
        CAPTURE(line);
        const bool fits = display_width(line) <= width;
        const bool is_one_word = words_of(line).size() <= 1;
        CHECK((fits || is_one_word));
        CHECK((line.empty() || (line.starts_with(indent) && line != indent)));
        CHECK_FALSE(line.ends_with(' '));
      }
    }
}

TEST_CASE("the nearest name is one that can be meant") {
  const struct {
    std::string_view word;
    Words candidates;
    std::string meant;
  } rows[] = {
      {"failovr", {"failover", "rejoin"}, "failover"},
      {"fialover", {"failover"}, "failover"},  // letters swapped
      {"failoverr", {"failover"}, "failover"},
      {"port", {"sport", "port"}, "port"},  // itself
      {"pg-a", {"pg-b", "pg-c"}, "pg-b"},   // the first of the equally near
      {"hots", {"host"}, "host"},
      {"fail", {"status", "failover"}, "failover"},  // a beginning
      {"xy", {"failover"}, ""},
      {"status", {"switchover", "rejoin"}, ""},
      {"failover", {}, ""},
      {"", {"a", "bb"}, ""},
      {"ab", {"ba"}, "ba"},
      {"ab", {"cd"}, ""},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.word));
    CHECK(nearest(row.word, row.candidates) == row.meant);
  }
}

TEST_CASE("a name of one letter is near only when something of it is left") {
  CHECK(nearest("c", {"a", "b"}).empty());
  CHECK(nearest("a", {"b", "a"}) == "a");
  CHECK(nearest("a", {"a1"}) == "a1");
  CHECK(nearest("a", {"b1", "c"}).empty());
  CHECK(nearest("ab", {"b"}) == "b");
}

}  // namespace
}  // namespace zx
