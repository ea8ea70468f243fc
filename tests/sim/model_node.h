// PostgreSQL as far as a failover depends on it: WAL with timelines, recovery, streaming
// replication, synchronous commits, and what of it survives a crash.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/pg/facts.h"
#include "lib/pg/sync_names.h"
#include "tests/sim/network.h"
#include "tests/sim/trace.h"

namespace zx::sim {

struct WalRecord {
  std::uint32_t timeline = 1;
  int commit = -1;  // a client's; -1: the server's own
};

// Position after `count` records.
[[nodiscard]] constexpr Lsn lsn_after(std::size_t count) { return Lsn{0x3000000 + count * 128}; }

struct FenceRecord {
  std::string run;
  bool made_signal = false;
};

// A commit that waits for standbys.
struct Waiting {
  std::size_t end;  // records
  int commit;
  std::function<void()> acknowledge;
};

enum class Process { down, starting, running, stopping };

struct ModelNode {
  std::string name;
  int index = 0;  // also its host's Place

  // --- on its disk ---------------------------------------------------------------------------
  std::vector<int> wal;  // numbers of Cluster::records
  std::uint32_t timeline = 1;
  pg::History history;
  bool unsealed = false;  // promoted, and no checkpoint since
  std::string control = "shut down";
  bool standby_signal = false;
  std::optional<FenceRecord> fence;
  bool interrupted_rewind = false;
  std::string rebuilt_by;
  std::string conninfo, slot, sync_text;
  std::set<std::string> slots;
  bool supervised = false;  // something starts it again when it ends by itself
  bool kept_down = false;   // stopped through its supervisor

  // --- in memory -----------------------------------------------------------------------------
  Process process = Process::down;
  int life = 0;    // another one after each start and each end
  int starts = 0;  // so far
  bool frozen = false;
  bool primary = false, promoting = false;
  std::size_t replayed = 0;
  std::optional<std::size_t> received;
  int receiver = -1;        // its connection to an upstream
  int attempts = 0;         // to connect; an older one ends
  Micros last_message = 0;  // by its wall clock
  Lsn latest_end;
  std::vector<int> senders;  // connections of standbys to it
  std::deque<Waiting> waiting;
  pg::SyncNames sync;

  [[nodiscard]] bool serves() const { return process == Process::running && !frozen; }
  [[nodiscard]] bool accepts_writes() const { return serves() && primary; }
  [[nodiscard]] Lsn end() const { return lsn_after(wal.size()); }
};

// A walreceiver's connection. Each side may be gone without the other knowing.
struct Connection {
  int up = 0, down = 0;
  bool up_open = true, down_open = true;
  bool in_flight = false;
  std::size_t sent = 0, flushed = 0;  // records
};

// Who looks at it from outside, to judge.
class Witness {
 public:
  virtual ~Witness() = default;
  virtual void acknowledged(const ModelNode& node, int commit, bool by_standbys) = 0;
  virtual void promoted(const ModelNode& node) = 0;
  // A standby receives from a server whose WAL is not a continuation of its own.
  virtual void mixed(const ModelNode& standby, const ModelNode& upstream) = 0;
  virtual void primary_started(const ModelNode& node) = 0;
};

class Cluster {
 public:
  Cluster(Scheduler& scheduler, Network& network, Random random, Trace& trace, int nodes);
  void set_witness(Witness* witness) { witness_ = witness; }

  std::vector<ModelNode> nodes;
  std::vector<WalRecord> records;
  std::vector<Micros> wall_offsets;  // of the hosts

  [[nodiscard]] ModelNode* find(const std::string& name);
  // By host and port of a connection string.
  [[nodiscard]] ModelNode* at(const std::string& address, int port);
  [[nodiscard]] static std::string address_of(int index);

  // --- life ----------------------------------------------------------------------------------
  // `started` is called when it accepts connections, or cannot be started.
  void start(ModelNode& node, std::function<void(bool)> started = {});
  // All of its processes are gone. `control` says how ("shut down"); empty: it crashed.
  void end(ModelNode& node, const std::string& control);
  void crash_host(int host);
  void boot_host(int host);
  void freeze(ModelNode& node) { node.frozen = true; }
  void thaw(ModelNode& node);
  // Calls when the server can answer; never when it ends before.
  void when_awake(ModelNode& node, std::function<void()> then);

  // --- what a server does ----------------------------------------------------------------------
  // `acknowledge` is called when the commit is acknowledged, if it ever is.
  void write(ModelNode& node, int commit, std::function<void()> acknowledge);
  void promote(ModelNode& node);
  void checkpoint(ModelNode& node);
  void set_upstream(ModelNode& node, const std::string& conninfo, const std::string& slot);
  void set_sync(ModelNode& node, const std::string& text);
  // Fast shutdown: no new commits, and the standbys get everything before it ends.
  void stop_clean(ModelNode& node, std::function<void()> stopped);
  [[nodiscard]] pg::Lineage lineage(const ModelNode& node) const;
  [[nodiscard]] pg::NodeFacts facts(const ModelNode& node) const;
  [[nodiscard]] pg::LocalFacts local_facts(const ModelNode& node, bool with_wal_end) const;
  [[nodiscard]] const Connection& connection(int number) const {
    return connections_[static_cast<std::size_t>(number)];
  }
  // `node` has the WAL of `other` from now on.
  void copy_wal(ModelNode& node, const ModelNode& other);
  // pg_rewind took for common what is not.
  void rewound_wrongly(const ModelNode& node, const ModelNode& source) {
    witness_->mixed(node, source);
  }
  // Whether everything of `a` is the beginning of `b`.
  [[nodiscard]] static bool is_prefix(const ModelNode& a, const ModelNode& b) {
    return a.wal.size() <= b.wal.size() &&
           (a.wal.empty() || a.wal.back() == b.wal[a.wal.size() - 1]);
  }

 private:
  Connection& of(int number) { return connections_[static_cast<std::size_t>(number)]; }
  void append(ModelNode& node, int commit);
  void acknowledge(ModelNode& node, bool by_standbys, std::size_t up_to);
  void release(ModelNode& node);
  void came_up(ModelNode& node);
  void connect_after(ModelNode& node, Micros span);
  void connect(ModelNode& node);
  [[nodiscard]] bool may_stream(const ModelNode& up, const ModelNode& down) const;
  void send_wal(int number);
  void receive_wal(int number, std::size_t up_to);
  void take_ack(int number, std::size_t flushed);
  void close_receiver(ModelNode& node);
  void close_sender(int number, bool tells);
  void finish_promotion(ModelNode& node);
  void drain(ModelNode& node, Micros give_up, std::function<void()> stopped);

  Scheduler& scheduler_;
  Network& network_;
  Random random_;
  Trace& trace_;
  Witness* witness_ = nullptr;
  std::vector<Connection> connections_;
};

}  // namespace zx::sim
