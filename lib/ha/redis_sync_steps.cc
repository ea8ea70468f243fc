// point, wait, check, forget the fence: a replica is brought back in line.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"
#include "lib/redis/info.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

std::string master_of_run(const StepContext& context) {
  return get_string(context.plan().context, "master");
}

// The counters that tell which kind of resync it was.
struct Counters {
  std::int64_t full = 0, partial = 0, bytes = 0;
};
Result<Counters> counters_of(RedisWorld& world, const std::string& master, Deadline deadline) {
  // Not for as long as a full resync may take: the master may have gone meanwhile.
  ZX_ASSIGN(const auto reply, tell(world, master, {"INFO", "stats"},
                                   deadline.at_most(world.deployment().policy.probe_deadline)));
  const auto info = redis::Info::parse(reply.text);
  return Counters{info.number_or("sync_full", 0), info.number_or("sync_partial_ok", 0),
                  info.number_or("total_net_repl_output_bytes", 0)};
}

Json to_json(const Counters& c) {
  return {{"full", c.full}, {"partial", c.partial}, {"bytes", c.bytes}};
}
Counters counters_from(const Json& json) {
  return {get_int(json, "full"), get_int(json, "partial"), get_int(json, "bytes")};
}

Status still_leads(RedisWorld& world, StepContext& context) {
  if (const auto urgent = os::giving_way()) return fail(*urgent);
  const auto master = master_of_run(context);
  ZX_ASSIGN(const auto facts, facts_of(world, master, context.deadline()));
  if (facts.role == Role::master) return {};
  return fail(Code::refused, master + " is not the master any more", "zx redis status");
}

Result<Json> point(RedisWorld& world, StepContext& context) {
  const auto node = get_string(context.step().args, "node");
  const auto master = master_of_run(context);
  if (context.noted("before").is_null()) {
    ZX_ASSIGN(const auto facts, facts_of(world, node, context.deadline()));
    ZX_ASSIGN(const auto counters, counters_of(world, master, context.deadline()));
    Json before{{"role", name_of(facts.role)},
                {"offset", facts.lineage.offset},
                {"counters", to_json(counters)}};
    if (facts.link)
      before["link"] = {{"host", facts.link->master_host}, {"port", facts.link->master_port}};
    ZX_TRY(context.note("before", before));
  }
  // What it has of its own is given up from here on.
  ZX_TRY(context.no_return());
  ZX_TRY(follow(world, node, master, context.deadline()));
  Json seen{{"node", node}, {"to", master}, {"before", context.noted("before")}};
  if (get_bool(context.step().args, "demotes")) {
    ZX_ASSIGN(seen["clients"], cut_clients(world, node, context.deadline()));
  }
  return seen;
}

// Of everything that has been pointed, or of this step's own beginning.
Result<Counters> counters_before(RedisWorld& world, StepContext& context, const std::string& node) {
  const auto& pointed = get_object(context.seen("point " + node), "before");
  if (pointed.is_object()) return counters_from(get_object(pointed, "counters"));
  if (context.noted("counters").is_null()) {
    ZX_ASSIGN(const auto counters, counters_of(world, master_of_run(context), context.deadline()));
    ZX_TRY(context.note("counters", to_json(counters)));
  }
  return counters_from(context.noted("counters"));
}

Result<Json> wait_in_line(RedisWorld& world, StepContext& context) {
  const auto node = get_string(context.step().args, "node");
  const auto master = master_of_run(context);
  ZX_ASSIGN(const auto before, counters_before(world, context, node));
  const auto begun = monotonic_now();
  ZX_ASSIGN(const auto leader, facts_of(world, master, context.deadline()));
  std::string state = "it does not answer";
  ZX_ASSIGN(
      const bool is_there, wait_until(world, node, context.deadline(), [&](const auto& facts) {
        if (!facts.link)
          state = "it follows nobody";
        else if (facts.link->is_syncing)
          state = "it is still in a full resync";
        else if (!facts.link->is_up)
          state = "its link is down";
        else
          state =
              fmt::format("it is at offset {} of {}", facts.lineage.offset, leader.lineage.offset);
        return facts.is_linked() && !facts.link->is_syncing &&
               redis::is_same_line(facts.lineage, leader.lineage) &&
               facts.lineage.offset >= leader.lineage.offset;
      }));
  if (!is_there)
    return fail(Code::timeout, fmt::format("{} is not in line with {}: {}", node, master, state),
                fmt::format("it goes on by itself where it can; look with zx redis sync {} "
                            "--dry-run",
                            node));
  ZX_ASSIGN(const auto after, counters_of(world, master, context.deadline()));
  const bool is_full = after.full > before.full;
  const char* how = is_full ? "full" : after.partial > before.partial ? "partial" : "none";
  return Json{{"node", node},
              {"from", master},
              {"resync", how},
              {"bytes", std::max<std::int64_t>(0, after.bytes - before.bytes)},
              {"ms", since(begun).count()},
              {"offset", leader.lineage.offset}};
}

struct Arrived {
  Result<std::string> how;
};

Result<Json> check_arrival(RedisWorld& world, StepContext& context) {
  const auto master = master_of_run(context);
  const auto nodes = get_strings(context.step().args, "nodes");
  ZX_TRY(write_canary(world, master, context.run_id(), context.deadline()));
  const auto found = all_at_once<Arrived>(nodes, [&](const std::string& node) {
    return Arrived{wait_behind(world, node, master, context.run_id(), context.deadline())};
  });
  if (!os::giving_way())
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

Result<Json> forget_fence(RedisWorld& world, StepContext& context) {
  Json seen{{"nodes", Json::array()}};
  for (const auto& node : get_strings(context.step().args, "nodes")) {
    ZX_TRY(world.on_host_of(node, "redis-forget-fence", Json::object(), context.deadline().left()));
    seen["nodes"].push_back(node);
  }
  return seen;
}

}  // namespace

void add_redis_sync_actions(RedisWorld& world, run::Actions& actions) {
  const auto guard = [&world](StepContext& c) { return still_leads(world, c); };
  actions["redis.sync.point"] = {
      guard, [&world](StepContext& c) { return point(world, c); }, {}, {}};
  actions["redis.sync.wait"] = {
      guard, [&world](StepContext& c) { return wait_in_line(world, c); }, {}, {}};
  actions["redis.sync.check"] = {
      guard, [&world](StepContext& c) { return check_arrival(world, c); }, {}, {}};
  actions["redis.sync.forget_fence"] = {
      {}, [&world](StepContext& c) { return forget_fence(world, c); }, {}, {}};
}

}  // namespace zx::ha
