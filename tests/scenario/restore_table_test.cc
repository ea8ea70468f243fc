// Somebody has deleted or changed rows of one table, or dropped it: it comes back of a set, and the
// rest of the database stays as it is.
#include "lib/pg/copy_in.h"
#include "tests/scenario/backup_scene.h"

namespace zx {
namespace {

using test::eventually;
using test::has;
using test::Platform;

constexpr const char* kDatabase = "zhi_xuan_order";

using State = std::map<std::string, std::string>;

class Shop {
 public:
  Shop() : platform({.pg = 1, .redis = 0}) {
    sql("CREATE ROLE shop; CREATE ROLE reader; CREATE SCHEMA \"店\";"
        "CREATE TABLE buyer (id int PRIMARY KEY, name text);"
        "INSERT INTO buyer SELECT g, '客 ' || g FROM generate_series(1, 100) g;"
        "CREATE TABLE deal (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " buyer int REFERENCES buyer, says text DEFAULT 'new' CHECK (says <> ''),"
        " twice int GENERATED ALWAYS AS (buyer * 2) STORED, \"At\" timestamptz);"
        "INSERT INTO deal (buyer, says, \"At\") SELECT g % 100 + 1, E'tab\\t\\\\. \"茶\"\\n' || g,"
        " 'epoch' FROM generate_series(1, 1000) g;"
        "CREATE INDEX deal_says ON deal (says);"
        "GRANT SELECT ON deal TO reader; ALTER TABLE deal OWNER TO shop;"
        "CREATE TABLE \"Bestell-Zeile\" (\"Nr\" serial PRIMARY KEY, deal int,"
        " \"a \"\"b\" text, CONSTRAINT \"fk-zeile\" FOREIGN KEY (deal) REFERENCES deal);"
        "INSERT INTO \"Bestell-Zeile\" (deal, \"a \"\"b\") SELECT g, NULL FROM"
        " generate_series(1, 1000) g;"
        "CREATE TABLE \"店\".\"订单 'x'\" (a int, b int, PRIMARY KEY (a, b));"
        "INSERT INTO \"店\".\"订单 'x'\" SELECT g, g FROM generate_series(1, 10) g;"
        "CREATE TABLE pair (a int, b int, FOREIGN KEY (a, b) REFERENCES \"店\".\"订单 'x'\");"
        "INSERT INTO pair VALUES (1, 1), (NULL, 99), (99, NULL);"
        "CREATE TABLE parts (at int PRIMARY KEY) PARTITION BY RANGE (at);"
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE parts_2 PARTITION OF parts DEFAULT;"
        "INSERT INTO parts SELECT generate_series(1, 20);"
        "CREATE TABLE of_parts (at int REFERENCES parts); INSERT INTO of_parts VALUES (1), (20);"
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER no BEFORE INSERT OR DELETE ON deal FOR EACH ROW EXECUTE FUNCTION no();"
        "ALTER TABLE deal ENABLE ALWAYS TRIGGER no;"
        "CREATE RULE no AS ON DELETE TO \"Bestell-Zeile\" DO INSTEAD NOTHING");
    platform.back_up({"--only", "pg"});
    good = state();
  }
  std::string sql(const std::string& text) const { return platform.sql(text, kDatabase); }
  // As somebody does who wants the rows gone.
  void damage() const {
    sql("SET session_replication_role = replica; ALTER TABLE deal DISABLE TRIGGER no;"
        "DELETE FROM deal WHERE id > 500; UPDATE deal SET says = 'broken' WHERE id < 10;"
        "ALTER TABLE deal ENABLE ALWAYS TRIGGER no;"
        "DELETE FROM \"Bestell-Zeile\" WHERE \"Nr\" > 500");
  }
  // Every table but those that a restore keeps.
  [[nodiscard]] State state() const {
    std::string all;
    for (const auto& table : test::lines_of(
             sql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname NOT"
                 " IN ('pg_catalog', 'information_schema') AND tablename NOT LIKE '%\\_zxold'")))
      all += (all.empty() ? "SELECT " : " UNION ALL SELECT ") + pg::quote_literal(table) +
             ", count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM " + table + " t";
    State state;
    for (const auto& line : test::lines_of(sql(all)))
      state[line.substr(0, line.find('|'))] = line.substr(line.find('|') + 1);
    return state;
  }
  // With these tables as in the set.
  [[nodiscard]] State with_good(State all, const std::vector<std::string>& tables) const {
    for (const auto& table : tables) all[table] = good.at(table);
    return all;
  }
  [[nodiscard]] std::string leavings() const {
    return sql(
        "SELECT relname FROM pg_class WHERE relname LIKE '%\\_zxold' UNION ALL"
        " SELECT datname FROM pg_database WHERE datname LIKE '%\\_zxnew'");
  }
  os::ProcessResult restore(std::vector<std::string> tables,
                            const std::vector<std::string>& more = {"--confirm", "main"}) const {
    return platform.zx(words(std::move(tables), more));
  }
  static std::vector<std::string> words(std::vector<std::string> tables,
                                        const std::vector<std::string>& more = {"--confirm",
                                                                                "main"}) {
    std::vector<std::string> all{"restore", "pg", "--db", kDatabase};
    for (auto& table : tables) all.insert(all.end(), {"--table", std::move(table)});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  void undo() const {
    const auto undone = platform.zx({"restore", "undo", "--confirm", "lab"});
    CHECK_MESSAGE(undone.exit == 0, (undone.out + undone.err));
  }
  // Nothing is changed, and it says why.
  void refuses(const os::ProcessResult& result, int exit, const std::string& text,
               const State& before) const {
    CHECK_MESSAGE(result.exit == exit, (result.out + result.err));
    CHECK_MESSAGE(has(result.err, text), result.err);
    CHECK(state() == before);
    CHECK(leavings() == "");
  }
  // As if zx had been killed between a commit and the line of the journal that tells it.
  bool forget_swap(const std::string& run) const {
    const auto path = platform.state_dir() + "/runs/" + run + ".jsonl";
    auto lines = test::lines_of(test::read(path));
    REQUIRE_FALSE(lines.empty());
    if (!has(lines.back(), "\"step-done\"") || !has(lines.back(), "\"tables\"")) return false;
    lines.pop_back();
    test::write(path, join(lines, "\n") + "\n");
    return true;
  }
  [[nodiscard]] std::string open_run() const { return test::unfinished_run(platform); }

  Platform platform;
  State good;
};

TEST_CASE("rows come back, what others wrote stays, and undo brings back what was there") {
  const Shop shop;
  shop.damage();
  shop.sql("ALTER SEQUENCE deal_id_seq RESTART 7; SELECT setval('\"Bestell-Zeile_Nr_seq\"', 5000)");
  shop.sql("INSERT INTO buyer VALUES (101, 'later')");
  const auto before = shop.state();

  const auto plan = shop.restore({"deal", "Bestell-Zeile"}, {"--plan"});
  CHECK(plan.exit == 0);
  CHECK(has(plan.out, "table zhi_xuan_order.public.deal, 1000 rows in the set"));
  CHECK(has(plan.out, "--db zhi_xuan_order --table deal --table Bestell-Zeile --confirm main"));
  CHECK(shop.state() == before);

  auto done = shop.restore({"deal", "public.\"Bestell-Zeile\""});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  const auto expected = shop.with_good(before, {"public.deal", "public.\"Bestell-Zeile\""});
  CHECK(shop.state() == expected);
  CHECK(shop.sql("SELECT count(*) FROM deal_zxold") == "500");
  CHECK(shop.sql("SELECT nextval('deal_id_seq'), nextval('\"Bestell-Zeile_Nr_seq\"')") ==
        "1001|5001");
  CHECK(shop.sql("SELECT tgenabled FROM pg_trigger WHERE tgname = 'no'") == "A");
  CHECK(shop.platform.zx(Shop::words({"deal"})).exit == 3);  // there would be no way back

  shop.undo();
  CHECK(shop.state() == before);
  CHECK(shop.leavings() == "");

  done = shop.restore({"deal", "Bestell-Zeile"});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  const auto committed = shop.platform.zx({"restore", "commit", "--yes"});
  CHECK(committed.exit == 0);
  CHECK(has(committed.out, "table zhi_xuan_order.public.deal_zxold"));
  CHECK(shop.state() == expected);
  CHECK(shop.leavings() == "");

  // One partition, that keys refer to through its parent. Rows that refer to nothing anyway do not
  // stand in the way, and hide none that would from then on.
  shop.sql(
      "SET session_replication_role = replica; INSERT INTO of_parts VALUES (2), (500);"
      "DELETE FROM parts WHERE at = 2");
  shop.sql("INSERT INTO parts VALUES (0); INSERT INTO of_parts VALUES (0)");
  auto now = shop.state();
  shop.refuses(shop.restore({"parts_1"}), 3,
               "1 row of public.of_parts would refer to nothing in public.parts", now);
  shop.sql("DELETE FROM of_parts WHERE at = 0");
  now = shop.state();
  done = shop.restore({"parts_1"});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(shop.state() == shop.with_good(now, {"public.parts", "public.parts_1"}));
  shop.undo();
  CHECK(shop.state() == now);
}

TEST_CASE("what would not fit the rest of the database is refused, and nothing is changed") {
  const Shop shop;
  shop.damage();
  auto before = shop.state();
  // Lines of deals that are not there now.
  shop.refuses(shop.restore({"Bestell-Zeile"}), 3,
               "500 rows of public.\"Bestell-Zeile\" would refer to nothing in public.deal: "
               "foreign key fk-zeile",
               before);
  // A deal of after the set has a line.
  shop.sql(
      "ALTER TABLE deal DISABLE TRIGGER no;"
      "INSERT INTO deal (buyer) VALUES (1); ALTER TABLE deal ENABLE ALWAYS TRIGGER no;"
      "INSERT INTO \"Bestell-Zeile\" (deal) VALUES (1001);"
      "DELETE FROM pair WHERE a = 1; DELETE FROM \"店\".\"订单 'x'\" WHERE a = 1;"
      "INSERT INTO \"店\".\"订单 'x'\" VALUES (77, 7); INSERT INTO pair VALUES (77, 7)");
  before = shop.state();
  shop.refuses(shop.restore({"deal"}), 3, "1 row of public.\"Bestell-Zeile\" would refer", before);
  shop.refuses(shop.restore({"订单 'x'"}), 3, "1 row of public.pair would refer", before);

  shop.sql("ALTER TABLE pair ADD note text; ALTER TABLE pair ALTER a TYPE bigint");
  before = shop.state();
  const auto changed = shop.restore({"pair"});
  shop.refuses(changed, 3, "the set has no column note", before);
  CHECK(has(changed.err, "column a is bigint, in the set integer"));

  shop.sql("CREATE TABLE buyer_zxold ()");
  CHECK(has(shop.restore({"buyer"}).err, "public.buyer_zxold is there"));
  shop.sql("DROP TABLE buyer_zxold");
  const auto unknown = shop.restore({"buyers"});
  shop.refuses(unknown, 2, "no table buyers in zhi_xuan_order", before);
  CHECK(has(unknown.err, "did you mean buyer?"));
  shop.refuses(shop.restore({"parts"}), 2, "name the partitions", before);
  shop.refuses(shop.restore({"deal"}, {"--db", "zhi_xuan_user", "--confirm", "main"}), 2,
               "--table takes one --db", before);
  // Without --db it is the one that has it.
  const auto plan = shop.platform.zx({"restore", "pg", "--table", "buyer", "--plan"});
  CHECK(has(plan.out, "table zhi_xuan_order.public.buyer, 100 rows"));

  // Somebody has frozen writes in the meantime.
  shop.sql("ALTER SYSTEM SET default_transaction_read_only = on");
  shop.sql("SELECT pg_reload_conf()");
  CHECK(eventually([&] { return shop.sql("SHOW default_transaction_read_only") == "on"; }));
  const auto frozen = shop.restore({"buyer"});
  CHECK_MESSAGE(frozen.exit == 0, (frozen.out + frozen.err));
}

TEST_CASE("a database whose name has no room for DB_zxnew is refused, and keeps its rows") {
  const Platform platform({.pg = 1, .redis = 0});
  // Cut, DB_zxnew would be the name of the database itself.
  const std::string name(63, 'x');
  platform.sql("CREATE DATABASE " + name);
  platform.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 3) g", name);
  test::edit(platform.config(), "databases = [", "databases = [\"" + name + "\", ");
  platform.back_up({"--only", "pg"});
  const auto result =
      platform.zx({"restore", "pg", "--db", name, "--table", "t", "--confirm", "main"});
  CHECK_MESSAGE(result.exit == 3, (result.out + result.err));
  CHECK_MESSAGE(has(result.err, name + "_zxnew is too long"), result.err);
  CHECK(platform.sql("SELECT count(*) FROM t", name) == "3");

  // Rows that nobody asked for, or that nobody has: it does not wait for the end of them.
  for (const char* sql : {"COPY t TO STDOUT", "COPY t FROM STDIN"}) {
    CAPTURE(sql);
    auto connection =
        pg::CopyIn::connect(platform.target(name), {}, Deadline::after(test::kPatience));
    REQUIRE(connection.has_value());
    const auto done = connection->run(sql);
    REQUIRE_FALSE(done.has_value());
    CHECK(done.error().code == Code::server);
    CHECK(connection->ask("SELECT 1").error().code == Code::unreachable);
  }
}

TEST_CASE("the way back is refused where it would not fit what was written since") {
  const Shop shop;
  shop.damage();
  shop.sql("DELETE FROM \"店\".\"订单 'x'\" WHERE a > 5; DROP TABLE pair");
  const auto before = shop.state();
  REQUIRE(shop.restore({"deal", "订单 'x'", "pair"}).exit == 0);
  const auto refuses = [&](const std::string& words) {
    const auto now = shop.state();
    const auto result = shop.platform.zx({"restore", "undo", "--confirm", "lab"});
    CHECK_MESSAGE(result.exit == 3, (result.out + result.err));
    CHECK_MESSAGE(has(result.err, words), result.err);
    CHECK(shop.state() == now);
    CHECK(shop.open_run() == "");
  };
  shop.sql("INSERT INTO \"Bestell-Zeile\" (\"Nr\", deal) VALUES (9000, 900)");
  refuses("foreign key fk-zeile");
  shop.sql(
      "ALTER TABLE \"Bestell-Zeile\" DISABLE RULE no;"
      "DELETE FROM \"Bestell-Zeile\" WHERE \"Nr\" = 9000;"
      "ALTER TABLE \"Bestell-Zeile\" ENABLE RULE no; ALTER TABLE deal ADD note text");
  refuses("public.deal_zxold has no column note");
  shop.sql("ALTER TABLE deal DROP note; CREATE VIEW seen AS SELECT * FROM pair");
  refuses("view public.seen depends on table public.pair");
  shop.sql("DROP VIEW seen");
  shop.undo();
  CHECK(shop.state() == before);
  CHECK(shop.leavings() == "");

  REQUIRE(shop.restore({"deal"}).exit == 0);
  const auto restored = shop.state();
  shop.sql("DROP TABLE deal_zxold");
  refuses("_zxold of ");
  CHECK(shop.platform.zx({"restore", "commit", "--yes"}).exit == 0);
  CHECK(shop.state() == restored);
}

TEST_CASE("a table that was dropped is made again as it was") {
  const Shop shop;
  const auto shape = [&] {
    return shop.sql(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated,"
        " pg_get_expr(adbin, adrelid) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid"
        " AND adnum = attnum WHERE attrelid = to_regclass('deal') AND attnum > 0 ORDER BY attnum;"
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'deal' ORDER BY 1;"
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid ="
        " to_regclass('deal') ORDER BY 1;"
        "SELECT relowner::regrole, relacl FROM pg_class WHERE oid = to_regclass('deal');"
        "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = to_regclass('deal') AND NOT"
        " tgisinternal; SELECT last_value, is_called FROM deal_id_seq");
  };
  const auto before = shape();
  shop.sql("DROP TABLE deal CASCADE; INSERT INTO buyer VALUES (101, 'later')");
  const auto lost = shop.state();
  const auto done = shop.restore({"deal"});
  REQUIRE_MESSAGE(done.exit == 0, (done.out + done.err));
  CHECK(shape() == before);
  const auto expected = shop.with_good(lost, {"public.deal"});
  CHECK(shop.state() == expected);
  const std::string again =
      "ALTER TABLE public.\"Bestell-Zeile\" ADD CONSTRAINT \"fk-zeile\" FOREIGN KEY (deal) "
      "REFERENCES public.deal(id)";
  CHECK_MESSAGE(has(done.err, again), done.err);
  shop.undo();
  CHECK(shop.state() == lost);
  CHECK(shop.leavings() == "");

  CHECK(shop.restore({"deal"}).exit == 0);
  CHECK(shop.platform.zx({"restore", "commit", "--yes"}).exit == 0);
  CHECK(shop.state() == expected);
  CHECK(shop.leavings() == "");
  shop.sql(again);
}

TEST_CASE("killed at any line of its journal, it is finished or taken back") {
  const Shop shop;
  shop.damage();
  shop.sql("DROP TABLE \"店\".\"订单 'x'\" CASCADE");
  const auto before = shop.state();
  const std::vector<std::string> wanted{"deal", "Bestell-Zeile", "订单 'x'"};
  const auto restored =
      shop.with_good(before, {"public.deal", "public.\"Bestell-Zeile\"", "\"店\".\"订单 'x'\""});
  int killed = 0, forgotten = 0;
  // Of each step the beginning or the end.
  for (int line = 1;; line += 2) {
    CAPTURE(line);
    const auto result = shop.platform.zx_killed_in("fdatasync", line, Shop::words(wanted));
    if (result.signal != SIGKILL) {
      CHECK_MESSAGE(result.exit == 0, (result.out + result.err));
      break;
    }
    ++killed;
    const auto now = shop.state();
    CHECK((now == before || now == restored));
    const auto open = shop.open_run();
    if (open.empty()) {  // before its first line, or after its last
      if (now == restored) shop.undo();
      continue;
    }
    bool is_resumed = line % 4 == 1;
    if (shop.forget_swap(open)) {
      CHECK(now == restored);
      is_resumed = ++forgotten == 1;
      if (is_resumed) line -= 2;  // and taken back, next time
    }
    const auto ended = shop.platform.zx({"runs", is_resumed ? "resume" : "abort", open});
    REQUIRE_MESSAGE(ended.exit == 0, (result.out + result.err + ended.out + ended.err));
    CHECK(shop.state() == (is_resumed ? restored : before));
    if (is_resumed) shop.undo();
    CHECK(shop.state() == before);
    CHECK(shop.leavings() == "");
  }
  CHECK(killed > 5);
  CHECK(forgotten >= 2);
  CHECK(shop.state() == restored);

  // The way back only goes forward.
  for (int line = 1;; line += 2) {
    CAPTURE(line);
    const auto result =
        shop.platform.zx_killed_in("fdatasync", line, {"restore", "undo", "--confirm", "lab"});
    if (result.signal != SIGKILL) break;
    if (const auto open = shop.open_run(); !open.empty()) {
      shop.forget_swap(open);
      const auto ended = shop.platform.zx({"runs", "resume", open});
      REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
    }
    if (shop.state() == restored) continue;
    CHECK(shop.state() == before);
    CHECK(shop.leavings() == "");
    const auto again = shop.restore(wanted);
    REQUIRE_MESSAGE(again.exit == 0, (again.out + again.err));
  }
  CHECK(shop.state() == before);
}

// A transaction that holds something, until it is destroyed.
class Holder {
 public:
  Holder(const Shop& shop, const std::string& sql) {
    const auto deadline = Deadline::after(test::kPatience);
    auto client = pg::Client::open(shop.platform.target(kDatabase), deadline);
    REQUIRE(client.has_value());
    client_ = std::make_unique<pg::Client>(*std::move(client));
    const auto held = client_->query("BEGIN; " + sql, deadline);
    REQUIRE_MESSAGE(held.has_value(), (held ? "" : held.error().error.message));
  }

 private:
  std::unique_ptr<pg::Client> client_;
};

TEST_CASE("killed in the middle of replacing rows, the old ones are there") {
  const Shop shop;
  shop.damage();
  shop.sql("ALTER SEQUENCE deal_id_seq RESTART 7");
  const auto before = shop.state();
  const auto waits_in = [&](const std::string& statement) {
    return eventually([&] {
      return shop.sql(
                 "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND"
                 " query LIKE '" +
                 statement + "%'") == "1";
    });
  };
  const auto kill_at = [&](const std::string& statement, const std::string& held) {
    {
      const Holder holder(shop, held);
      auto zx = test::in_background(shop.platform, Shop::words({"deal"}));
      REQUIRE(waits_in(statement));
      zx.signal(SIGKILL);
      CHECK(zx.finish() == -SIGKILL);
    }
    CHECK(eventually([&] {
      return shop.sql(
                 "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'zx'"
                 " AND datname = current_database()") == "0";
    }));
    CHECK(shop.state() == before);
    const auto run = shop.open_run();
    REQUIRE_FALSE(run.empty());
    return run;
  };
  for (const bool is_late : {false, true}) {
    CAPTURE(is_late);
    // The rows are replaced when the sequence is set.
    const auto run = is_late ? kill_at("SELECT setval", "ALTER SEQUENCE public.deal_id_seq CACHE 1")
                             : kill_at("LOCK TABLE", "TABLE public.deal");
    const auto ended = shop.platform.zx({"runs", is_late ? "resume" : "abort", run});
    REQUIRE_MESSAGE(ended.exit == 0, (ended.out + ended.err));
    CHECK((shop.state() == before) == !is_late);
  }
  CHECK(shop.state() == shop.with_good(before, {"public.deal"}));

  // Of another DB_zxnew nothing is taken, and it stays.
  shop.undo();
  const auto run = kill_at("LOCK TABLE", "TABLE public.deal");
  const auto aside = std::string(kDatabase) + "_zxnew";
  shop.platform.sql("DROP DATABASE " + aside + " WITH (FORCE)");
  shop.platform.sql("CREATE DATABASE " + aside);
  const auto resumed = shop.platform.zx({"runs", "resume", run});
  CHECK_MESSAGE(resumed.exit == 3, (resumed.out + resumed.err));
  CHECK_MESSAGE(has(resumed.err, aside + " is not what was loaded"), resumed.err);
  CHECK(shop.state() == before);
  CHECK(shop.leavings() == aside);
  CHECK(shop.open_run() == "");
}

}  // namespace
}  // namespace zx
