// check, safety, load, save: the data of a file into a server that serves.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"
#include "lib/net/local_address.h"
#include "lib/os/files.h"
#include "lib/os/signals.h"
#include "lib/redis/info.h"
#include "lib/redis/observe.h"

namespace zx::ha {
namespace {

using redis::Role;
using run::StepContext;

constexpr Millis kLookAgain{20};

Result<redis::Target> place_to_ask(RedisWorld& world, const std::string& node) {
  return redis::target_of(world.config(), world.deployment(), node);
}

// --- check ----------------------------------------------------------------------------------

Result<Json> check(RedisWorld& world, StepContext& context) {
  const auto file = file_of(context);
  ZX_ASSIGN(const auto checked, redis::check_file(file));
  if (checked.sha256 != get_string(context.plan().context, "sha256"))
    return fail(Code::refused, file + " has changed since it was looked at",
                "nothing was changed on any server; run it again");
  ZX_ASSIGN(auto throwaway, redis::Throwaway::load_file(throwaway_for(world, context), file));
  ZX_TRY(throwaway.wait_loaded(context.deadline()));
  ZX_ASSIGN(const auto content, throwaway.content(context.deadline(), true));
  const auto recorded = checked.record ? checked.record->digest : std::string();
  // A digest changes with the keys whose time has passed since.
  if (!recorded.empty() && content.expires == 0 && checked.summary.expires == 0 &&
      content.digest != recorded)
    return fail(Code::failed,
                fmt::format("{} has another digest than {} says", file, redis::record_path(file)),
                "it was taken by another version of Redis, or is not the same copy");
  return Json{{"content", content_json(content)}, {"bytes", checked.summary.bytes}};
}

// --- safety ---------------------------------------------------------------------------------

std::string safety_path(const RedisWorld& world, const StepContext& context) {
  return fmt::format("{}/backups/redis/{}-before-{}.rdb", state_dir_of(world),
                     world.deployment().name, context.run_id());
}

redis::RdbSource over_the_wire(const redis::Target& target, Deadline deadline) {
  return [target, deadline](const auto& on_length, const auto& sink) {
    redis::PullOptions options;
    options.until = deadline;
    options.on_length = on_length;
    return redis::pull_rdb(target, options, sink);
  };
}

bool is_here(const RedisWorld& world, const std::string& node) {
  const auto* known = world.deployment().node(node);
  const auto* host = known == nullptr ? nullptr : world.config().host(known->host);
  return host != nullptr && host->remote && host->remote->empty();
}

// From a replica that has every byte; else from the target itself, and never so that a Sentinel
// takes the reader for a replica.
struct From {
  std::string node;
  redis::RdbSource source;
};
Result<From> safety_source(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  const auto offset = get_int(context.seen("hold"), "offset");
  for (const auto& node : get_strings(context.plan().context, "replicas")) {
    const auto facts = facts_of(world, node, context.deadline());
    if (!facts || !facts->is_linked() || facts->link->is_syncing) continue;
    ZX_ASSIGN(const bool has_all,
              wait_until(world, node, context.deadline().at_most(Millis(10'000)),
                         [&](const redis::NodeFacts& now) {
                           return now.is_linked() && now.lineage.offset >= offset;
                         }));
    if (!has_all) continue;
    ZX_ASSIGN(const auto place, place_to_ask(world, node));
    return From{node, over_the_wire(place, context.deadline())};
  }
  ZX_ASSIGN(const auto place, place_to_ask(world, target));
  if (world.deployment().sentinel.master_name.empty())
    return From{target, over_the_wire(place, context.deadline())};
  if (!is_here(world, target))
    return fail(Code::refused,
                fmt::format("no replica of {} has all of it to take a safety copy from", target),
                "bring one back first: zx redis sync --all");
  ZX_ASSIGN(const auto saved, redis::save_on_server(place, context.deadline()));
  return From{target, redis::saved_file(saved)};
}

Result<Json> safety(RedisWorld& world, StepContext& context) {
  ZX_ASSIGN(const auto now, keys_of(world, target_of(context), context.deadline()));
  if (now.keys == 0) return Json{{"skipped", target_of(context) + " has no keys"}};
  const auto path = safety_path(world, context);
  if (os::exists(path)) {  // of this run, before it was killed
    ZX_ASSIGN(const auto checked, redis::check_file(path));
    return Json{{"file", path}, {"keys", checked.summary.keys}};
  }
  ZX_TRY(os::make_directories(os::parent_of(path)));
  ZX_ASSIGN(const auto from, safety_source(world, context));
  redis::BackupOptions options;
  options.deployment = world.deployment().name;
  options.node = from.node;
  options.file = path;
  options.load = false;
  options.until = context.deadline();
  ZX_ASSIGN(const auto backup, redis::take_backup(options, from.source));
  return Json{{"file", path}, {"keys", backup.summary.keys}, {"node", from.node}};
}

// --- load -----------------------------------------------------------------------------------

// Does the target have the data of the file? Its line is its own until the very moment at which
// they are whole.
enum class Fed { no, yes, unknown };
Fed is_fed(const redis::NodeFacts& facts, const Json& before) {
  if (!before.is_object()) return Fed::no;
  // After a restart it has whatever its disk had.
  if (facts.run_id != get_string(before, "run_id")) return Fed::unknown;
  const auto replid = get_string(before, "replid");
  return facts.lineage.replid == replid || facts.lineage.replid2 == replid ? Fed::no : Fed::yes;
}

Status fits(RedisWorld& world, const std::string& target, redis::Throwaway& throwaway,
            Deadline deadline) {
  ZX_ASSIGN(const auto facts, facts_of(world, target, deadline));
  if (facts.memory_max == 0) return {};
  const auto at = throwaway.target();
  auto client = redis::Client::open(at, deadline);
  if (!client) return fail(redis::error_of(at, client.error()));
  const auto info = client->command({"INFO", "memory"}, deadline);
  if (!info) return fail(redis::error_of(at, info.error()));
  const auto used =
      static_cast<std::uint64_t>(redis::Info::parse(info->text).number_or("used_memory", 0));
  if (used <= facts.memory_max) return {};
  return fail(Code::refused,
              fmt::format("the data take {} of memory, and {} has a maxmemory of {}",
                          format_bytes(used), target, format_bytes(facts.memory_max)),
              "raise maxmemory there first: keys would be evicted at once");
}

Status feed(RedisWorld& world, StepContext& context, const Json& before) {
  const auto target = target_of(context);
  const auto deadline = context.deadline();
  auto options = throwaway_for(world, context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, deadline));
  const auto address = facts.addresses.empty() ? facts.address : facts.addresses.front();
  options.listen.emplace();
  ZX_ASSIGN(options.listen->address, net::local_address_towards(address));
  ZX_ASSIGN(options.listen->user, get_setting(world, target, "masteruser", deadline));
  if (get_object(context.seen("hold"), "settings").contains("masterauth")) {
    options.listen->password = random_hex(16);
  } else {
    ZX_ASSIGN(options.listen->password, get_setting(world, target, "masterauth", deadline));
  }
  ZX_ASSIGN(auto throwaway, redis::Throwaway::load_file(options, file_of(context)));
  ZX_TRY(throwaway.wait_loaded(deadline));
  ZX_TRY(fits(world, target, throwaway, deadline));
  ZX_ASSIGN(const int port, throwaway.listen(deadline));
  ZX_TRY(set_setting(world, target, "repl-diskless-load", "swapdb", deadline));
  ZX_TRY(set_setting(world, target, "masterauth", options.listen->password, deadline));
  ZX_TRY(
      tell(world, target, {"REPLICAOF", options.listen->address, std::to_string(port)}, deadline));
  while (true) {
    if (const auto now = facts_of(world, target, deadline)) {
      if (now->is_linked() && is_fed(*now, before) == Fed::yes) return {};
      if (is_fed(*now, before) == Fed::unknown)
        return fail(Code::failed, target + " restarted while it was given the data",
                    "its log says why");
    }
    ZX_TRY(throwaway.alive());
    if (const auto signal = os::interruption()) return fail(*signal);
    if (deadline.passed())
      return fail(
          Code::timeout,
          fmt::format("{} did not take the data from {}:{} in time", target,
                      options.listen->address, port),
          fmt::format("can it reach that address of this host? The log of {} says more", target));
    pause_for(kLookAgain);
  }
}

Result<Json> load(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  if (context.noted("before").is_null()) {
    ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
    ZX_TRY(context.note("before", {{"replid", facts.lineage.replid}, {"run_id", facts.run_id}}));
  }
  const auto before = context.noted("before");
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  const auto fed = is_fed(facts, before);
  if (fed == Fed::unknown) {
    ZX_TRY(context.note("before", {{"replid", facts.lineage.replid}, {"run_id", facts.run_id}}));
    // A restart has put its settings back, and took writes since.
    ZX_TRY(set_setting(world, target, "min-replicas-to-write", "1000000", context.deadline()));
  }
  if (fed != Fed::yes) ZX_TRY(feed(world, context, context.noted("before")));
  // It has them, and what it had is gone.
  ZX_TRY(context.no_return());
  ZX_TRY(tell(world, target, {"REPLICAOF", "NO", "ONE"}, context.deadline()));
  ZX_ASSIGN(const bool is_master,
            wait_until(world, target, context.deadline(),
                       [](const redis::NodeFacts& now) { return now.role == Role::master; }));
  if (!is_master) return fail(Code::timeout, target + " did not become the master again");
  return Json{{"node", target}, {"keys", get_int(content_seen(context), "keys")}};
}

Status unload(RedisWorld& world, StepContext& context) {
  const auto& before = context.noted("before");
  if (!before.is_object()) return {};
  const auto target = target_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  if (is_fed(facts, before) != Fed::no) {
    // A later resume goes forward then, and does not try this again.
    ZX_TRY(context.no_return());
    return fail(Code::refused,
                target + " has the data of the file already, or may have them: what it had is gone",
                fmt::format("finish it: zx runs resume {}; what it had is in {}", context.run_id(),
                            safety_path(world, context)));
  }
  if (facts.role == Role::master) return {};
  ZX_TRY(tell(world, target, {"REPLICAOF", "NO", "ONE"}, context.deadline()));
  return {};
}

// --- save -----------------------------------------------------------------------------------

Status wait_for_aof(RedisWorld& world, const std::string& target, Deadline deadline) {
  while (true) {
    ZX_ASSIGN(const auto text, tell(world, target, {"INFO", "persistence"}, deadline));
    const auto info = redis::Info::parse(text.text);
    const bool is_busy =
        info.is_on("aof_rewrite_in_progress") || info.is_on("aof_rewrite_scheduled");
    const bool is_good = info.text("aof_last_bgrewrite_status") == "ok" &&
                         info.text("aof_last_write_status") == "ok";
    if (!is_busy && is_good && info.is_on("aof_enabled")) return {};
    if (!is_busy && !is_good && info.is_on("aof_enabled"))
      static_cast<void>(world.command(target, {"BGREWRITEAOF"}, deadline));
    if (deadline.passed())
      return fail(Code::timeout, target + " has not written its append-only file anew in time",
                  "its log says why; a full disk, often");
    if (const auto signal = os::interruption()) return fail(*signal);
    pause_for(kLookAgain);
  }
}

Result<Json> save(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  ZX_ASSIGN(const auto aof, get_setting(world, target, "appendonly", context.deadline()));
  if (aof == "yes") {
    ZX_TRY(wait_for_aof(world, target, context.deadline()));
    return Json{{"node", target}, {"how", "append-only file"}};
  }
  ZX_ASSIGN(const auto points, get_setting(world, target, "save", context.deadline()));
  if (points.empty()) return Json{{"skipped", target + " keeps nothing on its disk"}};
  ZX_ASSIGN(const auto place, place_to_ask(world, target));
  ZX_TRY(redis::save_on_server(place, context.deadline()));
  return Json{{"node", target}, {"how", "RDB"}};
}

}  // namespace

void add_redis_restore_load_actions(RedisWorld& world, run::Actions& actions) {
  actions["redis.restore-check"].act = [&world](StepContext& context) {
    return check(world, context);
  };
  actions["redis.restore-safety"].act = [&world](StepContext& context) {
    return safety(world, context);
  };
  auto& loading = actions["redis.restore-load"];
  loading.act = [&world](StepContext& context) { return load(world, context); };
  loading.undo = [&world](StepContext& context) { return unload(world, context); };
  actions["redis.restore-save"].act = [&world](StepContext& context) {
    return save(world, context);
  };
}

}  // namespace zx::ha
