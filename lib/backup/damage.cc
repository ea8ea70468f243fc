#include "lib/backup/damage.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/base/text.h"

namespace zx::backup {

Damages damaged_objects(const std::vector<Entry>& entries) {
  Damages damaged;
  for (const auto& entry : entries) {
    if (!entry.set) continue;
    // All of them: after the first a set that shares the object may have passed a look of its own.
    for (const auto& failure : believed(*entry.set, entry.checks).failures) {
      Check check;
      check.level = failure.level;
      check.at = failure.at;
      check.found_in = failure.found_in.empty() ? entry.id : failure.found_in;
      for (const auto& path : failure.damaged) {
        check.damaged = {path};
        damaged[path].push_back({entry.id, check});
      }
    }
  }
  return damaged;
}

void share_damage(std::vector<Entry>& entries) {
  const auto damaged = damaged_objects(entries);
  if (damaged.empty()) return;
  for (auto& entry : entries) {
    if (!entry.set) continue;
    const auto objects = entry.set->objects();
    for (std::size_t i = 0; i < objects.size(); ++i) {
      const auto found = damaged.find(objects[i].path);
      if (found == damaged.end()) continue;
      for (const auto& damage : found->second) {
        if (damage.set == entry.id || damage.check.found_in == entry.id) continue;
        auto check = damage.check;
        check.problem = fmt::format("object {}, {} is damaged, as was found in set {}", i + 1,
                                    shown(objects[i]), check.found_in);
        add_check(entry.checks, check);
      }
    }
  }
}

bool may_be_referred_to(const Entry& entry, const FilesPart& part) {
  const auto known = believed(*entry.set, entry.checks);
  return !contains(known.damaged, part.index.path) &&
         std::none_of(known.failures.begin(), known.failures.end(),
                      [](const Check& failure) { return failure.damaged.empty(); });
}

Set without_damage(const Set& set, const Damages& damaged) {
  auto rest = set;
  for (auto& part : rest.files)
    std::erase_if(part.archives,
                  [&](const Object& archive) { return damaged.contains(archive.path); });
  return rest;
}

}  // namespace zx::backup
