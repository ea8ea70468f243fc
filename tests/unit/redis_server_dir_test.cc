// A configuration file that says whom to follow, and the files of a fence.
#include "lib/redis/server_dir.h"

#include <sys/stat.h>

#include "tests/support.h"

namespace zx::redis {
namespace {

TEST_CASE("whom a configuration file says to follow") {
  const struct {
    const char* text;
    std::optional<Follows> follows;
  } table[] = {{"", std::nullopt},
               {"port 6379\n", std::nullopt},
               {"replicaof 10.0.0.1 6379\n", Follows{"10.0.0.1", 6379}},
               {"  SLAVEOF  \"redis-a.example\"\t6380 \r\n", Follows{"redis-a.example", 6380}},
               {"# replicaof 10.0.0.1 6379\n", std::nullopt},
               {"replicaof 10.0.0.1 6379\nreplicaof no one\n", std::nullopt},
               {"replicaof 10.0.0.1 6379\nreplicaof 10.0.0.2 6379", Follows{"10.0.0.2", 6379}},
               {"replica-priority 10\nreplicaofx a 1\n", std::nullopt}};
  for (const auto& row : table) {
    CAPTURE(row.text);
    CHECK(follows_in(row.text) == row.follows);
  }
}

TEST_CASE("a file is made a replica's and a master's, and everything else in it stays") {
  const std::string master = "port 6379\n# 缓存\nsave \"\"\n";
  const auto replica = with_follows(master, Follows{"10.0.0.2", 6380});
  CHECK(replica == "port 6379\n# 缓存\nsave \"\"\nreplicaof 10.0.0.2 6380\n");
  CHECK(with_follows(replica, std::nullopt) == master);
  CHECK(with_follows(master, std::nullopt) == master);
  CHECK(with_follows(replica, Follows{"10.0.0.2", 6380}) == replica);
  CHECK(with_follows("slaveof a 1\nport 1\nreplicaof b 2\n", Follows{"c", 3}) ==
        "port 1\nreplicaof c 3\n");
  CHECK(with_follows("port 1", Follows{"c", 3}) == "port 1\nreplicaof c 3\n");
}

struct Scene {
  test::Directory directory;
  ServerDir dir;
  Scene() {
    dir.node = "redis-a";
    dir.path = directory / "data";
    dir.config_file = directory / "redis.conf";
    dir.bin_dir = "/usr/bin";
    dir.address = "127.0.0.1";
    dir.port = 1;
    std::filesystem::create_directories(dir.path);
    test::write(dir.config_file, "port 1\nrequirepass secret\n");
    REQUIRE(chmod(dir.config_file.c_str(), 0640) == 0);
  }
  [[nodiscard]] Deadline soon() const { return Deadline::after(Millis(5000)); }
};

TEST_CASE("a fence makes the server's next start a replica's, and is taken back by its run only") {
  Scene scene;
  const auto before = test::read(scene.dir.config_file);
  const auto fenced = fence(scene.dir, {"10.0.0.2", 6379}, "run-1", scene.soon());
  REQUIRE(fenced.has_value());
  CHECK_FALSE(fenced->was_fenced);
  CHECK(fenced->ended == 0);
  CHECK(follows_in(test::read(scene.dir.config_file)) == Follows{"10.0.0.2", 6379});
  struct stat found {};
  REQUIRE(stat(scene.dir.config_file.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0640);
  CHECK(inspect(scene.dir).fenced);
  CHECK(inspect(scene.dir).fence_run == "run-1");

  CHECK(fence(scene.dir, {"10.0.0.3", 6379}, "run-2", scene.soon())->was_fenced);
  REQUIRE(unfence(scene.dir, "run-2").has_value());
  CHECK(inspect(scene.dir).fenced);
  REQUIRE(unfence(scene.dir, "run-1").has_value());
  CHECK_FALSE(inspect(scene.dir).fenced);
  CHECK(test::read(scene.dir.config_file) == before);
  CHECK(unfence(scene.dir, "run-1").has_value());  // right when repeated
}

TEST_CASE("a link to the configuration file is written through") {
  Scene scene;
  const auto link = scene.directory / "link.conf";
  std::filesystem::create_symlink(scene.dir.config_file, link);
  auto dir = scene.dir;
  dir.config_file = link;
  REQUIRE(fence(dir, {"10.0.0.2", 6379}, "run-1", scene.soon()).has_value());
  CHECK(std::filesystem::is_symlink(link));
  CHECK(follows_in(test::read(scene.dir.config_file)) == Follows{"10.0.0.2", 6379});
}

TEST_CASE("without a configuration file a server cannot be fenced") {
  Scene scene;
  auto dir = scene.dir;
  dir.config_file.clear();
  const auto unknown = fence(dir, {"10.0.0.2", 6379}, "run-1", scene.soon());
  REQUIRE_FALSE(unknown.has_value());
  CHECK(unknown.error().code == Code::config);
  CHECK(unknown.error().hint.find("config_file") != std::string::npos);
  CHECK_FALSE(inspect(dir).problem.empty());
  dir.config_file = "/nonexistent/redis.conf";
  CHECK_FALSE(fence(dir, {"10.0.0.2", 6379}, "run-1", scene.soon()).has_value());
  CHECK_FALSE(inspect(dir).fenced);
}

TEST_CASE("a request says which server is meant") {
  const Scene scene;
  const auto back = server_dir_from_json(to_json(scene.dir));
  REQUIRE(back.has_value());
  CHECK(back->path == scene.dir.path);
  CHECK(back->config_file == scene.dir.config_file);
  CHECK(back->port == 1);
  auto json = to_json(scene.dir);
  json["path"] = "";
  CHECK(server_dir_from_json(json).error().code == Code::config);
  json = to_json(scene.dir);
  json["port"] = 0;
  CHECK(server_dir_from_json(json).error().code == Code::usage);
}

}  // namespace
}  // namespace zx::redis
