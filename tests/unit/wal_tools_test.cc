// Where WAL ends, as far as no program of PostgreSQL is needed to tell.
#include "lib/pg/wal_tools.h"

#include <unistd.h>

#include "tests/support.h"

namespace zx::pg {
namespace {

constexpr Lsn kStart{0x7000000};

struct Wal {
  test::Directory directory;
  DataDir dir;
  Wal() {
    dir.node = "pg-a";
    dir.path = directory.path();
    std::filesystem::create_directories(directory / "pg_wal");
    // root's own directory is not one of a server.
    if (geteuid() == 0) REQUIRE(chown(dir.path.c_str(), 65534, 65534) == 0);
  }
  void segment(const std::string& name) const {
    test::write(directory / ("pg_wal/" + name), "");
    std::filesystem::resize_file(directory / ("pg_wal/" + name), 16 << 20);
  }
};

TEST_CASE("WAL ends where a segment begins that was only made in advance") {
  const Wal wal;
  wal.segment("000000260000000000000006");
  wal.segment("000000260000000000000007");
  CHECK(wal_end(wal.dir, 0x26, kStart).value() == kStart);
  CHECK(commits_after(wal.dir, 0x26, kStart).value() == 0);
}

TEST_CASE("WAL that never came so far ends there, and a hole in it is an error") {
  const Wal wal;
  wal.segment("000000260000000000000006");
  CHECK(wal_end(wal.dir, 0x26, kStart).value() == kStart);
  wal.segment("000000260000000000000008");
  const auto end = wal_end(wal.dir, 0x26, kStart);
  REQUIRE_FALSE(end.has_value());
  CHECK(end.error().message.find("no segment 000000260000000000000007") != std::string::npos);
}

}  // namespace
}  // namespace zx::pg
