#include "tests/sim/coordinator.h"

namespace zx::sim {
namespace {

constexpr Micros kPatience = 600 * kMs;

}  // namespace

std::optional<Leases::Held> Leases::take(Place from, int holder, std::int64_t token) {
  const auto asked = scheduler_.now();
  auto pending = std::make_shared<Pending<std::int64_t>>();
  if (!network_.is_down(place_) && network_.both_ways(from, place_))
    network_.send(from, place_, [this, from, holder, token, pending] {
      const bool runs = holder_ >= 0 && scheduler_.now() < until_;
      std::int64_t granted = 0;
      if (token > 0) {
        if (runs && holder_ == holder && token_ == token) granted = token;
      } else if (!runs || holder_ == holder) {  // one that restarted takes its own again
        granted = ++token_;
      }
      if (granted > 0) {
        holder_ = holder;
        until_ = scheduler_.now() + kTtl;
      }
      network_.send(place_, from, [pending, granted] { pending->set(granted); });
    });
  await_all<std::int64_t>(scheduler_, {pending}, asked + kPatience);
  if (pending->value.value_or(0) == 0) return std::nullopt;
  return Held{*pending->value, asked + kTtl};
}

Status ModelLease::check() {
  if (never_lost_) return {};
  if (const auto renewed = leases_.take(place_, holder_, held_.token)) held_ = *renewed;
  if (scheduler_.now() < held_.until) return {};
  return fail(Code::locked, "the lease has run out");
}

}  // namespace zx::sim
