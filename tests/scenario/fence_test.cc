// The fence: what zx does when it cannot be had, when it fails, when it would hit the wrong one.
#include <unistd.h>

#include "tests/scenario/faults.h"

namespace zx {
namespace {

using test::Cluster;
using test::done;
using test::eventually;
using test::only;
using test::refused;
using test::roles_on_disk;
using test::says;
using test::step_of;

const std::vector<std::string> kFailover{"failover", "pg", "--yes"};

// The line `remote = …` of the host of pg-a; empty: none.
void set_remote(const Cluster& cluster, const std::string& line) {
  auto text = test::read(cluster.config());
  const auto table = text.find("[hosts.lab-a]");
  REQUIRE(table != std::string::npos);
  const auto old = text.find("remote = ", table);
  if (old < text.find("[hosts.lab-b]")) text.erase(old, text.find('\n', old) + 1 - old);
  if (!line.empty()) text.insert(text.find('\n', table) + 1, line + "\n");
  test::write(cluster.config(), text);
}

// Runs zx there through another program, which `script` may make fail: it has the words in $@.
void set_remote_script(const Cluster& cluster, const std::string& script) {
  const auto remote = fmt::format("remote = [\"/bin/sh\", \"-c\", '{}', \"remote\"]", script);
  set_remote(cluster, remote + "\nprogram = \"" + ZX_BINARY + "\"");
}

void set_data_dir(const Cluster& cluster, const std::string& dir) {
  cluster.edit_config(test::data_dir(cluster, "pg-a"), dir);
}

TEST_CASE("without a way to its host a dead primary is not replaced, but on the operator's word") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  test::add_row(cluster, "pg-a", 1);
  for (const char* node : {"pg-b", "pg-c"}) REQUIRE(test::has_all_of(cluster, node, "pg-a"));
  set_remote(cluster, "");
  cluster.kill("pg-a");
  const auto report = refused(cluster, kFailover);
  CHECK(says(report["error"], "pg-a cannot be fenced"));
  CHECK(says(report["error"]["hint"], "[hosts.lab-a] remote"));
  CHECK(says(report["error"]["hint"], "--assume-fenced"));
  CHECK(cluster.writable().empty());

  const auto assumed = done(cluster, {"failover", "pg", "--yes", "--assume-fenced"});
  const auto promoted = assumed["promoted"].get<std::string>();
  CHECK(step_of(assumed, "fence")["seen"]["proof"] == "operator");
  CHECK(cluster.writable() == only(promoted));
  CHECK(test::rows(cluster, promoted) == "1");
  const auto owed = cluster.zx({"status"});
  CHECK_MESSAGE(owed.out.find("pg-a was not fenced on its host") != std::string::npos, owed.out);

  // The word was wrong: it comes back as the primary that it was.
  CHECK(cluster.start("pg-a"));
  const auto status = cluster.zx_json({"status"});
  CHECK(status["pg"]["verdict"] == "two_primaries");
  CHECK(says(status["pg"]["next"], "rejoin pg pg-a"));
  refused(cluster, kFailover);
  const auto helpless = cluster.zx({"rejoin", "pg", "pg-a", "--yes"});
  CHECK(helpless.exit != 0);
  CHECK_MESSAGE(helpless.err.find("remote") != std::string::npos, helpless.err);
  set_remote(cluster, "remote = []");
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.writable() == only(promoted));
  CHECK(cluster.verdict() == "healthy");
  test::add_row(cluster, promoted, 2);
  CHECK(eventually([&] { return test::rows(cluster, "pg-a") == "1,2"; }));
  CHECK(cluster.zx({"status"}).out.find("not fenced") == std::string::npos);
}

TEST_CASE("a policy without a fence promotes, and tells that nothing was proved") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  set_remote(cluster, "");
  test::set_policy(cluster, "require_fence", "false");
  cluster.kill("pg-a");
  const auto report = done(cluster, kFailover);
  CHECK(step_of(report, "fence")["seen"]["proof"] == "policy");
  CHECK(cluster.writable() == only(report["promoted"].get<std::string>()));
  const auto owed = cluster.zx({"status"});
  CHECK_MESSAGE(owed.out.find("pg-a was not fenced on its host") != std::string::npos, owed.out);
}

TEST_CASE("a live primary is not replaced on anybody's word") {
  const Cluster cluster;
  const auto before = test::receivers(cluster);
  refused(cluster, {"failover", "pg", "--yes", "--assume-fenced"});
  CHECK(test::receivers(cluster) == before);
  CHECK(cluster.writable() == only("pg-a"));
}

TEST_CASE("a data directory that is none is named, and nothing is changed") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  const auto right = test::data_dir(cluster, "pg-a");
  const auto wrong = cluster.beside("elsewhere");
  set_data_dir(cluster, wrong);
  cluster.kill("pg-a");
  for (const std::string words : {"does not exist", "no PG_VERSION", "no global/pg_control"}) {
    if (words == "no PG_VERSION") std::filesystem::create_directory(wrong);
    if (words == "no global/pg_control") test::write(wrong + "/PG_VERSION", "15\n");
    const auto report = refused(cluster, kFailover);
    for (const auto& part : {std::string("pg-a"), wrong, words, std::string("cannot be fenced")})
      CHECK_MESSAGE(says(report["error"]["message"], part), report["error"].dump());
    CHECK(cluster.writable().empty());
  }
  cluster.edit_config(wrong, right);
  done(cluster, kFailover);
}

TEST_CASE("a data directory of another server is not taken for the primary's") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  const auto right = test::data_dir(cluster, "pg-a");
  std::string wrong, words;
  bool frozen = false;
  SUBCASE("a standby's") {
    wrong = test::data_dir(cluster, "pg-c");
    // Two nodes of one directory would be found when zx.toml is read.
    cluster.edit_config(wrong, cluster.beside("moved"));
    words = fmt::format("a server on port {} runs there", cluster.lab().node("pg-c")->port);
  }
  SUBCASE("another cluster's") {
    wrong = cluster.beside("foreign");
    const auto owner = *os::owner_of(right);
    os::ProcessOptions as_server;
    if (geteuid() == 0) as_server.user = *os::user_of_uid(owner.uid);
    const auto initdb = config::PgCluster{}.bin_dir + "/initdb";
    std::filesystem::create_directory(wrong);
    REQUIRE(chown(wrong.c_str(), owner.uid, owner.gid) == 0);
    as_server.directory = wrong;
    REQUIRE(test::run_program({initdb, "-D", wrong, "--no-sync", "-A", "trust"}, as_server).ok());
    words = "another cluster";
  }
  SUBCASE("an old copy of its own, while it is only frozen") {
    wrong = cluster.beside("copy");
    REQUIRE(test::run_program({"/bin/cp", "-a", right, wrong}).ok());
    words = "no server runs there";
    frozen = true;
  }
  set_data_dir(cluster, wrong);
  if (frozen)
    cluster.kill("pg-a", SIGSTOP);
  else
    cluster.kill("pg-a");
  const auto report = refused(cluster, kFailover);
  for (const auto& part : {std::string("pg-a"), wrong, words})
    CHECK_MESSAGE(says(report["error"]["message"], part), report["error"].dump());
  CHECK(!os::exists(wrong + "/zx-fence.json"));
  if (!frozen) return;
  cluster.kill("pg-a", SIGCONT);
  CHECK(eventually([&] { return cluster.writable() == only("pg-a"); }));
}

TEST_CASE("a host whose remote fails, says nonsense or hangs cannot fence") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  for (const char* argv :
       {"[\"/bin/false\"]", "[\"/nonexistent/ssh\", \"{address}\"]", "[\"/bin/echo\", \"welcome\"]",
        "[\"/bin/sh\", \"-c\", \"exec sleep 1000\"]"}) {
    CAPTURE(argv);
    set_remote(cluster, std::string("remote = ") + argv);
    CHECK(cluster.verdict() == "primary_dead");
    const auto report = refused(cluster, kFailover);
    CHECK(says(report["error"]["message"], "pg-a cannot be fenced"));
    CHECK(says(report["error"]["message"], "host lab-a"));
    CHECK(says(report["error"]["hint"], "[hosts.lab-a] remote"));
    CHECK(cluster.writable().empty());
  }
  const auto assumed = done(cluster, {"failover", "pg", "--yes", "--assume-fenced"});
  CHECK(cluster.writable() == only(assumed["promoted"].get<std::string>()));
}

TEST_CASE("a fence that fails when it is needed: all is taken back and nobody is promoted") {
  const Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  test::set_policy(cluster, "fence_deadline", "\"1s\"");
  SUBCASE("fails") { set_remote_script(cluster, "[ $3 = pg-fence ] && exit 9; exec \"$@\""); }
  SUBCASE("hangs") {
    set_remote_script(cluster, "[ $3 = pg-fence ] && exec sleep 1000; exec \"$@\"");
  }
  cluster.kill("pg-a", SIGSTOP);
  const auto before = roles_on_disk(cluster);
  const auto report = cluster.zx_json(kFailover, 1);
  CHECK(report["outcome"] == "failed");
  CHECK(report["promoted"].is_null());
  CHECK(step_of(report, "freeze")["state"] == "undone");
  CHECK(says(report["error"], "lab-a"));
  CHECK(roles_on_disk(cluster) == before);
  CHECK(cluster.writable().empty());
  cluster.kill("pg-a", SIGCONT);
  for (const char* node : {"pg-b", "pg-c"}) CHECK(cluster.streams(node));
  CHECK(eventually([&] { return cluster.verdict() == "healthy"; }));
}

TEST_CASE("through a remote that works a host fences as if it were this one") {
  const Cluster cluster;
  set_remote_script(cluster, "exec \"$@\"");
  cluster.kill("pg-a", SIGSTOP);
  const auto report = done(cluster, kFailover);
  const auto promoted = report["promoted"].get<std::string>();
  CHECK(step_of(report, "fence")["seen"]["killed"] == true);
  CHECK(cluster.start("pg-a"));
  CHECK(cluster.writable() == only(promoted));
  done(cluster, {"rejoin", "pg", "pg-a", "--yes"});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("what the old primary wrote between the look at its WAL and its fence is known") {
  const Cluster cluster;
  SUBCASE("nothing") { set_remote_script(cluster, "exec \"$@\""); }
  SUBCASE("its supervisor started it") {
    set_remote_script(cluster, fmt::format("[ $3 = pg-fence ] && \"$1\" lab start pg-a --dir {} "
                                           ">&2 < /dev/null; exec \"$@\"",
                                           cluster.lab().dir()));
  }
  cluster.kill("pg-a");
  REQUIRE(test::is_down(cluster, "pg-a"));
  const auto report = done(cluster, kFailover);
  const auto receipt = step_of(report, "receipt")["seen"];
  const bool ran = step_of(report, "fence")["seen"]["ended"] > 0;
  CHECK(step_of(report, "fence")["seen"].contains("wal_end") == ran);
  CHECK(receipt["exact"] == true);
  CHECK((receipt["bytes"] > 0) == ran);
}

}  // namespace
}  // namespace zx
