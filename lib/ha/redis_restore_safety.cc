// safety: a copy of what the target has, before it is replaced.
#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/files.h"
#include "lib/redis/observe.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

constexpr Millis kCatchUp{10'000};

redis::RdbSource over_the_wire(const redis::Target& target, Deadline deadline) {
  return [target, deadline](const auto& on_length, const auto& sink) {
    redis::PullOptions options;
    options.until = deadline;
    options.on_length = on_length;
    return redis::pull_rdb(target, options, sink);
  };
}

// From a replica that has every byte; else from the target itself, and never so that a Sentinel
// takes the reader for a replica.
struct From {
  std::string node;
  redis::RdbSource source;
};
Result<From> source_of(RedisWorld& world, StepContext& context, const redis::Lineage& all) {
  const auto target = target_of(context);
  const auto has_all = [&](const redis::NodeFacts& now) {
    return now.is_linked() && !now.link->is_syncing && now.lineage.replid == all.replid &&
           now.lineage.offset >= all.offset;
  };
  for (const auto& node : get_strings(context.plan().context, "replicas")) {
    const auto facts = facts_of(world, node, context.deadline());
    if (!facts || facts->role != Role::replica) continue;
    ZX_ASSIGN(const bool is_so,
              wait_until(world, node, context.deadline().at_most(kCatchUp), has_all));
    if (!is_so) continue;
    ZX_ASSIGN(const auto place, redis::target_of(world.config(), world.deployment(), node));
    return From{node, over_the_wire(place, context.deadline())};
  }
  ZX_ASSIGN(const auto place, redis::target_of(world.config(), world.deployment(), target));
  if (world.deployment().sentinel.master_name.empty())
    return From{target, over_the_wire(place, context.deadline())};
  if (!is_here(world, target))
    return fail(Code::refused,
                fmt::format("no replica of {} has all of it to take a safety copy from", target),
                "bring one back first: zx redis sync --all");
  ZX_ASSIGN(const auto saved, redis::save_on_server(place, context.deadline()));
  return From{target, redis::saved_file(saved)};
}

}  // namespace

bool is_here(const RedisWorld& world, const std::string& node) {
  const auto* known = world.deployment().node(node);
  const auto* host = known == nullptr ? nullptr : world.config().host(known->host);
  return host != nullptr && host->remote && host->remote->empty();
}

std::string safety_path(const RedisWorld& world, const StepContext& context) {
  return fmt::format("{}/backups/redis/{}-before-{}.rdb", state_dir_of(world),
                     world.deployment().name, context.run_id());
}

namespace {

// `find` says from where; `owner` is whose keys they are.
Result<Json> keep(RedisWorld& world, StepContext& context, const std::string& owner,
                  const std::string& path, const std::function<Result<From>()>& find) {
  ZX_ASSIGN(const auto now, keys_of(world, owner, context.deadline()));
  if (now.keys == 0) return Json{{"skipped", owner + " has no keys"}};
  if (os::exists(path)) {  // of this run, before it was killed
    ZX_ASSIGN(const auto checked, redis::check_file(path));
    return Json{{"file", path}, {"keys", checked.summary.keys}};
  }
  ZX_TRY(os::make_directories(os::parent_of(path)));
  ZX_ASSIGN(const auto from, find());
  redis::BackupOptions options;
  options.deployment = world.deployment().name;
  options.node = from.node;
  options.file = path;
  options.load = false;
  options.until = context.deadline();
  ZX_ASSIGN(const auto backup, redis::take_backup(options, from.source));
  return Json{{"file", path}, {"keys", backup.summary.keys}, {"node", from.node}};
}

// Of a target that is stopped: what a replica has of it, which may be more than its disk has. Over
// the wire it gives nothing away while its master is down.
Result<Json> keep_of_replica(RedisWorld& world, StepContext& context, const std::string& node) {
  return keep(world, context, node, safety_path(world, context), [&]() -> Result<From> {
    ZX_ASSIGN(const auto place, redis::target_of(world.config(), world.deployment(), node));
    ZX_ASSIGN(const auto saved, redis::save_on_server(place, context.deadline()));
    return From{node, redis::saved_file(saved)};
  });
}

}  // namespace

Result<Json> keep_a_copy(RedisWorld& world, StepContext& context, const redis::Lineage& all,
                         const std::string& path) {
  return keep(world, context, target_of(context), path,
              [&] { return source_of(world, context, all); });
}

void add_redis_restore_safety_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.restore-safety"].act = [&world](StepContext& context) {
    const auto keeper = get_string(context.plan().context, "keeper");
    if (!keeper.empty()) return keep_of_replica(world, context, keeper);
    redis::Lineage held;
    held.replid = get_string(context.seen("hold"), "replid");
    held.offset = get_int(context.seen("hold"), "offset");
    return keep_a_copy(world, context, held, safety_path(world, context));
  };
}

}  // namespace zx::ha
