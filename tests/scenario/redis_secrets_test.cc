// zx redis backup and restore where passwords are asked for, and where hosts are reached through
// another program. No secret is seen on the way.
#include <sys/stat.h>

#include <filesystem>
#include <map>

#include "lib/os/files.h"
#include "tests/scenario/redis_deployment.h"

namespace zx {
namespace {

namespace fs = std::filesystem;
using test::eventually;
using test::RedisDeployment;

constexpr int kKeys = 300;

// Every host is reached through a program that notes its words, and does `script` before it becomes
// zx on that host.
void go_far(const RedisDeployment& cache, const std::string& script = {}) {
  const auto program = cache.beside("far");
  test::write(program, fmt::format("#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\n{}\nexec \"$@\"\n",
                                   cache.beside("far.log"), script));
  REQUIRE(chmod(program.c_str(), 0755) == 0);
  if (test::read(cache.config()).find("remote = []") != std::string::npos)
    test::edit(cache.config(), "remote = []",
               fmt::format("remote = [\"{}\", \"env\"]\nprogram = \"{}\"", program, ZX_BINARY),
               std::string::npos);
}

void fill(const RedisDeployment& cache) {
  CHECK(cache.ask("redis-a", {"EVAL",
                              "for i = 1, ARGV[1] do redis.call('SET', '商品:' .. i, "
                              "string.rep('值', 20) .. i) end",
                              "0", std::to_string(kKeys)}) == "");
}

bool has_all(const RedisDeployment& cache, const std::string& name) {
  return eventually([&] {
    return cache.info(name, "db0").starts_with(fmt::format("keys={},", kKeys)) &&
           cache.ask(name, {"GET", "商品:7"}).ends_with("值7");
  });
}

std::string state_dir(const RedisDeployment& cache) {
  const auto config = config::load(cache.config());
  REQUIRE_MESSAGE(config.has_value(), test::why(config));
  return config->platform.state_dir;
}

// What is to be nowhere: not in what zx says, nor in the words of any program it starts, nor in
// anything that it leaves behind.
class Secrets {
 public:
  explicit Secrets(const RedisDeployment& cache) : cache_(cache) {
    add(cache.target("redis-a").password);
    if (cache.lab().node("sentinel-a")) add(cache.target("sentinel-a").password);
  }
  void add(const std::string& secret) {
    REQUIRE(secret.size() > 8);
    secrets_.push_back(secret);
  }
  // zx WORDS… -v -o json, with the words of every program that it or its children become.
  Json zx_json(const std::vector<std::string>& words, int exit = 0) {
    const auto trace = cache_.beside("trace");
    const auto result = run({"strace", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-s",
                             "9999", "-o", trace},
                            words, exit);
    const auto traced = test::read(trace);
    REQUIRE(traced.find("execve(") != std::string::npos);
    look_at("words of programs", traced);
    return result;
  }
  // The same of one that starts a server, which goes on: of its programs those that are run on the
  // other host.
  Json zx_json_far(const std::vector<std::string>& words, int exit = 0) {
    const auto result = run({"env"}, words, exit);
    const auto seen = test::read(cache_.beside("far.log"));
    REQUIRE(seen.find("redis-place") != std::string::npos);
    look_at("words to the other host", seen);
    return result;
  }
  void look_at(const std::string& where, const std::string& text) const {
    for (const auto& secret : secrets_)
      CHECK_MESSAGE(text.find(secret) == std::string::npos, "a secret is in " << where);
  }

 private:
  Json run(os::Argv argv, const std::vector<std::string>& words, int exit) const {
    argv.insert(argv.end(), {ZX_BINARY, "-c", cache_.config()});
    argv.insert(argv.end(), words.begin(), words.end());
    argv.insert(argv.end(), {"-v", "-o", "json"});
    os::ProcessOptions options;
    const char* given = getenv("ASAN_OPTIONS");
    options.environment = {
        {"ASAN_OPTIONS", (given != nullptr ? std::string(given) + ":" : "") + "detect_leaks=0"},
        {"HOME", "/nonexistent"}};
    options.directory = "/";
    options.deadline = Millis(120'000);
    const auto result = test::run_program(argv, options);
    REQUIRE_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    look_at("output", result.out + result.err);
    for (const auto& entry : fs::recursive_directory_iterator(state_dir(cache_)))
      if (entry.is_regular_file()) look_at(entry.path(), test::read(entry.path()));
    return test::json_of(result);
  }

  const RedisDeployment& cache_;
  std::vector<std::string> secrets_;
};

std::vector<std::string> restore(const std::string& file) {
  return {"redis", "restore", file, "--target", "redis-a", "--confirm", "redis-a"};
}

TEST_CASE("with a password, and another one of the Sentinels, a copy is taken and put back") {
  const RedisDeployment cache(3, 3);
  Secrets secrets(cache);
  fill(cache);
  const auto file = cache.beside("copy.rdb");
  const auto backup = secrets.zx_json({"redis", "backup", "--to", file});
  CHECK(backup["keys"] == kKeys);
  CHECK(backup["loaded"] == true);
  secrets.look_at("the record", test::read(file + ".json"));
  CHECK(cache.ask("redis-a", {"FLUSHALL"}) == "OK");
  CHECK(cache.ask("redis-a", {"SET", "since", "then"}) == "OK");
  const auto done = secrets.zx_json(restore(file));
  CHECK(done["outcome"] == "done");
  const auto run = done["run"].get<std::string>();
  CHECK(os::exists(state_dir(cache) + "/runs/" + run + ".jsonl"));  // and was looked at
  for (const auto* name : {"redis-a", "redis-b", "redis-c"}) CHECK(has_all(cache, name));
  CHECK(cache.ask("redis-a", {"SET", "written-after", "1"}) == "OK");
  // The password with which replicas come is the one from before.
  const auto auth = cache.command("redis-a", {"CONFIG", "GET", "masterauth"});
  REQUIRE(auth.has_value());
  CHECK(auth->items.at(1).text == cache.target("redis-a").password);
  for (const auto* sentinel : {"sentinel-a", "sentinel-b", "sentinel-c"}) {
    const auto master = cache.command(sentinel, {"SENTINEL", "MASTER", "cache"});
    REQUIRE(master.has_value());
    std::map<std::string, std::string> fields;
    for (std::size_t i = 0; i + 1 < master->items.size(); i += 2)
      fields[master->items[i].text] = master->items[i + 1].text;
    CHECK(fields["down-after-milliseconds"] == "5000");
    CHECK(fields["flags"] == "master");
    CHECK(fields["num-slaves"] == "2");
  }
}

// A user of its own, for zx and for the replicas, with no more rights than zx.toml(5) names; the
// password of everybody else stays.
std::string let_in(const RedisDeployment& cache, const std::string& user) {
  const std::string password = "of-that-user-alone-隐";
  for (const auto* name : {"redis-a", "redis-b"}) {
    redis::Command command{"ACL", "SETUSER", user, "reset", "on", ">" + password};
    for (const char* right :
         {"+info", "+config|get", "+ping", "+client|setname", "+replconf", "+sync", "+psync",
          "+config|set", "+replicaof", "+bgsave", "+lastsave", "+time", "+bgrewriteaof",
          "+client|list", "+client|kill", "+multi", "+exec"})
      command.emplace_back(right);
    CHECK(cache.ask(name, command) == "OK");
    CHECK(cache.ask(name, {"CONFIG", "SET", "masteruser", user, "masterauth", password}) == "OK");
    CHECK(cache.ask(name, {"CONFIG", "REWRITE"}) == "OK");
  }
  const auto file = cache.beside("password-of-" + user);
  test::write(file, password + "\n");
  REQUIRE(chmod(file.c_str(), 0600) == 0);
  cache.edit_config(cache.lab().redis_password_file(), file);
  cache.edit_config("[redis.cache]\n", "[redis.cache]\nuser = \"" + user + "\"\n");
  return password;
}

TEST_CASE("as an ACL user a copy is taken and put back") {
  const RedisDeployment cache(2, 0);
  Secrets secrets(cache);
  secrets.add(let_in(cache, "copier"));
  fill(cache);
  const auto file = cache.beside("copy.rdb");
  CHECK(secrets.zx_json({"redis", "backup", "--to", file})["node"] == "redis-b");
  CHECK(cache.ask("redis-a", {"FLUSHALL"}) == "OK");
  CHECK(secrets.zx_json(restore(file))["outcome"] == "done");
  for (const auto* name : {"redis-a", "redis-b"}) CHECK(has_all(cache, name));
  CHECK(eventually([&] { return cache.info("redis-b", "master_link_status") == "up"; }));
  // Not as the default user: the file has the password of the other one.
  CHECK(cache.ask("redis-a", {"ACL", "SETUSER", "copier", "off"}) == "OK");
  const auto refused = secrets.zx_json({"redis", "backup", "--from", "redis-a"}, 8);
  CHECK(get_string(refused["error"], "message").find("redis-a") != std::string::npos);
}

void stop(const RedisDeployment& cache, const std::string& name) {
  cache.kill(name, SIGTERM);
  REQUIRE(eventually([&] { return cache.node(name).pid == 0; }));
}

std::vector<std::string> strangers_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().filename().string().starts_with("zx-restore-"))
      names.push_back(entry.path().filename());
  return names;
}

TEST_CASE("a stopped server of another host gets the copy through the way to that host") {
  const RedisDeployment cache(2, 0);
  Secrets secrets(cache);
  secrets.add(let_in(cache, "copier"));
  fill(cache);
  const auto file = cache.beside("copy.rdb");
  secrets.zx_json({"redis", "backup", "--to", file});
  CHECK(cache.ask("redis-a", {"FLUSHALL"}) == "OK");
  CHECK(cache.ask("redis-a", {"SET", "since", "then"}) == "OK");
  // That host has no such file.
  go_far(cache, fmt::format("case \"$*\" in *redis-place) mv {0} {0}.elsewhere;; esac", file));
  stop(cache, "redis-a");
  // A replica there has what was written since, and no copy of it can be taken.
  const auto refused = secrets.zx_json(restore(file), 3);
  CHECK(get_string(refused["error"], "message").find("redis-b has 1 key of redis-a") == 0);
  stop(cache, "redis-b");
  const auto done = secrets.zx_json_far(restore(file));
  CHECK(done["outcome"] == "done");
  REQUIRE(cache.start("redis-b"));
  CHECK_FALSE(os::exists(file));
  const auto words = test::read(cache.beside("far.log"));
  for (const auto* op : {"redis-inspect", "redis-place", "redis-start"})
    CHECK(words.find(op) != std::string::npos);
  CHECK(words.find(file) == std::string::npos);
  for (const auto* name : {"redis-a", "redis-b"}) CHECK(has_all(cache, name));
  const auto data = cache.node("redis-a").data_dir;
  CHECK(strangers_in(data).empty());
  struct stat found {};
  REQUIRE(stat((data + "/appendonlydir/appendonly.aof.1.base.rdb").c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0600);
}

TEST_CASE("a copy that is cut on its way to another host costs nothing its place") {
  const RedisDeployment cache(2, 0);
  Secrets secrets(cache);
  fill(cache);
  const auto file = cache.beside("copy.rdb");
  secrets.zx_json({"redis", "backup", "--to", file});
  CHECK(cache.ask("redis-a", {"SET", "since", "then"}) == "OK");
  go_far(cache, "case \"$*\" in *redis-place) head -c 3000 | \"$@\"; exit;; esac");
  for (const auto* name : {"redis-b", "redis-a"}) stop(cache, name);
  const auto data = cache.node("redis-a").data_dir;
  const auto failed = secrets.zx_json_far(restore(file), 1);
  CHECK_MESSAGE(
      get_string(failed["error"], "message").find("bytes of the copy") != std::string::npos,
      failed.dump());
  CHECK(strangers_in(data).empty());
  REQUIRE(cache.start("redis-a"));
  CHECK(eventually([&] { return cache.ask("redis-a", {"DBSIZE"}) == std::to_string(kKeys + 1); }));
  CHECK(cache.ask("redis-a", {"GET", "since"}) == "then");
}

TEST_CASE("a file that a server of another host saves is not taken for one of this host") {
  const RedisDeployment cache(2, 0);
  Secrets secrets(cache);
  go_far(cache);
  const auto before = cache.ask("redis-b", {"LASTSAVE"});
  const auto refused = secrets.zx_json(
      {"redis", "backup", "--bgsave", "--from", "redis-b", "--to", cache.beside("copy.rdb")}, 3);
  CHECK(get_string(refused["error"], "message").find("on another host") != std::string::npos);
  CHECK(cache.ask("redis-b", {"LASTSAVE"}) == before);
  CHECK_FALSE(os::exists(cache.beside("copy.rdb")));
}

}  // namespace
}  // namespace zx
