// What PostgreSQL's programs see of zx's own environment.
#include "lib/pg/client_environment.h"

#include <stdlib.h>

#include <algorithm>

#include "tests/support.h"

namespace zx::pg {
namespace {

class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) {
    REQUIRE(getenv(name) == nullptr);
    REQUIRE(setenv(name, value, 1) == 0);
  }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST_CASE("what zx inherits does not say where PostgreSQL's programs connect to") {
  const Variable service("PGSERVICE", "elsewhere"), file("PGSERVICEFILE", "/nonexistent");
  const Variable address("PGHOSTADDR", "192.0.2.1"), channel("PGCHANNELBINDING", "require");
  const Variable database("PGDATABASE", "wrong"), password("PGPASSWORD", "wrong");
  const Variable key("PGSSLKEY", "/key"), other("ZX_TEST_OTHER", "stays");
  for (const std::string secret : {"", "geheim"}) {
    CAPTURE(secret);
    Target target;
    target.address = "127.0.0.1";
    target.port = 1;
    target.user = "zx";
    target.password = secret;
    const auto environment = ClientEnvironment::make(target);
    REQUIRE(environment.has_value());
    os::ProcessOptions options;
    options.environment = environment->variables("shop");
    const auto lines = test::lines_of(test::run_program({"/usr/bin/env"}, options).out);
    const auto is_there = [&](const std::string& begin) {
      return std::any_of(lines.begin(), lines.end(),
                         [&](const std::string& line) { return line.starts_with(begin); });
    };
    for (const char* name :
         {"PGSERVICE=", "PGSERVICEFILE=", "PGHOSTADDR=", "PGCHANNELBINDING=", "PG*"})
      CHECK_FALSE_MESSAGE(is_there(name), name);
    // As whom zx itself would come.
    CHECK(is_there("PGPASSWORD=wrong") == secret.empty());
    CHECK_FALSE((is_there("PGPASSWORD=") && !secret.empty()));
    CHECK(is_there("PGSSLKEY=/key"));
    CHECK(is_there("PGHOST=127.0.0.1"));
    CHECK(is_there("PGDATABASE=shop"));
    CHECK(is_there("PGPASSFILE=") == !secret.empty());
    CHECK(is_there("ZX_TEST_OTHER=stays"));
  }
}

}  // namespace
}  // namespace zx::pg
