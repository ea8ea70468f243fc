#include "lib/coord/guard_lease.h"

#include <algorithm>
#include <mutex>

#include "lib/coord/background.h"
#include "lib/coord/etcd_keys.h"
#include "lib/coord/kept_lease.h"

namespace zx::coord {
namespace {

constexpr Millis kPauseAfterFailure{200};
// A failover that comes late finds the last renewal still there: it need not wait for another ttl.
constexpr int kKeyStays = 4;
constexpr Millis kGoodbye{2'000};

}  // namespace

struct GuardLease::Impl {
  explicit Impl(GuardOptions given)
      : options(std::move(given)),
        held_key(guard_key(options.prefix, options.node)),
        barred(barred_key(options.prefix, options.node)),
        client(options.etcd, std::make_shared<EtcdSeen>()),
        lease(kKeyStays * options.ttl) {}

  Millis turn();
  Status round(Deadline deadline);
  Status renew(Deadline deadline);
  Result<EtcdTxnResult> write(Deadline deadline);
  Status judge(const EtcdTxnResult& result);
  void forget(bool barred);

  const GuardOptions options;
  const std::string held_key, barred;

  // Of the background thread.
  EtcdClient client;
  KeptLease lease;            // only takes the key of a guard that ended away, some time
  std::int64_t revision = 0;  // of our last write of the key; 0: it is not ours
  std::int64_t written = 0;   // the lease under which that was
  Millis asked_at{0};

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
  good_until = asked_at + relied_on(options.ttl);
  return options.ttl / 3;
}

Status GuardLease::Impl::round(Deadline deadline) {
  ZX_TRY(lease.keep(client, deadline));
  return renew(deadline);
}

// At once, before anything else is waited for.
void GuardLease::Impl::forget(bool is_barred_now) {
  revision = 0;
  const std::scoped_lock guard(mutex);
  good_until = Millis(0);
  is_barred = is_barred_now;
}

// The key again, if it is as we wrote it last; or for the first time, if nobody has it.
Result<EtcdTxnResult> GuardLease::Impl::write(Deadline deadline) {
  asked_at = lease_now();  // before it is asked: whoever sees the write sees it later
  EtcdTxn txn;
  txn.compare = Json::array({etcd_modified_at(held_key, revision), etcd_created_at(barred, 0)});
  txn.success = Json::array({etcd_put(held_key, options.owner, lease.id())});
  if (good_until.count() == 0) {
    const auto about = dump_line({{"ttl_ms", options.ttl.count()},
                                  {"stop_margin_ms", options.stop_margin.count()},
                                  {"reply_ms", options.reply_within.count()},
                                  {"owner", options.owner}});
    txn.success.push_back(etcd_put(guarded_key(options.prefix, options.node), about));
  }
  txn.failure = Json::array({etcd_range(held_key), etcd_range(barred)});
  return client.txn(txn, deadline, true);
}

Status GuardLease::Impl::renew(Deadline deadline) {
  const bool had_any = written != 0;
  ZX_ASSIGN(auto result, write(deadline));
  if (!result.succeeded && result.ranges.size() == 2 && result.ranges[1].empty()) {
    const auto& key = result.ranges[0];
    // Nobody's any more; or ours, of a write whose answer did not come; or of a guard of this host
    // that has ended: the key never goes away between the two.
    const bool is_ours =
        !key.empty() && (key.front().lease == lease.id() || key.front().lease == written);
    if (key.empty() || is_ours || (!had_any && key.front().value == options.owner)) {
      if (!is_ours) forget(false);
      revision = key.empty() ? 0 : key.front().mod_revision;
      ZX_ASSIGN(result, write(deadline));
    }
  }
  return judge(result);
}

Status GuardLease::Impl::judge(const EtcdTxnResult& result) {
  if (result.succeeded) {
    revision = result.revision;
    written = lease.id();
    const std::scoped_lock guard(mutex);
    is_barred = false;
    return {};
  }
  if (result.ranges.size() != 2) return fail(Code::server, "etcd: an answer without its ranges");
  forget(!result.ranges[1].empty());
  if (!result.ranges[1].empty())
    return fail(Code::refused, options.node + " is barred: another node has become the primary",
                "rejoin it as a standby: zx rejoin pg " + options.node);
  const auto& key = result.ranges[0];
  if (!key.empty() && written != 0)
    return fail(Code::locked,
                "another guard has taken " + options.node + " over: " + key.front().value);
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
