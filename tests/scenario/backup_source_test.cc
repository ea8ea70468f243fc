// Which server a backup is taken from when a standby lags.
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::Configured;
using test::eventually;
using test::has;
using test::Platform;

std::string rows_in(const Json& set) {
  for (const auto& database : set["pg"]["databases"])
    if (database["name"] == "zhi_xuan_order") return database["tables"].dump();
  return {};
}

}  // namespace

TEST_CASE("a standby that lags is not dumped as if it were up to date") {
  const Platform platform({.pg = 2, .redis = 1});
  platform.fill(100, 10);
  const std::vector<std::string> run{"backup", "run", "--only", "pg"};
  // What zx inherits does not lead its pg_dump elsewhere.
  os::ProcessOptions elsewhere;
  const auto services = platform.beside("services");
  test::write(services, "[elsewhere]\nhost=192.0.2.1\nport=1\n");
  elsewhere.environment = {
      {"PGHOSTADDR", "192.0.2.1"}, {"PGSERVICE", "elsewhere"}, {"PGSERVICEFILE", services}};
  const auto good = platform.zx(run, elsewhere);
  REQUIRE_MESSAGE(good.exit == 0, (good.out + good.err));
  const auto first = platform.open_repository().set(platform.ids().front());
  REQUIRE((first && first->set && first->set->pg));
  CHECK(first->set->pg->node == "pg-b");
  CHECK(first->set->warnings.empty());

  platform.sql("ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "postgres", "pg-b");
  platform.sql("SELECT pg_reload_conf()", "postgres", "pg-b");
  REQUIRE(eventually(
      [&] { return platform.sql("SHOW recovery_min_apply_delay", "postgres", "pg-b") == "1h"; }));
  const auto before = format_utc(wall_now());
  platform.sql("INSERT INTO zx_rows SELECT g FROM generate_series(101, 150) g", "zhi_xuan_order");
  {
    INFO("the primary has what it lacks");
    const auto set = platform.zx_json(run)["set"];
    CHECK(set["pg"]["node"] == "pg-a");
    CHECK(has(rows_in(set), "150"));
    CHECK(has(set["warnings"].dump(), "main was taken from the primary, pg-a: pg-b is "));
    CHECK(has(set["warnings"].dump(), "behind pg-a and does not catch up"));
  }
  {
    INFO("only the standby answers, and says of when its rows are");
    const auto port = fmt::format("port = {}", platform.target("postgres").port);
    const Configured away(platform, port, "port = 1");
    const auto set = platform.zx_json(run)["set"];
    CHECK(set["pg"]["node"] == "pg-b");
    CHECK(has(rows_in(set), "100"));
    CHECK(set["pg"]["at"].get<std::string>() < before);
    CHECK(has(set["warnings"].dump(), "pg-b is "));
    CHECK(
        has(set["warnings"].dump(), "and no other server can give it: what this set has of main"));
  }
  CHECK(platform.damage() == "");
}

}  // namespace zx
