// May a primary go on whose guard cannot renew its lease? Only while no failover can have happened.
#include <doctest/doctest.h>

#include "lib/ha/pg_guard.h"

namespace zx::ha {
namespace {

constexpr Millis kMargin{1000}, kReplyWithin{1000};

// pg-a on this host, pg-b and pg-c elsewhere; the lease has run out.
struct Scene {
  config::PgCluster cluster;
  pg::NodeFacts facts;
  Millis left{0};
  bool is_barred = false;

  explicit Scene(const std::string& sync_names = "") {
    cluster.name = "main";
    for (const std::string name : {"pg-a", "pg-b", "pg-c"}) {
      config::PgNode node;
      node.name = name;
      cluster.nodes.push_back(node);
    }
    facts.name = "pg-a";
    facts.failure = pg::Failure::none;
    facts.role = pg::Role::primary;
    facts.sync_names = sync_names;
  }
  Scene& hears(const std::string& name, std::optional<Millis> age = Millis(10),
               const std::string& state = "streaming") {
    facts.senders.push_back({name, "10.0.0.2", state, "async", {}, {}, {}, age});
    return *this;
  }
  [[nodiscard]] GuardVerdict verdict() const {
    const auto verdict = guard({cluster, facts, left, kMargin, kReplyWithin, is_barred});
    CHECK_FALSE(verdict.why.empty());
    CHECK_FALSE(verdict.why.ends_with('.'));
    return verdict;
  }
  [[nodiscard]] bool must_stop() const { return verdict().must_stop; }
};

TEST_CASE("a standby never has to stop, nor a server that does not say what it is") {
  Scene standby;
  standby.facts.role = pg::Role::standby;
  standby.is_barred = true;
  CHECK_FALSE(standby.must_stop());
  Scene silent;
  silent.facts.failure = pg::Failure::silent;
  CHECK_FALSE(silent.must_stop());
}

TEST_CASE("a primary goes on while its lease outlasts what stopping it takes") {
  Scene scene;
  scene.left = kMargin + Millis(1);
  CHECK_FALSE(scene.must_stop());
  scene.left = kMargin;
  CHECK(scene.must_stop());
  scene.left = Millis(0);
  CHECK(scene.must_stop());
}

TEST_CASE("a primary that a failover gave up stops, whatever lease or standbys it has") {
  Scene scene = Scene("ANY 1 (\"pg-b\", \"pg-c\")").hears("pg-b").hears("pg-c");
  scene.left = Millis(60'000);
  scene.is_barred = true;
  CHECK(scene.must_stop());
}

TEST_CASE("without a lease enough synchronous standbys keep it going") {
  struct Row {
    const char* names;
    std::vector<std::string> replying;
    bool must_stop;
  };
  const std::vector<Row> rows = {
      {"ANY 1 (\"pg-b\", \"pg-c\")", {"pg-b"}, false},
      {"ANY 1 (\"pg-b\", \"pg-c\")", {}, true},
      {"ANY 2 (\"pg-b\", \"pg-c\")", {"pg-b"}, true},
      {"ANY 2 (\"pg-b\", \"pg-c\")", {"pg-b", "pg-c"}, false},
      {"FIRST 1 (\"pg-b\", \"pg-c\")", {"pg-c"}, false},
      {"FIRST 2 (\"pg-b\", \"pg-c\")", {"pg-c"}, true},
      {"\"pg-b\"", {"pg-b"}, false},
      {"\"pg-b\"", {"pg-c"}, true},
      // Nobody knows who that is; a name of no node tells nothing; text that is none.
      {"*", {"pg-b"}, true},
      {"ANY 1 (walarchive, \"pg-b\")", {"walarchive"}, true},
      {"ANY (", {"pg-b"}, true},
      {"", {"pg-b"}, true},
  };
  for (const auto& row : rows) {
    CAPTURE(row.names);
    Scene scene(row.names);
    for (const auto& name : row.replying) scene.hears(name);
    CHECK(scene.must_stop() == row.must_stop);
  }
}

TEST_CASE("a standby keeps it going only by streaming and having replied lately") {
  const std::string names = "ANY 1 (\"pg-b\", \"pg-c\")";
  CHECK_FALSE(Scene(names).hears("pg-b", kReplyWithin - Millis(1)).must_stop());
  CHECK(Scene(names).hears("pg-b", kReplyWithin).must_stop());
  CHECK(Scene(names).hears("pg-b", std::nullopt).must_stop());
  CHECK(Scene(names).hears("pg-b", Millis(1), "catchup").must_stop());
}

TEST_CASE("without a lease every node that could take over keeps it going by receiving from it") {
  CHECK_FALSE(Scene().hears("pg-b").hears("pg-c").must_stop());
  const auto verdict = Scene().hears("pg-b").verdict();
  CHECK(verdict.must_stop);
  CHECK(verdict.why.find("pg-c may have taken over") != std::string::npos);
  CHECK(Scene().verdict().why.find("pg-b or pg-c") != std::string::npos);
}

TEST_CASE("a node that is never promoted is not asked for, nor the server itself") {
  for (const bool by_priority : {true, false}) {
    Scene scene = Scene().hears("pg-b");
    if (by_priority)
      scene.cluster.nodes[2].priority = 0;
    else
      scene.cluster.nodes[2].nofailover = true;
    scene.cluster.nodes[0].priority = 500;
    CHECK_FALSE(scene.must_stop());
  }
}

TEST_CASE("the only node of a cluster does not outlive its lease") {
  Scene scene;
  scene.cluster.nodes.resize(1);
  CHECK(scene.must_stop());
}

}  // namespace
}  // namespace zx::ha
