// Damage that was found in one set and concerns others: they refer to the same archives. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/backup/repository.h"

namespace zx::backup {

// The paths of objects that a set is corrupt for, and the check that found it.
struct Damage {
  std::string set;
  Check check;
};
[[nodiscard]] std::map<std::string, Damage> damaged_objects(const std::vector<Entry>& entries);

// Adds what was found in another set to the checks of every set that needs the same object, in the
// order of time: a later look of its own that passes clears it as any other.
void share_damage(std::vector<Entry>& entries);

// The set without the archives of files that are damaged: what lay there is stored again by whoever
// takes it for what is stored already.
[[nodiscard]] Set without_damage(const Set& set, const std::map<std::string, Damage>& damaged);

}  // namespace zx::backup
