#include "lib/agent/control.h"
#include "lib/agent/status.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fmt/format.h>

#include "lib/agent/agent.h"
#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/coord/etcd_shared.h"
#include "lib/ha/pg_told.h"
#include "lib/ha/redis_watch.h"
#include "lib/net/http_client.h"
#include "lib/os/files.h"

namespace zx::agent {
namespace {

constexpr Millis kAnswerWithin{15'000};
constexpr Millis kOtherAnswersWithin{1000};
constexpr std::size_t kEventsByDefault = 50;

net::HttpResponse refuse(const Error& error) {
  return json_response(error.code == Code::usage ? 400 : 409, Json{{"error", to_json(error)}});
}

// What a request names, or all that is watched, by the names of their records: a cluster's own, and
// "redis.NAME" of a deployment.
Result<std::vector<std::string>> clusters_of(const ControlMeans& means, const Json& body) {
  std::vector<std::string> names;
  for (const auto& cluster : means.config->pg) names.push_back(cluster.name);
  for (const auto& deployment : means.config->redis) names.push_back(ha::record_of(deployment));
  const auto named = get_string(body, "cluster");
  if (named.empty()) return names;
  if (std::find(names.begin(), names.end(), named) == names.end())
    return fail(Code::usage, fmt::format("no cluster named \"{}\"", first_line(named)),
                names.empty() ? "" : "clusters: " + join(names, ", "));
  return std::vector<std::string>{named};
}

void note(const ControlMeans& means, const std::string& cluster, std::string kind, std::string text,
          std::string run = {}) {
  means.record(
      {system_clock().wall(), cluster, std::move(kind), {}, std::move(run), std::move(text), {}});
}

Result<Json> pause(const ControlMeans& means, const Json& body) {
  ZX_ASSIGN(const auto clusters, clusters_of(means, body));
  const Millis span(get_int(body, "for_ms"));
  if (span.count() <= 0 || span > ha::kLongestPause)
    return fail(Code::usage, "a pause takes from 1 ms to " + format_duration(ha::kLongestPause));
  const ha::WatchRecord::Pause pause{random_hex(8), system_clock().wall(), span,
                                     first_line(get_string(body, "why"))};
  for (const auto& cluster : clusters) {
    ZX_TRY(ha::change_record(*means.coordinator, cluster,
                             [&](ha::WatchRecord& record) { record.pause = pause; }));
    note(
        means, cluster, "paused",
        fmt::format("for {}{}{}", format_duration(span), pause.why.empty() ? "" : ": ", pause.why));
  }
  return Json{{"clusters", clusters}, {"until", format_utc(pause.at + span)}};
}

Result<Json> resume(const ControlMeans& means, const Json& body) {
  ZX_ASSIGN(const auto clusters, clusters_of(means, body));
  std::vector<std::string> resumed;
  for (const auto& cluster : clusters) {
    bool was_paused = false;
    ZX_TRY(ha::change_record(*means.coordinator, cluster, [&](ha::WatchRecord& record) {
      was_paused = record.pause && system_clock().wall() < record.pause->at + record.pause->span;
      record.pause.reset();
    }));
    if (!was_paused) continue;
    resumed.push_back(cluster);
    note(means, cluster, "resumed", "");
  }
  return Json{{"clusters", resumed}};
}

Result<Json> acknowledge(const ControlMeans& means, const Json& body) {
  ZX_ASSIGN(const auto clusters, clusters_of(means, body));
  Json acknowledged = Json::array();
  for (const auto& cluster : clusters) {
    std::optional<ha::WatchRecord::Failover> last;
    ZX_TRY(ha::change_record(*means.coordinator, cluster, [&](ha::WatchRecord& record) {
      last.reset();
      if (!record.last || record.last->is_acknowledged) return;
      record.last->is_acknowledged = true;
      last = record.last;
    }));
    if (!last) continue;
    note(means, cluster, "acknowledged", last->from + " to " + last->to, last->run);
    acknowledged.push_back({{"cluster", cluster},
                            {"run", last->run},
                            {"from", last->from},
                            {"to", last->to},
                            {"at", format_utc(last->at)}});
  }
  return Json{{"acknowledged", std::move(acknowledged)}};
}

Result<Json> events(const net::HttpRequest& request, const ControlMeans& means) {
  std::size_t most = kEventsByDefault;
  std::string cluster;
  for (const auto& [key, value] : request.query) {
    if (key == "cluster") cluster = value;
    if (key == "limit") most = static_cast<std::size_t>(std::max(1L, std::atol(value.c_str())));
  }
  ZX_ASSIGN(const auto found, means.newest(most, cluster));
  Json list = Json::array();
  for (const auto& event : found) list.push_back(to_json(event));
  return Json{{"events", std::move(list)}};
}

Result<Json> change(const net::HttpRequest& request, const ControlMeans& means) {
  const auto text = request.body.empty() ? std::string_view("{}") : request.body;
  const auto body = parse_json(text, "the request");
  if (!body) return fail(Code::usage, body.error().message);
  if (request.path == "/pause") return pause(means, *body);
  if (request.path == "/resume") return resume(means, *body);
  if (request.path == "/ack") return acknowledge(means, *body);
  if (request.path == "/reload") {
    const auto path = means.config->path;  // reloading puts another configuration in its place
    ZX_TRY(means.reload());
    return Json{{"reloaded", path}};
  }
  return fail(Code::usage, "no such request: POST " + first_line(request.path));
}

}  // namespace

namespace {

// Of the others that listen here the first that answers; a killed one leaves its socket.
std::string other_agent(const std::string& sockets) {
  std::error_code unreadable;
  net::HttpClient client;
  for (const auto& entry : std::filesystem::directory_iterator(sockets, unreadable)) {
    if (entry.path().extension() != ".sock") continue;
    net::HttpFetch fetch;
    fetch.url = "http://localhost/healthz";
    fetch.unix_socket = entry.path().string();
    fetch.timeout = kOtherAnswersWithin;
    if (client.fetch(fetch)) return entry.path().stem().string();
  }
  return {};
}

Error no_agent(const config::Config& config) {
  const auto socket = control_socket(config);
  if (::access(socket.c_str(), R_OK | W_OK) != 0 && errno == EACCES)
    return {Code::auth,
            "no permission to speak with the agent by " + socket,
            "do it as root, or as the user that the agent runs as",
            {},
            false};
  Error error{Code::unreachable,
              fmt::format("no agent named {} runs on this host", name_of(config)),
              "start it: zx agent run",
              {},
              false};
  if (const auto other = other_agent(os::parent_of(socket)); !other.empty())
    error.hint = fmt::format(
        "one named {0} does: restart it, if agent.name was changed since; until then "
        "ZX__AGENT__NAME={0} zx agent status",
        other);
  return error;
}

}  // namespace

Result<std::unique_ptr<coord::Coordinator>> make_coordinator(const config::Config& config,
                                                             const std::string& name) {
  const auto& agent = config.agent;
  if (agent.coordination != "etcd") return coord::file_coordinator(config.platform.state_dir, name);
  coord::EtcdCoordinatorOptions options;
  ZX_ASSIGN(options.etcd, coord::etcd_options(config));
  options.prefix = coord::etcd_prefix(config);
  options.name = name;
  options.region = agent.region;
  options.ttl = agent.lease;
  const auto is_automatic = [](const auto& one) { return one.policy.automatic; };
  options.is_candidate = std::any_of(config.pg.begin(), config.pg.end(), is_automatic) ||
                         std::any_of(config.redis.begin(), config.redis.end(), is_automatic);
  return coord::etcd_coordinator(std::move(options));
}

net::HttpResponse answer_control(const net::HttpRequest& request, const ControlMeans& means) {
  if (request.method == "GET" && request.path == "/events") {
    const auto found = events(request, means);
    return found ? json_response(200, *found) : refuse(found.error());
  }
  if (request.method != "POST") return answer(request, means.state());
  const auto done = change(request, means);
  return done ? json_response(200, *done) : refuse(done.error());
}

Result<Json> ask_agent(const config::Config& config, const std::string& method,
                       const std::string& path, const Json& body) {
  net::HttpFetch fetch;
  fetch.method = method;
  fetch.url = "http://localhost" + path;
  fetch.unix_socket = control_socket(config);
  fetch.timeout = kAnswerWithin;
  if (!body.is_null()) fetch.body = dump_line(body);
  net::HttpClient client;
  const auto answer = client.fetch(fetch);
  if (!answer && answer.error().code == Code::unreachable) return fail(no_agent(config));
  if (!answer) return fail(answer.error());
  ZX_ASSIGN(auto json, parse_json(answer->body, "the agent's answer"));
  if (const auto& error = get_object(json, "error"); error.is_object())
    return fail(error_from_json(error));
  if (answer->status >= 300)
    return fail(Code::failed, fmt::format("the agent answers with status {}", answer->status));
  return json;
}

}  // namespace zx::agent
