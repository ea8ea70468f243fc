// What zx knows about a Redis server: what it says of itself (INFO, CONFIG GET), what its host
// says, and what the Sentinels say. A fact that could not be had is absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/base/units.h"
#include "lib/redis/connection.h"

namespace zx::redis {

enum class Role { unknown, master, replica };
[[nodiscard]] const char* name_of(Role role);
[[nodiscard]] Role role_named(std::string_view name);  // unknown for any other

// min-replicas-to-write of a master that is given data by zx redis restore: more replicas than
// there are, so it refuses every write. Never the setting of before.
inline constexpr std::int64_t kHeldReplicas = 1'000'000;

// Whose stream of writes a server has, and how far. Two servers are of one line when one's replid
// is the other's replid or its replid2, the latter up to second_offset (replication.c).
struct Lineage {
  std::string replid, replid2;  // 40 hex digits; replid2 is all zeros when there is none
  std::int64_t second_offset = -1;
  std::int64_t offset = 0;  // master_repl_offset: bytes of the stream
  bool operator==(const Lineage&) const = default;
};
// Could a server with `behind` go on from `ahead` without losing what it has: the stream of
// `behind` is a prefix of the stream of `ahead`. Pure.
[[nodiscard]] bool is_prefix_of(const Lineage& behind, const Lineage& ahead);
[[nodiscard]] bool is_same_line(const Lineage& one, const Lineage& other);

// A row slaveN of a master's INFO.
struct AttachedReplica {
  std::string address;
  int port = 0;       // 0: it only reads the stream, such as redis-cli --rdb
  std::string state;  // online, wait_bgsave, send_bulk
  std::int64_t offset = 0;
  std::int64_t lag_s = 0;  // since it acknowledged last
};

// Of a replica: what it says of its master.
struct Link {
  std::string master_host;
  int master_port = 0;
  bool is_up = false;
  std::optional<std::int64_t> last_io_s;   // master_last_io_seconds_ago
  std::optional<std::int64_t> down_for_s;  // master_link_down_since_seconds
  bool is_syncing = false;                 // master_sync_in_progress
  std::optional<std::int64_t> sync_left_bytes;
};

struct Persistence {
  bool is_loading = false;
  std::optional<std::int64_t> loading_eta_s;
  bool is_saving = false;  // rdb_bgsave_in_progress
  bool last_save_ok = true;
  std::int64_t last_save = 0;  // seconds since 1970
  std::int64_t changes_since_save = 0;
  bool aof = false;  // aof_enabled
  bool aof_rewriting = false;
  bool aof_last_write_ok = true;
  bool aof_last_rewrite_ok = true;
};

// What its host found; see lib/redis/node_ops.h.
struct LocalFacts {
  bool is_data_dir = false;  // data_dir exists
  bool is_running = false;   // a process listens on the port, or has data_dir as its directory
  std::int64_t pid = 0;
  bool is_paused = false;   // by SIGSTOP
  bool is_working = false;  // it has been on a processor, or waited for one, at each of a few looks
  bool fenced = false;      // zx's fence record is in data_dir
  std::string fence_run;
  // Its configuration file has the value of kHeldReplicas: a CONFIG REWRITE while a restore was at
  // work, by a Sentinel or a person, has kept it.
  bool holds_writes = false;
  std::string problem;  // why something of it could not be found out
};

struct NodeFacts {
  std::string name, host, address;
  std::vector<std::string> addresses;  // numeric ones that `address` had at this look
  int port = 6379;
  Wall at{};
  Millis took{0};
  Failure failure = Failure::error;
  Error error;  // when it did not answer
  [[nodiscard]] bool answered() const { return failure == Failure::none; }
  // It answers, but only with LOADING: alive, of no use yet. Then few facts are there.
  [[nodiscard]] bool is_loading() const { return failure == Failure::loading; }

  Role role = Role::unknown;
  std::string version;
  std::string run_id;  // another one after every restart
  std::int64_t uptime_s = 0;
  Lineage lineage;
  std::optional<Link> link;               // of a replica
  std::vector<AttachedReplica> attached;  // of any server that has some
  int priority = 100;                     // replica-priority: Redis prefers the lowest, 0 never
  bool is_read_only = true;               // of a replica
  bool paused_by_failover = false;        // master_failover_state is not no-failover
  std::int64_t backlog_size = 0, backlog_first = 0, backlog_length = 0;
  std::optional<std::int64_t> min_replicas_good;  // min_slaves_good_slaves
  std::int64_t min_replicas_to_write = 0, min_replicas_max_lag_s = 0;
  std::int64_t keys = 0;       // of all databases
  std::int64_t expires = 0;    // of these, with a time to live
  std::vector<int> databases;  // that have keys
  std::uint64_t memory_used = 0, memory_max = 0;
  std::string memory_policy;
  std::int64_t clients = 0, clients_max = 0, blocked_clients = 0;
  Persistence persistence;
  // CONFIG GET; empty where the ACL forbids it.
  std::string dir, dbfilename, appenddirname, config_file, aclfile;
  bool has_config = false;  // CONFIG GET was answered
  std::vector<std::string> warnings;

  std::optional<LocalFacts> local;
  std::string local_error;  // why its host said nothing

  [[nodiscard]] bool is_linked() const { return role == Role::replica && link && link->is_up; }
};

// What one Sentinel says of the deployment's master.
struct SentinelFacts {
  std::string address;
  int port = 26379;
  Wall at{};
  Millis took{0};
  Failure failure = Failure::error;
  Error error;
  [[nodiscard]] bool answered() const { return failure == Failure::none; }
  bool knows_master = false;  // it monitors master_name
  std::string master_host;
  int master_port = 0;
  std::vector<std::string> flags;  // master, s_down, o_down, failover_in_progress, …
  int quorum = 0;
  int other_sentinels = 0;
  std::optional<bool> has_quorum;  // CKQUORUM
  std::string quorum_text;         // what CKQUORUM said
  std::int64_t config_epoch = 0;
  Millis down_after{0}, failover_timeout{0};
  struct Replica {
    std::string address;
    int port = 0;
    std::vector<std::string> flags;
    std::string master_link_status;
    bool is_phantom = false;  // port 0, or no node of the configuration and not connected
  };
  std::vector<Replica> replicas;
};

// Who else sees a node: an agent or a host asked.
struct Testimony {
  std::string observer;
  bool sees_alive = false;
  std::string text;
};

struct Snapshot {
  Wall at{};
  std::string observer;
  Millis deadline{0};
  std::vector<NodeFacts> nodes;  // in the order of the file
  std::vector<SentinelFacts> sentinels;
  std::vector<Testimony> testimonies;  // about the master that is not seen
  [[nodiscard]] const NodeFacts* node(std::string_view name) const;
};

// The one node at that address and port, of those in the snapshot; null when none, or when an
// address that two nodes share says nothing.
[[nodiscard]] const NodeFacts* node_at(const Snapshot& snapshot, std::string_view address,
                                       int port);

[[nodiscard]] Json to_json(const NodeFacts& facts);
[[nodiscard]] Json to_json(const SentinelFacts& facts);
[[nodiscard]] Json to_json(const LocalFacts& facts);
[[nodiscard]] LocalFacts local_from_json(const Json& json);

}  // namespace zx::redis
