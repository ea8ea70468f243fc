#include "tests/sim/scheduler.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

#include "lib/os/signals.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace zx::sim {
namespace {

constexpr std::size_t kStack = 512 * 1024;

// Stacks are used again: a seed lasts milliseconds.
class Stacks {
 public:
  void* take() {
    if (!free_.empty()) {
      void* stack = free_.back();
      free_.pop_back();
      return stack;
    }
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) throw std::runtime_error("no memory for a stack");
    mprotect(stack, 4096, PROT_NONE);
    return stack;
  }
  void give(void* stack) { free_.push_back(stack); }

 private:
  std::vector<void*> free_;
};

Stacks& stacks() {
  static Stacks all;
  return all;
}

Scheduler* running = nullptr;

}  // namespace

struct Fiber::Machine {
  ucontext_t context{};
  void* stack = stacks().take();
  void* fake = nullptr;  // AddressSanitizer's
  ~Machine() { stacks().give(stack); }
};

struct Scheduler::Home {
  ucontext_t context{};
  const void* stack = nullptr;
  std::size_t size = 0;
  void* fake = nullptr;
};

Fiber::Fiber() : machine_(std::make_unique<Machine>()) {}
Fiber::~Fiber() = default;

void Fiber::enter(unsigned high, unsigned low) {
  auto* fiber = reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low);
  auto& home = *running->home_;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &home.stack, &home.size);
#endif
  try {
    if (!fiber->killed_) fiber->body_();
  } catch (const Killed&) {  // its process is gone
  }
  fiber->body_ = {};
  fiber->ended_ = true;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, home.stack, home.size);
#endif
  swapcontext(&fiber->machine_->context, &home.context);
}

Scheduler::Scheduler() : home_(std::make_unique<Home>()) {}

Scheduler::~Scheduler() {
  for (const auto& fiber : fibers_) kill(*fiber);
}

void Scheduler::at(Micros time, std::function<void()> event) {
  events_.push_back({std::max(time, now_), order_++, std::move(event)});
  std::push_heap(events_.begin(), events_.end(), later);
}

bool Scheduler::step() {
  if (events_.empty()) return false;
  std::pop_heap(events_.begin(), events_.end(), later);
  auto event = std::move(events_.back());
  events_.pop_back();
  now_ = event.time;
  event.action();
  return true;
}

std::shared_ptr<Fiber> Scheduler::spawn(std::function<void()> body) {
  std::erase_if(fibers_, [](const auto& fiber) { return fiber->ended(); });
  std::shared_ptr<Fiber> fiber(new Fiber);
  fiber->body_ = std::move(body);
  auto& context = fiber->machine_->context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber->machine_->stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  const auto address = reinterpret_cast<std::uintptr_t>(fiber.get());
  makecontext(&context, reinterpret_cast<void (*)()>(&Fiber::enter), 2,
              static_cast<unsigned>(address >> 32), static_cast<unsigned>(address));
  fibers_.push_back(fiber);
  after(0, [this, fiber] { resume(fiber, 0); });
  return fiber;
}

void Scheduler::enter(Fiber& fiber) {
  auto* before = running;
  running = this;
  current_ = &fiber;
  auto* interruption = os::exchange_interruption(fiber.interruption_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&home_->fake, fiber.machine_->stack, kStack);
#endif
  swapcontext(&home_->context, &fiber.machine_->context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(home_->fake, nullptr, nullptr);
#endif
  fiber.interruption_ = os::exchange_interruption(interruption);
  current_ = nullptr;
  running = before;
}

void Scheduler::leave() {
  auto& fiber = *current_;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.machine_->fake, home_->stack, home_->size);
#endif
  swapcontext(&fiber.machine_->context, &home_->context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.machine_->fake, &home_->stack, &home_->size);
#endif
  if (fiber.killed_) throw Killed{};
}

void Scheduler::resume(const std::shared_ptr<Fiber>& fiber, std::uint64_t wait) {
  if (fiber->ended_ || fiber->killed_ || fiber->waits_ != wait) return;
  if (now_ < fiber->paused_until_)
    return at(fiber->paused_until_, [this, fiber, wait] { resume(fiber, wait); });
  ++fiber->waits_;
  enter(*fiber);
}

void Scheduler::kill(Fiber& fiber) {
  if (fiber.ended_ || fiber.killed_) return;
  fiber.killed_ = true;
  enter(fiber);
}

std::function<void()> Scheduler::waker() {
  const auto found = std::find_if(fibers_.begin(), fibers_.end(),
                                  [&](const auto& fiber) { return fiber.get() == current_; });
  return [this, fiber = *found, wait = current_->waits_] {
    after(0, [this, fiber, wait] { resume(fiber, wait); });
  };
}

void Scheduler::wait(Micros deadline) {
  const auto wake = waker();
  at(deadline, [wake] { wake(); });
  leave();
}

void Scheduler::sleep(Micros span) { wait(now_ + std::max<Micros>(span, 0)); }

// Not from zero: a time_point of zero is taken for "never".
Monotonic VirtualClock::now() const {
  return Monotonic(std::chrono::microseconds(scheduler_.now() + 1000 * kSecond));
}

Wall VirtualClock::wall() const {
  constexpr std::chrono::seconds kBegin{1'767'225'600};  // 2026-01-01
  const auto* fiber = scheduler_.current();
  const Micros offset = fiber != nullptr && fiber->wall_offset != nullptr ? *fiber->wall_offset : 0;
  return Wall(kBegin + std::chrono::microseconds(scheduler_.now() + offset));
}

void VirtualClock::pause(Millis span) { scheduler_.sleep(span.count() * kMs); }

std::string show_time(Micros time) {
  return fmt::format("{:3}.{:06}", time / kSecond, time % kSecond);
}

}  // namespace zx::sim
