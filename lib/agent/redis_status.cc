// What an agent tells of a Redis deployment: as JSON, and to load balancers.
#include <algorithm>

#include <fmt/format.h>

#include "lib/agent/redis_watch.h"
#include "lib/base/text.h"

namespace zx::agent {
namespace {

bool answered_lately(const RedisKnown& known, std::size_t i, Monotonic now) {
  const auto& policy = known.deployment->policy;
  return known.snapshot.nodes[i].answered() && known.answered[i] &&
         now - *known.answered[i] <
             std::max(known.trust, policy.probe_interval + policy.probe_deadline);
}

net::HttpResponse text(int status, const std::string& body) {
  net::HttpResponse response;
  response.status = status;
  response.body = body + "\n";
  return response;
}

net::HttpResponse json_of(int status, const Json& json) {
  net::HttpResponse response;
  response.status = status;
  response.type = "application/json";
  response.body = dump_pretty(json) + "\n";
  return response;
}

std::optional<std::string> parameter(const net::HttpRequest& request, std::string_view name) {
  for (const auto& [key, value] : request.query)
    if (key == name) return value;
  return std::nullopt;
}

Json where_is(const RedisKnown& known, const std::string& name) {
  const auto* facts = known.snapshot.node(name);
  return {{"deployment", known.deployment->name},
          {"node", name},
          {"address", facts->address},
          {"port", facts->port}};
}

net::HttpResponse about_master(const RedisKnown& known, const std::string& node, Monotonic now) {
  const auto writable = writable_node(known, now);
  if (writable.empty()) return text(503, "no master for certain: " + known.verdict.summary);
  if (!node.empty() && node != writable) return text(503, "the master is " + writable);
  return json_of(200, where_is(known, writable));
}

net::HttpResponse about_replica(const RedisKnown& known, const std::string& node, std::uint64_t lag,
                                Monotonic now) {
  if (!node.empty())
    return is_readable(known, node, lag, now)
               ? json_of(200, where_is(known, node))
               : text(503, fmt::format("{} is no replica that is linked and within {}", node,
                                       format_bytes(lag)));
  Json nodes = Json::array();
  for (const auto& one : known.deployment->nodes)
    if (is_readable(known, one.name, lag, now)) nodes.push_back(where_is(known, one.name));
  const int status = nodes.empty() ? 503 : 200;
  return json_of(status, Json{{"replicas", std::move(nodes)}});
}

}  // namespace

std::string writable_node(const RedisKnown& known, Monotonic now) {
  std::string found;
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
    const auto& facts = known.snapshot.nodes[i];
    if (facts.role != redis::Role::master || !answered_lately(known, i, now)) continue;
    if (!found.empty()) return {};
    found = facts.name;
  }
  // One that came back empty, or was made a master by mistake, is not whom clients should write to.
  const auto& verdict = known.verdict;
  if (verdict.state == ha::RedisState::master_reborn_empty && verdict.master == found) return {};
  if (ha::is_master_by_mistake(verdict, found)) return {};
  return found;
}

bool is_readable(const RedisKnown& known, const std::string& node, std::uint64_t lag,
                 Monotonic now) {
  const redis::NodeFacts* replica = nullptr;
  std::int64_t furthest = 0;
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
    const auto& facts = known.snapshot.nodes[i];
    if (!answered_lately(known, i, now)) continue;
    if (facts.role == redis::Role::master) furthest = std::max(furthest, facts.lineage.offset);
    if (facts.name == node && facts.role == redis::Role::replica) replica = &facts;
  }
  if (replica == nullptr || !replica->is_linked() || replica->link->is_syncing) return false;
  const auto behind = furthest - replica->lineage.offset;
  return behind <= 0 || static_cast<std::uint64_t>(behind) <= lag;
}

Json deployment_json(const RedisKnown& known, Monotonic now) {
  Json nodes = Json::array();
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i) {
    auto json = redis::to_json(known.snapshot.nodes[i]);
    json["answered_ago_ms"] =
        known.answered[i]
            ? Json(std::chrono::duration_cast<Millis>(now - *known.answered[i]).count())
            : Json();
    nodes.push_back(std::move(json));
  }
  const auto writable = writable_node(known, now);
  Json json{{"deployment", known.deployment->name},
            {"verdict", known.has_judged ? Json(ha::name_of(known.verdict.state)) : Json()},
            {"master", writable.empty() ? Json() : Json(writable)},
            {"summary", known.verdict.summary},
            {"hint", known.verdict.hint},
            {"problems", known.verdict.problems},
            {"automatic", known.deployment->policy.automatic},
            {"by_sentinels", !known.deployment->sentinel.master_name.empty()},
            {"decision", ha::name_of(known.decision.act)},
            {"waits_because", known.decision.why},
            {"blocked", known.decision.is_blocked},
            {"remedy", known.decision.remedy.empty() ? Json() : Json(known.decision.remedy)},
            {"error", known.error.empty() ? Json() : Json(known.error)},
            {"at_work", known.run ? Json(*known.run) : Json()},
            {"nodes", std::move(nodes)}};
  const auto record = ha::to_json(known.record);
  for (const auto* key : {"last_failover", "pause"}) json[key] = get_object(record, key);
  return json;
}

net::HttpResponse about_redis(const net::HttpRequest& request,
                              const std::vector<RedisKnown>& deployments, Monotonic now) {
  const auto parts = split(std::string_view(request.path).substr(1), '/');
  // A health check whose variable is empty must not hold of every server.
  const bool has_node = parts.size() == 3 && !parts[1].empty();
  const auto role = has_node || parts.size() == 2 ? std::string(parts.back()) : std::string();
  if (role != "master" && role != "replica") return text(404, "no such page");
  const auto node = has_node ? std::string(parts[1]) : std::string();
  const auto named = parameter(request, "deployment");
  std::vector<const RedisKnown*> found;
  for (const auto& known : deployments) {
    if (named && known.deployment->name != *named) continue;
    if (!node.empty() && known.deployment->node(node) == nullptr) continue;
    found.push_back(&known);
  }
  if (found.empty()) return text(404, node.empty() ? "no such deployment" : "no node of that name");
  if (found.size() > 1) return text(400, "more than one deployment has it: add ?deployment=NAME");
  if (role == "master") return about_master(*found.front(), node, now);
  auto lag = found.front()->deployment->policy.max_lag;
  if (const auto given = parameter(request, "lag")) {
    const auto bytes = parse_bytes(*given);
    if (!bytes) return text(400, "lag takes a size such as 1MiB");
    lag = *bytes;
  }
  return about_replica(*found.front(), node, lag, now);
}

}  // namespace zx::agent
