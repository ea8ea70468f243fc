// The table of events: what was added comes back, also to another process, and a file that is no
// such table is an error.
#include "lib/store/events.h"

#include <doctest/doctest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "tests/support.h"

namespace zx::store {
namespace {

const Wall kAt = parse_utc("2026-11-24T03:12:43.120Z");

std::unique_ptr<Events> open(const std::string& path) {
  auto opened = Events::open(path);
  REQUIRE_MESSAGE(opened.has_value(), (opened ? std::string() : opened.error().message));
  return *std::move(opened);
}
Event event(const std::string& text, const std::string& cluster = "main") {
  return {kAt, cluster, "promoted", "pg-b", "r1", text, Millis(38)};
}
std::vector<std::string> texts(const Events& events, std::size_t most,
                               const std::string& cluster = {}) {
  const auto found = events.newest(most, cluster);
  REQUIRE(found.has_value());
  std::vector<std::string> texts;
  for (const auto& one : *found) texts.push_back(one.text);
  return texts;
}
void execute(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &db) == SQLITE_OK);
  CHECK(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(db);
}

using Texts = std::vector<std::string>;

TEST_CASE("the newest events come back oldest first, of one cluster or of all") {
  const test::Directory directory;
  const auto events = open(directory / "events.sqlite");
  CHECK(texts(*events, 10).empty());
  for (int i = 1; i <= 4; ++i)
    CHECK(events->add(event(std::to_string(i), i % 2 == 0 ? "main" : "other")).has_value());
  CHECK(texts(*events, 10) == Texts{"1", "2", "3", "4"});
  CHECK(texts(*events, 2) == Texts{"3", "4"});
  CHECK(texts(*events, 0).empty());
  CHECK(texts(*events, static_cast<std::size_t>(-1)).size() == 4);
  CHECK(texts(*events, 10, "main") == Texts{"2", "4"});
  CHECK(texts(*events, 1, "other") == Texts{"3"});
  CHECK(texts(*events, 10, "none").empty());
  CHECK(texts(*events, 10, "' OR ''='").empty());
}

TEST_CASE("every value comes back whole, from the file and from JSON") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  Event full = event("主库 pg-a 没有回答：\n\"静默\" 'x'; DROP TABLE events; --");
  Event empty;
  empty.at = kAt - std::chrono::hours(24 * 365);
  {
    const auto events = open(path);
    CHECK(events->add(full).has_value());
    CHECK(events->add(empty).has_value());
  }
  const auto found = open(path)->newest(10);
  REQUIRE(found.has_value());
  REQUIRE(found->size() == 2);
  const auto same = [](const Event& a, const Event& b) {
    CHECK(a.at == b.at);
    CHECK(a.cluster == b.cluster);
    CHECK(a.kind == b.kind);
    CHECK(a.node == b.node);
    CHECK(a.run == b.run);
    CHECK(a.text == b.text);
    CHECK(a.took == b.took);
  };
  same((*found)[0], full);
  same((*found)[1], empty);
  same(event_from_json(to_json(full)), full);
  same(event_from_json(to_json(empty)), empty);
  same(event_from_json(Json(7)), Event());
}

TEST_CASE("the file and its companions may be read by their owner only, whatever the umask") {
  const test::Directory directory;
  const std::string path = directory / "deep/events.sqlite";
  const auto before = umask(0);
  const auto events = open(path);
  CHECK(events->add(event("x")).has_value());
  umask(before);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory / "deep")) {
    struct stat found {};
    REQUIRE(stat(entry.path().c_str(), &found) == 0);
    CAPTURE(entry.path().string());
    CHECK((found.st_mode & 0777) == 0600);
    ++files;
  }
  CHECK(files >= 2);  // its WAL is beside it
}

TEST_CASE("a file that does not exist is not made by a look at it") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  const auto opened = Events::open_existing(path);
  REQUIRE(opened.has_value());
  CHECK(*opened == nullptr);
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK(open(path)->add(event("x")).has_value());
  const auto again = Events::open_existing(path);
  REQUIRE(again.has_value());
  REQUIRE(*again != nullptr);
  CHECK(texts(**again, 10) == Texts{"x"});
}

TEST_CASE("a file that is no database is an error that says what to do, and stays as it is") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  const std::string content(5000, 'x');
  test::write(path, content);
  const auto opened = Events::open(path);
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().code == Code::io);
  CHECK(opened.error().message.find(path) != std::string::npos);
  CHECK(opened.error().hint.find("move the file away") != std::string::npos);
  CHECK(test::read(path) == content);
  CHECK(Events::open(directory.path()).error().code == Code::io);
}

TEST_CASE("a database of a newer zx is refused and stays as it is") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  execute(path, "CREATE TABLE happenings (id INTEGER); PRAGMA user_version = 2;");
  const auto content = test::read(path);
  const auto opened = Events::open(path);
  REQUIRE_FALSE(opened.has_value());
  CHECK(opened.error().message.find("newer zx") != std::string::npos);
  CHECK(test::read(path) == content);
}

TEST_CASE("several who open the same file at the same moment all write into it") {
  const test::Directory directory;
  constexpr int kOpeners = 8, kRounds = 5, kEach = 5;
  for (int round = 0; round < kRounds; ++round) {
    const auto path = directory / ("events-" + std::to_string(round) + ".sqlite");
    std::atomic<bool> go = false;
    std::vector<std::string> errors(kOpeners);
    std::vector<std::thread> threads;
    for (int i = 0; i < kOpeners; ++i)
      threads.emplace_back([&, i] {
        while (!go) std::this_thread::yield();
        auto opened = Events::open(path);
        if (!opened) {
          errors[static_cast<std::size_t>(i)] = opened.error().message;
          return;
        }
        for (int n = 0; n < kEach; ++n)
          if (const auto added = (*opened)->add(event("x")); !added)
            errors[static_cast<std::size_t>(i)] = added.error().message;
      });
    go = true;
    for (auto& thread : threads) thread.join();
    for (const auto& error : errors) CHECK(error == "");
    CHECK(texts(*open(path), 1000).size() == kOpeners * kEach);
  }
}

TEST_CASE("what somebody else adds is seen without opening the file again") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  const auto one = open(path);
  const auto other = open(path);
  CHECK(one->add(event("1")).has_value());
  CHECK(other->add(event("2")).has_value());
  CHECK(texts(*one, 10) == Texts{"1", "2"});
  CHECK(texts(*other, 10) == Texts{"1", "2"});
}

TEST_CASE("only the newest are kept") {
  const test::Directory directory;
  const std::string path = directory / "events.sqlite";
  open(path).reset();
  execute(path,
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100500) "
          "INSERT INTO events SELECT i, i, 'main', 'old', '', '', '', NULL FROM n");
  const auto events = open(path);
  CHECK(events->add(event("new")).has_value());
  const auto all = events->newest(1'000'000);
  REQUIRE(all.has_value());
  CHECK(all->size() == static_cast<std::size_t>(Events::kMost));
  CHECK(all->back().text == "new");
  CHECK(all->front().at == Wall(Millis(502)));
}

}  // namespace
}  // namespace zx::store
