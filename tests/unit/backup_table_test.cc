#include "lib/backup/pg_table.h"

#include <doctest/doctest.h>

#include "lib/backup/restore.h"
#include "lib/backup/restore_steps.h"
#include "tests/support.h"

namespace zx::backup {
namespace {

const std::vector<TableRows> kTables{{"public.orders", 10}, {"archive.orders", 20},
                                     {"archive.old", 1},    {"public.\"Order\"", 2},
                                     {"public.\"a.b\"", 3}, {"public.\"订单 \"\"x\"\"\"", 4},
                                     {"a.twice", 5},        {"b.twice", 6}};

std::string found(const std::string& wish) {
  const auto table = find_table(kTables, wish);
  return table ? table->table : std::string(info(table.error().code).name);
}

TEST_CASE("a table is named as SQL or as it is spelled") {
  CHECK(found("orders") == "public.orders");
  CHECK(found("ORDERS") == "public.orders");
  CHECK(found("archive.orders") == "archive.orders");
  CHECK(found("Archive.Orders") == "archive.orders");
  CHECK(found("old") == "archive.old");
  CHECK(found("Order") == "public.\"Order\"");
  CHECK(found("\"Order\"") == "public.\"Order\"");
  CHECK(found("public.\"Order\"") == "public.\"Order\"");
  CHECK(found("\"ORDERS\"") == "not_found");
  CHECK(found("a.b") == "public.\"a.b\"");
  CHECK(found("public.\"a.b\"") == "public.\"a.b\"");
  CHECK(found("订单 \"x\"") == "public.\"订单 \"\"x\"\"\"");
  CHECK(found("\"订单 \"\"x\"\"\"") == "public.\"订单 \"\"x\"\"\"");
  CHECK(found("twice") == "usage");
  CHECK(found("a.twice") == "a.twice");
  for (const char* wrong : {"", ".", "orders.", ".orders", "\"orders", "a.b.c", "other.orders"}) {
    CAPTURE(wrong);
    CHECK(found(wrong) == "not_found");
  }
  CHECK(find_table(kTables, "ordres").error().hint == "did you mean orders?");
}

TEST_CASE("a name of a manifest is taken apart, and quoted whatever is in it") {
  const auto id = table_id("public.\"订单 \"\"x\"\"\"");
  REQUIRE(id.has_value());
  CHECK(*id == TableId{"public", "订单 \"x\""});
  CHECK(sql_name(*id) == "\"public\".\"订单 \"\"x\"\"\"");
  CHECK(sql_name(kept_table(*id)) == "\"public\".\"订单 \"\"x\"\"_zxold\"");
  for (const char* wrong : {"orders", "a.b.c", "a.\"b", "a.\"b\"c", ""}) {
    CAPTURE(wrong);
    CHECK_FALSE(table_id(wrong).has_value());
  }
}

TEST_CASE("a marker tells its run and what did not hold before") {
  const Orphans orphans{{"public.\"Zei;le\" fk: a", 500}};
  const auto text = marker("20261126T231509-e5db", true, orphans);
  CHECK(run_of_marker(text) == "20261126T231509-e5db");
  CHECK(orphans_of_marker(text) == orphans);
  CHECK(run_of_marker(marker("x", false)) == "x");
  CHECK(orphans_of_marker(marker("x", false)).empty());
  for (const char* other : {"", "our old orders", "zx restore", "zx: a"}) {
    CAPTURE(other);
    CHECK(run_of_marker(other).empty());
    CHECK(orphans_of_marker(other).empty());
  }
}

TEST_CASE("columns must be those of the set, in any order") {
  const std::vector<Column> live{{"id", "integer"}, {"says", "text"}, {"twice", "integer", true}};
  CHECK(columns_differ(live, {live[2], live[0], live[1]}, "the set").empty());
  CHECK(columns_differ(live, {live[0], live[1]}, "the set") ==
        std::vector<std::string>{"the set has no column twice"});
  CHECK(columns_differ({live[0]}, {live[0], live[1]}, "the set") ==
        std::vector<std::string>{"column says is only in the set"});
  CHECK(columns_differ(live, {live[0], {"says", "character varying(9)"}, {"twice", "integer"}},
                       "the set") ==
        std::vector<std::string>{"column says is text, in the set character varying(9)",
                                 "column twice is integer, generated, in the set integer"});
}

TEST_CASE("rows are copied by name, and values that are generated are not") {
  const TableId table{"public", "Order"};
  const std::vector<Column> columns{{"id", "integer"}, {"a \"b", "text"}, {"g", "integer", true}};
  CHECK(copy_out_sql(table, columns) ==
        "COPY \"public\".\"Order\" (\"id\", \"a \"\"b\") TO STDOUT");
  CHECK(copy_in_sql(table, columns) ==
        "COPY \"public\".\"Order\" (\"id\", \"a \"\"b\") FROM STDIN");
  CHECK(copy_in_sql(table, {columns[2]}) == "COPY \"public\".\"Order\" FROM STDIN");
  CHECK(bring_back_sql(table, columns) ==
        "DELETE FROM ONLY \"public\".\"Order\"; INSERT INTO \"public\".\"Order\" (\"id\", \"a "
        "\"\"b\") OVERRIDING SYSTEM VALUE SELECT \"id\", \"a \"\"b\" FROM "
        "\"public\".\"Order_zxold\"");
  CHECK(lock_sql({table, {"a", "b"}}) ==
        "LOCK TABLE ONLY \"public\".\"Order\", ONLY \"a\".\"b\" IN ACCESS EXCLUSIVE MODE");
}

TEST_CASE("a foreign key is checked as the server would") {
  using Row = std::vector<std::optional<std::string>>;
  const Row first{"1", "fk", "public.f",      "f", "public.t", "t", "f",
                  "a", "x",  "OPERATOR(s.=)", "f", "0,2"};
  auto second = first;
  second[7] = "b";
  second[8] = "y";
  auto other = first;
  other[0] = "2";
  other[6] = "t";
  other[10] = "t";
  other[11] = std::nullopt;
  auto keys = foreign_keys_of({first, second, other});
  REQUIRE(keys.size() == 2);
  CHECK(id_of(keys[0]) == "public.f fk");
  CHECK(orphans_sql(keys[0]) ==
        "SELECT count(*) FROM ONLY public.f f WHERE (f.a IS NOT NULL AND f.b IS NOT NULL) AND NOT "
        "EXISTS (SELECT FROM public.t t WHERE t.x OPERATOR(s.=) f.a AND t.y OPERATOR(s.=) f.b)");
  CHECK_FALSE(keys[0].of_asked);
  CHECK(keys[0].to_asked == std::vector<std::size_t>{0, 2});
  CHECK(keys[1].of_asked);
  CHECK(keys[1].to_asked.empty());
  // Only rows that lost what they referred to.
  CHECK(orphans_sql(keys[0], {{"public", "t_zxold"}, {"s", "u_zxold"}}) ==
        orphans_sql(keys[0]) +
            " AND EXISTS (SELECT FROM (SELECT x, y FROM ONLY \"public\".\"t_zxold\" UNION ALL "
            "SELECT x, y FROM ONLY \"s\".\"u_zxold\") t WHERE t.x OPERATOR(s.=) f.a AND t.y "
            "OPERATOR(s.=) f.b)");
  keys[0].is_full = true;
  CHECK(orphans_sql(keys[0]).find("(f.a IS NOT NULL OR f.b IS NOT NULL)") != std::string::npos);
  CHECK(foreign_keys_of({}).empty());
}

TEST_CASE("what a restore of tables keeps is read back, and what an earlier zx wrote too") {
  const test::Directory directory;
  Kept kept;
  kept.run = "R";
  kept.table_database = "shop";
  kept.tables = {"public.orders", "public.\"Order\""};
  kept.had_table = {"public.orders"};
  REQUIRE(write_kept(directory.path(), kept).has_value());
  auto read = read_kept(directory.path());
  REQUIRE((read && *read));
  CHECK(to_json(**read) == to_json(kept));

  test::write(directory / "restored.json",
              R"({"run": "R", "set": "S", "databases": ["shop"], "had_database": ["shop"]})");
  read = read_kept(directory.path());
  REQUIRE((read && *read));
  CHECK((*read)->databases == std::vector<std::string>{"shop"});
  CHECK((*read)->tables.empty());
  CHECK((*read)->table_database.empty());
}

PgPart part_with(const std::vector<std::pair<std::string, std::vector<TableRows>>>& databases) {
  PgPart part;
  for (const auto& [name, tables] : databases) {
    DatabasePart database;
    database.name = name;
    database.tables = tables;
    part.databases.push_back(database);
  }
  return part;
}

TEST_CASE("the database is the one that has the tables") {
  const std::vector<std::pair<std::string, std::vector<TableRows>>> databases{
      {"shop", {{"public.orders", 1}, {"public.lines", 2}, {"public.users", 3}}},
      {"users", {{"public.users", 4}}}};
  RestoreWish wish;
  wish.tables = {"orders", "public.orders"};
  auto part = part_with(databases);
  REQUIRE(keep_wanted_tables(wish, part).has_value());
  REQUIRE(part.databases.size() == 1);
  CHECK(part.databases[0].name == "shop");
  CHECK(part.databases[0].tables == std::vector<TableRows>{{"public.orders", 1}});

  wish.tables = {"users"};
  part = part_with(databases);
  const auto both = keep_wanted_tables(wish, part);
  REQUIRE_FALSE(both.has_value());
  CHECK(both.error().code == Code::usage);
  CHECK(both.error().message == "more than one database has it: shop, users");
  CHECK(part.databases.size() == 2);

  wish.tables = {"userz"};
  part = part_with({databases[1]});
  const auto none = keep_wanted_tables(wish, part);
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::not_found);
  CHECK(none.error().message == "the set has no table userz in users");
  CHECK(none.error().hint.starts_with("did you mean users?"));
}

TEST_CASE("a plan for tables loads, counts, replaces, and lets the copy go") {
  RestoreFacts facts;
  facts.set = "S";
  facts.table_database = "shop";
  facts.tables = {"public.orders"};
  const auto plan = plan_restore("restore pg", facts);
  std::string names;
  for (const auto& step : plan.steps) names += step.action + " ";
  CHECK(names ==
        "restore.table-load restore.table-check restore.table-swap restore.receipt "
        "restore.table-clear ");
  CHECK(plan.summary == "restore public.orders in shop of set S");
  Kept kept;
  kept.tables = facts.tables;
  names.clear();
  for (const auto& step : plan_undo(kept).steps) names += step.action + " ";
  CHECK(names == "restore.undo-tables restore.undo-clear ");
}

}  // namespace
}  // namespace zx::backup
