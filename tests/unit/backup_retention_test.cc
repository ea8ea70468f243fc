// Which sets stay: every rule by itself, and the policy over 400 days.
#include "lib/backup/retention.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "tests/support.h"

namespace zx::backup {
namespace {

constexpr Millis kDay{86'400'000};
constexpr Millis kHour{3'600'000};

Wall at(const std::string& text) {
  const auto moment = parse_utc(text + ":00.000Z");
  REQUIRE_MESSAGE(moment != Wall{}, text);
  return moment;
}

config::Backup keeping(int daily, int weekly, int monthly) {
  config::Backup policy;
  policy.daily = daily;
  policy.weekly = weekly;
  policy.monthly = monthly;
  return policy;
}

// Its id says nothing of its time, as that of a set may that was made while a clock was wrong.
Candidate good(const std::string& when, const std::string& id = {}) {
  Candidate one;
  one.begun = at(when);
  one.id = id.empty() ? when : id;
  one.parts = {"pg", "redis", "files"};
  return one;
}
Candidate corrupt(const std::string& when) {
  auto one = good(when);
  one.standing = Standing::corrupt;
  one.problem = "object 3";
  return one;
}
Candidate unreadable(const std::string& id) {
  Candidate one;
  one.id = id;
  one.standing = Standing::unknown;
  one.problem = "its manifest cannot be read: no JSON";
  return one;
}
Candidate only(const std::string& when, std::vector<std::string> parts) {
  auto one = good(when);
  one.parts = std::move(parts);
  return one;
}

std::map<std::string, Decision> decided(const std::vector<Candidate>& candidates,
                                        const config::Backup& policy, const std::string& now) {
  const auto all = decide(candidates, policy, at(now));
  REQUIRE(all.size() == candidates.size());
  std::map<std::string, Decision> by_id;
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(all[i].id == candidates[i].id);
    CHECK(!all[i].reasons.empty());
    by_id[all[i].id] = all[i];
  }
  return by_id;
}

std::string why(const Decision& decision) {
  return (decision.is_kept ? "keep: " : "delete: ") + join(decision.reasons, "; ");
}

}  // namespace

TEST_CASE("of each day the newest good set stays, and says which day of how many it is") {
  const auto all = decided({good("2026-11-24T02:00"), good("2026-11-24T14:00"),
                            good("2026-11-23T02:00"), good("2026-11-22T02:00")},
                           keeping(2, 0, 0), "2026-11-24T15:00");
  CHECK(why(all.at("2026-11-24T14:00")) == "keep: daily 1 of 2 (2026-11-24); the newest good one");
  CHECK(why(all.at("2026-11-24T02:00")) == "delete: no day, week or month keeps it");
  CHECK(why(all.at("2026-11-23T02:00")) == "keep: daily 2 of 2 (2026-11-23)");
  CHECK(why(all.at("2026-11-22T02:00")) == "delete: no day, week or month keeps it");
  CHECK(all.at("2026-11-24T14:00").brief() == "daily 1 of 2");
  CHECK(all.at("2026-11-24T02:00").brief() == "prune deletes it");
}

TEST_CASE("weeks begin on Monday, and months are those of the calendar, by UTC") {
  // 2026-11-16 and 2026-11-23 are Mondays.
  const std::vector<Candidate> sets{good("2026-11-24T02:00"), good("2026-11-23T00:00"),
                                    good("2026-11-22T23:59"), good("2026-11-16T00:00"),
                                    good("2026-11-15T23:59"), good("2026-10-31T23:59"),
                                    good("2026-10-01T00:00"), good("2026-09-30T23:59")};
  const auto weekly = decided(sets, keeping(0, 2, 0), "2026-11-24T03:00");
  CHECK(why(weekly.at("2026-11-24T02:00")) ==
        "keep: weekly 1 of 2 (week of 2026-11-23); the newest good one");
  CHECK(!weekly.at("2026-11-23T00:00").is_kept);
  CHECK(why(weekly.at("2026-11-22T23:59")) == "keep: weekly 2 of 2 (week of 2026-11-16)");
  CHECK(!weekly.at("2026-11-16T00:00").is_kept);
  CHECK(!weekly.at("2026-11-15T23:59").is_kept);

  const auto monthly = decided(sets, keeping(0, 0, 3), "2026-11-24T03:00");
  CHECK(why(monthly.at("2026-10-31T23:59")) == "keep: monthly 2 of 3 (2026-10)");
  CHECK(!monthly.at("2026-10-01T00:00").is_kept);
  CHECK(why(monthly.at("2026-09-30T23:59")) == "keep: monthly 3 of 3 (2026-09)");
  CHECK(!monthly.at("2026-11-22T23:59").is_kept);
}

TEST_CASE("a set may stay for several reasons, and all of them are said") {
  const auto all = decided({good("2026-11-24T02:00"), good("2026-11-22T02:00")}, keeping(7, 4, 12),
                           "2026-11-24T03:00");
  CHECK(why(all.at("2026-11-24T02:00")) ==
        "keep: daily 1 of 7 (2026-11-24); weekly 1 of 4 (week of 2026-11-23); "
        "monthly 1 of 12 (2026-11); the newest good one");
  CHECK(why(all.at("2026-11-22T02:00")) ==
        "keep: daily 2 of 7 (2026-11-22); weekly 2 of 4 (week of 2026-11-16)");
}

TEST_CASE("days without a set are not counted: after a pause all stays that had stayed") {
  std::vector<Candidate> sets;
  for (int day = 1; day <= 7; ++day) sets.push_back(good(fmt::format("2026-03-0{}T02:00", day)));
  for (const char* now : {"2026-03-07T03:00", "2026-11-24T03:00", "2099-01-01T00:00"}) {
    for (const auto& one : decided(sets, keeping(7, 0, 0), now)) {
      INFO(one.first << " at " << now);
      CHECK(one.second.is_kept);
    }
  }
}

TEST_CASE("recorded time decides, not the name") {
  const auto all = decided({good("2026-11-23T02:00", "20991231T235959-ffff"),
                            good("2026-11-24T02:00", "20200101T000000-0000")},
                           keeping(1, 0, 0), "2026-11-24T03:00");
  CHECK(all.at("20200101T000000-0000").is_kept);
  CHECK(!all.at("20991231T235959-ffff").is_kept);
}

TEST_CASE("the newest good set stays, whatever the policy says") {
  const auto all = decided({good("2020-01-01T02:00"), good("2020-01-02T02:00")}, keeping(0, 0, 0),
                           "2026-11-24T03:00");
  CHECK(why(all.at("2020-01-02T02:00")) == "keep: the newest good one");
  CHECK(all.at("2020-01-02T02:00").brief() == "newest good");
  CHECK(!all.at("2020-01-01T02:00").is_kept);
  CHECK(decide({}, keeping(7, 4, 12), at("2026-11-24T03:00")).empty());
}

TEST_CASE("a maximum age takes nothing that a month keeps") {
  auto policy = keeping(7, 4, 12);
  policy.max_age = 30 * kDay;
  const auto all =
      decided({good("2026-11-24T02:00"), good("2026-02-28T02:00")}, policy, "2026-11-24T03:00");
  CHECK(all.at("2026-02-28T02:00").is_kept);
}

TEST_CASE("a corrupt set takes no place: the newest good one of its day does") {
  const auto all = decided({corrupt("2026-11-24T14:00"), good("2026-11-24T02:00"),
                            good("2026-11-23T02:00"), corrupt("2026-11-22T02:00")},
                           keeping(2, 0, 0), "2026-11-24T15:00");
  CHECK(why(all.at("2026-11-24T14:00")) ==
        "keep: corrupt: not counted; kept until a newer one is good");
  CHECK(all.at("2026-11-24T14:00").is_odd);
  CHECK(all.at("2026-11-24T14:00").brief() == "not counted");
  CHECK(why(all.at("2026-11-24T02:00")) == "keep: daily 1 of 2 (2026-11-24); the newest good one");
  CHECK(why(all.at("2026-11-23T02:00")) == "keep: daily 2 of 2 (2026-11-23)");
  CHECK(why(all.at("2026-11-22T02:00")) ==
        "keep: corrupt: not counted; kept 7d for whoever looks into it");
}

TEST_CASE("a corrupt set goes after 7 days once a newer one is good") {
  struct Row {
    const char* now;
    const char* newer;  // a good set besides the one before it
    Millis max_age;
    bool is_kept;
  };
  const std::vector<Row> rows{
      {"2026-11-17T02:00", "2026-11-16T02:00", 400 * kDay, true},  // 7 days to the minute
      {"2026-11-17T02:01", "2026-11-16T02:00", 400 * kDay, false},
      {"2026-11-17T02:01", nullptr, 400 * kDay, true},            // no newer one
      {"2027-12-15T02:01", nullptr, 400 * kDay, false},           // but older than the most
      {"2026-11-12T02:01", "2026-11-11T02:00", 2 * kDay, false},  // the most is less than 7 days
      {"2026-11-11T02:01", "2026-11-11T02:00", 2 * kDay, true},
  };
  for (const auto& row : rows) {
    auto policy = keeping(7, 4, 12);
    policy.max_age = row.max_age;
    std::vector<Candidate> sets{corrupt("2026-11-10T02:00"), good("2026-11-09T02:00")};
    if (row.newer != nullptr) sets.push_back(good(row.newer));
    const auto all = decided(sets, policy, row.now);
    INFO(row.now << ": " << why(all.at("2026-11-10T02:00")));
    CHECK(all.at("2026-11-10T02:00").is_kept == row.is_kept);
    CHECK(all.at("2026-11-09T02:00").is_kept);
  }
  const auto last = decided({corrupt("2020-01-01T02:00"), corrupt("2020-01-02T02:00")},
                            keeping(7, 4, 12), "2026-11-24T03:00");
  for (const auto& one : last) {
    INFO(one.first);
    CHECK(why(one.second) == "keep: corrupt: not counted; kept because no set is good");
  }
  // What is good has none of what the corrupt one may still give back a part of.
  const auto other = decided({corrupt("2020-01-01T02:00"), only("2026-11-24T02:00", {"redis"})},
                             keeping(7, 4, 12), "2026-11-24T03:00");
  CHECK(other.at("2020-01-01T02:00").is_kept);
}

TEST_CASE("a set of long ago that is found corrupt today stays for 7 days") {
  auto one = corrupt("2026-02-24T02:00");
  one.found_at = at("2026-11-22T04:00");
  const std::vector<Candidate> sets{one, good("2026-11-29T02:00"), good("2026-11-20T02:00")};
  const auto is_kept = [&](const char* now) {
    return decided(sets, keeping(7, 4, 12), now).at("2026-02-24T02:00").is_kept;
  };
  CHECK(is_kept("2026-11-29T04:00"));
  CHECK_FALSE(is_kept("2026-11-29T04:01"));
}

TEST_CASE("the newest set that somebody has read is not pushed out by those nobody has") {
  auto read = good("2026-11-01T02:00");
  read.is_read = true;
  const auto all =
      decided({good("2026-11-24T02:00"), good("2026-11-23T02:00"), read, good("2026-10-01T02:00")},
              keeping(1, 0, 0), "2026-11-24T03:00");
  CHECK(why(all.at("2026-11-01T02:00")) == "keep: the newest verified one");
  CHECK_FALSE(all.at("2026-11-23T02:00").is_kept);
  CHECK_FALSE(all.at("2026-10-01T02:00").is_kept);
}

TEST_CASE("what cannot be read is never deleted and takes no place") {
  const auto all = decided(
      {unreadable("20100101T000000-aaaa"), good("2026-11-24T02:00"), good("2026-11-23T02:00")},
      keeping(1, 0, 0), "2026-11-24T03:00");
  CHECK(why(all.at("20100101T000000-aaaa")) ==
        "keep: not counted, and kept: its manifest cannot be read: no JSON");
  CHECK(all.at("20100101T000000-aaaa").is_odd);
  CHECK(!all.at("20100101T000000-aaaa").expires);
  CHECK(all.at("2026-11-24T02:00").is_kept);
  CHECK(!all.at("2026-11-23T02:00").is_kept);

  Candidate empty = good("2026-11-24T03:00", "empty");
  empty.parts.clear();
  const auto with =
      decided({empty, good("2026-11-24T02:00")}, keeping(1, 0, 0), "2026-11-24T03:30");
  CHECK(why(with.at("empty")) == "keep: not counted, and kept: it holds nothing that zx knows");
  CHECK(with.at("2026-11-24T02:00").is_kept);
}

TEST_CASE("a set of the future is kept and pushes out no other") {
  const auto sets = std::vector{good("2099-01-01T00:00"), good("2026-11-24T02:00"),
                                good("2026-11-23T02:00"), good("2026-11-22T02:00")};
  const auto all = decided(sets, keeping(2, 0, 0), "2026-11-24T03:00");
  CHECK(all.at("2099-01-01T00:00").is_kept);
  CHECK(!all.at("2099-01-01T00:00").is_counted);
  CHECK(all.at("2099-01-01T00:00").is_odd);
  CHECK(all.at("2099-01-01T00:00").reasons.front().find("of the future") != std::string::npos);
  CHECK(all.at("2026-11-24T02:00").reasons.back() == "the newest good one");
  CHECK(all.at("2026-11-23T02:00").is_kept);
  CHECK(!all.at("2026-11-22T02:00").is_kept);
  // Two hosts that differ by a minute are no future.
  const auto near = decided({good("2026-11-24T02:01")}, keeping(1, 0, 0), "2026-11-24T02:00");
  CHECK(near.at("2026-11-24T02:01").is_counted);
}

TEST_CASE("a clock that goes back a day deletes nothing that it would not have deleted before") {
  std::vector<Candidate> sets;
  for (int day = 10; day <= 24; ++day) sets.push_back(good(fmt::format("2026-11-{}T02:00", day)));
  const auto before = decided(sets, keeping(7, 0, 0), "2026-11-24T03:00");
  std::vector<Candidate> left;
  for (const auto& set : sets)
    if (before.at(set.id).is_kept) left.push_back(set);
  REQUIRE(left.size() == 7);
  for (const auto& one : decided(left, keeping(7, 0, 0), "2026-11-23T03:00")) {
    INFO(one.first << ": " << why(one.second));
    CHECK(one.second.is_kept);
  }
}

TEST_CASE("each part is kept by itself: a set of one part takes no whole set's place") {
  const auto all = decided(
      {only("2026-11-24T14:00", {"pg"}), good("2026-11-24T02:00"), good("2026-11-23T02:00")},
      keeping(1, 0, 0), "2026-11-24T15:00");
  CHECK(why(all.at("2026-11-24T14:00")) == "keep: daily 1 of 1 (2026-11-24); the newest good one");
  CHECK(why(all.at("2026-11-24T02:00")) ==
        "keep: daily 1 of 1 (2026-11-24), for files, redis; "
        "the newest good one with files, redis");
  CHECK(!all.at("2026-11-23T02:00").is_kept);

  // A whole one that is newer does take the place of a part.
  const auto whole = decided({good("2026-11-24T14:00"), only("2026-11-24T02:00", {"pg"})},
                             keeping(1, 0, 0), "2026-11-24T15:00");
  CHECK(!whole.at("2026-11-24T02:00").is_kept);
}

namespace {

struct Loop {
  config::Backup policy = keeping(7, 4, 12);
  std::vector<Candidate> left;  // what is in the repository
};

Day day_of(Wall moment) { return std::chrono::floor<std::chrono::days>(moment); }

// What the policy wants, said in another way: of the last `most` periods that have any, the newest.
std::set<std::string> wanted(const std::vector<Candidate>& sets, const config::Backup& policy) {
  std::set<std::string> ids;
  // "2026-11-24", the Monday of its week, "2026-11".
  const auto name = [](const Candidate& set, int rule) {
    const auto day = day_of(set.begun);
    if (rule == 0) return format_utc(set.begun).substr(0, 10);
    if (rule == 2) return format_utc(set.begun).substr(0, 7);
    const auto monday = day - (std::chrono::weekday(day) - std::chrono::Monday);
    return format_day(monday);
  };
  const int most[] = {policy.daily, policy.weekly, policy.monthly};
  for (int rule = 0; rule < 3; ++rule) {
    std::map<std::string, const Candidate*> newest;  // by period, which sorts as time does
    for (const auto& set : sets) {
      auto& held = newest[name(set, rule)];
      if (held == nullptr || held->begun < set.begun) held = &set;
    }
    int count = 0;
    for (auto one = newest.rbegin(); one != newest.rend() && count < most[rule]; ++one, ++count)
      ids.insert(one->second->id);
  }
  return ids;
}

// A prune at `now`: what it leaves is what the policy wants, and each set says why.
void prune(Loop& loop, Wall now) {
  const auto want = wanted(loop.left, loop.policy);
  const auto decisions = decide(loop.left, loop.policy, now);
  std::vector<Candidate> left;
  std::map<std::string, int> reasons;
  for (std::size_t i = 0; i < decisions.size(); ++i) {
    const auto& decision = decisions[i];
    INFO(format_utc(now) << " " << decision.id << " " << why(decision));
    REQUIRE(decision.is_kept == want.contains(decision.id));
    if (!decision.is_kept) continue;
    left.push_back(loop.left[i]);
    for (const auto& kept : decision.kept) {
      CHECK(kept.place >= 1);
      CHECK(kept.place <= kept.of);
      ++reasons[kept.words()];
      CHECK(std::count(decision.reasons.begin(), decision.reasons.end(), kept.words()) == 1);
    }
  }
  // No place is given twice.
  for (const auto& reason : reasons) {
    INFO(format_utc(now) << " " << reason.first);
    CHECK(reason.second == 1);
  }
  loop.left = std::move(left);
}

std::set<std::string> days_of(const std::vector<Candidate>& sets) {
  std::set<std::string> days;
  for (const auto& set : sets) days.insert(format_utc(set.begun).substr(0, 10));
  return days;
}

}  // namespace

TEST_CASE("over 400 days, one set a day, exactly 7 days, 4 weeks and 12 months stay") {
  // Over a leap day, 2028-02-29, and two changes to summer time and back, which UTC has not.
  Loop loop;
  const auto first = at("2027-10-01T02:00");
  std::map<std::string, Day> gone;
  std::map<std::string, std::set<Day>> promised;
  for (int day = 0; day < 400; ++day) {
    const auto begun = first + day * kDay;
    Candidate set = good(format_utc(begun).substr(0, 16));
    loop.left.push_back(set);
    const auto before = loop.left;
    prune(loop, begun + kHour);
    for (const auto& one : before)
      if (std::none_of(loop.left.begin(), loop.left.end(),
                       [&](const Candidate& other) { return other.id == one.id; }))
        gone[one.id] = day_of(begun);
    for (const auto& decision : decide(loop.left, loop.policy, begun + kHour)) {
      REQUIRE(decision.expires);
      promised[decision.id].insert(*decision.expires);
    }
  }
  CHECK(format_utc(first + 399 * kDay).starts_with("2028-11-03T02:00"));
  // By hand: the last week, the Sundays before, and the ends of months.
  CHECK(days_of(loop.left) ==
        std::set<std::string>{"2028-11-03", "2028-11-02", "2028-11-01", "2028-10-31", "2028-10-30",
                              "2028-10-29", "2028-10-28", "2028-10-22", "2028-10-15", "2028-09-30",
                              "2028-08-31", "2028-07-31", "2028-06-30", "2028-05-31", "2028-04-30",
                              "2028-03-31", "2028-02-29", "2028-01-31", "2027-12-31"});
  // Every set went on the day that was told, on each day that it was told.
  CHECK(gone.size() == 400 - loop.left.size());
  for (const auto& one : gone) {
    INFO(one.first << " went on " << format_day(one.second));
    const auto& told = promised[one.first];
    REQUIRE(told.size() == 1);
    CHECK(format_day(*told.begin()) == format_day(one.second));
  }
}

TEST_CASE("over 400 days with several sets a day and days without, the policy holds every day") {
  Loop loop;
  unsigned state = 20261124;
  const auto random = [&state](unsigned most) {
    state = state * 1'664'525u + 1'013'904'223u;
    return (state >> 16) % most;
  };
  const auto first = at("2027-10-01T00:00");
  std::set<std::string> days;
  for (int day = 0; day < 400; ++day) {
    const auto midnight = first + day * kDay;
    for (auto more = random(4); more > 0; --more) {  // often none
      const auto begun = midnight + Millis(random(86'000) * 1000);
      loop.left.push_back(good(format_utc(begun).substr(0, 16), format_utc(begun)));
      loop.left.back().begun = begun;
      days.insert(format_utc(begun).substr(0, 10));
    }
    prune(loop, midnight + kDay);
  }
  CHECK(days.size() < 330);
  CHECK(days.size() > 270);
  CHECK(loop.left.size() >= 17);
  CHECK(loop.left.size() <= 7 + 4 + 12);
  // The last seven days that had one are all there.
  const auto left = days_of(loop.left);
  int count = 0;
  for (auto day = days.rbegin(); count < 7; ++day, ++count) CHECK(left.contains(*day));
}

TEST_CASE("a policy with long periods tells a day far away") {
  const auto all = decided({good("2026-11-24T02:00"), good("2026-10-24T02:00")},
                           keeping(10'000, 10'000, 10'000), "2026-11-24T03:00");
  REQUIRE(all.at("2026-10-24T02:00").expires);
  CHECK(format_day(*all.at("2026-10-24T02:00").expires) == "2860-02-01");
}

}  // namespace zx::backup
