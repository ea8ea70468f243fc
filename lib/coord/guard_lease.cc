#include "lib/coord/guard_lease.h"

#include <algorithm>
#include <mutex>

#include "lib/coord/background.h"
#include "lib/coord/etcd_keys.h"
#include "lib/coord/kept_lease.h"

namespace zx::coord {
namespace {

constexpr Millis kPauseAfterFailure{200};
constexpr Millis kGoodbye{2'000};

}  // namespace

struct GuardLease::Impl {
  explicit Impl(GuardOptions given)
      : options(std::move(given)),
        held_key(guard_key(options.prefix, options.node)),
        barred(barred_key(options.prefix, options.node)),
        client(options.etcd, std::make_shared<EtcdSeen>()),
        lease(options.ttl) {}

  Millis turn();
  Status round(Deadline deadline);
  Result<bool> is_ours(Deadline deadline);
  Status get(Deadline deadline);
  void forget();
  Status judge(const EtcdTxnResult& result);
  [[nodiscard]] EtcdTxn attempt() const;

  const GuardOptions options;
  const std::string held_key, barred;

  // Of the background thread.
  EtcdClient client;
  KeptLease lease;
  std::int64_t had_with = 0;  // the lease under which the key was ours

  mutable std::mutex mutex;
  bool is_released = false;
  bool is_barred = false;
  Millis good_until{0};
  std::string why = "etcd has not answered yet";

  Background background;  // the last: it stops before what it uses goes
};

Millis GuardLease::Impl::turn() {
  const auto done = round(Deadline::after(std::clamp(options.ttl / 3, Millis(500), Millis(3'000))));
  const std::scoped_lock guard(mutex);
  why = done ? std::string() : done.error().message;
  if (!done) return std::min(kPauseAfterFailure, options.ttl / 10);
  good_until = lease.good_until();
  return options.ttl / 3;
}

Status GuardLease::Impl::round(Deadline deadline) {
  const auto kept = lease.keep(client, deadline);
  if (kept && had_with == lease.id()) {
    // A living lease does not say that the key is still there.
    ZX_ASSIGN(const bool ours, is_ours(deadline));
    if (ours) return {};
  }
  if (kept || had_with != lease.id()) forget();
  if (!kept) return fail(kept.error());
  return get(deadline);
}

// At once, before anything else is waited for.
void GuardLease::Impl::forget() {
  const std::scoped_lock guard(mutex);
  good_until = Millis(0);
}

Result<bool> GuardLease::Impl::is_ours(Deadline deadline) {
  ZX_ASSIGN(const auto keys, client.range(etcd_range(held_key), deadline));
  if (keys.empty()) return false;
  if (keys.front().lease == lease.id()) return true;
  forget();
  return fail(Code::locked,
              "another guard has taken " + options.node + " over: " + keys.front().value);
}

// The key, if nobody has it.
EtcdTxn GuardLease::Impl::attempt() const {
  EtcdTxn txn;
  txn.compare = Json::array({etcd_created_at(held_key, 0), etcd_created_at(barred, 0)});
  const auto about = dump_line({{"ttl_ms", options.ttl.count()},
                                {"stop_margin_ms", options.stop_margin.count()},
                                {"owner", options.owner}});
  txn.success = Json::array({etcd_put(held_key, options.owner, lease.id()),
                             etcd_put(guarded_key(options.prefix, options.node), about)});
  for (auto* branch : {&txn.success, &txn.failure}) {
    branch->push_back(etcd_range(held_key));
    branch->push_back(etcd_range(barred));
  }
  return txn;
}

Status GuardLease::Impl::get(Deadline deadline) {
  auto txn = attempt();
  ZX_ASSIGN(auto result, client.txn(txn, deadline, true));
  const auto is_of_owner = [&] {
    return result.ranges.size() == 2 && !result.ranges[0].empty() &&
           result.ranges[0].front().value == options.owner &&
           result.ranges[0].front().lease != lease.id();
  };
  if (is_of_owner()) {
    // Of a guard of this host that has ended. The key never goes away between the two.
    txn.compare = Json::array({etcd_modified_at(held_key, result.ranges[0].front().mod_revision),
                               etcd_created_at(barred, 0)});
    ZX_ASSIGN(result, client.txn(txn, deadline, true));
  }
  return judge(result);
}

Status GuardLease::Impl::judge(const EtcdTxnResult& result) {
  if (result.ranges.size() != 2) return fail(Code::server, "etcd: an answer without its ranges");
  const std::scoped_lock guard(mutex);
  is_barred = !result.ranges[1].empty();
  const auto& key = result.ranges[0];
  if (!key.empty() && key.front().lease == lease.id()) {
    had_with = lease.id();
    return {};
  }
  if (is_barred)
    return fail(Code::refused, options.node + " is barred: another node has become the primary",
                "rejoin it as a standby: zx rejoin pg " + options.node);
  return fail(Code::locked, "another guard of " + options.node + " holds the lease" +
                                (key.empty() ? "" : ": " + key.front().value));
}

Result<std::unique_ptr<GuardLease>> GuardLease::start(GuardOptions options) {
  options.prefix = etcd_prefix(std::move(options.prefix));
  ZX_TRY(check_etcd_options(options.etcd, options.ttl));
  if (options.node.empty() || options.owner.empty())
    return fail(Code::config, "a guard needs the name of its node and of its host");
  auto impl = std::make_unique<Impl>(std::move(options));
  ZX_TRY(impl->background.start([impl = impl.get()] { return impl->turn(); }));
  return std::unique_ptr<GuardLease>(new GuardLease(std::move(impl)));
}

GuardLease::GuardLease(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GuardLease::~GuardLease() = default;

Millis GuardLease::left() const {
  const std::scoped_lock guard(impl_->mutex);
  if (impl_->is_released) return Millis(0);
  return std::max(Millis(0), impl_->good_until - lease_now());
}

bool GuardLease::is_barred() const {
  const std::scoped_lock guard(impl_->mutex);
  return impl_->is_barred;
}

std::string GuardLease::why() const {
  const std::scoped_lock guard(impl_->mutex);
  return impl_->why;
}

Status GuardLease::release() {
  {
    const std::scoped_lock guard(impl_->mutex);
    impl_->is_released = true;
    impl_->why = "the lease was given back";
  }
  impl_->background.stop();
  if (impl_->lease.id() == 0) return {};
  return impl_->client.revoke(impl_->lease.id(), Deadline::after(kGoodbye));
}

}  // namespace zx::coord
