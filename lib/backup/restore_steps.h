// Private to this room: what the steps of a restore share.
#pragma once

#include <string>

#include "lib/backup/pg_load.h"
#include "lib/backup/restore.h"

namespace zx::backup {

// The primary of the cluster, as the role that zx connects as. Code::unreachable without one.
[[nodiscard]] Result<pg::Target> primary_target(const RestoreWorld& world,
                                                const std::string& cluster);
[[nodiscard]] Result<PgServer> primary_server(const RestoreWorld& world,
                                              const std::string& cluster);
// Of a plan's context.
[[nodiscard]] Result<Set> set_of(const RestoreWorld& world, const run::StepContext& context);

void add_load_actions(RestoreWorld& world, run::Actions& actions);
void add_swap_actions(RestoreWorld& world, run::Actions& actions);
void add_undo_actions(RestoreWorld& world, run::Actions& actions);

}  // namespace zx::backup
