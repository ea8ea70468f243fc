// What the demonstration databases hold.
#pragma once

#include <string>
#include <vector>

namespace zx::lab {

[[nodiscard]] std::vector<std::string> database_names();
// For psql, connected to any database: makes them all, each with one table and its rows.
[[nodiscard]] std::string databases_sql();

}  // namespace zx::lab
