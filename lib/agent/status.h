// What an agent knows, as JSON, as metrics, and as answers to load balancers. Pure.
#pragma once

#include <string>
#include <vector>

#include "lib/agent/cluster_watch.h"
#include "lib/agent/node_guard.h"
#include "lib/agent/redis_watch.h"
#include "lib/base/json.h"
#include "lib/net/http_server.h"

namespace zx::agent {

struct AgentState {
  std::string name, region, version;
  Wall started{};
  coord::Standing standing;
  std::string coordination;  // "file" | "etcd"
  std::vector<Known> clusters;
  std::vector<RedisKnown> deployments;
  std::vector<NodeGuard::State> guards;
  bool is_well = true;  // the loop and every monitor have made progress lately
  bool is_stopping = false;
  std::string reload_error;  // of the last reload; empty: it went well
  std::uint64_t reloads = 0, events_lost = 0;
  std::optional<std::uint64_t> state_dir_free;  // bytes
  std::vector<std::string> warnings;            // what keeps it from acting; empty: nothing
  net::HttpCounters http;
  std::string backup_metrics;  // as text
  Monotonic now{};
  Wall wall{};
};

// A pause whose time is over stays in the record.
[[nodiscard]] bool is_paused(const Known& known, Wall now);
[[nodiscard]] net::HttpResponse json_response(int status, const Json& json);
[[nodiscard]] Json status_json(const AgentState& state);
// Prometheus' text format, version 0.0.4.
[[nodiscard]] std::string metrics_text(const AgentState& state);

// GET and HEAD of what anybody may read: /healthz, /readyz, /metrics, /status, /pg/primary,
// /pg/replica, /pg/NODE/primary, /pg/NODE/replica, and the same below /redis with master in the
// place of primary. 404 for anything else.
[[nodiscard]] net::HttpResponse answer(const net::HttpRequest& request, const AgentState& state);

}  // namespace zx::agent
