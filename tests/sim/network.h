// The ways between hosts, observers, clients and the coordinator: delay, loss, partitions.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "tests/sim/random.h"
#include "tests/sim/scheduler.h"

namespace zx::sim {

using Place = int;  // a machine: a host, an observer's, a client's, the coordinator's

class Network {
 public:
  Network(Scheduler& scheduler, Random random, int places)
      : scheduler_(scheduler),
        random_(random),
        places_(places),
        cut_(static_cast<std::size_t>(places * places)),
        down_(static_cast<std::size_t>(places)) {}

  // Cuts are counted: two that overlap are healed by two heals. One way, as packets go.
  void cut(Place from, Place to) { ++at(from, to); }
  void heal(Place from, Place to) { --at(from, to); }
  void heal_all() { std::fill(cut_.begin(), cut_.end(), 0); }
  [[nodiscard]] bool passes(Place from, Place to) { return from == to || at(from, to) == 0; }
  [[nodiscard]] bool both_ways(Place a, Place b) { return passes(a, b) && passes(b, a); }
  void set_down(Place place, bool down) { down_[static_cast<std::size_t>(place)] = down; }
  [[nodiscard]] bool is_down(Place place) const { return down_[static_cast<std::size_t>(place)]; }
  [[nodiscard]] int places() const { return places_; }

  // One way now: a fraction of a millisecond to a few; a lost packet is sent again 200 ms later.
  [[nodiscard]] Micros delay(Place from, Place to);
  void set_loss(int percent) { loss_ = percent; }

  // Of an open connection: what is sent while the way is cut arrives when it is healed, for as long
  // as a kernel sends it again. Lost when `to` is down by then.
  void send(Place from, Place to, std::function<void()> arrive);

 private:
  int& at(Place from, Place to) { return cut_[static_cast<std::size_t>(from * places_ + to)]; }
  void deliver(Place from, Place to, Micros give_up, std::function<void()> arrive);
  Scheduler& scheduler_;
  Random random_;
  int places_;
  std::vector<int> cut_;
  std::vector<bool> down_;
  int loss_ = 0;
};

// What a fiber waits for. Shared with the events that bring it: it may be dead by then.
template <class T>
struct Pending {
  std::optional<T> value;
  std::function<void()> wake;
  void set(T result) {
    if (value) return;
    value = std::move(result);
    if (wake) wake();
  }
};

// Waits until all of them are there, or until `deadline`.
template <class T>
void await_all(Scheduler& scheduler, const std::vector<std::shared_ptr<Pending<T>>>& all,
               Micros deadline) {
  while (scheduler.now() < deadline) {
    bool open = false;
    for (const auto& one : all) {
      if (one->value) continue;
      open = true;
      one->wake = scheduler.waker();
    }
    if (!open) return;
    scheduler.wait(deadline);
  }
}

}  // namespace zx::sim
