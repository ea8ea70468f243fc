// The query by which a server is asked for all that zx judges by, and its answer as facts.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/pg/connection.h"
#include "lib/pg/facts.h"

namespace zx::pg {

// One row, one round trip.
[[nodiscard]] const std::string& facts_query();

// The names of its columns, in order.
[[nodiscard]] std::vector<std::string_view> facts_columns();

// The row as facts. What is missing or of another type is no fact; a row that does not say whether
// the server is in recovery is an error that names `facts.name`. Pure.
[[nodiscard]] Status read_facts(const Row& row, NodeFacts& facts);

}  // namespace zx::pg
