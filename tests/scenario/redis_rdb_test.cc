// Copies of real servers: what they write is a whole RDB to zx, cut or changed it is none, and it
// comes over the wire as it is.
#include <sys/stat.h>

#include <filesystem>
#include <thread>

#include "lib/redis/backup.h"
#include "lib/redis/rdb_check.h"
#include "lib/redis/rdb_stream.h"
#include "lib/redis/throwaway.h"
#include "tests/scenario/redis_server.h"

namespace zx {
namespace {

using redis::RdbCheck;
using test::RedisServer;

Status check(std::string_view file, redis::RdbSummary* summary = nullptr) {
  RdbCheck check;
  ZX_TRY(check.feed(file));
  ZX_TRY(check.finish());
  if (summary != nullptr) *summary = check.summary();
  return {};
}

std::string saved(const RedisServer& server) {
  CHECK(server.says({"SAVE"}) == "OK");
  return test::read(server.path() + "/dump.rdb");
}

redis::RdbSource wire(const redis::Target& target) {
  return [target](const auto& on_length, const auto& sink) {
    redis::PullOptions options;
    options.on_length = on_length;
    options.until = Deadline::after(test::kPatience);
    return redis::pull_rdb(target, options, sink);
  };
}

redis::BackupOptions into(const test::Directory& directory, const std::string& name) {
  redis::BackupOptions options;
  options.file = directory / name;
  options.throwaway.base = directory.path();
  options.digest = true;
  return options;
}

std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST_CASE("what a server saves is whole, in every encoding it has") {
  // Small limits give the encodings of large values, a memory policy what it notes of each key.
  for (const char* settings :
       {"",
        "hash-max-listpack-entries 1\nzset-max-listpack-entries 1\nset-max-intset-entries 1\n"
        "list-max-listpack-size 2\nstream-node-max-entries 1\nrdbcompression no",
        "maxmemory 1gb\nmaxmemory-policy allkeys-lru",
        "maxmemory 1gb\nmaxmemory-policy allkeys-lfu"}) {
    CAPTURE(settings);
    const RedisServer server(settings);
    test::fill_with_every_type(server);
    server.take("DEBUG QUICKLIST-PACKED-THRESHOLD 100b\nRPUSH plain " + std::string(200, 'p') +
                "\n");
    redis::RdbSummary summary;
    const auto whole = check(saved(server), &summary);
    REQUIRE_MESSAGE(whole.has_value(), test::why(whole));
    const auto content = redis::content_from(server.says({"INFO", "keyspace"}) + "\n");
    CHECK(summary.keys == static_cast<std::uint64_t>(content.keys));
    CHECK(summary.expires == static_cast<std::uint64_t>(content.expires));
    CHECK(summary.databases.size() == 3);
    CHECK(summary.functions == 1);
    CHECK(summary.notes.at("redis-ver") == "7.0.15");
  }
}

TEST_CASE("a copy cut anywhere, or with a byte changed anywhere, is not whole") {
  const RedisServer server;
  test::fill_with_every_type(server);
  server.take("DEL long wide many long-list set-of\n");
  const auto file = saved(server);
  REQUIRE(check(file).has_value());
  for (std::size_t size = 0; size < file.size(); ++size)
    REQUIRE_FALSE(check(std::string_view(file).substr(0, size)).has_value());
  for (std::size_t at = 0; at < file.size(); ++at) {
    auto changed = file;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    CAPTURE(at);
    REQUIRE_FALSE(check(changed).has_value());
  }
}

TEST_CASE("a copy over the wire has everything, was loaded, and names where it was taken") {
  const RedisServer master, replica;
  test::fill_with_every_type(master);
  replica.follow(master);
  const test::Directory directory;
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), wire(replica.target()));
  REQUIRE_MESSAGE(backup.has_value(), test::why(backup));
  CHECK(check(test::read(directory / "copy.rdb")).has_value());
  REQUIRE(backup->content.has_value());
  CHECK(backup->record.digest == master.says({"DEBUG", "DIGEST"}));
  CHECK(backup->record.replid == master.info("master_replid"));
  CHECK(backup->record.offset.has_value());
  CHECK(names_in(directory.path()) == std::vector<std::string>{"copy.rdb", "copy.rdb.json"});
  struct stat found {};
  REQUIRE(stat((directory / "copy.rdb").c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0600);
  // The record is about this file.
  const auto checked = redis::check_file(directory / "copy.rdb");
  REQUIRE_MESSAGE(checked.has_value(), test::why(checked));
  CHECK(checked->record->sha256 == backup->record.sha256);
  CHECK(checked->record->digest == backup->record.digest);
  // The master knows of no replica but its own, and the replica of none.
  CHECK(master.info("connected_slaves") == "1");
  CHECK(test::eventually([&] { return replica.info("connected_slaves") == "0"; }));
}

TEST_CASE("a copy by its length, of a server that saves to its disk first") {
  const RedisServer server("repl-diskless-sync no");
  test::fill_with_every_type(server);
  const test::Directory directory;
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), wire(server.target()));
  REQUIRE_MESSAGE(backup.has_value(), test::why(backup));
  CHECK(backup->record.digest == server.says({"DEBUG", "DIGEST"}));
}

TEST_CASE("a copy of the file that a server saved") {
  const RedisServer server;
  test::fill_with_every_type(server);
  const auto path = redis::save_on_server(server.target(), Deadline::after(test::kPatience));
  REQUIRE_MESSAGE(path.has_value(), test::why(path));
  CHECK(*path == server.path() + "/dump.rdb");
  const test::Directory directory;
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), redis::saved_file(*path));
  REQUIRE_MESSAGE(backup.has_value(), test::why(backup));
  CHECK(backup->record.digest == server.says({"DEBUG", "DIGEST"}));
}

TEST_CASE("a server that cannot save says so") {
  const RedisServer server("dbfilename gone.rdb");
  server.take("SET k v\n");
  std::filesystem::create_directory(server.path() + "/gone.rdb");  // a rename onto it fails
  const auto path = redis::save_on_server(server.target(), Deadline::after(test::kPatience));
  REQUIRE_FALSE(path.has_value());
  CHECK(path.error().message.find("could not save") != std::string::npos);
}

TEST_CASE("a copy that exists is not overwritten") {
  const RedisServer server;
  const test::Directory directory;
  test::write(directory / "copy.rdb", "mine");
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), wire(server.target()));
  REQUIRE_FALSE(backup.has_value());
  CHECK(backup.error().code == Code::refused);
  CHECK(test::read(directory / "copy.rdb") == "mine");
  test::write(directory / "other.rdb.json", "{}");
  CHECK(redis::take_backup(into(directory, "other.rdb"), wire(server.target())).error().code ==
        Code::refused);
}

TEST_CASE("a copy without a server that can load it is none, and nothing of it stays") {
  const RedisServer server;
  server.take("SELECT 9\nSET k v\n");
  const test::Directory directory;
  auto options = into(directory, "copy.rdb");
  options.throwaway.databases = 4;
  const auto backup = redis::take_backup(options, wire(server.target()));
  REQUIRE_FALSE(backup.has_value());
  CHECK_MESSAGE(backup.error().message.find(
                    "could not load it: FATAL: Data file was created with") != std::string::npos,
                backup.error().message);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("what a killed zx left behind goes with the next copy into that directory") {
  const RedisServer server;
  const test::Directory directory;
  test::write(directory / "copy.rdb.zx-part-0011aabb", "half");
  test::write(directory / "of-yesterday.rdb.zx-part-00ff11ee", "half");
  // Of no zx.
  const auto foreign = directory / "copy.rdb.zx-part-of-another-file.rdb";
  test::write(foreign, "whole");
  test::write(directory / "redis-throwaway-dead00/lock", "");
  test::write(directory / "redis-throwaway-dead00/redis.conf", "");
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), wire(server.target()));
  REQUIRE_MESSAGE(backup.has_value(), test::why(backup));
  CHECK_FALSE(std::filesystem::exists(directory / "copy.rdb.zx-part-0011aabb"));
  CHECK_FALSE(std::filesystem::exists(directory / "of-yesterday.rdb.zx-part-00ff11ee"));
  CHECK(std::filesystem::exists(foreign));
  CHECK_FALSE(std::filesystem::exists(directory / "redis-throwaway-dead00"));
}

TEST_CASE("a copy that is being written is not swept by another to the same name") {
  const test::Directory directory;
  const RedisServer server;
  redis::RdbSource slow = [&](const auto&, const auto& sink) -> Result<redis::Pulled> {
    ZX_TRY(sink("REDIS"));
    // Meanwhile another has the name.
    const auto other = redis::take_backup(into(directory, "copy.rdb"), wire(server.target()));
    REQUIRE_MESSAGE(other.has_value(), test::why(other));
    ZX_TRY(sink("0010\xFF"));
    ZX_TRY(sink(std::string(8, '\0')));
    return redis::Pulled{};
  };
  const auto backup = redis::take_backup(into(directory, "copy.rdb"), slow);
  REQUIRE_FALSE(backup.has_value());
  CHECK(backup.error().code == Code::refused);
  CHECK(names_in(directory.path()) == std::vector<std::string>{"copy.rdb", "copy.rdb.json"});
}

TEST_CASE("a full disk leaves no copy") {
  const RedisServer server("rdbcompression no");
  server.take("DEBUG POPULATE 20000 key 500\n");
  if (geteuid() != 0) return;  // only root can mount a disk of 1 MB
  const test::Directory directory;
  const auto mounted = test::run_program(
      {"/usr/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory.path()});
  if (mounted.exit != 0) return;
  redis::BackupOptions options;
  options.file = directory / "copy.rdb";
  options.throwaway.base = server.path();
  const auto by_mark = redis::take_backup(options, wire(server.target()));
  CHECK(names_in(directory.path()).empty());
  CHECK(server.says({"CONFIG", "SET", "repl-diskless-sync", "no"}) == "OK");
  const auto by_length = redis::take_backup(options, wire(server.target()));
  CHECK(names_in(directory.path()).empty());
  test::run_program({"/usr/bin/umount", directory.path()});
  REQUIRE_FALSE(by_mark.has_value());
  CHECK(by_mark.error().code == Code::disk_full);
  REQUIRE_FALSE(by_length.has_value());
  CHECK_MESSAGE(by_length.error().message.find("the copy has") == 0, by_length.error().message);
}

TEST_CASE("a server that wants a password, and one that is the wrong one") {
  const RedisServer server("", "secret");
  const auto pull = [&](const std::string& password) {
    return redis::pull_rdb(server.target(password), {}, [](std::string_view) { return Status{}; });
  };
  CHECK(pull("secret").has_value());
  const auto none = pull("");
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == Code::auth);
  const auto wrong = pull("wrong");
  REQUIRE_FALSE(wrong.has_value());
  CHECK(wrong.error().code == Code::auth);
  CHECK(wrong.error().message.find("wrong\"") == std::string::npos);
}

TEST_CASE("a replica without a link to its master refuses a copy, and zx says what to do") {
  RedisServer master;
  const RedisServer replica("replica-serve-stale-data yes");
  replica.follow(master);
  master.kill();
  REQUIRE(test::eventually([&] { return replica.info("master_link_status") == "down"; }));
  const auto pulled =
      redis::pull_rdb(replica.target(), {}, [](std::string_view) { return Status{}; });
  REQUIRE_FALSE(pulled.has_value());
  CHECK(pulled.error().code == Code::server);
  CHECK(pulled.error().hint.find("another replica") != std::string::npos);
}

TEST_CASE("a server that stops in the middle of a copy is given up after a while") {
  RedisServer server("rdb-key-save-delay 1000");
  server.take("DEBUG POPULATE 100000 key 100\n");
  redis::PullOptions options;
  options.idle = Millis(300);
  bool is_stopped = false;
  const auto pulled = redis::pull_rdb(server.target(), options, [&](std::string_view) -> Status {
    if (!std::exchange(is_stopped, true)) server.signal(SIGSTOP);
    return {};
  });
  server.signal(SIGCONT);
  REQUIRE_FALSE(pulled.has_value());
  CHECK(pulled.error().code == Code::timeout);
  CHECK(pulled.error().message.find("silent for 300 ms") != std::string::npos);
}

TEST_CASE("a server that is killed in the middle of a copy leaves none") {
  RedisServer server("rdb-key-save-delay 1000");
  server.take("DEBUG POPULATE 100000 key 100\n");
  const test::Directory directory;
  redis::BackupOptions options = into(directory, "copy.rdb");
  bool is_killed = false;
  options.progress = [&](std::uint64_t) {
    if (!std::exchange(is_killed, true)) server.kill();
  };
  const auto backup = redis::take_backup(options, wire(server.target()));
  REQUIRE_FALSE(backup.has_value());
  CHECK(is_killed);
  CHECK(names_in(directory.path()).empty());
}

TEST_CASE("nothing listens there, and what answers is no Redis") {
  const auto sink = [](std::string_view) { return Status{}; };
  redis::Target nobody;
  nobody.address = "127.0.0.1";
  nobody.port = test::unused_port();
  const auto refused = redis::pull_rdb(nobody, {}, sink);
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == Code::unreachable);
  nobody.address = "no.such.host.invalid";
  redis::PullOptions options;
  options.connect_within = Millis(2000);
  CHECK(redis::pull_rdb(nobody, options, sink).error().code == Code::unreachable);
}

TEST_CASE("a throwaway server ends with whoever started it, and leaves nothing") {
  const RedisServer server;
  server.take("SET k v\n");
  const auto file = server.path() + "/dump.rdb";
  CHECK(server.says({"SAVE"}) == "OK");
  const test::Directory directory;
  redis::ThrowawayOptions options;
  options.base = directory.path();
  pid_t pid = 0;
  {
    auto throwaway = redis::Throwaway::load_file(options, file);
    REQUIRE_MESSAGE(throwaway.has_value(), test::why(throwaway));
    pid = throwaway->pid();
    const auto loaded = throwaway->wait_loaded(Deadline::after(test::kPatience));
    REQUIRE_MESSAGE(loaded.has_value(), test::why(loaded));
    const auto content = throwaway->content(Deadline::after(test::kPatience), true);
    REQUIRE_MESSAGE(content.has_value(), test::why(content));
    CHECK(content->keys == 1);
    CHECK(content->digest == server.says({"DEBUG", "DIGEST"}));
    CHECK(os::is_running(pid));
  }
  CHECK_FALSE(os::is_running(pid));
  CHECK(names_in(directory.path()).empty());
  // The thread that started it ends, as a killed zx does.
  std::optional<redis::Throwaway> left;
  std::thread([&] {
    auto throwaway = redis::Throwaway::load_file(options, file);
    if (throwaway) left.emplace(*std::move(throwaway));
  }).join();
  REQUIRE(left.has_value());
  CHECK(test::eventually([&] { return !left->alive().has_value(); }));
}

TEST_CASE("another server can replicate from a throwaway one, with the user and password it has") {
  const RedisServer server;
  test::fill_with_every_type(server);
  CHECK(server.says({"SAVE"}) == "OK");
  const RedisServer target("masteruser copier\nmasterauth \"se cret'\\\"\"");
  redis::ThrowawayOptions options;
  options.base = target.path();
  options.listen = {"127.0.0.1", "copier", "se cret'\""};
  auto throwaway = redis::Throwaway::load_file(options, server.path() + "/dump.rdb");
  REQUIRE_MESSAGE(throwaway.has_value(), test::why(throwaway));
  REQUIRE(throwaway->wait_loaded(Deadline::after(test::kPatience)).has_value());
  const auto port = throwaway->listen(Deadline::after(test::kPatience));
  REQUIRE_MESSAGE(port.has_value(), test::why(port));
  CHECK(target.says({"REPLICAOF", "127.0.0.1", std::to_string(*port)}) == "OK");
  CHECK(test::eventually([&] { return target.info("master_link_status") == "up"; }));
  CHECK(target.says({"DEBUG", "DIGEST"}) == server.says({"DEBUG", "DIGEST"}));
}

}  // namespace
}  // namespace zx
