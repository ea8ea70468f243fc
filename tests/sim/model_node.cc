#include "tests/sim/model_node.h"

#include <fmt/format.h>

namespace zx::sim {
namespace {

constexpr Micros kFrozenPoll = 50 * kMs;
constexpr const char* kSystem = "7300000000000000001";

}  // namespace

Cluster::Cluster(Scheduler& scheduler, Network& network, Random random, Trace& trace, int count)
    : nodes(static_cast<std::size_t>(count)),
      wall_offsets(static_cast<std::size_t>(count)),
      scheduler_(scheduler),
      network_(network),
      random_(random),
      trace_(trace) {
  for (int i = 0; i < count; ++i) {
    auto& node = nodes[static_cast<std::size_t>(i)];
    node.index = i;
    node.name = std::string("pg-") + static_cast<char>('a' + i);
  }
}

ModelNode* Cluster::find(const std::string& name) {
  for (auto& node : nodes)
    if (node.name == name) return &node;
  return nullptr;
}

std::string Cluster::address_of(int index) { return fmt::format("10.0.0.{}", index + 1); }

ModelNode* Cluster::at(const std::string& address, int port) {
  for (auto& node : nodes)
    if (port == 5432 && address == address_of(node.index)) return &node;
  return nullptr;
}

// --- life -------------------------------------------------------------------------------------

void Cluster::start(ModelNode& node, std::function<void(bool)> started) {
  if (node.process != Process::down || network_.is_down(node.index) || node.interrupted_rewind) {
    if (started) started(node.process == Process::running);
    return;
  }
  node.process = Process::starting;
  const int life = ++node.life;
  ++node.starts;
  trace_([&] { return node.name + " starts"; });
  scheduler_.after(random_.between(50, 400) * kMs, [this, &node, life, started] {
    if (node.life != life || node.process != Process::starting) return;
    came_up(node);
    if (started) started(true);
  });
}

void Cluster::came_up(ModelNode& node) {
  node.process = Process::running;
  node.primary = !node.standby_signal;
  node.replayed = node.wal.size();
  node.received.reset();
  node.control = node.primary ? "in production" : "in archive recovery";
  trace_([&] {
    return fmt::format("{} is up as {} on timeline {} at {}", node.name,
                       node.primary ? "primary" : "standby", node.timeline, to_string(node.end()));
  });
  if (node.primary) {
    witness_->primary_started(node);
    node.unsealed = false;
    append(node, -1);  // the checkpoint at the end of its recovery
  } else {
    connect_after(node, kMs);
  }
}

void Cluster::end(ModelNode& node, const std::string& control) {
  if (node.process == Process::down) return;
  const bool by_itself = control.empty() && !node.kept_down;
  trace_([&] { return node.name + (control.empty() ? " is gone" : " has " + control); });
  ++node.life;
  node.process = Process::down;
  node.frozen = node.promoting = false;
  node.waiting.clear();
  if (!control.empty()) node.control = control;
  close_receiver(node);
  for (const int number : std::vector<int>(node.senders)) close_sender(number, true);
  node.senders.clear();
  if (by_itself && node.supervised && !network_.is_down(node.index))
    scheduler_.after(random_.between(100, 1500) * kMs, [this, &node, life = node.life] {
      if (node.life == life && !node.kept_down) start(node);
    });
}

void Cluster::crash_host(int host) {
  if (network_.is_down(host)) return;
  network_.set_down(host, true);
  auto& node = nodes[static_cast<std::size_t>(host)];
  trace_([&] { return "host of " + node.name + " crashes"; });
  end(node, "");
}

void Cluster::boot_host(int host) {
  if (!network_.is_down(host)) return;
  network_.set_down(host, false);
  auto& node = nodes[static_cast<std::size_t>(host)];
  trace_([&] { return "host of " + node.name + " is up"; });
  // Whoever still waits for messages from here learns that the connection is not known any more.
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    auto& c = connections_[i];
    if (c.up == host && !c.up_open && c.down_open) close_sender(static_cast<int>(i), true);
    if (c.down == host && !c.down_open && c.up_open)
      network_.send(c.down, c.up, [this, i] { close_sender(static_cast<int>(i), false); });
  }
  node.kept_down = false;  // what was only stopped starts with the machine
  start(node);
}

void Cluster::thaw(ModelNode& node) {
  node.frozen = false;
  for (const int number : std::vector<int>(node.senders)) send_wal(number);
}

void Cluster::when_awake(ModelNode& node, std::function<void()> then) {
  if (node.process == Process::down) return;
  if (!node.frozen) return then();
  scheduler_.after(kFrozenPoll, [this, &node, life = node.life, then = std::move(then)]() mutable {
    if (node.life == life) when_awake(node, std::move(then));
  });
}

// --- what it writes -----------------------------------------------------------------------------

void Cluster::append(ModelNode& node, int commit) {
  records.push_back({node.timeline, commit});
  node.wal.push_back(static_cast<int>(records.size()) - 1);
  node.replayed = node.wal.size();
  for (const int number : std::vector<int>(node.senders)) send_wal(number);
}

void Cluster::write(ModelNode& node, int commit, std::function<void()> acknowledge) {
  if (!node.accepts_writes()) return;
  append(node, commit);
  if (node.sync.method == pg::SyncNames::Method::none) {
    witness_->acknowledged(node, commit, false);
    return acknowledge();
  }
  node.waiting.push_back({node.wal.size(), commit, std::move(acknowledge)});
}

void Cluster::acknowledge(ModelNode& node, bool by_standbys, std::size_t up_to) {
  while (!node.waiting.empty() && node.waiting.front().end <= up_to) {
    const auto first = std::move(node.waiting.front());
    node.waiting.pop_front();
    witness_->acknowledged(node, first.commit, by_standbys);
    first.acknowledge();
  }
}

// SyncRepReleaseWaiters(): FIRST counts the first ones of the list that are connected, ANY the
// furthest.
void Cluster::release(ModelNode& node) {
  if (!node.primary || node.sync.method == pg::SyncNames::Method::none) return;
  const auto wanted = static_cast<std::size_t>(node.sync.count);
  std::vector<std::size_t> flushed;
  for (const auto& name : node.sync.names)
    for (const int number : node.senders) {
      const auto& down = nodes[static_cast<std::size_t>(of(number).down)];
      if (name == "*" || name == down.name) flushed.push_back(of(number).flushed);
    }
  if (flushed.size() < wanted) return;
  if (node.sync.method == pg::SyncNames::Method::any) std::sort(flushed.rbegin(), flushed.rend());
  flushed.resize(wanted);
  acknowledge(node, true, *std::min_element(flushed.begin(), flushed.end()));
}

void Cluster::set_sync(ModelNode& node, const std::string& text) {
  const auto names = pg::parse_sync_names(text);
  if (!names) return;
  node.sync_text = text;
  node.sync = *names;
  trace_([&] { return fmt::format("{} waits for '{}'", node.name, text); });
  if (!node.primary || !node.serves()) return;
  if (names->method == pg::SyncNames::Method::none)
    acknowledge(node, false, node.wal.size());
  else
    release(node);
}

void Cluster::promote(ModelNode& node) {
  if (!node.serves() || node.primary || node.promoting) return;
  node.promoting = true;
  scheduler_.after(random_.between(5, 120) * kMs, [this, &node, life = node.life] {
    if (node.life == life) when_awake(node, [this, &node] { finish_promotion(node); });
  });
}

void Cluster::finish_promotion(ModelNode& node) {
  node.promoting = false;
  close_receiver(node);
  node.history.push_back({node.timeline, node.end()});
  ++node.timeline;
  node.primary = true;
  node.unsealed = true;
  node.standby_signal = false;
  node.control = "in production";
  trace_([&] {
    return fmt::format("{} IS PROMOTED to timeline {} at {}", node.name, node.timeline,
                       to_string(node.end()));
  });
  witness_->promoted(node);
  append(node, -1);
}

void Cluster::checkpoint(ModelNode& node) {
  if (!node.accepts_writes()) return;
  node.unsealed = false;
  append(node, -1);
}

void Cluster::stop_clean(ModelNode& node, std::function<void()> stopped) {
  if (node.process == Process::down) return stopped();
  node.process = Process::stopping;
  node.waiting.clear();
  if (node.primary) {
    node.unsealed = false;
    append(node, -1);  // the shutdown checkpoint
  }
  drain(node, scheduler_.now() + 60 * kSecond, std::move(stopped));
}

void Cluster::drain(ModelNode& node, Micros give_up, std::function<void()> stopped) {
  const bool all_have_it = std::all_of(node.senders.begin(), node.senders.end(), [&](int number) {
    return of(number).flushed == node.wal.size();
  });
  if (!node.frozen && (!node.primary || all_have_it || scheduler_.now() > give_up)) {
    end(node, node.primary ? "shut down" : "shut down in recovery");
    return stopped();
  }
  scheduler_.after(
      10 * kMs, [this, &node, give_up, life = node.life, stopped = std::move(stopped)]() mutable {
        if (node.life != life) return stopped();
        drain(node, give_up, std::move(stopped));
      });
}

void Cluster::copy_wal(ModelNode& node, const ModelNode& other) {
  node.wal = other.wal;
  node.timeline = other.timeline;
  node.history = other.history;
  node.unsealed = false;
}

// --- what it says -------------------------------------------------------------------------------

pg::Lineage Cluster::lineage(const ModelNode& node) const {
  pg::Lineage lineage{kSystem, node.timeline, node.history, {}};
  std::string marks;
  for (std::size_t i = 0; i < node.history.size(); ++i) {
    const auto begun = (node.history[i].until.value - lsn_after(0).value) / 128;
    const auto timeline =
        i + 1 < node.history.size() ? node.history[i + 1].timeline : node.timeline;
    if (begun < node.wal.size())
      marks += fmt::format("{}{}:{:08x}", marks.empty() ? "" : ",", timeline, node.wal[begun]);
  }
  if (!marks.empty()) lineage.mark = marks;
  return lineage;
}

pg::LocalFacts Cluster::local_facts(const ModelNode& node, bool with_wal_end) const {
  pg::LocalFacts facts;
  facts.interrupted_rewind = node.interrupted_rewind;
  facts.processes = node.process != Process::down;
  facts.port = facts.processes ? 5432 : 0;
  facts.stopped = node.frozen;
  if (node.interrupted_rewind) {
    facts.problem = node.name + ": a rewind was interrupted; it must never be started";
    return facts;
  }
  facts.is_data_directory = true;
  facts.standby_signal = node.standby_signal;
  facts.fenced = node.fence.has_value();
  if (node.fence) facts.fence_run = node.fence->run;
  facts.control_state = node.control;
  facts.lineage = lineage(node);
  facts.unsealed = node.unsealed;
  facts.control_mark = std::to_string(node.starts);
  facts.checkpoint = lsn_after(node.wal.empty() ? 0 : node.wal.size() - 1);
  facts.sync_names_known = true;
  facts.sync_names = node.sync_text;
  if (with_wal_end && !facts.processes) facts.wal_end = node.end();
  return facts;
}

}  // namespace zx::sim
