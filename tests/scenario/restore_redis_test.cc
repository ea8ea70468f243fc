// The keys of a set are brought back, and nothing else: on the master, on its replica, on their
// disks; and what was there before.
#include "lib/run/journal.h"
#include "tests/scenario/faults.h"
#include "tests/scenario/platform.h"

namespace zx {
namespace {

using test::eventually;
using test::Platform;
using test::says;

const std::vector<std::string> kRestore{"restore", "redis", "--confirm", "cache"};
const std::vector<std::string> kUndo{"restore", "undo", "--confirm", "lab"};
const std::vector<std::string> kBoth{"redis-a", "redis-b"};

bool all_have(const Platform& platform, const std::string& wanted) {
  return eventually([&] {
    return std::all_of(kBoth.begin(), kBoth.end(),
                       [&](const auto& node) { return platform.keys(node) == wanted; });
  });
}

// As it was but for the keys.
std::string others_changed_since(const Platform& platform,
                                 std::map<std::string, std::string> then) {
  then["keys"] = platform.keys();
  return platform.changed_since(then);
}

void lose_all(const Platform& platform) {
  platform.redis({"FLUSHALL"});
  platform.redis({"SET", "since", "then"});
}

std::vector<std::string> safety_copies(const Platform& platform) {
  std::vector<std::string> all;
  for (const auto& entry :
       std::filesystem::directory_iterator(platform.state_dir() + "/backups/redis"))
    all.push_back(entry.path().filename());
  return all;
}

void kill_and_start(const Platform& platform) {
  for (const auto& node : kBoth) {
    const auto sent = platform.lab().kill(node, SIGKILL);
    REQUIRE_MESSAGE((sent && *sent > 0), node);
  }
  for (const auto& node : kBoth) {
    const auto started = platform.lab().start(node);
    REQUIRE_MESSAGE(started.has_value(), test::why(started));
  }
  CHECK(eventually([&] {
    return says(platform.redis({"INFO", "replication"}, "redis-b"), "master_link_status:up");
  }));
}

}  // namespace

TEST_CASE("keys that were lost come back on master and replica, and undo takes them back") {
  const Platform platform({.pg = 1, .redis = 2});
  platform.fill(10, 500);
  platform.redis({"HSET", "购物车", "item", "3", "name", "杯"});
  platform.redis({"ZADD", "ranks", "1.5", "a", "2", "b"});
  platform.redis({"SETEX", "session", "100000", "x"});
  const auto id = platform.back_up();
  const auto good = platform.keys();
  platform.sql("DELETE FROM zx_rows WHERE id > 5", "zhi_xuan_order");
  test::write(platform.uploads() + "/later", "later");
  lose_all(platform);
  const auto lost = platform.keys();
  REQUIRE(lost != good);
  REQUIRE(all_have(platform, lost));
  const auto before = platform.everything();

  const auto plan = platform.zx({"restore", "redis", "--plan"});
  CHECK(plan.exit == 0);
  CHECK(says(plan.out, "all keys of redis-a"));
  CHECK(platform.zx({"restore", "redis"}).exit == 9);
  CHECK(platform.zx({"restore", "redis", "--confirm", "lab"}).exit == 9);
  CHECK(platform.changed_since(before) == "");

  const auto done = platform.zx_json(kRestore);
  CHECK(done["set"] == id);
  std::vector<std::string> steps;
  for (const auto& step : done["steps"]) steps.push_back(step["name"]);
  CHECK(steps == std::vector<std::string>{"redis", "receipt"});
  CHECK(all_have(platform, good));
  CHECK(std::stoi(platform.redis({"TTL", "session"})) > 90'000);
  CHECK(others_changed_since(platform, before) == "");
  // Another restore would leave no way back.
  CHECK(platform.zx(kRestore).exit == 3);

  kill_and_start(platform);
  CHECK(all_have(platform, good));
  CHECK(platform.redis({"SET", "written-after", "1"}) == "OK");

  CHECK_FALSE(safety_copies(platform).empty());
  const auto undone = platform.zx(kUndo);
  REQUIRE_MESSAGE(undone.exit == 0, (undone.out + undone.err));
  CHECK(all_have(platform, lost));
  CHECK(platform.changed_since(before) == "");
  // Neither the one of before the restore nor that of the way back.
  CHECK(join(safety_copies(platform), " ") == "");
  kill_and_start(platform);
  CHECK(all_have(platform, lost));

  // Once more, for good.
  CHECK(platform.zx(kRestore).exit == 0);
  CHECK_FALSE(safety_copies(platform).empty());
  CHECK(platform.zx({"restore", "commit", "--yes"}).exit == 0);
  CHECK(join(safety_copies(platform), " ") == "");
  CHECK(all_have(platform, good));
  CHECK(platform.zx(kUndo).exit == 2);
}

TEST_CASE("a restore of keys that is killed at any line is finished, or taken back") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(0, 100);
  platform.back_up();
  const auto good = platform.keys();
  lose_all(platform);
  const auto lost = platform.keys();
  int resumed = 0, aborted = 0;
  // Once the server has them every way takes a while: of each step the beginning or the end.
  constexpr int kLoaded = 15;
  for (int line = 1;; line += line < kLoaded ? 1 : 2) {
    CAPTURE(line);
    const auto result = platform.zx_killed_in("fdatasync", line, kRestore);
    const auto runs = run::list_runs(platform.state_dir(), 1000);
    REQUIRE_MESSAGE(runs.has_value(), test::why(runs));
    std::string open;
    for (const auto& record : runs->runs)
      if (!record.outcome && record.plan.command == "restore redis") open = record.id;
    if (result.signal != SIGKILL || (open.empty() && aborted > 0)) {  // after its last line
      CHECK(platform.keys() == good);
      if (result.signal != SIGKILL) break;
      REQUIRE(platform.zx(kUndo).exit == 0);
      continue;
    }
    if (open.empty()) {  // it had begun nothing
      CHECK(platform.keys() == lost);
      continue;
    }
    const bool is_resumed = line % 6 == 3;
    const auto ended = platform.zx({"runs", is_resumed ? "resume" : "abort", open});
    REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
    ++(is_resumed ? resumed : aborted);
    CHECK(platform.keys() == (is_resumed ? good : lost));
    CHECK(platform.redis({"SET", "written-after", "1"}) == "OK");
    CHECK(platform.redis({"DEL", "written-after"}) == "1");
    if (!is_resumed) continue;
    const auto undone = platform.zx(kUndo);
    REQUIRE_MESSAGE(undone.exit == 0, (undone.out + undone.err));
    CHECK(platform.keys() == lost);
  }
  CHECK(resumed > 2);
  CHECK(aborted > 10);
}

TEST_CASE("keys come of an older set when the copy of the newest is damaged, or not at all") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(0, 20);
  const auto copy_in = [&](const std::string& id) {
    const auto entry = platform.open_repository().set(id);
    REQUIRE((entry && entry->set && entry->set->redis));
    return platform.repository() + "/" + entry->set->redis->rdb.path;
  };
  const auto refused = [&](const std::vector<std::string>& words, int exit,
                           const std::string& message) {
    const auto before = platform.everything();
    auto all = kRestore;
    all.insert(all.end(), words.begin(), words.end());
    const auto result = platform.zx(all);
    CHECK_MESSAGE(result.exit == exit, (result.out + result.err));
    CHECK_MESSAGE(says(result.err, message), result.err);
    CHECK(platform.changed_since(before) == "");
  };
  const auto without = platform.back_up({"--only", "pg"});
  refused({}, 2, "no set has what is wanted");
  refused({"--set", without}, 3, "set " + without + " has no copy of Redis");

  const auto good = platform.back_up();
  const auto keys = platform.keys();
  platform.redis({"SET", "later", "1"});
  const auto bad = platform.back_up();
  const auto newest = platform.back_up({"--only", "pg"});
  platform.flip_a_byte(copy_in(bad));
  refused({"--set", bad}, 1, bad);

  const auto done = platform.zx_json(kRestore, 11);
  CHECK(done["set"] == good);
  REQUIRE(done["passed_over"].size() == 1);
  CHECK(says(done["passed_over"], bad));
  CHECK_FALSE(says(done["passed_over"], newest));
  CHECK(platform.keys() == keys);
  CHECK(platform.zx({"restore", "commit", "--yes"}).exit == 0);

  std::filesystem::remove(copy_in(good));
  refused({}, 1, "no good set");

  // A set of a platform that had Redis, where zx.toml has none any more.
  const auto third = platform.back_up();
  auto config = test::read(platform.config());
  const auto begin = config.find("[redis.cache]");
  config.erase(begin, config.find("[backup]") - begin);
  test::write(platform.config(), config);
  refused({"--set", third}, 6, "names no Redis deployment");
}

}  // namespace zx
