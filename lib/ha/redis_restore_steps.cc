// calm, hold, release, write, sentinels: what stands still during a restore, and is put back after
// it.
#include "lib/ha/redis_restore_steps.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/log.h"
#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"

namespace zx::ha {
namespace {

using run::StepContext;

constexpr Millis kLookAgain{50};

// --- calm, sentinels ------------------------------------------------------------------------

Status set_down_after(RedisWorld& world, std::size_t index, std::int64_t ms, Deadline deadline) {
  const auto reply = world.ask_sentinel(index,
                                        {"SENTINEL", "SET", world.deployment().sentinel.master_name,
                                         "down-after-milliseconds", std::to_string(ms)},
                                        deadline);
  if (!reply) return fail(reply.error().error);
  return {};
}

Result<Json> calm(RedisWorld& world, StepContext& context) {
  redis::Snapshot snapshot;
  snapshot.sentinels = world.observe_sentinels(world.deployment().policy.probe_deadline);
  const auto& found = snapshot.sentinels;
  auto before = context.noted("before").is_object() ? context.noted("before") : Json::object();
  ZX_TRY(can_be_calmed(world.deployment(), snapshot));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto key = std::to_string(i);
    if (!found[i].answered() || !found[i].knows_master) continue;
    if (!before.contains(key) && found[i].down_after == kCalm) {
      ZX_TRY(no_restore_left(world.deployment(), snapshot, {}));
    } else if (!before.contains(key)) {
      before[key] = found[i].down_after.count();
    }
  }
  ZX_TRY(context.note("before", before));
  for (const auto& [key, ms] : before.items())
    ZX_TRY(set_down_after(world, std::stoul(key), kCalm.count(), context.deadline()));
  return Json{{"before", before}, {"sentinels", before.size()}};
}

Status uncalm(RedisWorld& world, const Json& before, Deadline deadline) {
  std::optional<Error> first;
  if (!before.is_object()) return {};
  for (const auto& [key, ms] : before.items()) {
    if (!ms.is_number_integer() || key.find_first_not_of("0123456789") != std::string::npos)
      continue;
    const auto status = set_down_after(world, std::stoul(key), ms.get<std::int64_t>(), deadline);
    if (!status && !first) first = status.error();
  }
  if (first) {
    std::vector<std::string> each;
    for (const auto& [key, ms] : before.items()) {
      const auto place =
          config::endpoint_of(world.config(), world.deployment().sentinel.nodes[std::stoul(key)]);
      each.push_back(fmt::format("{}:{} {}", place.address, place.port, dump_line(ms)));
    }
    first->hint =
        "every Sentinel needs its down-after-milliseconds back (SENTINEL SET): " + join(each, ", ");
    return fail(*first);
  }
  return {};
}

// What stands against it; empty: they see the master where it is, and could fail over.
std::string against(const redis::SentinelFacts& facts, const Place& place) {
  if (!facts.answered()) return fmt::format("{}:{} does not answer", facts.address, facts.port);
  const auto has = [&](const char* flag) {
    return std::find(facts.flags.begin(), facts.flags.end(), flag) != facts.flags.end();
  };
  const auto name = fmt::format("{}:{}", facts.address, facts.port);
  if (!facts.knows_master) return name + " does not know the master";
  if (facts.master_port != place.port)
    return fmt::format("{} says that {}:{} is the master", name, facts.master_host,
                       facts.master_port);
  if (facts.down_after == kCalm)
    return fmt::format("{} waits {} before it takes the master for down", name,
                       format_duration(kCalm));
  if (has("s_down") || has("o_down")) return name + " takes the master for down";
  if (!facts.has_quorum.value_or(true)) return name + " has no quorum: " + facts.quorum_text;
  return {};
}

Result<Json> wake_sentinels(RedisWorld& world, StepContext& context) {
  ZX_TRY(uncalm(world, get_object(context.seen("calm"), "before"), context.deadline()));
  std::string node;
  while (true) {
    ZX_ASSIGN(node, serving(world, context));
    const auto place = place_of(world, node);
    std::string problem;
    for (const auto& facts : world.observe_sentinels(world.deployment().policy.probe_deadline))
      if (problem.empty()) problem = against(facts, place);
    if (problem.empty()) break;
    if (context.deadline().passed())
      return fail(Code::timeout, "the Sentinels are not content: " + problem, "zx redis status");
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
  return Json{{"node", node}};
}

// --- hold, release, write -------------------------------------------------------------------

Result<Json> hold(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  if (context.noted("settings").is_null()) {
    Json settings = Json::object();
    for (const char* name : {kMinReplicas, kDisklessLoad}) {
      ZX_ASSIGN(settings[name], get_setting(world, target, name, context.deadline()));
    }
    if (get_string(settings, kMinReplicas) == std::to_string(kHeldReplicas)) {
      auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
      snapshot.sentinels.clear();  // this run's own
      ZX_TRY(no_restore_left(world.deployment(), snapshot, target));
      return fail(Code::refused, "another restore of " + target + " has ended at this moment",
                  "run it again");
    }
    // A password is neither journalled nor changed. Where there is none, one is set meanwhile.
    ZX_ASSIGN(const auto password, get_setting(world, target, kMasterAuth, context.deadline()));
    if (password.empty()) settings[kMasterAuth] = "";
    ZX_TRY(context.note("settings", settings));
  }
  ZX_TRY(refuse_writes(world, target, context.deadline()));
  // No write is acknowledged from here on: this is all there will be to keep.
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  return Json{{"settings", context.noted("settings")},
              {"offset", facts.lineage.offset},
              {"replid", facts.lineage.replid},
              {"keys", facts.keys}};
}

Status put_back(RedisWorld& world, const std::string& target, const Json& settings,
                Deadline deadline) {
  if (!settings.is_object()) return {};
  for (const auto& [name, value] : settings.items())
    if (value.is_string())
      ZX_TRY(set_setting(world, target, name, value.get<std::string>(), deadline));
  return {};
}

Result<Json> release(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  ZX_TRY(put_back(world, target, get_object(context.seen("hold"), "settings"), context.deadline()));
  ZX_TRY(mend_config_file(world, target, context.deadline()));
  ZX_ASSIGN(const auto now, get_setting(world, target, kMinReplicas, context.deadline()));
  if (now == std::to_string(kHeldReplicas))
    return fail(Code::failed, fmt::format("{} still has {} {}", target, kMinReplicas, now),
                fmt::format("CONFIG SET {} there, to what it was", kMinReplicas));
  note_master(world);
  return Json{{"node", target}, {kMinReplicas, now}};
}

// What a setting says and what a client is answered are two things.
Result<Json> try_a_write(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto target, serving(world, context));
  const auto written = write_canary(world, target, context.run_id(), context.deadline());
  if (written) {
    ZX_TRY(drop_canary(world, target, context.run_id(),
                       Deadline::after(world.deployment().policy.probe_deadline)));
    return Json{{"node", target}};
  }
  if (written.error().code != Code::auth) return fail(written.error());
  // The user has no right to keys, nor needs one for anything else of a restore.
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  const auto good = facts.min_replicas_good.value_or(facts.min_replicas_to_write);
  if (facts.role != redis::Role::master || good < facts.min_replicas_to_write)
    return fail(Code::failed,
                fmt::format("{} takes no writes: {} good replicas of at least {}", target, good,
                            facts.min_replicas_to_write),
                "zx redis sync --all");
  return Json{{"skipped", "the ACL user may not write a key to try"}};
}

}  // namespace

std::string target_of(const StepContext& context) {
  return get_string(context.plan().context, "target");
}

std::string other_master(const redis::Snapshot& snapshot, const std::string& target) {
  for (const auto& facts : snapshot.nodes)
    if (facts.name != target && facts.answered() && facts.role == redis::Role::master)
      return facts.name;
  // One that is given data follows a server that is none of them.
  const auto* facts = snapshot.node(target);
  return facts != nullptr && facts->answered() ? master_of(snapshot, *facts) : std::string();
}

namespace {

tl::unexpected<Error> moved(const StepContext& context, const std::string& to) {
  // Before it may have them everything is taken back.
  const bool is_before = context.step().name == "load" && context.noted("fed").is_null();
  return fail(Code::refused,
              fmt::format("{} is not the master any more: somebody, or the Sentinels, made {} it",
                          target_of(context), to),
              is_before
                  ? fmt::format("restore on {}: --target {}", to, to)
                  : fmt::format("what {} has counts now; end this run, settings and Sentinels are "
                                "put back: zx runs abort {} --as-is; then restore on {}",
                                to, context.run_id(), to));
}

}  // namespace

Status still_leads(RedisWorld& world, const StepContext& context) {
  const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
  const auto other = other_master(snapshot, target_of(context));
  if (!other.empty()) return moved(context, other);
  return {};
}

Result<std::string> serving(RedisWorld& world, const StepContext& context) {
  const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
  const auto other = other_master(snapshot, target_of(context));
  if (other.empty()) return target_of(context);
  const auto& compared = context.seen("compare");
  redis::Lineage all;
  all.replid = get_string(compared, "replid");
  all.offset = get_int(compared, "offset");
  const auto* facts = snapshot.node(other);
  if (!all.replid.empty() && facts->answered() && redis::is_prefix_of(all, facts->lineage))
    return other;
  return moved(context, other);
}

std::string file_of(const StepContext& context) {
  return get_string(context.plan().context, "file");
}

redis::ThrowawayOptions throwaway_for(const RedisWorld& world, const StepContext& context) {
  redis::ThrowawayOptions options;
  options.bin_dir = world.deployment().bin_dir;
  options.base = state_dir_of(world);
  options.databases = static_cast<int>(
      std::clamp<std::int64_t>(get_int(context.plan().context, "databases", 16), 1, 1 << 20));
  return options;
}

Json content_json(const redis::RdbContent& content) {
  return Json{{"keys", content.keys}, {"expires", content.expires}, {"digest", content.digest}};
}

const Json& content_seen(const StepContext& context) {
  return get_object(context.seen("file"), "content");
}

Result<std::string> get_setting(RedisWorld& world, const std::string& node, const std::string& name,
                                Deadline deadline) {
  ZX_ASSIGN(const auto reply, tell(world, node, {"CONFIG", "GET", name}, deadline));
  if (reply.items.size() != 2)
    return fail(Code::server, fmt::format("{} does not tell its {}", node, name),
                "the ACL user needs +config");
  return reply.items[1].text;
}

Status mend_config_file(RedisWorld& world, const std::string& node, Deadline deadline) {
  const auto found = world.on_host_of(node, "redis-inspect", Json::object(), deadline.left());
  if (!found)
    log::warning(
        fmt::format("the configuration file of {} was not looked at, a CONFIG REWRITE during "
                    "the restore may have kept {} {}: {}",
                    node, kMinReplicas, kHeldReplicas, found.error().message));
  if (!found || !redis::local_from_json(*found).holds_writes) return {};
  ZX_TRY(tell(world, node, {"CONFIG", "REWRITE"}, deadline));
  return {};
}

Status refuse_writes(RedisWorld& world, const std::string& node, Deadline deadline) {
  return set_setting(world, node, kMinReplicas, std::to_string(kHeldReplicas), deadline);
}

Status set_setting(RedisWorld& world, const std::string& node, const std::string& name,
                   const std::string& value, Deadline deadline) {
  ZX_TRY(tell(world, node, {"CONFIG", "SET", name, value}, deadline));
  return {};
}

Result<redis::RdbContent> keys_of(RedisWorld& world, const std::string& node, Deadline deadline) {
  ZX_ASSIGN(const auto info, tell(world, node, {"INFO", "keyspace"}, deadline));
  return redis::content_from(info.text);
}

void add_redis_restore_hold_actions(RedisWorld& world, run::Actions& actions) {
  auto& calming = actions["redis.restore-calm"];
  calming.act = [&world](StepContext& context) { return calm(world, context); };
  calming.undo = [&world](StepContext& context) {
    return uncalm(world, context.noted("before"), context.deadline());
  };
  auto& holding = actions["redis.restore-hold"];
  holding.act = [&world](StepContext& context) { return hold(world, context); };
  holding.undo = [&world](StepContext& context) -> Status {
    const auto target = target_of(context);
    ZX_TRY(put_back(world, target, context.noted("settings"), context.deadline()));
    return mend_config_file(world, target, context.deadline());
  };
  actions["redis.restore-release"].act = [&world](StepContext& context) {
    return release(world, context);
  };
  actions["redis.restore-write"].act = [&world](StepContext& context) {
    return try_a_write(world, context);
  };
  actions["redis.restore-sentinels"].act = [&world](StepContext& context) {
    return wake_sentinels(world, context);
  };
}

}  // namespace zx::ha
