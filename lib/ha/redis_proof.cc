#include "lib/ha/redis_proof.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/ha/redis_judge.h"

namespace zx::ha {

using redis::NodeFacts;
using redis::Role;
using redis::Snapshot;

namespace {

// How long the settings of a master that somebody saw are taken to be those of now.
constexpr Millis kLooksLast{10 * 60'000};

// Redis counts the age of an acknowledgement in whole seconds of its clock, and looks at it once a
// second (replicationCron), which its own tick of 100 ms and a slow command may put off.
constexpr Millis kWholeSecond{1'000};
constexpr Millis kCron{1'000};
constexpr Millis kMargin{500};

std::string host_of(const NodeFacts* old) { return old != nullptr ? old->host : "HOST"; }

}  // namespace

Millis refuses_after(std::int64_t max_lag_s) {
  return Millis(max_lag_s * 1000) + kWholeSecond + kCron + kMargin;
}

SelfRefusal self_refusal(const config::RedisDeployment& deployment, const Snapshot& snapshot,
                         const std::string& old_master, const std::optional<RedisLastSeen>& last) {
  SelfRefusal out;
  if (!last || last->master != old_master || snapshot.at - last->at >= kLooksLast) {
    out.why = fmt::format("the settings of {} have not been seen lately", old_master);
    return out;
  }
  out.max_lag_s = last->min_replicas_max_lag_s;
  const auto wanted = last->min_replicas_to_write;
  if (wanted < 1 || out.max_lag_s < 1) {
    out.why = fmt::format("{} takes writes without a replica: min-replicas-to-write is {}",
                          old_master, wanted);
    return out;
  }
  // Whoever is not in sight may acknowledge, or come up and do so.
  std::vector<std::string> others;
  for (const auto& node : deployment.nodes) {
    if (node.name == old_master) continue;
    const auto* facts = snapshot.node(node.name);
    if (facts == nullptr || !facts->answered() || facts->role != Role::replica) {
      others.push_back(node.name);
      continue;
    }
    // At an address that is not known it could be the old master as well.
    const auto follows = master_of(snapshot, *facts);
    if (!follows.empty() && follows != old_master) continue;
    out.detach.push_back(node.name);
    if (facts->lineage.replid != last->lineage.replid) {
      out.why = fmt::format("{} has begun another line since its settings were seen", old_master);
      return out;
    }
  }
  const auto left = static_cast<std::int64_t>(others.size()) + last->strangers;
  if (last->strangers > 0)
    others.push_back(fmt::format("{} more that are no nodes of zx.toml", last->strangers));
  if (left >= wanted) {
    out.why =
        fmt::format("{} may acknowledge its writes, out of reach from here", join(others, " and "));
    return out;
  }
  out.holds = true;
  out.why = fmt::format(
      "{} refuses writes by min-replicas-max-lag, {} after the last of its replicas let go of it",
      old_master, format_duration(refuses_after(out.max_lag_s)));
  return out;
}

const char* name_of(RedisFence::Kind kind) {
  switch (kind) {
    case RedisFence::Kind::host: return "host";
    case RedisFence::Kind::live: return "live";
    case RedisFence::Kind::is_replica: return "is_replica";
    case RedisFence::Kind::operator_says: return "operator";
    case RedisFence::Kind::max_lag: return "max_lag";
    case RedisFence::Kind::policy: return "policy";
    case RedisFence::Kind::none: return "none";
  }
  return "none";
}

RedisFence redis_fence(const config::RedisDeployment& deployment, const Snapshot& snapshot,
                       const std::string& old_master, bool assume_fenced,
                       const std::optional<RedisLastSeen>& last) {
  using Kind = RedisFence::Kind;
  if (old_master.empty()) return {Kind::is_replica, "no node was the master; all are replicas", {}};
  const auto* old = snapshot.node(old_master);
  if (old != nullptr && old->answered())
    return old->role == Role::replica
               ? RedisFence{Kind::is_replica, old_master + " is a replica and takes no writes", {}}
               : RedisFence{
                     Kind::live,
                     fmt::format("{} answers: its writes are paused, then it follows", old_master),
                     {}};
  if (old != nullptr && old->local && old->local->is_data_dir && old->local->problem.empty())
    return {Kind::host,
            fmt::format("{} answers, {} will be fenced there first", old->host, old_master),
            {}};
  if (assume_fenced)
    return {
        Kind::operator_says,
        fmt::format("the operator says that {} cannot take writes (--assume-fenced)", old_master),
        {}};
  // Who has switched it off does not want to wait for a proof either.
  if (!deployment.policy.require_fence)
    return {Kind::policy, "require_fence is off: nothing proves that the old master is gone", {}};
  // Sentinels point replicas where they want them.
  auto refusal = self_refusal(deployment, snapshot, old_master, last);
  if (refusal.holds && deployment.sentinel.master_name.empty())
    return {Kind::max_lag, refusal.why, {}, refusal};
  const auto why = old == nullptr ? std::string("it is not in zx.toml")
                   : old->local   ? old->local->problem
                                  : old->local_error;
  RedisFence fence;
  fence.why = fmt::format("{} cannot be fenced: {}", old_master,
                          why.empty() ? "its host was not asked" : why);
  fence.ways_out = {old != nullptr && old->local
                        ? std::string("mend that, in zx.toml or on its host")
                        : fmt::format("make its host reachable ([hosts.{}] remote)", host_of(old)),
                    "or switch the machine off yourself, then: zx failover redis --assume-fenced"};
  fence.refusal = std::move(refusal);
  return fence;
}

}  // namespace zx::ha
