// The record that all agents share, there and back, and what somebody else may have put there.
#include "lib/ha/watch_record.h"

#include <doctest/doctest.h>

namespace zx::ha {
namespace {

const Wall kAt = parse_utc("2026-11-24T03:12:43.120Z");

WatchRecord full() {
  WatchRecord record;
  record.last = WatchRecord::Failover{kAt, "20261124-031243-7f3a", "pg-a", "pg-b", true};
  record.pause = WatchRecord::Pause{"00ff", kAt + Millis(1), Millis(90'000), "换磁盘 \"now\"\n"};
  record.owed = {{"pg-a", "r1", "quorum", kAt}, {"pg-c", "r2", "", kAt + Millis(2), "pg-b"}};
  return record;
}

TEST_CASE("a record comes back as it was, whatever it has and has not") {
  std::vector<WatchRecord> records = {{}, full()};
  records.push_back(full());
  records.back().pause.reset();
  records.push_back(full());
  records.back().last.reset();
  records.back().owed.clear();
  records.push_back(full());
  records.back().last->by_hand = true;
  records.back().begun = WatchRecord::Begun{"root@h1", "pg-a", "pg-b", "quorum", kAt};
  records.push_back(full());
  records.back().sync_owed = SyncDebt{"ANY 1 (\"pg-a\", \"pg-b\")", "", "r7"};
  for (const auto& record : records) {
    const auto text = dump_line(to_json(record));
    CAPTURE(text);
    const auto back = watch_record_from(text);
    REQUIRE(back.has_value());
    CHECK(*back == record);
  }
  CHECK(watch_record_from("") == WatchRecord());
  CHECK(watch_key("main") == "watch/pg.main");
}

TEST_CASE("a record knows which node is to be brought back, and why") {
  const auto record = full();
  REQUIRE(record.owes("pg-a") != nullptr);
  CHECK(record.owes("pg-a")->proof == "quorum");
  CHECK(record.owes("pg-b") == nullptr);
}

TEST_CASE("a failover that begins does not forget the one whose end nobody told") {
  WatchRecord record = full();
  record.begun = WatchRecord::Begun{"zx-1", "pg-a", "pg-c", "guard", kAt};
  record.begin({"root@h1", "pg-a", "pg-b", "", kAt + Millis(5)});
  CHECK(record.begun->agent == "root@h1");
  CHECK(record.owes("pg-c")->run == "of zx-1");
  CHECK(record.owes("pg-a")->proof == "guard");
  CHECK(record.owes("pg-b") == nullptr);
}

TEST_CASE("who was promoted is owed nothing, and who was left behind is") {
  WatchRecord record;
  record.owe({"pg-b", "r1", "", kAt});
  record.begun = WatchRecord::Begun{"root@h1", "pg-a", "pg-b", "", kAt};
  const WatchRecord::Failover done{kAt, "r2", "pg-a", "pg-b", false, 3, true};
  SUBCASE("by a failover, told twice") {
    for (int i = 0; i < 2; ++i) record.promote("root@h1", done, "quorum", "");
    CHECK(record.owes("pg-a")->proof == "quorum");
    CHECK(record.owed.size() == 1);
    CHECK_FALSE(record.begun.has_value());
    CHECK(record.last == done);
  }
  SUBCASE("by a person who finished what an agent began") {
    record.promote("zx-2", done, "", "");
    CHECK(record.last == done);
    CHECK_FALSE(record.begun.has_value());
  }
  SUBCASE("not by one who stood still while another began") {
    record.begun->to = "pg-c";
    const auto before = record;
    record.promote("zx-2", done, "", "");
    CHECK(record == before);
  }
  SUBCASE("not by one who stood still while another promoted") {
    record.last = WatchRecord::Failover{kAt, "r3", "pg-a", "pg-c", false, 3};
    const auto last = record.last;
    record.promote("root@h1", done, "", "r1");
    CHECK(record.last == last);
    CHECK(record.owes("pg-b") != nullptr);
    CHECK_FALSE(record.begun.has_value());
    record.promote("root@h1", done, "", "r3");
    CHECK(record.last == done);
  }
}

TEST_CASE("text that is no JSON is an error, never an empty record") {
  for (const std::string text : {"{", "nothing", "{} {}", "\xff"})
    CHECK(watch_record_from(text).error().code == Code::io);
}

TEST_CASE("JSON of another shape has none of what it should have") {
  for (const std::string text :
       {"null", "[]", "7", "\"text\"", "{\"owed\": 7}", "{\"owed\": \"pg-a\"}",
        "{\"owed\": [null, 7, [], {}, {\"node\": 7}, {\"node\": \"\"}]}",
        "{\"last_failover\": [], \"pause\": \"soon\"}"}) {
    CAPTURE(text);
    const auto record = watch_record_from(text);
    REQUIRE(record.has_value());
    CHECK(*record == WatchRecord());
  }
}

TEST_CASE("a span that no pause may have is cut to what it may") {
  const auto span = [](const std::string& number) {
    const auto record =
        watch_record_from("{\"pause\": {\"id\": \"p\", \"for_ms\": " + number + "}}");
    REQUIRE(record.has_value());
    REQUIRE(record->pause.has_value());
    return record->pause->span;
  };
  CHECK(span("-1") == Millis(0));
  CHECK(span("1.5") == Millis(0));
  CHECK(span("9223372036854775807") == kLongestPause);
  CHECK(span("99999999999999999999") == Millis(0));
  CHECK(span("604800000") == kLongestPause);
  CHECK(span("604800001") == kLongestPause);
}

TEST_CASE("a time that cannot be read is long ago, and a stranger's key changes nothing") {
  const auto record = watch_record_from(
      "{\"last_failover\": {\"at\": \"yesterday\", \"run\": \"r1\", \"acknowledged\": \"yes\"}, "
      "\"schema\": 9}");
  REQUIRE(record.has_value());
  REQUIRE(record->last.has_value());
  CHECK(record->last->at == Wall{});
  CHECK_FALSE(record->last->is_acknowledged);
}

}  // namespace
}  // namespace zx::ha
