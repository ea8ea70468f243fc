// Children whose output is taken piece by piece.
#include "lib/os/stream.h"

#include <doctest/doctest.h>

#include "lib/base/clock.h"

namespace zx::os {
namespace {

TEST_CASE("a child that has closed its outputs and does not end is ended when it is given up") {
  const auto given_up = Deadline::after(Millis(300));
  ProcessOptions options;
  options.deadline = Millis(20'000);
  options.cancelled = [&] { return given_up.passed(); };
  const auto start = monotonic_now();
  const auto ran = run_reading({"/bin/sh", "-c", "exec >&- 2>&-; exec sleep 60"}, options,
                               [](std::string_view) { return Status(); });
  REQUIRE_FALSE(ran.has_value());
  CHECK(ran.error().code == Code::interrupted);
  CHECK(since(start) < Millis(10'000));
}

TEST_CASE("a child that has closed its outputs and does not end meets its deadline") {
  ProcessOptions options;
  options.deadline = Millis(300);
  const auto ran = run_reading({"/bin/sh", "-c", "exec >&- 2>&-; exec sleep 60"}, options,
                               [](std::string_view) { return Status(); });
  REQUIRE_FALSE(ran.has_value());
  CHECK(ran.error().code == Code::timeout);
}

}  // namespace
}  // namespace zx::os
