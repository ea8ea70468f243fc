// Answers of the hosts about a silent server: asked for on a thread of its own as soon as the
// server is overdue, so that whoever has to decide about it finds them there.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/units.h"

namespace zx::agent {

// Hosts are asked by a connection and a process each: a server that is merely slow must not cause
// that again and again.
inline constexpr Millis kInquireEvery{10'000};

// For any thread. Inquiry: ha::Inquiry, ha::RedisInquiry.
template <class Inquiry>
class Inquirer {
 public:
  // Nothing while an inquiry is under way, nor within kInquireEvery of one about the same node.
  void begin(const std::string& node, std::function<Inquiry()> ask) {
    const std::lock_guard lock(mutex_);
    const auto now = system_clock().now();
    if (!under_way_.empty() || (last_ && last_->node == node && now - began_ < kInquireEvery))
      return;
    log::debug(node + " takes long to answer, its hosts are asked");
    began_ = now;
    under_way_ = node;
    end();  // the thread of the one before, which has answered
    thread_ = std::thread([this, ask = std::move(ask)] {
      auto found = ask();
      const std::lock_guard done(mutex_);
      last_ = std::move(found);
      log::debug(fmt::format("the hosts were asked about {} in {}", last_->node,
                             format_duration(since(last_->began))));
      under_way_.clear();
      ended_.notify_all();
    });
  }

  // The last one, if it is about that node; waits for one that is under way.
  [[nodiscard]] std::optional<Inquiry> about(const std::string& node) {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return under_way_ != node; });
    return last_ && last_->node == node ? last_ : std::nullopt;
  }

  // Before what `ask` uses goes, and when nobody begins another: waits for one that is under way.
  void end() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  std::thread thread_;
  std::string under_way_;  // about which node
  Monotonic began_{};
  std::optional<Inquiry> last_;
};

// Known: Known, RedisKnown. Every node of it has been looked at.
template <class Known>
[[nodiscard]] bool has_all_looks(const Known& known) {
  return std::all_of(known.snapshot.nodes.begin(), known.snapshot.nodes.end(),
                     [](const auto& facts) { return facts.at != Wall{}; });
}

template <class Known>
[[nodiscard]] bool has_answered_since(const Known& known, const std::string& node, Monotonic when) {
  for (std::size_t i = 0; i < known.snapshot.nodes.size(); ++i)
    if (known.snapshot.nodes[i].name == node && known.answered[i] && *known.answered[i] >= when)
      return true;
  return false;
}

}  // namespace zx::agent
