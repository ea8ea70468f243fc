// A set restored as zx-repository(7) says, with zstd, pg_restore, tar and redis-server alone.
#include "tests/scenario/platform.h"

namespace zx {
namespace {

using test::Platform;

constexpr const char* kScript = R"sh(
set -euo pipefail
export PATH=$PG_BIN:$PATH
REPO=$1 ID=$2 OUT=$3
cd "$REPO"

sha256sum -c --quiet "sets/$ID/SHA256SUMS"

zstd -dc "sets/$ID/pg/globals.sql.zst" | psql -X -q postgres 2> "$OUT/globals.log"
if grep ERROR "$OUT/globals.log" | grep -v 'already exists'; then exit 1; fi
createdb -T template0 -E UTF8 by_hand
zstd -dc "sets/$ID/pg/zhi_xuan_order.dump.zst" | pg_restore --exit-on-error -d by_hand

mkdir "$OUT/uploads"
names=$(mktemp)
while IFS=$(printf '\t') read -r archive list; do
    zstd -dc "$list" > "$names"
    tar --extract --zstd --file "$archive" --directory "$OUT/uploads" \
        --preserve-permissions --numeric-owner \
        --xattrs --xattrs-include='*' --warning=no-unknown-keyword \
        --no-recursion --null --no-unquote --files-from "$names"
done < "sets/$ID/files/uploads.restore"
rm "$names"

# appendonly no
mkdir "$OUT/plain"
cp "sets/$ID/redis/cache.rdb" "$OUT/plain/dump.rdb"
# appendonly yes
mkdir -p "$OUT/aof/appendonlydir"
cp "sets/$ID/redis/cache.rdb" "$OUT/aof/appendonlydir/appendonly.aof.1.base.rdb"
echo 'file appendonly.aof.1.base.rdb seq 1 type b' > "$OUT/aof/appendonlydir/appendonly.aof.manifest"
for kind in plain aof; do
    redis-server --port 0 --unixsocket "$OUT/$kind/s" --dir "$OUT/$kind" --save '' \
        --appendonly "$([[ $kind == aof ]] && echo yes || echo no)" > "$OUT/$kind.log" &
    until redis-cli -s "$OUT/$kind/s" PING 2> /dev/null | grep -q PONG; do sleep 0.05; done
    redis-cli -s "$OUT/$kind/s" DBSIZE
    redis-cli -s "$OUT/$kind/s" SHUTDOWN NOSAVE || true
    wait
done
)sh";

TEST_CASE("a set is restored by hand, as its manual page says") {
  const Platform platform({.pg = 1, .redis = 1});
  platform.fill(200, 321);
  platform.back_up();
  // The second set needs archives of both.
  test::write(platform.uploads() + "/2026/后来.txt", "later\n");
  const auto id = platform.back_up();
  const auto out = platform.beside("by-hand");
  std::filesystem::create_directory(out);
  os::ProcessOptions options;
  const auto& member = platform.lab().members().front();
  options.environment = {{"PG_BIN", config::PgCluster{}.bin_dir},
                         {"PGHOST", member.host},
                         {"PGPORT", std::to_string(member.port)},
                         {"PGUSER", "zx"},
                         {"PGPASSFILE", platform.lab().passfile()}};
  options.deadline = Millis(120'000);
  const auto done = test::run_program(
      {"/bin/bash", "-c", kScript, "by-hand", platform.repository(), id, out}, options);
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(done.out.find("321\n321\n") != std::string::npos);
  const auto rows = "SELECT count(*), md5(string_agg(says, ',' ORDER BY id)) FROM zx_rows";
  CHECK(platform.sql(rows, "by_hand") == platform.sql(rows, "zhi_xuan_order"));
  const auto differ =
      test::run_program({"/usr/bin/diff", "-r", platform.uploads(), out + "/uploads"});
  CHECK_MESSAGE(differ.exit == 0, differ.out);
}

}  // namespace
}  // namespace zx
