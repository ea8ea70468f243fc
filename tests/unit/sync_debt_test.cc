// What is owed to synchronous_standby_names, by the word of this host and of all.
#include "lib/ha/sync_debt.h"

#include <filesystem>

#include <doctest/doctest.h>

#include "lib/coord/coordinator.h"
#include "lib/ha/pg_told.h"
#include "tests/support.h"

namespace zx::ha {
namespace {

const SyncDebt kOld{"FIRST 2 (*)", "", "20261124T031243-a1f3"};
const SyncDebt kNew{"ANY 1 (*)", "", "20261125T031243-0000"};

TEST_CASE("the newest of what is known is owed, while nobody has set it since") {
  WatchRecord record;
  CHECK_FALSE(newest_sync_debt({}, &record, "").has_value());
  CHECK(newest_sync_debt(LocalSyncDebt{kOld, false}, &record, "") == kOld);
  CHECK_FALSE(newest_sync_debt(LocalSyncDebt{kOld, false}, &record, "a, b").has_value());
  record.sync_owed = kNew;
  CHECK(newest_sync_debt({}, &record, "") == kNew);
  CHECK(newest_sync_debt(LocalSyncDebt{kOld, false}, &record, "") == kNew);
  record.sync_owed = kOld;
  CHECK(newest_sync_debt(LocalSyncDebt{kNew, false}, &record, "") == kNew);
}

TEST_CASE("what was shared is owed by the record's word, or while that cannot be asked") {
  WatchRecord record;
  CHECK_FALSE(newest_sync_debt(LocalSyncDebt{kNew, true}, &record, "").has_value());
  CHECK(newest_sync_debt(LocalSyncDebt{kNew, true}, nullptr, "") == kNew);
}

TEST_CASE("a note of an earlier version is understood, and told to all once it can be") {
  const test::Directory state;
  std::filesystem::create_directories(state / "sync");
  test::write(state / "sync/pg.main.json",
              R"j({"wanted":"ANY 1 (*)","reduced":"","run":"20261125T031243-0000"})j");
  const auto local = local_sync_debt(state.path(), "main");
  REQUIRE(local.has_value());
  CHECK(local->debt == kNew);
  CHECK_FALSE(local->is_shared);
  const auto shared = coord::file_shared(state.path());
  REQUIRE(share_sync_debt(state.path(), *shared, "main", kOld.run).has_value());
  CHECK_FALSE(local_sync_debt(state.path(), "main")->is_shared);
  REQUIRE(share_sync_debt(state.path(), *shared, "main", kNew.run).has_value());
  CHECK(local_sync_debt(state.path(), "main")->is_shared);
  const auto record = read_record(*shared, "main");
  REQUIRE(record.has_value());
  CHECK(record->sync_owed == kNew);
}

}  // namespace
}  // namespace zx::ha
