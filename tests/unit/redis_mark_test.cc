// Who is at work, read off the list of a server's clients.
#include "lib/ha/redis_mark.h"

#include <doctest/doctest.h>

namespace zx::ha {
namespace {

const char* const kList =
    "id=9 addr=10.0.0.7:50312 laddr=10.0.0.5:6379 fd=9 name=zx:20261126T101500-a1f3:ops-1:"
    "failover_redis age=3 idle=0 flags=N db=0 cmd=client|list user=default\n"
    "id=4 addr=10.0.0.8:50300 fd=8 name=zx:20261126T101459-beef:ops-2:redis_sync age=4 idle=1 "
    "flags=N\n"
    "id=3 addr=10.0.0.9:50298 fd=7 name=zx age=90 idle=0 flags=N\n"
    "id=2 addr=10.0.0.9:50296 fd=6 name=app:zx:x:y age=90 idle=0 flags=N\n"
    "id=1 addr=10.0.0.9:50294 fd=5 name= age=90 idle=0 flags=S\n";

TEST_CASE("the marks of runs are found among the clients, the longest there first") {
  const auto marks = marks_in(kList);
  REQUIRE(marks.size() == 2);
  CHECK(marks[0].run == "20261126T101459-beef");
  CHECK(marks[0].command == "redis sync");
  CHECK(marks[0].idle_s == 1);
  CHECK(marks[1].run == "20261126T101500-a1f3");
  CHECK(marks[1].host == "ops-1");
  CHECK(marks[1].command == "failover redis");
  CHECK(marks[1].client == 9);
}

TEST_CASE(
    "a run is kept out by every other but a sync where it is a failover, and by no stale one") {
  const auto by = [](const std::string& list, const std::string& run, const std::string& command) {
    const auto mark = keeps_out(marks_in(list), run, command);
    return mark ? mark->run : std::string();
  };
  CHECK(by(kList, "other", "redis restore") == "20261126T101459-beef");
  CHECK(by(kList, "other", "failover redis") == "20261126T101500-a1f3");
  CHECK(by(kList, "20261126T101500-a1f3", "failover redis").empty());
  CHECK(by("id=4 name=zx:r:h:redis_restore idle=9\n", "other", "redis sync") == "r");
  CHECK(by("id=4 name=zx:r:h:redis_restore idle=10\n", "other", "redis sync").empty());
  CHECK(stale(marks_in("id=4 name=zx:r:h:redis_restore idle=10\n")).size() == 1);
  CHECK(stale(marks_in(kList)).empty());
}

TEST_CASE("a mark is a name that Redis takes, whatever the host is called") {
  CHECK(mark_name("20261126T101500-a1f3", "ops-1.example", "redis restore") ==
        "zx:20261126T101500-a1f3:ops-1.example:redis_restore");
  CHECK(mark_name("r", "a:b\n主", "x").find_first_of(" \n\x80") == std::string::npos);
  const auto back = marks_in("id=1 name=" + mark_name("r", "a:b\n主", "redis sync") + " idle=0\n");
  REQUIRE(back.size() == 1);
  CHECK(back[0].host == "a?b????");
}

TEST_CASE("names that only look like marks, and hostile ones, are none") {
  CHECK(marks_in("").empty());
  CHECK(marks_in("id=1 name=zx: idle=0\nid=2 name=zx:a:b idle=0\nid=3 name=zx:a:b:c:d").empty());
  const auto hostile = marks_in("id=99999999999999999999 name=zx:\x1b[31m:h\x07:c idle=-5\n");
  REQUIRE(hostile.size() == 1);
  CHECK(hostile[0].run == "??31m");
}

}  // namespace
}  // namespace zx::ha
