// What a restore that is ended as it is puts back, and what it leaves.
#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"
#include "lib/ha/redis_judge.h"
#include "lib/ha/redis_restore_steps.h"
#include "lib/ha/redis_steps.h"
#include "lib/redis/observe.h"

namespace zx::ha {
namespace {

const Json& noted_by(const run::Record& record, const char* step, const char* key) {
  static const Json nothing;
  const auto found = record.steps.find(step);
  if (found == record.steps.end()) return nothing;
  const auto note = found->second.notes.find(key);
  return note == found->second.notes.end() ? nothing : note->second;
}

std::string cli(const std::string& address, int port) {
  return fmt::format("redis-cli -h {} -p {} ", address, port);
}

class Leaving {
 public:
  Leaving(RedisWorld& world, const run::Record& record)
      : world_(world), record_(record), target_(get_string(record.plan.context, "target")) {}

  Leavings all() {
    settings();
    sentinels();
    redis::sweep_throwaways(state_dir_of(world_));
    return std::move(out_);
  }

 private:
  [[nodiscard]] Deadline soon() const {
    return Deadline::after(world_.deployment().policy.probe_deadline);
  }
  void left(std::string what, std::string mend) {
    out_.left.push_back({std::move(what), std::move(mend)});
  }

  void settings() {
    const auto& before = noted_by(record_, "hold", "settings");
    if (!before.is_object()) return;
    const auto place = place_of(world_, target_);
    const auto at = cli(place.host, place.port);
    const auto snapshot = world_.observe({}, world_.deployment().policy.probe_deadline);
    const auto beside = master_beside(snapshot);
    for (const auto& [name, value] : before.items()) {
      if (!value.is_string()) continue;
      if (name == kMinReplicas && !beside.empty()) {
        // Two that take writes, and those of one of them would be lost.
        const auto other = place_of(world_, beside);
        left(fmt::format("{} says that it is the master, and {} too: it goes on refusing writes",
                         target_, beside),
             fmt::format("{0}REPLICAOF {1} {2}; {0}CONFIG SET {3} {4}; {0}CONFIG REWRITE", at,
                         other.host, other.port, name, value.get<std::string>()));
        continue;
      }
      const auto wanted = value.get<std::string>();
      const auto mend =
          fmt::format("{}CONFIG SET {} {}", at, name, wanted.empty() ? "\"\"" : wanted);
      const auto has = get_setting(world_, target_, name, soon());
      if (!has) {
        left(fmt::format("{} may have the {} of the restore: {}", target_, name,
                         has.error().message),
             mend);
        continue;
      }
      // What somebody has set since stays.
      if (!is_ours(name, *has) || *has == wanted) continue;
      if (const auto set = set_setting(world_, target_, name, wanted, soon()); !set)
        left(fmt::format("{} has the {} of the restore: {}", target_, name, set.error().message),
             mend);
      else
        out_.put_back.push_back(fmt::format("{} of {}", name, target_));
    }
    if (const auto mended = mend_config_file(world_, target_, soon()); !mended)
      left(fmt::format("the configuration file of {} has the {} of the restore: {}", target_,
                       kMinReplicas, mended.error().message),
           at + "CONFIG REWRITE, once that is put back; or end the line in the file");
    role(snapshot, at);
  }

  // Another that says that it is the master while the target does too.
  std::string master_beside(const redis::Snapshot& snapshot) const {
    const auto* facts = snapshot.node(target_);
    if (facts == nullptr || !facts->answered() || facts->role != redis::Role::master) return {};
    return other_master(snapshot, target_);
  }

  static bool is_ours(const std::string& name, const std::string& value) {
    if (name == kMinReplicas) return value == std::to_string(kHeldReplicas);
    // Noted where there was none: one of this run's, for the throwaway server.
    if (name == kMasterAuth) return !value.empty();
    return value == "swapdb";
  }

  // Behind a server that is gone: whether it serves then is for a person to say.
  void role(const redis::Snapshot& snapshot, const std::string& at) {
    const auto* facts = snapshot.node(target_);
    if (facts == nullptr || !facts->answered() || facts->role != redis::Role::replica ||
        !facts->link || !master_of(snapshot, *facts).empty())
      return;
    left(fmt::format("{} follows {}:{}, the server that had the data of the file", target_,
                     facts->link->master_host, facts->link->master_port),
         at + "REPLICAOF NO ONE");
  }

  void sentinels() {
    const auto& before = noted_by(record_, "calm", "before");
    if (!before.is_object()) return;
    const auto& all = world_.deployment().sentinel.nodes;
    const auto& master = world_.deployment().sentinel.master_name;
    for (const auto& [key, ms] : before.items()) {
      if (!ms.is_number_integer() || key.empty() ||
          key.find_first_not_of("0123456789") != std::string::npos)
        continue;
      const auto index = static_cast<std::size_t>(std::atoll(key.c_str()));
      if (index >= all.size()) continue;
      const auto value = std::to_string(ms.get<std::int64_t>());
      const auto set = world_.ask_sentinel(
          index, {"SENTINEL", "SET", master, "down-after-milliseconds", value}, soon());
      const auto at = config::endpoint_of(world_.config(), all[index]);
      const auto name = fmt::format("Sentinel {}:{}", at.address, at.port);
      if (set)
        out_.put_back.push_back("down-after-milliseconds of " + name);
      else
        left(fmt::format("{} waits {} before it takes the master for down: {}", name,
                         format_duration(kCalm), set.error().error.message),
             fmt::format("{}SENTINEL SET {} down-after-milliseconds {}", cli(at.address, at.port),
                         master, value));
    }
  }

  RedisWorld& world_;
  const run::Record& record_;
  std::string target_;
  Leavings out_;
};

}  // namespace

Leavings leave_as_it_is(RedisWorld& world, const run::Record& record) {
  if (!is_a_restore(record)) return {};
  return Leaving(world, record).all();
}

bool is_a_restore(const run::Record& record) { return record.plan.command == "redis restore"; }

}  // namespace zx::ha
