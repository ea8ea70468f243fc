// The state as metrics. A registry is made for each scrape: everything in it is a reading.
#include <unistd.h>
#include <fstream>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "lib/agent/status.h"

namespace zx::agent {
namespace {

using Labels = std::map<std::string, std::string>;

class Metrics {
 public:
  void gauge(const char* name, const char* help, const Labels& labels, double value) {
    prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels).Set(value);
  }
  void counter(const char* name, const char* help, const Labels& labels, double value) {
    prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels).Increment(
        value);
  }
  [[nodiscard]] std::string text() const {
    return prometheus::TextSerializer().Serialize(registry_.Collect());
  }

 private:
  // Several series of one name are one family.
  prometheus::Registry registry_{prometheus::Registry::InsertBehavior::Merge};
};

double seconds(Millis span) { return static_cast<double>(span.count()) / 1000; }

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

void add_node(Metrics& metrics, const Known& known, std::size_t i, const AgentState& state) {
  const auto& facts = known.snapshot.nodes[i];
  const Labels labels{{"cluster", known.cluster->name}, {"node", facts.name}};
  metrics.gauge("zx_pg_up", "Whether the server answered the newest look.", labels,
                facts.answered() ? 1 : 0);
  metrics.gauge("zx_pg_primary", "Whether it answered as a primary.", labels,
                facts.role == pg::Role::primary ? 1 : 0);
  if (known.answered[i])
    metrics.gauge("zx_pg_answered_age_seconds", "Time since it last answered.", labels,
                  std::chrono::duration<double>(state.now - *known.answered[i]).count());
  if (!facts.answered()) return;
  metrics.gauge("zx_pg_look_seconds", "How long the newest look at it took.", labels,
                seconds(facts.took));
  metrics.gauge("zx_pg_timeline", "Its timeline.", labels, facts.lineage.timeline);
  metrics.gauge("zx_pg_position_bytes", "How far its WAL reaches.", labels,
                static_cast<double>(facts.position().value));
  metrics.gauge("zx_pg_connections", "Client connections that it has.", labels, facts.connections);
  if (facts.role != pg::Role::standby) return;
  metrics.gauge("zx_pg_streaming", "Whether a standby's receiver has a connection.", labels,
                facts.receives() ? 1 : 0);
  const auto* primary = known.snapshot.node(writable_node(known, state.now));
  if (primary != nullptr && facts.replayed)
    metrics.gauge("zx_pg_replay_lag_bytes", "Bytes that it has still to replay.", labels,
                  static_cast<double>(bytes_ahead(primary->flushed, *facts.replayed)));
}

void add_cluster(Metrics& metrics, const Known& known, const AgentState& state) {
  const Labels labels{{"cluster", known.cluster->name}};
  metrics.gauge("zx_pg_has_primary", "Whether there is one primary for certain.", labels,
                writable_node(known, state.now).empty() ? 0 : 1);
  metrics.gauge("zx_pg_blocked", "Whether something must be done that the agent may not do.",
                labels, known.decision.is_blocked ? 1 : 0);
  metrics.gauge("zx_pg_paused", "Whether automatic action is paused.", labels,
                is_paused(known, state.wall) ? 1 : 0);
  if (known.commit)
    metrics.gauge("zx_pg_commit_seconds", "How long a small commit on the primary took.", labels,
                  seconds(*known.commit));
  metrics.counter("zx_pg_looks_total", "Looks at its servers.", labels,
                  static_cast<double>(known.looks));
  metrics.counter("zx_pg_runs_total", "Runs by this agent.",
                  {{"cluster", known.cluster->name}, {"outcome", "done"}},
                  static_cast<double>(known.runs_done));
  metrics.counter("zx_pg_runs_total", "Runs by this agent.",
                  {{"cluster", known.cluster->name}, {"outcome", "failed"}},
                  static_cast<double>(known.runs_failed));
  if (known.record.last)
    metrics.gauge("zx_pg_last_failover_timestamp_seconds", "When the last failover was.", labels,
                  std::chrono::duration<double>(known.record.last->at.time_since_epoch()).count());
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) add_node(metrics, known, i, state);
}

void add_redis_node(Metrics& metrics, const RedisKnown& known, std::size_t i,
                    const AgentState& state) {
  const auto& facts = known.snapshot.nodes[i];
  const Labels labels{{"deployment", known.deployment->name}, {"node", facts.name}};
  metrics.gauge("zx_redis_up", "Whether the server answered the newest look.", labels,
                facts.answered() ? 1 : 0);
  metrics.gauge("zx_redis_master", "Whether it answered as a master.", labels,
                facts.answered() && facts.role == redis::Role::master ? 1 : 0);
  if (known.answered[i])
    metrics.gauge("zx_redis_answered_age_seconds", "Time since it last answered.", labels,
                  std::chrono::duration<double>(state.now - *known.answered[i]).count());
  if (!facts.answered()) return;
  metrics.gauge("zx_redis_look_seconds", "How long the newest look at it took.", labels,
                seconds(facts.took));
  metrics.gauge("zx_redis_offset_bytes", "How far it is in the stream of writes.", labels,
                static_cast<double>(facts.lineage.offset));
  metrics.gauge("zx_redis_keys", "Keys of all databases.", labels, static_cast<double>(facts.keys));
  metrics.gauge("zx_redis_memory_used_bytes", "Memory that its data take.", labels,
                static_cast<double>(facts.memory_used));
  metrics.gauge("zx_redis_clients", "Client connections that it has.", labels,
                static_cast<double>(facts.clients));
  metrics.gauge("zx_redis_last_save_successful", "Whether the last RDB and AOF writes went well.",
                labels,
                facts.persistence.last_save_ok && facts.persistence.aof_last_write_ok ? 1 : 0);
  if (facts.role == redis::Role::replica)
    metrics.gauge("zx_redis_linked", "Whether a replica has its link to its master.", labels,
                  facts.is_linked() ? 1 : 0);
}

void add_deployment(Metrics& metrics, const RedisKnown& known, const AgentState& state) {
  const Labels labels{{"deployment", known.deployment->name}};
  metrics.gauge("zx_redis_has_master", "Whether there is one master for certain.", labels,
                writable_node(known, state.now).empty() ? 0 : 1);
  metrics.gauge("zx_redis_blocked", "Whether something must be done that the agent may not do.",
                labels, known.decision.is_blocked ? 1 : 0);
  metrics.counter("zx_redis_looks_total", "Looks at its servers.", labels,
                  static_cast<double>(known.looks));
  metrics.counter("zx_redis_runs_total", "Runs by this agent.",
                  {{"deployment", known.deployment->name}, {"outcome", "done"}},
                  static_cast<double>(known.runs_done));
  metrics.counter("zx_redis_runs_total", "Runs by this agent.",
                  {{"deployment", known.deployment->name}, {"outcome", "failed"}},
                  static_cast<double>(known.runs_failed));
  if (known.record.last)
    metrics.gauge("zx_redis_last_failover_timestamp_seconds", "When the last failover was.", labels,
                  std::chrono::duration<double>(known.record.last->at.time_since_epoch()).count());
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i)
    add_redis_node(metrics, known, i, state);
}

}  // namespace

std::string metrics_text(const AgentState& state) {
  Metrics metrics;
  metrics.gauge("zx_build_info", "The version of zx.", {{"version", state.version}}, 1);
  metrics.gauge("zx_agent_start_time_seconds", "When the agent started.", {},
                std::chrono::duration<double>(state.started.time_since_epoch()).count());
  metrics.gauge("zx_agent_leader", "Whether this agent is the one that acts.", {},
                state.standing.role == coord::Standing::Role::leader ? 1 : 0);
  metrics.gauge("zx_agent_cut_off", "Whether the coordinator cannot be reached.", {},
                state.standing.role == coord::Standing::Role::cut_off ? 1 : 0);
  metrics.gauge("zx_agent_well", "Whether the loop and every monitor make progress.", {},
                state.is_well ? 1 : 0);
  metrics.gauge("zx_agent_config_reload_successful", "Whether the newest reload went well.", {},
                state.reload_error.empty() ? 1 : 0);
  metrics.counter("zx_agent_reloads_total", "Reloads of the configuration that went well.", {},
                  static_cast<double>(state.reloads));
  metrics.counter("zx_agent_events_lost_total", "Events that could not be stored.", {},
                  static_cast<double>(state.events_lost));
  if (state.state_dir_free)
    metrics.gauge("zx_agent_state_dir_free_bytes", "Free space on the disk of the state directory.",
                  {}, static_cast<double>(*state.state_dir_free));
  metrics.gauge("zx_agent_ready", "Whether nothing keeps the agent from acting.", {},
                state.warnings.empty() ? 1 : 0);
  metrics.gauge("zx_agent_resident_memory_bytes", "Resident memory of the agent.", {},
                resident_bytes());
  metrics.gauge("zx_http_connections", "Open HTTP connections.", {},
                static_cast<double>(state.http.open));
  metrics.counter("zx_http_connections_total", "HTTP connections accepted.", {},
                  static_cast<double>(state.http.accepted));
  metrics.counter("zx_http_connections_rejected_total", "HTTP connections over the limit.", {},
                  static_cast<double>(state.http.rejected));
  metrics.counter("zx_http_connections_evicted_total",
                  "HTTP connections that were closed for a new one while they waited.", {},
                  static_cast<double>(state.http.evicted));
  for (std::size_t i = 2; i < state.http.requests.size(); ++i)
    metrics.counter("zx_http_requests_total", "HTTP requests answered.",
                    {{"code", std::to_string(i) + "xx"}},
                    static_cast<double>(state.http.requests[i]));
  for (const auto& guard : state.guards)
    metrics.gauge("zx_guard_lease_seconds", "How long the guard's lease of a node still lasts.",
                  {{"node", guard.node}}, seconds(guard.lease_left));
  for (const auto& known : state.clusters) add_cluster(metrics, known, state);
  for (const auto& known : state.deployments) add_deployment(metrics, known, state);
  return metrics.text();
}

}  // namespace zx::agent
