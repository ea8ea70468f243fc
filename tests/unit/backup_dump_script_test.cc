#include "lib/backup/dump_script.h"

#include <doctest/doctest.h>

#include <vector>

namespace zx::backup {
namespace {

struct Seen {
  std::vector<std::string> what;
  std::string rows;
  DumpScript::Events events() {
    return {[this](const std::string& sql) {
              what.push_back("statement " + sql);
              return Status{};
            },
            [this](const std::string& sql) {
              what.push_back("copy " + sql);
              return Status{};
            },
            [this](std::string_view lines) {
              CHECK(lines.ends_with('\n'));
              rows += lines;
              return Status{};
            },
            [this] {
              what.push_back("rows " + rows);
              rows.clear();
              return Status{};
            }};
  }
};

constexpr const char* kScript =
    "--\n-- PostgreSQL database dump\n--\n\n"
    "\\restrict abc\n\n"
    "SET statement_timeout = 0;\n"
    "COPY public.\"Ta;\nb\" (id, says) FROM stdin;\n"
    "1\ttea\n"
    "2\t\\\\.\n"
    "3\tCOPY x FROM stdin;\n"
    "\\.\n\n\n"
    "COPY public.empty (id) FROM stdin;\n"
    "\\.\n\n\n"
    "SELECT pg_catalog.setval('public.it''s', 3, true);\n"
    "\\unrestrict abc\n";

const std::vector<std::string> kSeen{
    "statement SET statement_timeout = 0;\n",
    "copy COPY public.\"Ta;\nb\" (id, says) FROM stdin;\n",
    "rows 1\ttea\n2\t\\\\.\n3\tCOPY x FROM stdin;\n",
    "copy COPY public.empty (id) FROM stdin;\n",
    "rows ",
    "statement SELECT pg_catalog.setval('public.it''s', 3, true);\n"};

TEST_CASE("a script is the same in pieces of any size") {
  const std::string_view script = kScript;
  for (std::size_t size = 1; size <= script.size(); ++size) {
    CAPTURE(size);
    Seen seen;
    DumpScript dump(seen.events());
    for (std::size_t at = 0; at < script.size(); at += size)
      REQUIRE(dump.feed(script.substr(at, size)).has_value());
    CHECK(dump.finish().has_value());
    CHECK(seen.what == kSeen);
  }
}

TEST_CASE("a script that ends in the middle is no whole one") {
  for (const char* text :
       {"SET a", "SET a = 'x;\n", "COPY t (a) FROM stdin;\n", "COPY t (a) FROM stdin;\n1\n"}) {
    CAPTURE(text);
    Seen seen;
    DumpScript dump(seen.events());
    CHECK(dump.feed(text).has_value());
    CHECK_FALSE(dump.finish().has_value());
  }
}

TEST_CASE("a command of psql is refused, an error of whoever takes it is passed on") {
  Seen seen;
  DumpScript dump(seen.events());
  const auto refused = dump.feed("\\! touch /tmp/x\n");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::failed);
  auto events = seen.events();
  events.rows = [](std::string_view) -> Status { return fail(Code::server, "no"); };
  DumpScript other(std::move(events));
  const auto failed = other.feed("COPY t (a) FROM stdin;\n1\n\\.\n");
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == Code::server);
}

}  // namespace
}  // namespace zx::backup
