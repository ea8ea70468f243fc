// Making a lab from nothing, in a directory that has been taken.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/lab/place.h"

namespace zx::lab {

struct Blueprint {
  Place place;
  std::vector<Lab::Member> members;  // PostgreSQL; the first becomes the primary
  std::vector<Lab::Member> redis;    // the first becomes the master
  std::vector<Lab::Member> sentinels;
  std::optional<os::User> user;  // whom servers run as; absent: oneself
  Deadline deadline;
  std::function<bool()> cancelled;
  Progress progress;
  std::string redis_settings;  // more lines of every Redis server's file
};

// How many of each kind.
struct Counts {
  int pg = 0;
  int redis = 0;
  int sentinels = 0;
};
// Members with a free port each; the addresses in `listen` in turn, or loopback for all.
// Code::usage when an address is none of this host.
[[nodiscard]] Result<std::vector<Lab::Member>> choose_members(
    const Counts& counts, const std::vector<std::string>& listen);
[[nodiscard]] std::vector<Lab::Member> members_of(const std::vector<Lab::Member>& members,
                                                  Server kind);

// Everything but the record. On an error servers may be left running.
[[nodiscard]] Status build(const Blueprint& blueprint);

[[nodiscard]] Status write_config(const Place& place, const std::vector<Lab::Member>& members);

// Runs `work(0)` … `work(count - 1)` beside each other, a few at a time; the first error in that
// order.
[[nodiscard]] Status in_parallel(int count, const std::function<Status(int)>& work);

}  // namespace zx::lab
