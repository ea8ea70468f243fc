// The line of zx status about backups and restores.
#include <fmt/format.h>

#include "commands/backup/backup.h"
#include "commands/backup/sets.h"
#include "lib/backup/metrics.h"
#include "lib/backup/restore.h"
#include "lib/run/journal.h"

namespace zx::commands {
namespace {

using backup::Entry;

// The last one that was brought up, and how long that took.
const Entry* last_rehearsed(const std::vector<const Entry*>& good) {
  const Entry* last = nullptr;
  for (const auto* entry : good) {
    const auto known = backup::believed(*entry->set, entry->checks);
    if (!known.restore_ms) continue;
    if (last == nullptr || known.at > backup::believed(*last->set, last->checks).at) last = entry;
  }
  return last;
}

BackupStanding standing(const Env& env, const config::Config& config,
                        const std::vector<Entry>& entries, Wall now) {
  BackupStanding all;
  all.json = Json{{"repository", config.backup.repository},
                  {"sets", entries.size()},
                  {"newest", Json()},
                  {"age_ms", Json()},
                  {"stalest", Json()},
                  {"rpo_target_ms", config.backup.rpo.count()},
                  {"rto_ms", Json()},
                  {"rto_target_ms", config.backup.rto.count()},
                  {"error", Json()}};
  const auto good = backup::good_sets(entries, now);
  if (good.empty()) {
    all.line = {"no good set", Tone::bad};
    all.next = env.typed("backup run");
    return all;
  }
  const auto& newest = *good.front();
  // The newest set may not have every part: a restore of all goes back to the stalest.
  auto stalest = stalest_of(good, config);
  if (stalest.part.empty()) stalest = {{}, newest.set->point(), &newest};
  auto text = fmt::format("newest {} ago", short_age(newest.set->point(), now));
  if (!stalest.point)
    text += ", no good set has " + stalest.part;
  else if (stalest.entry != &newest)
    text += fmt::format(", {} {} ago", stalest.part, short_age(*stalest.point, now));
  const auto age = std::chrono::duration_cast<Millis>(now - stalest.point.value_or(now));
  const bool is_late = !stalest.point || age > config.backup.rpo;
  if (stalest.point && is_late)
    text += fmt::format(", over the target of {}", format_duration(config.backup.rpo));
  all.json["newest"] = newest.id;
  all.json["age_ms"] = stalest.point ? Json(age.count()) : Json();
  all.json["stalest"] = stalest.part.empty() ? Json() : Json(stalest.part);
  if (is_late) all.next = env.typed("backup run");
  bool is_slow = false;
  if (const auto* last = last_rehearsed(good); last != nullptr) {
    const auto known = backup::believed(*last->set, last->checks);
    const Millis took(*known.restore_ms);
    is_slow = took > config.backup.rto;
    text += fmt::format("; restored {} ago in {} ({} {})", short_age(known.at, now),
                        format_duration(took), is_slow ? "over the target of" : "target",
                        format_duration(config.backup.rto));
    all.json["rto_ms"] = took.count();
  } else {
    text += "; never restored";
    if (all.next.empty()) all.next = env.typed(verify_restore_of(newest, entries));
  }
  if (&newest != &entries.front()) text += "; newer ones are damaged";
  all.line = {text, !stalest.point                                      ? Tone::bad
                    : is_late || is_slow || &newest != &entries.front() ? Tone::warn
                                                                        : Tone::good};
  return all;
}

}  // namespace

std::optional<BackupStanding> standing_of_backups(const Env& env, const config::Config& config,
                                                  Wall now) {
  if (config.backup.repository.empty()) return std::nullopt;
  const auto repository = backup::Repository::open(config.backup.repository);
  const auto entries = repository ? repository->sets() : fail(repository.error());
  BackupStanding all;
  if (entries) {
    all = standing(env, config, *entries, now);
  } else if (entries.error().code == Code::not_found) {
    all.line = {"none yet", Tone::warn};
    all.next = env.typed("backup run");
    all.json = Json{{"repository", config.backup.repository}, {"sets", 0}, {"error", Json()}};
  } else {
    all.line = {entries.error().message, Tone::bad};
    all.json =
        Json{{"repository", config.backup.repository}, {"error", zx::to_json(entries.error())}};
  }
  const auto open = run::unfinished_run(config.platform.state_dir, backup::kRestoreLock);
  if (open && *open) {
    all.line.text += fmt::format("; run {} ({}) is unfinished", (*open)->id, (*open)->plan.command);
    all.line.tone = Tone::bad;
    all.is_unfinished = true;
    all.next = env.typed("runs resume " + (*open)->id);
  }
  all.json["unfinished_run"] = open && *open ? Json((*open)->id) : Json();
  return all;
}

}  // namespace zx::commands
