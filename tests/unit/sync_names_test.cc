// synchronous_standby_names: read, written, and rewritten after a promotion.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/pg/sync_names.h"

namespace zx::pg {
namespace {

using Method = SyncNames::Method;
using Names = std::vector<std::string>;

TEST_CASE("every form of the grammar is read") {
  const struct {
    std::string text;
    Method method;
    int count;
    Names names;
  } rows[] = {
      {"", Method::none, 0, {}},
      {" \t\n", Method::none, 0, {}},
      {"*", Method::first, 1, {"*"}},
      {"a", Method::first, 1, {"a"}},
      {"a,b", Method::first, 1, {"a", "b"}},
      {" a , b ", Method::first, 1, {"a", "b"}},
      {"2 (a, b, c)", Method::first, 2, {"a", "b", "c"}},
      {"2(a,b,c)", Method::first, 2, {"a", "b", "c"}},
      {"FIRST 2 (a,b)", Method::first, 2, {"a", "b"}},
      {"first 2(a,b)", Method::first, 2, {"a", "b"}},
      {"ANY 1 (a, \"b-c\")", Method::any, 1, {"a", "b-c"}},
      {"Any 3 (a, b)", Method::any, 3, {"a", "b"}},
      {"ANY 1 (*)", Method::any, 1, {"*"}},
      {"\"two words\"", Method::first, 1, {"two words"}},
      {"\"with \"\"quotes\"\"\"", Method::first, 1, {"with \"quotes\""}},
      {"\"a,b\", \"(c)\"", Method::first, 1, {"a,b", "(c)"}},
      {"\"any\"", Method::first, 1, {"any"}},
      {"2", Method::first, 1, {"2"}},  // a standby may be called so
      {"1, 2", Method::first, 1, {"1", "2"}},
      {"1 (2, 3)", Method::first, 1, {"2", "3"}},
      {"ANY 1 (1)", Method::any, 1, {"1"}},
      {"\xE4\xB8\xBB", Method::first, 1, {"\xE4\xB8\xBB"}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto names = parse_sync_names(row.text);
    REQUIRE(names.has_value());
    CHECK(names->method == row.method);
    CHECK(names->count == row.count);
    CHECK(names->names == row.names);
  }
}

TEST_CASE("what PostgreSQL would not take is not understood") {
  for (const char* text : {",",
                           "a,",
                           ",a",
                           "a,,b",
                           "a b",
                           "(a)",
                           "(",
                           ")",
                           "()",
                           "2 ()",
                           "2 (a",
                           "2 a)",
                           "2 (a) b",
                           "2 (a))",
                           "2 ((a))",
                           "2 (a, (b))",
                           "ANY (a)",
                           "ANY 2",
                           "ANY 2 a",
                           "ANY a (b)",
                           "ANY 0 (a)",
                           "FIRST 0 (a)",
                           "FIRST -1 (a)",
                           "0 (a)",
                           "-1 (a)",
                           "1.5 (a)",
                           "ANY 99999999999 (a)",
                           "ANY 1 (a) , b",
                           "ANY 1 ANY 1 (a)",
                           "FIRST ANY 1 (a)",
                           "\"a",
                           "\"",
                           "\"a\"\"",
                           "a\"b\"",
                           "\"a\"b",
                           "\"any\" 1 (a)",
                           "ANY 1 (a,)",
                           "ANY 1 (,a)"}) {
    CAPTURE(text);
    const auto names = parse_sync_names(text);
    REQUIRE_FALSE(names.has_value());
    CHECK(names.error().code == Code::server);
  }
}

TEST_CASE("a message about hostile names is clean") {
  const auto names = parse_sync_names("ANY 1 (\x1B[2J\xFF\n");
  REQUIRE_FALSE(names.has_value());
  CHECK(names.error().message == clean_utf8(names.error().message));
  CHECK(names.error().message.find('\n') == std::string::npos);
}

TEST_CASE("what is written is read back to the same rule") {
  for (const char* text :
       {"", "*", "a", "a,b", "2 (a, b, c)", "FIRST 2 (a,b)", "ANY 1 (a, \"b-c\")", "ANY 1 (*)",
        "\"two words\"", "\"with \"\"quotes\"\"\"", "\"a,b\", \"(c)\"", "1, 2", "\"ANY\", \"1\"",
        "\"\"", "\"back\\slash\", \"'\""}) {
    CAPTURE(text);
    const auto names = parse_sync_names(text);
    REQUIRE(names.has_value());
    const auto written = to_string(*names);
    CAPTURE(written);
    const auto again = parse_sync_names(written);
    REQUIRE(again.has_value());
    CHECK(again->method == names->method);
    CHECK(again->count == names->count);
    CHECK(again->names == names->names);
    CHECK(to_string(*again) == written);
  }
  CHECK(to_string(*parse_sync_names("any 2 (a, b-c, *)")) == "ANY 2 (\"a\", \"b-c\", *)");
  CHECK(to_string(SyncNames{}).empty());
  CHECK(to_string({Method::any, 1, {}}).empty());
}

TEST_CASE("a standby is listed without regard to case, as PostgreSQL compares") {
  const auto names = *parse_sync_names("FIRST 1 (Pg-A, \"pg b\")");
  CHECK(names.lists("pg-a"));
  CHECK(names.lists("PG B"));
  CHECK_FALSE(names.lists("pg-c"));
  CHECK_FALSE(names.lists(""));
  CHECK_FALSE(names.lists("pg"));
  CHECK(parse_sync_names("*")->lists("anyone"));
  CHECK_FALSE(SyncNames{}.lists("pg-a"));
}

TEST_CASE("after a promotion the same rule holds with the old primary in the new one's place") {
  const struct {
    std::string before;
    Names alive;
    bool strict;
    const char* after;
  } rows[] = {
      // pg-a was the primary, pg-b is the new one.
      {"", {"pg-c"}, false, ""},
      {"pg-b", {}, true, "FIRST 1 (\"pg-a\")"},
      {"pg-b", {}, false, ""},  // nobody could acknowledge: commits would hang
      {"pg-b,pg-c", {"pg-c"}, false, "FIRST 1 (\"pg-a\", \"pg-c\")"},
      {"pg-c,pg-b", {"pg-c"}, false, "FIRST 1 (\"pg-c\", \"pg-a\")"},
      {"FIRST 2 (pg-b, pg-c)", {"pg-c"}, false, "FIRST 1 (\"pg-a\", \"pg-c\")"},
      {"FIRST 2 (pg-b, pg-c)", {"pg-c"}, true, "FIRST 2 (\"pg-a\", \"pg-c\")"},
      {"FIRST 2 (pg-b, pg-c)", {"pg-c", "pg-a"}, false, "FIRST 2 (\"pg-a\", \"pg-c\")"},
      {"FIRST 1 (pg-c, pg-b, pg-a)", {"pg-c"}, false, "FIRST 1 (\"pg-c\", \"pg-b\", \"pg-a\")"},
      {"ANY 2 (pg-b, pg-c, pg-d)", {"pg-c", "pg-d"}, false, "ANY 2 (\"pg-a\", \"pg-c\", \"pg-d\")"},
      {"ANY 2 (PG-B, pg-c, pg-d)", {"pg-c"}, false, "ANY 1 (\"pg-a\", \"pg-c\", \"pg-d\")"},
      {"ANY 1 (pg-a, pg-b, pg-c)", {"pg-c"}, false, "ANY 1 (\"pg-a\", \"pg-b\", \"pg-c\")"},
      {"ANY 1 (pg-b, outsider)", {"pg-c"}, false, ""},
      {"ANY 1 (pg-b, outsider)", {"pg-c"}, true, "ANY 1 (\"pg-a\", \"outsider\")"},
      {"*", {"pg-c"}, false, "FIRST 1 (*)"},
      {"*", {}, false, ""},
      {"*", {"pg-b"}, false, ""},  // it does not acknowledge its own commits
      {"ANY 2 (*)", {"pg-c"}, false, "ANY 1 (*)"},
      {"ANY 2 (*)", {"pg-c"}, true, "ANY 2 (*)"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.before);
    CAPTURE(row.strict);
    const auto after =
        after_promotion(*parse_sync_names(row.before), "pg-a", "pg-b", row.alive, row.strict);
    CHECK(to_string(after) == row.after);
    // A resumed run does it again.
    const auto again = after_promotion(after, "pg-a", "pg-b", row.alive, row.strict);
    CHECK(to_string(again) == row.after);
  }
}

TEST_CASE("after a promotion without a known old primary nobody takes the place") {
  const auto after = after_promotion(*parse_sync_names("ANY 1 (b, c)"), "", "b", {"c"}, false);
  CHECK(to_string(after) == "ANY 1 (\"c\")");
}

// "ANY 2 (b, c)" promises every commit on both; with a third name it would be on any two.
TEST_CASE("when a node that was not listed is promoted, the list stays") {
  const auto after =
      after_promotion(*parse_sync_names("ANY 2 (b, c)"), "a", "d", {"b", "c"}, false);
  CHECK(to_string(after) == "ANY 2 (\"b\", \"c\")");
}

}  // namespace
}  // namespace zx::pg
