#include "tests/sim/faults.h"

#include <fmt/format.h>

namespace zx::sim {

void Faults::say(const std::string& what) {
  env_.trace([&] { return "fault: " + what; });
}

ModelNode& Faults::any_node() {
  auto& nodes = env_.cluster.nodes;
  return nodes[static_cast<std::size_t>(random_.between(0, static_cast<int>(nodes.size()) - 1))];
}

Agent& Faults::any_agent() {
  return *agents_[static_cast<std::size_t>(
      random_.between(0, static_cast<int>(agents_.size()) - 1))];
}

ModelNode* Faults::primary() {
  for (auto& node : env_.cluster.nodes)
    if (node.primary && node.process != Process::down) return &node;
  return nullptr;
}

void Faults::begin() {
  const auto count = random_.between(1, 7);
  // The first one, most of the time, is what a failover is for.
  auto at = random_.between(1500, 4000) * kMs;
  for (int i = 0; i < count; ++i) {
    one(at);
    at += random_.percent(60) ? random_.between(1, 1200) * kMs : random_.between(1000, 5000) * kMs;
    if (at > end_) return;
  }
}

void Faults::one(Micros at) {
  const bool first = random_.percent(45);
  env_.scheduler.at(at, [this, first] {
    if (over_) return;
    if (first) return hurt_primary();
    switch (random_.between(0, 9)) {
      case 0:
      case 1:
      case 2: return cut(random_.between(200, 8000) * kMs);
      case 3:
      case 4:
      case 5: return hurt_agent();
      case 6: return hurt(any_node(), static_cast<int>(random_.between(0, 3)));
      case 7: {
        auto& offset = env_.cluster.wall_offsets[static_cast<std::size_t>(any_node().index)];
        offset += random_.percent(50) ? 3600 * kSecond : -3600 * kSecond;
        return say("a wall clock jumps");
      }
      case 8: {
        say("the coordinator is down");
        env_.network.set_down(coordinator_, true);
        env_.scheduler.after(random_.between(300, 7000) * kMs,
                             [this] { env_.network.set_down(coordinator_, false); });
        return;
      }
      default:
        say("packets are lost");
        env_.network.set_loss(20);
        env_.scheduler.after(random_.between(500, 4000) * kMs,
                             [this] { env_.network.set_loss(0); });
    }
  });
}

void Faults::hurt_primary() {
  if (auto* node = primary()) hurt(*node, static_cast<int>(random_.between(0, 4)));
}

void Faults::hurt(ModelNode& node, int how) {
  switch (how) {
    case 0:
    case 1: say(node.name + " is killed"); return env_.cluster.end(node, "");
    case 2: return crash_host(node.index, random_.between(500, 9000) * kMs);
    case 3: {
      if (node.process == Process::down) return;
      say(node.name + " is stopped (SIGSTOP)");
      env_.cluster.freeze(node);
      env_.scheduler.after(random_.between(300, 9000) * kMs, [this, &node, life = node.life] {
        if (node.life == life && node.frozen) {
          say(node.name + " goes on");
          env_.cluster.thaw(node);
        }
      });
      return;
    }
    default: {
      // It alone is cut off from everyone but those that are named by the dice.
      const auto lasts = random_.between(500, 9000) * kMs;
      say(node.name + " is cut off from some");
      for (Place other = 0; other < env_.network.places(); ++other) {
        if (other == node.index || random_.percent(25)) continue;
        const bool in = random_.percent(85), out = random_.percent(85);
        if (in) env_.network.cut(other, node.index);
        if (out) env_.network.cut(node.index, other);
        env_.scheduler.after(lasts, [this, other, in, out, here = node.index] {
          if (over_) return;
          if (in) env_.network.heal(other, here);
          if (out) env_.network.heal(here, other);
        });
      }
    }
  }
}

void Faults::crash_host(int host, Micros lasts) {
  env_.cluster.crash_host(host);
  for (auto& agent : agents_)
    if (agent->place() == host) agent->crash(-1);
  env_.scheduler.after(lasts, [this, host] {
    env_.cluster.boot_host(host);
    for (auto& agent : agents_)
      if (agent->place() == host) agent->start();
  });
}

// Two sides, or one place from another, both ways or one.
void Faults::cut(Micros lasts) {
  const auto places = env_.network.places();
  std::vector<std::pair<Place, Place>> ways;
  if (random_.percent(50)) {
    const auto side = random_.next();
    for (Place a = 0; a < places; ++a)
      for (Place b = 0; b < places; ++b)
        if (((side >> a) & 1) != 0 && ((side >> b) & 1) == 0) ways.emplace_back(a, b);
  } else {
    const auto a = static_cast<Place>(random_.between(0, places - 1));
    const auto b = static_cast<Place>(random_.between(0, places - 1));
    if (a != b) ways.emplace_back(a, b);
  }
  const bool both = random_.percent(70);
  say(fmt::format("the network parts, {} ways{}", ways.size(), both ? "" : ", one way"));
  for (const auto& [a, b] : ways) {
    env_.network.cut(a, b);
    if (both) env_.network.cut(b, a);
  }
  env_.scheduler.after(lasts, [this, ways, both] {
    if (over_) return;
    say("the network is whole again");
    for (const auto& [a, b] : ways) {
      env_.network.heal(a, b);
      if (both) env_.network.heal(b, a);
    }
  });
}

void Faults::hurt_agent() {
  auto& agent = any_agent();
  const auto restart = random_.between(200, 6000) * kMs;
  switch (random_.between(0, 3)) {
    case 0: return agent.crash(restart);
    case 1: return agent.pause(random_.between(500, 12000) * kMs);
    default:
      for (auto& one : agents_)
        if (random_.percent(60))
          one->crash_after_lines(static_cast<int>(random_.between(0, 28)), restart,
                                 random_.percent(40));
  }
}

void Faults::cease() {
  over_ = true;
  say("no more faults");
  env_.network.heal_all();
  env_.network.set_loss(0);
  env_.network.set_down(coordinator_, false);
  for (auto& node : env_.cluster.nodes) env_.cluster.boot_host(node.index);
  for (auto& agent : agents_) {
    agent->crash_after_lines(-1, 0);
    agent->start();
  }
}

}  // namespace zx::sim
