// The sets of a repository, and how a person reads of them.
#pragma once

#include <optional>
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

// The part of zx.toml ("pg main", "files uploads") that the good sets, newest first, have least
// lately; an empty name: zx.toml has none. Pure.
struct Stalest {
  std::string part;
  std::optional<Wall> point;             // a restore goes back to it; absent: no good set has it
  const backup::Entry* entry = nullptr;  // that has it
};
[[nodiscard]] Stalest stalest_of(const std::vector<const backup::Entry*>& good,
                                 const config::Config& config);

// What is typed to bring `newest` up, the newest good set, which is not always the one that zx
// backup verify takes by itself.
[[nodiscard]] std::string verify_restore_of(const backup::Entry& newest,
                                            const std::vector<backup::Entry>& entries);

}  // namespace zx::commands
