#include "lib/backup/damage.h"

#include <algorithm>

#include <fmt/format.h>

namespace zx::backup {

std::map<std::string, Damage> damaged_objects(const std::vector<Entry>& entries) {
  std::map<std::string, Damage> damaged;
  for (const auto& entry : entries) {
    if (!entry.set) continue;
    const auto known = believed(*entry.set, entry.checks);
    if (known.trust != Trust::corrupt) continue;
    Check check;
    check.level = Level::checksum;
    check.at = known.at;
    for (const auto& path : known.damaged) {
      check.damaged = {path};
      damaged.emplace(path, Damage{entry.id, check});
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
      if (found == damaged.end() || found->second.set == entry.id) continue;
      auto check = found->second.check;
      check.problem = fmt::format("object {}, {} is damaged, as was found in set {}", i + 1,
                                  shown(objects[i]), found->second.set);
      const auto later = std::find_if(entry.checks.begin(), entry.checks.end(),
                                      [&](const Check& one) { return one.at > check.at; });
      entry.checks.insert(later, std::move(check));
    }
  }
}

Set without_damage(const Set& set, const std::map<std::string, Damage>& damaged) {
  auto rest = set;
  for (auto& part : rest.files)
    std::erase_if(part.archives,
                  [&](const Object& archive) { return damaged.contains(archive.path); });
  return rest;
}

}  // namespace zx::backup
