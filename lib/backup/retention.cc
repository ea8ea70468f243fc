#include "lib/backup/retention.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::backup {
namespace {

using std::chrono::days;
using std::chrono::floor;
using std::chrono::months;
using std::chrono::weeks;

constexpr Rule kRules[] = {Rule::daily, Rule::weekly, Rule::monthly};
// The first Monday at or before the first of January 1970, which was a Thursday.
constexpr Day kFirstMonday{days(-3)};

Day day_of(Wall at) { return floor<days>(at); }

// Days, weeks and months as numbers that follow each other.
std::int64_t period_of(Rule rule, Day day) {
  if (rule == Rule::daily) return day.time_since_epoch().count();
  if (rule == Rule::weekly) return floor<weeks>(day - kFirstMonday).count();
  const std::chrono::year_month_day date(day);
  return static_cast<int>(date.year()) * 12LL + static_cast<unsigned>(date.month()) - 1;
}

Day first_day(Rule rule, std::int64_t period) {
  if (rule == Rule::daily) return Day(days(period));
  if (rule == Rule::weekly) return kFirstMonday + weeks(period);
  using namespace std::chrono;
  const auto first = year(0) / January;
  return Day((first + months(period)) / 1);
}

std::string name_of_period(Rule rule, std::int64_t period) {
  const auto day = format_day(first_day(rule, period));
  if (rule == Rule::monthly) return day.substr(0, day.size() - 3);
  return rule == Rule::weekly ? "week of " + day : day;
}

int count_of_rule(Rule rule, const config::Backup& policy) {
  switch (rule) {
    case Rule::daily: return policy.daily;
    case Rule::weekly: return policy.weekly;
    case Rule::monthly: return policy.monthly;
  }
  return 0;
}

class Deciding {
 public:
  Deciding(const std::vector<Candidate>& candidates, const config::Backup& policy, Wall now)
      : candidates_(candidates), policy_(policy), now_(now), decisions_(candidates.size()) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const auto& one = candidates[i];
      decisions_[i].id = one.id;
      decisions_[i].is_counted =
          one.standing == Standing::good && !one.parts.empty() && !is_ahead(one.begun, now);
      if (decisions_[i].is_counted) counted_.push_back(i);
      parts_.insert(one.parts.begin(), one.parts.end());
    }
    std::sort(counted_.begin(), counted_.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(candidates[a].begun, candidates[a].id) >
             std::pair(candidates[b].begun, candidates[b].id);
    });
    next_day_ = day_of(now);
    if (!counted_.empty())
      next_day_ = std::max(next_day_, day_of(candidates[counted_.front()].begun) + days(1));
  }

  std::vector<Decision> all() {
    for (const auto rule : kRules)
      for (const auto& part : parts_) apply(rule, part);
    keep_newest(newest_, [](const Candidate&) { return true; });
    keep_newest(newest_read_, [](const Candidate& one) { return one.is_read; });
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      if (decisions_[i].is_counted)
        conclude_good(i);
      else if (candidates_[i].standing == Standing::corrupt)
        conclude_corrupt(i);
      else
        conclude_unknown(i);
    }
    return std::move(decisions_);
  }

 private:
  [[nodiscard]] bool has(std::size_t i, const std::string& part) const {
    const auto& parts = candidates_[i].parts;
    return contains(parts, part);
  }
  // "", or ", for redis" where another set keeps the rest of what it holds.
  [[nodiscard]] std::vector<std::string> narrowed(std::size_t i,
                                                  const std::set<std::string>& parts) const {
    if (parts.size() >= candidates_[i].parts.size()) return {};
    return {parts.begin(), parts.end()};
  }
  void expires_no_earlier(std::size_t i, Day day) {
    auto& expires = decisions_[i].expires;
    expires = expires ? std::max(*expires, day) : day;
  }

  void apply(Rule rule, const std::string& part) {
    const int most = count_of_rule(rule, policy_);
    const auto next = period_of(rule, next_day_);
    std::optional<std::int64_t> newest, last;
    int place = 0;
    for (const auto i : counted_) {
      if (!has(i, part)) continue;
      const auto period = period_of(rule, day_of(candidates_[i].begun));
      if (last == period) continue;
      if (++place > most) return;
      last = period;
      if (!newest) newest = period;
      note(i, rule, place, most, period, part);
      // The next set takes the place of the newest one of its own period, or begins another.
      const auto first_new = *newest == next ? next + 1 : next;
      const auto pushed_out = std::max(next_day_, first_day(rule, first_new + most - place));
      expires_no_earlier(i, period == next ? next_day_ : pushed_out);
    }
  }

  void note(std::size_t i, Rule rule, int place, int most, std::int64_t period,
            const std::string& part) {
    auto& kept = decisions_[i].kept;
    auto found = std::find_if(kept.begin(), kept.end(),
                              [&](const KeepReason& one) { return one.rule == rule; });
    if (found == kept.end())
      found =
          kept.insert(kept.end(), KeepReason{rule, place, most, name_of_period(rule, period), {}});
    found->place = std::min(found->place, place);
    keeping_[{i, rule}].insert(part);
  }

  void keep_newest(std::map<std::size_t, std::set<std::string>>& newest,
                   bool (*is_wanted)(const Candidate&)) {
    for (const auto& part : parts_)
      for (const auto i : counted_)
        if (has(i, part) && is_wanted(candidates_[i])) {
          newest[i].insert(part);
          expires_no_earlier(i, next_day_);
          break;
        }
  }

  void conclude_good(std::size_t i) {
    auto& decision = decisions_[i];
    for (auto& kept : decision.kept) {
      kept.parts = narrowed(i, keeping_[{i, kept.rule}]);
      decision.reasons.push_back(kept.words());
    }
    const auto add = [&](const auto& newest, const char* words) {
      const auto found = newest.find(i);
      if (found == newest.end()) return;
      const auto parts = narrowed(i, found->second);
      decision.reasons.push_back(words + (parts.empty() ? "" : " with " + join(parts, ", ")));
    };
    add(newest_, "the newest good one");
    add(newest_read_, "the newest verified one");
    if (!decision.reasons.empty()) return;
    decision.is_kept = false;
    decision.reasons.emplace_back("no day, week or month keeps it");
  }

  // Is there a good set of each of its parts, begun after `after`?
  [[nodiscard]] bool is_covered(std::size_t i, Wall after) const {
    const auto covers = [&](const std::string& part) {
      return std::any_of(counted_.begin(), counted_.end(), [&](std::size_t other) {
        return candidates_[other].begun > after && has(other, part);
      });
    };
    const auto& parts = candidates_[i].parts;
    return !counted_.empty() && std::all_of(parts.begin(), parts.end(), covers);
  }

  void conclude_corrupt(std::size_t i) {
    auto& decision = decisions_[i];
    const auto& one = candidates_[i];
    const auto stays = std::min(kCorruptStays, policy_.max_age);
    const auto age = now_ - one.begun;
    // Whoever wants to look into it has that long since it was found.
    const auto found = std::max(one.begun, one.found_at);
    const auto spelled = spell_duration(stays);
    const bool has_any = is_covered(i, Wall::min());
    const bool has_newer = is_covered(i, one.begun);
    if (now_ - found > stays && has_newer) {
      decision.is_kept = false;
      decision.reasons.push_back(
          fmt::format("corrupt, known for more than {}, and a newer one is good", spelled));
    } else if (age > policy_.max_age && now_ - found > stays && has_any) {
      decision.is_kept = false;
      decision.reasons.push_back("corrupt, and older than " + spell_duration(policy_.max_age));
    } else if (!has_any) {
      decision.reasons.emplace_back("corrupt: not counted; kept because no set is good");
      decision.is_odd = true;
    } else if (!has_newer) {
      decision.reasons.emplace_back("corrupt: not counted; kept until a newer one is good");
      decision.is_odd = true;
    } else {
      decision.reasons.push_back(
          fmt::format("corrupt: not counted; kept {} for whoever looks into it", spelled));
    }
    // A day begins: the set is older than that only on the day after.
    if (decision.is_kept) decision.expires = std::max(next_day_, day_of(found + stays) + days(1));
  }

  void conclude_unknown(std::size_t i) {
    auto& decision = decisions_[i];
    decision.is_odd = true;
    if (candidates_[i].standing == Standing::unknown)
      decision.reasons.push_back("not counted, and kept: " + candidates_[i].problem);
    else if (candidates_[i].parts.empty())
      decision.reasons.emplace_back("not counted, and kept: it holds nothing that zx knows");
    else
      decision.reasons.push_back(
          fmt::format("not counted, and kept: it is of the future, {}; a clock was wrong",
                      format_utc(candidates_[i].begun)));
  }

  const std::vector<Candidate>& candidates_;
  const config::Backup& policy_;
  Wall now_;
  std::vector<Decision> decisions_;
  std::vector<std::size_t> counted_;  // newest first
  std::set<std::string> parts_;
  std::map<std::pair<std::size_t, Rule>, std::set<std::string>> keeping_;
  std::map<std::size_t, std::set<std::string>> newest_, newest_read_;
  Day next_day_;  // of the next set, when there is one a day
};

}  // namespace

std::string format_day(Day day) {
  const std::chrono::year_month_day date(day);
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
}

bool is_ahead(Wall begun, Wall now) { return begun > now + kClockSkew; }

std::vector<std::string> parts_of(const Set& set) {
  std::vector<std::string> parts;
  if (set.pg) parts.push_back("pg " + set.pg->cluster);
  if (set.redis) parts.push_back("redis " + set.redis->deployment);
  for (const auto& files : set.files) parts.push_back("files " + files.name);
  return parts;
}

Candidate candidate_of(const Entry& entry) {
  Candidate one;
  one.id = entry.id;
  if (!entry.set) {
    one.standing = Standing::unknown;
    one.problem = "its manifest cannot be read: " + entry.set.error().message;
    return one;
  }
  one.begun = entry.set->begun;
  one.parts = parts_of(*entry.set);
  const auto trust = believed(*entry.set, entry.checks);
  if (!entry.trust_problem.empty()) {
    one.standing = Standing::unknown;
    one.problem = "what its checks found cannot be read: " + entry.trust_problem;
  } else if (trust.trust == Trust::corrupt) {
    one.standing = Standing::corrupt;
    one.problem = trust.problem;
    one.found_at = trust.since;
  } else {
    one.is_read = trust.trust != Trust::checksummed;
  }
  return one;
}

std::string KeepReason::brief() const {
  const char* name = rule == Rule::daily ? "daily" : rule == Rule::weekly ? "weekly" : "monthly";
  return fmt::format("{} {} of {}", name, place, of);
}

std::string KeepReason::words() const {
  return fmt::format("{} ({}){}", brief(), period,
                     parts.empty() ? "" : ", for " + join(parts, ", "));
}

std::string Decision::brief() const {
  if (!is_kept) return "prune deletes it";
  if (!is_counted) return "not counted";
  return kept.empty() ? "newest good" : kept.front().brief();
}

Status is_of_one_platform(const std::vector<Entry>& entries, const std::string& platform) {
  for (const auto& entry : entries)
    if (entry.set && entry.set->platform != platform)
      return fail(Code::refused,
                  fmt::format("the repository has sets of the platform {}, such as {}; this is {}",
                              clean_utf8(first_line(entry.set->platform)), entry.id, platform),
                  "name a directory of its own in backup.repository; for a platform that has got a "
                  "new name too");
  return {};
}

std::vector<Decision> decide(const std::vector<Candidate>& candidates, const config::Backup& policy,
                             Wall now) {
  return Deciding(candidates, policy, now).all();
}

}  // namespace zx::backup
