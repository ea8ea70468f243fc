// Damage that was found in one set and concerns others: they refer to the same archives. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/backup/repository.h"

namespace zx::backup {

// A check that names an object as damaged, of a set that is corrupt for it.
struct Damage {
  std::string set;
  Check check;
};
// By the path of the object.
using Damages = std::map<std::string, std::vector<Damage>>;
[[nodiscard]] Damages damaged_objects(const std::vector<Entry>& entries);

// Adds what was found in another set to the checks of every set that needs the same object, at its
// level and in the order of time: a later look of its own that passes clears it as any other.
void share_damage(std::vector<Entry>& entries);

// Is the index of that part of the set good, and known which archives are not?
[[nodiscard]] bool may_be_referred_to(const Entry& entry, const FilesPart& part);

// The set without the archives of files that are damaged: what lay there is stored again by whoever
// takes it for what is stored already.
[[nodiscard]] Set without_damage(const Set& set, const Damages& damaged);

}  // namespace zx::backup
