// Deletes the sets that no rule keeps, in two phases: first sets/ID is renamed into trash/ID, which
// takes the set away whole; then what is in trash/ is removed, and the archives that no set needs
// any more. Killed anywhere, the next prune or backup finishes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/backup/retention.h"

namespace zx::backup {

struct Pruned {
  std::vector<Entry> entries;         // newest first, as they were found
  std::vector<Decision> decisions;    // of each
  std::vector<std::string> deleted;   // ids; of a plan: those that would be
  std::uint64_t freed = 0;            // bytes of them, and of archives that they alone needed
  Repository::Swept finished;         // what runs that were killed had left; none of a plan
  std::vector<std::string> warnings;  // those of its sweeps too
};

// What prune() would do. Reads alone. Code::locked when another deletes for longer than `wait`.
[[nodiscard]] Result<Pruned> plan_prune(const Repository& repository, const config::Backup& policy,
                                        Wall now, const LockWait& wait = {});

// Deletes, of the sets that no rule keeps now, those that `agreed` names. Code::locked when a
// backup, a verification, a restore or another prune is at work for longer than `wait`.
[[nodiscard]] Result<Pruned> prune(const Repository& repository, const config::Backup& policy,
                                   Wall now, const std::vector<std::string>& agreed,
                                   const LockWait& wait = {});

}  // namespace zx::backup
