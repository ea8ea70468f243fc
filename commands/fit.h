// Tables that fit a screen: what is too wide goes on in the rows below, nothing is cut off.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "commands/command.h"

namespace zx::commands {

inline constexpr std::size_t kColumns = 100;

// Broken at spaces, and a word that is wider than `width` after a slash of it.
[[nodiscard]] std::vector<std::string> lines_within(std::string_view text, std::size_t width);

// Breaks the cells of two columns when the table is wider than kColumns: those of `first` where
// they are wider than `most`, those of `last` so that the rest fits. The same column twice: only
// the latter.
void fit(Table& table, std::size_t first, std::size_t most, std::size_t last);
// Of one column.
inline void fit(Table& table, std::size_t column) { fit(table, column, kColumns, column); }

}  // namespace zx::commands
