#include "lib/lab/redis.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/os/files.h"
#include "lib/redis/info.h"

namespace zx::lab {
namespace {

constexpr std::size_t kLargestConfig = 1u << 20;
constexpr Millis kOneTry{1'000};

os::WriteOptions owned_by(const std::optional<os::User>& user) {
  os::WriteOptions options;
  options.durable = false;
  if (user) options.owner = os::Owner{user->uid, user->gid};
  return options;
}

// The settings of a configuration file by name; the last of a name counts, as for the server.
std::map<std::string, std::string> settings_in(const std::string& text) {
  std::map<std::string, std::string> settings;
  for (const auto& line : split(text, '\n')) {
    const auto words = trim(line);
    const auto space = words.find(' ');
    if (space == std::string_view::npos || words.starts_with('#')) continue;
    settings[lower(words.substr(0, space))] = std::string(trim(words.substr(space)));
  }
  return settings;
}

Result<std::string> secret_in(const Place& place, const char* name) {
  ZX_ASSIGN(const auto text, os::read_file(place.secret(name), 4096));
  return std::string(trim(text));
}

// Its own configuration file says where it listens.
Result<redis::Target> target_of(const Place& place, const std::string& node) {
  ZX_ASSIGN(const auto text, os::read_file(place.redis_config(node), kLargestConfig));
  const auto settings = settings_in(text);
  redis::Target target;
  target.name = node;
  if (const auto found = settings.find("bind"); found != settings.end())
    target.address = found->second;
  if (const auto found = settings.find("port"); found != settings.end()) {
    const auto& port = found->second;
    (void)std::from_chars(port.data(), port.data() + port.size(), target.port);
  }
  const bool is_sentinel = server_of(node) == Server::sentinel;
  ZX_ASSIGN(target.password, secret_in(place, is_sentinel ? kSentinelPassword : kRedisPassword));
  return target;
}

struct Passwords {
  std::string redis = random_hex(16);
  std::string sentinel = random_hex(16);
};

std::string common_settings(const Blueprint& b, const Lab::Member& member) {
  return fmt::format(
      "bind {}\n"
      "port {}\n"
      "protected-mode no\n"
      "daemonize no\n"
      "dir \"{}\"\n"
      "logfile \"{}\"\n",
      member.host, member.port, b.place.data(member.name), b.place.log(member.name));
}

std::string redis_settings(const Blueprint& b, const Lab::Member& member,
                           const Passwords& passwords) {
  auto text = "# Written by zx lab, and by the server itself (CONFIG REWRITE).\n" +
              common_settings(b, member) +
              fmt::format(
                  "requirepass {0}\n"
                  "masterauth {0}\n"
                  "appendonly yes\n"
                  "appendfsync everysec\n"
                  "repl-backlog-size 8mb\n"
                  "repl-diskless-sync-delay 0\n"
                  "replica-announce-ip {1}\n",
                  passwords.redis, member.host);
  // The server takes the last of two lines.
  if (!b.redis_settings.empty()) text += b.redis_settings + "\n";
  const auto& master = b.redis.front();
  if (member.name != master.name)
    text += fmt::format("replicaof {} {}\n", master.host, master.port);
  return text;
}

// What a Sentinel learns of the others within seconds stands in its file from the beginning.
std::string sentinel_settings(const Blueprint& b, const Lab::Member& member,
                              const Passwords& passwords,
                              const std::map<std::string, std::string>& ids) {
  const auto& master = b.redis.front();
  auto text = "# Written by zx lab, and by the Sentinel itself.\n" + common_settings(b, member) +
              fmt::format(
                  "requirepass {sentinel}\n"
                  "sentinel sentinel-pass {sentinel}\n"
                  "sentinel myid {id}\n"
                  "sentinel announce-ip {host}\n"
                  "sentinel announce-port {port}\n"
                  "sentinel monitor {name} {master_host} {master_port} {quorum}\n"
                  "sentinel auth-pass {name} {redis}\n"
                  "sentinel down-after-milliseconds {name} 5000\n"
                  "sentinel failover-timeout {name} 60000\n",
                  fmt::arg("sentinel", passwords.sentinel), fmt::arg("redis", passwords.redis),
                  fmt::arg("id", ids.at(member.name)), fmt::arg("host", member.host),
                  fmt::arg("port", member.port), fmt::arg("name", kMasterName),
                  fmt::arg("master_host", master.host), fmt::arg("master_port", master.port),
                  fmt::arg("quorum", quorum_of(b.sentinels.size())));
  for (const auto& one : b.redis)
    if (one.name != master.name)
      text += fmt::format("sentinel known-replica {} {} {}\n", kMasterName, one.host, one.port);
  for (const auto& one : b.sentinels)
    if (one.name != member.name)
      text += fmt::format("sentinel known-sentinel {} {} {} {}\n", kMasterName, one.host, one.port,
                          ids.at(one.name));
  return text;
}

Status make_home(const Blueprint& b, const std::string& node) {
  for (const auto& path : {b.place.home(node), b.place.data(node)}) {
    ZX_TRY(os::make_directories(path, 0700));
    if (b.user && chown(path.c_str(), b.user->uid, b.user->gid) != 0)
      return fail(errno_error(Code::io, "cannot give away " + path, errno));
  }
  return {};
}

Status write_all(const Blueprint& b) {
  const Passwords passwords;
  ZX_TRY(os::write_file(b.place.secret(kRedisPassword), passwords.redis + "\n", owned_by({})));
  ZX_TRY(
      os::write_file(b.place.secret(kSentinelPassword), passwords.sentinel + "\n", owned_by({})));
  std::map<std::string, std::string> ids;
  for (const auto& one : b.sentinels) ids[one.name] = random_hex(20);
  for (const auto& one : b.redis) {
    ZX_TRY(make_home(b, one.name));
    ZX_TRY(os::write_file(b.place.redis_config(one.name), redis_settings(b, one, passwords),
                          owned_by(b.user)));
  }
  for (const auto& one : b.sentinels) {
    ZX_TRY(make_home(b, one.name));
    ZX_TRY(os::write_file(b.place.redis_config(one.name), sentinel_settings(b, one, passwords, ids),
                          owned_by(b.user)));
  }
  return {};
}

// BGSAVE and the rewrite of the AOF; an orphan ends by itself.
bool is_forked(const os::FoundProcess& process) {
  const auto words = os::read_file(fmt::format("/proc/{}/cmdline", process.pid), 1 << 20);
  return words && (words->starts_with("redis-rdb-") || words->starts_with("redis-aof-"));
}

using Holds = std::function<bool(const redis::Outcome<redis::Reply>&)>;

// Asks again and again over connections of their own until the answer is as it should be.
Status await(const Blueprint& b, const std::string& node, const redis::Command& question,
             const std::string& what, const Holds& holds) {
  ZX_ASSIGN(const auto target, target_of(b.place, node));
  while (true) {
    auto client = redis::Client::open(target, b.deadline.at_most(kOneTry));
    if (client && holds(client->command(question, b.deadline.at_most(kOneTry)))) return {};
    if (b.cancelled && b.cancelled()) return fail(Code::interrupted, "interrupted");
    if (b.deadline.passed())
      return fail(Code::timeout, node + " " + what, "its log: " + b.place.log(node));
    pause_for(Millis(20));
  }
}

Status await_link(const Blueprint& b, const std::string& node) {
  return await(b, node, {"INFO", "replication"}, "is not in sync with its master",
               [](const auto& reply) {
                 return reply && redis::Info::parse(reply->text).text("master_link_status") == "up";
               });
}

Status start_one(const Blueprint& b, const std::string& node) {
  const auto started = start_server(b.place, node, b.deadline, b.cancelled);
  return started ? Status() : Status(fail(started.error()));
}

}  // namespace

std::string redis_program() { return config::RedisDeployment{}.bin_dir + "/redis-server"; }

int quorum_of(std::size_t sentinels) { return static_cast<int>(sentinels / 2 + 1); }

Status build_redis(const Blueprint& b) {
  if (b.redis.empty()) return {};
  ZX_TRY(write_all(b));
  ZX_TRY(start_one(b, b.redis.front().name));
  const auto replicas = in_parallel(static_cast<int>(b.redis.size()) - 1, [&](int i) -> Status {
    const auto& node = b.redis[static_cast<std::size_t>(i) + 1].name;
    ZX_TRY(start_one(b, node));
    return await_link(b, node);
  });
  if (!replicas) return replicas;
  return in_parallel(static_cast<int>(b.sentinels.size()), [&](int i) -> Status {
    const auto& node = b.sentinels[static_cast<std::size_t>(i)].name;
    ZX_TRY(start_one(b, node));
    return await(b, node, {"SENTINEL", "CKQUORUM", kMasterName}, "does not know the others",
                 [](const auto& reply) { return reply.has_value(); });
  });
}

Result<Running> running_redis_in(const Place& place, const std::string& node) {
  Running running;
  if (!os::is_directory(place.data(node))) return running;
  ZX_ASSIGN(auto found, os::processes_in(place.data(node)));
  std::erase_if(found, [](const auto& process) { return !is_server_or_tool(process); });
  running.processes = std::move(found);
  for (const auto& process : running.processes) {
    if (is_forked(process)) continue;
    running.postmaster = process.pid;
    running.is_paused = process.state == 'T';
  }
  return running;
}

Status launch_redis(const Place& place, const std::string& node) {
  ZX_ASSIGN(const auto owner, os::owner_of(place.data(node)));
  os::ProcessOptions options;
  if (owner.uid != geteuid()) {
    ZX_ASSIGN(options.user, os::user_of_uid(owner.uid));
  }
  options.directory = place.home(node);
  options.environment = {{"LC_ALL", "C"}};
  os::Argv argv{redis_program(), place.redis_config(node)};
  if (server_of(node) == Server::sentinel) argv.emplace_back("--sentinel");
  const auto pid = os::spawn_detached(argv, options, place.start_log(node));
  return pid ? Status() : Status(fail(pid.error()));
}

Result<bool> is_redis_ready(const Place& place, const std::string& node) {
  ZX_ASSIGN(const auto target, target_of(place, node));
  const auto deadline = Deadline::after(kOneTry);
  auto client = redis::Client::open(target, deadline);
  return client && client->command({"PING"}, deadline).has_value();
}

std::string redis_role(const Place& place, const std::string& node) {
  if (server_of(node) == Server::sentinel) return "sentinel";
  const auto text = os::read_file(place.redis_config(node), kLargestConfig);
  if (!text) return "unknown";
  const auto settings = settings_in(*text);
  return settings.contains("replicaof") || settings.contains("slaveof") ? "replica" : "master";
}

}  // namespace zx::lab
