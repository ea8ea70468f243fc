// What is known about the PostgreSQL nodes at one moment. A fact that could not be had is absent,
// with the reason; there are no defaults that look like facts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"
#include "lib/pg/connection.h"
#include "lib/pg/lineage.h"

namespace zx::pg {

enum class Role { unknown, primary, standby };
[[nodiscard]] const char* name_of(Role role);
[[nodiscard]] Role role_named(std::string_view name);  // unknown for any other

// pg_stat_wal_receiver of a standby: whom it receives from.
struct Receiver {
  std::string status;  // streaming, waiting, …
  std::string sender_host;
  int sender_port = 0;
  std::string slot_name;
  Lsn latest_end;  // the sender's last word on its own position
  std::uint32_t timeline = 0;
  std::optional<Millis> message_age;  // since last_msg_receipt_time, by the standby's clock
};

// A row of pg_stat_replication.
struct Sender {
  std::string application_name;
  std::string client_address;
  std::string state;
  std::string sync_state;  // async, potential, sync, quorum
  Lsn sent, flushed, replayed;
  std::optional<Millis> reply_age = {};  // since its last reply, by the primary's clock
};

struct Slot {
  std::string name;
  bool active = false;
  Lsn restart;
};

// What zx on the node's own host found there; see lib/pg/data_dir.h.
struct LocalFacts {
  bool is_data_directory = false;
  std::string problem;     // why it is not one, or why nothing more is known
  bool processes = false;  // PostgreSQL processes are in the data directory
  int port = 0;            // theirs; 0: not known
  bool stopped = false;    // they are all in state T (SIGSTOP)
  bool standby_signal = false;
  bool fenced = false;  // zx's fence record is there
  std::string fence_run;
  bool interrupted_rewind = false;
  std::string control_state;  // pg_controldata: "in production", "shut down", …
  Lineage lineage;
  // The newest timeline in its WAL has no checkpoint in the control file yet: pg_rewind before
  // version 16, which compares those, does not know that the server is on it.
  bool unsealed = false;
  std::vector<std::string> missing_programs;  // of PostgreSQL's, not in bin_dir
  std::string no_rebuild;                     // why a fresh copy must not take its place
  bool denied = false;                        // zx may not look into the directory
  bool is_empty = false;                      // a directory of an ordinary user with nothing in it
  Lsn checkpoint;                             // "Latest checkpoint location"
  std::string control_mark;                   // another one after each start of the server
  std::optional<Lsn> wal_end;                 // end of the last valid record, when it was asked for
  std::string sync_names;
  bool sync_names_known = false;
};

struct NodeFacts {
  std::string name, host, address;
  int port = 0;
  Wall at{};
  Millis took{0};

  // `none` when it answered; the error says more, and `ending` why a connection broke meanwhile.
  Failure failure = Failure::other;
  Ending ending = Ending::broken;
  Error error;
  [[nodiscard]] bool answered() const { return failure == Failure::none; }

  Role role = Role::unknown;
  std::string version;
  int version_number = 0;
  Lineage lineage;
  std::uint64_t segment_size = 16u << 20;
  Lsn written, flushed;                   // of a primary
  std::optional<Lsn> oldest_wal;          // of a primary: where the WAL that it has begins
  std::optional<Lsn> received, replayed;  // of a standby
  bool waits_for_wal = false;             // of a standby: it has replayed all that it has
  bool restores = true;                   // it has a restore_command, or that is not known
  bool replay_paused = false;
  std::optional<Receiver> receiver;
  std::vector<Sender> senders;
  std::vector<Slot> slots;
  std::string upstream_host;  // of primary_conninfo
  int upstream_port = 0;
  bool has_upstream = false;
  std::string primary_slot_name;
  std::string sync_names;
  bool read_only = false;  // default_transaction_read_only
  int connections = 0, max_connections = 0;
  bool rewindable = false;  // wal_log_hints or checksums, and full_page_writes
  std::string data_directory, config_file;
  std::vector<std::string> warnings;

  std::optional<LocalFacts> local;
  std::string local_error;  // why there are no local facts

  // greatest(received, replayed) of a standby, flushed of a primary. `received` is absent after a
  // restart without streaming.
  [[nodiscard]] Lsn position() const;
  // Nothing that it has lies beyond position(): since its start it has come to the end of its own
  // WAL, whether it has asked anybody for more or waits with nobody to ask.
  [[nodiscard]] bool knows_its_end() const;
  // It is stuck: it waits for WAL that `primary` has removed, and no archive may have it.
  [[nodiscard]] bool misses_wal_of(const NodeFacts& primary) const;
  // Does its walreceiver hold a connection?
  [[nodiscard]] bool receives() const;
};

// What another vantage point saw of one node.
struct Testimony {
  std::string observer;  // the host it looked from
  std::string node;
  Failure failure = Failure::other;
  Role role = Role::unknown;
  std::string error;
};

struct Snapshot {
  Wall at{};
  std::string observer;  // this host
  Millis deadline{0};    // how long each node had to answer; 0: not known
  std::vector<NodeFacts> nodes;
  std::vector<Testimony> testimonies;
  [[nodiscard]] const NodeFacts* node(const std::string& name) const;
};

[[nodiscard]] Json to_json(const NodeFacts& facts);
[[nodiscard]] Json to_json(const LocalFacts& facts);
[[nodiscard]] LocalFacts local_from_json(const Json& json);

}  // namespace zx::pg
