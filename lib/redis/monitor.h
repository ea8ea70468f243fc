// Keeps watching one server over a connection that it holds: how it is at every interval, and at
// once when it ends the connection.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "lib/redis/facts.h"

namespace zx::redis {

class Monitor {
 public:
  struct Settings {
    Target target;
    std::string host;  // name of the host, for the facts
    Millis interval{500};
    Millis deadline{1000};
    // Called on the loop when a look has had no answer for a quarter of its deadline.
    std::function<void()> overdue = {};
  };
  // `changed` is called on the loop after every look. Its argument: something is new that cannot
  // wait for the next interval, such as the end of the connection.
  Monitor(net::Loop& loop, Settings settings, std::function<void(bool is_urgent)> changed);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // Goes on for another owner, with its connection: true when `settings` are of the same server,
  // login and deadline. The callbacks are replaced, and another interval counts from now on.
  [[nodiscard]] bool adopt(const Settings& settings, const std::function<void(bool)>& changed);

  // Does not wait for the next interval; nothing when a look is under way.
  void look_now();

  // What the newest look found. Before the first one: Failure::error, and no time. Of a server that
  // does not answer, lineage, run id and keys are those of its last answer.
  [[nodiscard]] const NodeFacts& facts() const;
  [[nodiscard]] bool has_looked() const;
  // When it last answered.
  [[nodiscard]] std::optional<Monotonic> answered_at() const;
  // When it ended the last connection, until it answers again.
  struct End {
    Monotonic at{};
    Wall wall{};
  };
  [[nodiscard]] const std::optional<End>& end() const;
  // How many looks have ended, with an answer or without.
  [[nodiscard]] std::uint64_t looks() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace zx::redis
