// zx.toml as types. Everything here has been validated: references resolve, ports are ports.
// Lists keep the order of the file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/units.h"

namespace zx::config {

struct Platform {
  std::string name = "zx";
  std::string environment = "staging";  // staging | production
  std::string state_dir;                // journals, locks, what was last seen
  bool operator==(const Platform&) const = default;
};

struct Region {
  std::string name;
  std::string role;  // primary | hot-standby | disaster-recovery
  std::vector<std::string> zones;
  bool operator==(const Region&) const = default;
};

struct Host {
  std::string name;
  std::string address;  // name or IP address
  std::string region;   // empty: not given
  std::string zone;
  // The argv in front of `zx node …` there; {address} and {name} are replaced. Empty: this host.
  // Absent: zx can do nothing on that host, so it cannot fence there.
  std::optional<std::vector<std::string>> remote;
  std::string program = "zx";  // zx on that host, when remote is not empty
  bool operator==(const Host&) const = default;
};

struct PgNode {
  std::string name;
  std::string host;  // a name of Config::hosts
  int port = 5432;
  std::string data_dir;
  std::string config_file;         // postgresql.conf when it is not in data_dir
  std::string service;             // systemd unit
  std::vector<std::string> start;  // instead of service: argv run on the node's host
  std::vector<std::string> stop;
  int priority = 100;  // higher is preferred; 0 never becomes primary
  bool nofailover = false;
  bool operator==(const PgNode&) const = default;
};

struct PgPolicy {
  std::uint64_t max_lag = 16ULL << 20;  // bytes a candidate may be behind
  bool require_sync = false;            // only a standby known to be synchronous may be promoted
  bool require_fence =
      true;               // false: a dead primary that cannot be fenced does not stop a failover
  bool automatic = true;  // the agent acts; false: it only watches
  Millis probe_interval{500};
  Millis probe_deadline{1000};
  Millis silent_after{1500};
  Millis planned_restart_grace{30'000};
  Millis flap_window{3'600'000};  // after a failover the next one in it waits for a person
  int observers = 1;              // regions that must agree that the primary is gone
  std::string rejoin = "rewind";  // rewind | rebuild | manual
  Millis fence_deadline{10'000};
  Millis promote_deadline{60'000};
  Millis catchup_deadline{30'000};
  Millis stop_deadline{60'000};
  Millis rebuild_deadline{6 * 3'600'000};
  bool operator==(const PgPolicy&) const = default;
};

struct PgCluster {
  std::string name;
  std::vector<std::string> databases;
  std::string user = "zx";
  std::string database = "postgres";  // the one that probes connect to
  std::string password_file;          // as written
  std::string password;               // as written; only "${ENV}" is accepted in the file
  std::string replication_user = "replicator";
  std::string replication_password_file;
  std::string replication_password;
  std::string sslmode = "prefer";
  std::string sslrootcert;
  std::string bin_dir = "/usr/lib/postgresql/15/bin";
  std::vector<PgNode> nodes;
  PgPolicy policy;

  [[nodiscard]] const PgNode* node(const std::string& name) const;
  bool operator==(const PgCluster&) const = default;
};

struct RedisNode {
  std::string name;
  std::string host;  // a name of Config::hosts
  int port = 6379;
  std::string data_dir;            // `dir` of the server; empty: asked of it while it answers
  std::string config_file;         // redis.conf; empty: asked of it while it answers
  std::string service;             // systemd unit
  std::vector<std::string> start;  // instead of service: argv run on the node's host
  std::vector<std::string> stop;
  int priority = 100;  // higher is preferred; 0 never becomes master
  bool operator==(const RedisNode&) const = default;
};

struct RedisSentinel {
  std::string master_name;         // empty: this deployment has no Sentinels
  std::vector<std::string> nodes;  // HOST:PORT; HOST is a name of Config::hosts or an address
  int quorum = 2;                  // for a Sentinel that must be told of the master anew
  std::string user;
  std::string password_file, password;
  bool operator==(const RedisSentinel&) const = default;
};

struct RedisPolicy {
  std::uint64_t max_lag = 1ULL << 20;  // bytes of the stream a candidate may be behind
  bool require_fence = true;  // false: a dead master that cannot be fenced does not stop a failover
  bool automatic = true;      // the agent acts, where no Sentinel does; false: it only watches
  Millis probe_interval{500};
  Millis probe_deadline{1000};
  Millis silent_after{1500};
  Millis flap_window{3'600'000};
  Millis fence_deadline{10'000};
  Millis promote_deadline{10'000};
  Millis sync_deadline{600'000};  // a full resync of a replica
  bool operator==(const RedisPolicy&) const = default;
};

struct RedisDeployment {
  std::string name;
  std::string user;                     // ACL user; empty: the default one
  std::string password_file, password;  // password: "${ENV}" only
  std::string bin_dir = "/usr/bin";
  std::vector<RedisNode> nodes;
  RedisSentinel sentinel;
  RedisPolicy policy;
  [[nodiscard]] const RedisNode* node(const std::string& name) const;
  bool operator==(const RedisDeployment&) const = default;
};

struct Agent {
  std::string name;                       // empty: the host's name
  std::string region;                     // where it looks from
  std::string listen = "127.0.0.1:9180";  // HTTP; empty: none
  std::string coordination = "file";      // file | etcd
  std::vector<std::string> etcd;          // URLs
  std::string etcd_user;
  std::string etcd_password_file;
  std::string etcd_password;  // as written; only "${ENV}" is accepted in the file
  std::string etcd_ca_file, etcd_cert_file, etcd_key_file;
  Millis lease{5000};
  std::vector<std::string> guard;  // nodes on this host whose server it stops with its lease
  bool operator==(const Agent&) const = default;
};

// A tree of files that backups hold.
struct BackupFiles {
  std::string name;  // its place in the list, from 1, or the name of its table
  std::string path;
  std::vector<std::string> include, exclude;  // patterns of fnmatch(3)
  bool operator==(const BackupFiles&) const = default;
};

// A question that a restored set must answer right.
struct BackupCheck {
  std::string name;
  std::string database;
  std::string sql;     // its first column of its first row is compared
  std::string expect;  // empty: "t"
  bool operator==(const BackupCheck&) const = default;
};

struct Backup {
  std::string repository;              // a directory; empty: no backups
  std::string pg;                      // which cluster; empty: the only one
  std::string redis;                   // which deployment; empty: the only one
  int jobs = 2;                        // databases at once
  int compression = 3;                 // of zstd
  std::uint64_t spare = 1ULL << 30;    // bytes that a backup leaves free in the repository
  std::string scratch;                 // for private servers; empty: state_dir/scratch
  std::vector<std::string> pre, post;  // argv
  bool pre_may_fail = false, post_may_fail = true;
  std::string metrics_file;  // for node_exporter's textfile collector; empty: none
  int daily = 7, weekly = 4, monthly = 12;
  Millis max_age{400LL * 86'400'000};
  Millis rto{1'800'000}, rpo{86'400'000};
  std::vector<BackupFiles> files;
  std::vector<BackupCheck> checks;
  bool operator==(const Backup&) const = default;
};

// An application that a restore stops and starts.
struct Service {
  std::string name;
  std::vector<std::string> instances;    // HOST:PORT; HOST is a name of Config::hosts
  std::string service;                   // systemd unit, on each instance's host
  std::vector<std::string> start, stop;  // instead of it: argv; {host}, {port} are replaced
  std::string health_http;               // path that is asked; empty: a TCP connection
  int health_expect = 200;
  Millis health_interval{1000};
  Millis health_deadline{1000};  // of one question
  Millis health_within{60'000};  // after a start
  bool operator==(const Service&) const = default;
};

struct Config {
  std::string path;  // the file it came from, absolute
  Platform platform;
  std::vector<Region> regions;
  std::vector<Host> hosts;
  std::vector<PgCluster> pg;
  std::vector<RedisDeployment> redis;
  Agent agent;
  Backup backup;
  std::vector<Service> services;  // in the order in which they start

  [[nodiscard]] const Host* host(const std::string& name) const;
  [[nodiscard]] const PgCluster* cluster(const std::string& name) const;
  [[nodiscard]] const RedisDeployment* deployment(const std::string& name) const;
  bool operator==(const Config&) const = default;
};

// Where an entry HOST:PORT of sentinel.nodes is reached: a host's name is replaced by its address.
struct Endpoint {
  std::string address;  // an IPv6 one without its brackets
  int port = 0;
};
[[nodiscard]] Endpoint endpoint_of(const Config& config, const std::string& node);

// Passwords are read when they are needed. Empty: none configured, libpq's own ways (.pgpass)
// apply.
[[nodiscard]] Result<std::string> password_of(const Config& config, const PgCluster& cluster);
[[nodiscard]] Result<std::string> replication_password_of(const Config& config,
                                                          const PgCluster& cluster);
// Empty: no AUTH.
[[nodiscard]] Result<std::string> password_of(const Config& config,
                                              const RedisDeployment& deployment);
[[nodiscard]] Result<std::string> sentinel_password_of(const Config& config,
                                                       const RedisDeployment& deployment);
[[nodiscard]] Result<std::string> etcd_password_of(const Config& config);

// --- finding and reading -------------------------------------------------------------------

// The flag, else $ZX_CONFIG, ./zx.toml, ~/.config/zx/zx.toml, /etc/zx/zx.toml: the first that
// exists (the first two must exist when given). Code::config with the list of places tried else.
[[nodiscard]] Result<std::string> find_file(const std::optional<std::string>& flag);

// Reads, applies the environment (ZX__PLATFORM__STATE_DIR=… for platform.state_dir, `__` between
// the parts), validates. An Error names file, line, column and the nearest known name; with several
// defects the message has the first and the trail the others.
[[nodiscard]] Result<Config> load(const std::string& path);
[[nodiscard]] Result<Config> load_text(const std::string& text, const std::string& path);

// --- the table of keys ----------------------------------------------------------------------

// What `zx.toml(5)` and `zx config show` are made of. `pattern` has `*` for a name chosen by the
// user: "pg.*.nodes.*.port".
struct KeyDoc {
  std::string pattern;
  std::string type;  // "string", "integer", "boolean", "size", "duration", "list of strings", …
  std::string fallback;  // the default as it would be written, "required", or empty for none
  std::string doc;       // sentences
  bool secret = false;
};
[[nodiscard]] std::vector<KeyDoc> key_docs();

// One line of `zx config show`: every key of every named thing, with where its value came from:
// "default", "/etc/zx/zx.toml:12", "$ZX__PG__MAIN__USER". Secrets read "(hidden)".
struct Shown {
  std::string key;    // "pg.main.nodes.pg-a.port"
  std::string value;  // as it would be written in the file
  std::string origin;
};
[[nodiscard]] Result<std::vector<Shown>> show(const std::string& path);

}  // namespace zx::config
