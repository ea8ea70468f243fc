// What each step of a plan for PostgreSQL does: guard, act, verify, undo.
#pragma once

#include <string>

#include "lib/ha/pg_world.h"
#include "lib/run/executor.h"

namespace zx::ha {

// `world` must outlive the actions.
[[nodiscard]] run::Actions pg_actions(PgWorld& world);

}  // namespace zx::ha
