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

EtcdFacts::Renewal EtcdFacts::note(const std::string& node, Renewal now) {
  const std::scoped_lock guard(seen_mutex_);
  auto& seen = seen_[node];
  if (seen.is_last && now.is_gone) {
    seen.is_gone = true;
    seen.revision = now.revision;
  } else if (!seen.is_same(now)) {
    // Later than it was asked for, by which its guard counts.
    now.at = lease_now();
    seen = now;
  }
  return seen;
}

void EtcdFacts::note_guards(const std::vector<EtcdKey>& keys) {
  const auto under = guards_under(prefix_);
  for (const auto& key : keys)
    note(key.key.substr(under.size()), Renewal{key.mod_revision, false, {}, false});
}

Result<GuardState> EtcdFacts::guard(const std::string& node) {
  EtcdTxn txn;
  for (const auto& key :
       {guard_key(prefix_, node), guarded_key(prefix_, node), barred_key(prefix_, node)})
    txn.success.push_back(etcd_range(key));
  const std::scoped_lock guard(mutex_);
  const auto asked_at = lease_now();
  ZX_ASSIGN(const auto result, client_.txn(txn, Deadline::after(patience_), true));
  if (result.ranges.size() != 3) return fail(Code::server, "etcd: an answer without its ranges");
  const auto& held = result.ranges[0];
  const auto& registered = result.ranges[1];
  GuardState state;
  state.barred = !result.ranges[2].empty();
  if (registered.empty()) return state;
  ZX_ASSIGN(const auto json, parse_json(registered.front().value, "the guard of " + node));
  state.ttl = Millis(get_int(json, "ttl_ms"));
  state.stop_margin = Millis(get_int(json, "stop_margin_ms"));
  state.reply_within = Millis(get_int(json, "reply_ms"));
  if (state.ttl.count() <= 0)
    return fail(Code::server, "the guard of " + node + " is registered without its ttl");
  const bool is_gone = held.empty();
  const auto last =
      note(node, Renewal{is_gone ? registered.front().mod_revision : held.front().mod_revision,
                         is_gone, Millis(0), false});
  state.since = std::max(Millis(0), asked_at - last.at);
  state.kind = is_gone || state.has_passed() ? GuardState::Kind::run_out : GuardState::Kind::held;
  return state;
}

Status EtcdFacts::bar(const std::string& node, const Right& right) {
  ZX_ASSIGN(const auto state, this->guard(node));
  if (state.kind == GuardState::Kind::unguarded)
    return fail(Code::not_found, node + " has no guard");
  const auto held_by = fail(Code::refused, "the guard of " + node + " holds its lease");
  if (state.kind == GuardState::Kind::held) return held_by;
  const auto last = [&] {
    const std::scoped_lock lock(seen_mutex_);
    return seen_[node];
  }();
  // Not if it was renewed since.
  EtcdTxn txn;
  txn.compare = Json::array(
      {etcd_created_at(right.key, right.created), etcd_exists(guarded_key(prefix_, node)),
       etcd_modified_at(guard_key(prefix_, node), last.is_gone ? 0 : last.revision)});
  txn.success.push_back(etcd_put(barred_key(prefix_, node),
                                 dump_line({{"by", right.key}, {"token", right.created}})));
  txn.failure = Json::array({etcd_range(right.key)});
  const std::scoped_lock guard(mutex_);
  ZX_ASSIGN(const auto result, client_.txn(txn, Deadline::after(patience_), true));
  if (result.succeeded) {
    const std::scoped_lock lock(seen_mutex_);
    if (seen_[node].is_same(last)) seen_[node].is_last = true;
    return {};
  }
  if (result.ranges.size() != 1) return fail(Code::server, "etcd: an answer without its ranges");
  if (result.ranges[0].empty() || result.ranges[0].front().create_revision != right.created)
    return fail(Code::refused, right.lost);
  return held_by;
}

Status EtcdFacts::unbar(const std::string& node) {
  EtcdTxn txn;
  txn.success.push_back(etcd_delete(barred_key(prefix_, node)));
  const std::scoped_lock guard(mutex_);
  {
    const std::scoped_lock lock(seen_mutex_);
    seen_[node].is_last = false;
  }
  ZX_TRY(client_.txn(txn, Deadline::after(patience_), true));
  return {};
}

}  // namespace zx::coord
