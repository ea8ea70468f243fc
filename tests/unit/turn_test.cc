// Who has the turn of a cluster: what is written about it, and which word counts against whose.
#include "lib/coord/turn.h"

#include <doctest/doctest.h>

#include <unistd.h>

#include "lib/base/json.h"
#include "lib/ha/pg_chain.h"
#include "lib/os/files.h"
#include "tests/support.h"

namespace zx {
namespace {

TEST_CASE("a turn says who has it, since when, and where to look") {
  auto holder = coord::turn_holder("zx switchover pg");
  CHECK(holder.pid == getpid());
  CHECK(!holder.host.empty());
  CHECK(!holder.user.empty());
  CHECK(holder.id != coord::turn_holder("zx switchover pg").id);
  holder.host = "h1";
  holder.pid = 123;
  const auto error = coord::turn_held("pg.main", coord::write_turn(holder), holder.since);
  CHECK(error.code == Code::locked);
  CHECK(error.message == "zx switchover pg on host h1 (pid 123, since " +
                             format_local(holder.since, holder.since) + ") is at work on pg.main");
  CHECK(error.hint.find("on h1: zx runs list") != std::string::npos);
}

TEST_CASE("a turn that cannot be understood is somebody's all the same") {
  for (const std::string text : {"", "{", "null", "[]", "7", "{\"command\": 7, \"host\": {}}",
                                 "{\"command\": \"zx failover pg\"}", "\xff\n\x01"}) {
    const auto error = coord::turn_held("pg.main", text, wall_now());
    CHECK(error.code == Code::locked);
    CHECK(error.message.find("is at work on pg.main") != std::string::npos);
    CHECK(error.message.find('\n') == std::string::npos);
  }
}

struct Taken final : coord::Lease {
  explicit Taken(int& given_back) : given_back_(given_back) {}
  ~Taken() override { ++given_back_; }
  Status check() override { return lost ? fail(Code::refused, "the turn has gone") : Status{}; }
  static inline bool lost = false;
  int& given_back_;
};

class Others final : public coord::Shared {
 public:
  std::optional<Error> refusal;
  int asked = 0, given_back = 0;

  Result<std::unique_ptr<coord::Lease>> take_turn(const std::string& name,
                                                  const std::string& command, bool) override {
    ++asked;
    CHECK(name == "pg.main");
    CHECK(command == "zx failover pg");
    if (refusal) return fail(*refusal);
    return std::make_unique<Taken>(given_back);
  }
  Status is_turn_free(const std::string&) override { return refusal ? fail(*refusal) : Status{}; }
  Result<coord::Value> get(const std::string&) override { return coord::Value{}; }
  Status put(const std::string&, const std::string&, std::int64_t) override { return {}; }
  Result<coord::GuardState> guard(const std::string&) override { return coord::GuardState{}; }
  Status bar(const std::string&) override { return {}; }
  Status unbar(const std::string&) override { return {}; }
};

struct Scene {
  test::Directory state;
  config::Config config;
  Others others;
  std::unique_ptr<ha::PgWorld> world;
  ha::TurnWish wish{"failover pg", {}, false};
  Scene() {
    config.platform.state_dir = state.path();
    config.pg.emplace_back().name = "main";
    world = ha::real_world(config, config.pg.front());
  }
  Result<std::unique_ptr<coord::Lease>> take() { return ha::take_turn(*world, &others, wish); }
  Code code() {
    const auto taken = take();
    const auto may = ha::may_take_turn(*world, &others, wish);
    REQUIRE(!taken);
    // A dry run says what would be.
    CHECK(may.error().code == taken.error().code);
    return taken.error().code;
  }
};

TEST_CASE("a run has the lock of its host and the turn among all hosts, and gives both back") {
  Scene scene;
  auto lease = scene.take();
  REQUIRE(lease.has_value());
  CHECK((*lease)->check().has_value());
  CHECK((*lease)->alone_because().empty());
  // The lock of the host comes first: the others are not asked.
  CHECK(scene.code() == Code::locked);
  CHECK(scene.others.asked == 1);
  Taken::lost = true;
  CHECK((*lease)->check().error().code == Code::refused);
  Taken::lost = false;
  lease->reset();
  CHECK(scene.others.given_back == 1);
  CHECK(scene.take().has_value());
}

TEST_CASE("a person's word counts when the coordinator does not answer, not against its answer") {
  Scene scene;
  scene.others.refusal = Error{Code::locked, "zx failover pg (agent) is at work", {}, {}, false};
  for (const bool alone : {false, true}) {
    scene.wish.assume_alone = alone;
    CHECK(scene.code() == Code::locked);
  }
  for (const auto code : {Code::unreachable, Code::timeout, Code::auth, Code::disk_full}) {
    scene.others.refusal = Error{code, "etcd: nothing", {}, {}, true};
    scene.wish.assume_alone = false;
    CHECK(scene.code() == code);
    scene.wish.assume_alone = true;
    CHECK(ha::may_take_turn(*scene.world, &scene.others, scene.wish).has_value());
    const auto lease = scene.take();
    REQUIRE(lease.has_value());
    CHECK((*lease)->alone_because() == "etcd: nothing");
    CHECK((*lease)->check().has_value());
    // The lock of this host counts all the same.
    CHECK(scene.code() == Code::locked);
  }
  CHECK(scene.others.given_back == 0);
}

}  // namespace
}  // namespace zx
