// The asking half of discovery: connection strings, this host, and servers.
#include "lib/pg/discover.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/os/files.h"
#include "lib/os/host_name.h"
#include "lib/pg/conninfo.h"
#include "lib/pg/pid_file.h"

namespace zx::pg {
namespace {

// Walsenders of backups, pg_receivewal and logical subscriptions are no standbys.
constexpr const char* kQuery = R"SQL(
SELECT json_build_object(
  'recovery', pg_is_in_recovery(),
  'version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'system_id', (SELECT system_identifier::text FROM pg_control_system()),
  'started', (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
  'address', host(inet_server_addr()),
  'port', current_setting('port')::int,
  'user', session_user,
  'cluster_name', current_setting('cluster_name'),
  'is_monitor', pg_has_role('pg_monitor', 'usage'),
  'data_directory', CASE WHEN sees THEN current_setting('data_directory') END,
  'config_file', CASE WHEN sees THEN current_setting('config_file') END,
  'conninfo', CASE WHEN sees THEN current_setting('primary_conninfo') END,
  'slot', current_setting('primary_slot_name'),
  'receiver', (SELECT json_build_object('host', sender_host, 'port', sender_port)
    FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
  'peers', (SELECT coalesce(json_agg(json_build_object(
        'application_name', r.application_name, 'client_address', host(r.client_addr),
        'slot', s.slot_name, 'user', r.usename)
      ORDER BY r.application_name, r.client_addr, r.pid), '[]')
    FROM pg_stat_replication AS r LEFT JOIN pg_replication_slots AS s ON s.active_pid = r.pid
    WHERE s.slot_type IS DISTINCT FROM 'logical' AND r.state IS DISTINCT FROM 'backup'
      AND coalesce(r.application_name, '') NOT IN ('pg_basebackup', 'pg_receivewal')),
  'databases', (SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
    WHERE NOT datistemplate AND datallowconn AND datname <> 'postgres')
)::text
FROM (SELECT pg_has_role('pg_read_all_settings', 'usage') AS sees) AS role
)SQL";

// What zx.toml can hold, else nothing.
std::string fit(std::string text) {
  const bool is_fit = text.find_first_of("\n\t") == std::string::npos &&
                      text.find("\xEF\xBF\xBD") == std::string::npos && clean_utf8(text) == text;
  return is_fit ? std::move(text) : std::string();
}

// As PostgreSQL shows it in pg_stat_replication.
std::string shown_name(std::string name) {
  constexpr std::size_t kLongest = 63;
  for (auto& c : name)
    if (c < 32 || c > 126) c = '?';
  return name.substr(0, kLongest);
}

int number_of(std::string_view text) {
  int number = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), number);
  return wrong == std::errc() && end == text.data() + text.size() ? number : -1;
}

Result<std::vector<Endpoint>> endpoints_of(const Conninfo& conninfo) {
  auto host = value_of(conninfo, "hostaddr");
  if (host.empty()) host = value_of(conninfo, "host");
  auto ports = split(value_of(conninfo, "port"), ',');
  const auto hosts = split(host, ',');
  if (ports.size() == 1) ports.resize(hosts.size(), ports.front());
  if (ports.size() != hosts.size())
    return fail(Code::usage, fmt::format("the connection string has {} hosts but {} ports",
                                         hosts.size(), ports.size()));
  std::vector<Endpoint> endpoints;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (hosts[i].empty() || hosts[i].starts_with('/') || hosts[i].starts_with('@'))
      return fail(Code::usage,
                  hosts[i].empty() ? "the connection string names no host"
                                   : "the connection string names a socket, not a host",
                  "name an address where the server listens, such as host=127.0.0.1");
    const int port = ports[i].empty() ? 5432 : number_of(ports[i]);
    if (port < 1 || port > 65535)
      return fail(Code::usage, "the connection string has a port that is none");
    endpoints.push_back({hosts[i], port, Source::given});
  }
  return endpoints;
}

// Those that do not change where the connection leads and who it is.
bool is_harmless(std::string_view keyword) {
  constexpr std::array kHarmless{
      "application_name", "fallback_application_name", "connect_timeout", "target_session_attrs",
      "client_encoding",  "tcp_user_timeout",          "gssencmode",      "load_balance_hosts"};
  return keyword.starts_with("keepalives") ||
         std::find(kHarmless.begin(), kHarmless.end(), keyword) != kHarmless.end();
}

// Known also of a primary that was a standby once.
std::string application_name_of(const Json& json, const std::string& cluster_name) {
  const auto& text = get_object(json, "conninfo");
  const auto conninfo = parse_conninfo(text.is_string() ? text.get<std::string>() : "");
  if (!text.is_string() || !conninfo) return {};
  auto name = value_of(*conninfo, "application_name");
  if (name.empty()) name = cluster_name;
  return name.empty() ? "walreceiver" : shown_name(name);
}

void read_upstream(const Json& json, Sighting& s) {
  if (const auto& receiver = get_object(json, "receiver"); receiver.is_object()) {
    s.upstream_host = fit(get_string(receiver, "host"));
    s.upstream_port = static_cast<int>(get_int(receiver, "port"));
  }
  if (s.upstream_port != 0) return;
  if (const auto upstream = upstream_of(get_string(json, "conninfo"))) {
    s.upstream_host = fit(upstream->host);
    s.upstream_port = upstream->port;
  }
}

struct Probe : std::enable_shared_from_this<Probe> {
  Target target;
  Sighting sighting;
  Deadline deadline = Deadline::after(Millis(0));
  Connection::Pointer connection;
  bool is_done = false;

  void finish(Failure failure, Error error) {
    sighting.failure = failure;
    sighting.error = std::move(error);
    connection.reset();
    is_done = true;
  }

  void start(net::Loop& loop) {
    Connection::open(loop, target, deadline,
                     [self = shared_from_this()](Outcome<Connection::Pointer> opened) {
                       if (!opened) return self->finish(opened.error().why, opened.error().error);
                       self->connection = *opened;
                       self->ask();
                     });
  }

  void ask() {
    connection->query(kQuery, {}, deadline, [self = shared_from_this()](Outcome<Rows> rows) {
      if (!rows) return self->finish(rows.error().why, rows.error().error);
      const bool has = !rows->empty() && !rows->front().empty();
      const auto text = has ? rows->front().front().value_or("") : std::string();
      if (auto status = read_sighting(text, self->sighting); !status)
        return self->finish(Failure::other, status.error());
      self->finish(Failure::none, {});
    });
  }
};

void ask_all(const std::vector<Endpoint>& endpoints, Target as, Deadline deadline,
             std::vector<Sighting>& seen) {
  net::Loop loop;
  std::vector<std::shared_ptr<Probe>> probes;
  for (const auto& endpoint : endpoints) {
    auto probe = std::make_shared<Probe>();
    as.name = to_string(endpoint);
    as.address = endpoint.address;
    as.port = endpoint.port;
    probe->target = as;
    probe->sighting.at = endpoint;
    probe->deadline = deadline;
    probe->start(loop);
    probes.push_back(std::move(probe));
  }
  const auto is_done = [](const auto& probe) { return probe->is_done; };
  loop.run_until([&] { return std::all_of(probes.begin(), probes.end(), is_done); },
                 Deadline(deadline.at() + Millis(500)));
  for (const auto& probe : probes) seen.push_back(probe->sighting);
}

std::vector<std::string> own_addresses() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> guard(list, &freeifaddrs);
  std::vector<std::string> addresses;
  for (const auto* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr) continue;
    const auto family = one->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    const auto size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(one->ifa_addr, static_cast<socklen_t>(size), text.data(), text.size(), nullptr,
                    0, NI_NUMERICHOST) == 0)
      addresses.emplace_back(text.data());
  }
  return addresses;
}

// A file that another user owns may be a pipe that never ends.
std::string read_regular(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return {};
  return os::read_file(path, 65536).value_or("");
}

bool is_same_directory(const std::string& a, const std::string& b) {
  struct stat one {
  }, other{};
  return stat(a.c_str(), &one) == 0 && stat(b.c_str(), &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

std::optional<Postmaster> postmaster_at(const std::string& pid) {
  const auto process = "/proc/" + pid;
  const auto cwd = process + "/cwd";
  const auto text = read_regular(cwd + "/postmaster.pid");
  // Its children stay in the directory too. In a container both number and path mean another thing.
  if (text.substr(0, text.find('\n')) != pid) return std::nullopt;
  auto found = read_postmaster(text);
  if (!found || !is_same_directory(found->data_dir, cwd)) return std::nullopt;
  // pg_control begins with the system identifier, in the byte order of the machine.
  const auto control = read_regular(cwd + "/global/pg_control");
  std::uint64_t system_id = 0;
  if (control.size() < sizeof system_id) return std::nullopt;
  std::memcpy(&system_id, control.data(), sizeof system_id);
  found->system_id = std::to_string(system_id);
  if (const auto owner = os::owner_of(process)) found->uid = owner->uid;
  std::error_code wrong;
  const auto program = std::filesystem::read_symlink(process + "/exe", wrong);
  if (!wrong) found->bin_dir = program.parent_path();
  return found;
}

}  // namespace

Result<Dsn> read_dsn(const std::string& text) {
  const auto conninfo = parse_conninfo(text);
  if (!conninfo) {
    auto error = conninfo.error();
    error.code = Code::usage;
    return fail(std::move(error));
  }
  Dsn dsn;
  for (const auto& [key, value] : *conninfo) {
    if (value.empty()) continue;
    if (key == "password" || key == "sslpassword")
      return fail(Code::usage,
                  "the connection string holds a password, which everyone on this host can see",
                  "take it out: libpq finds it in ~/.pgpass, $PGPASSFILE or $PGPASSWORD");
    if (key == "service")
      return fail(Code::usage, "the connection string names a service",
                  "write out its host, port and user");
    if (key == "user")
      dsn.as.user = value;
    else if (key == "dbname")
      dsn.as.database = value;
    else if (key == "sslmode")
      dsn.as.sslmode = value;
    else if (key == "sslrootcert")
      dsn.as.sslrootcert = value;
    else if (key == "passfile")
      dsn.passfile = value;
    else if (key != "host" && key != "hostaddr" && key != "port" && !is_harmless(key))
      dsn.ignored.push_back(key);
  }
  ZX_ASSIGN(dsn.endpoints, endpoints_of(*conninfo));
  return dsn;
}

std::optional<Postmaster> read_postmaster(std::string_view pid_file) {
  const auto file = parse_pid_file(pid_file);
  if (!file) return std::nullopt;
  Postmaster found;
  found.data_dir = fit(file->data_dir);
  found.port = file->port;
  found.listen = fit(file->listen);
  found.started = file->started;
  if (!found.data_dir.starts_with('/') || found.port < 1 || found.port > 65535) return std::nullopt;
  return found;
}

Here look_here() {
  Here here;
  here.name = os::host_name();
  here.name = here.name.substr(0, here.name.find('.'));
  here.addresses = own_addresses();
  here.sees_all = geteuid() == 0;
  std::error_code wrong;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", wrong)) {
    const auto pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    if (const auto postmaster = postmaster_at(pid)) here.postmasters.push_back(*postmaster);
  }
  return here;
}

Status read_sighting(const std::string& text, Sighting& s) {
  // Names of databases may be of any encoding.
  ZX_ASSIGN(const auto json, parse_json(clean_utf8(text), "the answer of " + to_string(s.at)));
  if (!get_object(json, "recovery").is_boolean())
    return fail(Code::server, "the answer of " + to_string(s.at) + " is not a server's");
  s.is_standby = get_bool(json, "recovery");
  s.version = first_line(get_string(json, "version"));
  s.version_number = static_cast<int>(get_int(json, "version_number"));
  s.system_id = first_line(get_string(json, "system_id"));
  s.started = get_int(json, "started");
  s.own_address = get_string(json, "address");
  s.own_port = static_cast<int>(get_int(json, "port"));
  s.user = fit(get_string(json, "user"));
  s.cluster_name = get_string(json, "cluster_name");
  s.is_monitor = get_bool(json, "is_monitor");
  s.data_dir = fit(get_string(json, "data_directory"));
  s.config_file = fit(get_string(json, "config_file"));
  s.slot = get_string(json, "slot");
  s.application_name = application_name_of(json, s.cluster_name);
  if (s.is_standby) read_upstream(json, s);
  for (const auto& peer : get_object(json, "peers"))
    s.peers.push_back({get_string(peer, "application_name"),
                       fit(get_string(peer, "client_address")), get_string(peer, "slot"),
                       fit(get_string(peer, "user"))});
  for (const auto& database : get_object(json, "databases")) {
    const auto name = database.is_string() ? fit(database.get<std::string>()) : std::string();
    if (name.empty())
      ++s.hidden_databases;
    else
      s.databases.push_back(name);
  }
  return {};
}

Result<Discovery> discover(const Dsn& dsn, const std::string& password, Millis span) {
  const auto deadline = Deadline::after(span);
  const auto here = look_here();
  auto as = dsn.as;
  as.password = password;
  as.statement_timeout = span;
  std::vector<Sighting> seen;
  // One silent server must leave time for the others.
  const auto share = std::max(Millis(1), span * 2 / 5);
  for (auto next = dsn.endpoints; !next.empty() && !deadline.passed();
       next = next_endpoints(seen, here))
    ask_all(next, as, deadline.at_most(share), seen);
  return conclude(seen, here);
}

}  // namespace zx::pg
