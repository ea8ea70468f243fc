#include "tests/sim/network.h"

namespace zx::sim {
namespace {

constexpr Micros kSentAgain = 200 * kMs;
constexpr Micros kKernelGivesUp = 20 * kSecond;

}  // namespace

Micros Network::delay(Place from, Place to) {
  if (from == to) return 50;
  const auto base = random_.between(200, 3000);
  return loss_ > 0 && random_.percent(loss_) ? base + kSentAgain : base;
}

void Network::send(Place from, Place to, std::function<void()> arrive) {
  deliver(from, to, scheduler_.now() + kKernelGivesUp, std::move(arrive));
}

void Network::deliver(Place from, Place to, Micros give_up, std::function<void()> arrive) {
  scheduler_.after(delay(from, to), [this, from, to, give_up,
                                     arrive = std::move(arrive)]() mutable {
    if (is_down(to) || scheduler_.now() > give_up) return;
    if (passes(from, to)) return arrive();
    scheduler_.after(kSentAgain, [this, from, to, give_up, arrive = std::move(arrive)]() mutable {
      deliver(from, to, give_up, std::move(arrive));
    });
  });
}

}  // namespace zx::sim
