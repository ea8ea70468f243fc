#include "lib/backup/trust.h"

#include <algorithm>
#include <functional>

#include "lib/backup/set.h"
#include "lib/base/text.h"

namespace zx::backup {
namespace {

bool is_damage(const Check& check) { return !check.ok && check.fault == Fault::damage; }
bool is_unknown(const Check& check) { return !check.ok && check.fault == Fault::unknown; }

// The objects are as they were written, as far as that check looks.
bool clears(const Check& later, const Check& failure) {
  return !is_damage(later) && !is_unknown(later) && later.level >= failure.level;
}

// Of a look that could not be made: whose turn it is goes by a later one.
bool is_outdone(const std::vector<Check>& checks, std::size_t i) {
  return std::any_of(checks.begin() + static_cast<std::ptrdiff_t>(i) + 1, checks.end(),
                     [&](const Check& later) { return later.level >= checks[i].level; });
}

// Has the check at `i` nothing to tell that a later one does not?
bool is_told_again(const std::vector<Check>& checks, std::size_t i) {
  const auto& one = checks[i];
  return std::any_of(checks.begin() + static_cast<std::ptrdiff_t>(i) + 1, checks.end(),
                     [&](const Check& later) {
                       return !is_damage(later) && !is_unknown(later) && later.level == one.level &&
                              (later.ok || !one.ok) && (later.restore_ms || !one.restore_ms);
                     });
}

bool is_cleared(const std::vector<Check>& checks, std::size_t i) {
  return std::any_of(checks.begin() + static_cast<std::ptrdiff_t>(i) + 1, checks.end(),
                     [&](const Check& later) { return clears(later, checks[i]); });
}

// Of damage that nothing has cleared: one before it and one after it say the same.
bool is_between_its_like(const std::vector<Check>& checks, std::size_t i) {
  const auto is_like = [&](std::size_t other) {
    return is_damage(checks[other]) && !is_cleared(checks, other) &&
           checks[other].level == checks[i].level && checks[other].damaged == checks[i].damaged;
  };
  bool has_earlier = false, has_later = false;
  for (std::size_t other = 0; other < checks.size(); ++other) {
    if (other == i || !is_like(other)) continue;
    (other < i ? has_earlier : has_later) = true;
  }
  return has_earlier && has_later;
}

}  // namespace

const char* name_of(Level level) {
  switch (level) {
    case Level::checksum: return "checksum";
    case Level::decode: return "decode";
    case Level::restore: return "restore";
  }
  return "checksum";
}

Result<Level> level_named(const std::string& name) {
  for (const auto level : {Level::checksum, Level::decode, Level::restore})
    if (name == name_of(level)) return level;
  return fail(Code::failed, "no such level: " + first_line(name));
}

const char* name_of(Fault fault) {
  switch (fault) {
    case Fault::damage: return "damage";
    case Fault::answers: return "answers";
    case Fault::unknown: return "unknown";
  }
  return "damage";
}

Json to_json(const Check& check) {
  return {{"level", name_of(check.level)},
          {"at", format_utc(check.at)},
          {"ok", check.ok},
          {"fault", check.ok ? Json() : Json(name_of(check.fault))},
          {"problem", check.problem},
          {"damaged", check.damaged},
          {"found_in", check.found_in.empty() ? Json() : Json(check.found_in)},
          {"host", check.host},
          {"ms", check.took_ms},
          {"restore_ms", check.restore_ms ? Json(*check.restore_ms) : Json()}};
}

Result<Check> check_from_json(const Json& json) {
  Check check;
  const auto level = get_string(json, "level"), fault = get_string(json, "fault");
  const auto known = level_named(level);
  if (!known) return fail(level.empty() ? Code::failed : Code::refused, known.error().message);
  check.level = *known;
  check.at = parse_utc(get_string(json, "at"));
  if (check.at == Wall{}) return fail(Code::failed, "a check has no time");
  check.ok = get_bool(json, "ok");
  for (const auto one : {Fault::answers, Fault::unknown})
    if (fault == name_of(one)) check.fault = one;
  if (!fault.empty() && fault != name_of(check.fault))
    return fail(Code::refused, "no such fault: " + first_line(fault));
  check.problem = get_string(json, "problem");
  check.damaged = get_strings(json, "damaged");
  check.found_in = get_string(json, "found_in");
  check.host = get_string(json, "host");
  check.took_ms = get_int(json, "ms");
  if (const auto& took = get_object(json, "restore_ms"); took.is_number_integer())
    check.restore_ms = took.get<std::int64_t>();
  return check;
}

const char* name_of(Trust trust) {
  switch (trust) {
    case Trust::checksummed: return "checksummed";
    case Trust::decoded: return "decoded";
    case Trust::restored: return "restored";
    case Trust::corrupt: return "corrupt";
  }
  return "corrupt";
}

Believed believed(const Set& set, const std::vector<Check>& checks) {
  Believed all;
  all.at = set.ended;
  Level level = Level::checksum;
  const auto passed = [&](Level passed_level, Wall at) {
    if (passed_level < level) return;
    level = passed_level;
    all.at = at;
  };
  auto& failures = all.failures;
  for (const auto& check : checks) {  // in the order in which they were made
    if (is_unknown(check)) continue;
    if (is_damage(check)) {
      failures.push_back(check);
      continue;
    }
    std::erase_if(failures, [&](const Check& failure) { return clears(check, failure); });
    passed(check.ok ? check.level : std::min(check.level, Level::decode), check.at);
    if (check.level == Level::restore) all.doubt = check.problem;
    if (check.restore_ms) all.restore_ms = check.restore_ms;
  }
  all.trust = level == Level::restore  ? Trust::restored
              : level == Level::decode ? Trust::decoded
                                       : Trust::checksummed;
  if (failures.empty()) return all;
  all.trust = Trust::corrupt;
  all.at = failures.back().at;
  all.since = failures.front().at;
  all.problem = failures.back().problem;
  for (const auto& failure : failures)
    for (const auto& path : failure.damaged)
      if (!contains(all.damaged, path)) all.damaged.push_back(path);
  return all;
}

void add_check(std::vector<Check>& checks, const Check& check) {
  if (check.found_in.empty()) {
    checks.push_back(check);
    return;
  }
  const auto is_same = [&](const Check& one) {
    return is_damage(one) && one.at == check.at && one.level == check.level &&
           one.damaged == check.damaged;
  };
  if (std::any_of(checks.begin(), checks.end(), is_same)) return;
  const auto later = std::find_if(checks.begin(), checks.end(),
                                  [&](const Check& one) { return one.at > check.at; });
  checks.insert(later, check);
}

void thin_out(std::vector<Check>& checks, std::size_t most) {
  using Test = bool (*)(const std::vector<Check>&, std::size_t);
  const Test tests[] = {[](const std::vector<Check>& all, std::size_t i) {
                          return is_unknown(all[i]) && is_outdone(all, i);
                        },
                        [](const std::vector<Check>& all, std::size_t i) {
                          return !is_damage(all[i]) && !is_unknown(all[i]) && is_told_again(all, i);
                        },
                        [](const std::vector<Check>& all, std::size_t i) {
                          return is_damage(all[i]) && is_cleared(all, i);
                        },
                        [](const std::vector<Check>& all, std::size_t i) {
                          return is_damage(all[i]) && is_between_its_like(all, i);
                        }};
  for (const auto test : tests)
    for (std::size_t i = 0; checks.size() > most && i + 1 < checks.size();) {
      if (test(checks, i))
        checks.erase(checks.begin() + static_cast<std::ptrdiff_t>(i));
      else
        ++i;
    }
}

}  // namespace zx::backup
