// Virtual time: a queue of events, and fibers that wait in it. One thread; what happens at the same
// microsecond happens in the order in which it was asked for, so that a seed repeats.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/clock.h"

namespace zx::sim {

using Micros = std::int64_t;  // virtual time since the beginning, and spans of it
constexpr Micros kMs = 1000;
constexpr Micros kSecond = 1'000'000;

// Thrown through a fiber whose process is killed. Not a std::exception: nothing may keep it.
struct Killed {};

class Scheduler;

// A process of the simulation: code of zx that runs until it waits.
class Fiber {
 public:
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  [[nodiscard]] bool ended() const { return ended_; }
  // It goes on no earlier: SIGSTOP, then SIGCONT.
  void pause_until(Micros at) { paused_until_ = std::max(paused_until_, at); }
  // Of the machine it runs on; added to the wall clock that it reads.
  const Micros* wall_offset = nullptr;

 private:
  friend class Scheduler;
  struct Machine;
  Fiber();
  static void enter(unsigned high, unsigned low);
  std::unique_ptr<Machine> machine_;
  std::function<void()> body_;
  bool ended_ = false, killed_ = false;
  const std::function<bool()>* interruption_ = nullptr;  // while it waits; lib/os/signals.h
  std::uint64_t waits_ = 0;  // how often it has waited: a wake-up of an earlier wait is void
  Micros paused_until_ = 0;
};

class Scheduler {
 public:
  Scheduler();
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  [[nodiscard]] Micros now() const { return now_; }
  void at(Micros time, std::function<void()> event);
  void after(Micros span, std::function<void()> event) { at(now_ + span, std::move(event)); }
  // The next event; false when there is none.
  bool step();

  std::shared_ptr<Fiber> spawn(std::function<void()> body);
  // Ends it where it waits. Not to be called from a fiber.
  void kill(Fiber& fiber);
  // The fiber that runs now; null in an event.
  [[nodiscard]] Fiber* current() const { return current_; }

  // --- from a fiber --------------------------------------------------------------------------
  void sleep(Micros span);
  // Waits until waker() is called, or until `deadline`.
  void wait(Micros deadline);
  // Ends the wait that follows next, whoever calls it and whenever, once.
  [[nodiscard]] std::function<void()> waker();

 private:
  friend class Fiber;
  struct Event {
    Micros time;
    std::uint64_t order;
    std::function<void()> action;
  };
  static bool later(const Event& a, const Event& b) {
    return a.time != b.time ? a.time > b.time : a.order > b.order;
  }
  void resume(const std::shared_ptr<Fiber>& fiber, std::uint64_t wait);
  void enter(Fiber& fiber);
  void leave();

  Micros now_ = 0;
  std::uint64_t order_ = 0;
  std::vector<Event> events_;  // a heap
  std::vector<std::shared_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  struct Home;
  std::unique_ptr<Home> home_;
};

// The clock that zx reads while a simulation runs.
class VirtualClock final : public Clock {
 public:
  explicit VirtualClock(Scheduler& scheduler) : scheduler_(scheduler) {}
  [[nodiscard]] Monotonic now() const override;
  [[nodiscard]] Wall wall() const override;
  void pause(Millis span) override;
  [[nodiscard]] bool is_virtual() const override { return true; }

 private:
  Scheduler& scheduler_;
};

// "12.345678": seconds of virtual time.
[[nodiscard]] std::string show_time(Micros time);

}  // namespace zx::sim
