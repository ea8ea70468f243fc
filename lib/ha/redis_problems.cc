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

// Near its end, when there is one.
bool is_nearly(std::uint64_t used, std::uint64_t all) { return all > 0 && used >= all - all / 10; }

bool is_locked_out(redis::Failure failure) {
  return failure == redis::Failure::auth || failure == redis::Failure::permission;
}

// Redis counts whole seconds.
std::string for_span(const std::optional<std::int64_t>& seconds) {
  if (!seconds || *seconds < 0) return {};
  return " for " + (*seconds == 0 ? "less than 1 s" : format_duration(Millis(*seconds * 1000)));
}

class Problems {
 public:
  Problems(const Snapshot& snapshot, const NodeFacts* master)
      : snapshot_(snapshot), master_(master) {}

  std::vector<RedisProblem> find() {
    if (master_ != nullptr) look_at(*master_);
    for (const auto& facts : snapshot_.nodes)
      if (&facts != master_) look_at(facts);
    return std::move(out_);
  }

 private:
  void add(std::string text, std::string hint = {}) {
    out_.push_back({std::move(text), std::move(hint)});
  }

  void look_at(const NodeFacts& f) {
    if (!f.answered()) {
      const bool is_replica_down = master_ != nullptr && f.failure == redis::Failure::refused;
      return add(silence_of(f), is_replica_down ? fmt::format("start {} on its host", f.name)
                                : is_locked_out(f.failure)
                                    ? "mend user and password_file of the deployment in zx.toml"
                                    : "");
    }
    if (f.role == Role::master)
      of_a_master(f);
    else if (f.role == Role::replica)
      of_a_replica(f);
    else
      add(f.name + " says neither that it is a master nor a replica");
    of_its_own(f);
  }

  static std::string silence_of(const NodeFacts& f) {
    if (f.local && f.local->fenced) return f.name + " is fenced";
    if (f.is_loading())
      return f.name + " is loading its data set" +
             (f.persistence.loading_eta_s
                  ? fmt::format(", {} s to go", *f.persistence.loading_eta_s)
                  : std::string());
    if (!f.error.message.empty()) return f.error.message;
    return fmt::format("{}: {}", f.name, redis::says(f.failure));
  }

  void of_its_own(const NodeFacts& f) {
    const auto& disk = f.persistence;
    const auto make_room = [&](const char* command) {
      return fmt::format("the log of {} says why; make room on its disk, then {} there", f.name,
                         command);
    };
    if (!disk.last_save_ok)
      add(f.name + " cannot save its data set (MISCONF): its disk may be full",
          make_room("BGSAVE"));
    if (disk.aof && !disk.aof_last_write_ok)
      add(f.name + " cannot write its AOF (MISCONF): its disk may be full",
          make_room("BGREWRITEAOF"));
    if (disk.aof && !disk.aof_last_rewrite_ok)
      add(f.name + " cannot rewrite its AOF", make_room("BGREWRITEAOF"));
    if (f.clients > 0 && f.clients_max > 0 &&
        is_nearly(static_cast<std::uint64_t>(f.clients), static_cast<std::uint64_t>(f.clients_max)))
      add(fmt::format("{} has {} of {} clients", f.name, f.clients, f.clients_max),
          "CLIENT LIST there says whose they are; or raise maxclients");
    of_its_memory(f);
    if (f.min_replicas_to_write == redis::kHeldReplicas)
      add(fmt::format("{} refuses every write, as a restore has set it", f.name),
          fmt::format("zx runs list says whether one is at work; else, on {}: CONFIG SET "
                      "min-replicas-to-write N, CONFIG REWRITE",
                      f.name));
    for (const auto& warning : f.warnings) add(f.name + ": " + warning);
  }

  // With a policy that evicts, a full memory is how a cache works.
  void of_its_memory(const NodeFacts& f) {
    const bool evicts = !f.memory_policy.empty() && f.memory_policy != "noeviction";
    if (evicts || !is_nearly(f.memory_used, f.memory_max)) return;
    const std::string hint = "raise maxmemory there, or remove keys";
    if (f.memory_used >= f.memory_max)
      add(fmt::format("{} is at its maxmemory of {} and takes no writes (OOM)", f.name,
                      format_bytes(f.memory_max)),
          hint);
    else
      add(fmt::format("{} uses {} of its maxmemory of {}, and takes no writes when that is full",
                      f.name, format_bytes(f.memory_used), format_bytes(f.memory_max)),
          hint);
  }

  void of_a_master(const NodeFacts& f) {
    if (f.paused_by_failover) add(f.name + " is handing over (FAILOVER), its writes are paused");
    if (f.min_replicas_to_write == redis::kHeldReplicas) return;
    if (f.min_replicas_to_write > 0 && f.min_replicas_good &&
        *f.min_replicas_good < f.min_replicas_to_write)
      add(fmt::format("{} takes no writes (NOREPLICAS): {} of the {} replicas it wants", f.name,
                      *f.min_replicas_good, f.min_replicas_to_write),
          f.min_replicas_to_write > std::ssize(snapshot_.nodes) - 1
              ? fmt::format("on {}: CONFIG SET min-replicas-to-write N", f.name)
              : kSync);
  }

  void of_a_replica(const NodeFacts& f) {
    if (!f.is_read_only) add(f.name + " takes writes of its own (replica-read-only no)");
    if (!f.link) return add(f.name + " follows nobody", kSync);
    const auto whom = name_at(snapshot_, f.link->master_host, f.link->master_port);
    if (master_ != nullptr && !is_behind(snapshot_, f, *master_))
      return add(fmt::format("{} follows {} and not {}", f.name, whom, master_->name), kSync);
    if (master_of(snapshot_, f).empty())
      return add(fmt::format("{} follows {}, which is none of the nodes in zx.toml", f.name, whom));
    if (f.link->is_syncing)
      return add(fmt::format(
          "{} is in a full resync{}", f.name,
          f.link->sync_left_bytes && *f.link->sync_left_bytes > 0
              ? ", " + format_bytes(static_cast<std::uint64_t>(*f.link->sync_left_bytes)) + " to go"
              : std::string()));
    if (master_ != nullptr && !redis::is_same_line(f.lineage, master_->lineage))
      add(fmt::format("{} is of another line ({}){} than {}: it would have to copy everything",
                      f.name, short_replid(f.lineage),
                      f.lineage.offset > master_->lineage.offset ? ", at a higher offset," : "",
                      master_->name),
          kSync);
    if (!f.link->is_up)
      add(fmt::format("{} is not linked to {}{}", f.name, whom, for_span(f.link->down_for_s)),
          master_ != nullptr ? kSync : "");
  }

  static constexpr const char* kSync =
      "zx redis sync --all --dry-run says why, and what it costs to mend it";
  const Snapshot& snapshot_;
  const NodeFacts* master_;
  std::vector<RedisProblem> out_;
};

}  // namespace

std::string short_replid(const redis::Lineage& lineage) { return lineage.replid.substr(0, 8); }

std::vector<RedisProblem> problems_of(const Snapshot& snapshot, const NodeFacts* master) {
  return Problems(snapshot, master).find();
}

bool waits_too_long(const redis::SentinelFacts& facts) {
  constexpr std::chrono::hours kLong{1};
  return facts.answered() && facts.knows_master && facts.down_after >= kLong;
}

std::string sentinel_words(const Snapshot& snapshot, const config::RedisSentinel& sentinel,
                           const redis::SentinelFacts& facts) {
  if (!facts.answered()) return redis::says(facts.failure);
  if (!facts.knows_master) return "does not watch " + sentinel.master_name;
  std::vector<std::string> flags;
  for (const auto& flag : facts.flags)
    if (flag != "master") flags.push_back(flag);
  return fmt::format("takes {} for the master{}{}",
                     name_at(snapshot, facts.master_host, facts.master_port),
                     flags.empty() ? "" : ", " + join(flags, ", "),
                     facts.has_quorum.value_or(true) ? "" : ", has no quorum");
}

std::vector<RedisProblem> sentinel_problems(const Snapshot& snapshot,
                                            const config::RedisSentinel& sentinel,
                                            const std::string& master) {
  std::vector<RedisProblem> out;
  const auto others = static_cast<int>(sentinel.nodes.size()) - 1;
  for (const auto& one : snapshot.sentinels) {
    const auto who = fmt::format("Sentinel {}:{}", one.address, one.port);
    const auto add = [&](std::string text, std::string hint = {}) {
      out.push_back({std::move(text), std::move(hint)});
    };
    if (!one.answered()) {
      add(one.error.message.empty() ? fmt::format("{}: {}", who, redis::says(one.failure))
                                    : one.error.message,
          is_locked_out(one.failure) ? "mend user and password_file of the Sentinels in zx.toml"
                                     : "start or restart the Sentinels that do not answer: without "
                                       "a majority of them nobody "
                                       "fails over");
      continue;
    }
    if (!one.knows_master) {
      add(fmt::format("{} does not watch {}", who, sentinel.master_name),
          fmt::format("SENTINEL MONITOR {} there, with its auth-pass and times",
                      sentinel.master_name));
      continue;
    }
    const auto named = name_at(snapshot, one.master_host, one.master_port);
    const bool is_a_node = redis::node_at(snapshot, one.master_host, one.master_port) != nullptr;
    if (!is_a_node || (!master.empty() && named != master))
      add(fmt::format("{} takes {} for the master", who, named));
    if (has_flag(one.flags, "o_down"))
      add(fmt::format("{} and others get no answer of {}", who, named));
    else if (has_flag(one.flags, "s_down"))
      add(fmt::format("{} gets no answer of {}", who, named));
    if (has_flag(one.flags, "failover_in_progress")) add(who + " is failing over");
    if (one.has_quorum == false) add(fmt::format("{}: {}", who, first_line(one.quorum_text)));
    if (one.other_sentinels != others)
      add(fmt::format("{} knows {} other Sentinels, zx.toml has {}", who, one.other_sentinels,
                      others));
    if (waits_too_long(one))
      add(fmt::format("{} waits {} before it takes the master for dead", who,
                      format_duration(one.down_after)),
          fmt::format("SENTINEL SET {} down-after-milliseconds MS on each such Sentinel (its own "
                      "default is 30000), unless a run still puts it back: zx runs list",
                      sentinel.master_name));
    std::vector<std::string> phantoms;
    for (const auto& replica : one.replicas)
      if (replica.is_phantom)
        phantoms.push_back(fmt::format("{}:{}", first_line(replica.address), replica.port));
    if (!phantoms.empty())
      add(fmt::format("{} keeps replicas that do not exist: {}", who, join(phantoms, ", ")),
          fmt::format("SENTINEL RESET {}, one Sentinel after the other, forgets them",
                      sentinel.master_name));
  }
  return out;
}

std::string why_no_quorum(const config::RedisDeployment& deployment, const Snapshot& snapshot) {
  const auto& sentinels = snapshot.sentinels;
  std::vector<std::string> missing;
  std::size_t good = 0, present = 0;
  for (const auto& one : sentinels) {
    const bool can = one.answered() && one.knows_master && one.has_quorum.value_or(false);
    good += can ? 1 : 0;
    present += one.answered() && one.knows_master ? 1 : 0;
    if (can) continue;
    missing.push_back(fmt::format("{}:{} ({})", one.address, one.port,
                                  !one.answered() ? std::string(redis::says(one.failure))
                                  : !one.knows_master
                                      ? "does not watch " + deployment.sentinel.master_name
                                  : one.quorum_text.empty() ? std::string("no word of a quorum")
                                                            : first_line(one.quorum_text)));
  }
  if (sentinels.empty()) return "no Sentinel was asked";
  // One counts the others for a while after they are gone.
  const bool is_majority = 2 * present > sentinels.size();
  if (good > 0 && is_majority) return {};
  if (good > 0)
    return fmt::format("only {} of {} Sentinels can be asked, which is no majority: {}", present,
                       sentinels.size(), join(missing, ", "));
  return "no Sentinel has a quorum: " + join(missing, ", ");
}

}  // namespace zx::ha
