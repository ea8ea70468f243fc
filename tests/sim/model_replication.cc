// Walsender and walreceiver of the model nodes, and what pg_stat_* says of them.
#include <fmt/format.h>

#include "lib/pg/conninfo.h"
#include "tests/sim/model_node.h"

namespace zx::sim {
namespace {

constexpr Micros kRetry = 1000 * kMs;  // wal_retrieve_retry_interval, shorter

}  // namespace

void Cluster::set_upstream(ModelNode& node, const std::string& conninfo, const std::string& slot) {
  const bool same = node.conninfo == conninfo && node.slot == slot;
  node.conninfo = conninfo;
  node.slot = slot;
  if (same || node.primary || node.process != Process::running) return;
  close_receiver(node);
  connect_after(node, kMs);
}

void Cluster::connect_after(ModelNode& node, Micros span) {
  scheduler_.after(span, [this, &node, life = node.life, attempt = ++node.attempts] {
    if (node.life == life && node.attempts == attempt)
      when_awake(node, [this, &node] { connect(node); });
  });
}

void Cluster::connect(ModelNode& node) {
  if (node.primary || node.process != Process::running || node.receiver >= 0) return;
  if (node.conninfo.empty()) return;
  const auto where = pg::upstream_of(node.conninfo);
  auto* up = where ? at(where->host, where->port) : nullptr;
  connect_after(node, kRetry);
  if (up == nullptr || up == &node || network_.is_down(up->index) ||
      !network_.both_ways(node.index, up->index))
    return;
  const auto there = network_.delay(node.index, up->index);
  scheduler_.after(3 * there, [this, &node, up, life = node.life, attempt = node.attempts] {
    if (node.life != life || node.attempts != attempt || node.primary || node.receiver >= 0 ||
        node.frozen || !up->serves() || network_.is_down(up->index) ||
        !network_.both_ways(node.index, up->index))
      return;
    if (!may_stream(*up, node) || (!node.slot.empty() && !up->slots.contains(node.slot))) return;
    if (!is_prefix(node, *up)) witness_->mixed(node, *up);
    const int number = static_cast<int>(connections_.size());
    connections_.push_back(
        {up->index, node.index, true, true, false, node.wal.size(), node.wal.size()});
    up->senders.push_back(number);
    node.receiver = number;
    node.received = node.wal.size();
    node.last_message = scheduler_.now() + wall_offsets[static_cast<std::size_t>(node.index)];
    node.latest_end = up->end();
    trace_([&] { return fmt::format("{} streams from {}", node.name, up->name); });
    release(*up);
    send_wal(number);
  });
}

// "requested starting point is ahead of …", "… is not in this server's history".
bool Cluster::may_stream(const ModelNode& up, const ModelNode& down) const {
  if (down.timeline == up.timeline) return down.wal.size() <= up.wal.size();
  for (const auto& edge : up.history)
    if (edge.timeline == down.timeline) return down.end() <= edge.until;
  return false;
}

// One message under way at a time; it takes along all that there is.
void Cluster::send_wal(int number) {
  auto& c = of(number);
  auto& up = nodes[static_cast<std::size_t>(c.up)];
  if (!c.up_open || c.in_flight || up.frozen || c.sent >= up.wal.size()) return;
  c.in_flight = true;
  c.sent = up.wal.size();
  network_.send(c.up, c.down, [this, number, up_to = c.sent] {
    auto& connection = of(number);
    auto& down = nodes[static_cast<std::size_t>(connection.down)];
    if (!connection.down_open) return close_sender(number, false);
    when_awake(down, [this, number, up_to] { receive_wal(number, up_to); });
  });
}

void Cluster::receive_wal(int number, std::size_t up_to) {
  auto& c = of(number);
  if (!c.down_open) return;
  auto& down = nodes[static_cast<std::size_t>(c.down)];
  const auto& up = nodes[static_cast<std::size_t>(c.up)];
  for (auto i = down.wal.size(); i < std::min(up_to, up.wal.size()); ++i) {
    const auto& record = records[static_cast<std::size_t>(up.wal[i])];
    if (record.timeline != down.timeline) {  // the upstream's history file came first
      down.timeline = record.timeline;
      down.history.clear();
      for (const auto& edge : up.history)
        if (edge.timeline < record.timeline) down.history.push_back(edge);
    }
    down.wal.push_back(up.wal[i]);
  }
  down.unsealed = false;
  down.replayed = down.wal.size();
  down.received = down.wal.size();
  down.latest_end = std::max(down.latest_end, lsn_after(up_to));
  down.last_message = scheduler_.now() + wall_offsets[static_cast<std::size_t>(down.index)];
  for (const int cascaded : std::vector<int>(down.senders)) send_wal(cascaded);
  network_.send(c.down, c.up, [this, number, flushed = down.wal.size()] {
    auto& connection = of(number);
    auto& sender = nodes[static_cast<std::size_t>(connection.up)];
    if (connection.up_open)
      when_awake(sender, [this, number, flushed] { take_ack(number, flushed); });
  });
}

void Cluster::take_ack(int number, std::size_t flushed) {
  auto& c = of(number);
  if (!c.up_open) return;
  c.in_flight = false;
  c.flushed = std::max(c.flushed, flushed);
  release(nodes[static_cast<std::size_t>(c.up)]);
  send_wal(number);
}

// The walreceiver ends; the walsender hears of it when the way is open.
void Cluster::close_receiver(ModelNode& node) {
  if (node.receiver < 0) return;
  const int number = std::exchange(node.receiver, -1);
  auto& c = of(number);
  c.down_open = false;
  if (!network_.is_down(node.index))
    network_.send(c.down, c.up, [this, number] { close_sender(number, false); });
}

// The walsender ends; the walreceiver hears of it when the way is open and its host still speaks.
void Cluster::close_sender(int number, bool tells) {
  auto& c = of(number);
  auto& up = nodes[static_cast<std::size_t>(c.up)];
  std::erase(up.senders, number);
  c.up_open = false;
  if (!tells || !c.down_open || network_.is_down(c.up)) return;
  network_.send(c.up, c.down, [this, number] {
    auto& down = nodes[static_cast<std::size_t>(of(number).down)];
    if (down.receiver != number) return;
    when_awake(down, [this, &down, number] {
      if (down.receiver != number) return;
      of(number).down_open = false;
      down.receiver = -1;
      connect_after(down, 100 * kMs);
    });
  });
}

pg::NodeFacts Cluster::facts(const ModelNode& node) const {
  pg::NodeFacts f;
  f.name = node.name;
  f.failure = pg::Failure::none;
  f.role = node.primary ? pg::Role::primary : pg::Role::standby;
  f.version = "15.6";
  f.version_number = 150006;
  f.lineage = lineage(node);
  f.restores = false;
  f.primary_slot_name = node.slot;
  f.sync_names = node.sync_text;
  f.connections = 3;
  f.max_connections = 100;
  f.rewindable = true;
  if (const auto where = pg::upstream_of(node.conninfo); where && !node.conninfo.empty()) {
    f.has_upstream = true;
    f.upstream_host = where->host;
    f.upstream_port = where->port;
  }
  if (node.primary) {
    f.written = f.flushed = node.end();
    f.oldest_wal = lsn_after(0);
  } else {
    if (node.received) f.received = lsn_after(*node.received);
    f.replayed = lsn_after(node.replayed);
    f.waits_for_wal = node.receiver < 0;
  }
  if (node.receiver >= 0) {
    const auto& c = connections_[static_cast<std::size_t>(node.receiver)];
    pg::Receiver receiver;
    receiver.status = "streaming";
    receiver.sender_host = address_of(c.up);
    receiver.sender_port = 5432;
    receiver.slot_name = node.slot;
    receiver.latest_end = node.latest_end;
    receiver.timeline = node.timeline;
    receiver.message_age =
        Millis((scheduler_.now() + wall_offsets[static_cast<std::size_t>(node.index)] -
                node.last_message) /
               kMs);
    f.receiver = receiver;
  }
  int counted = 0;
  for (const int number : node.senders) {
    const auto& c = connections_[static_cast<std::size_t>(number)];
    const auto& down = nodes[static_cast<std::size_t>(c.down)];
    pg::Sender sender;
    sender.application_name = down.name;
    sender.client_address = address_of(c.down);
    sender.state = "streaming";
    sender.sent = lsn_after(c.sent);
    sender.flushed = sender.replayed = lsn_after(c.flushed);
    sender.sync_state = "async";
    if (node.sync.method == pg::SyncNames::Method::any && node.sync.lists(down.name))
      sender.sync_state = "quorum";
    if (node.sync.method == pg::SyncNames::Method::first && node.sync.lists(down.name))
      sender.sync_state = "potential";
    f.senders.push_back(sender);
  }
  if (node.sync.method == pg::SyncNames::Method::first)
    for (const auto& name : node.sync.names)
      for (auto& sender : f.senders)
        if (counted < node.sync.count && name == sender.application_name) {
          sender.sync_state = "sync";
          ++counted;
        }
  for (const auto& slot : node.slots) f.slots.push_back({slot, false, node.end()});
  return f;
}

}  // namespace zx::sim
