// Private to lib/ha: what the prepare_*() of pg_chain.h share.
#pragma once

#include <string>

#include "lib/ha/pg_chain.h"

namespace zx::ha {

// Code::not_found, with the nodes that there are; `flag` is the word that named it.
[[nodiscard]] Status known_node(const PgWorld& world, const std::string& name, const char* flag);
// Null when none or several serve.
[[nodiscard]] const pg::NodeFacts* only_primary(const View& view);

}  // namespace zx::ha
