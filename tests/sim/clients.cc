#include "tests/sim/clients.h"

namespace zx::sim {
namespace {

constexpr Micros kPatience = 900 * kMs;

}  // namespace

void Clients::begin(Place place) {
  clients_.push_back({place, 0, 0});
  write(clients_.size() - 1);
}

void Clients::write(std::size_t number) {
  auto& client = clients_[number];
  const auto attempt = ++client.attempt;
  auto& node = cluster_.nodes[static_cast<std::size_t>(client.node)];
  scheduler_.after(kPatience, [this, number, attempt] { answered(number, attempt, false); });
  const Place here = client.place;
  if (network_.is_down(node.index) || !network_.both_ways(here, node.index)) return;
  const auto reply = [this, number, attempt, here, &node](bool done) {
    network_.send(node.index, here,
                  [this, number, attempt, done] { answered(number, attempt, done); });
  };
  network_.send(here, node.index, [this, &node, reply] {
    if (node.process == Process::down) return reply(false);
    cluster_.when_awake(node, [this, &node, reply] {
      if (!node.accepts_writes()) return reply(false);
      cluster_.write(node, ++commits_, [reply] { reply(true); });
    });
  });
}

void Clients::answered(std::size_t number, std::uint64_t attempt, bool done) {
  auto& client = clients_[number];
  if (client.attempt != attempt) return;
  ++client.attempt;
  if (!done) client.node = (client.node + 1) % static_cast<int>(cluster_.nodes.size());
  scheduler_.after(random_.between(60, done ? 250 : 120) * kMs, [this, number] { write(number); });
}

}  // namespace zx::sim
