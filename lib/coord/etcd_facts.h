// Private to this room: what agents share in etcd beside their standing. Thread-safe; the calls
// wait for etcd, and for each other. See Coordinator for what they promise.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "lib/coord/coordinator.h"
#include "lib/coord/etcd_client.h"

namespace zx::coord {

class EtcdFacts {
 public:
  EtcdFacts(EtcdClient client, std::string prefix, Millis patience)
      : prefix_(std::move(prefix)), patience_(patience), client_(std::move(client)) {}

  [[nodiscard]] Result<Value> get(const std::string& key);
  [[nodiscard]] Status put(const std::string& key, const std::string& text, std::int64_t version);
  [[nodiscard]] Result<GuardState> guard(const std::string& node);
  // Only while the agent of this token leads.
  [[nodiscard]] Status bar(const std::string& node, std::int64_t token);
  [[nodiscard]] Status unbar(const std::string& node);

 private:
  // When a guard was seen gone, of which registration.
  struct Gone {
    std::int64_t registered = 0;
    Millis at{0};
  };

  const std::string prefix_;
  const Millis patience_;
  std::mutex mutex_;
  EtcdClient client_;
  std::map<std::string, Gone> gone_;  // by node
};

}  // namespace zx::coord
