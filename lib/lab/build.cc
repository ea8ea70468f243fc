#include "lib/lab/build.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <thread>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/config/config.h"
#include "lib/config/render.h"
#include "lib/lab/redis.h"
#include "lib/lab/schema.h"
#include "lib/lab/server.h"
#include "lib/os/files.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/rejoin_dir.h"

namespace zx::lab {
namespace {

// Below the ports that the kernel gives to outgoing connections: one of those could hold a server's
// port while the server is down.
constexpr int kLowestPort = 20'000;
constexpr int kHighestPort = 29'999;

Status bind_once(const std::string& address, int port) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* list = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &wanted, &list) != 0)
    return fail(Code::usage, "not an IP address: " + clean_utf8(address));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, &freeaddrinfo);
  const os::Descriptor one(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!one) return fail(errno_error(Code::io, "cannot make a socket", errno));
  if (bind(one.get(), found->ai_addr, found->ai_addrlen) == 0) return {};
  if (errno == EADDRINUSE) return fail(Code::locked, "in use");
  return fail(errno_error(Code::usage, "cannot listen on " + address, errno));
}

// Between the choice of a port and the start of its server another lab could choose it, too: a name
// in the abstract namespace, which goes with this process, keeps it. False: another has it.
bool reserve(int port) {
  constexpr std::size_t kMost = 64;  // the servers of labs before these have theirs
  static std::mutex mutex;
  static std::deque<os::Descriptor> held;
  os::Descriptor one(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!one) return true;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const auto text = fmt::format("zx-lab-port-{}", port);
  text.copy(name.sun_path + 1, sizeof name.sun_path - 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  if (bind(one.get(), reinterpret_cast<const sockaddr*>(&name), length) != 0)
    return errno != EADDRINUSE;
  const std::lock_guard lock(mutex);
  held.push_back(std::move(one));
  if (held.size() > kMost) held.pop_front();
  return true;
}

Result<int> free_port(const std::string& address, const std::vector<Lab::Member>& taken) {
  std::random_device random;
  std::uniform_int_distribution<int> any(kLowestPort, kHighestPort);
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    const int port = any(random);
    if (std::any_of(taken.begin(), taken.end(), [&](const auto& m) { return m.port == port; }))
      continue;
    if (!reserve(port)) continue;
    const auto status = bind_once(address, port);
    if (status) return port;
    if (status.error().code != Code::locked) return fail(status.error());
  }
  return fail(Code::failed, fmt::format("no free port on {} between {} and {}", address,
                                        kLowestPort, kHighestPort));
}

os::WriteOptions owned(const Blueprint& b, mode_t mode = 0600) {
  os::WriteOptions options;
  options.mode = mode;
  options.durable = false;  // a lab that is not finished is built again
  if (b.user) options.owner = os::Owner{b.user->uid, b.user->gid};
  return options;
}

os::WriteOptions mine(mode_t mode = 0600) {
  os::WriteOptions options;
  options.mode = mode;
  options.durable = false;
  return options;
}

Status make_owned_directory(const Blueprint& b, const std::string& path) {
  ZX_TRY(os::make_directories(path, 0700));
  if (b.user && chown(path.c_str(), b.user->uid, b.user->gid) != 0)
    return fail(errno_error(Code::io, "cannot give away " + path, errno));
  return {};
}

// A tool of PostgreSQL; returns what it printed. Its working directory is the node's home, by which
// an orphan is found.
Result<std::string> run_tool(const Blueprint& b, const std::string& node,
                             std::vector<std::string> argv, std::string input,
                             const std::string& passfile, bool as_server_user) {
  if (b.cancelled && b.cancelled()) return fail(Code::interrupted, "interrupted");
  os::ProcessOptions options;
  options.directory = b.place.home(node);
  options.input = std::move(input);
  options.deadline = std::max(b.deadline.left(), Millis(1));
  options.cancelled = b.cancelled;
  options.environment = {{"LC_ALL", "C"}, {"PGOPTIONS", ""}, {"PGCLIENTENCODING", "UTF8"}};
  if (!passfile.empty()) options.environment.emplace_back("PGPASSFILE", passfile);
  if (as_server_user) options.user = b.user;
  argv.front() = bin_dir() + "/" + argv.front();
  ZX_ASSIGN(auto result, os::run_ok(argv, options));
  return std::move(result.out);
}

pg::Conninfo conninfo_of(const Lab::Member& member, const std::string& user) {
  return {{"host", member.host},
          {"port", std::to_string(member.port)},
          {"user", user},
          {"sslmode", "disable"},
          {"gssencmode", "disable"}};
}

Result<std::string> run_sql(const Blueprint& b, const std::string& sql) {
  const auto& primary = b.members.front();
  auto conninfo = conninfo_of(primary, kSuperuser);
  pg::set_value(conninfo, "dbname", "postgres");
  return run_tool(
      b, primary.name,
      {"psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", pg::to_string(conninfo), "-f", "-"}, sql,
      b.place.secret(kSuperuserPassfile), false);
}

std::string slot_name(std::string node) {
  std::replace(node.begin(), node.end(), '-', '_');
  return node;
}

std::string quoted(const std::string& value) {
  std::string out = "'";
  for (const char c : value) {
    if (c == '\'' || c == '\\') out += c;
    out += c;
  }
  return out + "'";
}

std::string server_settings(const Blueprint& b, const Lab::Member& member) {
  return fmt::format(
      "# Written by zx lab. What belongs to this server only is here and in postgresql.auto.conf.\n"
      "cluster_name = '{name}'\n"
      "listen_addresses = '{host}'\n"
      "port = {port}\n"
      "unix_socket_directories = ''  # a path of a lab may be longer than a socket's may be\n"
      "max_connections = 50\n"
      "shared_buffers = 32MB\n"
      "# Dies with the data directory, also when the server was killed.\n"
      "dynamic_shared_memory_type = mmap\n"
      "\n"
      "wal_level = replica\n"
      "wal_log_hints = on\n"
      "hot_standby = on\n"
      "max_wal_senders = 10\n"
      "max_replication_slots = 10\n"
      "wal_keep_size = 64MB\n"
      "\n"
      "logging_collector = on  # whoever starts the server, its log is in one place\n"
      "log_directory = {log_directory}\n"
      "log_filename = 'server.log'\n"
      "log_rotation_age = 0\n"
      "log_rotation_size = 0\n"
      "log_line_prefix = '%m [%p] %q%u@%d '\n"
      "log_timezone = 'UTC'\n",
      fmt::arg("name", member.name), fmt::arg("host", member.host), fmt::arg("port", member.port),
      fmt::arg("log_directory", quoted(b.place.home(member.name))));
}

// With --listen, clients and standbys may come from other addresses.
constexpr const char* kWhoMayConnect =
    "# TYPE  DATABASE     USER  ADDRESS  METHOD\n"
    "host    all          all   all      scram-sha-256\n"
    "host    replication  all   all      scram-sha-256\n";

Status write_settings(const Blueprint& b, const Lab::Member& member) {
  const auto data = b.place.data(member.name);
  ZX_TRY(os::write_file(data + "/postgresql.conf", server_settings(b, member), owned(b)));
  return os::write_file(data + "/pg_hba.conf", kWhoMayConnect, owned(b));
}

struct Passwords {
  std::string superuser = random_hex(16);
  std::string replicator = random_hex(16);
};

Status make_directories(const Blueprint& b) {
  ZX_TRY(os::make_directories(b.place.secrets(), 0700));
  ZX_TRY(os::make_directories(b.place.state(), 0700));
  return os::make_directories(b.place.logs(), 0755);
}

Status write_secrets(const Blueprint& b, const Passwords& passwords) {
  ZX_TRY(os::write_file(b.place.secret(kSuperuserPassword), passwords.superuser + "\n", mine()));
  ZX_TRY(os::write_file(b.place.secret(kReplicatorPassword), passwords.replicator + "\n", mine()));
  ZX_TRY(os::write_file(b.place.secret(kSuperuserPassfile),
                        pg::passfile_line(kSuperuser, passwords.superuser), mine()));
  for (const auto& member : b.members) {
    ZX_TRY(make_owned_directory(b, b.place.home(member.name)));
    ZX_TRY(os::write_file(b.place.replication_passfile(member.name),
                          pg::passfile_line(kReplicator, passwords.replicator), owned(b)));
  }
  return {};
}

Status make_primary(const Blueprint& b, const Passwords& passwords) {
  const auto& primary = b.members.front();
  // Where initdb can read it, and gone when it has.
  const auto password_file = b.place.home(primary.name) + "/initdb.pass";
  ZX_TRY(os::write_file(password_file, passwords.superuser + "\n", owned(b)));
  ZX_TRY(run_tool(b, primary.name,
                  {"initdb", "-D", b.place.data(primary.name), "--username", kSuperuser, "--pwfile",
                   password_file, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8",
                   "--data-checksums", "--no-sync"},
                  "", "", true));
  ZX_TRY(os::remove_file(password_file));
  ZX_TRY(write_settings(b, primary));
  ZX_TRY(start_server(b.place, primary.name, b.deadline, b.cancelled));
  return {};
}

Status fill_primary(const Blueprint& b, const Passwords& passwords) {
  std::string sql = fmt::format("CREATE ROLE {} LOGIN REPLICATION PASSWORD '{}';\n", kReplicator,
                                passwords.replicator);
  for (std::size_t i = 1; i < b.members.size(); ++i)
    sql += fmt::format("SELECT pg_create_physical_replication_slot('{}', true);\n",
                       slot_name(b.members[i].name));
  ZX_TRY(run_sql(b, sql + databases_sql()));
  return {};
}

Status make_standby(const Blueprint& b, const Lab::Member& member) {
  const auto& primary = b.members.front();
  const auto data = b.place.data(member.name);
  const auto passfile = b.place.replication_passfile(member.name);
  auto conninfo = conninfo_of(primary, kReplicator);
  ZX_TRY(run_tool(b, member.name,
                  {"pg_basebackup", "-D", data, "-d", pg::to_string(conninfo), "-X", "stream", "-S",
                   slot_name(member.name), "-c", "fast", "--no-sync"},
                  "", passfile, true));
  ZX_TRY(write_settings(b, member));
  pg::set_value(conninfo, "passfile", passfile);
  pg::set_value(conninfo, "application_name", member.name);
  const auto settings = pg::with_settings("# Do not edit this file by hand: use ALTER SYSTEM.\n",
                                          {{"primary_conninfo", pg::to_string(conninfo)},
                                           {"primary_slot_name", slot_name(member.name)}});
  ZX_TRY(os::write_file(data + "/postgresql.auto.conf", settings, owned(b)));
  ZX_TRY(os::write_file(data + "/standby.signal", "", owned(b)));
  ZX_TRY(start_server(b.place, member.name, b.deadline, b.cancelled));
  return {};
}

Status await_streaming(const Blueprint& b) {
  const auto wanted = std::to_string(b.members.size() - 1);
  while (wanted != "0") {
    ZX_ASSIGN(const auto count,
              run_sql(b, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming';\n"));
    if (trim(count) == wanted) break;
    if (b.deadline.passed())
      return fail(Code::timeout,
                  fmt::format("{} of {} standbys stream from {}", trim(count), wanted,
                              b.members.front().name),
                  "their logs are " + b.place.dir + "/pg-*/server.log");
    pause_for(Millis(20));
  }
  return {};
}

}  // namespace

Result<std::vector<Lab::Member>> choose_members(const Counts& counts,
                                                const std::vector<std::string>& listen) {
  std::vector<Lab::Member> members;
  for (const auto& [kind, count] :
       {std::pair(Server::postgresql, counts.pg), std::pair(Server::redis, counts.redis),
        std::pair(Server::sentinel, counts.sentinels)}) {
    for (int i = 0; i < count; ++i) {
      const auto host = listen.empty() ? std::string("127.0.0.1")
                                       : listen[static_cast<std::size_t>(i) % listen.size()];
      auto port = free_port(host, members);
      if (!port && port.error().code == Code::usage) {
        auto error = port.error();
        error.hint = "--listen takes IP addresses of this host, one for each server";
        return fail(std::move(error));
      }
      if (!port) return fail(port.error());
      members.push_back({node_name(kind, i), host, *port});
    }
  }
  return members;
}

std::vector<Lab::Member> members_of(const std::vector<Lab::Member>& members, Server kind) {
  std::vector<Lab::Member> found;
  for (const auto& member : members)
    if (server_of(member.name) == kind) found.push_back(member);
  return found;
}

Status in_parallel(int count, const std::function<Status(int)>& work) {
  // A copy takes two of the primary's max_wal_senders.
  constexpr int kAtOnce = 4;
  std::vector<Status> results(static_cast<std::size_t>(count));
  std::atomic<int> next = 0;
  const auto take_turns = [&] {
    for (int i = next++; i < count; i = next++) results[static_cast<std::size_t>(i)] = work(i);
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < std::min(count, kAtOnce); ++i) helpers.emplace_back(take_turns);
  take_turns();
  for (auto& helper : helpers) helper.join();
  for (auto& result : results)
    if (!result) return std::move(result);
  return {};
}

namespace {

// The lab's own disk is not to be kept free for anybody.
constexpr std::uint64_t kSpare = 64ULL << 20;

// Files as an application has them, for backups to hold.
Status make_app(const Place& place) {
  const auto config = place.app() + "/config", uploads = place.app() + "/uploads";
  ZX_TRY(os::make_directories(config + "/order", 0755));
  ZX_TRY(os::make_directories(uploads + "/2026", 0755));
  for (const auto& [path, text] : std::initializer_list<std::pair<std::string, std::string>>{
           {config + "/database.json", "{\"primary\": {\"host\": \"pg-a\"}}\n"},
           {config + "/order/limits.json", "{\"per_customer\": 20}\n"},
           {uploads + "/2026/商品-1.txt", "红色茶壶\n"},
           {uploads + "/2026/invoice 17.txt", "17\n"}})
    if (!os::exists(path)) ZX_TRY(os::write_file(path, text, mine(0644)));
  return {};
}

}  // namespace

Status write_config(const Place& place, const std::vector<Lab::Member>& members) {
  struct Site {
    const char* region;
    const char* role;
    const char* zone;
  };
  constexpr Site kSites[] = {{"beijing", "primary", "bj-a"},
                             {"shanghai", "hot-standby", "sh-a"},
                             {"shenzhen", "disaster-recovery", "sz-a"}};
  config::Config config;
  config.path = place.config();
  config.platform.name = "lab";
  config.platform.state_dir = place.state();
  for (const auto& site : kSites) config.regions.push_back({site.region, site.role, {site.zone}});
  const auto host_of = [](const Lab::Member& member) {
    return "lab" + member.name.substr(member.name.find('-'));
  };
  // Members of the same letter stand on the same host.
  for (const auto& member : members) {
    const auto name = host_of(member);
    if (config.host(name) != nullptr) continue;
    const auto& site = kSites[static_cast<std::size_t>(name.back() - 'a') % std::size(kSites)];
    config::Host host;
    host.name = name;
    host.address = member.host;
    host.region = site.region;
    host.zone = site.zone;
    host.remote.emplace();  // this host
    config.hosts.push_back(std::move(host));
  }
  config::PgCluster cluster;
  cluster.name = "main";
  cluster.databases = database_names();
  cluster.user = kSuperuser;
  cluster.password_file = place.secret(kSuperuserPassword);
  cluster.replication_user = kReplicator;
  cluster.replication_password_file = place.secret(kReplicatorPassword);
  for (const auto& member : members_of(members, Server::postgresql)) {
    config::PgNode node;
    node.name = member.name;
    node.host = host_of(member);
    node.port = member.port;
    node.data_dir = place.data(member.name);
    cluster.nodes.push_back(std::move(node));
  }
  if (!cluster.nodes.empty()) config.pg.push_back(std::move(cluster));
  config::RedisDeployment deployment;
  deployment.name = kMasterName;
  deployment.password_file = place.secret(kRedisPassword);
  for (const auto& member : members_of(members, Server::redis)) {
    config::RedisNode node;
    node.name = member.name;
    node.host = host_of(member);
    node.port = member.port;
    node.data_dir = place.data(member.name);
    node.config_file = place.redis_config(member.name);
    deployment.nodes.push_back(std::move(node));
  }
  const auto sentinels = members_of(members, Server::sentinel);
  for (const auto& member : sentinels)
    deployment.sentinel.nodes.push_back(fmt::format("{}:{}", host_of(member), member.port));
  if (!sentinels.empty()) {
    deployment.sentinel.master_name = kMasterName;
    deployment.sentinel.quorum = quorum_of(sentinels.size());
    deployment.sentinel.password_file = place.secret(kSentinelPassword);
  }
  if (!deployment.nodes.empty()) config.redis.push_back(std::move(deployment));
  config.backup.repository = place.backups();
  config.backup.spare = kSpare;
  for (const auto* tree : {"config", "uploads"}) {
    config::BackupFiles files;
    files.name = tree;
    files.path = place.app() + "/" + tree;
    config.backup.files.push_back(std::move(files));
  }
  ZX_TRY(make_app(place));
  return os::write_file(place.config(), config::render(config), mine(0644));
}

namespace {

Status build_pg(const Blueprint& b, const std::function<void(const std::string&)>& say) {
  if (b.members.empty()) return {};
  const Passwords passwords;
  ZX_TRY(write_secrets(b, passwords));
  say(fmt::format("making {} (initdb)", b.members.front().name));
  ZX_TRY(make_primary(b, passwords));
  say("making databases");
  ZX_TRY(fill_primary(b, passwords));
  const auto standbys = static_cast<int>(b.members.size()) - 1;
  if (standbys > 0)
    say(fmt::format("copying {} to {} standby{}", b.members.front().name, standbys,
                    standbys == 1 ? "" : "s"));
  ZX_TRY(in_parallel(standbys, [&](int i) {
    const auto& member = b.members[static_cast<std::size_t>(i) + 1];
    auto status = make_standby(b, member);
    if (!status) return Status(fail_while(status.error(), "making " + member.name));
    return status;
  }));
  if (standbys > 0) say("waiting until the standbys stream");
  return await_streaming(b);
}

}  // namespace

Status build(const Blueprint& b) {
  const auto say = [&](const std::string& text) {
    if (b.progress) b.progress(text);
  };
  ZX_TRY(make_directories(b));
  // Beside PostgreSQL, which takes longer. The future waits for its thread also when that fails.
  auto redis = std::async(std::launch::async, [&] { return build_redis(b); });
  ZX_TRY(build_pg(b, say));
  if (!b.redis.empty()) say("waiting for Redis");
  ZX_TRY(redis.get());
  say("writing zx.toml");
  auto members = b.members;
  members.insert(members.end(), b.redis.begin(), b.redis.end());
  members.insert(members.end(), b.sentinels.begin(), b.sentinels.end());
  return write_config(b.place, members);
}

}  // namespace zx::lab
