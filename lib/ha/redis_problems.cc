#include "lib/ha/redis_problems.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/base/units.h"
#include "lib/ha/redis_judge.h"

namespace zx::ha {
namespace {

using redis::NodeFacts;
using redis::Role;
using redis::Snapshot;

bool has_flag(const std::vector<std::string>& flags, std::string_view flag) {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

std::string name_at(const Snapshot& snapshot, const std::string& host, int port) {
  const auto* node = redis::node_at(snapshot, host, port);
  return node != nullptr ? node->name : fmt::format("{}:{}", first_line(host), port);
}

void add_own(const NodeFacts& f, std::vector<std::string>& out) {
  const auto& disk = f.persistence;
  if (!disk.last_save_ok)
    out.push_back(f.name + " cannot save its data set (MISCONF): its disk may be full");
  if (disk.aof && !disk.aof_last_write_ok)
    out.push_back(f.name + " cannot write its AOF (MISCONF): its disk may be full");
  if (disk.aof && !disk.aof_last_rewrite_ok) out.push_back(f.name + " cannot rewrite its AOF");
  if (f.clients_max > 0 && f.clients >= f.clients_max)
    out.push_back(fmt::format("{} uses all of its {} connections", f.name, f.clients_max));
  const bool is_full = f.memory_max > 0 && f.memory_used >= f.memory_max;
  if (is_full && (f.memory_policy == "noeviction" || f.memory_policy.empty()))
    out.push_back(fmt::format("{} is at its maxmemory of {} and takes no writes (OOM)", f.name,
                              format_bytes(f.memory_max)));
}

void add_of_master(const NodeFacts& m, std::vector<std::string>& out) {
  add_own(m, out);
  if (m.paused_by_failover)
    out.push_back(m.name + " is handing over (FAILOVER), its writes are paused");
  if (m.min_replicas_to_write > 0 && m.min_replicas_good &&
      *m.min_replicas_good < m.min_replicas_to_write)
    out.push_back(fmt::format("{} takes no writes (NOREPLICAS): {} of the {} replicas it wants",
                              m.name, *m.min_replicas_good, m.min_replicas_to_write));
}

std::string silence_of(const NodeFacts& f) {
  if (f.local && f.local->fenced) return f.name + " is fenced";
  if (f.is_loading()) return f.name + " is loading its data set";
  return fmt::format("{}: {}", f.name, redis::says(f.failure));
}

void add_of_replica(const Snapshot& snapshot, const NodeFacts& f, const NodeFacts& master,
                    std::vector<std::string>& out) {
  add_own(f, out);
  if (!f.is_read_only) out.push_back(f.name + " takes writes of its own (replica-read-only no)");
  if (!f.link) {
    out.push_back(f.name + " follows nobody");
    return;
  }
  const auto from = master_of(snapshot, f);
  if (!is_behind(snapshot, f, master)) {
    out.push_back(fmt::format("{} follows {} and not {}", f.name,
                              name_at(snapshot, f.link->master_host, f.link->master_port),
                              master.name));
    return;
  }
  if (f.link->is_syncing) {
    out.push_back(fmt::format(
        "{} is in a full resync{}", f.name,
        f.link->sync_left_bytes && *f.link->sync_left_bytes > 0
            ? ", " + format_bytes(static_cast<std::uint64_t>(*f.link->sync_left_bytes)) + " to go"
            : std::string()));
    return;
  }
  if (!redis::is_same_line(f.lineage, master.lineage)) {
    out.push_back(f.lineage.offset > master.lineage.offset
                      ? fmt::format("{} is of another line ({}), at a higher offset than {}",
                                    f.name, short_replid(f.lineage), master.name)
                      : fmt::format("{} is of another line ({}) than {}", f.name,
                                    short_replid(f.lineage), master.name));
    return;
  }
  if (!f.link->is_up) out.push_back(fmt::format("{} is not linked to {}", f.name, from));
}

}  // namespace

std::string short_replid(const redis::Lineage& lineage) { return lineage.replid.substr(0, 8); }

std::vector<std::string> problems_of(const Snapshot& snapshot, const NodeFacts& master) {
  std::vector<std::string> out;
  add_of_master(master, out);
  for (const auto& facts : snapshot.nodes) {
    if (facts.name == master.name) continue;
    if (!facts.answered())
      out.push_back(silence_of(facts));
    else if (facts.role == Role::replica)
      add_of_replica(snapshot, facts, master, out);
    else
      out.push_back(facts.name + " says neither that it is a master nor a replica");
  }
  return out;
}

std::string sentinel_words(const Snapshot& snapshot, const config::RedisSentinel& sentinel,
                           const redis::SentinelFacts& facts) {
  if (!facts.answered()) return redis::says(facts.failure);
  if (!facts.knows_master) return "monitors no " + sentinel.master_name;
  std::vector<std::string> flags;
  for (const auto& flag : facts.flags)
    if (flag != "master") flags.push_back(flag);
  return fmt::format("takes {} for the master{}{}",
                     name_at(snapshot, facts.master_host, facts.master_port),
                     flags.empty() ? "" : ", " + join(flags, ", "),
                     facts.has_quorum.value_or(true) ? "" : ", has no quorum");
}

std::vector<std::string> sentinel_problems(const Snapshot& snapshot,
                                           const config::RedisSentinel& sentinel,
                                           const std::string& master) {
  std::vector<std::string> out;
  for (const auto& one : snapshot.sentinels) {
    const auto who = fmt::format("Sentinel {}:{}", one.address, one.port);
    if (!one.answered()) {
      out.push_back(fmt::format("{}: {}", who, redis::says(one.failure)));
      continue;
    }
    if (!one.knows_master) {
      out.push_back(fmt::format("{} monitors no {}", who, sentinel.master_name));
      continue;
    }
    const auto* named = redis::node_at(snapshot, one.master_host, one.master_port);
    if (named == nullptr || (!master.empty() && named->name != master))
      out.push_back(fmt::format("{} takes {} for the master", who,
                                name_at(snapshot, one.master_host, one.master_port)));
    if (has_flag(one.flags, "s_down")) out.push_back(who + " gets no answer of the master");
    if (has_flag(one.flags, "failover_in_progress")) out.push_back(who + " is failing over");
    if (one.has_quorum && !*one.has_quorum)
      out.push_back(fmt::format("{}: {}", who, first_line(one.quorum_text)));
    for (const auto& replica : one.replicas)
      if (replica.is_phantom)
        out.push_back(fmt::format("{} lists a replica that is none: {}:{}", who,
                                  first_line(replica.address), replica.port));
  }
  return out;
}

std::string why_no_quorum(const config::RedisDeployment& deployment, const Snapshot& snapshot) {
  const auto& sentinels = snapshot.sentinels;
  std::vector<std::string> missing;
  std::size_t good = 0;
  for (const auto& one : sentinels) {
    const bool can = one.answered() && one.knows_master && one.has_quorum.value_or(false);
    good += can ? 1 : 0;
    if (can) continue;
    missing.push_back(fmt::format("{}:{} ({})", one.address, one.port,
                                  !one.answered() ? std::string(redis::says(one.failure))
                                  : !one.knows_master
                                      ? "monitors no " + deployment.sentinel.master_name
                                  : one.quorum_text.empty() ? std::string("no word of a quorum")
                                                            : first_line(one.quorum_text)));
  }
  if (good > 0) return {};
  if (sentinels.empty()) return "no Sentinel was asked";
  return "no Sentinel has a quorum: " + join(missing, ", ");
}

}  // namespace zx::ha
