// Tables that fit a screen.
#include "commands/fit.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"

namespace zx::commands {
namespace {

using Lines = std::vector<std::string>;

TEST_CASE("words go on in the next line, and a long path breaks after a slash") {
  CHECK(lines_within("", 10) == Lines{""});
  CHECK(lines_within("as it is", 10) == Lines{"as it is"});
  CHECK(lines_within("one two three", 7) == Lines{"one two", "three"});
  CHECK(lines_within("商品 订单", 5) == Lines{"商品", "订单"});
  CHECK(lines_within("by those of /var/lib/zx/backups/a.rdb", 14) ==
        Lines{"by those of", "/var/lib/zx/", "backups/a.rdb"});
  CHECK(lines_within("in /a/b", 5) == Lines{"in", "/a/b"});
  // What cannot be broken is whole all the same.
  CHECK(lines_within("x 20261126T134744-a67e", 8) == Lines{"x", "20261126T134744-a67e"});
}

std::size_t width_of(const Table& table) {
  std::vector<std::size_t> widths(table.rows.front().size());
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i)
      widths.at(i) = std::max(widths.at(i), display_width(row[i].text));
  std::size_t sum = table.indent.size();
  for (const auto width : widths) sum += width + 2;
  return sum - 2;
}
std::string column_of(const Table& table, std::size_t column) {
  std::string text;
  for (const auto& row : table.rows)
    if (row.size() > column) text += row[column].text;
  return text;
}

TEST_CASE("a table that fits stays as it is") {
  Table table;
  table.rows = {{"1", "file", "/backup/cache.rdb", "it is the file", "≤ 10 s"}};
  fit(table, 2, 8, 3);
  REQUIRE(table.rows.size() == 1);
  CHECK(table.rows[0][2].text == "/backup/cache.rdb");
}

TEST_CASE("a table that is too wide goes on in rows below, and keeps every name") {
  const std::string path = "/var/lib/zx/backups/redis/商品/cache-of-the-shop-20261126T134744Z.rdb";
  Table table;
  table.rows = {
      {"1", "file", path, "it is the file that was looked at, and a server loads it", "≤ 1h00m"},
      {"2", "hold", "redis-a", "it takes no writes until the end: min-replicas-to-write",
       "≤ 10 s"}};
  fit(table, 2, 32, 3);
  CHECK(width_of(table) <= kColumns);
  CHECK(column_of(table, 2) == path + "redis-a");
  CHECK(table.rows.front().back().text == "≤ 1h00m");
  // Each step begins a row of its own.
  CHECK(column_of(table, 0) == "12");

  Table runs;
  runs.head = {"RUN", "BEGAN", "COMMAND", "OUTCOME", "WHAT"};
  runs.rows = {{"20261126T134744-a67e", "13:47:44", "redis restore", "unfinished",
                "replace the data of redis-a by those of " + path}};
  fit(runs, 4);
  CHECK(width_of(runs) <= kColumns);
  CHECK(column_of(runs, 0) == "20261126T134744-a67e");
  CHECK(column_of(runs, 4).ends_with(path));
}

}  // namespace
}  // namespace zx::commands
