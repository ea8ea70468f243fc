#include "lib/agent/status.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::agent {
namespace {

const char* name_of(coord::Standing::Role role) {
  switch (role) {
    case coord::Standing::Role::leader: return "leader";
    case coord::Standing::Role::follower: return "follower";
    case coord::Standing::Role::cut_off: return "cut_off";
  }
  return "cut_off";
}

Json node_json(const Known& known, std::size_t i, Monotonic now) {
  const auto& facts = known.snapshot.nodes[i];
  Json json = pg::to_json(facts);
  json["answered_ago_ms"] =
      known.answered[i] ? Json(std::chrono::duration_cast<Millis>(now - *known.answered[i]).count())
                        : Json();
  return json;
}

// Until then the next failover of an agent waits for a person.
std::optional<Wall> flap_end(const ha::WatchRecord& record, Millis window) {
  const auto& last = record.last;
  if (!last || last->is_acknowledged || last->by_hand) return std::nullopt;
  return last->at + window;
}

Json redis_json(const RedisKnown& known, const AgentState& state) {
  auto json = deployment_json(known, state.now);
  const auto& deployment = *known.deployment;
  // Where Sentinels watch, no agent begins one.
  if (!deployment.sentinel.master_name.empty()) return json;
  if (const auto until = flap_end(known.record, deployment.policy.flap_window);
      until && *until > state.wall)
    json["next_failover_waits_until"] = format_utc(*until);
  return json;
}

// Why a node that is owed a return is not there yet, when it was tried.
void note_retries(Json& owed, const Known& known, Monotonic now) {
  for (auto& one : owed)
    for (const auto& retry : known.retries)
      if (retry.node == get_string(one, "node") && retry.next > now)
        one["failed"] = {{"what", retry.what},
                         {"times", retry.times},
                         {"error", retry.why},
                         {"again_in_ms", std::chrono::ceil<Millis>(retry.next - now).count()}};
}

Json cluster_json(const Known& known, const AgentState& state) {
  Json nodes = Json::array();
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i)
    nodes.push_back(node_json(known, i, state.now));
  const auto writable = writable_node(known, state.now);
  Json json{{"cluster", known.cluster->name},
            {"verdict", known.has_judged ? Json(ha::name_of(known.verdict.state)) : Json()},
            {"primary", writable.empty() ? Json() : Json(writable)},
            {"summary", known.verdict.summary},
            {"hint", known.verdict.hint},
            {"problems", known.verdict.problems},
            {"automatic", known.cluster->policy.automatic},
            {"decision", ha::name_of(known.decision.act)},
            {"waits_because", known.decision.why},
            {"blocked", known.decision.is_blocked},
            {"remedy", known.decision.remedy.empty() ? Json() : Json(known.decision.remedy)},
            {"error", known.error.empty() ? Json() : Json(known.error)},
            {"at_work", known.run ? Json(*known.run) : Json()}};
  json.update(ha::to_json(known.record));
  if (!known.record.sync_owed) json["sync_owed"] = nullptr;
  if (!is_paused(known, state.wall)) json["pause"] = nullptr;
  note_retries(json["owed"], known, state.now);
  if (const auto until = flap_end(known.record, known.cluster->policy.flap_window);
      until && *until > state.wall)
    json["next_failover_waits_until"] = format_utc(*until);
  json["rejoin"] = known.cluster->policy.rejoin;
  json["commit_ms"] = known.commit ? Json(known.commit->count()) : Json();
  json["commit_pending"] = known.is_commit_pending;
  json["nodes"] = std::move(nodes);
  return json;
}

// --- for load balancers ---------------------------------------------------------------------

net::HttpResponse text(int status, const std::string& body) {
  net::HttpResponse response;
  response.status = status;
  response.body = body + "\n";
  return response;
}

std::optional<std::string> parameter(const net::HttpRequest& request, std::string_view name) {
  for (const auto& [key, value] : request.query)
    if (key == name) return value;
  return std::nullopt;
}

// The cluster that a request is about: the one of `?cluster=`, the one with that node, or the only
// one.
const Known* cluster_of(const net::HttpRequest& request, const AgentState& state,
                        const std::string& node, net::HttpResponse& problem) {
  const auto named = parameter(request, "cluster");
  std::vector<const Known*> found;
  for (const auto& known : state.clusters) {
    if (named && known.cluster->name != *named) continue;
    if (!node.empty() && known.cluster->node(node) == nullptr) continue;
    found.push_back(&known);
  }
  if (found.size() == 1) return found.front();
  problem = found.empty() ? text(404, node.empty() ? "no such cluster" : "no node of that name")
                          : text(400, "more than one cluster has it: add ?cluster=NAME");
  return nullptr;
}

Json where_is(const Known& known, const std::string& name) {
  const auto* facts = known.snapshot.node(name);
  return {{"cluster", known.cluster->name},
          {"node", name},
          {"address", facts->address},
          {"port", facts->port}};
}

net::HttpResponse about_primary(const net::HttpRequest& request, const AgentState& state,
                                const std::string& node) {
  net::HttpResponse problem;
  const auto* known = cluster_of(request, state, node, problem);
  if (known == nullptr) return problem;
  const auto writable = writable_node(*known, state.now);
  if (writable.empty()) return text(503, "no primary for certain: " + known->verdict.summary);
  if (!node.empty() && node != writable) return text(503, "the primary is " + writable);
  return json_response(200, where_is(*known, writable));
}

net::HttpResponse about_replica(const net::HttpRequest& request, const AgentState& state,
                                const std::string& node) {
  net::HttpResponse problem;
  const auto* known = cluster_of(request, state, node, problem);
  if (known == nullptr) return problem;
  auto lag = known->cluster->policy.max_lag;
  if (const auto given = parameter(request, "lag")) {
    const auto bytes = parse_bytes(*given);
    if (!bytes) return text(400, "lag takes a size such as 16MiB");
    lag = *bytes;
  }
  if (!node.empty())
    return is_readable(*known, node, lag, state.now)
               ? json_response(200, where_is(*known, node))
               : text(503, fmt::format("{} is no standby that streams within {}", node,
                                       format_bytes(lag)));
  Json nodes = Json::array();
  for (const auto& one : known->cluster->nodes)
    if (is_readable(*known, one.name, lag, state.now)) nodes.push_back(where_is(*known, one.name));
  const int status = nodes.empty() ? 503 : 200;
  return json_response(status, Json{{"replicas", std::move(nodes)}});
}

net::HttpResponse about_pg(const net::HttpRequest& request, const AgentState& state) {
  const auto parts = split(std::string_view(request.path).substr(1), '/');
  if (parts.size() == 2 && parts[1] == "primary") return about_primary(request, state, {});
  if (parts.size() == 2 && parts[1] == "replica") return about_replica(request, state, {});
  // A health check whose variable is empty must not hold of every server.
  const bool has_node = parts.size() == 3 && !parts[1].empty();
  if (has_node && parts[2] == "primary") return about_primary(request, state, parts[1]);
  if (has_node && parts[2] == "replica") return about_replica(request, state, parts[1]);
  return text(404, "no such page");
}

}  // namespace

bool is_paused(const Known& known, Wall now) {
  const auto& pause = known.record.pause;
  return pause && now < pause->at + pause->span;
}

net::HttpResponse json_response(int status, const Json& json) {
  net::HttpResponse response;
  response.status = status;
  response.type = "application/json";
  response.body = dump_pretty(json) + "\n";
  return response;
}

Json status_json(const AgentState& state) {
  Json clusters = Json::array();
  for (const auto& known : state.clusters) clusters.push_back(cluster_json(known, state));
  Json guards = Json::array();
  for (const auto& guard : state.guards)
    guards.push_back({{"node", guard.node},
                      {"lease_left_ms", guard.lease_left.count()},
                      {"barred", guard.is_barred},
                      {"stopped", guard.has_stopped_it},
                      {"why", guard.why}});
  Json deployments = Json::array();
  for (const auto& known : state.deployments) deployments.push_back(redis_json(known, state));
  return {{"schema", 1},
          {"agent", state.name},
          {"region", state.region},
          {"version", state.version},
          {"started", format_utc(state.started)},
          {"coordination", state.coordination},
          {"role", name_of(state.standing.role)},
          {"leader", state.standing.leader},
          {"token", state.standing.token},
          {"cut_off_because", state.standing.why},
          {"well", state.is_well},
          {"reloads", state.reloads},
          {"reload_error", state.reload_error},
          {"events_lost", state.events_lost},
          {"state_dir_free_bytes", state.state_dir_free ? Json(*state.state_dir_free) : Json()},
          {"warnings", state.warnings},
          {"guards", std::move(guards)},
          {"pg", std::move(clusters)},
          {"redis", std::move(deployments)}};
}

net::HttpResponse answer(const net::HttpRequest& request, const AgentState& state) {
  if (request.method != "GET" && request.method != "HEAD") {
    auto response = text(405, "only GET and HEAD");
    response.headers.emplace_back("Allow", "GET, HEAD");
    return response;
  }
  const auto& path = request.path;
  if (path == "/healthz") return text(state.is_well ? 200 : 503, state.is_well ? "ok" : "stuck");
  if (path == "/readyz") {
    const auto complete = [](const auto& known) { return known.is_complete(); };
    const bool is_complete =
        std::all_of(state.clusters.begin(), state.clusters.end(), complete) &&
        std::all_of(state.deployments.begin(), state.deployments.end(), complete);
    if (state.is_stopping) return text(503, "stopping");
    if (!state.warnings.empty()) return text(503, join(state.warnings, "\n"));
    return text(is_complete && state.is_well ? 200 : 503, is_complete
                                                              ? state.is_well ? "ready" : "stuck"
                                                              : "has not looked at every cluster");
  }
  if (path == "/metrics") {
    net::HttpResponse response;
    response.type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics_text(state) + state.backup_metrics;
    return response;
  }
  if (path == "/status") return json_response(200, status_json(state));
  if (path.starts_with("/pg/")) return about_pg(request, state);
  if (path.starts_with("/redis/")) return about_redis(request, state.deployments, state.now);
  return text(
      404,
      "no such page; there are /healthz, /readyz, /metrics, /status, /pg/primary, "
      "/pg/replica, /pg/NODE/primary and /pg/NODE/replica, and the same below /redis with master "
      "for primary");
}

}  // namespace zx::agent
