#include "lib/pg/observe.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/os/host_name.h"
#include "lib/pg/facts_query.h"

namespace zx::pg {
namespace {

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
    connection_->query_prepared(facts_query(), deadline_,
                                [self = shared_from_this()](const Outcome<Rows>& rows) {
                                  if (!rows) return self->fail_with(rows.error());
                                  self->on_facts(rows->empty() ? Row() : rows->front());
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

  void on_facts(const Row& row) {
    facts_.at = wall_now();
    if (auto status = read_facts(row, facts_); !status)
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
  snapshot.observer = os::host_name();
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

}  // namespace zx::pg
