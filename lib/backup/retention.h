// Which sets stay, by the policy of zx.toml. Pure: no disk, and no clock of its own.
//
// Grandfather, father, son. Of each of the last `daily` days that have a good set the newest one
// stays, and so of weeks (Monday to Sunday) and of months; all by UTC. Days without a set are not
// counted: a platform that stood still for a month keeps what it had. One set may stay for several
// reasons. Time is what the manifest tells, never the name.
//
// The rules go over each part ("pg main", "redis cache", "files uploads") by itself, so that a set
// of PostgreSQL alone takes the place of no set that has Redis too.
//
// Only a good set counts: one that can be read and of which no check has found damage since one
// passed. The newest good set of a part is never deleted, whatever the policy says, nor the newest
// one that somebody has read since it was written (decoded or restored).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

using Day = std::chrono::sys_days;              // UTC
[[nodiscard]] std::string format_day(Day day);  // "2026-11-24"

// Clocks of two hosts differ by so much and nobody minds.
inline constexpr Millis kClockSkew{5 * 60'000};
// Is it of the future: made while a clock was wrong?
[[nodiscard]] bool is_ahead(Wall begun, Wall now);

// A corrupt set stays so long for whoever wants to know what happened to it.
inline constexpr Millis kCorruptStays{7LL * 86'400'000};

enum class Standing {
  good,
  corrupt,
  unknown,  // its manifest or its trust cannot be read: it counts for nothing and is never deleted
};
struct Candidate {
  std::string id;
  Wall begun{};
  std::vector<std::string> parts;  // as parts_of() names them
  Standing standing = Standing::good;
  bool is_read = false;  // a verification has decoded or restored it
  Wall found_at{};       // of a corrupt one: when it was first found so
  std::string problem;   // of one that is not good
};
[[nodiscard]] Candidate candidate_of(const Entry& entry);
// "pg main", "redis cache", "files uploads".
[[nodiscard]] std::vector<std::string> parts_of(const Set& set);

enum class Rule { daily, weekly, monthly };
// Why a set stays: it is number `place` of the `of` newest periods that have a set.
struct KeepReason {
  Rule rule = Rule::daily;
  int place = 0, of = 0;
  std::string period;                       // "2026-11-24", "week of 2026-11-16", "2026-09"
  std::vector<std::string> parts;           // that keep it, when not all of its parts do
  [[nodiscard]] std::string brief() const;  // "daily 1 of 7"
  [[nodiscard]] std::string words() const;  // "daily 1 of 7 (2026-11-24), for redis"
};

struct Decision {
  std::string id;
  bool is_kept = true;
  bool is_counted = true;  // false: corrupt, unknown or of the future
  std::vector<KeepReason> kept;
  std::vector<std::string> reasons;  // all of them in words, never empty
  // The day on which it would go if a whole good set were made every day from now on. Absent: never
  // by itself, or now.
  std::optional<Day> expires;
  bool is_odd = false;  // somebody should look: its only reason is that zx does not know better
  // In a few words: "daily 1 of 7", "not counted", "newest good".
  [[nodiscard]] std::string brief() const;
};

// The rules would delete the sets of one platform for those of another: Code::refused when some set
// is not of this one.
[[nodiscard]] Status is_of_one_platform(const std::vector<Entry>& entries,
                                        const std::string& platform);

// One for each candidate, in their order.
[[nodiscard]] std::vector<Decision> decide(const std::vector<Candidate>& candidates,
                                           const config::Backup& policy, Wall now);

}  // namespace zx::backup
