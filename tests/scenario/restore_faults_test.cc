// What comes between a restore and its end: mounts in a tree, a database that somebody drops or
// makes meanwhile, another primary, sessions of standbys, services that do not become healthy.
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::Configured;
using test::eventually;
using test::has;
using test::Mount;
using test::Platform;

const std::vector<std::string> kPg{"restore", "pg", "--db", "zhi_xuan_order", "--confirm", "main"};
const std::vector<std::string> kFiles{"restore", "files", "--confirm", "lab"};
const std::vector<std::string> kUndo{"restore", "undo", "--confirm", "lab"};
const std::vector<std::string> kCommit{"restore", "commit", "--yes"};

// Lines of the journal of kPg: begin, load, rows, analyze, databases, …
constexpr int kLoaded = 3;
constexpr int kAnalyzed = 7;

std::string order(const Platform& platform, const std::string& sql,
                  const std::string& node = "pg-a") {
  return platform.sql(sql, "zhi_xuan_order", node);
}

std::string killed(const Platform& platform, int line) {
  return test::killed_at(platform, line, kPg);
}

std::string leavings(const Platform& platform) {
  return platform.sql("SELECT datname FROM pg_database WHERE datname LIKE '%\\_zx___'");
}

pg::Client session(const Platform& platform, const std::string& node) {
  const auto deadline = Deadline::after(test::kPatience);
  auto client = pg::Client::open(platform.target("zhi_xuan_order", node), deadline);
  REQUIRE(client.has_value());
  REQUIRE(client->query("SELECT 1", deadline).has_value());
  return *std::move(client);
}

bool is_ended(pg::Client& client) {
  return eventually(
      [&] { return !client.query("SELECT 1", Deadline::after(Millis(5'000))).has_value(); });
}

}  // namespace

TEST_CASE("what is mounted in a tree is neither moved nor removed") {
  if (geteuid() != 0) return;  // only root can mount
  const Platform platform({.pg = 1, .redis = 0});
  const auto tree = platform.uploads();
  platform.back_up({"--only", "files"});
  const auto is_refused = [&](const std::vector<std::string>& words, const std::string& text) {
    const auto result = platform.zx(words);
    CHECK_MESSAGE(result.exit == 3, (result.out + result.err));
    CHECK_MESSAGE(has(result.err, text), result.err);
    CHECK_FALSE(os::exists(tree + ".zxnew"));
  };
  {
    const auto share = Mount::of_memory(tree + "/me dia", "size=1m");
    REQUIRE(share.is_there());
    is_refused(kFiles, "me dia is mounted in");
  }
  std::filesystem::remove(tree + "/me dia");
  {
    const auto itself = Mount::read_only(tree);
    REQUIRE(itself.is_there());
    is_refused(kFiles, "is a mount point");
  }
  REQUIRE(platform.zx(kFiles).exit == 0);
  {
    const auto share = Mount::of_memory(tree + ".zxold/media", "size=1m");
    REQUIRE(share.is_there());
    test::write(tree + ".zxold/media/only copy", "x");
    is_refused(kCommit, "media is mounted in");
    CHECK(test::read(tree + ".zxold/media/only copy") == "x");
    CHECK(std::filesystem::exists(tree + ".zxold/2026"));
  }
  const auto undone = platform.zx(kUndo);
  CHECK_MESSAGE(undone.exit == 0, (undone.out + undone.err));
}

TEST_CASE("what a restored file lacks is said") {
  if (geteuid() != 0) return;  // others own what they restore
  const Platform platform({.pg = 1, .redis = 0});
  const auto file = platform.uploads() + "/of another";
  test::write(file, "x");
  REQUIRE(chown(file.c_str(), 12345, 12345) == 0);
  platform.back_up({"--only", "files"});
  os::Argv words{"setpriv", "--bounding-set=-chown", "--inh-caps=-chown", ZX_BINARY,
                 "-c",      platform.config()};
  words.insert(words.end(), kFiles.begin(), kFiles.end());
  words.insert(words.end(), {"-o", "json"});
  const auto done = test::run_program(words);
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK_MESSAGE(has(done.err, "owner"), done.err);
  const auto json = test::json_of(done);
  CHECK(json["steps"][0]["name"] == "files aside");
  CHECK_MESSAGE(json["steps"][0]["seen"]["warnings"].size() == 1, json["steps"][0].dump());
}

TEST_CASE("a restore that was cut short trusts only what it loaded, where it loaded it") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(20, 0);
  // So large that zx has its rows counted while it loads them.
  order(
      platform,
      "CREATE TABLE large AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 40000) g");
  platform.back_up({"--only", "pg"});
  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  const auto refuses = [&](const std::string& run, int exit, const std::string& text) {
    const auto result = platform.zx({"runs", "resume", run});
    CHECK_MESSAGE(result.exit == exit, (result.out + result.err));
    CHECK_MESSAGE(has(result.err, text), result.err);
    CHECK(order(platform, "SELECT count(*) FROM zx_rows") == "5");
    CHECK(leavings(platform) == "");
  };
  auto run = killed(platform, kAnalyzed);
  platform.sql("DROP DATABASE zhi_xuan_order_zxnew");
  refuses(run, 3, "zhi_xuan_order_zxnew is not there any more");
  // Another of that name.
  run = killed(platform, kAnalyzed);
  platform.sql("DROP DATABASE zhi_xuan_order_zxnew");
  platform.sql("CREATE DATABASE zhi_xuan_order_zxnew");
  refuses(run, 3, "zhi_xuan_order_zxnew is not what was loaded");
  // Promoted since.
  run = killed(platform, kLoaded);
  test::edit(platform.state_dir() + "/runs/" + run + ".jsonl", "\"timeline\":\"00000001\"",
             "\"timeline\":\"00000007\"");
  refuses(run, 3, "timeline 00000001 instead of 00000007");
  // Rows that were counted by another process are counted once more.
  run = killed(platform, kLoaded);
  platform.sql("DELETE FROM zx_rows WHERE id = 7", "zhi_xuan_order_zxnew");
  refuses(run, 1, "is not what was backed up");

  // What an application makes while it is loaded is kept, and comes back.
  platform.sql("DROP DATABASE zhi_xuan_order WITH (FORCE)");
  run = killed(platform, kAnalyzed);
  platform.sql("CREATE DATABASE zhi_xuan_order");
  order(platform, "CREATE TABLE mine AS SELECT 4711 AS id");
  const auto done = platform.zx({"runs", "resume", run});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(order(platform, "SELECT count(*) FROM zx_rows") == "20");
  CHECK(order(platform, "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'zx_rows'") == "t");
  const auto undone = platform.zx(kUndo);
  CHECK_MESSAGE(undone.exit == 0, (undone.out + undone.err));
  CHECK(order(platform, "SELECT id FROM mine") == "4711");
  CHECK(leavings(platform) == "");
}

TEST_CASE("sessions of a standby end with the swap, subscriptions with the database") {
  const Platform platform({.pg = 2, .redis = 0});
  platform.fill(20, 0);
  order(platform,
        "CREATE SUBSCRIPTION \"su b\" CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH"
        " (connect = false)");
  order(platform, "ALTER SUBSCRIPTION \"su b\" ENABLE");
  platform.back_up();
  // zx asks the servers in the database that is restored.
  const Configured asked(platform, "[pg.main]\n", "[pg.main]\ndatabase = \"zhi_xuan_order\"\n");
  auto before = session(platform, "pg-b");
  const auto done = platform.zx(kPg);
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(is_ended(before));
  auto meanwhile = session(platform, "pg-b");
  const auto undone = platform.zx(kUndo);
  CHECK_MESSAGE(undone.exit == 0, (undone.out + undone.err));
  CHECK(is_ended(meanwhile));

  // A commit that was cut short has no way back.
  REQUIRE(platform.zx({"restore", "full", "--confirm", "lab"}).exit == 0);
  auto written = test::read(platform.state_dir() + "/restored.json");
  CHECK(has(written, "\"committing\": false"));
  REQUIRE(platform.zx_killed_in("unlinkat", 1, kCommit).signal == SIGKILL);
  written = test::read(platform.state_dir() + "/restored.json");
  CHECK(has(written, "\"committing\": true"));
  CHECK(platform.sql("SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_zxold'") == "0");
  const auto late = platform.zx(kUndo);
  CHECK_MESSAGE(late.exit == 3, (late.out + late.err));
  CHECK(has(late.err, "zx restore commit"));
  const auto committed = platform.zx(kCommit);
  CHECK_MESSAGE(committed.exit == 0, (committed.out + committed.err));
  CHECK(leavings(platform) == "");
  CHECK(platform.sql("SELECT count(*) FROM pg_subscription") == "0");
}

TEST_CASE("services are stopped before what they use is taken back, and start on nothing mixed") {
  if (geteuid() != 0) return;  // only root can mount
  const Platform platform({.pg = 1, .redis = 0, .services = true});
  platform.fill(20, 0);
  platform.back_up();
  order(platform, "DELETE FROM zx_rows");
  const auto before = platform.everything();
  const auto log = platform.beside("service-log");
  test::edit(platform.script(), "case $1 in", "echo \"$1\" >> " + log + "\ncase $1 in");
  std::string run;
  {
    const Configured ill(platform, "expect = 204\n", "expect = 200\nwithin = \"200ms\"\n");
    const auto partial = platform.zx({"restore", "full", "--confirm", "lab"});
    REQUIRE_MESSAGE(partial.exit == 4, (partial.out + partial.err));
    run = platform.zx_json({"runs", "list"})["runs"][0]["run"].get<std::string>();
  }
  CHECK(test::read(log) == "stop\nstop\nstart\nstart\n");
  {
    const auto share = Mount::of_memory(platform.uploads() + "/media", "size=1m");
    REQUIRE(share.is_there());
    const auto stuck = platform.zx({"runs", "abort", run});
    CHECK_MESSAGE(stuck.exit == 4, (stuck.out + stuck.err));
    CHECK_MESSAGE(has(stuck.out + stuck.err, "the services were not started"),
                  (stuck.out + stuck.err));
    CHECK(test::read(log) == "stop\nstop\nstart\nstart\nstop\nstop\n");
    for (const int port : platform.ports()) CHECK_FALSE(platform.serves(port));
  }
  std::filesystem::remove(platform.uploads() + "/media");
  const auto aborted = platform.zx({"runs", "abort", run});
  CHECK_MESSAGE(aborted.exit == 0, (aborted.out + aborted.err));
  CHECK(platform.changed_since(before) == "");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
}

}  // namespace zx
