// etcd 3.4 through its JSON gateway (/v3). Reads are linearizable, and an answer that is older than
// what was seen before is refused.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/base/json.h"
#include "lib/net/http_client.h"

namespace zx::coord {

struct EtcdOptions {
  std::vector<std::string> endpoints;  // "http://10.1.0.5:2379"
  std::string username;                // empty: without authentication
  std::string password;
  std::string ca_file;  // of https endpoints; empty: the system's
  std::string cert_file;
  std::string key_file;
};

// Code::config when they cannot work.
[[nodiscard]] Status check_etcd_options(const EtcdOptions& options, Millis ttl);

struct EtcdKey {
  std::string key;
  std::string value;
  std::int64_t create_revision = 0;
  std::int64_t mod_revision = 0;
  std::int64_t lease = 0;
};

// What the gateway says and wants to hear.
[[nodiscard]] std::string to_base64(std::string_view bytes);
[[nodiscard]] Result<std::string> from_base64(std::string_view text);
// A number as the gateway writes it: a string, or left out when 0.
[[nodiscard]] std::int64_t etcd_int(const Json& json, const char* key);
// The body of an answer. An error in any of its shapes is an Error: auth, not_found (a lease),
// disk_full (NOSPACE), unreachable, timeout, server. Retryable: another member may do better.
[[nodiscard]] Result<Json> read_etcd_answer(int status, std::string_view body);

[[nodiscard]] Json etcd_put(const std::string& key, const std::string& value,
                            std::int64_t lease = 0);
[[nodiscard]] Json etcd_range(const std::string& key);
[[nodiscard]] Json etcd_range_under(const std::string& prefix);
[[nodiscard]] Json etcd_delete(const std::string& key);
// Conditions of a transaction; a revision of 0 says that there is no such key.
[[nodiscard]] Json etcd_created_at(const std::string& key, std::int64_t revision);
[[nodiscard]] Json etcd_exists(const std::string& key);
[[nodiscard]] Json etcd_modified_at(const std::string& key, std::int64_t revision);
[[nodiscard]] Json etcd_has_value(const std::string& key, const std::string& value);

struct EtcdTxn {
  Json compare = Json::array();
  Json success = Json::array();
  Json failure = Json::array();
};
struct EtcdTxnResult {
  bool succeeded = false;
  std::int64_t revision = 0;
  std::vector<std::vector<EtcdKey>> ranges;  // of the range operations of the branch, in order
};
[[nodiscard]] Result<EtcdTxnResult> read_txn(const Json& answer);

// The newest that was seen of a cluster. Shared by all clients that must agree on it; thread-safe.
class EtcdSeen {
 public:
  struct Header {
    std::string cluster;
    std::int64_t revision = 0;
    std::int64_t term = 0;
  };
  // Take it before a request is sent: what is seen while it is under way is no measure for it.
  [[nodiscard]] Header newest() const;
  // Code::unreachable, retryable, when the answer is of another cluster than `before`, or, if it is
  // linearizable, older.
  [[nodiscard]] Status accept(const Header& before, const Json& answer, bool is_linearizable);

 private:
  mutable std::mutex mutex_;
  Header newest_;
};

// For one thread at a time. Endpoints are tried in turn, the last good one first; each gets its
// share of the time.
class EtcdClient {
 public:
  EtcdClient(EtcdOptions options, std::shared_ptr<EtcdSeen> seen);

  struct Granted {
    std::int64_t id = 0;
    Millis ttl{0};
  };
  // `ttl` in whole seconds, rounded up.
  [[nodiscard]] Result<Granted> grant(Millis ttl, Deadline deadline);
  // The time it has again; Code::not_found when there is no such lease any more.
  [[nodiscard]] Result<Millis> keep_alive(std::int64_t lease, Deadline deadline);
  // Not an error when it has gone.
  [[nodiscard]] Status revoke(std::int64_t lease, Deadline deadline);
  // `may_repeat`: applied twice it does what it does once. Otherwise it is not sent to a second
  // endpoint when the first may have applied it.
  [[nodiscard]] Result<EtcdTxnResult> txn(const EtcdTxn& txn, Deadline deadline, bool may_repeat);
  // The keys of one range.
  [[nodiscard]] Result<std::vector<EtcdKey>> range(const Json& range, Deadline deadline);
  // Forgets history before `revision`.
  [[nodiscard]] Status compact(std::int64_t revision, Deadline deadline);

 private:
  enum class Kind { linearizable, other };
  [[nodiscard]] Result<Json> call(const std::string& path, const Json& body, Kind kind,
                                  Deadline deadline, bool may_repeat);
  [[nodiscard]] Result<Json> call_one(const std::string& endpoint, const std::string& path,
                                      const Json& body, Deadline deadline);
  [[nodiscard]] Result<Json> post(const std::string& endpoint, const std::string& path,
                                  const Json& body, Deadline deadline);
  [[nodiscard]] Status authenticate(const std::string& endpoint, Deadline deadline);

  EtcdOptions options_;
  std::shared_ptr<EtcdSeen> seen_;
  net::HttpClient http_;
  std::string token_;
  bool is_open_ = false;  // the cluster asks for no authentication
};

}  // namespace zx::coord
