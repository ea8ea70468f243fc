// What happened, when: a table of events in SQLite, for people and for measuring.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/clock.h"
#include "lib/base/json.h"

namespace zx::store {

struct Event {
  Wall at{};
  std::string cluster;
  // "detected", "confirmed", "decided", "frozen", "fenced", "promoted", "first_write", "repointed",
  // "rejoined", "recovered", "superseded", "unproved"; "failed", "gave_way", "blocked"; "leads",
  // "follows", "lost_lead", "cut_off"; "commits_hang", "commits_flow"; "self_fenced"; "started",
  // "stopped", "reloaded", "paused", "resumed", "acknowledged".
  std::string kind;
  std::string node, run, text;
  std::optional<Millis> took;
};
[[nodiscard]] Json to_json(const Event& event);
// The other way; the values that are missing stay empty.
[[nodiscard]] Event event_from_json(const Json& json);

// One thread at a time; several processes may have the same file open.
class Events {
 public:
  // Makes the file, mode 0600, and its directory. Code::io with SQLite's words.
  [[nodiscard]] static Result<std::unique_ptr<Events>> open(const std::string& path);
  // Null when there is no such file.
  [[nodiscard]] static Result<std::unique_ptr<Events>> open_existing(const std::string& path);
  ~Events();
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Keeps the newest kMost.
  [[nodiscard]] Status add(const Event& event);
  // The newest `most`, oldest of them first; of one cluster, or of all when it is empty.
  [[nodiscard]] Result<std::vector<Event>> newest(std::size_t most,
                                                  const std::string& cluster = {}) const;
  static constexpr std::int64_t kMost = 100'000;

 private:
  struct Impl;
  explicit Events(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::store
