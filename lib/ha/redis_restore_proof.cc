// follow, compare: the master and its replicas have what is in the file, and nothing else.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"
#include "lib/os/signals.h"
#include "lib/redis/observe.h"

namespace zx::ha {
namespace {

using run::StepContext;

constexpr Millis kLookAgain{20};

// Of a server that keeps nothing on its disk, which has restarted since.
Status has_them_still(RedisWorld& world, StepContext& context) {
  const auto& saved = context.seen("save");
  if (!saved.contains("how") || !get_string(saved, "how").empty()) return {};
  const auto target = target_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  if (facts.run_id == get_string(saved, "run_id")) return {};
  return fail(Code::failed,
              target + " restarted, and keeps nothing on its disk: the data of the file are gone",
              fmt::format("end this run: zx runs abort {} --as-is, and restore once more",
                          context.run_id()));
}

// A master that is gone for longer than a supervisor takes to start it again.
class Gone {
 public:
  Gone(RedisWorld& world, const std::string& node) : world_(world), node_(node) {}
  bool is_so(bool answers) const {
    constexpr Millis kRestart{15'000}, kApart{20};
    if (answers) since_.reset();
    if (answers) return false;
    if (!since_) since_ = monotonic_now();
    return since(*since_) > kRestart &&
           world_.refuses(node_, 2, kApart, world_.deployment().policy.probe_deadline);
  }

 private:
  RedisWorld& world_;
  const std::string& node_;
  mutable std::optional<Monotonic> since_;
};

Result<Json> follow_again(RedisWorld& world, StepContext& context) {
  ZX_TRY(still_leads(world, context));
  ZX_TRY(has_them_still(world, context));
  const auto target = target_of(context);
  const auto port = place_of(world, target).port;
  const Gone gone(world, target);
  Json keys = Json::object();
  for (const auto& node : get_strings(context.plan().context, "replicas")) {
    // The master's line changes once more when the first replica comes: it is asked each time.
    bool has_moved = false, is_gone = false;
    ZX_ASSIGN(const bool is_behind,
              wait_until(world, node, context.deadline(), [&](const redis::NodeFacts& facts) {
                const auto master = facts_of(world, target, context.deadline());
                has_moved = facts.role == redis::Role::master ||
                            (master && master->role == redis::Role::replica);
                is_gone = gone.is_so(master.has_value());
                if (has_moved || is_gone) return true;
                return master && facts.is_linked() && !facts.link->is_syncing &&
                       facts.link->master_port == port &&
                       facts.lineage.replid == master->lineage.replid &&
                       facts.lineage.offset >= master->lineage.offset;
              }));
    if (has_moved) ZX_TRY(still_leads(world, context));
    if (is_gone)
      return fail(Code::failed, target + " does not run any more: it refuses connections",
                  fmt::format("start it, then zx runs resume {}; its replicas wait for it",
                              context.run_id()));
    if (has_moved || !is_behind)
      return fail(Code::timeout, fmt::format("{} does not follow {} again", node, target),
                  "zx redis sync " + node);
    while (true) {
      ZX_ASSIGN(const auto has, keys_of(world, node, context.deadline()));
      keys[node] = has.keys;
      if (are_all(has.keys, content_seen(context))) break;
      if (context.deadline().passed())
        return fail(Code::failed,
                    fmt::format("{} has {} keys, and the file has {}", node, has.keys,
                                get_int(content_seen(context), "keys")),
                    "zx redis sync " + node);
      if (const auto signal = os::interruption()) return fail(*signal);
      pause_for(kLookAgain);
    }
  }
  return Json{{"keys", keys}, {"to", target}};
}

// The digest that a server itself tells, where it may; else that of a copy over the wire which
// another server loads, of a replica where there is one.
struct Told {
  std::string digest, by;
};
Result<Told> digest_of(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  const auto said = world.command(target, {"DEBUG", "DIGEST"}, context.deadline());
  if (said) return Told{first_line(said->text), target};
  std::string from;
  for (const auto& node : get_strings(context.plan().context, "replicas")) {
    const auto facts = facts_of(world, node, context.deadline());
    if (facts && facts->is_linked()) from = node;
  }
  if (from.empty() && !world.deployment().sentinel.master_name.empty()) return Told{};
  if (from.empty()) from = target;
  ZX_ASSIGN(const auto place, redis::target_of(world.config(), world.deployment(), from));
  redis::PullOptions pull;
  pull.until = context.deadline();
  ZX_ASSIGN(const auto content, redis::content_of(
                                    throwaway_for(world, context), state_dir_of(world),
                                    [&](const auto& on_length, const auto& sink) {
                                      pull.on_length = on_length;
                                      return redis::pull_rdb(place, pull, sink);
                                    },
                                    context.deadline()));
  return Told{content.digest, "a copy of " + from};
}

Result<Json> compare(RedisWorld& world, StepContext& context) {
  ZX_TRY(still_leads(world, context));
  ZX_TRY(has_them_still(world, context));
  const auto target = target_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  const auto& content = content_seen(context);
  ZX_ASSIGN(const auto has, keys_of(world, target, context.deadline()));
  const auto wanted = get_int(content, "keys");
  const auto wrong = [&](const std::string& what) {
    return fail(
        Code::failed, what,
        fmt::format("what it had is in {}; to end the run with the data as they are: zx "
                    "runs abort {} --as-is",
                    get_string(context.seen("safety copy"), "file", "the files beside its own"),
                    context.run_id()));
  };
  if (!are_all(has.keys, content))
    return wrong(fmt::format("{} has {} keys, and the file has {}", target, has.keys, wanted));
  ZX_ASSIGN(const auto told, digest_of(world, context));
  Json seen{{"node", target},
            {"keys", has.keys},
            {"digest", told.digest},
            {"by", told.by},
            {"replid", facts.lineage.replid},
            {"offset", facts.lineage.offset}};
  note_master(world);  // what it has now is what it is measured against from here on
  if (told.digest == get_string(content, "digest")) return seen;
  // Nobody could be asked, or keys have gone by their own time: then it cannot be the same.
  if (told.digest.empty()) {
    seen["not_compared"] = "no replica gives a copy, and DEBUG is disabled";
    return seen;
  }
  ZX_ASSIGN(const auto now, keys_of(world, target, context.deadline()));
  if (now.keys < wanted) {
    seen["not_compared"] = fmt::format("{} keys have expired since", wanted - now.keys);
    return seen;
  }
  return wrong(fmt::format("{} has as many keys as the file, and another digest", target));
}

}  // namespace

bool are_all(std::int64_t keys, const Json& content) {
  const auto wanted = get_int(content, "keys");
  return keys <= wanted && keys >= wanted - get_int(content, "expires");
}

void add_redis_restore_proof_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.restore-follow"].act = [&world](StepContext& context) {
    return follow_again(world, context);
  };
  actions["redis.restore-compare"].act = [&world](StepContext& context) {
    return compare(world, context);
  };
}

}  // namespace zx::ha
