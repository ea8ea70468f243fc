#include "lib/pg/observe.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/pg/conninfo.h"

namespace zx::pg {
namespace {

// One round trip. The CASEs matter: half of the functions raise an error in the other role.
// The timeline of a standby has three sources, as each lags in its own way: the control file is
// written at restart points, the walreceiver forgets when it ends, and the newest segment file that
// holds the position is there as soon as WAL of that timeline has arrived.
constexpr std::string_view kFactsQuery = R"SQL(
SELECT json_build_object(
  'recovery', rec,
  'version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'system_id', (SELECT system_identifier::text FROM pg_control_system()),
  'segment_size', seg,
  'timeline', CASE WHEN rec THEN greatest(
        (SELECT timeline_id FROM pg_control_checkpoint()),
        (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
        (SELECT received_tli FROM pg_stat_wal_receiver),
        (SELECT max(('x' || substr(name, 1, 8))::bit(32)::int) FROM pg_ls_waldir()
          WHERE name ~ '^[0-9A-F]{24}$' AND substr(name, 9) = (
            SELECT lpad(upper(to_hex(n / (4294967296 / seg))), 8, '0')
                || lpad(upper(to_hex(n % (4294967296 / seg))), 8, '0')
              FROM (SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/1')
                            - '0/1'::pg_lsn)::bigint / seg AS n) AS s)))
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'written', CASE WHEN rec THEN NULL ELSE pg_current_wal_lsn()::text END,
  'flushed', CASE WHEN rec THEN NULL ELSE pg_current_wal_flush_lsn()::text END,
  'received', CASE WHEN rec THEN pg_last_wal_receive_lsn()::text END,
  'replayed', CASE WHEN rec THEN pg_last_wal_replay_lsn()::text END,
  'oldest_wal', CASE WHEN NOT rec THEN
      (SELECT min(substr(name, 9)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') END,
  'waits_for_wal', rec AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'startup'
      AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')),
  'restores', CASE WHEN pg_has_role('pg_read_all_settings', 'usage')
              THEN current_setting('restore_command') <> '' END,
  'replay_paused', CASE WHEN rec THEN pg_is_wal_replay_paused() ELSE false END,
  'receiver', (SELECT json_build_object(
      'status', status, 'sender_host', sender_host, 'sender_port', sender_port, 'slot', slot_name,
      'latest_end', latest_end_lsn::text, 'timeline', received_tli,
      'message_age_ms', (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint)
    FROM pg_stat_wal_receiver WHERE pid IS NOT NULL),
  'senders', (SELECT coalesce(json_agg(json_build_object(
      'application_name', application_name, 'client_address', host(client_addr), 'state', state,
      'sync_state', sync_state, 'sent', sent_lsn::text, 'flushed', flush_lsn::text,
      'replayed', replay_lsn::text,
      'reply_age_ms', (extract(epoch FROM clock_timestamp() - reply_time) * 1000)::bigint)), '[]')
    FROM pg_stat_replication),
  'slots', (SELECT coalesce(json_agg(json_build_object(
      'name', slot_name, 'active', active, 'restart', restart_lsn::text)), '[]')
    FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary),
  'conninfo', CASE WHEN pg_has_role('pg_read_all_settings', 'usage')
              THEN current_setting('primary_conninfo') END,
  'primary_slot_name', current_setting('primary_slot_name'),
  'sync_names', current_setting('synchronous_standby_names'),
  'read_only', current_setting('default_transaction_read_only')::bool,
  'connections', (SELECT sum(numbackends) FROM pg_stat_database),
  'max_connections', current_setting('max_connections')::int,
  'rewindable', current_setting('full_page_writes')::bool AND (current_setting('wal_log_hints')::bool
      OR current_setting('data_checksums')::bool),
  'data_directory', CASE WHEN pg_has_role('pg_read_all_settings', 'usage')
              THEN current_setting('data_directory') END,
  'config_file', CASE WHEN pg_has_role('pg_read_all_settings', 'usage')
              THEN current_setting('config_file') END
)::text
FROM (SELECT pg_is_in_recovery() AS rec,
             (SELECT setting::bigint * CASE unit WHEN '8kB' THEN 8192 ELSE 1 END
                FROM pg_settings WHERE name = 'wal_segment_size') AS seg) AS r
)SQL";

// The first record of a timeline is at most 48 bytes after its switch point: a page header of 24
// and a record header of 24 that ends with the checksum of the whole record.
std::string history_query(const NodeFacts& facts) {
  return fmt::format("SELECT pg_read_file('pg_wal/{:08X}.history', 0, 1000000, true)",
                     facts.lineage.timeline);
}

// NULL, which concat_ws() leaves out, where the segment is gone.
std::string mark_query(const NodeFacts& facts) {
  const auto& history = *facts.lineage.history;
  std::string marks;
  for (std::size_t i = 0; i < history.size(); ++i) {
    const auto timeline = i + 1 < history.size() ? history[i + 1].timeline : facts.lineage.timeline;
    const auto begun = history[i].until;
    marks += fmt::format(", '{}:' || encode(pg_read_binary_file('pg_wal/{}', {}, {}, true), 'hex')",
                         timeline, segment_name(timeline, begun, facts.segment_size),
                         begun.value % facts.segment_size, kMarkBytes);
  }
  return fmt::format("SELECT nullif(concat_ws(','{}), '')", marks);
}

class Asking : public std::enable_shared_from_this<Asking> {
 public:
  Asking(Connection::Pointer connection, NodeFacts facts, Deadline deadline,
         std::function<void(NodeFacts)> done)
      : connection_(std::move(connection)),
        facts_(std::move(facts)),
        known_(std::exchange(facts_.lineage, {})),
        deadline_(deadline),
        done_(std::move(done)) {}

  void start() {
    connection_->query_prepared(kFactsQuery, deadline_,
                                [self = shared_from_this()](const Outcome<Rows>& rows) {
                                  if (!rows) return self->fail_with(rows.error());
                                  self->on_facts(text_of(*rows).value_or(""));
                                });
  }

 private:
  static std::optional<std::string> text_of(const Rows& rows) {
    return rows.empty() || rows.front().empty() ? std::nullopt : rows.front().front();
  }

  void finish() { std::exchange(done_, nullptr)(std::move(facts_)); }

  void fail_with(const Failed& failed) {
    Target target;
    target.name = facts_.name;
    target.address = facts_.address;
    target.port = facts_.port;
    facts_.at = std::chrono::system_clock::now();
    facts_.failure = failed.why;
    facts_.ending = failed.ending;
    facts_.error = error_of(target, failed);
    finish();
  }

  // What does without an answer: it is noted as a warning.
  void ask_more(const std::string& sql,
                const std::function<void(const std::optional<std::string>&)>& then) {
    connection_->query(sql, {}, deadline_,
                       [self = shared_from_this(), then](const Outcome<Rows>& rows) {
                         if (rows) return then(text_of(*rows));
                         self->facts_.warnings.push_back(rows.error().error.message);
                         then(std::nullopt);
                       });
  }

  void on_facts(const std::string& text) {
    facts_.at = wall_now();
    if (auto status = read_facts(text, facts_); !status)
      return fail_with(Failed{Failure::other, status.error()});
    facts_.failure = Failure::none;
    auto& lineage = facts_.lineage;
    if (lineage.timeline <= 1) {
      lineage.history.emplace();
      return finish();
    }
    if (known_.history && known_.mark && known_.timeline == lineage.timeline &&
        known_.system_id == lineage.system_id) {
      lineage = known_;
      return finish();
    }
    ask_more(history_query(facts_),
             [self = shared_from_this()](const auto& history) { self->on_history(history); });
  }

  void on_history(const std::optional<std::string>& text) {
    if (!text) {
      facts_.warnings.push_back("the history of its timeline could not be read");
      return finish();
    }
    auto history = parse_history(*text);
    if (!history || history->empty()) {
      facts_.warnings.push_back(history ? "its history file is empty" : history.error().message);
      return finish();
    }
    facts_.lineage.history = *std::move(history);
    ask_more(mark_query(facts_), [self = shared_from_this()](const auto& mark) {
      if (mark) self->facts_.lineage.mark = *mark;
      self->finish();
    });
  }

  Connection::Pointer connection_;
  NodeFacts facts_;
  Lineage known_;
  Deadline deadline_;
  std::function<void(NodeFacts)> done_;
};

// What a server may spend on a statement of a held connection: looks have different deadlines.
constexpr Millis kHeldStatements{1000};

// One node of one look.
struct Watched : std::enable_shared_from_this<Watched> {
  NodeFacts facts;
  Target target;
  Monotonic started{};
  Deadline deadline = Deadline::after(Millis(0));
  Connection::Pointer connection;
  bool done = false;

  void finish(NodeFacts found) {
    facts = std::move(found);
    facts.took = since(started);
    if (!facts.answered()) connection.reset();
    done = true;
  }

  void start(net::Loop& loop) {
    if (!connection) return open(loop);
    ask_facts(connection, facts, deadline, [self = shared_from_this(), &loop](NodeFacts found) {
      // The end of a held connection says that something happened since, not what is the case now.
      const bool has_ended =
          found.failure == Failure::broken || found.failure == Failure::shutting_down;
      if (!has_ended) return self->finish(std::move(found));
      self->connection.reset();
      self->open(loop);
    });
  }

  void open(net::Loop& loop) {
    Connection::open(loop, target, deadline,
                     [self = shared_from_this()](Outcome<Connection::Pointer> opened) {
                       if (!opened) {
                         self->facts.failure = opened.error().why;
                         self->facts.error = error_of(self->target, opened.error());
                         return self->finish(self->facts);
                       }
                       self->connection = *opened;
                       ask_facts(*opened, self->facts, self->deadline,
                                 [self](NodeFacts found) { self->finish(std::move(found)); });
                     });
  }
};

std::optional<Lsn> lsn_of(const Json& json, const char* key) {
  return parse_lsn(get_string(json, key));
}

}  // namespace

Result<Target> target_of(const config::Config& config, const config::PgCluster& cluster,
                         const std::string& name) {
  const auto* node = cluster.node(name);
  if (node == nullptr)
    return fail(Code::not_found, "no node named " + name + " in pg." + cluster.name);
  const auto* host = config.host(node->host);
  Target target;
  target.name = name;
  target.address = host != nullptr ? host->address : node->host;
  target.port = node->port;
  target.user = cluster.user;
  ZX_ASSIGN(target.password, config::password_of(config, cluster));
  target.database = cluster.database;
  target.sslmode = cluster.sslmode;
  target.sslrootcert = cluster.sslrootcert;
  return target;
}

Result<std::vector<Target>> targets_of(const config::Config& config,
                                       const config::PgCluster& cluster) {
  std::vector<Target> targets;
  for (const auto& node : cluster.nodes) {
    ZX_ASSIGN(targets.emplace_back(), target_of(config, cluster, node.name));
  }
  return targets;
}

void ask_facts(const Connection::Pointer& connection, NodeFacts facts, Deadline deadline,
               std::function<void(NodeFacts)> done) {
  std::make_shared<Asking>(connection, std::move(facts), deadline, std::move(done))->start();
}

struct Observer::Impl {
  explicit Impl(bool h) : holds(h) {}
  bool holds;
  net::Loop loop;
  std::map<std::string, Connection::Pointer> connections;  // by node; they end before the loop
};

Observer::Observer(bool holds) : impl_(std::make_unique<Impl>(holds)) {}
Observer::~Observer() = default;

Snapshot Observer::observe(const std::vector<Target>& targets, Millis span) {
  auto& loop = impl_->loop;
  const auto deadline = Deadline::after(span);
  std::vector<std::shared_ptr<Watched>> all;
  for (auto target : targets) {
    auto watched = std::make_shared<Watched>();
    target.statement_timeout = impl_->holds ? std::max(span, kHeldStatements) : span;
    watched->target = target;
    watched->facts.name = target.name;
    watched->facts.address = target.address;
    watched->facts.port = target.port;
    watched->facts.at = wall_now();
    watched->started = monotonic_now();
    watched->deadline = deadline;
    if (const auto held = impl_->connections.find(target.name); held != impl_->connections.end())
      watched->connection = std::exchange(held->second, nullptr);
    all.push_back(watched);
    watched->start(loop);
  }
  loop.run_until(
      [&] {
        return std::all_of(all.begin(), all.end(), [](const auto& one) { return one->done; });
      },
      Deadline(deadline.at() + Millis(500)));
  Snapshot snapshot;
  snapshot.at = wall_now();
  std::array<char, 256> hostname{};
  gethostname(hostname.data(), hostname.size() - 1);
  snapshot.observer = hostname.data();
  snapshot.deadline = span;
  for (const auto& watched : all) {
    const auto& facts = watched->facts;
    log::debug(fmt::format("{} ({}:{}): {} after {}", facts.name, facts.address, facts.port,
                           facts.answered() ? name_of(facts.role) : name_of(facts.failure),
                           format_duration(facts.took)));
    snapshot.nodes.push_back(facts);
    if (impl_->holds && watched->done)
      impl_->connections[facts.name] = std::exchange(watched->connection, nullptr);
    else
      watched->connection.reset();
  }
  return snapshot;
}

Snapshot observe(const std::vector<Target>& targets, Millis span) {
  return Observer(false).observe(targets, span);
}

void name_hosts(Snapshot& snapshot, const config::Config& config,
                const config::PgCluster& cluster) {
  for (auto& facts : snapshot.nodes) {
    const auto* node = cluster.node(facts.name);
    if (node == nullptr) continue;
    facts.host = node->host;
    if (const auto* host = config.host(node->host)) facts.address = host->address;
  }
}

bool refuses_tcp(const std::string& address, int port, int tries, Millis apart, Millis span) {
  net::Loop loop;
  for (int i = 0; i < tries; ++i) {
    if (i > 0) pause_for(apart);
    std::optional<std::string> numeric;
    bool resolved = false;
    const auto deadline = Deadline::after(span);
    net::resolve(loop, address, [&](Result<std::vector<std::string>> addresses) {
      resolved = true;
      if (addresses) numeric = addresses->front();
    });
    loop.run_until([&] { return resolved; }, deadline);
    if (!numeric) return false;
    std::optional<net::Tcp> found;
    net::tcp_probe(loop, *numeric, port, deadline, [&](net::Tcp tcp) { found = tcp; });
    loop.run_until([&] { return found.has_value(); }, Deadline(deadline.at() + Millis(100)));
    if (found != net::Tcp::refused) return false;
  }
  return true;
}

std::optional<Upstream> upstream_of(const std::string& text) {
  const auto conninfo = parse_conninfo(text);
  if (!conninfo) return std::nullopt;
  auto host = value_of(*conninfo, "hostaddr");
  if (host.empty()) host = value_of(*conninfo, "host");
  if (host.empty()) return std::nullopt;
  Upstream upstream;
  upstream.host = host.substr(0, host.find(','));
  const auto port = value_of(*conninfo, "port");
  const auto first = port.substr(0, port.find(','));
  if (!first.empty()) upstream.port = std::atoi(first.c_str());
  return upstream;
}

Status read_facts(const std::string& text, NodeFacts& facts) {
  ZX_ASSIGN(const auto json, parse_json(text, "the answer of " + facts.name));
  if (!get_object(json, "recovery").is_boolean())
    return fail(Code::server,
                "the answer of " + facts.name + " does not say whether it is in recovery");
  facts.role = get_bool(json, "recovery") ? Role::standby : Role::primary;
  facts.version = get_string(json, "version");
  facts.version_number = static_cast<int>(get_int(json, "version_number"));
  facts.lineage.system_id = get_string(json, "system_id");
  facts.lineage.timeline = static_cast<std::uint32_t>(get_int(json, "timeline"));
  // The sizes that initdb allows; positions are divided by it.
  const auto segment = static_cast<std::uint64_t>(get_int(json, "segment_size"));
  if (std::has_single_bit(segment) && segment >= 1u << 20 && segment <= 1u << 30)
    facts.segment_size = segment;
  facts.written = lsn_of(json, "written").value_or(Lsn{});
  facts.flushed = lsn_of(json, "flushed").value_or(Lsn{});
  facts.received = lsn_of(json, "received");
  facts.replayed = lsn_of(json, "replayed");
  facts.oldest_wal = start_of_segment(get_string(json, "oldest_wal"), facts.segment_size);
  facts.waits_for_wal = get_bool(json, "waits_for_wal");
  facts.restores = get_bool(json, "restores", true);
  facts.replay_paused = get_bool(json, "replay_paused");
  if (const auto& r = get_object(json, "receiver"); r.is_object()) {
    Receiver receiver;
    receiver.status = get_string(r, "status");
    receiver.sender_host = get_string(r, "sender_host");
    receiver.sender_port = static_cast<int>(get_int(r, "sender_port"));
    receiver.slot_name = get_string(r, "slot");
    receiver.latest_end = lsn_of(r, "latest_end").value_or(Lsn{});
    receiver.timeline = static_cast<std::uint32_t>(get_int(r, "timeline"));
    if (get_object(r, "message_age_ms").is_number_integer())
      receiver.message_age = Millis(std::max<std::int64_t>(0, get_int(r, "message_age_ms")));
    facts.receiver = receiver;
  }
  for (const auto& s : get_object(json, "senders")) {
    if (get_string(s, "state").empty()) continue;
    facts.senders.push_back(
        {get_string(s, "application_name"), get_string(s, "client_address"), get_string(s, "state"),
         get_string(s, "sync_state"), lsn_of(s, "sent").value_or(Lsn{}),
         lsn_of(s, "flushed").value_or(Lsn{}), lsn_of(s, "replayed").value_or(Lsn{})});
    if (get_object(s, "reply_age_ms").is_number_integer())
      facts.senders.back().reply_age =
          Millis(std::max<std::int64_t>(0, get_int(s, "reply_age_ms")));
  }
  for (const auto& s : get_object(json, "slots"))
    facts.slots.push_back(
        {get_string(s, "name"), get_bool(s, "active"), lsn_of(s, "restart").value_or(Lsn{})});
  if (const auto upstream = upstream_of(get_string(json, "conninfo"))) {
    facts.has_upstream = true;
    facts.upstream_host = upstream->host;
    facts.upstream_port = upstream->port;
  }
  facts.primary_slot_name = get_string(json, "primary_slot_name");
  facts.sync_names = get_string(json, "sync_names");
  facts.read_only = get_bool(json, "read_only");
  facts.connections = static_cast<int>(get_int(json, "connections"));
  facts.max_connections = static_cast<int>(get_int(json, "max_connections"));
  facts.rewindable = get_bool(json, "rewindable");
  facts.data_directory = get_string(json, "data_directory");
  facts.config_file = get_string(json, "config_file");
  return {};
}

}  // namespace zx::pg
