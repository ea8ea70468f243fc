// A primary that dies, and what is left of a client's writes.
#include "tests/scenario/cluster.h"

namespace zx {
namespace {

using test::Cluster;
using test::Writer;

TEST_CASE("a killed primary is failed over under a client's eyes and comes back") {
  Cluster cluster;
  CHECK(cluster.verdict() == "healthy");
  Writer writer(cluster);
  cluster.kill("pg-a");
  const auto done = cluster.zx_json({"failover", "pg", "--yes"});
  CHECK(done["outcome"] == "done");
  CHECK(done["error"].is_null());
  const auto promoted = done["promoted"].get<std::string>();
  CHECK(promoted != "pg-a");
  CHECK(done["lost_bytes"].is_number());
  for (const auto& step : done["steps"]) {
    CHECK_MESSAGE((step["state"] == "done" || step["state"] == "skipped"), step.dump());
    CHECK(step["ms"].is_number());
  }
  CHECK(cluster.writable() == std::vector<std::string>{promoted});

  // Started by a supervisor: a standby, not a second primary.
  CHECK(cluster.start("pg-a"));
  CHECK(cluster.writable() == std::vector<std::string>{promoted});

  const auto again = cluster.zx_json({"failover", "pg", "--yes"}, 3);
  CHECK(again["outcome"] == "refused");

  CHECK(cluster.zx_json({"rejoin", "pg", "pg-a", "--yes"})["outcome"] == "done");
  CHECK(cluster.streams("pg-a"));
  const auto report = writer.finish();
  CHECK(report.acknowledged > 10);
  // Asynchronous replication: what it may lose is what zx says that it lost.
  if (done["lost_bytes"] == 0) CHECK(report.lost == 0);
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a new primary that dies right after its promotion can be rewound") {
  Cluster cluster;
  // Without zx's own checkpoint the first one on the new timeline would take minutes.
  cluster.sql(
      "pg-a",
      "CREATE TABLE ballast AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
  cluster.kill("pg-a");
  const auto first = cluster.zx_json({"failover", "pg", "--yes"})["promoted"].get<std::string>();
  cluster.kill(first);
  const auto second = cluster.zx_json({"failover", "pg", "--yes"})["promoted"].get<std::string>();
  CHECK(second != first);
  CHECK(cluster.zx_json({"rejoin", "pg", first, "--yes"})["outcome"] == "done");
  CHECK(cluster.zx_json({"rejoin", "pg", "pg-a", "--yes"})["outcome"] == "done");
  CHECK(cluster.writable() == std::vector<std::string>{second});
  CHECK(cluster.verdict() == "healthy");
}

TEST_CASE("a switchover under load loses no acknowledged commit") {
  Cluster cluster;
  Writer writer(cluster);
  CHECK(cluster.zx_json({"switchover", "pg", "--to", "pg-c", "--yes"})["promoted"] == "pg-c");
  CHECK(cluster.writable() == std::vector<std::string>{"pg-c"});
  CHECK(cluster.zx_json({"switchover", "pg", "--to", "pg-a", "--yes"})["promoted"] == "pg-a");
  const auto report = writer.finish();
  CHECK(report.lost == 0);
  CHECK(report.acknowledged > 10);
  CHECK(cluster.verdict() == "healthy");
}

}  // namespace
}  // namespace zx
