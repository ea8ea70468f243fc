// The lease by which the guard of a database host tells that it is there, and learns that it must
// stop its server.
//
// The rule for the guard: its server may be a primary only while left() > 0, and must have stopped
// when left() is 0: it begins to stop it while left() is still above the time that stopping takes.
//
// A renewal is a write that succeeds only while the key is as the guard wrote it last and nobody
// has barred the node: whoever saw the last one knows when the guard's time ends, without waiting
// for etcd to take the lease away.
//
// What GuardState::is_proof() proves to the failing-over side: no guard of this node has had
// left() > 0 since, and none will until unbar(). It rests on three clocks that run alike within a
// hundredth, and not on the network, nor on what the time is anywhere.
//
// What it does not prove: that the server has stopped. It has, if the guard did its part. A guard
// that was killed or hangs while its server goes on does nothing: the server must end with its
// guard (systemd: BindsTo= and a watchdog on the guard, or a hardware watchdog), or this is no
// fence. A virtual machine that was paused with its clock may serve for a moment after it goes on,
// until its guard has asked etcd.
#pragma once

#include <memory>
#include <string>

#include "lib/base/units.h"
#include "lib/coord/etcd_client.h"

namespace zx::coord {

struct GuardOptions {
  EtcdOptions etcd;
  std::string prefix;  // as of the agents
  std::string node;
  std::string owner;          // of this host: a guard that starts again takes its lease over
  Millis ttl{5'000};          // whole seconds, at least 2
  Millis stop_margin{2'000};  // written down for people
  // How old a standby's last reply may be by which the server goes on without a lease.
  Millis reply_within{1'000};
};

class GuardLease {
 public:
  // Code::config when the options make no sense; etcd is not asked yet.
  [[nodiscard]] static Result<std::unique_ptr<GuardLease>> start(GuardOptions options);
  // Leaves the lease to run out: the server may still be a primary.
  ~GuardLease();
  GuardLease(const GuardLease&) = delete;
  GuardLease& operator=(const GuardLease&) = delete;

  // None of these waits. How long the lease is surely still held by our own clock; 0 before the
  // first grant and when it ran out. It may be granted again later.
  [[nodiscard]] Millis left() const;
  [[nodiscard]] bool is_held() const { return left().count() > 0; }
  // The failing-over side has taken the node's right to be a primary: nothing is granted until
  // unbar(). As last heard.
  [[nodiscard]] bool is_barred() const;
  [[nodiscard]] std::string why() const;  // of the last round that failed; empty after a good one

  // Gives the lease back for good, so that nobody has to wait for it: only once the server has
  // stopped or is a standby. left() is 0 from the call on.
  [[nodiscard]] Status release();

  struct Impl;

 private:
  explicit GuardLease(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace zx::coord
