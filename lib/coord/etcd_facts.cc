#include "lib/coord/etcd_facts.h"

#include <algorithm>

#include "lib/coord/etcd_keys.h"
#include "lib/coord/lease_clock.h"

namespace zx::coord {

Result<Value> EtcdFacts::get(const std::string& key) {
  const std::scoped_lock guard(mutex_);
  ZX_ASSIGN(auto keys,
            client_.range(etcd_range(shared_key(prefix_, key)), Deadline::after(patience_)));
  if (keys.empty()) return Value{};
  return Value{std::move(keys.front().value), keys.front().mod_revision};
}

Status EtcdFacts::put(const std::string& key, const std::string& text, std::int64_t version) {
  if (key.empty()) return fail(Code::internal, "a shared fact without a name");
  const auto changed = [&] { return fail(Code::locked, "somebody else changed " + key); };
  // Also finds an endpoint that answers: a write goes to one only.
  ZX_ASSIGN(const auto now, get(key));
  if (now.version != version) return changed();
  const auto place = shared_key(prefix_, key);
  EtcdTxn txn;
  txn.compare.push_back(etcd_modified_at(place, version));
  txn.success.push_back(etcd_put(place, text));
  const std::scoped_lock guard(mutex_);
  ZX_ASSIGN(const auto result, client_.txn(txn, Deadline::after(patience_), false));
  if (!result.succeeded) return changed();
  return {};
}

Result<GuardState> EtcdFacts::guard(const std::string& node) {
  const std::scoped_lock guard(mutex_);
  EtcdTxn txn;
  for (const auto& key :
       {guard_key(prefix_, node), guarded_key(prefix_, node), barred_key(prefix_, node)})
    txn.success.push_back(etcd_range(key));
  const auto asked_at = lease_now();
  ZX_ASSIGN(const auto result, client_.txn(txn, Deadline::after(patience_), true));
  if (result.ranges.size() != 3) return fail(Code::server, "etcd: an answer without its ranges");
  const auto& held = result.ranges[0];
  const auto& registered = result.ranges[1];
  GuardState state;
  state.barred = !result.ranges[2].empty();
  if (registered.empty()) {
    gone_.erase(node);
    return state;
  }
  ZX_ASSIGN(const auto json, parse_json(registered.front().value, "the guard of " + node));
  state.ttl = Millis(get_int(json, "ttl_ms"));
  state.stop_margin = Millis(get_int(json, "stop_margin_ms"));
  if (state.ttl.count() <= 0)
    return fail(Code::server, "the guard of " + node + " is registered without its ttl");
  if (!held.empty()) {
    state.kind = GuardState::Kind::held;
    gone_.erase(node);
    return state;
  }
  state.kind = GuardState::Kind::run_out;
  auto& gone = gone_[node];
  if (gone.registered != registered.front().mod_revision)
    gone = {registered.front().mod_revision, lease_now()};
  state.since = std::max(Millis(0), asked_at - gone.at);
  return state;
}

Status EtcdFacts::bar(const std::string& node, std::int64_t token) {
  const auto held = guard_key(prefix_, node);
  const auto barred = barred_key(prefix_, node);
  EtcdTxn txn;
  txn.compare = Json::array({etcd_created_at(leader_key(prefix_), token),
                             etcd_exists(guarded_key(prefix_, node)), etcd_created_at(held, 0)});
  txn.success.push_back(etcd_put(barred, dump_line({{"token", token}})));
  txn.failure =
      Json::array({etcd_range(leader_key(prefix_)), etcd_range(guarded_key(prefix_, node))});
  const std::scoped_lock guard(mutex_);
  ZX_ASSIGN(const auto result, client_.txn(txn, Deadline::after(patience_), true));
  if (result.succeeded) return {};
  if (result.ranges.size() != 2) return fail(Code::server, "etcd: an answer without its ranges");
  if (result.ranges[0].empty() || result.ranges[0].front().create_revision != token)
    return fail(Code::refused, "this agent has lost its lead");
  if (result.ranges[1].empty()) return fail(Code::not_found, node + " has no guard");
  return fail(Code::refused, "the guard of " + node + " holds its lease");
}

Status EtcdFacts::unbar(const std::string& node) {
  EtcdTxn txn;
  txn.success.push_back(etcd_delete(barred_key(prefix_, node)));
  const std::scoped_lock guard(mutex_);
  ZX_TRY(client_.txn(txn, Deadline::after(patience_), true));
  return {};
}

}  // namespace zx::coord
