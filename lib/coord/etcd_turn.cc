#include "lib/coord/etcd_turn.h"

#include "lib/coord/etcd_keys.h"
#include "lib/coord/turn.h"

namespace zx::coord {
namespace {

constexpr int kTries = 3;

EtcdTxn creation(const TurnAsk& ask, const TurnKey& turn) {
  EtcdTxn txn;
  txn.compare.push_back(etcd_created_at(turn.key, 0));
  if (ask.lead != 0) txn.compare.push_back(etcd_created_at(leader_key(ask.prefix), ask.lead));
  txn.success.push_back(etcd_put(turn.key, turn.text, ask.lease));
  txn.failure = Json::array({etcd_range(turn.key), etcd_range(leader_key(ask.prefix)),
                             etcd_range(wanted_key(ask.prefix, ask.name))});
  return txn;
}

}  // namespace

Result<TurnKey> create_turn(EtcdClient& client, const TurnAsk& ask, Deadline deadline,
                            TurnKey* maybe) {
  TurnKey turn{turn_key(ask.prefix, ask.name), write_turn(turn_holder(ask.command)), 0};
  for (int i = 0; i < kTries; ++i) {
    *maybe = turn;
    const auto result = client.txn(creation(ask, turn), deadline, true);
    if (!result) return fail(result.error());
    *maybe = {};
    if (result->succeeded) {
      turn.created = result->revision;
      return turn;
    }
    if (result->ranges.size() != 3) return fail(Code::server, "etcd: an answer without its ranges");
    const auto& leader = result->ranges[1];
    if (ask.lead != 0 && (leader.empty() || leader.front().create_revision != ask.lead))
      return fail(Code::refused, "this agent has lost its lead");
    const auto& held = result->ranges[0];
    if (held.empty()) continue;  // it has gone just now
    const auto& key = held.front();
    if (key.lease != ask.lease) {
      const auto& wanted = result->ranges[2];
      const bool is_told = !wanted.empty() && wanted.front().mod_revision > key.create_revision;
      if (ask.is_urgent && !is_told) ZX_TRY(want_turn(client, ask, deadline));
      return fail(turn_held(ask.name, key.value, wall_now()));
    }
    // Sent twice, of which only the second answer came; or an earlier run could not take it away.
    if (key.value == turn.text) {
      turn.created = key.create_revision;
      return turn;
    }
    ZX_TRY(drop_turn(client, {key.key, key.value, 0}, deadline));
  }
  return fail(Code::locked, "the turn of " + ask.name + " changes hands too fast", "try again");
}

Status want_turn(EtcdClient& client, const TurnAsk& ask, Deadline deadline) {
  EtcdTxn txn;
  txn.success.push_back(etcd_put(wanted_key(ask.prefix, ask.name), ask.command));
  ZX_TRY(client.txn(txn, deadline, true));
  return {};
}

Result<bool> is_turn_wanted(EtcdClient& client, const std::string& prefix, const std::string& name,
                            const TurnKey& turn, Deadline deadline) {
  ZX_ASSIGN(const auto keys, client.range(etcd_range(wanted_key(prefix, name)), deadline));
  return !keys.empty() && keys.front().mod_revision > turn.created;
}

Status drop_turn(EtcdClient& client, const TurnKey& turn, Deadline deadline) {
  EtcdTxn txn;
  txn.compare.push_back(etcd_has_value(turn.key, turn.text));
  txn.success.push_back(etcd_delete(turn.key));
  ZX_TRY(client.txn(txn, deadline, true));
  return {};
}

Status is_turn_free(EtcdClient& client, const std::string& prefix, const std::string& name,
                    Deadline deadline) {
  ZX_ASSIGN(const auto keys, client.range(etcd_range(turn_key(prefix, name)), deadline));
  if (!keys.empty()) return fail(turn_held(name, keys.front().value, wall_now()));
  return {};
}

}  // namespace zx::coord
