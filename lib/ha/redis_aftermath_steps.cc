// What comes after a node has become the master, however it did: repoint, check, follow, rewrite,
// cut, receipt.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_steps.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

// The nodes of a step; the final choice may be another than the one planned, which then follows.
std::vector<std::string> nodes_of(const StepContext& context) {
  auto nodes = get_strings(context.step().args, "nodes");
  const auto master = new_master_of(context);
  const auto planned = get_string(context.plan().context, "to");
  std::erase(nodes, master);
  if (!planned.empty() && planned != master &&
      std::find(nodes.begin(), nodes.end(), planned) == nodes.end())
    nodes.push_back(planned);
  return nodes;
}

// For a run that was taken up again: whom it made the master is the only one. Others may have acted
// since, and nobody may be pointed at it then.
Status still_serves(RedisWorld& world, StepContext& context) {
  if (!context.resumed()) return {};
  const auto master = new_master_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, master, context.deadline()));
  if (facts.role != Role::master)
    return fail(Code::refused, master + " is not the master any more",
                fmt::format("when another has taken over, end the run as it is: zx runs abort {} "
                            "--as-is; then zx redis sync --all",
                            context.run_id()));
  std::vector<std::string> known{master};
  // An old one is a master until its own step has made it a replica.
  if (context.step().name == "check") known.push_back(old_master_of(context));
  return no_master_but(world, context, known);
}

struct One {
  Status status;
};

Result<Json> repoint(RedisWorld& world, StepContext& context) {
  const auto master = new_master_of(context);
  const auto nodes = nodes_of(context);
  const auto done = all_at_once<One>(nodes, [&](const std::string& node) {
    return One{follow(world, node, master, context.deadline())};
  });
  Json seen{{"told", Json::array()}, {"to", master}};
  std::optional<Error> first;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!done[i].status && !first) first = done[i].status.error();
    if (done[i].status) seen["told"].push_back(nodes[i]);
  }
  if (first) return fail(*first);
  return seen;
}

Result<Json> check(RedisWorld& world, StepContext& context) {
  const auto master = new_master_of(context);
  ZX_TRY(write_canary(world, master, context.run_id(), context.deadline()));
  note_master(world, old_master_of(context));
  return Json{{"node", master}, {"key", canary_key(context.run_id())}};
}

struct Behind {
  Result<std::string> how;
};

Result<Json> wait_for_followers(RedisWorld& world, StepContext& context) {
  const auto master = new_master_of(context);
  const auto nodes = nodes_of(context);
  // It may have gone since it was written: a run is resumed hours later.
  ZX_TRY(write_canary(world, master, context.run_id(), context.deadline()));
  const auto found = all_at_once<Behind>(nodes, [&](const std::string& node) {
    return Behind{
        wait_behind(world, node, master, context.run_id(), context.deadline(), os::giving_way)};
  });
  static_cast<void>(drop_canary(world, master, context.run_id(), context.deadline()));
  Json seen{{"nodes", Json::object()}, {"from", master}};
  std::optional<Error> first;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!found[i].how && !first) first = found[i].how.error();
    if (found[i].how) seen["nodes"][nodes[i]] = *found[i].how;
  }
  if (first) return fail(*first);
  return seen;
}

// A server without a configuration file keeps nothing: said, not an error, for nothing can be done
// about it now.
Result<Json> rewrite(RedisWorld& world, StepContext& context) {
  auto nodes = get_strings(context.step().args, "nodes");
  Json seen{{"nodes", Json::array()}, {"without", Json::object()}};
  std::optional<Error> first;
  for (const auto& node : nodes) {
    const auto reply = world.command(node, {"CONFIG", "REWRITE"}, context.deadline());
    if (reply) {
      seen["nodes"].push_back(node);
      continue;
    }
    const bool has_none = reply.error().reply.find("without a config file") != std::string::npos;
    if (has_none || reply.error().why == redis::Failure::permission) {
      seen["without"][node] =
          has_none ? "it runs without a configuration file" : "the ACL user may not CONFIG REWRITE";
      continue;
    }
    if (!first) first = reply.error().error;
  }
  const auto master = new_master_of(context);
  const auto kept = get_strings(seen, "nodes");
  if (std::find(kept.begin(), kept.end(), master) != kept.end()) {
    // A fence of a failover before says that it starts as a replica. That its host cannot be
    // reached is no reason to fail: it is the master all the same.
    const auto forgotten =
        world.on_host_of(master, "redis-forget-fence", Json::object(), context.deadline().left());
    if (!forgotten) seen["fence_record"] = forgotten.error().message;
  }
  if (first) return fail(*first);
  return seen;
}

Result<Json> cut(RedisWorld& world, StepContext& context) {
  const auto old = old_master_of(context);
  ZX_ASSIGN(const auto ended, cut_clients(world, old, context.deadline()));
  return Json{{"node", old}, {"clients", ended}};
}

// Bytes of the old master's stream that the new one did not have when it took over.
Result<Json> receipt(RedisWorld&, StepContext& context) {
  const auto& chosen = context.seen("choose");
  const auto& promoted = context.seen("promote");
  const auto& reference =
      chosen.is_object() ? chosen : get_object(context.plan().context, "reference");
  const auto end = get_int(reference, "end");
  const auto at = promoted.is_object() ? get_int(promoted, "offset")
                                       : get_int(context.seen("hand over"), "offset");
  return Json{{"bytes", std::max<std::int64_t>(0, end - at)},
              {"exact", get_bool(reference, "exact")},
              {"from", std::to_string(at)},
              {"end", std::to_string(end)}};
}

}  // namespace

void add_redis_aftermath_actions(RedisWorld& world, run::Actions& actions) {
  const auto guard = [&world](StepContext& c) { return still_serves(world, c); };
  actions["redis.repoint"] = {
      guard, [&world](StepContext& c) { return repoint(world, c); }, {}, {}};
  actions["redis.check"] = {guard, [&world](StepContext& c) { return check(world, c); }, {}, {}};
  actions["redis.follow"] = {
      guard, [&world](StepContext& c) { return wait_for_followers(world, c); }, {}, {}};
  actions["redis.rewrite"] = {{}, [&world](StepContext& c) { return rewrite(world, c); }, {}, {}};
  actions["redis.cut"] = {guard, [&world](StepContext& c) { return cut(world, c); }, {}, {}};
  actions["redis.receipt"] = {{}, [&world](StepContext& c) { return receipt(world, c); }, {}, {}};
}

}  // namespace zx::ha
