// What a server, or what stands in its place, says: why there is no answer.
#include "lib/pg/connection.h"

#include <doctest/doctest.h>

namespace zx::pg {
namespace {

Failure why(const std::string& text) { return classify(parse_message(text)); }

TEST_CASE("a SQLSTATE says why, in whatever language the words are") {
  CHECK(why("FATAL:  53300: sorry, too many clients already\nLOCATION:  x") ==
        Failure::too_many_connections);
  CHECK(why("致命错误:  28P01: 用户 \"zx\" Password 认证失败\n") == Failure::auth);
  CHECK(why("FATAL:  28000: no pg_hba.conf entry for host\n") == Failure::auth);
  CHECK(why("FATAL:  3D000: database \"x\" does not exist\n") == Failure::no_database);
  CHECK(why("FATAL:  57P01: terminating connection due to administrator command\n") ==
        Failure::shutting_down);
  CHECK(why("FATAL:  57P03: the database system is starting up\n") == Failure::starting_up);
  CHECK(why("FATAL:  57P03: the database system is shutting down\n") == Failure::shutting_down);
  CHECK(why("FATAL:  57P03: the database system is not yet accepting connections\n") ==
        Failure::recovering);
  CHECK(why("ERROR:  42501: permission denied for function pg_ls_waldir\n") == Failure::permission);
  CHECK(why("ERROR:  53200: out of memory\n") == Failure::resources);
  CHECK(why("ERROR:  58030: could not read block 1\n") == Failure::resources);
  CHECK(why("ERROR:  57014: canceling statement due to statement timeout\n") == Failure::cancelled);
  CHECK(why("ERROR:  55006: 其他用户正在访问数据库 \"shop\"\n") == Failure::in_use);
  CHECK(why("ERROR:  42P01: relation \"gone\" does not exist\n") == Failure::other);
}

TEST_CASE("libpq's own words say why when no server spoke") {
  const std::string at = "connection to server at \"127.0.0.1\", port 1 failed: ";
  CHECK(why(at + "Connection refused\n\tIs the server running there?") == Failure::refused);
  CHECK(why(at + "No route to host") == Failure::no_route);
  CHECK(why(at + "Network is unreachable") == Failure::no_route);
  CHECK(why(at + "fe_sendauth: no password supplied") == Failure::auth);
  CHECK(why(at + "server closed the connection unexpectedly") == Failure::broken);
}

TEST_CASE("what is not PostgreSQL is neither dead nor a matter of passwords") {
  const std::string at = "connection to server at \"127.0.0.1\", port 80 failed: ";
  CHECK(why(at + "expected authentication request from server, but received H") ==
        Failure::not_postgres);
  CHECK(why(at + "received invalid response to SSL negotiation: H") == Failure::not_postgres);
}

TEST_CASE("a server's last words tell a stop that was asked for from a crash, in any language") {
  struct Row {
    const char* sqlstate;
    const char* function;
    Ending ending;
    const char* name;
  };
  const std::vector<Row> rows = {
      {"57P01", "ProcessInterrupts", Ending::stopped_fast, "stopped_fast"},
      {"57P01", "quickdie", Ending::stopped_immediately, "stopped_immediately"},
      {"57P01", "secure_read", Ending::postmaster_gone, "postmaster_gone"},
      {"57P01", "", Ending::postmaster_gone, "postmaster_gone"},
      {"57P02", "quickdie", Ending::crashed, "crashed"},
      {"57P02", "", Ending::crashed, "crashed"},
      {"57P03", "ProcessInterrupts", Ending::broken, "broken"},
      {"", "ProcessInterrupts", Ending::broken, "broken"},
      {"", "", Ending::broken, "broken"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.sqlstate);
    CAPTURE(row.function);
    CHECK(ending_of(row.sqlstate, row.function) == row.ending);
    CHECK(std::string(name_of(ending_of(row.sqlstate, row.function))) == row.name);
  }
}

}  // namespace
}  // namespace zx::pg
