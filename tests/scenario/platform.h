// A whole platform: PostgreSQL with a standby, Redis with a replica, files, and two services that
// a restore stops and starts. What the scenarios of backups are made of.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/backup/object.h"
#include "lib/backup/repository.h"
#include "lib/net/tcp.h"
#include "lib/pg/connection.h"
#include "lib/redis/connection.h"
#include "tests/scenario/cluster.h"
#include "tests/scenario/etcd_servers.h"
#include "tests/scenario/traced.h"

namespace zx::test {

struct PlatformSetup {
  int pg = 2, redis = 2, sentinels = 0;
  bool services = false;
};

class Platform {
 public:
  explicit Platform(PlatformSetup setup = {}) : setup_(setup), lab_(make(setup)) {
    if (setup.services) add_services();
  }
  ~Platform() {
    for (const int port : ports_) (void)run_program({script(), "stop", std::to_string(port)});
  }
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;

  [[nodiscard]] const lab::Lab& lab() const { return lab_; }
  [[nodiscard]] std::string config() const { return lab_.config_path(); }
  [[nodiscard]] std::string state_dir() const { return lab_.dir() + "/state"; }
  [[nodiscard]] std::string repository() const { return lab_.dir() + "/backups"; }
  [[nodiscard]] std::string uploads() const { return lab_.dir() + "/app/uploads"; }
  [[nodiscard]] std::string beside(const std::string& name) const {
    return directory_.beside(name);
  }

  os::ProcessResult zx(std::vector<std::string> words, os::ProcessOptions options = {}) const {
    words.insert(words.begin(), {"-c", config()});
    options.deadline = Millis(300'000);
    return run_zx(std::move(words), std::move(options));
  }
  Json zx_json(std::vector<std::string> words, int exit = 0) const {
    words.insert(words.end(), {"-o", "json"});
    const auto result = zx(words);
    CHECK_MESSAGE(result.exit == exit, (join(words, " ") + "\n" + result.out + result.err));
    return json_of(result);
  }
  // kill -9 of zx in its call number `count` of `call`.
  os::ProcessResult zx_killed_in(const std::string& call, int count,
                                 const std::vector<std::string>& words) const {
    auto options = traced();
    options.deadline = Millis(300'000);
    return run_program(
        argv_under(config(), fmt::format("{}:signal=SIGKILL:when={}", call, count), words),
        options);
  }
  std::string sql(const std::string& text, const std::string& database = "postgres",
                  const std::string& node = "pg-a") const {
    return ask(lab_, node, text, database);
  }
  std::string redis(const redis::Command& argv, const std::string& node = "redis-a") const {
    redis::Target target;
    for (const auto& member : lab_.members())
      if (member.name == node) {
        target.name = node;
        target.address = member.host;
        target.port = member.port;
      }
    target.password = std::string(trim(read(lab_.redis_password_file())));
    const auto deadline = Deadline::after(Millis(10'000));
    auto client = zx::redis::Client::open(target, deadline);
    REQUIRE_MESSAGE(client.has_value(), node);
    const auto reply = client->command(argv, deadline);
    if (!reply) return reply.error().reply;
    return reply->kind == zx::redis::Reply::Kind::integer ? std::to_string(reply->number)
                                                          : reply->text;
  }
  // Makes a set; its id.
  std::string back_up(std::vector<std::string> words = {}) const {
    words.insert(words.begin(), {"backup", "run"});
    return zx_json(words)["id"].get<std::string>();
  }
  // Of every table of the five databases, every key and every file: what must be as it was.
  [[nodiscard]] std::map<std::string, std::string> everything() const {
    std::map<std::string, std::string> all;
    for (const auto& database :
         lines_of(sql("SELECT datname FROM pg_database WHERE datname LIKE 'zhi\\_xuan\\_%'"
                      " AND datname NOT LIKE '%\\_zx___' ORDER BY 1")))
      for (const auto& line : lines_of(sql(rows_of_each_table(), database)))
        all[database + " " + line.substr(0, line.rfind('|'))] = line.substr(line.rfind('|') + 1);
    if (setup_.redis > 0) all["keys"] = keys();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(lab_.dir() + "/app"))
      if (entry.path().string().find(".zx") == std::string::npos)
        all[entry.path()] = entry.is_regular_file() ? read(entry.path()) : "";
    return all;
  }
  // How many, and a sum of all that they hold.
  [[nodiscard]] std::string keys(const std::string& node = "redis-a") const {
    return redis({"EVAL_RO",
                  "local all = redis.call('KEYS', '*') table.sort(all) local text = {} "
                  "for i, key in ipairs(all) do text[i] = key .. redis.call('DUMP', key) end "
                  "return #all .. ' ' .. redis.sha1hex(table.concat(text))",
                  "0"},
                 node);
  }
  // What is not as it was, in words; empty: all is.
  [[nodiscard]] std::string changed_since(const std::map<std::string, std::string>& then) const {
    std::string words;
    const auto now = everything();
    for (const auto& [what, state] : then)
      if (!now.contains(what))
        words += what + " is gone\n";
      else if (now.at(what) != state)
        words += what + ": " + now.at(what) + " instead of " + state + "\n";
    for (const auto& [what, state] : now)
      if (!then.contains(what)) words += what + " is new\n";
    return words;
  }
  // Rows in each database, keys and files that are known.
  void fill(int rows, int keys) const {
    for (const auto* name : {"user", "product", "order", "inventory", "marketing"})
      sql(fmt::format("CREATE TABLE IF NOT EXISTS zx_rows (id int PRIMARY KEY, says text);"
                      "INSERT INTO zx_rows SELECT g, '茶 ' || g FROM generate_series(1, {}) g"
                      " ON CONFLICT DO NOTHING",
                      rows),
          std::string("zhi_xuan_") + name);
    if (keys > 0)
      redis({"EVAL", "for i = 1, tonumber(ARGV[1]) do redis.call('SET', 'k' .. i, i) end", "0",
             std::to_string(keys)});
  }
  [[nodiscard]] backup::Repository open_repository() const {
    const auto opened = backup::Repository::open(repository());
    REQUIRE_MESSAGE(opened.has_value(), why(opened));
    return *opened;
  }
  // Newest first, as zx says.
  [[nodiscard]] std::vector<std::string> ids() const {
    std::vector<std::string> names;
    const auto json = zx_json({"backup", "list"});
    for (const auto& set : json["sets"]) names.push_back(set["id"].get<std::string>());
    return names;
  }
  // What is not whole in the repository, in words; empty: all is.
  [[nodiscard]] std::string damage() const {
    std::string words;
    const auto repository = open_repository();
    const auto sets = repository.sets();
    REQUIRE_MESSAGE(sets.has_value(), why(sets));
    for (const auto& entry : *sets) {
      if (!entry.set) words += why(entry.set) + "\n";
      if (!entry.set) continue;
      for (const auto& object : entry.set->objects())
        if (const auto sum = backup::check_sum(repository, object); !sum) words += why(sum) + "\n";
    }
    return words;
  }
  // What no set needs: of runs that came to no end, and of sets that are deleted.
  [[nodiscard]] std::string leavings() const {
    std::set<std::string> needed;
    const auto sets = open_repository().sets();
    REQUIRE_MESSAGE(sets.has_value(), why(sets));
    for (const auto& entry : *sets)
      if (entry.set)
        for (const auto& object : entry.set->objects()) needed.insert(object.path);
    std::string words;
    for (const std::string folder : {"incoming", "trash", "archives"})
      for (const auto& entry : std::filesystem::directory_iterator(repository() + "/" + folder)) {
        const auto path = folder + "/" + entry.path().filename().string();
        if (!needed.contains(path)) words += path + "\n";
      }
    return words;
  }
  [[nodiscard]] pg::Target target(const std::string& database,
                                  const std::string& node = "pg-a") const {
    pg::Target target;
    for (const auto& member : lab_.members())
      if (member.name == node) {
        target.name = node;
        target.address = member.host;
        target.port = member.port;
      }
    target.user = "zx";
    target.password = trim(read(lab_.dir() + "/secrets/zx.pass"));
    target.database = database;
    return target;
  }
  // The largest object of a set.
  [[nodiscard]] std::string an_object(const std::string& id) const {
    const auto entry = open_repository().set(id);
    REQUIRE_MESSAGE((entry && entry->set), id);
    backup::Object largest;
    for (const auto& object : entry->set->objects())
      if (object.path.starts_with("sets/") && object.bytes > largest.bytes) largest = object;
    return repository() + "/" + largest.path;
  }
  void flip_a_byte(const std::string& path) const {
    auto text = read(path);
    auto& byte = text[text.size() / 2];
    byte = static_cast<char>(byte ^ 1);
    write(path, text);
  }
  [[nodiscard]] bool serves(int port) const {
    return net::try_tcp("127.0.0.1", port, Deadline::after(Millis(500))) == net::Tcp::accepted;
  }
  [[nodiscard]] const std::vector<int>& ports() const { return ports_; }
  [[nodiscard]] std::string script() const { return beside("service"); }

 private:
  lab::Lab make(const PlatformSetup& setup) {
    lab::Options options;
    options.dir = directory_.path();
    options.pg = setup.pg;
    options.redis = setup.redis;
    options.sentinel = setup.sentinels;
    options.deadline = kPatience;
    auto up = lab::up(options);
    REQUIRE_MESSAGE(up.has_value(), why(up));
    return up->lab;
  }
  // "shop.items|12 d41d8cd9…"
  static std::string rows_of_each_table() {
    return "SELECT format('%I.%I', schemaname, tablename), (xpath('/row/seen/text()',"
           " query_to_xml(format('SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text,"
           " '','' ORDER BY t::text)), '''') AS seen FROM %I.%I t', schemaname, tablename), false,"
           " true, '')))[1] FROM pg_tables"
           " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
  }
  // As systemd would: what is started outlives whoever asked for it, and is not started twice.
  void add_services() {
    write(script(), fmt::format(R"sh(#!/usr/bin/env bash
set -euo pipefail
pid={0}/service-$2.pid
case $1 in
    start)
        ! kill -0 "$(cat "$pid" 2> /dev/null)" 2> /dev/null || exit 0
        rm -f "$pid"
        setsid bash -c 'echo $$ > "$0"; exec "$@"' "$pid" {1} "127.0.0.1:$2" \
            > /dev/null 2>&1 < /dev/null &
        until [[ -s $pid ]]; do sleep 0.01; done
        ;;
    stop)
        [[ ! -e $pid ]] || kill "$(cat "$pid")" 2> /dev/null || true
        rm -f "$pid"
        ;;
esac
)sh",
                                lab_.dir() + "/state", ZX_HTTP_204));
    REQUIRE(chmod(script().c_str(), 0755) == 0);
    auto text = read(config());
    for (const auto* name : {"order", "payment"}) {
      const int port = free_ports(1).front();
      ports_.push_back(port);
      text += fmt::format(
          "\n[services.{}]\ninstances = [\"lab-a:{}\"]\nstart = [\"{}\", \"start\", \"{{port}}\"]\n"
          "stop = [\"{}\", \"stop\", \"{{port}}\"]\n[services.{}.health]\nhttp = \"/health\"\n"
          "expect = 204\ninterval = \"50ms\"\n",
          name, port, script(), script(), name);
    }
    write(config(), text);
    for (const int port : ports_)
      REQUIRE(run_program({script(), "start", std::to_string(port)}).ok());
  }
  PlatformSetup setup_;
  LabDirectory directory_;
  lab::Lab lab_;
  std::vector<int> ports_;
};

}  // namespace zx::test
