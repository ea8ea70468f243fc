// check, load, save: the data of a file into a server that serves.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/ids.h"
#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"
#include "lib/net/local_address.h"
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

// --- load -----------------------------------------------------------------------------------

Error lost_them(const std::string& target) {
  return {Code::failed,
          target + " restarted while it was given the data, and may have what it had before",
          "its log says why it ended",
          {},
          false};
}

// Does the target have the data of the file? Behind the throwaway server its line is its own until
// the very moment at which they are whole. The line of a master says nothing: it begins another one
// when its first replica comes.
enum class Fed { no, yes, unknown };
Fed is_fed(const redis::NodeFacts& facts, const StepContext& context) {
  const auto& before = context.noted("before");
  if (!before.is_object()) return Fed::no;
  // After a restart it has whatever its disk had.
  if (facts.run_id != get_string(before, "run_id")) return Fed::unknown;
  if (get_string(context.noted("fed"), "run_id") == facts.run_id) return Fed::yes;
  const auto& asked = context.noted("asked");
  if (get_string(asked, "run_id") != facts.run_id || !facts.link ||
      facts.link->master_host != get_string(asked, "host") ||
      facts.link->master_port != get_int(asked, "port"))
    return Fed::no;
  const auto replid = get_string(asked, "replid");
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

// Refused when the target does not follow the throwaway server any more: what it has is not that of
// the file, and whom it follows is not zx's to change.
Status follows_ours(RedisWorld& world, StepContext& context, const redis::NodeFacts& facts) {
  const auto& asked = context.noted("asked");
  if (facts.role != Role::replica || !facts.link ||
      (facts.link->master_host == get_string(asked, "host") &&
       facts.link->master_port == get_int(asked, "port")))
    return {};
  ZX_TRY(still_leads(world, context));
  return fail(Code::refused,
              fmt::format("{} was told to follow {}:{}, which is none of the nodes in zx.toml",
                          facts.name, facts.link->master_host, facts.link->master_port),
              "REPLICAOF NO ONE there makes it the master again, with what it has then");
}

Status feed(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  const auto deadline = context.deadline();
  auto options = throwaway_for(world, context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, deadline));
  const auto address = facts.addresses.empty() ? facts.address : facts.addresses.front();
  options.listen.emplace();
  ZX_ASSIGN(options.listen->address, net::local_address_towards(address));
  ZX_ASSIGN(options.listen->user, get_setting(world, target, "masteruser", deadline));
  if (get_object(context.seen("hold"), "settings").contains(kMasterAuth)) {
    options.listen->password = random_hex(16);
  } else {
    ZX_ASSIGN(options.listen->password, get_setting(world, target, kMasterAuth, deadline));
  }
  ZX_ASSIGN(auto throwaway, redis::Throwaway::load_file(options, file_of(context)));
  ZX_TRY(throwaway.wait_loaded(deadline));
  ZX_TRY(fits(world, target, throwaway, deadline));
  ZX_ASSIGN(const int port, throwaway.listen(deadline));
  ZX_TRY(set_setting(world, target, kDisklessLoad, "swapdb", deadline));
  ZX_TRY(set_setting(world, target, kMasterAuth, options.listen->password, deadline));
  ZX_ASSIGN(const auto last, facts_of(world, target, deadline));
  ZX_TRY(context.note("asked", {{"replid", last.lineage.replid},
                                {"run_id", last.run_id},
                                {"host", options.listen->address},
                                {"port", port}}));
  ZX_TRY(
      tell(world, target, {"REPLICAOF", options.listen->address, std::to_string(port)}, deadline));
  while (true) {
    if (const auto now = facts_of(world, target, deadline)) {
      const auto fed = is_fed(*now, context);
      if (now->is_linked() && fed == Fed::yes)
        return context.note("fed", {{"run_id", now->run_id}});
      if (fed == Fed::unknown) return fail(lost_them(target));
      ZX_TRY(follows_ours(world, context, *now));
      if (now->role == Role::master)
        return fail(Code::refused, target + " was made a master again before it had the data",
                    "somebody else is at work there");
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

// Settings of before, and clients that wrote, since the target restarted: it is held once more,
// and what it has by now is kept too.
Status hold_again(RedisWorld& world, StepContext& context) {
  const auto target = target_of(context);
  ZX_TRY(refuse_writes(world, target, context.deadline()));
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  // Each start of the server has its own: what is kept of an earlier one stays.
  auto path = safety_path(world, context);
  path.insert(path.size() - std::string_view(".rdb").size(), "-" + facts.run_id.substr(0, 8));
  ZX_ASSIGN(const auto kept, keep_a_copy(world, context, facts.lineage, path));
  return context.note("kept", kept);
}

// The target gets the data, and is a master with them. Notes what it was before, for the step that
// it is called from, so that it can be called again.
Result<Json> load_into(RedisWorld& world, StepContext& context, bool has_restarted) {
  ZX_TRY(still_leads(world, context));
  const auto target = target_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  auto fed = is_fed(facts, context);
  if (context.noted("before").is_null() || fed == Fed::unknown) {
    if (has_restarted || fed == Fed::unknown) ZX_TRY(hold_again(world, context));
    ZX_TRY(context.note("before", {{"run_id", facts.run_id}}));
    fed = Fed::no;
  }
  // A zx that was killed may not have noted it, and the link that shows it ends below.
  ZX_TRY(fed == Fed::yes ? context.note("fed", {{"run_id", facts.run_id}}) : feed(world, context));
  // It has them, and what it had is gone.
  ZX_TRY(context.no_return());
  ZX_ASSIGN(const auto last, facts_of(world, target, context.deadline()));
  if (last.role == Role::replica) ZX_TRY(still_leads(world, context));
  ZX_TRY(follows_ours(world, context, last));
  ZX_TRY(tell(world, target, {"REPLICAOF", "NO", "ONE"}, context.deadline()));
  ZX_ASSIGN(const bool is_master,
            wait_until(world, target, context.deadline(),
                       [](const redis::NodeFacts& now) { return now.role == Role::master; }));
  if (!is_master) return fail(Code::timeout, target + " did not become the master again");
  ZX_ASSIGN(const auto now, facts_of(world, target, context.deadline()));
  if (is_fed(now, context) != Fed::yes) return fail(lost_them(target));
  return Json{
      {"node", target}, {"keys", get_int(content_seen(context), "keys")}, {"run_id", now.run_id}};
}

Status unload(RedisWorld& world, StepContext& context) {
  if (!context.noted("before").is_object()) return {};
  const auto target = target_of(context);
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  auto fed = is_fed(facts, context);
  if (fed == Fed::unknown) {
    // What its disk had: by its keys, that is what it had before or what is in the file.
    ZX_ASSIGN(const auto has, keys_of(world, target, context.deadline()));
    if (!are_all(has.keys, content_seen(context))) fed = Fed::no;
  }
  if (fed != Fed::no) {
    // A later resume goes forward then, and does not try this again.
    ZX_TRY(context.no_return());
    return fail(Code::refused,
                target + " has the data of the file already, or may have them: what it had is gone",
                fmt::format("finish it: zx runs resume {}; what it had is in {}", context.run_id(),
                            safety_path(world, context)));
  }
  if (facts.role == Role::master) return {};
  // Behind another node, which somebody has made the master, it stays.
  const auto snapshot = world.observe({}, world.deployment().policy.probe_deadline);
  if (const auto* now = snapshot.node(target); now != nullptr && !master_of(snapshot, *now).empty())
    return {};
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

// Where the data are then; empty: nowhere.
Result<std::string> onto_its_disk(RedisWorld& world, const std::string& target, Deadline deadline) {
  ZX_ASSIGN(const auto aof, get_setting(world, target, "appendonly", deadline));
  if (aof == "yes") {
    ZX_TRY(wait_for_aof(world, target, deadline));
    return std::string("append-only file");
  }
  ZX_ASSIGN(const auto points, get_setting(world, target, "save", deadline));
  if (points.empty()) return std::string();
  ZX_ASSIGN(const auto place, place_to_ask(world, target));
  ZX_TRY(redis::save_on_server(place, deadline));
  return std::string("RDB");
}

// Until they are on its disk, a restart of the server brings back what it had before.
Result<Json> save(RedisWorld& world, StepContext& context) {
  ZX_TRY(still_leads(world, context));
  const auto target = target_of(context);
  auto loaded =
      get_string(context.noted("loaded"), "run_id", get_string(context.seen("load"), "run_id"));
  ZX_ASSIGN(const auto facts, facts_of(world, target, context.deadline()));
  if (facts.run_id != loaded) {
    ZX_ASSIGN(const auto again, load_into(world, context, true));
    loaded = get_string(again, "run_id");
    ZX_TRY(context.note("loaded", again));
  }
  ZX_ASSIGN(const auto where, onto_its_disk(world, target, context.deadline()));
  ZX_ASSIGN(const auto now, facts_of(world, target, context.deadline()));
  if (now.run_id != loaded) return fail(lost_them(target));
  return Json{{"node", target}, {"how", where}, {"run_id", loaded}};
}

}  // namespace

void add_redis_restore_load_actions(RedisWorld& world, run::Actions& actions) {
  auto& checking = actions["redis.restore-check"];
  checking.act = [&world](StepContext& context) { return check(world, context); };
  // The last that is undone: of a zx that was killed, nothing stays on this host either.
  checking.undo = [&world](StepContext&) -> Status {
    redis::sweep_throwaways(state_dir_of(world));
    return {};
  };
  auto& loading = actions["redis.restore-load"];
  loading.act = [&world](StepContext& context) { return load_into(world, context, false); };
  loading.undo = [&world](StepContext& context) { return unload(world, context); };
  actions["redis.restore-save"].act = [&world](StepContext& context) {
    return save(world, context);
  };
}

}  // namespace zx::ha
