// Positions, ids, times, deadlines, JSON.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <time.h>

#include <limits>

#include "lib/base/clock.h"
#include "lib/base/ids.h"
#include "lib/base/json.h"
#include "lib/base/lsn.h"
#include "lib/base/text.h"

namespace zx {
namespace {

using namespace std::string_view_literals;

TEST_CASE("a position is read as PostgreSQL writes it") {
  const struct {
    std::string_view text;
    std::uint64_t value;
  } rows[] = {
      {"0/0", 0},
      {"0/1", 1},
      {"1/0", 1ULL << 32},
      {"16/B374D848", 0x16B374D848},
      {"16/b374d848", 0x16B374D848},
      {"00000001/00000002", 0x100000002},
      {"FFFFFFFF/FFFFFFFF", std::numeric_limits<std::uint64_t>::max()},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    const auto lsn = parse_lsn(row.text);
    REQUIRE(lsn.has_value());
    CHECK(lsn->value == row.value);
    CHECK(parse_lsn(to_string(*lsn)) == lsn);
  }
  CHECK(to_string(Lsn{0x16B374D848}) == "16/B374D848");
  CHECK(to_string(Lsn{}) == "0/0");
  CHECK_FALSE(Lsn{}.is_valid());
  CHECK(Lsn{1}.is_valid());
}

TEST_CASE("what is no position is not read as one") {
  for (const auto text :
       {""sv,     "/"sv,           "1"sv,           "1/"sv,    "/1"sv,    "1/2/3"sv,
        "1//2"sv, "123456789/0"sv, "0/123456789"sv, "0x1/0"sv, "0/0x1"sv, "-1/0"sv,
        "0/-1"sv, "+1/0"sv,        " 1/2"sv,        "1/2 "sv,  "1 /2"sv,  "G/0"sv,
        "0/G"sv,  "1/2\n"sv,       "1/2\0"sv,       "\0/1"sv,  "1/２"sv,  "NULL"sv}) {
    CAPTURE(std::string(text));
    CHECK_FALSE(parse_lsn(text).has_value());
  }
}

TEST_CASE("a distance between positions is never negative") {
  constexpr Lsn most{std::numeric_limits<std::uint64_t>::max()};
  CHECK(bytes_ahead(Lsn{7}, Lsn{5}) == 2);
  CHECK(bytes_ahead(Lsn{5}, Lsn{7}) == 0);
  CHECK(bytes_ahead(Lsn{5}, Lsn{5}) == 0);
  CHECK(bytes_ahead(most, Lsn{}) == most.value);
  CHECK(bytes_ahead(Lsn{}, most) == 0);
}

TEST_CASE("a run id has its second in front and is recognised") {
  const auto at = parse_utc("2026-11-24T03:12:43.999Z");
  const auto id = make_run_id(at);
  CHECK(id.substr(0, 16) == "20261124T031243-");
  CHECK(is_run_id(id));
  // Ids become file names: nothing else may pass.
  for (const auto text :
       {""sv, "latest"sv, "20261124T031243"sv, "20261124T031243-a1f"sv, "20261124T031243-a1f3x"sv,
        "20261124T031243-a1fg"sv, "20261124t031243-a1f3"sv, "20261124T031243_a1f3"sv,
        "2026112xT031243-a1f3"sv, "../../../../etc/passw"sv, "20261124T03124/-a1f3"sv,
        "20261124T031243-../."sv, "20261124T031243-a1\0f"sv, "20261124T031243-a1\xC3\xA9"sv,
        " 0261124T031243-a1f3"sv, "20261124T031243-a1f3\n"sv}) {
    CAPTURE(std::string(text));
    CHECK_FALSE(is_run_id(text));
  }
}

TEST_CASE("random digits come in the length that was asked for") {
  CHECK(random_hex(0).empty());
  const auto sixteen = random_hex(16);
  CHECK(sixteen.size() == 32);
  CHECK(sixteen.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(sixteen != random_hex(16));
}

TEST_CASE("a time is written in UTC and read back to the millisecond") {
  for (const std::string text :
       {"1970-01-01T00:00:00.001Z", "2026-11-24T03:12:43.120Z", "2024-02-29T23:59:59.999Z",
        "2000-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z", "2038-01-19T03:14:08.000Z"}) {
    CAPTURE(text);
    CHECK(format_utc(parse_utc(text)) == text);
  }
  CHECK(format_utc(Wall{} - Millis(1)) == "1969-12-31T23:59:59.999Z");
  CHECK(format_utc(Wall{} + Millis(1)) == "1970-01-01T00:00:00.001Z");
}

TEST_CASE("a text of another form is the epoch, not some other time") {
  for (const std::string text : {"",
                                 "now",
                                 "2026-11-24",
                                 "2026-11-24T03:12:43Z",
                                 "2026-11-24T03:12:43.12Z",
                                 "2026-11-24T03:12:43.120",
                                 "2026-11-24T03:12:43.120+08:00",
                                 "2026-11-24T03:12:43.120Z ",
                                 " 2026-11-24T03:12:43.120Z",
                                 "2026-11-24 03:12:43.120Z",
                                 "2026-13-24T03:12:43.120Z",
                                 "2026-00-24T03:12:43.120Z",
                                 "2026-02-30T03:12:43.120Z",
                                 "2026-11-24T24:12:43.120Z",
                                 "2026-11-24T03:60:43.120Z",
                                 "2026-11-24T03:12:61.120Z",
                                 "-026-11-24T03:12:43.120Z",
                                 "+026-11-24T03:12:43.120Z",
                                 "2026- 1-24T03:12:43.120Z",
                                 "9999-12-31T23:59:59.999Z",
                                 "0001-01-01T00:00:00.000Z"}) {
    CAPTURE(text);
    CHECK(parse_utc(text) == Wall{});
  }
}

// The zone of the test, put back at its end.
class Zone {
 public:
  explicit Zone(const char* zone) {
    if (const char* old = getenv("TZ")) old_ = old;
    setenv("TZ", zone, 1);
    tzset();
  }
  ~Zone() {
    if (old_)
      setenv("TZ", old_->c_str(), 1);
    else
      unsetenv("TZ");
    tzset();
  }
  Zone(const Zone&) = delete;
  Zone& operator=(const Zone&) = delete;

 private:
  std::optional<std::string> old_;
};

TEST_CASE("a time of today is shown without its day, by the local day") {
  const Zone beijing("CST-8");
  const auto shown = [](const char* time, const char* now) {
    return format_local(parse_utc(time), parse_utc(now));
  };
  CHECK(shown("2026-11-24T16:30:05.000Z", "2026-11-25T15:59:59.000Z") == "00:30:05");
  // One day in UTC, two in Beijing.
  CHECK(shown("2026-11-24T15:59:59.000Z", "2026-11-24T16:00:00.000Z") == "2026-11-24 23:59");
  CHECK(shown("2025-11-24T04:00:00.000Z", "2026-11-24T04:00:00.000Z") == "2025-11-24 12:00");
}

TEST_CASE("a deadline that has passed has nothing left") {
  const Deadline past{Monotonic{}};
  CHECK(past.passed());
  CHECK(past.left() == Millis(0));
  CHECK(past.at_most(Millis(1000)).at() == Monotonic{});
  CHECK(Deadline::after(Millis(-1000)).left() == Millis(0));
}

TEST_CASE("a deadline of any length, as a journal may hold it, does not wrap round") {
  CHECK_FALSE(Deadline::after(Millis::max()).passed());
  CHECK(Deadline::after(Millis::min()).passed());
  CHECK(Deadline::after(Millis(3'600'000)).at_most(Millis::max()).left() <= Millis(3'600'000));
}

TEST_CASE("foreign text is written as JSON that can be read") {
  const std::string foreign = "caf\xE9 \xFF\xFE \xE4\xB8 \xED\xA0\x80 \x1B[31m";
  const Json json{{"message", foreign}, {foreign, 1}};
  for (const auto& text : {dump_line(json), dump_pretty(json)}) {
    const auto back = parse_json(text, "it");
    REQUIRE(back.has_value());
    CHECK(get_string(*back, "message").find("\xEF\xBF\xBD") != std::string::npos);
  }
  CHECK(dump_line(Json{{"a", "1\n2"}}).find('\n') == std::string::npos);
}

TEST_CASE("what is not JSON is named, cleaned and cut short") {
  for (const auto text : {""sv, "{"sv, "{\"a\":1} x"sv, "nul"sv, "{'a':1}"sv, "[1,]"sv,
                          "\"\xFF\""sv, "{\"a\":1}\0"sv, "\x1B[2J"sv}) {
    CAPTURE(std::string(text));
    const auto json = parse_json(text, "journal line 3");
    REQUIRE_FALSE(json.has_value());
    CHECK(json.error().code == Code::io);
    CHECK(json.error().message.starts_with("journal line 3 is not JSON"));
    CHECK(json.error().message == clean_utf8(json.error().message));
  }
  const auto error = parse_json(std::string(10'000, 'x'), "it").error();
  CHECK(error.message.size() < 200);
}

TEST_CASE("JSON of absurd depth is refused before it can exhaust the stack") {
  const std::string deep = std::string(300'000, '[') + std::string(300'000, ']');
  CHECK_FALSE(parse_json(deep, "it").has_value());
  std::string nested;
  for (int i = 0; i < 300'000; ++i) nested += "{\"a\":";
  nested += "1" + std::string(300'000, '}');
  CHECK_FALSE(parse_json(nested, "it").has_value());
  // Brackets inside strings are text.
  const auto text = parse_json("\"" + std::string(10'000, '[') + "\\\"[\"", "it");
  CHECK(text.has_value());
  // As deep as anything that zx writes, and more.
  const auto fair = parse_json(std::string(60, '[') + std::string(60, ']'), "it");
  REQUIRE(fair.has_value());
  CHECK(dump_line(*fair).size() == 120);
}

TEST_CASE("readers of JSON give the default for whatever is missing or of another type") {
  const auto json = *parse_json(
      R"({"text":"t","number":7,"big":18446744073709551615,"low":-9223372036854775808,
          "half":1.5,"yes":true,"null":null,"list":[1],"object":{"a":1}})",
      "it");
  CHECK(get_string(json, "text", "d") == "t");
  CHECK(get_int(json, "number", 1) == 7);
  CHECK(get_int(json, "low") == std::numeric_limits<std::int64_t>::min());
  CHECK(get_bool(json, "yes"));
  for (const char* key : {"number", "null", "list", "object", "yes", "absent"}) {
    CAPTURE(std::string(key));
    CHECK(get_string(json, key, "d") == "d");
  }
  for (const char* key : {"text", "half", "yes", "null", "list", "absent"}) {
    CAPTURE(std::string(key));
    CHECK(get_int(json, key, 3) == 3);
  }
  // It does not fit; wrapped round it would be -1.
  CHECK(get_int(json, "big", 3) == 3);
  for (const char* key : {"text", "number", "null", "absent"}) {
    CAPTURE(std::string(key));
    CHECK(get_bool(json, key, true));
    CHECK_FALSE(get_bool(json, key, false));
  }
  for (const auto& other : {Json(), Json(3), Json("text"), Json::array({1, 2})}) {
    CHECK(get_object(other, "a").is_null());
    CHECK(get_string(other, "a", "d") == "d");
  }
}

TEST_CASE("an error keeps all it says through JSON") {
  for (const auto& entry : all_codes()) {
    CAPTURE(std::string(entry.name));
    Error error{entry.code, "it \"failed\"\nbadly", "try", {"while a", "while b"}, true};
    const auto line = parse_json(dump_line(to_json(error)), "it");
    REQUIRE(line.has_value());
    const auto back = error_from_json(*line);
    CHECK(back.code == error.code);
    CHECK(back.message == error.message);
    CHECK(back.hint == error.hint);
    CHECK(back.trail == error.trail);
    CHECK(back.retryable == error.retryable);
  }
  const Error plain{Code::failed, "m", {}, {}, false};
  CHECK_FALSE(error_from_json(to_json(plain)).retryable);
}

TEST_CASE("an error is made of any JSON") {
  CHECK(error_from_json(Json()).code == Code::internal);
  CHECK_FALSE(error_from_json(Json()).message.empty());
  const auto odd = error_from_json(
      *parse_json(R"({"code":7,"message":[],"hint":{},"trail":["a",1,null,"b"]})", "it"));
  CHECK(odd.code == Code::internal);
  CHECK(odd.trail == std::vector<std::string>{"a", "b"});
  CHECK(error_from_json(Json{{"code", "of tomorrow"}}).code == Code::internal);
}

TEST_CASE("every code has a name of its own and an exit status of the table") {
  for (const auto& entry : all_codes()) {
    CAPTURE(std::string(entry.name));
    CHECK(code_from_name(entry.name) == entry.code);
    CHECK(&info(entry.code) == &entry);
    const bool known =
        (entry.exit >= 1 && entry.exit <= 11) || entry.exit == 130 || entry.exit == 143;
    CHECK(known);
  }
}

}  // namespace
}  // namespace zx
