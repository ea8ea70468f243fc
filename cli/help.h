// Help made from the CLI11 tree and the documentation of the leaves. No line is wider than 80
// columns as long as the words in it are not.
#pragma once

#include <string>

#include "cli/describe.h"

namespace zx::cli {

// Of the whole, a group or a leaf, whichever `place` is.
[[nodiscard]] std::string help_text(const commands::Tree& tree, const Place& place);
// Usage and the commands to choose from, for a command line that ended too early.
[[nodiscard]] std::string short_help(const commands::Tree& tree, const Place& place);
// A shell command broken with backslashes where it is wider than `width`; further lines are
// indented by two more columns.
[[nodiscard]] std::string wrap_command(std::string_view command, std::size_t width,
                                       std::string_view indent);

}  // namespace zx::cli
