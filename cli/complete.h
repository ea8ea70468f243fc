// Completion: the shells ask `zx __complete -- WORDS…`, so that one place knows the commands, their
// flags and the names in the configuration.
#pragma once

#include <string>
#include <vector>

#include "commands/command.h"

namespace zx::cli {

inline constexpr const char* kCompleteCommand = "__complete";

// Prints the candidates for the last of `words` (those after `zx`; a `--` in front is dropped), one
// a line: the whole word, and after a tab what it is. The single line ":file" or ":dir" leaves the
// work to the shell. Reads the configuration and the names of journals, nothing of the network.
// Ends the process after 250 ms, or the seconds of $ZX_COMPLETE_TIMEOUT: nobody waits for a tab.
void complete(const commands::Tree& tree, const CLI::App& root, std::vector<std::string> words);

[[nodiscard]] std::string bash_completion();
[[nodiscard]] std::string zsh_completion();
[[nodiscard]] std::string fish_completion();

}  // namespace zx::cli
