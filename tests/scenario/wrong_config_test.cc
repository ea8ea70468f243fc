// zx.toml that is wrong about a node: nothing is stopped before that is found.
#include "tests/scenario/execution.h"

namespace zx {
namespace {

using test::Cluster;
using test::data_dir;
using test::done;
using test::only;
using test::says;

// The processes that serve: none of them may have been ended and started again.
std::map<std::string, std::string> postmasters(const Cluster& cluster) {
  std::map<std::string, std::string> pids;
  for (const auto& member : cluster.lab().members())
    if (const auto facts = cluster.lab().node(member.name); facts && facts->is_running())
      pids[member.name] = test::lines_of(test::read(facts->data_dir + "/postmaster.pid")).front();
  return pids;
}

void name_data_dir(const Cluster& cluster, const std::string& node, const std::string& dir) {
  cluster.edit_config("data_dir = \"" + data_dir(cluster, node) + "\"",
                      "data_dir = \"" + dir + "\"");
}

// Exits with `exit` and leaves every server running and every file as it was.
Json stopped_by(const Cluster& cluster, int exit, const std::vector<std::string>& words) {
  const auto before = postmasters(cluster);
  const auto roles = test::roles_on_disk(cluster);
  const auto json = cluster.zx_json(words, exit);
  CHECK(json["run"].is_null());
  CHECK(postmasters(cluster) == before);
  CHECK(test::roles_on_disk(cluster) == roles);
  CHECK(cluster.zx_json({"runs", "list"})["runs"].empty());
  return json;
}

TEST_CASE("a data_dir in which another node's server runs is not touched") {
  Cluster cluster;
  SUBCASE("of a standby, the primary's") {
    name_data_dir(cluster, "pg-b", data_dir(cluster, "pg-a"));
    test::stop_receiving(cluster, "pg-b");
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"rejoin", "pg", "pg-b", "--yes"},
          {"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-b"}}) {
      const auto json = stopped_by(cluster, 3, words);
      CHECK_MESSAGE(says(json["error"], "data_dir of pg-b is not that server's"), json.dump());
      CHECK(says(json["error"]["hint"], "SHOW data_directory"));
    }
  }
  SUBCASE("of the primary, a standby's") {
    name_data_dir(cluster, "pg-a", data_dir(cluster, "pg-b"));
    const auto json = stopped_by(cluster, 3, {"switchover", "pg", "--to", "pg-c", "--yes"});
    CHECK_MESSAGE(says(json["error"], "data_dir of pg-a is not that server's"), json.dump());
  }
  CHECK(cluster.writable() == only("pg-a"));
}

TEST_CASE("a data_dir of another cluster is neither rewound nor lost by a rebuild") {
  Cluster cluster;
  const Cluster other;
  const auto theirs = data_dir(other, "pg-b");
  other.sql("pg-a", "CREATE TABLE theirs ()");
  CHECK(test::has_replayed_all_of(other, "pg-b", "pg-a"));
  cluster.kill("pg-b");
  name_data_dir(cluster, "pg-b", theirs);
  const std::vector<std::string> rebuild{"rejoin", "pg", "pg-b", "--rebuild", "--confirm", "pg-b"};

  // While a server runs there, not even with the node's name.
  const auto running = stopped_by(cluster, 3, rebuild);
  CHECK_MESSAGE(says(running["error"], "not that server's"), running.dump());
  CHECK(other.lab().node("pg-b")->is_running());

  other.kill("pg-b");
  for (const auto& words : {std::vector<std::string>{"rejoin", "pg", "pg-b", "--yes"}, rebuild}) {
    const auto json = stopped_by(cluster, 3, words);
    CHECK_MESSAGE(says(json["error"], "another cluster"), json.dump());
    CHECK(says(json["error"]["hint"], "an empty directory"));
  }
  CHECK_FALSE(os::exists(theirs + "/zx-fence.json"));
  CHECK(other.start("pg-b"));
}

TEST_CASE("programs that are not in bin_dir are missed before anything is stopped") {
  Cluster cluster;
  SUBCASE("none is there") {
    test::set_in(cluster, "pg.main", "bin_dir = \"/nonexistent/bin\"");
    const auto json = stopped_by(cluster, 6, {"switchover", "pg", "--to", "pg-b", "--yes"});
    CHECK_MESSAGE(says(json["error"], "/nonexistent/bin"), json.dump());
    CHECK(says(json["error"]["hint"], "bin_dir"));
  }
  SUBCASE("pg_rewind is not") {
    test::without_program(cluster, "pg_rewind");
    test::stop_receiving(cluster, "pg-b");
    const auto json = stopped_by(cluster, 6, {"rejoin", "pg", "pg-b", "--yes"});
    CHECK_MESSAGE(says(json["error"], "has no pg_rewind in"), json.dump());
  }
  CHECK(cluster.writable() == only("pg-a"));
}

TEST_CASE("without a way to tell whose directory it is, an old primary is not fenced in it") {
  Cluster cluster;
  test::set_in(cluster, "pg.main", "bin_dir = \"/nonexistent/bin\"");
  CHECK(cluster.verdict() == "healthy");
  cluster.kill("pg-a");
  const auto json = stopped_by(cluster, 3, {"failover", "pg", "--yes"});
  CHECK_MESSAGE(says(json["error"], "its system identifier could not be read"), json.dump());
  CHECK(cluster.writable().empty());
}

}  // namespace
}  // namespace zx
