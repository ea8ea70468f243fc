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
  // A key of our own, by which we may act as long as it is the one that was created then.
  struct Right {
    std::string key;
    std::int64_t created = 0;
    std::string lost;  // what it means when it is not
  };
  [[nodiscard]] Status bar(const std::string& node, const Right& right);
  [[nodiscard]] Status unbar(const std::string& node);
  // The guards' keys as they were just read: the sooner a renewal is seen, the sooner its end is
  // known. Never waits.
  void note_guards(const std::vector<EtcdKey>& keys);

 private:
  // The last renewal of a guard that was seen, or that its key has gone.
  struct Renewal {
    std::int64_t revision = 0;  // of the key; when it has gone, of the registration
    bool is_gone = false;
    Millis at{0};          // when it was seen first
    bool is_last = false;  // barred since by us: the key can only go
    [[nodiscard]] bool is_same(const Renewal& other) const {
      return revision == other.revision && is_gone == other.is_gone;
    }
  };
  Renewal note(const std::string& node, Renewal now);

  const std::string prefix_;
  const Millis patience_;
  std::mutex mutex_;
  EtcdClient client_;

  std::mutex seen_mutex_;
  std::map<std::string, Renewal> seen_;  // by node
};

}  // namespace zx::coord
