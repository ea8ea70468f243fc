#include "commands/backup/sets.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/backup/run.h"
#include "lib/base/text.h"

namespace zx::commands {
namespace {

constexpr Millis kWaitForPrune{10'000};

// "today", "1d ago".
std::string when(Wall at, Wall now) {
  if (format_local(at, Wall{}).substr(0, 10) == format_local(now, Wall{}).substr(0, 10))
    return "today";
  return short_age(at, now) + " ago";
}

// The moment that a restore of the part goes back to; absent where the set has none of it.
std::optional<Wall> point_of(const backup::Set& set, const std::string& part) {
  if (set.pg && part == "pg " + set.pg->cluster) return set.pg->at;
  if (set.redis && part == "redis " + set.redis->deployment) return set.redis->at;
  for (const auto& files : set.files)
    if (part == "files " + files.name) return files.at;
  return std::nullopt;
}

// Named as in sets.
std::vector<std::string> parts_of(const config::Config& config) {
  std::vector<std::string> parts;
  if (const auto* cluster = backup::cluster_of(config)) parts.push_back("pg " + cluster->name);
  if (const auto* one = backup::deployment_of(config)) parts.push_back("redis " + one->name);
  for (const auto& files : config.backup.files) parts.push_back("files " + files.name);
  return parts;
}

}  // namespace

Result<std::vector<backup::Entry>> read_sets(Env& env, const backup::Repository& repository) {
  const backup::LockWait wait{Deadline::after(env.shared.timeout.value_or(kWaitForPrune))};
  ZX_ASSIGN(const auto reading,
            backup::take_patiently(wait, [&] { return repository.lock_to_read(); }));
  return repository.sets();
}

std::vector<backup::Decision> decisions_of(const std::vector<backup::Entry>& entries,
                                           const config::Backup& policy, Wall now) {
  std::vector<backup::Candidate> candidates;
  for (const auto& entry : entries) candidates.push_back(backup::candidate_of(entry));
  return backup::decide(candidates, policy, now);
}

std::string short_age(Wall at, Wall now) {
  if (backup::is_ahead(at, now)) return "future";
  const auto seconds =
      std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(now - at).count());
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m", seconds / 60);
  if (seconds < 86'400) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}d", seconds / 86'400);
}

Cell trust_cell(const backup::Entry& entry, Wall now) {
  if (!entry.set)
    return {entry.set.error().code == Code::refused ? "newer format" : "unreadable", Tone::bad};
  if (!entry.trust_problem.empty()) return {"not known", Tone::bad};
  const auto trust = backup::believed(*entry.set, entry.checks);
  switch (trust.trust) {
    case backup::Trust::corrupt: {
      // The rest of it stands below the table.
      const auto problem = first_line(trust.problem);
      return {"corrupt: " + problem.substr(0, problem.find_first_of(",:")), Tone::bad};
    }
    case backup::Trust::restored: return {"restored " + when(trust.at, now), Tone::good};
    case backup::Trust::decoded: return {"decoded " + when(trust.at, now)};
    case backup::Trust::checksummed: break;
  }
  return {"checksummed"};
}

std::string problem_of(const backup::Entry& entry) { return backup::candidate_of(entry).problem; }

std::uint64_t bytes_of(const backup::Entry& entry) { return entry.set ? entry.set->bytes() : 0; }

Stalest stalest_of(const std::vector<const backup::Entry*>& good, const config::Config& config) {
  std::optional<Stalest> found;
  for (const auto& part : parts_of(config)) {
    Stalest one{part, {}, nullptr};
    for (const auto* entry : good) {
      one.point = point_of(*entry->set, part);
      one.entry = entry;
      if (one.point) break;
    }
    if (!one.point) return one;
    if (!found || *one.point < *found->point) found = one;
  }
  return found.value_or(Stalest{});
}

std::string verify_restore_of(const backup::Entry& newest,
                              const std::vector<backup::Entry>& entries) {
  return &newest == &entries.front() ? "backup verify --level restore"
                                     : "backup verify --level restore " + newest.id;
}

}  // namespace zx::commands
