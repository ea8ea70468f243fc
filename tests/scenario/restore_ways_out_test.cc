// From wherever a restore stands there is a way out: ended as it is, with a database that somebody
// has made anew, with a service that cannot be stopped, without a primary, with writes frozen.
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::Configured;
using test::has;
using test::killed_at;
using test::Platform;

using Words = std::vector<std::string>;

const Words kPg{"restore", "pg", "--db", "zhi_xuan_order", "--confirm", "main"};
const Words kFiles{"restore", "files", "--confirm", "lab"};
const Words kFull{"restore", "full", "--confirm", "lab"};
const Words kUndo{"restore", "undo", "--confirm", "lab"};
const Words kCommit{"restore", "commit", "--yes"};

// Lines of the journal of kPg: begin, two each of load, rows and analyze, three of databases. Of
// kFiles: begin, two of files aside, three of files.
constexpr int kSwapped = 10;
constexpr int kMoved = 6;

std::string order(const Platform& platform, const std::string& sql) {
  return platform.sql(sql, "zhi_xuan_order");
}
std::string leavings(const Platform& platform) {
  return platform.sql("SELECT datname FROM pg_database WHERE datname LIKE '%\\_zx___'");
}

std::string ends(const Platform& platform, const Words& words, int exit, const Words& said = {}) {
  const auto result = platform.zx(words);
  const auto all = join(words, " ") + "\n" + result.out + result.err;
  CHECK_MESSAGE(result.exit == exit, all);
  for (const auto& word : said) CHECK_MESSAGE(has(result.out + result.err, word), all);
  return all;
}

}  // namespace

TEST_CASE("a restore that is ended as it is keeps what it has replaced, for undo and commit") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(20, 0);
  platform.back_up();
  const auto good = platform.everything();
  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  std::filesystem::remove_all(platform.uploads());
  const auto lost = platform.everything();

  auto run = killed_at(platform, kSwapped, kPg);
  ends(platform, {"runs", "abort", run, "--as-is"}, 0,
       {"what it replaced is kept", "restore undo"});
  CHECK(order(platform, "SELECT count(*) FROM zx_rows") == "20");
  ends(platform, kUndo, 0);
  CHECK(platform.changed_since(lost) == "");
  CHECK(leavings(platform) == "");

  run = killed_at(platform, kMoved, kFiles);
  ends(platform, {"runs", "abort", run, "--as-is"}, 0, {"what it replaced is kept"});
  CHECK(os::exists(platform.uploads()));
  ends(platform, kUndo, 0);
  CHECK(platform.changed_since(lost) == "");
  run = killed_at(platform, kSwapped, kPg);
  ends(platform, {"runs", "abort", run, "--as-is"}, 0);
  ends(platform, kCommit, 0, {"database zhi_xuan_order_zxold"});
  CHECK(leavings(platform) == "");

  // Before anything is replaced there is nothing to keep.
  run = killed_at(platform, 3, kFiles);
  const auto said = ends(platform, {"runs", "abort", run, "--as-is"}, 0);
  CHECK_FALSE(has(said, "is kept"));
  ends(platform, kCommit, 0, {"Nothing is kept"});
  for (const char* tree : {"uploads", "config"})
    std::filesystem::remove_all(platform.lab().dir() + "/app/" + tree + ".zxnew");
  ends(platform, kFiles, 0);
  CHECK(platform.changed_since(good) == "");
}

TEST_CASE("undo leaves alone what somebody has made since, and commit looks before it begins") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(20, 0);
  platform.back_up({"--only", "pg"});
  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  REQUIRE(platform.zx(kPg).exit == 0);
  const auto anew = [&] {
    platform.sql("DROP DATABASE zhi_xuan_order WITH (FORCE)");
    platform.sql("CREATE DATABASE zhi_xuan_order");
    order(platform, "CREATE TABLE mine AS SELECT 7 AS n");
  };
  anew();
  ends(platform, kUndo, 3, {"zhi_xuan_order is not what was restored"});
  CHECK(order(platform, "SELECT n FROM mine") == "7");
  CHECK(leavings(platform) == "zhi_xuan_order_zxold");
  platform.sql("DROP DATABASE zhi_xuan_order");

  // Without a primary the way back stays open.
  REQUIRE(platform.zx({"lab", "kill", "pg-a", "--dir", platform.lab().dir()}).exit == 0);
  ends(platform, kCommit, 7);
  REQUIRE(platform.zx({"lab", "start", "pg-a", "--dir", platform.lab().dir()}).exit == 0);
  ends(platform, kUndo, 0);
  CHECK(order(platform, "SELECT count(*) FROM zx_rows") == "5");

  // One that was not there before, and was made anew after its restore.
  platform.sql("DROP DATABASE zhi_xuan_order");
  REQUIRE(platform.zx(kPg).exit == 0);
  anew();
  ends(platform, kUndo, 0);
  CHECK(order(platform, "SELECT n FROM mine") == "7");
  CHECK(leavings(platform) == "");
}

TEST_CASE("an undo whose services cannot be stopped starts them again and changes nothing") {
  const Platform platform({.pg = 1, .redis = 0, .services = true});
  platform.fill(20, 0);
  platform.back_up();
  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  const auto lost = platform.everything();
  REQUIRE(platform.zx(kFull).exit == 0);
  const auto restored = platform.everything();
  {
    // The first of them, which is stopped last.
    const Configured broken(
        platform, platform.script() + "\", \"stop\", \"{port}\"]\n[services.order.health]",
        "/bin/false\"]\n[services.order.health]");
    ends(platform, kUndo, 1, {"taken back"});
    CHECK(platform.changed_since(restored) == "");
    for (const int port : platform.ports()) CHECK(platform.serves(port));
  }
  ends(platform, kUndo, 0);
  CHECK(platform.changed_since(lost) == "");
  for (const int port : platform.ports()) CHECK(platform.serves(port));
}

TEST_CASE("a restore works where writes are frozen and postgres lets nobody in") {
  const Platform platform({.pg = 1, .redis = 0});
  platform.fill(20, 0);
  platform.back_up({"--only", "pg"});
  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  const auto lost = platform.everything();
  platform.sql("ALTER SYSTEM SET default_transaction_read_only = on");
  platform.sql("SELECT pg_reload_conf()");
  REQUIRE(
      test::eventually([&] { return platform.sql("SHOW default_transaction_read_only") == "on"; }));
  ends(platform, kPg, 0);
  CHECK(order(platform, "SELECT count(*) FROM zx_rows") == "20");
  ends(platform, kUndo, 0);
  ends(platform, kPg, 0);
  ends(platform, kCommit, 0);
  platform.sql("ALTER SYSTEM RESET default_transaction_read_only");
  platform.sql("SELECT pg_reload_conf()");
  REQUIRE(test::eventually(
      [&] { return platform.sql("SHOW default_transaction_read_only") == "off"; }));

  order(platform, "DELETE FROM zx_rows WHERE id > 5");
  const Configured elsewhere(platform, test::databases_in(platform),
                             "database = \"template1\"\n" + test::databases_in(platform));
  order(platform, "ALTER DATABASE postgres ALLOW_CONNECTIONS false");
  ends(platform, kPg, 0);
  ends(platform, kUndo, 0);
  order(platform, "ALTER DATABASE postgres ALLOW_CONNECTIONS true");
  CHECK(platform.changed_since(lost) == "");
}

}  // namespace zx
