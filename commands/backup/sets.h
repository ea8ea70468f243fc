// The sets of a repository, and how a person reads of them.
#pragma once

#include <string>
#include <vector>

#include "commands/command.h"
#include "lib/backup/repository.h"
#include "lib/backup/retention.h"

namespace zx::commands {

// All sets, newest first, while nothing is deleted; a prune at work is waited for.
[[nodiscard]] Result<std::vector<backup::Entry>> read_sets(Env& env,
                                                           const backup::Repository& repository);
[[nodiscard]] std::vector<backup::Decision> decisions_of(const std::vector<backup::Entry>& entries,
                                                         const config::Backup& policy, Wall now);

// "4h", "1d": how old something is, in its largest unit.
[[nodiscard]] std::string short_age(Wall at, Wall now);
// "restored 1d ago", "corrupt: object 3".
[[nodiscard]] Cell trust_cell(const backup::Entry& entry, Wall now);
// What is wrong with a set, whole; empty: nothing that is known.
[[nodiscard]] std::string problem_of(const backup::Entry& entry);
// Of its objects; what it holds is not known: 0.
[[nodiscard]] std::uint64_t bytes_of(const backup::Entry& entry);

}  // namespace zx::commands
