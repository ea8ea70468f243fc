// Private to this room: one lease in etcd and how long it surely lasts by our own clock.
#pragma once

#include "lib/coord/etcd_client.h"
#include "lib/coord/lease_clock.h"

namespace zx::coord {

class KeptLease {
 public:
  explicit KeptLease(Millis ttl) : ttl_(ttl) {}

  // Grants a lease when there is none, or renews it. One that has run out by our clock is never
  // renewed, even if etcd still has it: id() changes.
  [[nodiscard]] Status keep(EtcdClient& client, Deadline deadline) {
    auto renewed = renew(client, deadline);
    if (renewed || renewed.error().code != Code::not_found) return renewed;
    const auto asked_at = lease_now();
    ZX_ASSIGN(const auto granted, client.grant(ttl_, deadline));
    id_ = granted.id;
    asked_at_ = asked_at;
    return {};
  }
  // When a quarter of its time has passed. Code::not_found when there is none any more.
  [[nodiscard]] Status renew(EtcdClient& client, Deadline deadline) {
    if (id_ != 0 && lease_now() >= good_until()) id_ = 0;
    if (id_ == 0) return fail(Code::not_found, "the lease in etcd has run out");
    const auto asked_at = lease_now();  // before it is asked: etcd counts from later
    if (asked_at - asked_at_ < ttl_ / 4) return {};
    const auto kept = client.keep_alive(id_, deadline);
    if (kept) {
      asked_at_ = asked_at;
      return {};
    }
    if (kept.error().code == Code::not_found) id_ = 0;
    return fail(kept.error());
  }

  [[nodiscard]] std::int64_t id() const { return id_; }
  [[nodiscard]] Millis good_until() const { return asked_at_ + relied_on(ttl_); }

 private:
  const Millis ttl_;
  std::int64_t id_ = 0;
  Millis asked_at_{0};
};

}  // namespace zx::coord
