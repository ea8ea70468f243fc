// The journal: read back from any text, listed beside broken files, and ended.
#include "lib/run/journal.h"

#include <doctest/doctest.h>

#include "lib/base/ids.h"
#include "lib/run/executor.h"
#include "tests/support.h"

namespace zx::run {
namespace {

using namespace std::string_view_literals;

const std::string kId = "20261124T031243-a1f3";
const std::string kBegin =
    R"({"at":"2026-11-24T03:12:43.120Z","event":"begin","run":"20261124T031243-a1f3","plan":)"
    R"({"command":"failover pg","lock":"pg.main","steps":[{"name":"a","action":"t.a"},)"
    R"({"name":"b","action":"t.b"}]},"host":"h","pid":7})"
    "\n";

std::string path_in(const std::string& state, const std::string& id) {
  return runs_directory(state) + "/" + id + ".jsonl";
}

std::string begin_at(const std::string& time, const std::string& lock = "pg.main") {
  auto json = *parse_json(kBegin, "it");
  json["at"] = time;
  json["plan"]["lock"] = lock;
  return dump_line(json) + "\n";
}

const std::string kEnd = "{\"event\":\"end\",\"outcome\":\"done\"}\n";

Record record_of(const std::string& lines) {
  auto record = parse_run(kBegin + lines, kId);
  REQUIRE_MESSAGE(record.has_value(), (record ? std::string() : record.error().message));
  return *record;
}

TEST_CASE("a journal is read back line by line") {
  const auto record = record_of(R"({"event":"step-start","step":"a"})"
                                "\n"
                                R"({"event":"note","step":"a","key":"k","data":{"x":1}})"
                                "\n"
                                R"({"event":"note","step":"a","key":"k","data":{"x":2}})"
                                "\n"
                                R"({"event":"no-return","step":"a"})"
                                "\n"
                                R"({"event":"step-done","step":"a","ms":12,"seen":{"y":3}})"
                                "\n"
                                R"({"event":"step-start","step":"b"})"
                                "\n");
  CHECK(record.id == kId);
  CHECK(format_utc(record.begun) == "2026-11-24T03:12:43.120Z");
  CHECK(record.host == "h");
  CHECK(record.pid == 7);
  CHECK(record.plan.steps.size() == 2);
  CHECK(record.no_return);
  CHECK_FALSE(record.undoing);
  CHECK_FALSE(record.outcome.has_value());
  const auto& a = record.steps.at("a");
  CHECK(a.state == StepState::done);
  CHECK(a.ms == 12);
  CHECK(get_int(a.seen, "y") == 3);
  CHECK(get_int(a.notes.at("k"), "x") == 2);
  CHECK(record.steps.at("b").state == StepState::unknown);
}

TEST_CASE("the state of a step is that of its last event") {
  const std::string error = R"("error":{"code":"timeout","message":"m"}})"
                            "\n";
  const std::string start = "{\"event\":\"step-start\",\"step\":\"a\"}\n";
  const std::string done = "{\"event\":\"step-done\",\"step\":\"a\"}\n";
  const auto after = [](const std::string& lines) { return record_of(lines).steps["a"]; };
  CHECK(after("").state == StepState::pending);
  CHECK(after(start).state == StepState::unknown);
  CHECK(after(start + done).state == StepState::done);
  const auto failed = after(start + R"({"event":"step-failed","step":"a",)" + error);
  CHECK(failed.state == StepState::failed);
  CHECK(failed.error->code == Code::timeout);
  CHECK(after(start + R"({"event":"step-skipped","step":"a","why":"w"})"
                      "\n")
            .why_skipped == "w");
  // A guard's word is none about what had been done before.
  const std::string refused = R"({"event":"guard-failed","step":"a",)" + error;
  CHECK(after(refused).state == StepState::pending);
  CHECK(after(refused).error.has_value());
  CHECK(after(start + refused).state == StepState::unknown);
  CHECK_FALSE(after(refused + start).error.has_value());
  // Verified in place after all: there is no error any more.
  CHECK_FALSE(after(start + refused + done).error.has_value());
  const std::string undone = R"({"event":"undo-start","step":"a"})"
                             "\n"
                             R"({"event":"undo-done","step":"a"})"
                             "\n";
  CHECK(after(start + done + undone).state == StepState::undone);
  CHECK(record_of(start + done + undone).undoing);
}

TEST_CASE("a last line that was cut short was never acted on") {
  const auto record = record_of(
      "{\"event\":\"step-start\",\"step\":\"a\"}\n"
      "{\"event\":\"no-return\",\"step\":\"a\"}");
  CHECK_FALSE(record.no_return);
  CHECK(record.steps.at("a").state == StepState::unknown);
  CHECK_FALSE(record_of("{\"event\":\"end\",\"outcome\":\"done\"}").outcome.has_value());
  CHECK_FALSE(record_of(std::string(4096, '\0')).outcome.has_value());
  for (const std::string_view text : {""sv, "{\"event\":\"begin\""sv}) {
    const auto none = parse_run(text, kId);
    REQUIRE_FALSE(none.has_value());
    CHECK(none.error().code == Code::not_found);
  }
}

TEST_CASE("any cut of a journal is either read or named, and never has what is behind the cut") {
  const std::string whole = kBegin +
                            "{\"event\":\"step-start\",\"step\":\"a\"}\n"
                            "{\"event\":\"no-return\",\"step\":\"a\"}\n" +
                            kEnd;
  const auto no_return_at = whole.find("no-return");
  for (std::size_t length = 0; length <= whole.size(); ++length) {
    const auto record = parse_run(std::string_view(whole).substr(0, length), kId);
    CAPTURE(length);
    CHECK(record.has_value() == (length >= kBegin.size()));
    if (!record) continue;
    if (length < no_return_at) CHECK_FALSE(record->no_return);
    CHECK(record->outcome.has_value() == (length == whole.size()));
  }
}

TEST_CASE("a hostile journal is an error that names the line") {
  for (const std::string& line :
       {std::string("not json"), std::string("{"), std::string("\x1B[2J\xFF"), std::string("\0", 1),
        std::string(), std::string(300'000, '['), std::string("{\"event\":\"end\"} x")}) {
    CAPTURE(line.substr(0, 40));
    const auto record = parse_run(kBegin + line + "\n" + kEnd, kId);
    REQUIRE_FALSE(record.has_value());
    CHECK(record.error().message.find("line 2 of run " + kId) != std::string::npos);
    CHECK(record.error().message == clean_utf8(record.error().message));
  }
  for (const std::string text : {"{}\n", "[]\n", "null\n", "{\"event\":\"end\"}\n",
                                 "{\"event\":\"begin\"}\n", "{\"event\":\"begin\",\"plan\":7}\n"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_run(text, kId).has_value());
  }
}

TEST_CASE("lines of another kind are passed over") {
  const auto record = record_of(
      "[]\n7\nnull\n\"text\"\n{}\n{\"event\":7}\n{\"event\":\"of tomorrow\",\"step\":\"a\"}\n"
      "{\"event\":\"step-start\"}\n{\"event\":\"step-start\",\"step\":[\"a\"]}\n"
      "{\"event\":\"step-done\",\"step\":\"no such step\"}\n"
      "{\"event\":\"step-failed\",\"step\":\"b\",\"error\":\"not an object\",\"ms\":\"x\"}\n");
  CHECK_FALSE(record.outcome.has_value());
  CHECK_FALSE(record.steps.contains(""));
  CHECK((!record.steps.contains("a") || record.steps.at("a").state == StepState::pending));
  CHECK(record.steps.at("b").state == StepState::failed);
  CHECK(record.steps.at("b").ms == 0);
}

TEST_CASE("a hostile deadline in a journal does not break the run that resumes it") {
  test::Directory state;
  for (const std::string deadline :
       {"9223372036854775807", "-9223372036854775808", "1e300", "18446744073709551615"}) {
    CAPTURE(deadline);
    auto text = kBegin;
    text.replace(text.find("\"action\":\"t.a\""), 14,
                 "\"action\":\"t.a\",\"deadline_ms\":" + deadline);
    test::write(path_in(state.path(), kId), text);
    const Action nothing{{}, [](StepContext&) -> Result<Json> { return Json::object(); }, {}, {}};
    const auto report = resume(kId, {{"t.a", nothing}, {"t.b", nothing}}, state.path(), {});
    REQUIRE(report.has_value());
    CHECK(report->ending == Ending::done);
  }
}

TEST_CASE("a run is read by its id and by nothing else") {
  test::Directory state;
  test::write(path_in(state.path(), kId), kBegin);
  test::write(state / "secret.jsonl", kBegin);
  CHECK(read_run(state.path(), kId).has_value());
  CHECK(read_run(state.path(), "../secret").error().code == Code::usage);
  CHECK(read_run(state.path(), "\x1B[2J").error().code == Code::usage);
  CHECK(read_run(state.path(), "20261124T031243-ffff").error().code == Code::not_found);
}

TEST_CASE("runs are listed newest first, and what is broken is named beside them") {
  test::Directory state;
  CHECK(list_runs(state.path(), 10)->runs.empty());  // no directory yet
  const auto put = [&](const std::string& id, const std::string& text) {
    test::write(path_in(state.path(), id), text);
  };
  put("20261124T031243-0001", begin_at("2026-11-24T03:12:43.100Z"));
  put("20261124T031243-ffff", begin_at("2026-11-24T03:12:43.099Z"));
  put("20261124T031243-0002", begin_at("2026-11-24T03:12:43.101Z"));
  put("20261124T031243-bad1", "not json\n");
  put("20261124T031243-bad2", begin_at("2026-11-24T03:12:43.102Z") + std::string("\0\n", 2));
  put("20261124T031243-bad3", begin_at("2026-11-24T03:12:43.102Z") + "{\n" + kEnd);
  put("20261124T031243-e0e0", "");  // cut before its first line: never begun
  put("20261124T031243-e1e1", "{\"at\"");
  put("latest", begin_at("2027-01-01T00:00:00.000Z"));
  test::write(state / "runs/20261124T031243-0003.jsonl.tmp", "x");
  std::filesystem::create_directories(path_in(state.path(), "20261124T031243-d1d1"));
  const auto found = list_runs(state.path(), 10);
  REQUIRE(found.has_value());
  const auto& runs = found->runs;
  REQUIRE(runs.size() == 3);
  CHECK(runs[0].id == "20261124T031243-0002");
  CHECK(runs[1].id == "20261124T031243-0001");
  CHECK(runs[2].id == "20261124T031243-ffff");
  REQUIRE(found->broken.size() == 4);
  for (const auto& broken : found->broken) {
    CAPTURE(broken.id);
    CHECK(broken.ended == (broken.id == "20261124T031243-bad3"));
    CHECK(broken.lock == (broken.id.ends_with("2") || broken.id.ends_with("3") ? "pg.main" : ""));
  }
  CHECK(list_runs(state.path(), 2)->runs.size() == 2);
  CHECK(list_runs(state.path(), 2)->runs[0].id == "20261124T031243-0002");
  CHECK(list_runs(state.path(), 0)->runs.empty());
}

TEST_CASE("the unfinished run is the newest one on that lock without an end") {
  test::Directory state;
  const auto put = [&](const std::string& id, const std::string& text) {
    test::write(path_in(state.path(), id), text);
  };
  CHECK_FALSE(unfinished_run(state.path(), "pg.main")->has_value());
  put("20261124T031243-0001", begin_at("2026-11-24T03:12:43.001Z"));
  put("20261124T031243-0002", begin_at("2026-11-24T03:12:43.002Z", "pg.other"));
  put("20261124T031243-0003", begin_at("2026-11-24T03:12:43.003Z") + kEnd);
  REQUIRE(unfinished_run(state.path(), "pg.main")->has_value());
  CHECK((*unfinished_run(state.path(), "pg.main"))->id == "20261124T031243-0001");
  CHECK_FALSE(unfinished_run(state.path(), "pg")->has_value());
  put("20261124T031243-0005", begin_at("2026-11-24T03:12:43.005Z"));
  CHECK((*unfinished_run(state.path(), "pg.main"))->id == "20261124T031243-0005");
  REQUIRE(close_run(state.path(), "20261124T031243-0005", "superseded", "by failover pg"));
  CHECK((*unfinished_run(state.path(), "pg.main"))->id == "20261124T031243-0001");
  CHECK(*read_run(state.path(), "20261124T031243-0005")->outcome == "superseded");
}

TEST_CASE("a journal that cannot be read may be of an unfinished run, until it is ended") {
  test::Directory state;
  const auto id = "20261124T031243-0001";
  const auto is_refused = [&](const std::string& lock) {
    const auto open = unfinished_run(state.path(), lock);
    if (open) return false;
    CHECK(open.error().code == Code::refused);
    CHECK(open.error().message.find(id) != std::string::npos);
    CHECK(open.error().hint.find("--as-is") != std::string::npos);
    return true;
  };
  test::write(path_in(state.path(), id), "broken\n");
  CHECK(is_refused("pg.main"));
  CHECK(is_refused("pg.other"));
  // Whose run it is, is known.
  test::write(path_in(state.path(), id), begin_at("2026-11-24T03:12:43.001Z") + "broken\n");
  CHECK(is_refused("pg.main"));
  CHECK_FALSE(is_refused("pg.other"));
  REQUIRE(close_run(state.path(), id, "abandoned", "by the operator"));
  CHECK_FALSE(is_refused("pg.main"));
  CHECK_FALSE(unfinished_run(state.path(), "pg.main")->has_value());
}

TEST_CASE("a step ended when it ended, not when the run did") {
  const auto step = [](const char* event, const char* name, const char* at) {
    return fmt::format(R"({{"at":"{}","event":"{}","step":"{}"}})", at, event, name) + "\n";
  };
  const auto record = parse_run(
      begin_at("2026-11-24T03:12:43.001Z") + step("step-start", "a", "2026-11-24T03:12:43.002Z") +
          step("step-done", "a", "2026-11-24T03:12:44.000Z") +
          step("step-start", "b", "2026-11-24T03:12:44.001Z") +
          R"({"at":"2026-11-24T09:00:00.000Z","event":"end","outcome":"done"})" + "\n",
      kId);
  REQUIRE(record.has_value());
  CHECK(record->steps.at("a").ended == parse_utc("2026-11-24T03:12:44.000Z"));
  CHECK(record->steps.at("b").ended == Wall{});
  CHECK(record->ended == parse_utc("2026-11-24T09:00:00.000Z"));
}

TEST_CASE("runs that may not be read are not taken for no runs") {
  test::Directory state;
  test::write(state / "runs", "a file where the directory should be");
  CHECK(list_runs(state.path(), 10).error().code == Code::io);
  CHECK(unfinished_run(state.path(), "pg.main").error().code == Code::io);
}

TEST_CASE("a run has ended when its last whole line says so, and not before") {
  test::Directory state;
  const std::string id = "20261124T031243-0001";
  const auto is_open = [&](const std::string& behind) {
    test::write(path_in(state.path(), id), begin_at("2026-11-24T03:12:43.001Z") + behind);
    return unfinished_run(state.path(), "pg.main")->has_value();
  };
  CHECK_FALSE(is_open(kEnd));
  CHECK(is_open(kEnd.substr(0, kEnd.size() - 1)));
  CHECK(is_open("{\"event\":\"step-start\",\"step\":\"end\"}\n"));
  CHECK(is_open("{\"event\":\"note\",\"step\":\"a\",\"data\":{\"event\":\"end\"}}\n"));
}

TEST_CASE("an unfinished run is found behind any number of later ones") {
  test::Directory state;
  test::write(path_in(state.path(), "20260101T000000-0000"), begin_at("2026-01-01T00:00:00.000Z"));
  const auto later = begin_at("2026-11-24T03:12:43.005Z", "backup") + kEnd;
  for (int i = 0; i < 1000; ++i)
    test::write(path_in(state.path(), fmt::format("20261124T031243-{:04x}", i)), later);
  REQUIRE(unfinished_run(state.path(), "pg.main")->has_value());
  CHECK((*unfinished_run(state.path(), "pg.main"))->id == "20260101T000000-0000");
}

TEST_CASE("a journal is opened again behind its last whole line") {
  test::Directory state;
  const auto path = path_in(state.path(), kId);
  test::write(path, kBegin + "{\"event\":\"step-start\",\"st");
  {
    auto journal = Journal::reopen(state.path(), kId);
    REQUIRE(journal.has_value());
    CHECK(test::read(path) == kBegin);
    REQUIRE(journal->append({{"event", "no-return"}, {"step", "a"}}));
  }
  CHECK(read_run(state.path(), kId)->no_return);
  CHECK_FALSE(Journal::create(state.path(), kId).has_value());  // an id is used once
  CHECK(read_run(state.path(), kId)->no_return);
  CHECK(Journal::reopen(state.path(), "20261124T031243-ffff").error().code == Code::not_found);
}

}  // namespace
}  // namespace zx::run
