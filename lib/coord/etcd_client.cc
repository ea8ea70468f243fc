#include "lib/coord/etcd_client.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/text.h"

namespace zx::coord {
namespace {

constexpr Millis kConnect{2'000};
constexpr std::size_t kMostAnswer = 16u << 20;

// The first endpoint gets half of what is left as long as there is another one.
Deadline share_of(Deadline deadline, bool is_last) {
  return is_last ? deadline : deadline.at_most(deadline.left() / 2);
}

}  // namespace

Status check_etcd_options(const EtcdOptions& options, Millis ttl) {
  if (options.endpoints.empty()) return fail(Code::config, "no endpoint of etcd is named");
  for (const auto& endpoint : options.endpoints)
    if (!endpoint.starts_with("http://") && !endpoint.starts_with("https://"))
      return fail(Code::config, "not an endpoint of etcd: \"" + endpoint + "\"",
                  "a URL such as http://10.1.0.5:2379");
  if (options.cert_file.empty() != options.key_file.empty())
    return fail(Code::config, "a client certificate of etcd needs both its file and its key");
  if (ttl < Millis(2'000) || ttl.count() % 1'000 != 0)
    return fail(Code::config, "the ttl of a lease in etcd must be whole seconds, at least 2");
  return {};
}

EtcdSeen::Header EtcdSeen::newest() const {
  const std::scoped_lock guard(mutex_);
  return newest_;
}

Status EtcdSeen::accept(const Header& before, const Json& answer, bool is_linearizable) {
  const auto& json = get_object(answer, "header");
  const Header header{get_string(json, "cluster_id"), etcd_int(json, "revision"),
                      etcd_int(json, "raft_term")};
  const auto refuse = [](std::string message) {
    return fail(Error{Code::unreachable,
                      std::move(message),
                      "if etcd was restored or set up anew, restart this process",
                      {},
                      true});
  };
  if (header.cluster.empty() || header.revision < 1) return refuse("an answer without a header");
  if (!before.cluster.empty() && header.cluster != before.cluster)
    return refuse(
        fmt::format("another etcd cluster answers: {}, not {}", header.cluster, before.cluster));
  if (!is_linearizable) return {};
  if (header.revision < before.revision || header.term < before.term)
    return refuse(
        fmt::format("this member of etcd answers with older data: revision {} after {}, term {} "
                    "after {}",
                    header.revision, before.revision, header.term, before.term));
  const std::scoped_lock guard(mutex_);
  newest_.cluster = header.cluster;
  newest_.revision = std::max(newest_.revision, header.revision);
  newest_.term = std::max(newest_.term, header.term);
  return {};
}

EtcdClient::EtcdClient(EtcdOptions options, std::shared_ptr<EtcdSeen> seen)
    : options_(std::move(options)), seen_(std::move(seen)) {}

Result<EtcdClient::Granted> EtcdClient::grant(Millis ttl, Deadline deadline) {
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(ttl).count();
  // Twice makes a second lease that nobody keeps.
  ZX_ASSIGN(const auto answer,
            call("lease/grant", {{"TTL", std::to_string(seconds)}}, Kind::other, deadline, true));
  const Granted granted{etcd_int(answer, "ID"), std::chrono::seconds(etcd_int(answer, "TTL"))};
  if (granted.id == 0 || granted.ttl < ttl)
    return fail(Code::server, "etcd: a lease was granted without its id or time");
  return granted;
}

Result<Millis> EtcdClient::keep_alive(std::int64_t lease, Deadline deadline) {
  ZX_ASSIGN(const auto answer,
            call("lease/keepalive", {{"ID", std::to_string(lease)}}, Kind::other, deadline, true));
  if (etcd_int(answer, "ID") != lease) return fail(Code::server, "etcd: kept another lease alive");
  const Millis ttl = std::chrono::seconds(etcd_int(answer, "TTL"));
  if (ttl.count() <= 0) return fail(Code::not_found, "the lease in etcd has run out");
  return ttl;
}

Status EtcdClient::revoke(std::int64_t lease, Deadline deadline) {
  const auto answer =
      call("lease/revoke", {{"ID", std::to_string(lease)}}, Kind::other, deadline, true);
  if (!answer && answer.error().code != Code::not_found) return fail(answer.error());
  return {};
}

Result<EtcdTxnResult> EtcdClient::txn(const EtcdTxn& txn, Deadline deadline, bool may_repeat) {
  ZX_ASSIGN(
      const auto answer,
      call("kv/txn", {{"compare", txn.compare}, {"success", txn.success}, {"failure", txn.failure}},
           Kind::linearizable, deadline, may_repeat));
  return read_txn(answer);
}

Result<std::vector<EtcdKey>> EtcdClient::range(const Json& range, Deadline deadline) {
  EtcdTxn read;
  read.success = Json::array({range});
  ZX_ASSIGN(auto result, txn(read, deadline, true));
  if (result.ranges.size() != 1) return fail(Code::server, "etcd: an answer without its range");
  return std::move(result.ranges.front());
}

Status EtcdClient::compact(std::int64_t revision, Deadline deadline) {
  ZX_TRY(
      call("kv/compaction", {{"revision", std::to_string(revision)}}, Kind::other, deadline, true));
  return {};
}

Result<Json> EtcdClient::call(const std::string& path, const Json& body, Kind kind,
                              Deadline deadline, bool may_repeat) {
  Error last{Code::config, "no endpoint of etcd is named", {}, {}, false};
  const auto endpoints = options_.endpoints;
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    if (i > 0 && deadline.passed()) break;
    const auto before = seen_->newest();
    auto answer = call_one(endpoints[i], path, body, share_of(deadline, i + 1 == endpoints.size()));
    if (answer) {
      const auto accepted = seen_->accept(before, *answer, kind == Kind::linearizable);
      if (accepted) return answer;
      answer = fail(accepted.error());
      answer.error().message = endpoints[i] + ": " + answer.error().message;
    }
    last = std::move(answer).error();
    if (!last.retryable) break;
    // Next time this one comes last.
    auto& order = options_.endpoints;
    std::rotate(order.begin(), order.begin() + 1, order.end());
    if (!may_repeat) break;
  }
  return fail(last);
}

Result<Json> EtcdClient::call_one(const std::string& endpoint, const std::string& path,
                                  const Json& body, Deadline deadline) {
  if (!options_.username.empty() && token_.empty() && !is_open_)
    ZX_TRY(authenticate(endpoint, deadline));
  auto answer = post(endpoint, path, body, deadline);
  const bool is_told_so = !answer && answer.error().code == Code::auth && !answer.error().retryable;
  if (!is_told_so || options_.username.empty()) return answer;
  // The token has expired, the member does not know it any more, or authentication is on now.
  is_open_ = false;
  ZX_TRY(authenticate(endpoint, deadline));
  return post(endpoint, path, body, deadline);
}

Status EtcdClient::authenticate(const std::string& endpoint, Deadline deadline) {
  token_.clear();
  const auto answer =
      post(endpoint, "auth/authenticate",
           {{"name", options_.username}, {"password", options_.password}}, deadline);
  if (answer) {
    token_ = get_string(*answer, "token");
    if (token_.empty()) return fail(Code::server, endpoint + ": authenticated without a token");
    return {};
  }
  is_open_ = answer.error().code == Code::refused;  // authentication is not enabled
  if (is_open_) return {};
  return fail(answer.error());
}

Result<Json> EtcdClient::post(const std::string& endpoint, const std::string& path,
                              const Json& body, Deadline deadline) {
  if (deadline.passed()) return fail(Code::timeout, endpoint + ": no time is left to ask it");
  net::HttpFetch request;
  request.method = "POST";
  request.url = endpoint + (endpoint.ends_with('/') ? "v3/" : "/v3/") + path;
  request.headers = {{"Content-Type", "application/json"}};
  if (!token_.empty()) request.headers.emplace_back("Authorization", token_);
  request.body = dump_line(body);
  request.timeout = deadline.left();
  request.connect_timeout = std::min(kConnect, request.timeout);
  request.ca_file = options_.ca_file;
  request.cert_file = options_.cert_file;
  request.key_file = options_.key_file;
  request.response_limit = kMostAnswer;
  const auto fetched = http_.fetch(request);
  if (!fetched) {
    auto error = fetched.error();
    error.retryable = true;  // whatever is wrong with this endpoint
    return fail(error);
  }
  auto answer = read_etcd_answer(fetched->status, fetched->body);
  if (!answer) return fail_while(answer.error(), "asking " + endpoint);
  return answer;
}

}  // namespace zx::coord
